//! Severe incident: a severe record that is neither a detail of the incident it belongs to nor a kind of incident that
//! the system has shown before.
//!
//! Station 7, for streams where the words a system finds for its own failures say more than the order of its records.
//! Model: the stream behaviour of supercomputer logs in Oliner and Stearley, "What Supercomputers Say: A Study of Five
//! System Logs", DSN 2007: failures come as bursts, one failure makes many components complain (cascades), and much that
//! is logged as fatal is routine. Only records of `min_severity` and above take part; all records of a stream count as
//! its clock. In the order of event time, for record i of template t:
//!
//! - **Incident.** A run of severe records with gaps of at most `gap_records`. After a longer gap the last incident is
//!   over: when it held at most `narrow` templates, the template that opened it gains a habit, h(u) ← h(u) + 1.
//! - **Cascade.** c(t) counts t within the incident and M is the largest count in it of a template that is no detail. While
//!   M > 0 and c(t) ≤ (1 + `tolerance`)·M + 2, another template's c(t)-th record explains this one: t follows. Otherwise t
//!   leads for the rest of the incident. With led(t) and followed(t) the incidents in which it did either, a record of a
//!   template that follows is a detail when 3·led(t) ≤ followed(t).
//! - **Verdict.** The record is anomalous when it is no detail and h(t) < `habit_limit`. The first such record of a
//!   template in an incident opens an alert: it scores `LONE` + `habit_limit` − h(t) + (severity − `min_severity`). Further
//!   ones score the same within the session (the writer) that reported it, so that the alert lasts as long as the trouble;
//!   in other sessions they score next to nothing, so that a failure that a thousand nodes complain of is not a thousand
//!   alerts. Everything else scores 0. Scores are surprises in nats by decree, no estimates: where calibration saw no severe
//!   record, a p-value is e to the minus score.
//!
//! Habits form while scoring, and by a person's verdict, never in `learn`: that is handed only what nobody found abnormal, and an incident is what
//! must grow familiar. Fitting runs over the training records without a verdict.
//!
//! Cost: one comparison a record; for a severe one a tree lookup, and for a batch that holds one a sort by time. Memory:
//! `max_templates` over all streams; further templates share one entry. Fails where severities are not set or mean
//! nothing, and is blind to incidents that no severe record tells of; the same failure again is reported `habit_limit` times
//! while it stays narrow, then no more. A failure worded in many templates is as many kinds here: detectors see ids and
//! no texts.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{
    Detector, DetectorError, Evidence, LogEntry, LogWindow, Score, Signal, TemplateId, Window, WindowKey,
    hash::StableHash,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`SevereIncident`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// OpenTelemetry severity number from which on a record is severe, 1 to 24. Default 21, FATAL.
    pub min_severity: u8,
    /// Narrow incidents that a template may open before it is a habit and reported no more. Default 2.
    pub habit_limit: u32,
    /// Distinct templates up to which an incident is narrow: a failure that stays what it was. Default 5.
    pub narrow: u32,
    /// Records of the stream without a severe one among them after which an incident is over. Default 200.
    pub gap_records: u64,
    /// By how much more often, relative to the records that explain it, a template may occur and still be a detail of the
    /// incident. Default 0.25.
    pub tolerance: f64,
    /// Severe templates to remember, a memory bound. Those beyond it count as one and the same.
    pub max_templates: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_severity: 21, habit_limit: 2, narrow: 5, gap_records: 200, tolerance: 0.25, max_templates: 100_000 }
    }
}

/// What a record that opens an alert scores at least, in nats: one in 22,000, which is evidence enough for a lone alert among
/// the thousands of sessions that the false-discovery rate looks back on.
const LONE: f64 = 10.0;

/// Largest score of a record of an incident that another session has reported, in nats: it was to be expected.
const REPORTED: f64 = 0.1;

/// Streams told apart. There is one for each deployment or preset; further ones share one entry.
const MAX_STREAMS: usize = 64;

/// Stands for every template beyond `max_templates`; no parser gives this id.
const FURTHER: u64 = u64::MAX;

/// See the file's documentation.
pub struct SevereIncident;

/// What each stream's severe templates have done so far.
#[derive(Debug)]
pub struct Model {
    config: Config,
    state: State,
    n_templates: usize,
    /// Fresh records of a batch in order of time; kept to save its allocation.
    order: Vec<(i64, u64, usize, usize)>,
}

/// What a snapshot holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    version: u64,
    streams: BTreeMap<String, Stream>,
}

/// One stream and its current incident.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stream {
    /// Records so far: the stream's clock.
    n_records: u64,
    /// Incidents so far; the number of the current one.
    incident: u64,
    /// When its last severe record came.
    last: u64,
    /// The template of its first one.
    opener: u64,
    /// Distinct templates in it.
    n_templates: u32,
    /// Largest count in it of a template that is no detail: M.
    largest: u64,
    templates: BTreeMap<u64, Known>,
}

/// One severe template.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Incidents it opened that stayed narrow: h.
    habit: u32,
    /// Incidents it was in.
    n_incidents: u32,
    /// Incidents in which it led, and in which it followed.
    led: u32,
    followed: u32,
    /// The latest incident it was in, its count there, and which distinct template of that incident it was, from 1.
    incident: u64,
    count: u64,
    rank: u32,
    leads: bool,
    /// The incident and the session that last reported it; incidents count from 1.
    reported: u64,
    reporter: u64,
}

/// What a severe record is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// A detail of its incident, or a habit.
    Familiar,
    /// Anomalous, with the habit its template has; reported by this session, now or before.
    Ours(u32),
    /// The same, reported by another session before.
    Theirs(u32),
}

impl Algorithm for SevereIncident {
    const NAME: &'static str = "severe-incident";
    const SUMMARY: &'static str = "a fatal record that is no detail of its incident and no habit of the system";
    const PAPER: &'static str = "own rule; model of failures in system logs: Oliner, Stearley: What Supercomputers Say: A \
                                 Study of Five System Logs, DSN 2007";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.0);
    const IS_SURPRISE: bool = true;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let mut model = Model { config: config.clone(), state: State::default(), n_templates: 0, order: Vec::new() };
        let mut by_stream: BTreeMap<&str, Vec<(LogEntry, &WindowKey)>> = BTreeMap::new();
        for log in training.iter().filter_map(Window::as_log) {
            let records = by_stream.entry(&log.key.stream).or_default();
            records.extend(log.fresh_records().iter().map(|record| (*record, log.key)));
        }
        if by_stream.values().all(Vec::is_empty) {
            let reason = "no training window holds a record".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        for (stream, mut records) in by_stream {
            records.sort_by_key(|(record, _)| (record.time_unix_nano, record.record));
            // A stream's pieces overlap by their context.
            records.dedup_by_key(|(record, _)| record.record);
            let slot = slot_of(&mut model.state.streams, stream);
            for (record, key) in records {
                slot.n_records += 1;
                if record.severity_number >= config.min_severity {
                    slot.observe(config, &mut model.n_templates, record.template, reporter_of(key));
                }
            }
        }
        model.state.version = snapshot::version_of(Self::NAME, &(config, &model.state))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let state: State = snapshot::decode(Self::NAME, snapshot)?;
        let n_templates = state.streams.values().map(|stream| stream.templates.len()).sum();
        Ok(Model { config: config.clone(), state, n_templates, order: Vec::new() })
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let refuse = |reason: &str| {
        Err(DetectorError::Config { detector: SevereIncident::NAME.to_owned(), reason: reason.to_owned() })
    };
    if !(1..=24).contains(&config.min_severity) {
        return refuse("key `min_severity`: must be between 1 and 24");
    }
    if config.habit_limit == 0 {
        return refuse("key `habit_limit`: must be at least 1");
    }
    if !(config.tolerance.is_finite() && config.tolerance >= 0.0) {
        return refuse("key `tolerance`: must be at least 0");
    }
    Ok(())
}

fn slot_of<'a>(streams: &'a mut BTreeMap<String, Stream>, name: &str) -> &'a mut Stream {
    let name = if streams.len() < MAX_STREAMS || streams.contains_key(name) { name } else { "" };
    streams.entry(name.to_owned()).or_default()
}

fn reporter_of(key: &WindowKey) -> u64 {
    StableHash::new().text(&key.session).finish()
}

impl Stream {
    /// Takes note of a severe record, which is the `n_records`-th of the stream. `n_known` counts the templates of all
    /// streams.
    fn observe(&mut self, config: &Config, n_known: &mut usize, template: TemplateId, reporter: u64) -> Verdict {
        let id = if *n_known < config.max_templates || self.templates.contains_key(&template.0) {
            template.0
        } else {
            FURTHER
        };
        if self.incident == 0 || self.n_records - self.last > config.gap_records {
            self.begin_incident(config, id);
        }
        self.last = self.n_records;
        let known = self.templates.entry(id).or_insert_with(|| {
            *n_known += 1;
            Known::default()
        });
        let is_first = known.incident != self.incident;
        if is_first {
            self.n_templates += 1;
            (known.incident, known.count, known.leads, known.rank) = (self.incident, 0, false, self.n_templates);
            known.n_incidents = known.n_incidents.saturating_add(1);
        }
        known.count += 1;
        let mut is_detail = false;
        if !known.leads {
            let explained = self.largest as f64 * (1.0 + config.tolerance) + 2.0;
            if self.largest > 0 && known.count as f64 <= explained {
                known.followed = known.followed.saturating_add(u32::from(is_first));
                is_detail = known.led.saturating_mul(3) <= known.followed;
            } else {
                known.leads = true;
                known.led = known.led.saturating_add(1);
                known.followed = known.followed.saturating_sub(u32::from(!is_first));
            }
        }
        if !is_detail {
            self.largest = self.largest.max(known.count);
        }
        if is_detail || known.habit >= config.habit_limit {
            return Verdict::Familiar;
        }
        if known.reported != self.incident {
            (known.reported, known.reporter) = (self.incident, reporter);
        }
        if known.reporter == reporter { Verdict::Ours(known.habit) } else { Verdict::Theirs(known.habit) }
    }

    /// Closes the incident before, which may form a habit.
    fn begin_incident(&mut self, config: &Config, opener: u64) {
        if self.n_templates <= config.narrow
            && let Some(last) = self.templates.get_mut(&self.opener)
            && self.incident > 0
        {
            last.habit = last.habit.saturating_add(1);
        }
        self.incident += 1;
        (self.opener, self.n_templates, self.largest) = (opener, 0, 0);
    }
}

impl Verdict {
    /// The score of a record of this severity.
    fn value(self, config: &Config, severity: u8) -> f64 {
        let novelty = |habit: u32| f64::from(config.habit_limit - habit);
        match self {
            Self::Familiar => 0.0,
            Self::Ours(habit) => LONE + novelty(habit) + f64::from(severity - config.min_severity),
            Self::Theirs(habit) => REPORTED * novelty(habit) / f64::from(config.habit_limit),
        }
    }
}

impl Model {
    fn is_severe(&self, record: &LogEntry) -> bool {
        record.severity_number >= self.config.min_severity
    }

    /// Scores the windows of one stream, whose entries of `scores` are there already.
    fn score_stream(&mut self, stream: &str, idxs: &[usize], windows: &[Window<'_>], scores: &mut [Option<Score>]) {
        let logs = || idxs.iter().filter_map(|&idx| Some((idx, windows[idx].as_log()?)));
        let any_severe = logs().any(|(_, log)| log.fresh_records().iter().any(|record| self.is_severe(record)));
        if !any_severe {
            let n_records: usize = logs().map(|(_, log)| log.fresh_records().len()).sum();
            slot_of(&mut self.state.streams, stream).n_records += n_records as u64;
            return;
        }
        // Windows come ended ones first; an incident is a matter of time, across all of them.
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        for (idx, log) in logs() {
            let fresh = log.records.iter().enumerate().skip(log.fresh);
            order.extend(fresh.map(|(at, record)| (record.time_unix_nano, record.record, idx, at)));
        }
        order.sort_unstable();
        let slot = slot_of(&mut self.state.streams, stream);
        for &(_, _, idx, at) in &order {
            slot.n_records += 1;
            let Some(log) = windows[idx].as_log() else { continue };
            let record = &log.records[at];
            if record.severity_number < self.config.min_severity {
                continue;
            }
            let verdict = slot.observe(&self.config, &mut self.n_templates, record.template, reporter_of(log.key));
            let value = verdict.value(&self.config, record.severity_number);
            if let Some(score) = &mut scores[idx]
                && value > score.value
            {
                *score = Score { value, culprit: at };
            }
        }
        self.order = order;
    }

    fn known(&self, log: &LogWindow<'_>, template: TemplateId) -> Option<(&Stream, Known)> {
        let streams = &self.state.streams;
        let stream = streams.get(&*log.key.stream).or_else(|| streams.get(""))?;
        let known = stream.templates.get(&template.0).or_else(|| stream.templates.get(&FURTHER))?;
        Some((stream, *known))
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        SevereIncident::NAME
    }

    fn version(&self) -> u64 {
        self.state.version
    }

    fn signal(&self) -> Signal {
        SevereIncident::SIGNAL
    }

    /// The largest score of a fresh record. The culprit is the first record that has it.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let start = scores.len();
        let mut by_stream: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (idx, window) in windows.iter().enumerate() {
            let log = window.as_log().filter(|log| !log.fresh_records().is_empty());
            scores.push(log.map(|log| Score { value: 0.0, culprit: log.fresh }));
            if log.is_some() {
                by_stream.entry(&window.key().stream).or_default().push(idx);
            }
        }
        for (stream, idxs) in by_stream {
            self.score_stream(stream, &idxs, windows, &mut scores[start..]);
        }
    }

    /// Describes the culprit's template as the batch left it.
    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let severe = || log.fresh_records().iter().filter(|record| self.is_severe(record));
        let mut evidence = Evidence {
            summary: "the window holds no severe record that is unusual".to_owned(),
            seen: Some(culprit.template),
            expected: Vec::new(),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, severe().map(|record| record.record)),
            figures: [("n_severe_records".to_owned(), severe().count() as f64)].into(),
        };
        let known = self.known(log, culprit.template).filter(|_| score.value > 0.0);
        let Some((stream, known)) = known else { return evidence };
        let times = |n: u32| if n == 1 { "1 incident".to_owned() } else { format!("{n} incidents") };
        let n_before = known.n_incidents.saturating_sub(1);
        let place = match known.rank {
            1 => "opened a severe incident".to_owned(),
            rank => format!("joined a severe incident of {} other templates", rank - 1),
        };
        evidence.summary = format!(
            "template {} (severity {}) {place}; before it was in {}, of which {} that it opened stayed narrow (a habit \
             from {} on)",
            culprit.template,
            culprit.severity_number,
            times(n_before),
            known.habit,
            self.config.habit_limit,
        );
        evidence.figures.extend([
            ("severity".to_owned(), f64::from(culprit.severity_number)),
            ("habit".to_owned(), f64::from(known.habit)),
            ("n_incidents_before".to_owned(), f64::from(n_before)),
            ("n_led".to_owned(), f64::from(known.led)),
            ("n_followed".to_owned(), f64::from(known.followed)),
            ("n_templates_before".to_owned(), f64::from(known.rank.saturating_sub(1))),
            ("n_incidents_of_stream".to_owned(), stream.incident as f64),
        ]);
        evidence
    }

    /// Nothing: habits form while scoring.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    /// Its severe templates are habits from now on.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = window.as_log() else { return 0 };
        let severe = log.fresh_records().iter().filter(|record| self.is_severe(record));
        let severe: BTreeSet<u64> = severe.map(|record| record.template.0).collect();
        if severe.is_empty() {
            return 0;
        }
        let stream = slot_of(&mut self.state.streams, &log.key.stream);
        let mut n_learned = 0;
        for id in severe {
            // What all further templates share is no one's habit.
            let is_known = stream.templates.contains_key(&id);
            if !is_known && self.n_templates >= self.config.max_templates {
                continue;
            }
            self.n_templates += usize::from(!is_known);
            let known = stream.templates.entry(id).or_default();
            n_learned += usize::from(known.habit < self.config.habit_limit);
            known.habit = known.habit.max(self.config.habit_limit);
        }
        if n_learned > 0 {
            self.state.version = snapshot::version_after(self.state.version, window);
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(SevereIncident::NAME, &self.state)
    }
}

#[cfg(test)]
mod tests;
