//! Task insight: a call that spends more time of its own, or makes other numbers of calls, than in any of its habits.
//!
//! Station 7. After Zhang et al., "TaskInsight: A Fine-Grained Performance Anomaly Detection and Problem Locating
//! System", CLOUD 2016, which clusters what each task of a system uses and names the task that leaves its clusters; its
//! text was not to be had, only what others say of it. A *task* is a call path ([`Shape`]); a call of it is a point:
//! the logarithm of its self time and of the number of calls it makes. Each task has up to eight clusters of its calls
//! (`clusters`), learnt one call after another and aged: a call that finds its answer in a cache is one habit, one that
//! has to ask is another, and one that takes a tenth of the slower habit is abnormal if it is ten times the quicker
//! one.
//!
//! The score of a call is its distance from the nearest habit in that habit's spreads, as nats: each task knows how
//! often and how far its calls lie outside, so a restless task is not heard more than a steady one. Quicker than the
//! quickest habit is not abnormal. A trace scores as its worst call, which is the culprit. A path that is unknown, or
//! seldom taken, is judged as its operation is elsewhere; one whose operation is unknown is not judged (`trace-vector`
//! says when paths are new).
//!
//! How it differs from `trace-vector`: that holds how long each path took, with all that it waited for, against the
//! longest, in milliseconds; this holds what a call did by itself against several habits, in proportion. So it names
//! the slow task, not those that wait for it, and hears a slow short one; but what does not matter to users is heard,
//! too.
//!
//! Failures in training found clusters of their own and are no habit until they hold `share` of the task's calls. What
//! is learned later obeys the same rule: to be made a habit something has to be in a hundredth of the last ten thousand
//! calls.
//!
//! Cost: a hash or two and at most eight distances a span. Memory: at most 450 bytes a task, so 7 MiB. Fails on network
//! delays between services where callers make no span for a call (then the wait is in the caller's own time, which is
//! named), where clocks differ so much that calls lie outside their callers, and on traces whose spans are lost. Traces
//! of which spans were left out are not judged.
//!
//! Measured on Nezha's TrainTicket (`faultline eval nezha-supervised`, fitted on one day's traces, judged on another's): it notices
//! .29 of the disturbed traces at a precision of .29, where `trace-vector` notices .67 at .63; its first suspect is right for .30 of them,
//! against .18. With two minutes to be fitted on (`faultline eval nezha`) it flags nothing.
//!
//! [`Shape`]: crate::traces::Shape

mod clusters;
mod explain;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TraceWindow, Window, hash::StableHash};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::clusters::{Call, Judged, Task};
use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
    traces::Shape,
};

/// Hyperparameters of [`TaskInsight`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Milliseconds added to every self time, so that jitter of what takes no time is not heard. Default 0.2; raise it
    /// to the time that is of no matter.
    pub floor_ms: f64,
    /// Share of a task's calls that a cluster has to hold to be a habit. Default 0.01. Raise it where training may hold
    /// more failures.
    pub share: f64,
    /// Calls of a task below which nothing is said of it. Default 20.
    pub min_calls: usize,
    /// Calls after which half of what was learned of a task is forgotten, at least. Default 10000; lower it where habits
    /// change within hours.
    pub memory_calls: usize,
    /// Tasks to know, the most frequent ones in training and then the first: a memory bound. Default 16384.
    pub max_tasks: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { floor_ms: 0.2, share: 0.01, min_calls: 20, memory_calls: 10_000, max_tasks: 16_384 }
    }
}

impl Config {
    fn check(&self) -> Result<(), DetectorError> {
        let ranges = Ranges(TaskInsight::NAME);
        ranges.within([("floor_ms", self.floor_ms, 1e-3..=1e4), ("share", self.share, 0.0..=0.5)])?;
        ranges.within([
            ("min_calls", self.min_calls, 3..=1 << 20),
            ("memory_calls", self.memory_calls, 100..=1 << 30),
            ("max_tasks", self.max_tasks, 1..=1 << 20),
        ])
    }
}

/// See the file's documentation.
pub struct TaskInsight;

const MAGIC: &Magic = b"faultline tasks1";

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    tasks: FxHashMap<u64, Task>,
    measure: Measure,
}

/// A call and the two tasks that it is one of.
#[derive(Clone, Copy, Debug)]
struct Measured {
    call: Call,
    /// Its call path.
    path: u64,
    /// Its service and operation, on whatever path.
    operation: u64,
}

/// The calls of a trace, one for each span. Made to be used again for the next trace.
#[derive(Debug, Default)]
struct Measure {
    shape: Shape,
    n_calls: Vec<u32>,
    calls: Vec<Measured>,
}

impl Measure {
    /// Measures a trace; false where it has no spans, or not all of them.
    fn take(&mut self, trace: &TraceWindow<'_>, floor_ms: f64) -> bool {
        self.calls.clear();
        if trace.spans.is_empty() || trace.n_dropped > 0 {
            return false;
        }
        self.shape.measure(trace);
        self.n_calls.clear();
        self.n_calls.resize(trace.spans.len(), 0);
        for parent in trace.spans.iter().filter_map(|span| span.parent()) {
            self.n_calls[parent] += 1;
        }
        let own = self.shape.self_nanos.iter().zip(&self.n_calls).zip(&self.shape.paths);
        self.calls.extend(trace.spans.iter().zip(own).map(|(span, ((&nanos, &n_calls), &path))| {
            let operation = StableHash::new().text("operation").text(trace.service(span)).text(trace.operation(span));
            Measured { call: Call::new(nanos, n_calls, floor_ms), path, operation: operation.finish() }
        }));
        true
    }
}

impl Algorithm for TaskInsight {
    const NAME: &'static str = "task-insight";
    const SUMMARY: &'static str = "a call that spends time of its own, or makes calls, as in none of its habits";
    const PAPER: &'static str = "Zhang et al.: TaskInsight: A Fine-Grained Performance Anomaly Detection and Problem Locating \
                                 System, CLOUD 2016 (clusters a task; on self times of spans)";
    const SIGNAL: Signal = Signal::Traces;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    /// It finds less than `trace-vector` on the data that there are.
    const IS_DEFAULT: bool = false;
    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        config.check()?;
        let mut measure = Measure::default();
        let mut each = |look: &mut dyn FnMut(&Measured)| {
            for trace in training.iter().filter_map(Window::as_trace) {
                if measure.take(trace, config.floor_ms) {
                    measure.calls.iter().for_each(&mut *look);
                }
            }
        };
        let mut n_calls: FxHashMap<u64, u64> = FxHashMap::default();
        each(&mut |measured| {
            *n_calls.entry(measured.path).or_default() += 1;
            *n_calls.entry(measured.operation).or_default() += 1;
        });
        let mut frequent: Vec<(u64, u64)> = n_calls.into_iter().collect();
        frequent.sort_unstable_by_key(|&(task, n_calls)| (Reverse(n_calls), task));
        frequent.truncate(config.max_tasks);
        let mut tasks: FxHashMap<u64, Task> = frequent.into_iter().map(|(task, _)| (task, Task::default())).collect();
        each(&mut |measured| {
            for task in [measured.path, measured.operation] {
                if let Some(task) = tasks.get_mut(&task) {
                    task.learn(measured.call, config);
                }
            }
        });
        // How far calls lie outside is measured when the clusters are there.
        each(&mut |measured| {
            for task in [measured.path, measured.operation] {
                if let Some(task) = tasks.get_mut(&task) {
                    task.note_distance(measured.call, config);
                }
            }
        });
        let mut model = Model { config: config.clone(), version: 0, tasks, measure };
        if !model.tasks.values().any(|task| task.is_known(config)) {
            let reason = format!("no call path has {} calls in complete traces (`min_calls`)", config.min_calls);
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        config.check()?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        let (version, tasks) = decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))?;
        Ok(Model { config: config.clone(), version, tasks, measure: Measure::default() })
    }
}

fn decode(reader: &mut Reader<'_>) -> Option<(u64, FxHashMap<u64, Task>)> {
    let version = reader.number()?;
    let mut tasks = FxHashMap::default();
    for _ in 0..reader.length(Task::LEAST_BYTES)? {
        let key = reader.number()?;
        tasks.insert(key, Task::read(reader)?);
    }
    reader.is_empty().then_some((version, tasks))
}

/// What a call is held against, and what is said of it: its path, or its operation where too little is known of that.
fn judge<'a>(tasks: &'a FxHashMap<u64, Task>, measured: &Measured, config: &Config) -> Option<(&'a Task, u64, Judged)> {
    [measured.path, measured.operation].into_iter().find_map(|key| {
        let task = tasks.get(&key)?;
        Some((task, key, task.judge(measured.call, config)?))
    })
}

impl Model {
    fn encode(&self) -> Vec<u8> {
        let mut tasks: Vec<(&u64, &Task)> = self.tasks.iter().collect();
        tasks.sort_unstable_by_key(|(key, _)| **key);
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.number(tasks.len() as u64);
        for (key, task) in tasks {
            writer.number(*key);
            task.write(&mut writer);
        }
        writer.finish()
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        TaskInsight::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        TaskInsight::SIGNAL
    }

    /// Nats of the call that is farthest from its habits, which is the culprit; the first of several.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let Self { config, tasks, measure, .. } = self;
        scores.extend(windows.iter().map(|window| {
            if !measure.take(window.as_trace()?, config.floor_ms) {
                return None;
            }
            let mut worst: Option<Score> = None;
            for (span, measured) in measure.calls.iter().enumerate() {
                let Some((_, _, judged)) = judge(tasks, measured, config) else { continue };
                if worst.is_none_or(|worst| judged.nats > worst.value) {
                    worst = Some(Score { value: judged.nats, culprit: span });
                }
            }
            worst
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.evidence(window, score)
    }

    /// Every call joins a cluster or founds one. New tasks are taken as long as there is room.
    fn learn(&mut self, windows: &[Window<'_>]) {
        let Self { config, tasks, measure, .. } = self;
        for trace in windows.iter().filter_map(Window::as_trace) {
            if !measure.take(trace, config.floor_ms) {
                continue;
            }
            for measured in &measure.calls {
                for key in [measured.path, measured.operation] {
                    if tasks.len() >= config.max_tasks && !tasks.contains_key(&key) {
                        continue;
                    }
                    let task = tasks.entry(key).or_default();
                    task.note_distance(measured.call, config);
                    task.learn(measured.call, config);
                }
            }
        }
    }

    /// What each call beyond `cut` did is a habit of its task from now on, where there is room for one. Nothing can
    /// score less than 0, so a cut of 0 teaches nothing.
    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        let Self { config, tasks, measure, .. } = self;
        let Some(trace) = window.as_trace() else { return 0 };
        if cut.is_nan() || cut <= 0.0 || !measure.take(trace, config.floor_ms) {
            return 0;
        }
        let mut hash = StableHash::new().text("accepted").number(self.version);
        let mut n_changed = 0;
        for measured in &measure.calls {
            // The calls before may have made it a habit.
            let beyond = judge(tasks, measured, config).filter(|(_, _, judged)| judged.nats >= cut);
            let Some(key) = beyond.map(|(_, key, _)| key) else { continue };
            if tasks.get_mut(&key).is_some_and(|task| task.accept(measured.call, config)) {
                hash = hash.number(key);
                n_changed += 1;
            }
        }
        if n_changed > 0 {
            self.version = hash.finish();
        }
        n_changed
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}
