//! What times are usual: a median for each operation and call, and by how much traces differ from theirs.
//!
//! Times are kept as thousandths of a natural logarithm, two bytes each, the latest [`KEPT`] of a name and no more than
//! [`OF_WINDOW`] of one window: a busy name forgets what is eight steps old, a seldom one remembers for long.

use faultline_core::{Part, ServiceEntry, ServiceWindow, hash::StableHash};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Added to the milliseconds before the logarithm: differences below a fifth of a millisecond are noise of timers.
pub const SOFTENED_MS: f64 = 0.2;

/// Residuals of single times end here: one wild call is worth a factor of e^7 at most.
const CLIP: (f64, f64) = (-2.0, 7.0);

/// Least scatter between traces that is believed, and what is taken for it until there are [`ENOUGH`].
const LEAST_SCATTER: f64 = 0.8;
const UNKNOWN_SCATTER: f64 = 1.2;

/// Scatter of a service's median between steps.
const BETWEEN_STEPS: f64 = 0.25;

/// Variance of a median of n over that of a mean of n.
const MEDIAN_VARIANCE: f64 = 1.57;

/// Times of a name without which it is not judged.
const FEWEST: usize = 3;
/// Traces of a service without which their scatter is not known.
const ENOUGH: usize = 10;

/// Values kept of each name, and of each part of a service.
const KEPT: usize = 512;
/// Of these, how many one window gives at most, evenly taken from it.
const OF_WINDOW: usize = 64;

/// The latest values, thousandths of a natural logarithm.
#[derive(Clone, Debug, Default)]
struct Ring {
    values: Vec<i16>,
    /// Place of the oldest once it is full.
    oldest: usize,
}

impl Ring {
    fn of(mut values: Vec<i16>) -> Self {
        values.truncate(KEPT);
        Self { values, oldest: 0 }
    }

    /// Takes the values of one window.
    fn take(&mut self, values: &[i16]) {
        let n = values.len().min(OF_WINDOW);
        for idx in 0..n {
            let value = values[idx * values.len() / n];
            if self.values.len() < KEPT {
                self.values.push(value);
            } else {
                self.values[self.oldest] = value;
                self.oldest = (self.oldest + 1) % KEPT;
            }
        }
    }

    /// The oldest first.
    fn in_order(&self) -> Vec<i16> {
        let (late, early) = self.values.split_at(self.oldest);
        [early, late].concat()
    }

    /// Half way between the two in the middle, as a logarithm.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted: Vec<f64> = self.values.iter().map(|value| f64::from(*value) / 1e3).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        quantile(&sorted, share)
    }
}

/// The quantile of sorted values, linear between them; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let below = (at as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (at - below as f64) * (sorted[above] - sorted[below])
}

fn thousandths(value: f64) -> i16 {
    (value * 1e3).round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

/// The logarithm of a time.
fn logarithm(nanos: i64) -> f64 {
    (nanos.max(0) as f64 / 1e6 + SOFTENED_MS).ln()
}

#[derive(Debug, Default)]
struct Name {
    ring: Ring,
    median: Option<f64>,
}

impl Name {
    fn of(ring: Ring) -> Self {
        let median = (ring.values.len() >= FEWEST).then(|| ring.quantile(0.5));
        Self { ring, median }
    }
}

#[derive(Debug)]
struct Scatter {
    ring: Ring,
    scatter: f64,
}

impl Scatter {
    fn of(ring: Ring) -> Self {
        let scatter = if ring.values.len() >= ENOUGH {
            // Of a normal distribution the .95 quantile lies 1.645 deviations above the median.
            ((ring.quantile(0.95) - ring.quantile(0.5)) / 1.645).max(LEAST_SCATTER)
        } else {
            UNKNOWN_SCATTER
        };
        Self { ring, scatter }
    }
}

/// What is said of one service within one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The part that stands out most.
    pub part: Part,
    /// By how many standard errors its median lies above what is usual.
    pub z: f64,
    /// The median, over traces, of the logarithm of how many times as long as usual they took.
    pub median: f64,
    /// Traces that have a say.
    pub n_traces: usize,
    /// Index of the time that is longest in proportion.
    pub culprit: usize,
}

/// See the file's documentation.
#[derive(Debug, Default)]
pub struct Baseline {
    names: FxHashMap<u64, Name>,
    scatters: FxHashMap<u64, Scatter>,
}

/// A baseline as it is written.
#[derive(Serialize, Deserialize)]
pub struct Written {
    names: Vec<(u64, Vec<i16>)>,
    scatters: Vec<(u64, Vec<i16>)>,
}

impl Baseline {
    /// Names, and parts of services, that it knows.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        (self.names.len(), self.scatters.len())
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The usual milliseconds of an entry's operation or call, where they are known.
    pub fn usual_ms(&self, window: &ServiceWindow<'_>, entry: &ServiceEntry) -> Option<f64> {
        Some(self.median(window, entry)?.exp() - SOFTENED_MS)
    }

    /// What stands out most in a window; nothing where nothing of it is known.
    pub fn judge(&self, window: &ServiceWindow<'_>) -> Option<Finding> {
        let mut worst: Option<Finding> = None;
        for part in Part::ALL {
            let (mut means, culprit) = self.means(window, part);
            let Some(culprit) = culprit else { continue };
            means.sort_unstable_by(f64::total_cmp);
            let (n_traces, median) = (means.len(), quantile(&means, 0.5));
            let known = self.scatters.get(&key_of(window.service, part));
            let scatter = known.map_or(UNKNOWN_SCATTER, |known| known.scatter);
            let error = (MEDIAN_VARIANCE * scatter.powi(2) / n_traces as f64 + BETWEEN_STEPS.powi(2)).sqrt();
            let found = Finding { part, z: median / error, median, n_traces, culprit };
            if worst.is_none_or(|worst| found.z > worst.z) {
                worst = Some(found);
            }
        }
        worst
    }

    /// Learns a window. Names and services beyond the limits stay unknown.
    pub fn learn(&mut self, window: &ServiceWindow<'_>, max_names: usize, max_services: usize) {
        for (key, values) in self.by_name(window) {
            if self.names.len() >= max_names && !self.names.contains_key(&key) {
                continue;
            }
            let name = self.names.entry(key).or_default();
            name.ring.take(&values);
            *name = Name::of(std::mem::take(&mut name.ring));
        }
        for part in Part::ALL {
            let (means, _) = self.means(window, part);
            let key = key_of(window.service, part);
            let is_full = self.scatters.len() >= max_services.saturating_mul(Part::ALL.len());
            if means.is_empty() || (is_full && !self.scatters.contains_key(&key)) {
                continue;
            }
            let values: Vec<i16> = means.into_iter().map(thousandths).collect();
            let scatter = self.scatters.entry(key).or_insert_with(|| Scatter::of(Ring::default()));
            scatter.ring.take(&values);
            *scatter = Scatter::of(std::mem::take(&mut scatter.ring));
        }
    }

    /// Takes what a window has for what is usual, whatever was before. Says how many names that changed.
    pub fn adopt(&mut self, window: &ServiceWindow<'_>) -> usize {
        let mut n_changed = 0;
        for (key, values) in self.by_name(window) {
            let Some(name) = self.names.get_mut(&key) else { continue };
            let repeated = values.iter().copied().cycle().take(values.len().max(FEWEST));
            *name = Name::of(Ring::of(repeated.collect()));
            n_changed += 1;
        }
        n_changed
    }

    /// All there is to keep, in order.
    pub fn write(&self) -> Written {
        let names = self.names.iter().map(|(key, name)| (*key, name.ring.in_order()));
        let scatters = self.scatters.iter().map(|(key, scatter)| (*key, scatter.ring.in_order()));
        let mut written = Written { names: names.collect(), scatters: scatters.collect() };
        written.names.sort_unstable_by_key(|(key, _)| *key);
        written.scatters.sort_unstable_by_key(|(key, _)| *key);
        written
    }

    /// What [`Self::write`] gave.
    pub fn read(written: Written) -> Self {
        let names = written.names.into_iter().map(|(key, values)| (key, Name::of(Ring::of(values))));
        let scatters = written.scatters.into_iter().map(|(key, values)| (key, Scatter::of(Ring::of(values))));
        Self { names: names.collect(), scatters: scatters.collect() }
    }

    fn median(&self, window: &ServiceWindow<'_>, entry: &ServiceEntry) -> Option<f64> {
        self.names.get(&key_of_entry(window, entry)?)?.median
    }

    /// Of each trace the mean of how far its times of this part are from usual, and the time that is farthest.
    fn means(&self, window: &ServiceWindow<'_>, part: Part) -> (Vec<f64>, Option<usize>) {
        let mut sums: Vec<(u32, f64, u32)> = Vec::new();
        let mut farthest: Option<(usize, f64)> = None;
        for (idx, entry) in window.entries.iter().enumerate().filter(|(_, entry)| entry.part == part) {
            let Some(median) = self.median(window, entry) else { continue };
            let residual = (logarithm(entry.nanos) - median).clamp(CLIP.0, CLIP.1);
            match sums.last_mut().filter(|last| last.0 == entry.trace) {
                Some((_, sum, n)) => (*sum, *n) = (*sum + residual, *n + 1),
                None => sums.push((entry.trace, residual, 1)),
            }
            if farthest.is_none_or(|(_, most)| residual > most) {
                farthest = Some((idx, residual));
            }
        }
        (sums.into_iter().map(|(_, sum, n)| sum / f64::from(n)).collect(), farthest.map(|(idx, _)| idx))
    }

    /// The times of each name, names in the order of their keys.
    fn by_name(&self, window: &ServiceWindow<'_>) -> Vec<(u64, Vec<i16>)> {
        let keyed = |entry: &ServiceEntry| Some((key_of_entry(window, entry)?, thousandths(logarithm(entry.nanos))));
        let mut times: Vec<(u64, i16)> = window.entries.iter().filter_map(keyed).collect();
        times.sort_by_key(|(key, _)| *key);
        let runs = times.chunk_by(|one, other| one.0 == other.0);
        runs.map(|run| (run[0].0, run.iter().map(|(_, value)| *value).collect())).collect()
    }
}

/// Each part of a call has a median of its own, since each service learns by itself.
fn key_of_entry(window: &ServiceWindow<'_>, entry: &ServiceEntry) -> Option<u64> {
    const TAGS: [u64; 3] = [0, 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];
    Some(window.name(entry)?.hash ^ TAGS[entry.part as usize])
}

fn key_of(service: &str, part: Part) -> u64 {
    StableHash::new().text(service).number(part as u64).finish()
}
