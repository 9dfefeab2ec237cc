//! What a person's word changes, and what it does not.

use super::*;

const CUT: f64 = 3.0;

fn value(model: &mut Model, trace: &Trace) -> f64 {
    score_of(model, trace.closed()).value
}

#[test]
fn a_verdict_allows_the_lag_it_is_about_and_nothing_else() {
    let (mut model, mut before) = (shop(), shop());
    let slow = traces(1, 6, Fault { delay_ms: 120, ..Fault::default() }).remove(0);
    assert!(value(&mut model, &slow) > CUT);
    assert!(model.accept(&slow.closed(), CUT) >= 1);
    assert!(value(&mut model, &slow) < CUT, "{}", value(&mut model, &slow));
    assert_ne!(model.version(), before.version());
    assert_eq!(model.edges(), before.edges());
    for trace in traces(5, 7, Fault { delay_ms: 300, ..Fault::default() }) {
        assert!(value(&mut model, &trace) > 5.0, "longer than what was called normal");
    }
    for trace in traces(5, 8, Fault { payment_is_lost: true, ..Fault::default() }) {
        assert!(value(&mut model, &trace) > 5.0);
        assert_eq!(value(&mut model, &trace), value(&mut before, &trace), "a lost answer is another thing");
    }
}

#[test]
fn a_verdict_makes_a_missing_successor_optional_and_a_template_known_and_outlives_a_restart() {
    let mut model = shop();
    let lost = traces(5, 4, Fault { payment_is_lost: true, ..Fault::default() });
    assert!(model.accept(&lost[0].closed(), CUT) >= 1);
    let renamed = |seed: u64, to: u64| {
        let mut trace = traces(1, seed, Fault::default()).remove(0);
        let at = trace.records.iter().position(|record| record.template.0 == 99).expect("each has one");
        trace.records[at].template = TemplateId(to);
        trace
    };
    assert!(value(&mut model, &renamed(11, 98)) > 4.0);
    assert_eq!(model.accept(&renamed(10, 98).closed(), CUT), 1);
    let mut loaded = LogSed::load(&Config::default(), &model.snapshot().expect("numbers")).expect("just written");
    assert_eq!(loaded.version(), model.version());
    for model in [&mut model, &mut loaded] {
        assert!(lost.iter().all(|trace| value(model, trace) < CUT), "the answer is optional");
        assert!(value(model, &renamed(11, 98)) < CUT, "the template is known");
        assert!(value(model, &renamed(12, 97)) > 4.0, "another template");
        let slow = traces(1, 3, Fault { delay_ms: 120, ..Fault::default() }).remove(0);
        assert_eq!(value(model, &slow), value(&mut shop(), &slow), "another fault");
    }
    // Nothing waits any longer for what is optional.
    let mut hanging = traces(1, 5, Fault { payment_is_lost: true, ..Fault::default() }).remove(0);
    hanging.records.retain(|record| record.template.0 != 2);
    score_of(&mut model, hanging.window(hanging.records.len(), WindowState::Open));
    let told = model.advance(i64::MAX);
    assert_eq!(told.len(), 1, "the stock's answer is used by nobody");
    assert!(told[0].services.iter().all(|service| &**service == "stock"), "{:?}", told[0].services);
}

#[test]
fn a_verdict_on_an_open_session_allows_the_wait_and_not_the_absence() {
    let mut model = shop();
    let mut trace = traces(1, 4, Fault { payment_is_lost: true, ..Fault::default() }).remove(0);
    let heartbeat = *trace.records.iter().find(|record| record.template.0 == 99).expect("each has one");
    trace.records.retain(|record| record.template.0 != 2);
    trace.records.push(LogEntry { time_unix_nano: 5_000 * MS, ..heartbeat });
    let open = trace.window(trace.records.len(), WindowState::Open);
    assert!(score_of(&mut model, open).value > CUT);
    assert!(model.accept(&open, CUT) >= 1);
    assert!(score_of(&mut model, open).value < CUT);
    assert!(value(&mut model, &trace) > CUT, "by the end it is missing");
}

#[test]
fn a_verdict_lets_a_record_go_without_its_predecessor() {
    let (mut model, mut before) = (fitted(&blocks(300)), fitted(&blocks(300)));
    let surplus = Session::of("surplus", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 6, 6, 7, 7, 7]);
    let lacking = Session::of("lacking", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 6, 6, 6, 7, 7]);
    let unknown = Session::of("unknown", &[1, 1, 2, 1, 3, 4, 3, 4, 5, 3, 4, 5, 5, 8]);
    assert!(score_of(&mut model, surplus.closed()).value > CUT);
    assert!(model.accept(&surplus.closed(), CUT) >= 1);
    assert!(score_of(&mut model, surplus.closed()).value < CUT);
    for session in [lacking, unknown] {
        let score = score_of(&mut model, session.closed());
        assert_eq!(score, score_of(&mut before, session.closed()), "{:?}", session.key);
        assert!(score.value > CUT);
    }
}

/// Requests that take the same step ten times, each in 5 to 40 ms, mostly about 8, times `slower`.
fn loops(n: usize, seed: u64, slower: f64) -> Vec<Trace> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let one = |idx: usize| {
        let mut time = 0;
        let mut records = Vec::new();
        for _ in 0..10 {
            let u: f64 = rng.random();
            let work = ((5.0 + 5.0 * u + 30.0 * u.powi(8)) * slower * 1e6) as i64;
            for (template, after) in [(1, rng.random_range(0..50 * MS)), (2, work)] {
                time += after;
                let record = records.len() as u64 + 1;
                let (template, service, severity_number, is_since_deploy) = (TemplateId(template), 0, 9, false);
                let entry =
                    LogEntry { template, time_unix_nano: time, record, service, severity_number, is_since_deploy };
                records.push(entry);
            }
        }
        let key = WindowKey { stream: Arc::from("loops"), session: Arc::from(format!("{seed}-{idx}")) };
        Trace { key, records, services: vec![Arc::from("worker")] }
    };
    (0..n).map(one).collect()
}

#[test]
fn a_verdict_allows_a_session_to_be_as_slow() {
    let training = loops(300, 1, 1.0);
    let windows: Vec<Window<'_>> = training.iter().map(Trace::closed).collect();
    let mut model = LogSed::fit(&Config::default(), &windows, 0).expect("three hundred suffice");
    let slow = loops(1, 3, 4.0).remove(0);
    let score = score_of(&mut model, slow.closed());
    let summary = model.explain(&slow.closed(), &score).summary;
    assert!(score.value > 5.0 && summary.starts_with("latency: the session took longer"), "{score:?} {summary}");
    assert_eq!(model.accept(&slow.closed(), CUT), 1);
    assert!(value(&mut model, &slow) < CUT);
    assert!(
        loops(5, 4, 10.0).iter().all(|slower| value(&mut model, slower) > 5.0),
        "slower than what was called normal"
    );
}

#[test]
fn a_window_below_the_cut_changes_nothing() {
    let mut model = shop();
    let (version, normal) = (model.version(), traces(1, 2, Fault::default()).remove(0));
    let lost = traces(1, 4, Fault { payment_is_lost: true, ..Fault::default() }).remove(0);
    assert_eq!(model.accept(&normal.closed(), CUT), 0);
    assert_eq!(model.accept(&lost.closed(), 30.0), 0);
    assert_eq!((model.accept(&lost.closed(), f64::NAN), model.version()), (0, version));
    assert_eq!(
        model.accept(&stream(&Session::of("s", &[7, 8]), WindowState::Closed), CUT),
        0,
        "streams are not judged"
    );
}
