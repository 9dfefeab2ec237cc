//! What people say of alerts, templates that were merged, and databases from before there was either.

use std::sync::Arc;

use arrow::array::{BooleanArray, StringArray, UInt64Array};
use faultline_core::{AlertId, Applied, Batch, Feedback, LogBatchBuilder, LogRecord, TemplateId, Verdict};
use faultline_store::{AlertFilter, Judged, Store, StoreConfig, StoreError};
use serde_json::json;

use crate::fixtures::{SECOND, alert, logs, one, open, rows, template};

fn feedback(alert: u64, verdict: Verdict, time_unix_nano: i64) -> Feedback {
    let (comment, by) = ("a nightly backup".to_owned(), "ann".to_owned());
    Feedback { alert: AlertId(alert), verdict, comment, by, time_unix_nano, outcome: None }
}

fn learned(n_learned: u64) -> Applied {
    Applied { n_learned, note: "learned".to_owned() }
}

#[test]
fn a_verdict_waits_until_it_is_applied_and_another_one_waits_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.put_alerts(&[alert(1, 1), alert(2, 2), alert(3, 3)]).expect("written");
    store.put_feedback(&feedback(2, Verdict::FalsePositive, 20)).expect("written");
    store.put_feedback(&feedback(1, Verdict::FalsePositive, 30)).expect("written");
    store.put_feedback(&feedback(3, Verdict::TruePositive, 10)).expect("written");
    let waiting = |store: &Store| -> Vec<u64> {
        store.waiting_feedback(10).expect("read").iter().map(|feedback| feedback.alert.0).collect()
    };
    assert_eq!(waiting(&store), [3, 2, 1], "the earliest first");
    assert_eq!(store.waiting_feedback(2).expect("read").len(), 2);
    drop(store);

    // A restart loses none of them.
    let store = open(dir.path());
    store.settle_feedback(AlertId(2), Verdict::FalsePositive, &learned(4)).expect("written");
    store.settle_feedback(AlertId(3), Verdict::FalsePositive, &learned(9)).expect("written");
    assert_eq!(waiting(&store), [3, 1], "a verdict that is no longer the one given is not settled");
    let kept = store.feedback(AlertId(2)).expect("read").expect("there");
    assert_eq!(kept, Feedback { outcome: Some(learned(4)), ..feedback(2, Verdict::FalsePositive, 20) });
    assert_eq!(store.feedback(AlertId(9)).expect("read"), None);

    let again = Feedback { comment: "still".into(), ..feedback(2, Verdict::FalsePositive, 40) };
    store.put_feedback(&again).expect("written");
    let kept = store.feedback(AlertId(2)).expect("read").expect("there");
    assert_eq!(kept, Feedback { outcome: Some(learned(4)), ..again }, "the same verdict stays applied");
    store.put_feedback(&feedback(2, Verdict::TruePositive, 50)).expect("written");
    assert_eq!(waiting(&store), [3, 1, 2], "another verdict is news");

    let ids = |verdict| -> Vec<u64> {
        let filter = AlertFilter { verdict: Some(verdict), ..AlertFilter::default() };
        store.alerts(&filter).expect("read").items.iter().map(|alert| alert.id.0).collect()
    };
    assert_eq!((ids(Verdict::FalsePositive), ids(Verdict::TruePositive)), (vec![1], vec![3, 2]));
    let judged = store.judged().expect("read");
    assert_eq!(judged["length"], Judged { n_false: 1, n_true: 1 });
    assert_eq!(judged["deeplog"], Judged { n_false: 0, n_true: 1 });
    assert_eq!(
        rows(&store, "SELECT verdict, given_by, n_learned, outcome FROM feedback ORDER BY alert LIMIT 1"),
        [[json!("false_positive"), json!("ann"), json!(null), json!(null)]]
    );
}

#[test]
fn a_reader_takes_no_verdicts() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let store = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("opens");
    let error = store.put_feedback(&feedback(1, Verdict::FalsePositive, 1)).expect_err("reading only");
    assert!(matches!(error, StoreError::ReadOnly), "{error:?}");
}

/// As the program before this one left it.
fn made_older(dir: &std::path::Path) {
    let store = open(dir);
    store.put_alerts(&[alert(1, 1)]).expect("written");
    store.put_templates(&[template(4, "hdfs", "line <*>")]).expect("written");
    drop(store);
    let connection = rusqlite::Connection::open(dir.join("faultline.db")).expect("opens");
    connection
        .execute_batch("DROP TABLE feedback; DROP TABLE template_aliases; PRAGMA user_version = 2;")
        .expect("set");
}

#[test]
fn a_database_from_before_feedback_is_read_as_it_is_and_upgraded_when_written() {
    let dir = tempfile::tempdir().expect("a directory");
    made_older(dir.path());
    let store = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("opens");
    let judged = AlertFilter { verdict: Some(Verdict::FalsePositive), ..AlertFilter::default() };
    assert_eq!(store.alerts(&judged).expect("read").items, []);
    assert_eq!(store.alerts(&AlertFilter::default()).expect("read").items, [alert(1, 1)]);
    assert_eq!(store.feedback(AlertId(1)).expect("read"), None);
    assert!(store.judged().expect("read").is_empty() && store.waiting_feedback(5).expect("read").is_empty());
    assert_eq!(store.resolved_templates(&[TemplateId(4)]).expect("read").len(), 1);
    assert_eq!(store.aliases_of(TemplateId(4)).expect("read"), []);
    assert_eq!(one(&store, "SELECT merged_into FROM templates"), json!(null));
    assert_eq!(one(&store, "SELECT count(*) FROM feedback"), json!(0));
    assert_eq!(one(&store, "SELECT count(*) FROM log_records"), json!(0));
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.alerts(&AlertFilter::default()).expect("read").items, [alert(1, 1)], "nothing is lost");
    store.put_feedback(&feedback(1, Verdict::FalsePositive, 1)).expect("there is a table now");
    store.put_aliases(&[(TemplateId(9), TemplateId(4))]).expect("and another");
    drop(store);
    assert_eq!(open(dir.path()).alerts(&judged).expect("read").items, [alert(1, 1)]);
}

#[test]
fn who_asks_for_a_merged_template_gets_the_one_that_took_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    let [ann, bob, any] =
        [template(1, "app", "hello ann"), template(2, "app", "hello bob"), template(3, "app", "hello <*>")];
    store.put_templates(&[ann.clone(), bob.clone(), any.clone()]).expect("written");
    store.put_aliases(&[(TemplateId(1), TemplateId(2))]).expect("written");
    store.put_aliases(&[(TemplateId(2), TemplateId(3))]).expect("written");
    let resolved = store.resolved_templates(&[1, 2, 3, 7].map(TemplateId)).expect("read");
    assert_eq!(resolved, [1, 2, 3].map(|id| (TemplateId(id), any.clone())), "over two merges, and 7 is unknown");
    assert_eq!(store.aliases_of(TemplateId(3)).expect("read"), [1, 2].map(TemplateId));
    assert_eq!(store.templates_by_id(&[TemplateId(1)]).expect("read"), std::slice::from_ref(&ann), "its own row stays");
    assert_eq!(
        rows(&store, "SELECT id, merged_into FROM templates ORDER BY id"),
        [[json!(1), json!(3)], [json!(2), json!(3)], [json!(3), json!(null)]]
    );
    // Template ids are record ids modulo five.
    assert_eq!(
        rows(&store, "SELECT record_id, log_record_template FROM log_records WHERE record_id < 5 ORDER BY 1"),
        [
            [json!(1), json!("hello <*>")],
            [json!(2), json!("hello <*>")],
            [json!(3), json!("hello <*>")],
            [json!(4), json!(null)]
        ]
    );
    assert_eq!(one(&store, "SELECT count(*) FROM log_records"), json!(10), "each record once");
    assert_eq!(one(&store, "SELECT body FROM log_records WHERE record_id = 7"), json!("line 7"));

    // A later parser founds it anew.
    store.put_templates(std::slice::from_ref(&ann)).expect("written");
    let resolved = store.resolved_templates(&[1, 2].map(TemplateId)).expect("read");
    assert_eq!(resolved, [(TemplateId(1), ann), (TemplateId(2), any)]);
}

#[test]
fn a_session_is_found_again_among_all_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut builder = LogBatchBuilder::default();
    for second in 0..6 {
        builder.push(&LogRecord {
            time_unix_nano: (100 - second) * SECOND + 7,
            severity_number: 9,
            service_name: "cart",
            body: "x",
            ..LogRecord::default()
        });
    }
    let sessions =
        StringArray::from(vec![Some("o'hara"), Some("other"), Some("o'hara"), None, Some("o'hara"), Some("o'hara")]);
    let are_streams = BooleanArray::from(vec![false, false, false, false, true, false]);
    let batch = builder
        .finish()
        .with_column("session", Arc::new(sessions))
        .and_then(|batch| batch.with_column("session_is_stream", Arc::new(are_streams)))
        .and_then(|batch| batch.with_column("template_id", Arc::new(UInt64Array::from_iter_values(1..=6))))
        .expect("columns of the schema");
    store.append(&Batch::Logs(batch.numbered_from(1))).expect("taken");
    for _ in ["open", "closed"] {
        let found = |from, to, limit| store.session("o'hara", from, to, limit).expect("runs");
        let records = found(0, 200 * SECOND, 10);
        let ids: Vec<u64> = records.iter().map(|record| record.record_id).collect();
        assert_eq!(ids, [6, 3, 1], "in order of time, without another's, a writer's and what has no session");
        let first = &records[0];
        assert_eq!((first.time_unix_nano, first.template), (95 * SECOND + 7, TemplateId(6)));
        assert_eq!((first.service.as_str(), first.severity_number), ("cart", 9));
        assert_eq!(found(98 * SECOND + 7, 99 * SECOND, 10).len(), 1, "both ends belong to it");
        assert_eq!(found(0, 200 * SECOND, 2).len(), 2);
        store.flush().expect("closes");
    }
    assert_eq!(store.session("' OR 1 = 1 --", 0, 200 * SECOND, 10).expect("a name like any other"), []);
}
