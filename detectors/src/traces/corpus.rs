//! The traces of a training by shape: what a network that learns structure is shown.
//!
//! Most traces of a service are alike. So each shape is shown as often as the root of its count, which makes the rare ways of
//! normal operation known too, and a training takes time by the number of its shapes, not of its traces. Memory: a number a
//! trace, and each distinct shape once while traces are sorted by it.

use std::cmp::Reverse;

use faultline_core::TraceWindow;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;

use super::sequence::{Labels, Sequence};

/// Showings of one shape in one pass over all.
const MAX_DRAWS: f64 = 64.0;

/// Of each trace its shape, as a number.
#[derive(Debug)]
pub(crate) struct Shapes {
    of: Vec<u32>,
    n_shapes: usize,
}

impl Shapes {
    /// The shapes of traces that are whole, their first `max_steps` spans.
    pub fn of(traces: &[&TraceWindow<'_>], labels: &Labels, max_steps: usize) -> Self {
        let (mut known, mut sequence, mut shape) =
            (FxHashMap::<Box<[u32]>, u32>::default(), Sequence::default(), Vec::new());
        let mut of = Vec::with_capacity(traces.len());
        for trace in traces {
            sequence.take(labels, trace, max_steps);
            sequence.shape(&mut shape);
            let next = known.len() as u32;
            let own = match known.get(&shape[..]) {
                Some(&own) => own,
                None => {
                    known.insert(shape.as_slice().into(), next);
                    next
                }
            };
            of.push(own);
        }
        Self { of, n_shapes: known.len() }
    }
}

/// The traces of one shape.
#[derive(Debug)]
pub(crate) struct Group {
    /// Some of them, evenly spread, as indices.
    pub members: Vec<u32>,
    /// How many there are.
    pub n_traces: usize,
    /// How often it is shown in one pass over all.
    pub n_draws: usize,
}

/// Traces by shape, the most frequent shapes first.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub groups: Vec<Group>,
}

impl Corpus {
    /// The `max_shapes` most frequent shapes of some of the traces, with at most `max_members` of each.
    pub fn of(shapes: &Shapes, traces: impl Iterator<Item = usize>, max_shapes: usize, max_members: usize) -> Self {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); shapes.n_shapes];
        for trace in traces {
            members[shapes.of[trace] as usize].push(trace as u32);
        }
        members.retain(|members| !members.is_empty());
        members.sort_by_key(|members| (Reverse(members.len()), members[0]));
        members.truncate(max_shapes);
        let group = |members: Vec<u32>| {
            let n_traces = members.len();
            let stride = n_traces.div_ceil(max_members.max(1));
            let n_draws = (n_traces as f64).sqrt().round().clamp(1.0, MAX_DRAWS) as usize;
            Group { members: members.into_iter().step_by(stride).collect(), n_traces, n_draws }
        };
        Self { groups: members.into_iter().map(group).collect() }
    }

    /// Showings in one pass over all.
    pub fn n_draws(&self) -> usize {
        self.groups.iter().map(|group| group.n_draws).sum()
    }
}

/// Shows the traces of a corpus, pass after pass, each in a new order; of a shape each member in turn.
#[derive(Debug)]
pub(crate) struct Draws<'a> {
    corpus: &'a Corpus,
    order: Vec<usize>,
    next: usize,
    turns: Vec<usize>,
}

impl<'a> Draws<'a> {
    /// Of a corpus with a shape at least.
    pub fn of(corpus: &'a Corpus) -> Self {
        let times = |(idx, group): (usize, &Group)| std::iter::repeat_n(idx, group.n_draws);
        let order: Vec<usize> = corpus.groups.iter().enumerate().flat_map(times).collect();
        Self { corpus, next: order.len(), order, turns: vec![0; corpus.groups.len()] }
    }

    /// The next trace, as an index.
    pub fn draw(&mut self, rng: &mut ChaCha8Rng) -> u32 {
        if self.next >= self.order.len() {
            self.order.shuffle(rng);
            self.next = 0;
        }
        let group = self.order[self.next];
        self.next += 1;
        let members = &self.corpus.groups[group].members;
        let member = members[self.turns[group] % members.len()];
        self.turns[group] += 1;
        member
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::testing::TraceFixture;

    #[test]
    fn shapes_are_shown_the_root_of_their_count_times_and_their_traces_in_turn() {
        let of = |idx: usize| {
            let rows: &[(Option<u32>, &str, i64, i64)] =
                if idx % 10 == 9 { &[(None, "a", 0, 9), (Some(0), "b", 1, 2)] } else { &[(None, "a", 0, 9)] };
            TraceFixture::of(&format!("t{idx}"), rows)
        };
        let fixtures: Vec<TraceFixture> = (0..110).map(of).collect();
        let windows: Vec<TraceWindow<'_>> = fixtures.iter().map(TraceFixture::trace).collect();
        let traces: Vec<&TraceWindow<'_>> = windows.iter().collect();
        let (labels, _) = Labels::learn(&traces, 10);
        let shapes = Shapes::of(&traces, &labels, 100);
        let corpus = Corpus::of(&shapes, 0..110, 10, 4);
        let sizes = |corpus: &Corpus| -> Vec<(usize, usize, usize)> {
            corpus.groups.iter().map(|group| (group.n_traces, group.n_draws, group.members.len())).collect()
        };
        assert_eq!(sizes(&corpus), [(99, 10, 4), (11, 3, 4)]);
        assert_eq!(corpus.groups[1].members, [9, 39, 69, 99], "evenly spread");
        assert_eq!(sizes(&Corpus::of(&shapes, (0..110).step_by(2), 1, 4)), [(55, 7, 4)]);
        let (mut draws, mut rng) = (Draws::of(&corpus), ChaCha8Rng::seed_from_u64(1));
        let mut shown: Vec<u32> = (0..2 * corpus.n_draws()).map(|_| draws.draw(&mut rng)).collect();
        shown.retain(|trace| trace % 10 == 9);
        assert_eq!(shown, [9, 39, 69, 99, 9, 39], "three in each pass");
    }
}
