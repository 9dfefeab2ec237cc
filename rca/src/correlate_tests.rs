use faultline_core::{Alert, AlertState, Incident, Severity, SpanBatch, SpanBatchBuilder, SpanRecord};
use proptest::prelude::*;

use super::{Correlator, RcaConfig, test_alert};

fn correlator() -> Correlator {
    Correlator::new(RcaConfig::default()).expect("the defaults are valid")
}

/// One trace along a chain of services, at second 0.
fn chain(services: &[&str]) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for (idx, service) in services.iter().enumerate() {
        builder.push(&SpanRecord {
            trace_id: "000000000000000000000000000000aa",
            span_id: &format!("{:016x}", idx + 1),
            parent_span_id: &if idx == 0 { String::new() } else { format!("{idx:016x}") },
            name: "GET /",
            kind: 2,
            service_name: service,
            start_time_unix_nano: 0,
            end_time_unix_nano: 1_000_000,
            ..SpanRecord::default()
        });
    }
    builder.finish()
}

/// How the alerts are grouped: incidents by the sessions of their alerts.
fn groups(correlator: &mut Correlator, alerts: &[Alert]) -> Vec<Vec<String>> {
    let mut groups = std::collections::BTreeMap::new();
    for alert in alerts {
        correlator.update(std::slice::from_ref(alert));
    }
    for alert in alerts {
        let incident = correlator.members[&alert.id];
        groups.entry(incident).or_insert_with(Vec::new).push(alert.session.clone());
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort();
    groups
}

#[test]
fn neighbours_in_the_service_graph_share_an_incident_and_strangers_do_not() {
    let mut correlator = correlator();
    correlator.observe(&chain(&["a", "b", "c", "d", "e"]));
    let alerts = [
        test_alert("a", "1", 100.0, 101.0),
        test_alert("c", "2", 110.0, 110.0), // two edges away
        test_alert("elsewhere", "3", 110.0, 110.0),
    ];
    assert_eq!(groups(&mut correlator, &alerts), [vec!["1", "2"], vec!["3"]]);
    // Three edges from `a`, but one from `c`: the chain of alerts links them.
    assert_eq!(groups(&mut correlator, &[test_alert("d", "4", 112.0, 112.0), alerts[0].clone()]), [["4", "1"]]);
}

#[test]
fn distance_in_time_parts_the_same_service() {
    let mut correlator = correlator();
    correlator.observe(&chain(&["a", "b"]));
    let alerts = [
        test_alert("a", "1", 100.0, 120.0),
        test_alert("a", "2", 149.0, 149.0), // within the slack of the end
        test_alert("b", "3", 180.0, 180.0), // one second too late
    ];
    assert_eq!(groups(&mut correlator, &alerts), [vec!["1", "2"], vec!["3"]]);
}

#[test]
fn an_alert_that_names_only_its_trace_counts_for_the_services_of_that_trace() {
    let mut correlator = correlator();
    correlator.observe(&chain(&["a", "b", "c", "d", "e", "f"]));
    let trace = test_alert("", "000000000000000000000000000000aa", 100.0, 100.0);
    let groups = groups(&mut correlator, &[test_alert("f", "1", 100.0, 100.0), trace.clone()]);
    assert_eq!(groups, [["1".to_owned(), trace.session]]);
}

#[test]
fn a_later_alert_that_links_two_incidents_merges_them_into_the_elder() {
    let mut correlator = correlator();
    correlator.observe(&chain(&["a", "b", "c", "d", "e"]));
    let first = correlator.update(&[test_alert("a", "1", 100.0, 100.0)]).incidents[0].id;
    let second = correlator.update(&[test_alert("e", "2", 101.0, 101.0)]).incidents[0].id;
    assert_ne!(first, second);
    let link = test_alert("c", "3", 102.0, 102.0);
    let update = correlator.update(std::slice::from_ref(&link));
    assert_eq!(update.merged, [(second, first)]);
    assert_eq!(update.incidents.len(), 1);
    assert_eq!((update.incidents[0].id, update.incidents[0].alerts.len()), (first, 3));
    assert_eq!(update.incidents[0].services, ["a", "c", "e"]);
    assert_eq!(update.alerts.len(), 2, "the link is new, and one alert moved");
    assert!(update.alerts.iter().all(|(_, incident)| *incident == first));
    assert_eq!(correlator.counters().n_merged, 1);
}

#[test]
fn without_spans_alerts_of_one_stream_that_begin_together_share_an_incident() {
    let mut correlator = correlator();
    let alerts = [
        test_alert("", "blk_1", 1_000.0, 9_000.0), // two hours long: what lies between says nothing
        test_alert("", "blk_2", 1_200.0, 1_200.0),
        test_alert("", "blk_3", 1_600.0, 1_600.0),
        Alert { stream: "other".into(), ..test_alert("", "blk_4", 1_200.0, 1_200.0) },
    ];
    assert_eq!(groups(&mut correlator, &alerts), [vec!["blk_1", "blk_2"], vec!["blk_3"], vec!["blk_4"]]);
}

#[test]
fn a_steady_rain_of_alerts_gives_an_incident_an_hour() {
    let mut correlator = correlator();
    let n_hours = 38;
    let alerts: Vec<Alert> = (0..n_hours * 450)
        .map(|idx| test_alert("", &format!("blk_{idx}"), f64::from(idx) * 8.0, f64::from(idx) * 8.0))
        .collect();
    for chunk in alerts.chunks(100) {
        correlator.update(chunk);
    }
    assert_eq!(correlator.counters().n_incidents, u64::from(n_hours as u32));
}

#[test]
fn the_order_of_arrival_does_not_change_the_groups() {
    let alerts: Vec<Alert> =
        (0..60).map(|idx| test_alert("", &format!("{idx}"), f64::from(idx * idx), f64::from(idx * idx))).collect();
    let forward = groups(&mut correlator(), &alerts);
    let backward: Vec<Alert> = alerts.iter().rev().cloned().collect();
    let mut backward = groups(&mut correlator(), &backward);
    backward.iter_mut().for_each(|group| group.reverse());
    backward.sort();
    let mut forward_sorted = forward;
    forward_sorted.sort();
    assert_eq!(forward_sorted, backward);
}

#[test]
fn a_replay_gives_the_same_incidents() {
    let run = || {
        let mut correlator = correlator();
        correlator.observe(&chain(&["a", "b", "c"]));
        let alerts = (0..50).map(|idx| {
            let at_s = f64::from(idx * 7 % 50) * 20.0;
            test_alert(["a", "b", "c"][idx as usize % 3], &idx.to_string(), at_s, at_s + 1.0)
        });
        let alerts: Vec<Alert> = alerts.collect();
        let mut updates: Vec<_> = alerts.chunks(9).map(|chunk| correlator.update(chunk)).collect();
        updates.push(correlator.finish());
        updates
    };
    assert_eq!(run(), run());
}

#[test]
fn an_incident_is_resolved_when_its_alerts_are_and_time_has_passed() {
    let mut correlator = correlator();
    correlator.observe(&chain(&["a", "b"]));
    let firing =
        Alert { state: AlertState::Firing, severity: Severity::Critical, ..test_alert("a", "1", 100.0, 100.0) };
    let opened = correlator.update(std::slice::from_ref(&firing));
    assert_eq!((opened.incidents[0].state, opened.incidents[0].severity), (AlertState::Firing, Severity::Critical));
    assert_eq!(opened.incidents[0].summary, "a is the likely cause (100 %) of 1 alert in a");
    correlator.advance_to(1_000_000_000_000);
    assert_eq!(correlator.update(&[]), super::Update::default(), "its alert still fires");

    let resolved = Alert { state: AlertState::Resolved, end_unix_nano: 105_000_000_000, ..firing };
    let closed = correlator.update(std::slice::from_ref(&resolved));
    assert_eq!((closed.incidents[0].state, closed.incidents[0].end_unix_nano), (AlertState::Resolved, 105_000_000_000));
    assert!(closed.alerts.is_empty(), "it belongs where it belonged");
    assert_eq!(correlator.update(&[resolved]), super::Update::default(), "the same again is no change");
    assert_eq!(correlator.n_open(), 0);
}

#[test]
fn the_end_of_the_input_resolves_what_is_quiet() {
    let mut correlator = correlator();
    correlator.update(&[test_alert("", "1", 100.0, 100.0)]);
    assert_eq!(correlator.n_open(), 1);
    let last: Vec<Incident> = correlator.finish().incidents;
    assert_eq!(last.iter().map(|incident| incident.state).collect::<Vec<_>>(), [AlertState::Resolved]);
}

#[test]
fn everything_kept_is_bounded() {
    let config = RcaConfig { max_incidents: 4, max_alerts: 3, ..RcaConfig::default() };
    let mut correlator = Correlator::new(config).expect("valid");
    let mut closed = 0;
    for idx in 0..100 {
        let stream = format!("s{}", idx / 5);
        let alert = Alert { stream, state: AlertState::Firing, ..test_alert("", &idx.to_string(), 1.0, 1.0) };
        let update = correlator.update(&[alert]);
        closed += update.incidents.iter().filter(|incident| incident.state == AlertState::Resolved).count();
        assert!(correlator.incidents.len() <= 4);
        assert!(correlator.incidents.values().all(|incident| incident.alerts.len() <= 3));
    }
    assert_eq!(correlator.counters().n_incidents, 40, "five alerts are two incidents");
    assert_eq!((closed, correlator.counters().n_evicted), (36, 36));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_key() {
    let refused = |config| Correlator::new(config).err().map(|error| error.to_string());
    let negative = refused(RcaConfig { slack_seconds: -1.0, ..RcaConfig::default() });
    assert_eq!(negative.as_deref(), Some("rca.slack_seconds: -1 is not within 0 to 1e9 seconds"));
    let options = [("alert_count".to_owned(), serde_json::Value::Null)].into();
    let stray = refused(RcaConfig { options, ..RcaConfig::default() });
    assert_eq!(
        stray.as_deref(),
        Some("rca.options: no such localizer `alert_count`; there are self-time, alert-count")
    );
    let typo = serde_json::from_str::<RcaConfig>(r#"{"slak_seconds": 3}"#).map_err(|error| error.to_string());
    assert!(typo.is_err_and(|error| error.contains("slak_seconds") && error.contains("slack_seconds")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the alerts: each is in exactly one incident, the published one, whose span covers it.
    #[test]
    fn every_alert_is_in_one_incident(
        shapes in prop::collection::vec((0_usize..5, 0_u32..9, 0_u32..2_000, 0_u32..100, any::<bool>()), 1..80)
    ) {
        let mut correlator = correlator();
        correlator.observe(&chain(&["a", "b", "c"]));
        let mut published = std::collections::BTreeMap::new();
        let mut belongs = std::collections::BTreeMap::new();
        let alerts: Vec<Alert> = shapes.into_iter().map(|(service, session, start, length, firing)| {
            let start = f64::from(start);
            let alert = test_alert(["a", "b", "c", "", "x"][service], &session.to_string(), start, start + f64::from(length));
            Alert { state: if firing { AlertState::Firing } else { AlertState::Resolved }, ..alert }
        }).collect();
        let mut take = |update: super::Update| {
            for (gone, _) in update.merged { published.remove(&gone); }
            for incident in update.incidents { published.insert(incident.id, incident); }
            belongs.extend(update.alerts);
        };
        for chunk in alerts.chunks(7) { take(correlator.update(chunk)); }
        take(correlator.finish());
        for alert in &alerts {
            let incident = &published[&belongs[&alert.id]];
            prop_assert!(incident.alerts.contains(&alert.id));
            prop_assert!(incident.start_unix_nano <= alert.start_unix_nano && alert.start_unix_nano <= incident.end_unix_nano);
        }
        let n_alerts: usize = published.values().map(|incident| incident.alerts.len()).sum();
        prop_assert_eq!(n_alerts, belongs.len());
    }
}
