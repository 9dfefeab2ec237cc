//! `tracebench`: detection of single requests by fault kind and severity on HDFS v3 TraceBench.
//!
//! Normal are the collections without a fault on the cluster of fifty data nodes, and the zero of each fault series (the
//! load under which faults were injected). Each is cut in time: the first 45 % fit, the next 20 % fix the threshold,
//! the last 35 % are judged. Every trace of every collection with a fault is judged. A trace is positive when the fault
//! touched it; the loader says how that is known. The traces of such a collection that the fault did not touch are
//! neither positive nor counted as false alarms: `untouched_flagged` tells how many are flagged. A second figure,
//! `recall_collection`, takes every trace of a collection with a fault for positive.
//!
//! Rows: all severities, the larger ones (at least half of the largest of their kind), and each kind, whose
//! precision is against the normal traces of the same workload (writing, reading, asking the name node).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use faultline_core::{
    Detector, LogEntry, LogWindow, Numbers, Score, Signal, TemplateId, TemplateTexts, Window, WindowKey, WindowState,
};
use faultline_datasets::{
    Confusion, ResultRow, Split, Usage, average_precision,
    loaders::tracebench::{Collection, Trace, TraceBench},
    usage::reset_peak_rss,
};
use faultline_detectors::{
    AlertConfig, Budget, Entry, REGISTRY,
    calibrate::Calibration,
    lifecycle::{Monitor, MonitorConfig, WarmUp},
};
use serde_json::{Map, Value, json};

use super::Args;

/// Shares of each normal collection.
const TRAIN_SHARE: f64 = 0.45;
const CALIBRATE_SHARE: f64 = 0.20;

/// Share of normal traces that a calibrated detector may flag.
const SIGNIFICANCE: f64 = 2e-3;

/// Windows scored at a time.
const CHUNK: usize = 512;

/// The row of what a user gets without configuring anything.
const DEFAULT: &str = "default";

/// One trace to judge, and what is known of it. Nothing of this reaches a detector.
#[derive(Clone, Debug)]
struct Case {
    workload: &'static str,
    truth: Truth,
}

#[derive(Clone, Debug, PartialEq)]
enum Truth {
    /// Held out of a normal collection, which is named.
    Normal(String),
    /// From a collection with a fault.
    Faulty { kind: String, level: u32, is_large: bool, is_touched: bool },
    /// From a cluster of another size or build: normal by label, counted apart.
    Elsewhere(String),
}

impl Case {
    fn is_touched(&self) -> bool {
        matches!(self.truth, Truth::Faulty { is_touched: true, .. })
    }
}

/// Traces in the shape detectors take, each with a key of its own.
#[derive(Default)]
struct Traces {
    keys: Vec<WindowKey>,
    entries: Vec<LogEntry>,
    ends: Vec<usize>,
    services: Vec<Arc<str>>,
}

impl Traces {
    fn new(services: &[String]) -> Self {
        Self { services: services.iter().map(|name| Arc::from(name.as_str())).collect(), ..Self::default() }
    }

    fn push(&mut self, collection: &str, trace: &Trace) {
        let n = self.entries.len() as u64;
        self.entries.extend(trace.records.iter().zip(n..).map(|(record, id)| LogEntry {
            template: TemplateId(u64::from(record.template) + 1),
            time_unix_nano: record.time_unix_nano,
            record: id,
            service: record.service,
            severity_number: 0,
            is_since_deploy: false,
        }));
        self.ends.push(self.entries.len());
        self.keys.push(WindowKey { stream: "tracebench".into(), session: format!("{collection}/{}", trace.id).into() });
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn windows(&self, range: std::ops::Range<usize>) -> Vec<Window<'_>> {
        let window = |idx: usize| {
            let start = if idx == 0 { 0 } else { self.ends[idx - 1] };
            Window::Log(LogWindow {
                key: &self.keys[idx],
                records: &self.entries[start..self.ends[idx]],
                numbers: Numbers::default(),
                fresh: 0,
                n_dropped: 0,
                state: WindowState::Closed,
                is_stream: false,
                services: &self.services,
                templates: TemplateTexts::NONE,
            })
        };
        range.map(window).collect()
    }
}

/// The three parts.
struct Parts {
    train: Traces,
    calibrate: Traces,
    test: Traces,
    cases: Vec<Case>,
}

impl Parts {
    fn of(all: &TraceBench) -> Self {
        let mut train = Traces::new(&all.services);
        let mut calibrate = Traces::new(&all.services);
        let mut test = Traces::new(&all.services);
        let mut cases = Vec::new();
        let mut largest: BTreeMap<&str, u32> = BTreeMap::new();
        for fault in all.collections.iter().filter_map(|collection| collection.fault.as_ref()) {
            let largest = largest.entry(&fault.kind).or_default();
            *largest = fault.level().max(*largest);
        }
        for collection in &all.collections {
            let Collection { name, fault, traces } = collection;
            let is_normal = fault.as_ref().is_none_or(|fault| !fault.is_injected());
            // Fewer data nodes are another cluster, not this one on another day.
            let is_elsewhere = name.starts_with("NM_DN");
            let split = match (is_normal, is_elsewhere) {
                (true, false) => Split::chronological(traces.len(), TRAIN_SHARE, CALIBRATE_SHARE),
                _ => Split { train: 0..0, calibrate: 0..0, test: 0..traces.len() },
            };
            traces[split.train].iter().for_each(|trace| train.push(name, trace));
            traces[split.calibrate].iter().for_each(|trace| calibrate.push(name, trace));
            for trace in &traces[split.test] {
                test.push(name, trace);
                let truth = match fault {
                    _ if is_elsewhere => Truth::Elsewhere(name.clone()),
                    Some(fault) if !is_normal => {
                        let is_bug = fault.kind.starts_with("bug");
                        if is_bug && !trace.is_touched {
                            Truth::Elsewhere("other build".to_owned())
                        } else {
                            let (kind, level) = (fault.kind.clone(), fault.level());
                            let is_large = 2 * level >= largest[kind.as_str()];
                            Truth::Faulty { kind, level, is_large, is_touched: trace.is_touched }
                        }
                    }
                    _ => Truth::Normal(name.clone()),
                };
                cases.push(Case { workload: trace.workload(), truth });
            }
        }
        Self { train, calibrate, test, cases }
    }
}

/// What a detector made of the test part.
struct Judged {
    name: String,
    seed: Option<u64>,
    scores: Vec<f64>,
    flagged: Vec<bool>,
    threshold: f64,
    rule: &'static str,
    records_per_second: f64,
    cpu_seconds: Option<f64>,
}

/// Runs the protocol.
pub fn tracebench(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "hdfs_tracebench")?;
    let all = TraceBench::load(&files.data)?;
    let parts = Parts::of(&all);
    anyhow::ensure!(parts.train.len() > 0, "{}: no normal collection (NM_CL_*) to fit on", files.data.display());
    drop(all);
    let wanted = |name: &str| args.detector.is_empty() || args.detector.iter().any(|wanted| wanted == name);
    for entry in REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs && wanted(entry.name)) {
        let seeds: Vec<Option<u64>> =
            if entry.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
        for seed in seeds {
            rows(&judge(entry, seed, &parts)?, &parts.cases, report);
        }
    }
    if wanted(DEFAULT) {
        rows(&product(args.seeds[0], &parts)?, &parts.cases, report);
    }
    Ok(())
}

fn score_all(detector: &mut dyn Detector, traces: &Traces, mut tick: impl FnMut(usize)) -> Vec<f64> {
    let mut all = Vec::with_capacity(traces.len());
    let mut scores: Vec<Option<Score>> = Vec::with_capacity(CHUNK);
    for start in (0..traces.len()).step_by(CHUNK) {
        let range = start..(start + CHUNK).min(traces.len());
        scores.clear();
        detector.score(&traces.windows(range.clone()), &mut scores);
        all.extend(scores.iter().map(|score| score.map_or(f64::NEG_INFINITY, |score| score.value)));
        tick(range.len());
    }
    all
}

/// Fits, fixes the threshold on the calibration part, then scores the test part.
fn judge(entry: &Entry, seed: Option<u64>, parts: &Parts) -> anyhow::Result<Judged> {
    reset_peak_rss();
    let before = Usage::now();
    let bar = crate::progress::bar(parts.test.len() as u64, entry.name);
    let training = parts.train.windows(0..parts.train.len());
    let mut detector = entry.fit(&entry.default_config(), &training, seed.unwrap_or(1))?;
    let held_out = score_all(&mut *detector, &parts.calibrate, |_| ());
    let threshold = Calibration::fit(&held_out).threshold(SIGNIFICANCE).unwrap_or(f64::INFINITY).next_down();
    let started = Instant::now();
    let scores = score_all(&mut *detector, &parts.test, |n| bar.inc(n as u64));
    let records_per_second = parts.test.entries.len() as f64 / started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(Judged {
        name: entry.name.to_owned(),
        seed,
        flagged: scores.iter().map(|score| *score > threshold).collect(),
        scores,
        threshold,
        rule: "calibrated on 20 % of each normal collection",
        records_per_second,
        cpu_seconds: Usage::now().cpu_seconds_since(&before),
    })
}

/// All detectors with their defaults, warmed up on what the others fit and calibrate on, with an alert as the verdict.
/// The traces come in order of their time, collection by collection.
fn product(seed: u64, parts: &Parts) -> anyhow::Result<Judged> {
    reset_peak_rss();
    let before = Usage::now();
    let mut warm = parts.train.windows(0..parts.train.len());
    warm.extend(parts.calibrate.windows(0..parts.calibrate.len()));
    let began = |window: &Window<'_>| window.as_log().map_or(0, |log| log.span_unix_nano().0);
    warm.sort_by_key(began);
    let warm_up = WarmUp { sessions: Some(warm.len() as u64), ..WarmUp::default() };
    // Collections of different days are strung together: there is no day over which a budget could be spent.
    let alerting = AlertConfig { budget: Budget::UNLIMITED, ..AlertConfig::default() };
    let mut monitor = Monitor::new(MonitorConfig { warm_up, seed, alerting, ..MonitorConfig::default() })?;
    monitor.process(&warm);
    anyhow::ensure!(monitor.is_in_service(), "the detectors did not warm up on the training part");
    let test = &parts.test;
    let idx_of: BTreeMap<&str, usize> = test.keys.iter().map(|key| &*key.session).zip(0..).collect();
    let bar = crate::progress::bar(test.len() as u64, DEFAULT);
    let (mut scores, mut flagged) = (vec![0.0_f64; test.len()], vec![false; test.len()]);
    let started = Instant::now();
    for start in (0..test.len()).step_by(CHUNK) {
        let range = start..(start + CHUNK).min(test.len());
        let windows = test.windows(range.clone());
        let outcome = monitor.process(&windows);
        for scored in &outcome.scored {
            let score = &mut scores[start + scored.window];
            *score = score.max(-scored.p_value.log10());
        }
        for alert in &outcome.alerts {
            if let Some(&idx) = idx_of.get(alert.session.as_str()) {
                flagged[idx] = true;
            }
        }
        bar.inc(range.len() as u64);
    }
    bar.finish_and_clear();
    Ok(Judged {
        name: DEFAULT.to_owned(),
        seed: Some(seed),
        scores,
        flagged,
        threshold: f64::NAN,
        rule: "alerts of all detectors with their defaults",
        records_per_second: test.entries.len() as f64 / started.elapsed().as_secs_f64(),
        cpu_seconds: Usage::now().cpu_seconds_since(&before),
    })
}

/// All rows of one detector.
fn rows(judged: &Judged, cases: &[Case], report: &mut dyn FnMut(ResultRow)) {
    let share_flagged = |of: &dyn Fn(&Case) -> bool| -> Value {
        let of: Vec<usize> = (0..cases.len()).filter(|&idx| of(&cases[idx])).collect();
        let n_flagged = of.iter().filter(|&&idx| judged.flagged[idx]).count();
        if of.is_empty() { Value::Null } else { json!(round(n_flagged as f64 / of.len() as f64)) }
    };
    let row = |name: &str, is_positive: &dyn Fn(&Case) -> bool, is_negative: &dyn Fn(&Case) -> bool| {
        let of: Vec<usize> =
            (0..cases.len()).filter(|&idx| is_positive(&cases[idx]) || is_negative(&cases[idx])).collect();
        let truth: Vec<bool> = of.iter().map(|&idx| is_positive(&cases[idx])).collect();
        let scores: Vec<f64> = of.iter().map(|&idx| judged.scores[idx]).collect();
        let counts = Confusion::of(of.iter().map(|&idx| judged.flagged[idx]).zip(truth.iter().copied()));
        let mut row = ResultRow::new("tracebench", name, &judged.name).with_confusion(&counts);
        row.seed = judged.seed;
        row.auprc = average_precision(&scores, &truth);
        row.with_extra("specificity", counts.specificity())
    };
    let is_normal = |case: &Case| matches!(case.truth, Truth::Normal(_));
    let is_large = |case: &Case| matches!(case.truth, Truth::Faulty { is_large: true, .. });
    let is_faulty = |case: &Case| matches!(case.truth, Truth::Faulty { .. });

    let mut normal_flagged = Map::new();
    for name in names(cases, |truth| match truth {
        Truth::Normal(name) | Truth::Elsewhere(name) => Some(name.clone()),
        Truth::Faulty { .. } => None,
    }) {
        let share =
            share_flagged(&|case| matches!(&case.truth, Truth::Normal(of) | Truth::Elsewhere(of) if *of == name));
        normal_flagged.insert(name.clone(), share);
    }
    let mut all = row("all severities", &|case| case.is_touched(), &is_normal)
        .with_extra("recall_collection", share_flagged(&is_faulty))
        .with_extra("untouched_flagged", share_flagged(&|case| is_faulty(case) && !case.is_touched()))
        .with_extra("normal_flagged", normal_flagged)
        .with_extra("rule", judged.rule)
        .with_extra("threshold", if judged.threshold.is_finite() { judged.threshold.into() } else { Value::Null });
    all.records_per_second = Some(judged.records_per_second);
    all.cpu_seconds = judged.cpu_seconds;
    all.peak_rss_bytes = Usage::now().peak_rss_bytes;
    report(all);
    report(
        row("larger severities", &|case| case.is_touched() && is_large(case), &is_normal)
            .with_extra("recall_collection", share_flagged(&is_large)),
    );
    for kind in names(cases, |truth| match truth {
        Truth::Faulty { kind, .. } => Some(kind.clone()),
        _ => None,
    }) {
        let is_kind = |case: &Case| matches!(&case.truth, Truth::Faulty { kind: of, .. } if *of == kind);
        let workloads: BTreeSet<&str> = cases.iter().filter(|case| is_kind(case)).map(|case| case.workload).collect();
        let is_like = |case: &Case| is_normal(case) && workloads.contains(case.workload);
        let mut by_severity = Map::new();
        for level in levels(cases, &kind) {
            let here = |case: &Case| matches!(&case.truth, Truth::Faulty { kind: of, level: at, .. } if *of == kind && *at == level);
            let n = cases.iter().filter(|case| here(case)).count();
            let n_touched = cases.iter().filter(|case| here(case) && case.is_touched()).count();
            let figures = json!({
                "n": n,
                "n_touched": n_touched,
                "recall": share_flagged(&|case| here(case) && case.is_touched()),
                "recall_collection": share_flagged(&here),
                "untouched_flagged": share_flagged(&|case| here(case) && !case.is_touched()),
            });
            by_severity.insert(format!("{level:04}"), figures);
        }
        report(
            row(&kind, &|case| is_kind(case) && case.is_touched(), &is_like)
                .with_extra(
                    "recall_larger",
                    share_flagged(&|case| is_kind(case) && is_large(case) && case.is_touched()),
                )
                .with_extra("recall_collection", share_flagged(&is_kind))
                .with_extra("by_severity", by_severity),
        );
    }
}

fn names(cases: &[Case], name: impl Fn(&Truth) -> Option<String>) -> BTreeSet<String> {
    cases.iter().filter_map(|case| name(&case.truth)).collect()
}

fn levels(cases: &[Case], of: &str) -> BTreeSet<u32> {
    let level = |case: &Case| match &case.truth {
        Truth::Faulty { kind, level, .. } if kind == of => Some(*level),
        _ => None,
    };
    cases.iter().filter_map(level).collect()
}

fn round(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use faultline_datasets::loaders::tracebench::{Fault, Record};

    fn collection(name: &str, n: usize, is_touched: impl Fn(usize) -> bool) -> Collection {
        let trace = |idx: usize| Trace {
            id: idx.to_string(),
            title: "fs -copyFromLocal".to_owned(),
            records: vec![Record { time_unix_nano: idx as i64, template: 0, service: 0 }],
            is_touched: is_touched(idx),
        };
        Collection { name: name.to_owned(), fault: Fault::of(name), traces: (0..n).map(trace).collect() }
    }

    fn bench() -> TraceBench {
        TraceBench {
            templates: vec!["a call begins".to_owned()],
            services: vec!["client".to_owned()],
            collections: vec![
                collection("NM_CL_w_05C", 100, |_| false),
                collection("NM_DN_w_05DN", 7, |_| false),
                collection("AN_Net_slowHDFS_w_00ms", 20, |_| false),
                collection("AN_Net_slowHDFS_w_04ms", 10, |_| true),
                collection("AN_Net_slowHDFS_w_08ms", 10, |_| true),
                collection("AN_Net_slowHDFS_w_20ms", 10, |idx| idx != 3),
            ],
        }
    }

    #[test]
    fn normal_collections_are_cut_in_time_and_faulty_ones_are_judged_whole() {
        let parts = Parts::of(&bench());
        assert_eq!((parts.train.len(), parts.calibrate.len()), (45 + 9, 20 + 4));
        assert_eq!(parts.test.len(), 35 + 7 + 7 + 30);
        assert_eq!(parts.test.len(), parts.cases.len());
        let n = |of: &dyn Fn(&Case) -> bool| parts.cases.iter().filter(|case| of(case)).count();
        assert_eq!(n(&|case| matches!(case.truth, Truth::Normal(_))), 35 + 7);
        assert_eq!(n(&|case| matches!(case.truth, Truth::Elsewhere(_))), 7);
        assert_eq!(n(&Case::is_touched), 29);
        assert_eq!(n(&|case| matches!(case.truth, Truth::Faulty { is_large: true, .. })), 10, "half of 20 ms and more");
        assert_eq!(&*parts.test.keys[0].session, "NM_CL_w_05C/65", "the last 35 %");
    }

    #[test]
    fn rows_count_touched_traces_and_leave_untouched_ones_out() {
        let parts = Parts::of(&bench());
        // Flags every trace of the collections of 8 and 20 ms, and one normal trace.
        let is_flagged = |idx: usize| match &parts.cases[idx].truth {
            Truth::Faulty { level, .. } => *level >= 8,
            Truth::Normal(_) => idx == 0,
            Truth::Elsewhere(_) => false,
        };
        let flagged: Vec<bool> = (0..parts.cases.len()).map(is_flagged).collect();
        let judged = Judged {
            name: "test".to_owned(),
            seed: None,
            scores: flagged.iter().map(|flagged| f64::from(u8::from(*flagged))).collect(),
            flagged,
            threshold: 0.5,
            rule: "",
            records_per_second: 1.0,
            cpu_seconds: None,
        };
        let mut all = Vec::new();
        rows(&judged, &parts.cases, &mut |row| all.push(row));
        let names: Vec<&str> = all.iter().map(|row| row.dataset.as_str()).collect();
        assert_eq!(names, ["all severities", "larger severities", "slowHDFS_w"]);
        assert_eq!((all[0].precision, all[0].recall), (Some(19.0 / 20.0), Some(19.0 / 29.0)));
        assert_eq!(all[0].extra["untouched_flagged"], json!(1.0));
        assert_eq!((all[1].precision, all[1].recall), (Some(9.0 / 10.0), Some(1.0)));
        let of_kind = &all[2].extra["by_severity"];
        assert_eq!((&of_kind["0004"]["recall"], &of_kind["0008"]["recall"]), (&json!(0.0), &json!(1.0)));
        assert_eq!((&of_kind["0020"]["n"], &of_kind["0020"]["n_touched"]), (&json!(10), &json!(9)));
    }
}
