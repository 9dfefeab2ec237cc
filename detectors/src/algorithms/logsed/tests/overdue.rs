//! What is noticed although no record comes.

use super::*;

const SECOND: i64 = 1_000 * MS;

/// The trace so much later.
fn later(mut trace: Trace, by_nanos: i64) -> Trace {
    trace.records.iter_mut().for_each(|record| record.time_unix_nano += by_nanos);
    trace
}

/// A request whose payment is lost, without its end.
fn hanging(seed: u64) -> Trace {
    let mut trace = traces(1, seed, Fault { payment_is_lost: true, ..Fault::default() }).remove(0);
    trace.records.retain(|record| record.template.0 != 2);
    trace
}

fn open(trace: &Trace) -> Window<'_> {
    trace.window(trace.records.len(), WindowState::Open)
}

fn end_of(trace: &Trace) -> i64 {
    trace.records.last().expect("it has records").time_unix_nano
}

#[test]
fn a_session_that_falls_silent_is_noticed_when_its_deadline_passes_and_once() {
    let mut model = shop();
    let trace = hanging(5);
    assert_eq!(score_of(&mut model, open(&trace)).value, 0.0);
    assert_eq!(model.advance(end_of(&trace)), [], "it may still come");
    let told = model.advance(end_of(&trace) + 60 * SECOND);
    assert_eq!(told.len(), 1);
    let overdue = &told[0];
    assert_eq!((&overdue.key, overdue.is_stream), (&trace.key, false));
    assert!(overdue.score.value > 5.0, "{:?}", overdue.score);
    let culprit = overdue.records[overdue.score.culprit];
    assert_eq!(&*overdue.services[culprit.service as usize], "payment");
    let evidence = model.explain(&overdue.window(TemplateTexts::NONE), &overdue.score);
    assert_eq!(evidence.summary, "sequence: template 10 was not followed by template 11 in time");
    assert_eq!(evidence.culprit, Some(culprit.record));
    assert!(evidence.figures["lag_ms"] > 59_000.0 && evidence.figures["n_sequence"] >= 1.0);
    assert_eq!(model.advance(end_of(&trace) + 120 * SECOND), [], "told once");

    // News that do not bring the record: the score tells, the timer does not.
    let mut news = trace;
    let heartbeat = *news.records.iter().find(|record| record.template.0 == 99).expect("each has one");
    let time_unix_nano = end_of(&news) + 121 * SECOND;
    news.records.push(LogEntry { time_unix_nano, ..heartbeat });
    assert!(score_of(&mut model, open(&news)).value > 5.0);
    assert_eq!(model.advance(i64::MAX), []);
}

#[test]
fn what_a_score_has_told_is_not_told_again() {
    let mut model = shop();
    let mut trace = hanging(6);
    let heartbeat = *trace.records.iter().find(|record| record.template.0 == 99).expect("each has one");
    let time_unix_nano = end_of(&trace) + 5 * SECOND;
    trace.records.push(LogEntry { time_unix_nano, ..heartbeat });
    assert!(score_of(&mut model, open(&trace)).value > 5.0);
    assert_eq!(model.advance(end_of(&trace) + 60 * SECOND), []);
}

#[test]
fn a_session_that_ends_or_goes_on_in_time_is_not_overdue() {
    let mut model = shop();
    let ends = hanging(7);
    score_of(&mut model, open(&ends));
    score_of(&mut model, ends.closed());
    assert_eq!(model.advance(end_of(&ends) + 60 * SECOND), []);
    for (idx, trace) in (1i64..).zip(traces(50, 8, Fault::default())) {
        let trace = later(trace, idx * 100 * SECOND);
        for n in 1..=trace.records.len() {
            score_of(&mut model, trace.window(n, WindowState::Open));
            assert_eq!(model.advance(trace.records[n - 1].time_unix_nano), []);
        }
    }
    assert_eq!(model.advance(i64::MAX), [], "they have everything they waited for");
}

/// Shows the records as they come, lets time pass in between, and at last ends the session: the largest score that `advance`
/// told, and the largest of a window after that.
fn played(model: &mut Model, trace: &Trace) -> (Option<f64>, f64) {
    fn pass(model: &mut Model, until: i64, told: &mut Option<f64>) {
        for overdue in model.advance(until) {
            *told = Some(told.unwrap_or(0.0).max(overdue.score.value));
        }
    }
    let (mut told, mut after) = (None, 0.0f64);
    for (n, record) in (1..).zip(&trace.records) {
        pass(model, record.time_unix_nano - 1, &mut told);
        let mut window = trace.window(n, WindowState::Open);
        let Window::Log(log) = &mut window else { unreachable!("traces are logs") };
        log.fresh = n - 1;
        let score = score_of(model, window).value;
        after = if told.is_some() { after.max(score) } else { 0.0 };
    }
    pass(model, end_of(trace) + 60 * SECOND, &mut told);
    let mut window = trace.closed();
    let Window::Log(log) = &mut window else { unreachable!("traces are logs") };
    log.fresh = trace.records.len();
    (told, after.max(score_of(model, window).value))
}

#[test]
fn what_is_told_early_is_told_in_the_end_with_no_smaller_score() {
    let mut model = shop();
    let slow = traces(40, 9, Fault { delay_ms: 2_000, ..Fault::default() });
    let lost = (100..140).map(hanging);
    let normal = traces(40, 10, Fault::default());
    let mut n_told = [0; 3];
    for (idx, trace) in slow.into_iter().chain(lost).chain(normal).enumerate() {
        let trace = later(trace, (idx as i64 + 1) * 1_000 * SECOND);
        let (told, after) = played(&mut model, &trace);
        n_told[idx / 40] += usize::from(told.is_some());
        assert!(told.is_none_or(|told| told <= after + 1e-9), "trace {idx}: {told:?} is more than {after}");
    }
    assert!(n_told[0] > 20 && n_told[1] > 20 && n_told[2] == 0, "{n_told:?}");
}

#[test]
fn a_successor_that_is_often_missing_or_hardly_known_sets_no_timer() {
    let fitted_on = |n_normal: usize, n_lost: usize, config: Config| {
        let mut training = traces(n_normal, 1, Fault::default());
        training.extend(traces(n_lost, 2, Fault { payment_is_lost: true, ..Fault::default() }));
        let windows: Vec<Window<'_>> = training.iter().map(Trace::closed).collect();
        LogSed::fit(&config, &windows, 0).expect("enough requests")
    };
    let told = |mut model: Model| {
        for trace in (100..120).map(hanging) {
            score_of(&mut model, open(&trace));
        }
        let told = model.advance(60 * SECOND);
        told.iter().flat_map(|overdue| &overdue.services).filter(|service| &***service == "payment").count()
    };
    assert!(told(fitted_on(400, 0, Config::default())) > 3);
    assert_eq!(told(fitted_on(392, 8, Config::default())), 0, "one in fifty lacks it");
    assert_eq!(told(fitted_on(190, 0, Config::default())), 0, "too few lags to know the longest");
    assert_eq!(told(fitted_on(400, 0, Config { timers: false, ..Config::default() })), 0);
}

#[test]
fn a_loaded_model_waits_for_what_it_has_seen_itself() {
    let mut model = shop();
    let trace = hanging(5);
    score_of(&mut model, open(&trace));
    let mut loaded = LogSed::load(&Config::default(), &model.snapshot().expect("numbers")).expect("just written");
    assert_eq!(loaded.advance(end_of(&trace) + SECOND), [], "it has not been shown the session");
    let mut loaded = LogSed::load(&Config::default(), &model.snapshot().expect("numbers")).expect("just written");
    score_of(&mut loaded, open(&trace));
    let told = loaded.advance(end_of(&trace) + 60 * SECOND);
    assert_eq!((told.len(), &told), (1, &model.advance(end_of(&trace) + 60 * SECOND)));
}
