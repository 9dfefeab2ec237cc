use faultline_core::{Detector, DetectorError, Score, TemplateId, Window};

use super::{Config, DeepLog, Model, Surprise, net, push_scores, unseen_score};
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
    assert_eq!(refused(b"{}"), "it is not a snapshot of deeplog in format 1");
    assert_eq!(refused(b"faultlineDeepLg1"), "its checksum does not match");
    let Err(error) = DeepLog::load(&Config { hidden: 8, ..small() }, &bytes) else { panic!("another width") };
    assert!(error.to_string().contains("fitted with `hidden` 16"), "{error}");
}

#[test]
fn the_seed_decides_the_weights() {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let fit = |seed| DeepLog::fit(&Config { hidden: 4, ..small() }, &windows, seed).expect("it fits").weights;
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
    let error = DeepLog::fit(&small(), &[], 1).map(|_| ()).expect_err("nothing to learn from").to_string();
    assert!(error.contains("no training window holds a record"), "{error}");
}

#[test]
fn scores_in_the_cache_are_those_of_the_prediction() {
    // Ties among them.
    let row: Vec<f32> = (0..40).map(|i| -((i * 7 % 13) as f32) / 3.0).collect();
    let mut scores = vec![1.0];
    push_scores(&row, &mut scores);
    assert_eq!(scores.len(), 41);
    for symbol in 0..39 {
        let expected = Surprise::of(Some(symbol), &row).score() as f32;
        assert_eq!(scores[1 + usize::from(symbol)], expected, "symbol {symbol}");
    }
    assert_eq!(scores[40], Surprise::of(None, &row).score() as f32, "the end");
    assert_eq!(unseen_score(40), f64::from(Surprise::of(Some(40), &row).score() as f32));
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
