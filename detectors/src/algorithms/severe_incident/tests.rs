use super::*;
use crate::testing::{Session, score_all};

const INFO: u64 = 1;

/// A stream of these templates of which those from 100 on are fatal; `run` places it in time.
fn stream(writer: &str, run: i64, templates: &[u64]) -> Session {
    let mut session = Session::of(writer, templates);
    for entry in &mut session.records {
        entry.time_unix_nano += run * 1_000_000_000_000;
        entry.record += run as u64 * 1_000;
        entry.severity_number = if entry.template.0 >= 100 { 21 } else { 9 };
    }
    session
}

fn fit(config: &Config, templates: &[u64]) -> Model {
    let training = stream("w", 0, templates);
    SevereIncident::fit(config, &[training.closed()], 0).expect("there are records")
}

fn narrow_gap() -> Config {
    Config { gap_records: 3, ..Config::default() }
}

/// The score of each record, one window each.
fn values(model: &mut Model, session: &Session) -> Vec<f64> {
    let n = session.records.len();
    let one = |idx: usize| Session { records: session.records[idx..=idx].to_vec(), ..session.clone() };
    let sessions: Vec<Session> = (0..n).map(one).collect();
    let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
    score_all(model, &windows).iter().map(|score| score.expect("a record").value).collect()
}

#[test]
fn an_incident_is_reported_until_it_is_a_habit() {
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let quiet = [INFO; 4];
    let calls: Vec<f64> = (1..5)
        .map(|run| {
            let templates = [&quiet[..], &[100]].concat();
            values(&mut model, &stream("w", run, &templates))[4]
        })
        .collect();
    assert_eq!(calls, [LONE + 2.0, LONE + 1.0, 0.0, 0.0], "new, seen once before, a habit");
}

#[test]
fn a_wide_incident_forms_no_habit() {
    let config = Config { narrow: 2, ..narrow_gap() };
    let mut model = fit(&config, &[INFO; 10]);
    let wide = [INFO, INFO, INFO, INFO, 100, 101, 102];
    for run in 1..6 {
        assert_eq!(values(&mut model, &stream("w", run, &wide))[4], LONE + 2.0, "run {run}");
    }
}

#[test]
fn a_template_that_only_follows_is_a_detail_and_one_that_outnumbers_the_rest_leads() {
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let scores = values(&mut model, &stream("w", 1, &[100, 101, 100, 101, 100, 101]));
    assert!(scores[0] > 0.0 && scores[2] > 0.0 && scores[4] > 0.0, "{scores:?}");
    assert_eq!([scores[1], scores[3], scores[5]], [0.0; 3], "101 comes once for each 100");
    let scores = values(&mut model, &stream("w", 2, &[INFO, INFO, INFO, INFO, 100, 102, 102, 102, 102, 102]));
    // M is 1 here, so 1.25 + 2 records are explained.
    assert_eq!(scores[5..8], [0.0; 3]);
    assert_eq!(scores[8], LONE + 2.0, "the fourth is one too many");
}

#[test]
fn severity_and_the_threshold_for_it_count() {
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let mut session = stream("w", 1, &[50, 100]);
    session.records[0].severity_number = 20;
    session.records[1].severity_number = 24;
    assert_eq!(values(&mut model, &session), [0.0, LONE + 2.0 + 3.0]);
    let mut model = fit(&Config { min_severity: 17, ..narrow_gap() }, &[INFO; 10]);
    assert_eq!(values(&mut model, &session)[0], LONE + 2.0 + 3.0, "20 is severe from 17 on");
}

#[test]
fn only_the_writer_that_reported_an_incident_goes_on_reporting_it() {
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let (first, second) = (stream("a", 1, &[100]), stream("b", 2, &[100, 100]));
    assert_eq!(values(&mut model, &first), [LONE + 2.0]);
    assert_eq!(values(&mut model, &second), [REPORTED; 2]);
    assert_eq!(values(&mut model, &first), [LONE + 2.0], "its alert lasts");
}

#[test]
fn the_records_of_a_batch_are_taken_in_order_of_time_whatever_the_order_of_its_windows() {
    let (early, late) = (stream("a", 1, &[100, 100]), stream("b", 2, &[100]));
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let scores = score_all(&mut model, &[late.closed(), early.closed()]);
    assert_eq!(scores[0].expect("a record").value, REPORTED, "the other reported it first");
    assert_eq!(scores[1].expect("a record").value, LONE + 2.0);
}

#[test]
fn fitting_forms_habits_and_counts_overlapping_pieces_once() {
    let templates = [100, INFO, INFO, INFO, INFO, 100, INFO, INFO, INFO, INFO];
    let training = stream("w", 0, &templates);
    let windows = [training.closed(), training.closed()];
    let mut model = SevereIncident::fit(&narrow_gap(), &windows, 0).expect("there are records");
    // The second of the training's incidents is over only now, and the first and it make two.
    assert_eq!(values(&mut model, &stream("w", 1, &[100])), [0.0]);
    let mut unfamiliar = fit(&narrow_gap(), &templates[..5]);
    assert_eq!(values(&mut unfamiliar, &stream("w", 1, &[100])), [LONE + 1.0]);
}

#[test]
fn templates_beyond_the_limit_share_one_habit() {
    let config = Config { max_templates: 1, ..narrow_gap() };
    let mut model = fit(&config, &[INFO; 10]);
    let quiet = [INFO; 4];
    let calls: Vec<f64> = (1..5)
        .map(|run| values(&mut model, &stream("w", run, &[&quiet[..], &[99 + run as u64]].concat()))[4])
        .collect();
    assert_eq!(calls, [LONE + 2.0, LONE + 2.0, LONE + 1.0, 0.0], "the first has an entry of its own");
    assert_eq!(model.n_templates, 2);
}

#[test]
fn evidence_tells_what_the_template_did_before() {
    let mut model = fit(&narrow_gap(), &[INFO; 10]);
    let wide = stream("w", 1, &[100, 101, 101, 101, 101]);
    let scores = score_all(&mut model, &[wide.closed()]);
    let evidence = model.explain(&wide.closed(), &scores[0].expect("it has records"));
    assert_eq!(
        evidence.summary,
        "template 100 (severity 21) opened a severe incident; before it was in 0 incidents, of which 0 that it \
         opened stayed narrow (a habit from 2 on)"
    );
    assert_eq!((evidence.culprit, evidence.figures["n_severe_records"]), (Some(wide.records[0].record), 5.0));
    let joined = model.explain(&wide.closed(), &Score { value: 1.0, culprit: 4 });
    assert!(joined.summary.contains("joined a severe incident of 1 other templates"), "{}", joined.summary);
    let calm = model.explain(&wide.closed(), &Score { value: 0.0, culprit: 0 });
    assert_eq!(calm.summary, "the window holds no severe record that is unusual");
}

#[test]
fn a_limit_that_reports_nothing_is_refused_by_key() {
    let session = stream("w", 0, &[INFO]);
    let config = Config { habit_limit: 0, ..Config::default() };
    let error = SevereIncident::fit(&config, &[session.closed()], 0).expect_err("zero").to_string();
    assert!(error.contains("key `habit_limit`"), "{error}");
}
