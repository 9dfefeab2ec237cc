//! Seer: which service causes the next stretch of slow answers, before it begins.
//!
//! Time is cut into ticks of [`TICK`]. A tick breaks the promise if at least [`LEAST`] requests begin in it and a
//! quarter of them takes three times the median of their operation, over all data: a promise that an operator would
//! have written down. Such ticks with gaps of at most half a minute are one violation; its culprit is the fault in
//! whose time it begins. What begins at no fault's time is no example, since nobody knows its culprit. Minutes that are
//! not there end a recording, so that a queue is not taken to be empty.
//!
//! A row counts ticks: those within the horizon of a violation's beginning, against those at which one was foreseen.
//! Beside it stands a rule: the service whose depth is furthest above its mean, from four deviations on.

use std::sync::Arc;

use faultline_core::TraceWindow;
use faultline_datasets::{Confusion, ProtocolInfo, ResultRow, Usage, loaders::nezha::Fault, usage::reset_peak_rss};
use faultline_detectors::supervised::seer::{Config, Example, Seer, Violation, depth::Depths, examples};
use rustc_hash::FxHashMap;

use super::{Case, FOLDS, SECOND, SEER, nearest};

const TICK: i64 = 5 * SECOND;

/// Ticks from one slow tick to the next that belong to the same violation.
const GAP: usize = 6;

/// Silence after which a recording ends.
const SILENCE: i64 = 60 * SECOND;

/// Requests in a tick, at least, and the share of them that has to be slow.
const LEAST: usize = 2;
const SHARE: f64 = 0.25;

/// Times the median that a slow request takes.
const SLOW: f64 = 3.0;

/// In which effects of a fault were ever seen to begin, after its injection.
const BEGINS: (i64, i64) = (-60 * SECOND, 260 * SECOND);

/// Deviations from which on the rule foresees something.
const RULE: f64 = 4.0;

/// Ticks and services to record, more than there are.
const MAX_TICKS: usize = 100_000;
const MAX_SERVICES: usize = 64;

/// A stretch of time without a gap.
struct Recording {
    depths: Depths,
    violations: Vec<Violation>,
    /// Violations whose culprit is not known.
    n_unexplained: usize,
    /// Examples with the fault nearest to each.
    examples: Vec<(Example, usize)>,
}

/// What to say at a tick: the service that will cause a violation.
type Forecast<'a> = Box<dyn FnMut(&Depths, usize) -> Option<Arc<str>> + 'a>;

/// What was right so far.
#[derive(Default)]
struct Tally {
    counts: Confusion,
    n_right_culprits: u64,
    n_violations: usize,
    /// Seconds from the first right forecast of a violation to its beginning.
    leads: Vec<f64>,
}

/// Median duration of each operation that requests begin with.
fn medians<'a>(cases: &[Case<'a>]) -> FxHashMap<(&'a str, &'a str), f64> {
    let mut durations: FxHashMap<(&str, &str), Vec<i64>> = FxHashMap::default();
    for case in cases {
        if let Some((operation, duration)) = request(&case.trace) {
            durations.entry(operation).or_default().push(duration);
        }
    }
    let median = |mut durations: Vec<i64>| {
        durations.sort_unstable();
        durations[durations.len() / 2] as f64
    };
    durations.into_iter().map(|(operation, durations)| (operation, median(durations))).collect()
}

/// Service and operation that a trace begins with, and how long that took.
fn request<'a>(trace: &TraceWindow<'a>) -> Option<((&'a str, &'a str), i64)> {
    let root = trace.spans.iter().find(|span| span.parent().is_none() && !span.is_orphan)?;
    Some(((trace.service(root), trace.operation(root)), root.duration_nanos))
}

/// Cuts the traces where nothing happens.
fn recordings(cases: &[Case<'_>], faults: &[Fault], config: &Config) -> Vec<Recording> {
    let medians = medians(cases);
    let mut parts: Vec<&[Case<'_>]> = Vec::new();
    let (mut first, mut latest) = (0, i64::MIN);
    for (idx, case) in cases.iter().enumerate() {
        if idx > first && case.start_unix_nano.saturating_sub(latest) > SILENCE {
            parts.push(&cases[first..idx]);
            first = idx;
        }
        // An endless trace does not bridge a gap.
        latest = latest.max(case.start_unix_nano);
    }
    parts.push(&cases[first..]);
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.map(|part| recording(part, &medians, faults, config)).collect()
}

fn recording(
    cases: &[Case<'_>],
    medians: &FxHashMap<(&str, &str), f64>,
    faults: &[Fault],
    config: &Config,
) -> Recording {
    let mut depths = Depths::new(cases[0].start_unix_nano, TICK, MAX_SERVICES, MAX_TICKS);
    // Requests that begin in each tick, and those of them that are slow.
    let mut requests: Vec<(usize, usize)> = Vec::new();
    for case in cases {
        for span in case.trace.spans {
            depths.push(case.trace.service(span), span.start_unix_nano, span.end_unix_nano());
        }
        let Some((operation, duration)) = request(&case.trace) else { continue };
        let tick = depths.tick_of(case.start_unix_nano);
        if tick >= MAX_TICKS {
            continue;
        }
        requests.resize(requests.len().max(tick + 1), (0, 0));
        let is_slow = medians.get(&operation).is_some_and(|median| duration as f64 > SLOW * median);
        requests[tick] = (requests[tick].0 + 1, requests[tick].1 + usize::from(is_slow));
    }
    let is_broken = |(n, n_slow): &(usize, usize)| *n >= LEAST && *n_slow as f64 >= SHARE * *n as f64;
    let broken = requests.iter().enumerate().filter(|&(_, own)| is_broken(own)).map(|(tick, _)| tick);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for tick in broken {
        match runs.last_mut() {
            Some((_, end)) if tick - *end <= GAP => *end = tick + 1,
            _ => runs.push((tick, tick + 1)),
        }
    }
    let culprit = |tick: usize| {
        let time = depths.tick_start(tick);
        let fault = faults.get(nearest(faults, time))?;
        (BEGINS.0..=BEGINS.1).contains(&(time - fault.time_unix_nano)).then(|| Arc::<str>::from(fault.service()))
    };
    let violations: Vec<(Violation, bool)> = runs
        .into_iter()
        .map(|(start, end)| {
            let culprit = culprit(start);
            let is_explained = culprit.is_some();
            (Violation { start, end, culprit: culprit.unwrap_or_default() }, is_explained)
        })
        .collect();
    let n_unexplained = violations.iter().filter(|(_, is_explained)| !is_explained).count();
    let all: Vec<Violation> = violations.into_iter().map(|(violation, _)| violation).collect();
    let ticks = config.window.saturating_sub(1)..requests.len();
    let examples = examples(ticks, &all, config.horizon)
        .into_iter()
        // Of a violation without a culprit nothing is to be learned.
        .filter(|example| example.culprit.as_ref().is_none_or(|culprit| !culprit.is_empty()))
        .map(|example| {
            let nearest = nearest(faults, depths.tick_start(example.tick));
            (example, nearest)
        })
        .collect();
    Recording { depths, violations: all, n_unexplained, examples }
}

impl Tally {
    /// Judges the examples of one fold.
    fn judge(&mut self, recordings: &[Recording], fold: usize, forecast: &mut Forecast<'_>) {
        for recording in recordings {
            // The tick of the first right forecast, for each violation that could be foreseen.
            let mut foreseen: Vec<Option<Option<usize>>> = vec![None; recording.violations.len()];
            for (example, _) in recording.examples.iter().filter(|(_, nearest)| nearest % FOLDS == fold) {
                let found = forecast(&recording.depths, example.tick);
                self.counts.add(found.is_some(), example.culprit.is_some());
                let Some(culprit) = &example.culprit else { continue };
                let next = recording.violations.iter().position(|violation| violation.start > example.tick);
                let Some(own) = next.map(|next| &mut foreseen[next]) else { continue };
                let first = own.get_or_insert(None);
                if found.as_ref() == Some(culprit) {
                    self.n_right_culprits += 1;
                    *first = first.or(Some(example.tick));
                }
            }
            for (violation, foreseen) in recording.violations.iter().zip(foreseen) {
                self.n_violations += usize::from(foreseen.is_some());
                if let Some(tick) = foreseen.flatten() {
                    self.leads.push((violation.start - tick) as f64 * (TICK / SECOND) as f64);
                }
            }
        }
    }

    fn row(&self, info: &ProtocolInfo, part: &str, name: &str, n_unexplained: usize) -> ResultRow {
        let share = |n: f64, all: f64| (all > 0.0).then(|| n / all);
        let n_foreseen = self.leads.len() as f64;
        let quiet_hours =
            (self.counts.false_positives + self.counts.true_negatives) as f64 * (TICK / SECOND) as f64 / 3600.0;
        ResultRow::new(info.name, part, name)
            .with_confusion(&self.counts)
            .with_extra("culprit_accuracy", share(self.n_right_culprits as f64, self.counts.true_positives as f64))
            .with_extra("n_violations", self.n_violations)
            .with_extra("n_foreseen", self.leads.len())
            .with_extra("foreseen_share", share(n_foreseen, self.n_violations as f64))
            .with_extra("mean_lead_s", share(self.leads.iter().sum::<f64>(), n_foreseen))
            .with_extra("false_ticks_per_hour", share(self.counts.false_positives as f64, quiet_hours))
            .with_extra("quiet_hours", quiet_hours)
            .with_extra("n_unexplained", n_unexplained)
    }
}

/// The service whose depth is furthest above its mean, where that is far.
fn rule<'a>(recordings: &[Recording]) -> Forecast<'a> {
    let mut sums: FxHashMap<Arc<str>, (f64, f64, f64)> = FxHashMap::default();
    for depths in recordings.iter().map(|recording| &recording.depths) {
        for (place, service) in depths.services().iter().enumerate() {
            let own = sums.entry(Arc::clone(service)).or_default();
            for tick in 0..depths.n_ticks() {
                let depth = f64::from(depths.depth(place, tick)).ln_1p();
                *own = (own.0 + 1.0, own.1 + depth, own.2 + depth * depth);
            }
        }
    }
    Box::new(move |depths: &Depths, tick: usize| {
        let mut most: Option<(f64, &Arc<str>)> = None;
        for (place, service) in depths.services().iter().enumerate() {
            let Some((n, sum, squares)) = sums.get(service) else { continue };
            let mean = sum / n.max(1.0);
            let deviation = (squares / n.max(1.0) - mean * mean).max(0.0).sqrt().max(1e-3);
            let off = (f64::from(depths.depth(place, tick)).ln_1p() - mean) / deviation;
            if off >= RULE && most.is_none_or(|most| off > most.0) {
                most = Some((off, service));
            }
        }
        most.map(|(_, service)| Arc::clone(service))
    })
}

/// Fits on the violations of all faults but those of a fold and judges that, for each fold: a row of the model and one
/// of the rule.
pub fn judge(
    info: &ProtocolInfo,
    part: &str,
    cases: &[Case<'_>],
    faults: &[Fault],
    seed: u64,
) -> anyhow::Result<Vec<ResultRow>> {
    reset_peak_rss();
    let before = Usage::now();
    let config = Config::default();
    let recordings = recordings(cases, faults, &config);
    let n_unexplained = recordings.iter().map(|recording| recording.n_unexplained).sum();
    let (mut tally, mut of_rule) = (Tally::default(), Tally::default());
    let mut failed: Vec<String> = Vec::new();
    for fold in 0..FOLDS {
        let training: Vec<Vec<Example>> = recordings
            .iter()
            .map(|recording| {
                let others = recording.examples.iter().filter(|(_, nearest)| nearest % FOLDS != fold);
                others.map(|(example, _)| example.clone()).collect()
            })
            .collect();
        let pairs: Vec<(&Depths, &[Example])> = recordings
            .iter()
            .zip(&training)
            .map(|(recording, examples)| (&recording.depths, examples.as_slice()))
            .collect();
        match Seer::fit_labelled(&config, &pairs, seed) {
            Ok(mut model) => {
                let mut forecast: Forecast<'_> = Box::new(move |depths: &Depths, tick: usize| {
                    let found = model.foresee(depths, tick)?;
                    (found.none < 0.5).then(|| Arc::clone(&model.services()[found.culprit.0]))
                });
                tally.judge(&recordings, fold, &mut forecast);
            }
            // A fold may leave no violation to learn from; then nothing is foreseen in it.
            Err(error) => {
                failed.push(format!("fold {fold}: {error}"));
                let mut nothing: Forecast<'_> = Box::new(|_: &Depths, _: usize| None);
                tally.judge(&recordings, fold, &mut nothing);
            }
        }
        of_rule.judge(&recordings, fold, &mut rule(&recordings));
    }
    let mut row = tally.row(info, part, SEER, n_unexplained).with_extra("not_fitted", failed);
    row.seed = Some(seed);
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    Ok(vec![row, of_rule.row(info, part, "deepest queue", n_unexplained)])
}

#[cfg(test)]
mod tests {
    use faultline_detectors::testing::TraceFixture;

    use super::*;

    /// A request every second for 20 minutes. Each fault makes the cart slow from a minute after it, for a minute; half
    /// a minute before, calls to the cart begin to pile up beside the requests.
    fn traces(faults: &[Fault]) -> Vec<TraceFixture> {
        let mut traces = Vec::new();
        for second in 0..1_200 {
            let since = faults
                .iter()
                .map(|fault| second - fault.time_unix_nano / SECOND)
                .find(|since| (30..120).contains(since));
            let slow = if since.is_some_and(|since| since >= 60) { 10 } else { 1 };
            let mut rows = vec![
                (None, "gateway", second * 1_000_000, slow * 300_000),
                (Some(0), "cart", second * 1_000_000, slow * 200_000),
            ];
            if let Some(since) = since {
                rows.push((Some(0), "cart", second * 1_000_000, since * 100_000));
            }
            traces.push(TraceFixture::of("t", &rows));
        }
        traces
    }

    fn faults() -> Vec<Fault> {
        let fault =
            |seconds: i64| Fault { time_unix_nano: seconds * SECOND, pod: "cart".to_owned(), kind: "cpu".to_owned() };
        (0..5).map(|idx| fault(100 + 220 * idx)).collect()
    }

    fn cases(traces: &[TraceFixture]) -> Vec<Case<'_>> {
        let mut cases = Vec::new();
        for trace in traces {
            let start_unix_nano = trace.spans[0].start_unix_nano;
            cases.push(Case { trace: trace.trace(), label: None, start_unix_nano, nearest: 0 });
        }
        cases
    }

    #[test]
    fn violations_begin_where_requests_become_slow_and_have_the_culprit_of_the_fault() {
        let (faults, config) = (faults(), Config::default());
        let traces = traces(&faults);
        let mut cases = cases(&traces);
        let found = recordings(&cases, &faults, &config);
        let [whole] = found.as_slice() else { panic!("{} recordings", found.len()) };
        assert_eq!((whole.violations.len(), whole.n_unexplained), (5, 0));
        for (violation, fault) in whole.violations.iter().zip(&faults) {
            let start = whole.depths.tick_start(violation.start);
            assert_eq!(start, fault.time_unix_nano + 60 * SECOND);
            assert_eq!((&*violation.culprit, violation.end - violation.start), ("cart", 12));
        }
        let n_before = whole.examples.iter().filter(|(example, _)| example.culprit.is_some()).count();
        assert_eq!(n_before, 5 * config.horizon);
        // Without two minutes in the middle there are two recordings, and the violation of no fault is nobody's.
        cases.retain(|case| !(400..520).contains(&(case.start_unix_nano / SECOND)));
        let found = recordings(&cases, &faults[..1], &config);
        assert_eq!(found.len(), 2);
        let n_unexplained: usize = found.iter().map(|recording| recording.n_unexplained).sum();
        let n_violations: usize = found.iter().map(|recording| recording.violations.len()).sum();
        assert_eq!(n_unexplained + 1, n_violations);
    }

    #[test]
    fn a_forecast_counts_from_its_first_right_tick() {
        let (faults, config) = (faults(), Config::default());
        let traces = traces(&faults);
        let cases = cases(&traces);
        let found = recordings(&cases, &faults, &config);
        let starts: Vec<usize> = found[0].violations.iter().map(|violation| violation.start).collect();
        // Right from four ticks before each violation on, wrong before that.
        let culprit = |name: &str| Some(Arc::<str>::from(name));
        let forecast =
            |_: &Depths, tick: usize| match starts.iter().find(|start| **start > tick).map(|start| start - tick) {
                Some(1..=4) => culprit("cart"),
                Some(5..=6) => culprit("gateway"),
                _ => None,
            };
        let mut tally = Tally::default();
        let mut forecast: Forecast<'_> = Box::new(forecast);
        (0..FOLDS).for_each(|fold| tally.judge(&found, fold, &mut forecast));
        assert_eq!((tally.n_violations, tally.leads.as_slice()), (5, &[20.0; 5][..]));
        assert_eq!((tally.counts.true_positives, tally.n_right_culprits, tally.counts.false_positives), (30, 20, 0));
        assert_eq!(tally.counts.false_negatives, 5 * (config.horizon as u64 - 6));
    }
}
