mod numbers;

use std::collections::BTreeMap;

use arrow::array::{StringArray, UInt64Array};
use faultline_core::{LogBatchBuilder, LogRecord};
use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

/// One record of a test: event time in milliseconds, session ("" for none), template.
type Rec = (i64, &'static str, u64);

fn batch_of(first_id: u64, records: &[(i64, &str, u64)]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for &(ms, ..) in records {
        builder.push(&LogRecord {
            time_unix_nano: ms * 1_000_000,
            service_name: "cart",
            severity_number: 9,
            ..LogRecord::default()
        });
    }
    let templates = UInt64Array::from_iter_values(records.iter().map(|record| record.2));
    let sessions: StringArray = records.iter().map(|record| (!record.1.is_empty()).then_some(record.1)).collect();
    let batch = builder.finish().numbered_from(first_id);
    let batch = batch.with_column("template_id", Arc::new(templates)).expect("ids");
    batch.with_column("session", Arc::new(sessions)).expect("texts")
}

fn config() -> WindowConfig {
    WindowConfig { allowed_lateness_ms: 0, session_gap_ms: 10_000, ..WindowConfig::default() }
}

/// A window as text: `session:context|fresh` templates, `.` when closed.
fn show(windower: &mut Windower) -> Vec<String> {
    let ready = windower.ready();
    let shown = ready.iter().filter_map(Window::as_log).map(|log| {
        let templates = |records: &[LogEntry]| {
            records.iter().map(|record| record.template.to_string()).collect::<Vec<_>>().join(" ")
        };
        let dropped = if log.n_dropped > 0 { format!("+{} ", log.n_dropped) } else { String::new() };
        let end = if log.is_closed() { "." } else { "" };
        let (context, fresh) = log.records.split_at(log.fresh);
        format!("{}:{dropped}{}|{}{end}", log.key.session, templates(context), templates(fresh))
    });
    let shown = shown.collect();
    windower.settle();
    shown
}

fn push(windower: &mut Windower, records: &[Rec]) -> Vec<String> {
    windower.push(&batch_of(windower.stats().n_records + 1, records));
    show(windower)
}

#[test]
fn a_session_grows_until_its_gap_has_passed() {
    let mut windower = Windower::new(config()).expect("valid");
    assert_eq!(push(&mut windower, &[(0, "a", 1), (1_000, "b", 7), (2_000, "a", 2)]), ["a:|1 2", "b:|7"]);
    assert_eq!(push(&mut windower, &[(11_500, "a", 3)]), ["b:7|.", "a:1 2|3"]);
    assert_eq!(push(&mut windower, &[(30_000, "a", 4)]), ["a:1 2 3|.", "a:|4"]);
    windower.finish();
    assert_eq!(show(&mut windower), ["a:4|."]);
    let stats = windower.stats();
    assert_eq!((stats.n_records, stats.n_closed, stats.n_open), (5, 3, 0));
}

#[test]
fn a_gap_is_exceeded_and_not_just_reached() {
    let mut windower = Windower::new(config()).expect("valid");
    assert_eq!(push(&mut windower, &[(0, "a", 1), (10_000, "a", 2), (20_001, "a", 3)]), ["a:|1 2.", "a:|3"]);
}

#[test]
fn records_within_the_lateness_are_put_in_order() {
    let mut windower = Windower::new(WindowConfig { allowed_lateness_ms: 2_000, ..config() }).expect("valid");
    assert_eq!(push(&mut windower, &[(1_000, "a", 2), (0, "a", 1)]), [] as [&str; 0], "the watermark is behind");
    assert_eq!(push(&mut windower, &[(4_000, "a", 5), (2_000, "a", 3)]), ["a:|1 2 3"]);
    assert_eq!(push(&mut windower, &[(3_000, "a", 4), (9_000, "b", 9)]), ["a:1 2 3|4 5"]);
    assert_eq!(windower.stats().n_late, 0);
    assert_eq!(windower.stats().n_held, 1);
}

#[test]
fn a_late_record_is_counted_and_kept_where_it_arrived() {
    let mut windower = Windower::new(config()).expect("valid");
    assert_eq!(push(&mut windower, &[(5_000, "a", 1)]), ["a:|1"]);
    assert_eq!(push(&mut windower, &[(1_000, "a", 2), (0, "b", 3)]), ["a:1|2", "b:|3"]);
    assert_eq!(windower.stats().n_late, 2);
}

#[test]
fn on_close_shows_whole_sessions_only() {
    let mut windower = Windower::new(WindowConfig { emit: Emit::OnClose, ..config() }).expect("valid");
    assert_eq!(push(&mut windower, &[(0, "a", 1)]), [] as [&str; 0]);
    assert_eq!(push(&mut windower, &[(1_000, "a", 2)]), [] as [&str; 0]);
    assert_eq!(push(&mut windower, &[(20_000, "b", 3)]), ["a:|1 2."]);
}

#[test]
fn windows_are_shown_again_until_they_are_settled() {
    let mut windower = Windower::new(config()).expect("valid");
    windower.push(&batch_of(1, &[(0, "a", 1)]));
    assert_eq!(windower.ready().len(), 1);
    windower.push(&batch_of(2, &[(20_000, "a", 2), (20_000, "b", 5)]));
    assert_eq!(windower.ready().len(), 3);
    assert_eq!(show(&mut windower), ["a:|1.", "a:|2", "b:|5"]);
    assert_eq!(show(&mut windower), [] as [&str; 0]);
}

#[test]
fn a_keyed_session_loses_its_oldest_scored_records_at_the_cap() {
    let mut windower =
        Windower::new(WindowConfig { max_records_per_session: 4, context_records: 2, ..config() }).expect("valid");
    assert_eq!(push(&mut windower, &[(0, "a", 1), (1, "a", 2), (2, "a", 3), (3, "a", 4)]), ["a:|1 2 3 4"]);
    assert_eq!(push(&mut windower, &[(4, "a", 5)]), ["a:+2 3 4|5"]);
    // Nothing goes unscored when one batch alone exceeds the cap.
    let seven = [(5, "a", 6), (6, "a", 7), (7, "a", 8), (8, "a", 9), (9, "a", 10), (10, "a", 11), (11, "a", 12)];
    let parts = ["a:+2 3 4 5|6", "a:+4 5 6|7 8", "a:+6 7 8|9 10", "a:+8 9 10|11 12"];
    assert_eq!(push(&mut windower, &seven), parts);
    assert_eq!(windower.stats().n_closed, 0);
}

#[test]
fn a_stream_without_sessions_is_closed_at_the_cap_and_keeps_context() {
    let mut windower =
        Windower::new(WindowConfig { max_records_per_session: 4, context_records: 2, ..config() }).expect("valid");
    let records = [(0, "", 1), (1, "", 2), (2, "", 3), (3, "", 4), (4, "", 5)];
    assert_eq!(push(&mut windower, &records), ["cart:|1 2 3 4.", "cart:3 4|5"]);
    windower.finish();
    assert_eq!(show(&mut windower), ["cart:3 4 5|."]);
}

#[test]
fn the_session_idle_for_longest_makes_room() {
    let mut windower = Windower::new(WindowConfig { max_open_sessions: 2, ..config() }).expect("valid");
    push(&mut windower, &[(0, "a", 1), (1, "b", 2), (2, "a", 3)]);
    assert_eq!(push(&mut windower, &[(3, "c", 4)]), ["b:2|.", "c:|4"]);
    assert_eq!((windower.stats().n_evicted, windower.stats().n_open), (1, 2));
}

#[test]
fn open_sessions_stay_bounded_while_all_records_are_on_hold() {
    let limits = WindowConfig { max_open_sessions: 2, allowed_lateness_ms: 60_000, ..config() };
    let mut windower = Windower::new(limits).expect("valid");
    let shown = push(&mut windower, &[(0, "a", 1), (1, "b", 2), (2, "c", 3), (3, "d", 4)]);
    assert_eq!(shown, ["a:|1.", "b:|2."]);
    let stats = windower.stats();
    assert_eq!((stats.n_open, stats.n_evicted, stats.n_released_early, stats.n_held), (2, 2, 2, 2));
}

#[test]
fn records_on_hold_stay_bounded() {
    let limits = WindowConfig { max_held_records: 2, allowed_lateness_ms: 60_000, ..config() };
    let mut windower = Windower::new(limits).expect("valid");
    assert_eq!(push(&mut windower, &[(2, "a", 3), (1, "a", 2), (0, "a", 1), (3, "a", 4)]), ["a:|1 2"]);
    assert_eq!((windower.stats().n_held, windower.stats().n_released_early), (2, 2));
}

#[test]
fn a_quiet_source_is_moved_on_by_the_time() {
    let mut windower = Windower::new(WindowConfig { allowed_lateness_ms: 2_000, ..config() }).expect("valid");
    push(&mut windower, &[(0, "a", 1)]);
    windower.advance_to(2 * SECOND);
    assert_eq!(show(&mut windower), ["a:|1"]);
    windower.advance_to(13 * SECOND);
    assert_eq!(show(&mut windower), ["a:1|."]);
}

#[test]
fn a_record_without_a_template_is_skipped_and_counted() {
    let mut windower = Windower::new(config()).expect("valid");
    let mut builder = LogBatchBuilder::default();
    builder.push(&LogRecord { time_unix_nano: 5, body: "unparsed", ..LogRecord::default() });
    windower.push(&builder.finish());
    assert_eq!(windower.stats().n_unparsed, 1);
    assert_eq!(windower.ready().len(), 0);
}

#[test]
fn entries_carry_service_severity_and_record() {
    let mut windower = Windower::new(config()).expect("valid");
    windower.push(&batch_of(41, &[(1, "a", 3)]));
    let ready = windower.ready();
    let log = ready[0].as_log().expect("a log window");
    let record = log.records[0];
    assert_eq!((record.record, record.severity_number, record.time_unix_nano), (41, 9, 1_000_000));
    assert_eq!(&*log.services[record.service as usize], "cart");
}

#[test]
fn limits_that_cannot_work_are_refused_by_key() {
    let error = Windower::new(WindowConfig { context_records: 600, ..config() }).expect_err("too much");
    assert!(error.to_string().starts_with("key `context_records`"), "{error}");
}

/// The sessions that come out: for each key in order, the templates of each; every fresh record seen exactly once.
fn sessions_of(config: &WindowConfig, batches: &[Vec<(i64, &str, u64)>]) -> BTreeMap<String, Vec<Vec<u64>>> {
    let mut windower = Windower::new(config.clone()).expect("valid");
    let mut open: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut ended: BTreeMap<String, Vec<Vec<u64>>> = BTreeMap::new();
    let mut collect = |windower: &mut Windower| {
        for log in windower.ready().iter().filter_map(Window::as_log) {
            let key = log.key.session.to_string();
            let session = open.entry(key.clone()).or_default();
            session.extend(log.fresh_records().iter().map(|record| record.template.0));
            assert_eq!(log.n_dropped as usize + log.records.len(), session.len(), "context and fresh make the whole");
            if log.is_closed() {
                ended.entry(key.clone()).or_default().extend(open.remove(&key));
            }
        }
        windower.settle();
    };
    for batch in batches {
        windower.push(&batch_of(1, batch));
        collect(&mut windower);
    }
    windower.finish();
    collect(&mut windower);
    assert!(open.is_empty(), "finish closes every session");
    ended
}

fn records(jitter_ms: i64) -> impl Strategy<Value = Vec<(i64, &'static str, u64)>> {
    let step = (0..4_000i64, 0..5usize, 0..=jitter_ms);
    proptest::collection::vec(step, 1..80).prop_map(|steps| {
        let mut time = 0;
        let mut stamped: Vec<_> = steps
            .into_iter()
            .zip(1..)
            .map(|((step, key, jitter), template)| {
                // Each time is distinct, so that the right order is the only one.
                time += step + 1;
                (time + jitter, time, ["a", "b", "c", "d", "e"][key], template)
            })
            .collect();
        stamped.sort_by_key(|&(arrives, ..)| arrives);
        stamped.into_iter().map(|(_, time, key, template)| (time, key, template)).collect()
    })
}

proptest! {
    #[test]
    fn how_the_input_is_cut_into_batches_makes_no_difference_while_nothing_is_late(
        records in records(2_000),
        cut in 1..20usize,
        cap in prop::sample::select(vec![4usize, 8, 1024]),
    ) {
        let config = WindowConfig {
            allowed_lateness_ms: 2_001, max_records_per_session: cap, context_records: 2, ..config()
        };
        let whole = sessions_of(&config, std::slice::from_ref(&records));
        let in_parts: Vec<_> = records.chunks(cut).map(<[_]>::to_vec).collect();
        prop_assert_eq!(sessions_of(&config, &in_parts), whole);
    }

    #[test]
    fn overtaking_within_the_lateness_makes_no_difference(records in records(2_000)) {
        let config = WindowConfig { allowed_lateness_ms: 2_001, ..config() };
        let mut sorted = records.clone();
        sorted.sort_by_key(|record| record.0);
        prop_assert_eq!(sessions_of(&config, &[records]), sessions_of(&config, &[sorted]));
    }

    #[test]
    fn gaps_decide_where_sessions_end(records in records(0)) {
        let mut expected: BTreeMap<String, Vec<Vec<u64>>> = BTreeMap::new();
        let mut last: BTreeMap<&str, i64> = BTreeMap::new();
        for &(time, key, template) in &records {
            let sessions = expected.entry(key.to_owned()).or_default();
            if last.insert(key, time).is_none_or(|last| time - last > 10_000) {
                sessions.push(Vec::new());
            }
            sessions.last_mut().expect("just made").push(template);
        }
        prop_assert_eq!(sessions_of(&config(), &[records]), expected);
    }
}

#[test]
fn records_grouped_by_service_within_a_batch_come_out_in_order_of_time() {
    let lateness = WindowConfig { allowed_lateness_ms: 1_000, ..config() };
    let mut windower = Windower::new(lateness).expect("valid");
    // One request that covers ten seconds, service by service.
    windower.push(&batch_of(1, &[(0, "a", 1), (9_000, "a", 4), (100, "a", 2), (8_000, "a", 3)]));
    windower.finish();
    let windows = windower.ready();
    let templates: Vec<u64> = windows[0].as_log().expect("logs").records.iter().map(|r| r.template.0).collect();
    assert_eq!(templates, [1, 2, 3, 4]);
    drop(windows);
    assert_eq!(windower.stats().n_late, 0);
}

#[test]
fn windows_beyond_the_settled_ones_are_shown_again() {
    let mut windower = Windower::new(config()).expect("valid");
    windower.push(&batch_of(1, &[(0, "a", 1), (1, "b", 2), (2, "c", 3)]));
    windower.push(&batch_of(4, &[(60_000, "d", 4)]));
    let keys = |windower: &mut Windower| -> Vec<String> {
        windower.ready().iter().map(|window| window.key().session.to_string()).collect()
    };
    let all = keys(&mut windower);
    assert_eq!(all.len(), 4);
    windower.settle_first(2);
    assert_eq!(keys(&mut windower), all[2..]);
    windower.settle();
    assert!(keys(&mut windower).is_empty());
}

/// A batch of one service and version: time in seconds, severity, template id.
fn version_batch(first_id: u64, version: &str, records: &[(i64, i32, u64)]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    let resource = format!(r#"{{"service.name":"cart","service.version":"{version}"}}"#);
    for &(seconds, severity_number, _) in records {
        let (time_unix_nano, resource) = (seconds * SECOND, resource.as_str());
        builder.push(&LogRecord {
            time_unix_nano,
            service_name: "cart",
            severity_number,
            resource,
            ..LogRecord::default()
        });
    }
    let templates = UInt64Array::from_iter_values(records.iter().map(|record| record.2));
    let sessions: StringArray = records.iter().map(|_| Some("s")).collect();
    let batch = builder.finish().numbered_from(first_id);
    let batch = batch.with_column("template_id", Arc::new(templates)).expect("ids");
    batch.with_column("session", Arc::new(sessions)).expect("texts")
}

fn template(id: u64, text: &str) -> Template {
    Template {
        id: TemplateId(id),
        stream: "cart".to_owned(),
        text: text.to_owned(),
        lineage: Vec::new(),
        count: 1,
        first_seen_unix_nano: 0,
        last_seen_unix_nano: 0,
    }
}

/// The records of the one session that is shown: template, and whether it is marked as new since a deploy.
fn filed(windower: &mut Windower, batch: &LogBatch, templates: &[Template]) -> Vec<(u64, bool)> {
    windower.know(batch, templates);
    windower.push(batch);
    let ready = windower.ready();
    let fresh: Vec<_> = ready.iter().filter_map(Window::as_log).flat_map(|log| log.fresh_records().to_vec()).collect();
    windower.settle();
    fresh.iter().map(|record| (record.template.0, record.is_since_deploy)).collect()
}

#[test]
fn a_reworded_line_stands_for_the_old_one_after_a_deploy() {
    let adaptation = AdaptationConfig { deploy_window_ms: 60_000, ..AdaptationConfig::default() };
    let mut windower = Windower::new(config()).expect("valid").following(&adaptation);
    let old = [template(1, "added item <*> to cart"), template(2, "checkout of cart <*> took <NUM> ms")];
    let batch = version_batch(1, "1.0", &[(0, 9, 1), (0, 9, 2)]);
    assert_eq!(filed(&mut windower, &batch, &old), [(1, false), (2, false)]);
    windower.watch_deploys();
    assert_eq!(windower.take_deploys(), []);

    // The new version says the same in other words, and something that nobody has said before, and an error.
    let new = [
        template(11, "added item <*> with quantity <NUM> to cart"),
        template(12, "cache warmed up"),
        template(13, "checkout of cart <*> failed after <NUM> ms"),
    ];
    let batch = version_batch(3, "1.1", &[(1, 9, 11), (1, 9, 12), (1, 17, 13), (2, 9, 11), (2, 9, 2)]);
    let standing = [(1, true), (12, true), (13, true), (1, false), (2, false)];
    assert_eq!(filed(&mut windower, &batch, &new), standing);
    let deploys = windower.take_deploys();
    assert_eq!(deploys.len(), 1, "{deploys:?}");
    assert_eq!((&*deploys[0].service, &*deploys[0].version), ("cart", "1.1"));

    // What an old version founds meanwhile, or the new one when the window is over, is just new.
    let batch = version_batch(8, "1.0", &[(3, 9, 14)]);
    assert_eq!(filed(&mut windower, &batch, &[template(14, "added item <*> twice to cart")]), [(14, false)]);
    let batch = version_batch(9, "1.1", &[(100, 9, 15), (100, 9, 11)]);
    let later = filed(&mut windower, &batch, &[template(15, "removed item <*> from cart")]);
    assert_eq!(later, [(15, false), (1, false)], "and what has found its place keeps it");
}

#[test]
fn without_a_version_or_before_the_fit_nothing_is_a_deploy() {
    let adaptation = AdaptationConfig::default();
    let mut windower = Windower::new(config()).expect("valid").following(&adaptation);
    filed(&mut windower, &version_batch(1, "1.0", &[(0, 9, 1)]), &[template(1, "a b <*>")]);
    let rolled = filed(&mut windower, &version_batch(2, "1.1", &[(1, 9, 2)]), &[template(2, "a c <*>")]);
    assert_eq!(rolled, [(2, false)], "a rollout during the warm-up is learned");
    windower.watch_deploys();
    let batch = batch_of(3, &[(2_000, "s", 3)]);
    assert_eq!(filed(&mut windower, &batch, &[template(3, "a b c <*>")]), [(3, false)], "no version");
}
