//! What flags minutes of Nezha: each detector by a constant, and each behind a monitor as a user has it.
//!
//! By constants, in event time; what is flagged is not learned from:
//! - `service-latency`: a service whose z is at least `stands_out`. It goes on for three minutes at most while nothing more is
//!   heard of it, as its alert does.
//! - `ngram` over the logs of single spans: a span with an unknown follower of a statement that training has twelve times at least;
//!   8 and 16 give the same. [`AS_STUDIED`] is what the study of these data had: four times, and two such spans of one service. Ends are not
//!   judged.
//! - `trace-vector`, and every other detector of traces: so many traces of a minute above the [`QUANTILE`] of held-out ones as
//!   chance has once in 10,000 minutes.
//! - [`P95_DURATION`], a baseline: a minute whose traces take longer, at their 95th percentile, than in any minute of training.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{Alert, AlertId, Detector, Window, hash::StableHash};
use faultline_detectors::{
    AlertConfig, Algorithm, Budget, Entry, Model, Monitor,
    algorithms::{
        ngram::{self, Ngram},
        service_latency::{self, ServiceLatency},
    },
    entry,
};
use serde_json::{Value, json};

use super::{super::traceanomaly::quantile, minutes::MINUTE};

/// The baseline.
pub const P95_DURATION: &str = "p95-duration";

/// `ngram` with the constants of the study.
pub const AS_STUDIED: &str = "ngram, as studied";

/// Share of held-out traces below the threshold of `trace-vector`.
const QUANTILE: f64 = 0.995;

/// How often chance may flag a minute.
const CHANCE: f64 = 1e-4;

/// Minutes for which a service that is not heard of stays flagged.
const HOLD: i64 = 3;

/// Traces that a minute needs for its 95th percentile to say something.
const LEAST_TRACES: usize = 20;

/// False alerts a day of each of the three monitors: one an hour together.
const PER_DAY: f64 = 8.0;

/// One in how many windows calibrates.
const CALIBRATES: u64 = 3;

/// Parts to fit on and to calibrate on, by a hash of key and time.
fn split<'w>(windows: &[Window<'w>]) -> (Vec<Window<'w>>, Vec<Window<'w>>) {
    let lot = |window: &Window<'_>| {
        let hash = StableHash::new().text(&window.key().session);
        hash.bytes(&window.span_unix_nano().0.to_le_bytes()).finish()
    };
    windows.iter().copied().partition(|window| !lot(window).is_multiple_of(CALIBRATES))
}

fn minute_of(time_unix_nano: i64) -> i64 {
    time_unix_nano.div_euclid(MINUTE)
}

/// `service-latency` by its own constant.
pub struct Latency {
    detector: Box<dyn Detector>,
    least: f64,
    /// Whether each service stood out, by minute.
    services: BTreeMap<String, BTreeMap<i64, bool>>,
}

impl Latency {
    pub fn fit(steps: &[Window<'_>]) -> anyhow::Result<Self> {
        let detector = entry(ServiceLatency::NAME)?.fit(&Value::Null, steps, 0)?;
        let least = service_latency::Config::default().stands_out;
        Ok(Self { detector, least, services: BTreeMap::new() })
    }

    pub fn rule(&self) -> String {
        format!("z >= {} of any service, its own constant", self.least)
    }

    pub fn see(&mut self, steps: &[Window<'_>]) {
        let mut scores = Vec::with_capacity(steps.len());
        self.detector.score(steps, &mut scores);
        for (step, score) in steps.iter().zip(&scores) {
            let Some((step, score)) = step.as_service().zip(*score) else { continue };
            let minutes = self.services.entry(step.key.session.to_string()).or_default();
            minutes.insert(minute_of(step.start_unix_nano), score.value >= self.least);
        }
        self.detector.learn(steps);
    }

    pub fn minutes(&self) -> BTreeSet<i64> {
        let mut flagged = BTreeSet::new();
        for minutes in self.services.values() {
            for (&minute, _) in minutes.iter().filter(|(_, stands_out)| **stands_out) {
                let heard = minutes.range(minute + 1..).next().map_or(i64::MAX, |(next, _)| *next);
                flagged.extend(minute..=(minute + HOLD).min(heard - 1));
            }
        }
        flagged
    }
}

/// `ngram` over what spans write.
pub struct LogFlow {
    detector: Box<dyn Detector>,
    min_context: u32,
    /// Spans of one service and minute from which it is flagged.
    least: u64,
    /// Spans with something unknown, by minute and service.
    spans: BTreeMap<(i64, String), u64>,
}

/// Times that training has a statement whose follower is judged.
const MIN_CONTEXT: u32 = 12;

/// The configuration of `ngram`.
fn ngram_config(min_context: u32) -> Value {
    json!({ "min_context": min_context, "judges_end": false })
}

impl LogFlow {
    pub fn fit(sessions: &[Window<'_>]) -> anyhow::Result<Self> {
        Self::with(MIN_CONTEXT, 1, sessions)
    }

    pub fn fit_as_studied(sessions: &[Window<'_>]) -> anyhow::Result<Self> {
        Self::with(4, 2, sessions)
    }

    fn with(min_context: u32, least: u64, sessions: &[Window<'_>]) -> anyhow::Result<Self> {
        let detector = entry(Ngram::NAME)?.fit(&ngram_config(min_context), sessions, 0)?;
        Ok(Self { detector, min_context, least, spans: BTreeMap::new() })
    }

    pub fn rule(&self) -> String {
        let Self { min_context, least, .. } = self;
        let ngram::Config { n, .. } = ngram::Config::default();
        format!(
            "{least} or more spans of one service in a minute with an unknown {n}-gram; min_context {min_context}, ends not judged"
        )
    }

    pub fn see(&mut self, sessions: &[Window<'_>]) {
        let mut scores = Vec::with_capacity(sessions.len());
        self.detector.score(sessions, &mut scores);
        let mut normal = Vec::with_capacity(sessions.len());
        for (session, score) in sessions.iter().zip(&scores) {
            let culprit = score.filter(|score| score.value > 0.0).and_then(|score| session.culprit(score.culprit));
            match culprit {
                Some(culprit) => {
                    let key = (minute_of(culprit.time_unix_nano), culprit.service.to_owned());
                    *self.spans.entry(key).or_default() += 1;
                }
                None => normal.push(*session),
            }
        }
        self.detector.learn(&normal);
    }

    pub fn minutes(&self) -> BTreeSet<i64> {
        self.spans.iter().filter(|(_, n)| **n >= self.least).map(|((minute, _), _)| *minute).collect()
    }
}

/// A detector of traces.
pub struct Traces {
    detector: Box<dyn Detector>,
    threshold: f64,
    /// By minute how many traces ended, and of how many the score is above the threshold.
    counts: BTreeMap<i64, (u64, u64)>,
}

impl Traces {
    pub fn fit(detector: &str, seed: u64, traces: &[Window<'_>]) -> anyhow::Result<Self> {
        let (training, held_out) = split(traces);
        let mut detector = entry(detector)?.fit(&Value::Null, &training, seed)?;
        let mut scores = Vec::with_capacity(held_out.len());
        detector.score(&held_out, &mut scores);
        let mut scores: Vec<f64> = scores.iter().flatten().map(|score| score.value).collect();
        scores.sort_by(f64::total_cmp);
        Ok(Self { detector, threshold: quantile(&scores, QUANTILE), counts: BTreeMap::new() })
    }

    pub fn rule(&self) -> String {
        format!(
            "more traces of a minute above the {QUANTILE} quantile of held-out ones than chance has once in 10,000 minutes"
        )
    }

    pub fn see(&mut self, traces: &[Window<'_>]) {
        let mut scores = Vec::with_capacity(traces.len());
        self.detector.score(traces, &mut scores);
        for (trace, score) in traces.iter().zip(&scores) {
            let Some(score) = score else { continue };
            let counts = self.counts.entry(minute_of(trace.span_unix_nano().1)).or_default();
            counts.0 += 1;
            counts.1 += u64::from(score.value > self.threshold);
        }
    }

    pub fn minutes(&self) -> BTreeSet<i64> {
        let is_odd = |&(_, &(n, n_above)): &(&i64, &(u64, u64))| {
            n_above > 0 && at_least_by_chance(n_above, n as f64 * (1.0 - QUANTILE)) <= CHANCE
        };
        self.counts.iter().filter(is_odd).map(|(minute, _)| *minute).collect()
    }
}

/// How long traces take.
pub struct Durations {
    minutes: BTreeMap<i64, Vec<i64>>,
    /// The longest 95th percentile of a minute of training.
    longest: i64,
}

impl Durations {
    pub fn fit(traces: &[Window<'_>]) -> Self {
        let mut durations = BTreeMap::new();
        take_durations(&mut durations, traces);
        let longest = durations.values_mut().filter_map(|minute| p95(minute)).max().unwrap_or(i64::MAX);
        Self { minutes: BTreeMap::new(), longest }
    }

    pub fn rule(&self) -> String {
        format!("the 95th percentile of durations is above {} ms, the longest of training", self.longest / 1_000_000)
    }

    pub fn see(&mut self, traces: &[Window<'_>]) {
        take_durations(&mut self.minutes, traces);
    }

    pub fn minutes(&mut self) -> BTreeSet<i64> {
        let longest = self.longest;
        let slow = self.minutes.iter_mut().filter_map(|(minute, all)| Some((*minute, p95(all)?)));
        slow.filter(|(_, p95)| *p95 > longest).map(|(minute, _)| minute).collect()
    }
}

/// Durations of traces by the minute in which they ended.
fn take_durations(durations: &mut BTreeMap<i64, Vec<i64>>, traces: &[Window<'_>]) {
    for trace in traces {
        let (start, end) = trace.span_unix_nano();
        durations.entry(minute_of(end)).or_default().push(end - start);
    }
}

/// None where there are too few. Puts them in order.
fn p95(durations: &mut [i64]) -> Option<i64> {
    durations.sort_unstable();
    durations.get(durations.len() * 95 / 100).copied().filter(|_| durations.len() >= LEAST_TRACES)
}

/// How often a Poisson variable of this mean is `n` or more.
fn at_least_by_chance(n: u64, mean: f64) -> f64 {
    let mut term = (-mean).exp();
    let mut below = 0.0;
    for idx in 0..n {
        below += term;
        term *= mean / (idx + 1) as f64;
    }
    (1.0 - below).max(0.0)
}

/// A detector behind a monitor that came fitted: calibrated on a third of the training windows, alerts as a user gets them.
pub struct Watch {
    monitor: Monitor,
    /// When each alert began, and when it was last abnormal.
    alerts: BTreeMap<AlertId, (i64, i64)>,
}

impl Watch {
    pub fn fit(detector: &str, windows: &[Window<'_>]) -> anyhow::Result<Self> {
        let own: &'static Entry = entry(detector)?;
        let config = if detector == Ngram::NAME { ngram_config(MIN_CONTEXT) } else { Value::Null };
        let (training, calibration) = split(windows);
        let model = Model::fit(own, &config, &training, &calibration, 0.0, 0)?;
        let alerting = AlertConfig { budget: Budget::per_day(PER_DAY), ..AlertConfig::default() };
        Ok(Self { monitor: Monitor::fitted(vec![model], alerting)?, alerts: BTreeMap::new() })
    }

    /// Windows, and the time up to which there are no more.
    pub fn see(&mut self, windows: &[Window<'_>], until: i64) {
        let outcome = self.monitor.process(windows);
        self.keep(outcome.alerts);
        let resolved = self.monitor.advance_to(until);
        self.keep(resolved);
    }

    fn keep(&mut self, alerts: Vec<Alert>) {
        for Alert { id, start_unix_nano, end_unix_nano, .. } in alerts {
            self.alerts.insert(id, (start_unix_nano, end_unix_nano));
        }
    }

    pub fn rule() -> String {
        format!(
            "alerts of a monitor calibrated on a third of the training, with a budget of {PER_DAY} false ones a day"
        )
    }

    pub fn n_alerts(&self) -> usize {
        self.alerts.len()
    }

    pub fn minutes(&self) -> BTreeSet<i64> {
        self.alerts.values().flat_map(|&(start, end)| minute_of(start)..=minute_of(end.max(start))).collect()
    }
}

/// The end of the latest of them.
pub fn latest(windows: &[Window<'_>]) -> i64 {
    windows.iter().map(|window| window.span_unix_nano().1).max().unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_that_of_poisson() {
        assert!((at_least_by_chance(1, 0.5) - (1.0 - (-0.5_f64).exp())).abs() < 1e-12);
        assert!((at_least_by_chance(3, 1.0) - (1.0 - 2.5 * (-1.0_f64).exp())).abs() < 1e-12);
        assert_eq!(at_least_by_chance(0, 1.0), 1.0);
        assert!(at_least_by_chance(5, 0.5) < 1e-3 && at_least_by_chance(500, 0.5) >= 0.0);
    }

    #[test]
    fn the_95th_percentile_needs_traces() {
        let mut durations: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(p95(&mut durations), Some(96));
        assert_eq!(p95(&mut durations[..19]), None);
    }

    #[test]
    fn a_service_that_is_not_heard_of_stays_flagged_for_a_while() {
        let nothing =
            entry("profile-forecast").expect("registered").fit(&Value::Null, &[], 0).expect("it needs nothing");
        let minutes = |of: &[(i64, bool)]| of.iter().copied().collect::<BTreeMap<_, _>>();
        let latency = Latency {
            detector: nothing,
            least: 4.5,
            services: BTreeMap::from([
                ("a".to_owned(), minutes(&[(10, true), (11, false), (20, true), (22, false)])),
                ("b".to_owned(), minutes(&[(30, true)])),
            ]),
        };
        assert_eq!(latency.minutes(), BTreeSet::from([10, 20, 21, 30, 31, 32, 33]));
    }
}
