//! Alerts, incidents and templates: upserts, filters, pages.

use faultline_core::{Alert, AlertId, AlertState, Classified, Domain, IncidentId, Severity, Template, TemplateId};
use faultline_store::{AlertFilter, Changes, IncidentFilter, StoreError, TemplateFilter};
use serde_json::json;

use crate::fixtures::{SECOND, alert, incident, one, open, template};

#[test]
fn writing_the_same_alerts_again_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let alerts: Vec<_> = (1..=5).map(|n| alert(n, 10)).collect();
    store.publish(&alerts, &[incident(7, &[1, 2])]).expect("written");
    let before = store.alerts(&AlertFilter::default()).expect("read");
    // A replay knows nothing yet of the incident when it writes the alerts.
    store.put_alerts(&alerts).expect("written");
    store.put_incidents(&[incident(7, &[1, 2])]).expect("written");
    assert_eq!(store.alerts(&AlertFilter::default()).expect("read"), before);
    assert_eq!(store.alert(AlertId(1)).expect("read").expect("there").incident, Some(IncidentId(7)));
    assert_eq!(one(&store, "SELECT count(*) FROM alerts"), json!(5));
    assert_eq!(one(&store, "SELECT count(*) FROM incidents"), json!(1));

    let resolved = Alert { state: AlertState::Resolved, n_windows: 9, ..alert(3, 10) };
    store.put_alerts(std::slice::from_ref(&resolved)).expect("written");
    assert_eq!(store.alert(AlertId(3)).expect("read"), Some(resolved));
}

#[test]
fn alerts_move_from_an_incident_to_the_one_that_absorbs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let alerts = [alert(1, 10), alert(2, 10), alert(3, 10)];
    store.publish(&alerts, &[incident(7, &[1]), incident(8, &[2])]).expect("written");
    let of = |id| store.alert(AlertId(id)).expect("read").expect("there").incident;
    assert_eq!([of(1), of(2), of(3)], [Some(IncidentId(7)), Some(IncidentId(8)), None]);
    store
        .apply(&Changes {
            alerts: &[],
            incidents: &[incident(7, &[1, 2, 3])],
            moved: &[(AlertId(2), IncidentId(7))],
            absorbed: &[IncidentId(8)],
        })
        .expect("written");
    assert_eq!([of(1), of(2), of(3)], [Some(IncidentId(7)), Some(IncidentId(7)), None], "only those named move");
    assert_eq!(store.incident(IncidentId(8)).expect("read"), None);
    store.apply(&Changes { alerts: &alerts, ..Changes::default() }).expect("written");
    assert_eq!(of(2), Some(IncidentId(7)), "an alert without an incident keeps its own");
}

#[test]
fn a_template_keeps_its_larger_count_and_wider_span() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.put_templates(&[template(1, "hdfs", "took <*> ms")]).expect("written");
    let fresh = Template {
        count: 1,
        first_seen_unix_nano: 150,
        last_seen_unix_nano: 250,
        ..template(1, "hdfs", "took <*> <*>")
    };
    store.put_templates(&[fresh]).expect("written");
    let all = store.templates(&TemplateFilter::default()).expect("read").items;
    let merged = Template { last_seen_unix_nano: 250, ..template(1, "hdfs", "took <*> <*>") };
    assert_eq!(all, [merged]);
}

#[test]
fn filters_narrow_alerts() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let alerts: Vec<_> = (1..=12).map(|n| alert(n, n.cast_signed())).collect();
    store.publish(&alerts, &[incident(7, &[1, 2])]).expect("written");
    let ids = |filter: AlertFilter| -> Vec<u64> {
        store.alerts(&filter).expect("read").items.iter().map(|alert| alert.id.0).collect()
    };
    let all = AlertFilter::default;
    assert_eq!(ids(all()), (1..=12).rev().collect::<Vec<_>>(), "latest first");
    assert_eq!(ids(AlertFilter { service: Some("cart".into()), ..all() }), [12, 9, 6, 3]);
    assert_eq!(ids(AlertFilter { severity: Some(Severity::Info), ..all() }), [11, 9, 7, 5, 3, 1]);
    assert_eq!(ids(AlertFilter { detector: Some("deeplog".into()), ..all() }), [12, 10, 8, 6, 4, 2]);
    assert_eq!(ids(AlertFilter { state: Some(AlertState::Resolved), ..all() }), [10, 5]);
    assert_eq!(ids(AlertFilter { incident: Some(IncidentId(7)), ..all() }), [2, 1]);
    assert_eq!(
        ids(AlertFilter { from_unix_nano: Some(3 * SECOND + 1), to_unix_nano: Some(5 * SECOND), ..all() }),
        [4, 3],
        "an episode that reaches into the interval counts; one that begins at its end does not"
    );
    assert_eq!(
        ids(AlertFilter { service: Some("cart".into()), state: Some(AlertState::Firing), limit: 2, ..all() }),
        [12, 9]
    );
    for limit in [0, 1_001] {
        assert!(matches!(store.alerts(&AlertFilter { limit, ..all() }), Err(StoreError::TooMany { .. })));
    }
}

#[test]
fn paging_returns_each_row_once_while_others_arrive() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    // Equal starts, so that the id has to break ties; some before the epoch.
    let alerts: Vec<_> = (1..=40).map(|n| alert(n, n.cast_signed() / 4 - 5)).collect();
    store.put_alerts(&alerts).expect("written");
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let filter = AlertFilter { limit: 7, cursor: cursor.take(), ..AlertFilter::default() };
        let page = store.alerts(&filter).expect("read");
        let newest = 1_000 + seen.len() as u64;
        seen.extend(page.items.iter().map(|alert| alert.id.0));
        // Arrives between two pages, at the front.
        store.put_alerts(&[alert(newest, 500)]).expect("written");
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let mut expected: Vec<_> = (1..=40_u64).collect();
    expected.sort_by_key(|n| (std::cmp::Reverse(n.cast_signed() / 4 - 5), *n));
    assert_eq!(seen, expected);
}

#[test]
fn incidents_are_filtered_and_paged() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let mut incidents: Vec<_> = (1..=5).map(|n| incident(n, &[n])).collect();
    incidents[2].services = vec!["pay".into()];
    incidents[4].state = AlertState::Resolved;
    store.put_incidents(&incidents).expect("written");
    let ids = |filter: IncidentFilter| -> Vec<u64> {
        store.incidents(&filter).expect("read").items.iter().map(|incident| incident.id.0).collect()
    };
    let all = IncidentFilter::default;
    assert_eq!(ids(all()), [5, 4, 3, 2, 1]);
    assert_eq!(ids(IncidentFilter { service: Some("pay".into()), ..all() }), [3]);
    assert_eq!(ids(IncidentFilter { state: Some(AlertState::Resolved), ..all() }), [5]);
    assert_eq!(ids(IncidentFilter { severity: Some(Severity::Critical), ..all() }), [] as [u64; 0]);
    let first = store.incidents(&IncidentFilter { limit: 3, ..all() }).expect("read");
    assert_eq!(ids(IncidentFilter { cursor: first.next_cursor, ..all() }), [2, 1]);
    assert_eq!(store.incident(IncidentId(3)).expect("read"), Some(incidents[2].clone()));
    assert_eq!(store.incident(IncidentId(9)).expect("read"), None);
}

#[test]
fn templates_are_searched_literally_and_paged_by_stream() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    let templates = [
        template(9, "bgl", "disk 100% full"),
        template(3, "hdfs", "Receiving block <*>"),
        template(1 << 52, "bgl", "disk 100 full"),
        template(2, "hdfs", r"path C:\tmp_1"),
    ];
    store.put_templates(&templates).expect("written");
    let ids = |filter: TemplateFilter| -> Vec<u64> {
        store.templates(&filter).expect("read").items.iter().map(|template| template.id.0).collect()
    };
    let all = TemplateFilter::default;
    assert_eq!(ids(all()), [9, 1 << 52, 2, 3]);
    assert_eq!(ids(TemplateFilter { stream: Some("hdfs".into()), ..all() }), [2, 3]);
    assert_eq!(ids(TemplateFilter { text: Some("100%".into()), ..all() }), [9]);
    assert_eq!(ids(TemplateFilter { text: Some(r"c:\TMP_".into()), ..all() }), [2]);
    let first = store.templates(&TemplateFilter { limit: 1, ..all() }).expect("read");
    assert_eq!(ids(TemplateFilter { cursor: first.next_cursor, ..all() }), [1 << 52, 2, 3]);
    assert_eq!(store.templates_by_id(&[TemplateId(3), TemplateId(77)]).expect("read"), [templates[1].clone()]);
}

#[test]
fn a_foreign_cursor_is_the_callers_mistake() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for cursor in ["", "s", "x123", "t00", "s00000000000000010000000000000g01", "séééééééééééééééé"] {
        let cursor = Some(cursor.to_owned());
        let error =
            store.alerts(&AlertFilter { cursor: cursor.clone(), ..AlertFilter::default() }).expect_err("foreign");
        assert_eq!(error.domain(), Domain::User, "{error}");
        let error = store.templates(&TemplateFilter { cursor, ..TemplateFilter::default() }).expect_err("foreign");
        assert_eq!(error.domain(), Domain::User, "{error}");
    }
}
