//! `nezha`: which minutes of Nezha's TrainTicket have a fault, by its spans and logs in event time.
//!
//! Fitted on the minutes that the authors give as free of faults, one of each day, before all others; the other minutes follow
//! in order of time, through the stations of the live path (`nezha/feed.rs`). Truth is by minute of the clock and by fault
//! (`nezha/minutes.rs`), never seen by a detector. Each detector flags minutes by a constant, and once more as the alerts
//! of a monitor (`nezha/flags.rs`; of the detectors of traces `trace-vector` only); unions of them are rows as well. Traces that
//! begin in the training minutes are left out of the others.
//!
//! Cost: all records lie in memory (400 MB).

mod feed;
mod flags;
mod minutes;

use std::collections::{BTreeSet, HashSet};

use faultline_core::{Signal, Window};
use faultline_datasets::{
    ProtocolInfo, ResultRow, Usage,
    loaders::nezha::{Fault, Minute as Files, Nezha},
    usage::reset_peak_rss,
};
use faultline_detectors::{
    Algorithm, REGISTRY,
    algorithms::{ngram::Ngram, service_latency::ServiceLatency, trace_vector::TraceVector},
};
use serde_json::{Map, Value, json};

use self::{
    feed::Part,
    flags::{AS_STUDIED, Durations, Latency, LogFlow, P95_DURATION, Traces, Watch, latest},
    minutes::{Minute, Seen, Tally},
};
use super::{
    Args,
    sessions::{FLAG_ALL, is_wanted},
};

/// The detectors, in the order in which rows join them.
const DETECTORS: [&str; 3] = [ServiceLatency::NAME, Ngram::NAME, TraceVector::NAME];

/// Whether this protocol has a way to flag minutes of this name that is no detector's.
pub fn has_method(name: &str) -> bool {
    [P95_DURATION, AS_STUDIED].contains(&name)
}

/// One way to flag minutes.
struct Flagged {
    name: String,
    seed: Option<u64>,
    /// Whether they are alerts of a monitor.
    is_watched: bool,
    minutes: BTreeSet<i64>,
    rule: String,
    n_alerts: Option<usize>,
}

impl Flagged {
    fn by_constant(name: &str, minutes: BTreeSet<i64>, rule: String) -> Self {
        Self { name: name.to_owned(), seed: None, is_watched: false, minutes, rule, n_alerts: None }
    }

    fn by_watch(name: &str, watch: &Watch) -> Self {
        let n_alerts = Some(watch.n_alerts());
        Self {
            name: name.to_owned(),
            seed: None,
            is_watched: true,
            minutes: watch.minutes(),
            rule: Watch::rule(),
            n_alerts,
        }
    }

    /// What any of them flags.
    fn any(of: &[&Self]) -> Self {
        let names: Vec<&str> = of.iter().map(|one| one.name.as_str()).collect();
        Self {
            name: names.join("|"),
            seed: None,
            is_watched: of.iter().all(|one| one.is_watched),
            minutes: of.iter().flat_map(|one| one.minutes.iter().copied()).collect(),
            rule: "any of them".to_owned(),
            n_alerts: of.iter().map(|one| one.n_alerts).sum(),
        }
    }
}

/// Runs the protocol.
pub fn nezha(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let data = Nezha::load(&files.data)?;
    let (fault_free, others): (Vec<Files>, Vec<Files>) =
        data.minutes.iter().cloned().partition(|minute| minute.is_fault_free);
    anyhow::ensure!(
        !fault_free.is_empty() && !others.is_empty(),
        "{}: no minutes without a fault to fit on (below construct_data), or none to judge",
        files.data.display()
    );
    reset_peak_rss();
    let training = Part::read(&fault_free)?;
    let mut test = Part::read(&others)?;
    let known: HashSet<&str> = training.spans.iter().map(|span| span.trace_id.as_str()).collect();
    test.spans.retain(|span| !known.contains(span.trace_id.as_str()));
    test.logs.retain(|log| !known.contains(log.trace_id.as_str()));
    let mut seen = Seen::default();
    test.spans.iter().for_each(|span| seen.span(span.start_unix_nano, span.service()));
    test.logs.iter().for_each(|log| seen.log(log.time_unix_nano, log.service()));
    let minutes = seen.minutes(&data.faults);

    let mut all = judge(args, &training, &test)?;
    let everything = minutes.iter().map(|minute| minute.number).collect();
    all.insert(0, Flagged::by_constant(FLAG_ALL, everything, "flags everything".to_owned()));
    for flagged in all.iter().filter(|flagged| is_wanted(args, &flagged.name)) {
        let mut row = row(info, flagged, &minutes, &data.faults);
        row.seed = flagged.seed;
        // All ways run side by side, so what a row cost, or how fast it was, is not known.
        row.peak_rss_bytes = Usage::now().peak_rss_bytes;
        report(row);
    }
    Ok(())
}

/// Every way to flag minutes of `test`, fitted on `training`.
fn judge(args: &Args, training: &Part, test: &Part) -> anyhow::Result<Vec<Flagged>> {
    let (assembler, services) = training.stations()?;
    let mut parser = feed::parser()?;
    let mut windower = training.sessions(&mut parser)?;
    let (traces, steps, sessions) = (assembler.ready(), services.ready(), windower.ready());
    let (mut of_traces, mut of_steps, mut of_sessions) =
        (Traces::fit(TraceVector::NAME, 0, &traces)?, Latency::fit(&steps)?, LogFlow::fit(&sessions)?);
    let mut durations = Durations::fit(&traces);
    let mut others = others(args, &traces);
    let mut as_studied = LogFlow::fit_as_studied(&sessions)?;
    let mut watches = [
        Watch::fit(ServiceLatency::NAME, &steps)?,
        Watch::fit(Ngram::NAME, &sessions)?,
        Watch::fit(TraceVector::NAME, &traces)?,
    ];
    let [of_services, of_logs, of_vectors] = &mut watches;

    test.walk_spans(
        |traces: &[Window<'_>]| {
            of_traces.see(traces);
            durations.see(traces);
            others.iter_mut().for_each(|(_, _, other)| other.see(traces));
            of_vectors.see(traces, latest(traces));
        },
        |steps: &[Window<'_>], until| {
            of_steps.see(steps);
            of_services.see(steps, until);
        },
    )?;
    test.walk_logs(&mut parser, |sessions: &[Window<'_>]| {
        of_sessions.see(sessions);
        as_studied.see(sessions);
        of_logs.see(sessions, latest(sessions));
    })?;

    let constants = [
        Flagged::by_constant(ServiceLatency::NAME, of_steps.minutes(), of_steps.rule()),
        Flagged::by_constant(Ngram::NAME, of_sessions.minutes(), of_sessions.rule()),
        Flagged::by_constant(TraceVector::NAME, of_traces.minutes(), of_traces.rule()),
    ];
    let watched: Vec<Flagged> =
        DETECTORS.iter().zip(&watches).map(|(name, watch)| Flagged::by_watch(name, watch)).collect();
    let rule = durations.rule();
    let mut all = vec![Flagged::by_constant(P95_DURATION, durations.minutes(), rule)];
    let [latency, flow, vector] = &constants;
    let unions = [Flagged::any(&[latency, flow]), Flagged::any(&[latency, flow, vector])];
    let watched_unions =
        [Flagged::any(&[&watched[0], &watched[1]]), Flagged::any(&[&watched[0], &watched[1], &watched[2]])];
    all.extend(constants);
    all.extend(others.iter().map(|(name, seed, other)| Flagged {
        seed: *seed,
        ..Flagged::by_constant(name, other.minutes(), other.rule())
    }));
    all.push(Flagged::by_constant(AS_STUDIED, as_studied.minutes(), as_studied.rule()));
    all.extend(unions);
    all.extend(watched);
    all.extend(watched_unions);
    Ok(all)
}

/// The other detectors of traces that the command line asks for, by seed. Those that cannot be fitted say so.
fn others(args: &Args, traces: &[Window<'_>]) -> Vec<(&'static str, Option<u64>, Traces)> {
    let of_traces = REGISTRY.iter().filter(|entry| entry.signal == Signal::Traces && entry.name != TraceVector::NAME);
    let mut others = Vec::new();
    for entry in of_traces.filter(|entry| is_wanted(args, entry.name)) {
        let seeds: Vec<Option<u64>> =
            if entry.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
        for seed in seeds {
            match Traces::fit(entry.name, seed.unwrap_or(1), traces) {
                Ok(other) => others.push((entry.name, seed, other)),
                Err(error) => eprintln!("{}: cannot be fitted: {error}", entry.name),
            }
        }
    }
    others
}

fn row(info: &ProtocolInfo, flagged: &Flagged, minutes: &[Minute], faults: &[Fault]) -> ResultRow {
    let tally = Tally::of(minutes, faults, &flagged.minutes);
    let by_kind: Map<String, Value> = tally
        .kinds
        .iter()
        .map(|(kind, [n_minutes, n_found, n_faults, n_faults_found])| {
            let own = json!({
                "n_minutes": n_minutes,
                "n_minutes_found": n_found,
                "n_faults": n_faults,
                "n_faults_found": n_faults_found,
            });
            (kind.clone(), own)
        })
        .collect();
    let first_day = minutes.first().map_or(0, |minute| minute.number.div_euclid(1_440));
    let clock = |number: &i64| {
        let (day, minute) = (number.div_euclid(1_440) - first_day + 1, number.rem_euclid(1_440));
        format!("day {day} {:02}:{:02}", minute / 60, minute % 60)
    };
    let missed: Vec<String> = tally.missed.iter().map(clock).collect();
    let mistaken: Vec<String> = tally.mistaken.iter().map(clock).collect();
    let dataset =
        if flagged.is_watched { format!("{}, alerts of a monitor", info.dataset) } else { info.dataset.into() };
    ResultRow::new(info.name, &dataset, &flagged.name)
        .with_confusion(&tally.counts)
        .with_extra("rule", flagged.rule.as_str())
        .with_extra("sure_recall", tally.sure_recall())
        .with_extra("n_sure", tally.n_sure)
        .with_extra("n_faults", faults.len())
        .with_extra("n_faults_found", tally.n_faults_found)
        .with_extra("n_normal", tally.n_normal())
        .with_extra("n_edge", tally.n_edge)
        .with_extra("n_edge_flagged", tally.n_edge_flagged)
        .with_extra("n_false_alerts", tally.n_false_episodes)
        .with_extra("false_alerts_per_hour", tally.false_episodes_per_hour())
        .with_extra("n_alerts", flagged.n_alerts)
        .with_extra("by_kind", Value::Object(by_kind))
        .with_extra("missed", missed)
        .with_extra("mistaken", mistaken)
}

#[cfg(test)]
mod tests;
