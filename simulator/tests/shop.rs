//! The built-in shop: boring in health, repeatable, and broken only where a fault and the calls say so.

use std::collections::{BTreeMap, BTreeSet};

use faultline_simulator::{
    Config, ConfigError, Fault, FaultKind, SimLog, SimSpan, Simulation, SpanKind, SpanStatus, Telemetry,
    config::{Call, Speech, Step},
    shop,
};

const SECOND: u64 = 1_000_000_000;

fn simulation(seed: u64) -> Simulation {
    Simulation::new(&shop::config(), seed).expect("the shop is valid")
}

fn fault(service: &str, kind: FaultKind, from_s: u64, until_s: u64) -> Fault {
    let severity = kind.typical_severity();
    Fault { service: service.into(), kind, from_ns: from_s * SECOND, until_ns: until_s * SECOND, severity }
}

/// The line with every token that holds a digit taken out: what a template miner would make of it.
fn template(log: &SimLog) -> String {
    let words =
        log.body.split_whitespace().map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "<*>" } else { word });
    let searches = if log.body.starts_with("search returned") { 6 } else { usize::MAX };
    format!("{} {}", log.service, words.take(searches).collect::<Vec<_>>().join(" "))
}

fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_same_seed_gives_the_same_bytes_however_often_they_are_taken() {
    let run = |seed: u64, step_ns: u64| {
        let mut simulation = simulation(seed);
        simulation.inject(fault("inventory", FaultKind::Exception, 5, 8)).expect("a valid fault");
        let mut all = Telemetry::default();
        for t_ns in (0..=10 * SECOND).step_by(step_ns as usize) {
            let telemetry = simulation.advance_to(t_ns);
            all.spans.extend(telemetry.spans);
            all.logs.extend(telemetry.logs);
        }
        all.to_text()
    };
    let text = run(7, SECOND / 4);
    assert_eq!(digest(&text), digest(&run(7, 10 * SECOND)), "steps do not matter");
    assert_ne!(digest(&text), digest(&run(8, SECOND / 4)), "the seed does");
    let n_lines = text.lines().count();
    insta::assert_snapshot!(format!("{n_lines} records, digest {:016x}", digest(&text)));
}

#[test]
fn what_the_shop_says_reads_like_a_shop() {
    let telemetry = simulation(3).advance_to(20 * SECOND);
    let mut first = BTreeMap::new();
    for log in &telemetry.logs {
        first
            .entry(template(log))
            .or_insert_with(|| format!("{:>9} {:5} {}", log.service, log.severity_text(), log.body));
    }
    insta::assert_snapshot!(first.into_values().collect::<Vec<_>>().join("\n"));
}

#[test]
fn telemetry_comes_in_time_order_and_every_span_but_the_first_has_a_parent() {
    let telemetry = simulation(4).advance_to(60 * SECOND);
    assert!(telemetry.spans.is_sorted_by_key(|span| span.end_ns));
    assert!(telemetry.logs.is_sorted_by_key(|log| log.time_ns));
    let ids: BTreeSet<_> = telemetry.spans.iter().map(|span| (span.trace_id, span.span_id)).collect();
    assert_eq!(ids.len(), telemetry.spans.len(), "span ids are unique");
    // Only spans of requests that are still under way may miss their parent.
    let last_s = 59 * SECOND;
    for span in telemetry.spans.iter().filter(|span| span.end_ns < last_s) {
        match span.parent_span_id {
            Some(parent) => assert!(ids.contains(&(span.trace_id, parent)), "{span:?}"),
            None => assert_eq!((&*span.service, span.kind), ("frontend", SpanKind::Server)),
        }
    }
    assert!(telemetry.logs.iter().all(|log| log.trace.is_none_or(|(trace, _)| trace != [0; 16])));
    let n_requests = telemetry.spans.iter().filter(|span| span.parent_span_id.is_none()).count();
    assert!((1_050..1_350).contains(&n_requests), "about 20 a second: {n_requests}");
}

#[test]
fn in_health_nothing_fails_and_nothing_is_new_after_the_first_twenty_seconds() {
    for seed in 0..10 {
        let mut simulation = simulation(seed);
        let start = simulation.advance_to(20 * SECOND);
        let known: BTreeSet<_> = start.logs.iter().map(template).collect();
        let later = simulation.advance_to(300 * SECOND);
        assert!(later.logs.iter().all(|log| log.severity_number == 9));
        assert!(later.spans.iter().all(|span| span.status == SpanStatus::Unset));
        let new: BTreeSet<_> = later.logs.iter().map(template).filter(|line| !known.contains(line)).collect();
        assert!(new.is_empty(), "seed {seed}: {new:?}");
        let rare: Vec<_> = count(later.logs.iter().map(template)).into_iter().filter(|(_, n)| *n < 28).collect();
        assert!(rare.is_empty(), "less than six a minute, seed {seed}: {rare:?}");
    }
}

fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    items.fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

/// The lines of each trace in order, for traces whose first line is from `from_s` on.
fn sequences(telemetry: &Telemetry) -> Vec<(u64, Vec<String>)> {
    let mut traces: BTreeMap<[u8; 16], (u64, Vec<String>)> = BTreeMap::new();
    for log in &telemetry.logs {
        if let Some((trace, _)) = log.trace {
            traces.entry(trace).or_insert((log.time_ns, Vec::new())).1.push(template(log));
        }
    }
    traces.into_values().collect()
}

#[test]
fn in_health_hardly_any_trace_says_its_lines_in_a_new_order() {
    for seed in 0..5 {
        let all = sequences(&simulation(seed).advance_to(600 * SECOND));
        let known: BTreeSet<_> = all.iter().filter(|(t, _)| *t < 30 * SECOND).map(|(_, lines)| lines).collect();
        let later: Vec<_> = all.iter().filter(|(t, _)| (30..590).contains(&(t / SECOND))).collect();
        let n_new = later.iter().filter(|(_, lines)| !known.contains(lines)).count();
        assert!(n_new <= later.len() / 2_000, "seed {seed}: {n_new} of {}", later.len());
    }
}

/// Services that call `service`, directly or through others, by the configuration.
fn callers(config: &Config, service: &str) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    loop {
        let before = found.len();
        for caller in &config.services {
            let calls_it = |call: &Call| call.service == service || found.contains(&call.service);
            let steps = caller.operations.iter().flat_map(|operation| &operation.steps);
            if steps.into_iter().any(|step| matches!(step, Step::Call(calls) if calls.iter().any(calls_it))) {
                found.insert(caller.name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Mean duration in milliseconds and share of failures of each service's visits that began within the span of time.
fn health(spans: &[SimSpan], from_s: u64, until_s: u64) -> BTreeMap<String, (f64, f64, usize)> {
    let mut sums: BTreeMap<String, (f64, f64, usize)> = BTreeMap::new();
    for span in spans {
        if span.kind == SpanKind::Server && (from_s * SECOND..until_s * SECOND).contains(&span.start_ns) {
            let entry = sums.entry(span.service.to_string()).or_default();
            entry.0 += (span.end_ns - span.start_ns) as f64 / 1e6;
            entry.1 += f64::from(u8::from(span.status == SpanStatus::Error));
            entry.2 += 1;
        }
    }
    sums.into_iter().map(|(name, (ms, failures, n))| (name, (ms / n as f64, failures / n as f64, n))).collect()
}

#[test]
fn a_fault_hurts_its_service_and_its_callers_and_nobody_else() {
    let config = shop::config();
    for service in ["database", "inventory", "payment", "email", "pricing", "gateway"] {
        let callers = callers(&config, service);
        for kind in FaultKind::ALL {
            let mut simulation = simulation(21);
            simulation.inject(fault(service, kind, 60, 120)).expect("a valid fault");
            let telemetry = simulation.advance_to(150 * SECOND);
            let before = health(&telemetry.spans, 0, 60);
            let during = health(&telemetry.spans, 60, 120);
            let what = format!("{} at {service}", kind.name());
            for (name, (ms_before, _, _)) in &before {
                let Some((ms, failures, _)) = during.get(name) else {
                    assert!(
                        kind == FaultKind::Unavailable || kind == FaultKind::Exception || name != service,
                        "{what}: {name} is silent"
                    );
                    continue;
                };
                if name == service {
                    let hurt = match kind {
                        FaultKind::Delay | FaultKind::CpuHog => *ms > ms_before * 2.0,
                        FaultKind::Exception => *failures > 0.5,
                        FaultKind::Unavailable => panic!("{what}: a dead service answered"),
                    };
                    assert!(hurt, "{what}: it does not show: {ms_before:.1} ms to {ms:.1} ms, {failures:.2} failed");
                } else if !callers.contains(name) {
                    assert!(*failures == 0.0, "{what}: {name} calls nothing broken, yet {failures:.2} fail");
                    let shift = ms / ms_before;
                    assert!((0.6..1.6).contains(&shift), "{what}: {name} went from {ms_before:.2} to {ms:.2} ms");
                }
            }
            // A caller that can do without the culprit only says so.
            let complained: BTreeSet<_> =
                telemetry.logs.iter().filter(|log| log.severity_number > 9).map(|log| &*log.service).collect();
            let noticed = |(name, (ms, failures, _)): (&String, &(f64, f64, usize))| {
                *failures > 0.02 || *ms > before[name].0 * 1.2 || complained.contains(name.as_str())
            };
            let mut those = during.iter().filter(|(name, _)| callers.contains(*name));
            assert!(those.any(noticed), "{what}: some caller notices");
            assert!(
                complained.iter().all(|name| *name == service || callers.contains(*name)),
                "{what}: {complained:?}"
            );
        }
    }
}

#[test]
fn a_delayed_service_keeps_silent_and_its_callers_complain() {
    let mut simulation = simulation(5);
    simulation.inject(fault("inventory", FaultKind::Delay, 30, 60)).expect("a valid fault");
    simulation.advance_to(30 * SECOND);
    let during = simulation.advance_to(60 * SECOND);
    let complaints = count(during.logs.iter().filter(|log| log.severity_number > 9).map(|log| log.service.to_string()));
    assert!(!complaints.contains_key("inventory"), "{complaints:?}");
    assert!(complaints["cart"] > 50 && complaints["checkout"] > 20 && complaints["gateway"] > 20, "{complaints:?}");
    let first = during.logs.iter().find(|log| log.severity_number > 9).map(|log| log.time_ns - 30 * SECOND);
    assert!(first.is_some_and(|after| after < 3 * SECOND), "the first complaint comes soon: {first:?}");
}

#[test]
fn the_shop_recovers_when_a_fault_is_over() {
    for kind in FaultKind::ALL {
        let mut simulation = simulation(6);
        simulation.inject(fault("database", kind, 10, 30)).expect("a valid fault");
        simulation.advance_to(45 * SECOND);
        let after = simulation.advance_to(75 * SECOND);
        assert!(after.logs.iter().all(|log| log.severity_number == 9), "{} leaves nothing behind", kind.name());
        assert!(after.spans.iter().all(|span| span.status == SpanStatus::Unset));
    }
}

#[test]
fn overload_turns_visits_away_instead_of_growing_without_bound() {
    let mut config = Config { arrivals_per_second: 2_000.0, max_visits: 500, speech: Speech::Silent, ..shop::config() };
    for service in &mut config.services {
        service.n_servers = 1;
        service.queue_capacity = 10;
    }
    let mut simulation = Simulation::new(&config, 1).expect("a valid configuration");
    simulation.advance_to(20 * SECOND);
    let stats = simulation.stats();
    assert!(stats.iter().map(|service| service.n_turned_away).sum::<u64>() > 1_000);
    assert!(stats.iter().all(|service| service.n_visits - service.n_ended <= 500));
}

#[test]
fn what_cannot_be_simulated_is_refused_by_name() {
    let mut simulation = simulation(1);
    let unknown = simulation.inject(fault("inventroy", FaultKind::Delay, 1, 2)).expect_err("no such service");
    assert!(unknown.to_string().starts_with("fault.service: no such service `inventroy`; there are frontend, gateway"));
    let share = Fault { severity: 1.5, ..fault("cart", FaultKind::Exception, 1, 2) };
    let refused = simulation.inject(share).expect_err("more than all visits");
    assert_eq!(refused.to_string(), "fault.severity: 1.5 is not a share of visits between 0 and 1");
    assert!(simulation.inject(fault("cart", FaultKind::Delay, 2, 2)).is_err(), "an empty span of time");

    let mut cyclic = shop::config();
    let mut back = match &cyclic.services[0].operations[0].steps[2] {
        Step::Call(calls) => calls[0].clone(),
        other => panic!("not a call: {other:?}"),
    };
    back.service = "frontend".into();
    back.operation = "GET /products".into();
    cyclic.services[13].operations[0].steps.push(Step::Call(vec![back]));
    let cycle = Simulation::new(&cyclic, 1).err();
    assert!(matches!(&cycle, Some(ConfigError::Invalid { reason, .. }) if reason.contains("cycle")), "{cycle:?}");
}
