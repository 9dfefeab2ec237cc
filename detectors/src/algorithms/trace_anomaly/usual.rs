//! What is usual: how unlikely the traces of the training are, by kind, and what a path that it did not have weighs.
//!
//! A trace of three hundred paths is less likely by hundreds of nats than one of two, and a kind whose times scatter less likely
//! than one whose do not. So a score is how far a trace is beyond the median of its kind, in units of how far the .95 quantile is.
//! A kind of few traces does not have a quantile; it takes at least that of all traces, each held against the median of its own.

use crate::algorithms::trace_vector::{Kinds, PathVector};

/// Traces of a kind that are judged to learn what is usual, evenly spread.
const MAX_OF_KIND: usize = 256;

/// Traces of all kinds that are: a bound on time.
const MAX_JUDGED: usize = 8_192;

/// Traces below which a kind has no quantile of its own.
const MIN_OF_KIND: usize = 20;

/// Added to how far the quantile is, nats: what chance is between two that are alike.
const LEEWAY: f64 = 5.0;

/// What the traces of a kind are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// Median of their −ln p, nats.
    pub median: f64,
    /// From there to the .95 quantile and a little more, nats.
    pub reach: f64,
}

/// What is usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// In all traces.
    pub overall: Usual,
    /// By kind; empty where scores are −ln p itself.
    pub of_kind: Vec<Usual>,
    /// Score of a trace that takes a path that no trace had: where others had such paths, what as few others scored.
    pub unseen: Option<f64>,
}

/// −ln p of a trace in training, its kind where that is known, and how many traces it stands for.
#[derive(Clone, Copy, Debug)]
struct Judged {
    nats: f64,
    kind: Option<usize>,
    weight: f64,
}

impl Scale {
    /// The scale of scores, given −ln p of a trace by its index, and how many traces of the training have a path that no other
    /// has.
    pub fn of(
        kinds: &Kinds,
        vectors: &[PathVector<'_>],
        by_kind: bool,
        n_alone: usize,
        nats: impl FnMut(usize) -> f64,
    ) -> Self {
        let judged = judge(kinds, vectors, nats);
        let median = quantile(judged.iter().map(|own| (own.nats, own.weight)), 0.5);
        let above = quantile(judged.iter().map(|own| (own.nats - median, own.weight)), 0.95);
        let overall = Usual { median, reach: above.max(0.0) + LEEWAY };
        let mut scale = Self { overall, of_kind: Vec::new(), unseen: None };
        if by_kind {
            let mut of_kind = vec![Vec::new(); kinds.size().0];
            for own in &judged {
                if let Some(kind) = own.kind {
                    of_kind[kind].push(*own);
                }
            }
            let medians: Vec<f64> =
                of_kind.iter().map(|all| quantile(all.iter().map(|own| (own.nats, 1.0)), 0.5)).collect();
            let beyond = |own: &Judged| Some((own.nats - medians[own.kind?], own.weight));
            let typical = quantile(judged.iter().filter_map(beyond), 0.95).max(0.0);
            scale.of_kind = of_kind
                .iter()
                .zip(&medians)
                .map(|(all, &median)| {
                    let own = quantile(all.iter().map(|own| (own.nats - median, 1.0)), 0.95).max(0.0);
                    let reach = if all.len() < MIN_OF_KIND { own.max(typical) } else { own };
                    if all.is_empty() { overall } else { Usual { median, reach: reach + LEEWAY } }
                })
                .collect();
        }
        if n_alone > 0 {
            let mut scores: Vec<(f64, f64)> =
                judged.iter().map(|own| (scale.score(own.nats, own.kind), own.weight)).collect();
            scores.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
            let mut n_above = 0.0;
            let found = scores.iter().find(|score| {
                n_above += score.1;
                n_above >= n_alone as f64
            });
            scale.unseen = found.or(scores.last()).map(|score| score.0);
        }
        scale
    }

    /// What is usual of a kind.
    pub fn usual(&self, kind: Option<usize>) -> Usual {
        kind.and_then(|kind| self.of_kind.get(kind)).copied().unwrap_or(self.overall)
    }

    /// The score of a trace of −ln p and a kind.
    pub fn score(&self, nats: f64, kind: Option<usize>) -> f64 {
        if self.of_kind.is_empty() {
            return nats;
        }
        let usual = self.usual(kind);
        (nats - usual.median) / usual.reach
    }
}

/// Judges some traces of each kind, frequent kinds first, and of those without a kind.
fn judge(kinds: &Kinds, vectors: &[PathVector<'_>], mut nats: impl FnMut(usize) -> f64) -> Vec<Judged> {
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); kinds.size().0 + 1];
    for (row, vector) in vectors.iter().enumerate() {
        let known = kinds.judge(vector).filter(|found| found.distance == 0).and_then(|found| found.kind);
        rows[known.unwrap_or(kinds.size().0)].push(row);
    }
    let mut judged = Vec::new();
    for (kind, rows) in rows.iter().enumerate() {
        let stride = rows.len().div_ceil(MAX_OF_KIND).max(1);
        for chunk in rows.chunks(stride) {
            if judged.len() < MAX_JUDGED {
                let kind = Some(kind).filter(|kind| *kind < kinds.size().0);
                judged.push(Judged { nats: nats(chunk[0]), kind, weight: chunk.len() as f64 });
            }
        }
    }
    judged.retain(|own| own.nats.is_finite());
    judged
}

/// The least of some weighted values that a share of the weight does not exceed; 0 where there is none.
fn quantile(values: impl Iterator<Item = (f64, f64)>, share: f64) -> f64 {
    let mut values: Vec<(f64, f64)> = values.collect();
    values.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let wanted = share * values.iter().map(|value| value.1).sum::<f64>();
    let mut below = 0.0;
    let found = values.iter().find(|value| {
        below += value.1;
        below >= wanted
    });
    found.or(values.last()).map_or(0.0, |value| value.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::trace_vector;

    /// Two hundred traces of one kind, fifty of another, and one alone.
    fn traces() -> Vec<Vec<u64>> {
        let mut traces = vec![vec![1, 2]; 200];
        traces.extend(vec![vec![1, 3]; 50]);
        traces.push(vec![1, 4]);
        traces
    }

    fn scale(by_kind: bool, nats: impl FnMut(usize) -> f64) -> (Kinds, Scale) {
        let traces = traces();
        let vectors: Vec<PathVector<'_>> =
            traces.iter().map(|paths| PathVector { root: 1, paths, ms: &[2.0, 1.0] }).collect();
        let kinds = Kinds::fit(&trace_vector::Config::default(), &vectors).expect("there are traces");
        let scale = Scale::of(&kinds, &vectors, by_kind, 1, nats);
        (kinds, scale)
    }

    #[test]
    fn each_kind_is_held_against_itself() {
        // 0 to 199, then a thousand and 0 to 49.
        let nats = |row: usize| if row < 200 { row as f64 } else { 1_000.0 + (row - 200) as f64 };
        let (_, scale) = scale(true, nats);
        let expected = [
            Usual { median: 99.0, reach: 90.0 + LEEWAY },
            Usual { median: 1_024.0, reach: 23.0 + LEEWAY },
            Usual { median: 1_050.0, reach: 90.0 + LEEWAY },
        ];
        assert_eq!(scale.of_kind[..2], expected[..2]);
        assert_eq!(scale.of_kind[2].median, expected[2].median);
        assert!((scale.of_kind[2].reach - expected[2].reach).abs() < 5.0, "that of all: {:?}", scale.of_kind[2]);
        assert_eq!(scale.score(1_024.0 + 28.0, Some(1)), 1.0);
        assert_eq!(scale.usual(None), scale.overall);
        assert_eq!(scale.usual(Some(77)), scale.overall);
    }

    #[test]
    fn without_kinds_a_score_is_the_likelihood_and_what_is_unseen_weighs_as_much_as_what_is_as_seldom() {
        let (_, plain) = scale(false, |row| row as f64);
        assert_eq!((plain.of_kind.len(), plain.score(7.5, Some(0))), (0, 7.5));
        assert_eq!(plain.unseen, Some(250.0), "one had a path of its own, and one scored as much");
        let (_, odd) = scale(true, |row| if row % 2 == 0 { f64::NAN } else { 3.0 });
        assert!(odd.of_kind.iter().all(|own| own.median.is_finite() && own.reach > 0.0));
    }

    #[test]
    fn a_quantile_counts_weights() {
        let values = [(3.0, 1.0), (1.0, 8.0), (2.0, 1.0)];
        let at = |share: f64| quantile(values.into_iter(), share);
        assert_eq!([0.0, 0.5, 0.8, 0.85, 0.95, 1.0].map(at), [1.0, 1.0, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!(quantile(std::iter::empty(), 0.5), 0.0);
    }
}
