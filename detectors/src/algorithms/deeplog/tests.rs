mod numbers;

use faultline_core::{Detector, DetectorError, Score, TemplateId, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Config, DeepLog, Model, net,
    serve::{PAPER_G, Surprise, push_scores, unseen_score},
};
use crate::{
    Algorithm,
    testing::{Session, score_all},
};

/// Small enough for a debug build; h = 10 and two layers as by default.
fn small() -> Config {
    Config { hidden: 16, learning_rate: 0.02, ..Config::default() }
}

/// Two kinds of normal sessions: a request with one or two reads, and a batch job.
fn normal() -> Vec<Session> {
    let kinds: [&[u64]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 3, 3, 4, 5], &[6, 7, 7, 7, 8, 6, 7, 7, 7, 8]];
    (0..30).map(|n| Session::of(&format!("normal-{n}"), kinds[n % 3])).collect()
}

fn fitted(config: &Config) -> Model {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    DeepLog::fit(config, &windows, 1).expect("thirty sessions suffice")
}

fn score_of(model: &mut Model, window: Window<'_>) -> Score {
    score_all(model, &[window])[0].expect("it holds fresh records")
}

#[test]
fn normal_sessions_rank_first_and_disorder_is_named() {
    let mut model = fitted(&small());
    for session in normal() {
        assert!(score_of(&mut model, session.closed()).value < 3.0, "{:?}", session.key);
    }
    let session = Session::of("swapped", &[1, 2, 3, 8, 5]);
    let score = score_of(&mut model, session.closed());
    assert!(score.value > 4.0 && score.culprit == 3, "{score:?}");
    let evidence = model.explain(&session.closed(), &score);
    assert_eq!(evidence.seen, Some(TemplateId(8)));
    assert_eq!(evidence.culprit, Some(session.records[3].record));
    let likely: Vec<u64> = evidence.expected.iter().take(2).map(|expected| expected.template.0).collect();
    assert!(likely.contains(&3) && likely.contains(&4), "{:?}", evidence.expected);
    assert_eq!(evidence.figures["rank"], score.value.floor(), "{evidence:?}");
    assert!(evidence.figures["nll"] > 2.0, "{evidence:?}");
    let place = ["workflow", "workflow_step", "workflow_steps"].map(|name| evidence.figures[name]);
    assert_eq!(place, [1.0, 3.0, 5.0], "{evidence:?}");
    let expected = "; after step 3 of 5 in workflow 1, where template 4 or template 3 follows";
    assert!(evidence.summary.ends_with(expected), "{}", evidence.summary);
}

#[test]
fn a_session_that_stops_early_is_seen_when_it_closes() {
    let mut model = fitted(&small());
    let session = Session::of("cut", &[1, 2]);
    let open = score_of(&mut model, session.window(0, false));
    let closed = score_of(&mut model, session.closed());
    assert!(open.value < 2.0, "{open:?}: more may come");
    assert!(closed.value > 3.0 && closed.culprit == 1, "{closed:?}");
    let only_closing = score_of(&mut model, session.window(2, true));
    assert_eq!(only_closing, closed, "the end alone decides");
    let summary = model.explain(&session.closed(), &closed).summary;
    assert!(summary.starts_with("the session ended after template 2"), "{summary}");
}

#[test]
fn an_unseen_template_ranks_behind_all_others() {
    let mut model = fitted(&small());
    let session = Session::of("new", &[1, 2, 99, 3, 4, 5]);
    let score = score_of(&mut model, session.closed());
    assert_eq!((score.culprit, score.value.floor()), (2, 43.0), "as improbable as anything can be: 2^-43");
    let evidence = model.explain(&session.closed(), &score);
    assert!(evidence.summary.contains("never occurred in training"), "{}", evidence.summary);
    assert_eq!(evidence.figures["rank"], 10.0, "8 templates and the end, then the unseen one");
}

#[test]
fn only_fresh_records_are_judged_and_a_missing_context_is_not_guessed() {
    let mut model = fitted(&small());
    let session = Session::of("late", &[1, 99, 3, 4]);
    assert!(score_of(&mut model, session.window(3, false)).culprit == 3);
    assert_eq!(score_all(&mut model, &[session.window(4, false)]), [None]);
    let Window::Log(mut cut) = session.window(0, false) else { unreachable!("a log window") };
    cut.n_dropped = 5;
    assert_eq!(score_all(&mut model, &[Window::Log(cut)]), [None], "fewer records than h are left of the session");
}

#[test]
fn a_score_does_not_depend_on_company_or_on_the_cache() {
    let sessions: Vec<Session> = (0..100).map(|n| Session::of("s", &[1, n % 9, 2, n / 9, 3, 4, n % 7])).collect();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let together = score_all(&mut fitted(&small()), &windows);
    let mut alone = fitted(&Config { cache_contexts: 1, ..small() });
    for (window, score) in windows.iter().zip(&together) {
        assert_eq!(score_all(&mut alone, &[*window]), [*score]);
    }
}

#[test]
fn predictions_are_bitwise_equal_in_any_batch() {
    let shape = net::Shape { n_inputs: 12, n_outputs: 12, window: 10, hidden: 64, layers: 2 };
    let weights: Vec<f32> = (0..shape.n_weights()).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * 0.3).collect();
    let predictor = super::kernel::Predictor::new(shape, &weights);
    let contexts: Vec<Vec<u16>> = (0..600).map(|n: u16| (0..10).map(|i| (n * 31 + i * i * 7) % 13).collect()).collect();
    let borrowed: Vec<&[u16]> = contexts.iter().map(Vec::as_slice).collect();
    let together = predictor.log_probabilities(&borrowed);
    for n in [0, 1, 17, 333, 512, 599] {
        assert_eq!(predictor.log_probabilities(&borrowed[n..=n]), together[n * 12..(n + 1) * 12], "context {n}");
    }
}

#[test]
fn a_snapshot_scores_bit_for_bit_alike_and_a_damaged_one_is_refused() {
    let mut model = fitted(&small());
    let bytes = model.snapshot().expect("plain numbers");
    let mut loaded = DeepLog::load(&small(), &bytes).expect("just written");
    assert_eq!(loaded.version(), model.version());
    assert_eq!(loaded.snapshot().expect("plain numbers"), bytes);
    let session = Session::of("x", &[1, 3, 2, 8, 8, 1, 5]);
    assert_eq!(score_all(&mut loaded, &[session.closed()]), score_all(&mut model, &[session.closed()]));
    let refused = |bytes: &[u8]| match DeepLog::load(&small(), bytes) {
        Err(DetectorError::Snapshot { reason, .. }) => reason,
        other => panic!("taken: {:?}", other.map(|model| model.version)),
    };
    for at in [16, 60, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(refused(&damaged), "its checksum does not match", "byte {at}");
    }
    assert_eq!(refused(&bytes[..bytes.len() - 4]), "its checksum does not match");
    assert_eq!(refused(b"{}"), "it is not a snapshot of deeplog in format 2");
    assert_eq!(refused(b"faultlineDeepLg2"), "its checksum does not match");
    let Err(error) = DeepLog::load(&Config { hidden: 8, ..small() }, &bytes) else { panic!("another width") };
    assert!(error.to_string().contains("fitted with `hidden` 16"), "{error}");
}

#[test]
fn the_seed_decides_the_weights() {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let fit = |seed| DeepLog::fit(&Config { hidden: 4, ..small() }, &windows, seed).expect("it fits").learned.weights;
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1), fit(2));
}

#[test]
fn a_key_out_of_range_is_named() {
    let session = Session::of("a", &[1]);
    let fit = |config| DeepLog::fit(&config, &[session.closed()], 1).map(|_| ()).expect_err("refused").to_string();
    assert!(fit(Config { window: 0, ..small() }).contains("key `window`"));
    assert!(fit(Config { learning_rate: f64::NAN, ..small() }).contains("key `learning_rate`"));
    assert!(fit(Config { tempering: 2.0, ..small() }).contains("key `tempering`"));
    assert!(fit(Config { held_out: 0.0, ..small() }).contains("key `held_out`"));
    assert!(fit(Config { value_confidence: 1.0, ..small() }).contains("key `value_confidence`"));
    let error = DeepLog::fit(&small(), &[], 1).map(|_| ()).expect_err("nothing to learn from").to_string();
    assert!(error.contains("no training window holds a record"), "{error}");
}

#[test]
fn scores_in_the_cache_are_those_of_the_prediction() {
    // Ties among them.
    let row: Vec<f32> = (0..40).map(|i| -((i * 7 % 13) as f32) / 3.0).collect();
    let mut scores = vec![1.0];
    push_scores(&row, PAPER_G, &mut scores);
    assert_eq!(scores.len(), 41);
    for symbol in 0..39 {
        let expected = Surprise::of(Some(symbol), &row).score(PAPER_G) as f32;
        assert_eq!(scores[1 + usize::from(symbol)], expected, "symbol {symbol}");
    }
    assert_eq!(scores[40], Surprise::of(None, &row).score(PAPER_G) as f32, "the end");
    assert_eq!(unseen_score(40, PAPER_G), f64::from(Surprise::of(Some(40), &row).score(PAPER_G) as f32));
}

#[test]
fn known_paths_score_as_new_ones_do() {
    let mut model = fitted(&small());
    let sessions = [Session::of("x", &[1, 3, 2, 8, 8, 1, 5]), Session::of("y", &[1, 3, 2, 9, 2, 3, 1, 1, 3, 2])];
    let windows = sessions.each_ref().map(Session::closed);
    let first = score_all(&mut model, &windows);
    assert_eq!(score_all(&mut model, &windows), first);
    // From the middle on the path is entered by its context.
    let mut fresh = fitted(&small());
    let later = [sessions[1].window(5, true)];
    assert_eq!(score_all(&mut fresh, &later), score_all(&mut model, &later));
}

/// Sessions of 1, 2, 3, 4 with 40 to 60 ms in between.
fn timed(n: usize, seed: u64) -> Vec<Session> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let session = |idx: usize| {
        let mut session = Session::of(&format!("timed-{idx}"), &[1, 2, 3, 4]);
        let mut time = idx as i64 * 1_000_000_000;
        for record in &mut session.records {
            time += rng.random_range(40_000_000..60_000_000);
            record.time_unix_nano = time;
        }
        session
    };
    (0..n).map(session).collect()
}

#[test]
fn a_record_that_takes_too_long_is_named_with_its_forecast() {
    let sessions = timed(400, 1);
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let mut model = DeepLog::fit(&small(), &windows, 1).expect("400 sessions suffice");
    assert_eq!(model.learned.values.models().len(), 3, "the first record has no time before it");
    let normal = timed(200, 2);
    let windows: Vec<Window<'_>> = normal.iter().map(Session::closed).collect();
    let worst = score_all(&mut model, &windows).into_iter().flatten().map(|score| score.value).fold(0.0, f64::max);
    assert!(worst < 10.0, "{worst}");
    let mut slow = normal[0].clone();
    slow.records[2..].iter_mut().for_each(|record| record.time_unix_nano += 900_000_000);
    let score = score_of(&mut model, slow.closed());
    assert!(score.value > 10.0 && score.culprit == 2, "{score:?}");
    let evidence = model.explain(&slow.closed(), &score);
    assert!((940.0..960.0).contains(&evidence.figures["elapsed_ms"]), "{evidence:?}");
    assert!((40.0..60.0).contains(&evidence.figures["forecast_ms"]), "{evidence:?}");
    assert!(evidence.summary.starts_with("template 3 came 9"), "{}", evidence.summary);
    assert_eq!(evidence.seen, Some(TemplateId(3)));
    let only_later = score_of(&mut model, slow.window(3, true));
    assert!(only_later.value < 10.0, "the slow record was judged before: {only_later:?}");
    let bytes = model.snapshot().expect("plain numbers");
    let mut loaded = DeepLog::load(&small(), &bytes).expect("just written");
    assert_eq!(score_of(&mut loaded, slow.closed()), score);
    let update = model.update(&[slow.closed()], 10.0);
    assert_eq!((update.n_before, update.n_after), (1, 0));
    assert!(score_of(&mut model, slow.closed()).value < 10.0);
}

#[test]
fn sessions_without_times_of_their_own_have_no_value_models() {
    assert!(fitted(&small()).learned.values.models().is_empty());
}

#[test]
fn a_false_positive_becomes_normal_and_nothing_else_does() {
    let report = Session::of("maintenance", &[1, 2, 3, 50, 4, 4, 5]);
    let attack = Session::of("attack", &[1, 8, 2, 99, 6]);
    // With fewer templates than g, nothing is beyond the top g.
    let config = Config { top_g: 3, ..small() };
    let mut model = fitted(&config);
    let (version, before) = (model.version(), score_of(&mut model, attack.closed()));
    assert!(score_of(&mut model, report.closed()).value > 10.0);
    let update = model.update(&[report.closed()], 10.0);
    assert!(update.n_before >= 1 && update.n_after == 0 && update.n_new_templates == 1, "{update:?}");
    assert_ne!(model.version(), version);
    assert!(score_of(&mut model, report.closed()).value < 10.0);
    for session in normal() {
        assert!(score_of(&mut model, session.closed()).value < 10.0, "{:?}", session.key);
    }
    assert_eq!(score_of(&mut model, attack.closed()).value, before.value, "99 is as unknown as before");
    let mut again = fitted(&config);
    assert_eq!(again.update(&[report.closed()], 10.0), update);
    let bytes = model.snapshot().expect("plain numbers");
    assert!(bytes == again.snapshot().expect("plain numbers"), "an update is deterministic");
    let mut loaded = DeepLog::load(&config, &bytes).expect("just written");
    assert_eq!(loaded.version(), model.version());
    assert_eq!(score_of(&mut loaded, attack.closed()), score_of(&mut model, attack.closed()));
}

#[test]
fn a_later_report_does_not_undo_an_earlier_one() {
    let mut model = fitted(&Config { top_g: 3, rehearsed_contexts: 40, ..small() });
    let reports = [Session::of("first", &[1, 2, 3, 50, 4, 5]), Session::of("second", &[6, 7, 51, 7, 8])];
    for report in &reports {
        assert_eq!(model.update(&[report.closed()], 10.0).n_after, 0, "{:?}", report.key);
    }
    for report in &reports {
        assert!(score_of(&mut model, report.closed()).value < 10.0, "{:?}", report.key);
    }
    assert!(model.learned.rehearsed.next.len() <= 40);
}

#[test]
fn a_report_of_what_is_normal_already_changes_nothing() {
    let mut model = fitted(&small());
    let bytes = model.snapshot().expect("plain numbers");
    let session = &normal()[0];
    assert_eq!(model.update(&[session.closed()], 10.0).n_steps, 0);
    model.learn(&[session.closed()]);
    assert!(model.snapshot().expect("plain numbers") == bytes);
}

#[test]
fn a_template_that_the_model_learns_of_changes_no_other_prediction() {
    let mut model = fitted(&Config { update_steps: 1, ..small() });
    let likelihoods = |model: &Model| {
        let padded = model.learned.vocabulary.padded(normal()[0].closed().as_log().expect("a log window"), 10);
        let row = model.predictor.log_probabilities(&[&padded[3..13]]);
        model.learned.vocabulary.templates.iter().map(|template| template.0).zip(row).collect::<Vec<_>>()
    };
    let before = likelihoods(&model);
    // Between the others, so that all after it move.
    let report = Session::of("report", &[1, 2, 3, 4, 5]);
    let mut between = report.clone();
    between.records[4].template = TemplateId(4);
    between.records[3].template = TemplateId(0);
    assert_eq!(model.update(&[between.closed()], 10.0).n_new_templates, 1);
    let after = likelihoods(&model);
    assert_eq!(after.len(), before.len() + 1);
    for (template, likelihood) in before {
        let now = after.iter().find(|(other, _)| *other == template).expect("still known").1;
        // The new template takes a share of its own, the same from all.
        assert!((now - likelihood).abs() < 0.05, "{template}: {likelihood}, now {now}");
    }
}

#[test]
fn g_is_as_large_as_normal_operation_is_varied() {
    let g_of = |n_branches: u64| {
        let sessions: Vec<Session> =
            (0..400).map(|n| Session::of("s", &[1, 20 + n * 7919 % n_branches, 2, 3])).collect();
        let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
        DeepLog::fit(&Config { top_g: 0, ..small() }, &windows, 1).expect("400 sessions suffice").g()
    };
    let (plain, varied) = (g_of(1), g_of(12));
    assert_eq!(plain, 1, "one thing follows, always");
    assert!(varied > PAPER_G, "one of twelve follows: {varied}");
    let model = fitted(&Config { top_g: 5, ..small() });
    assert_eq!(model.g(), 5);
    assert_eq!(fitted(&Config { top_g: 0, ..small() }).g(), PAPER_G, "thirty sessions are too few to hold any out");
}

#[test]
fn a_score_of_ten_is_the_first_rank_beyond_g() {
    let row: Vec<f32> = (0..20).map(|i| -(i as f32)).collect();
    for g in [3, 9, 15] {
        assert_eq!(Surprise::of(Some(g as u16), &row).score(g).floor(), 10.0, "g = {g}");
        assert!(Surprise::of(Some(g as u16 - 1), &row).score(g) < 10.0, "g = {g}");
    }
}
