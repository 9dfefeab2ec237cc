mod tokens;

use faultline_core::{Detector, DetectorError, Evidence, Score, TemplateId, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Attention, AttentionRnn, Config, Direction, MAX_NLL, Model, Reader, groups};
use crate::{
    Algorithm,
    testing::{Session, score_all},
};

/// Small enough for a debug build.
fn small() -> Config {
    Config { hidden: 16, attention_width: 8, learning_rate: 0.02, ..Config::default() }
}

/// Two kinds of normal sessions: a request with one or two reads, and a batch job.
fn normal() -> Vec<Session> {
    let kinds: [&[u64]; 3] = [&[1, 2, 3, 4, 5], &[1, 2, 3, 3, 4, 5], &[6, 7, 7, 7, 8, 6, 7, 7, 7, 8]];
    (0..30).map(|n| Session::of(&format!("normal-{n}"), kinds[n % 3])).collect()
}

fn fit(config: &Config, sessions: &[Session]) -> Model {
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    AttentionRnn::fit(config, &windows, 1).expect("there are sessions enough")
}

fn score_of(model: &mut Model, window: Window<'_>) -> Score {
    score_all(model, &[window])[0].expect("something of it is judged")
}

/// A session in which a record decides what comes much later.
struct Riddle {
    session: Session,
    /// Where the record is that decides.
    at: usize,
    /// Where the answer is, the last record.
    answered: usize,
}

/// A key, three to five records of noise, the question 20, and an answer. Up to two records of noise come first.
fn one_key(rng: &mut ChaCha8Rng, key: u64, answer: u64) -> Riddle {
    let mut templates: Vec<u64> = (0..rng.random_range(0..3)).map(|_| rng.random_range(10..14)).collect();
    let at = templates.len();
    templates.push(1 + key);
    templates.extend((0..rng.random_range(3..6)).map(|_| rng.random_range(10..14)));
    templates.extend([20, 30 + answer]);
    let answered = templates.len() - 1;
    Riddle { session: Session::of("one key", &templates), at, answered }
}

fn attention_on(evidence: &Evidence, session: &Session, at: usize) -> f64 {
    let name = format!("attention_record_{}", session.records[at].record);
    evidence.figures.get(&name).copied().unwrap_or(0.0)
}

/// How a model fares with riddles that it was not trained on.
#[derive(Debug, Default)]
struct Fared {
    /// Mean surprise at right answers, and at wrong ones.
    right: f64,
    wrong: f64,
    /// Share of the wrong answers at which the record that decides had the most attention.
    on_key: f64,
    /// Mean share of the attention that it had.
    share: f64,
    highlighted: f64,
    random: f64,
}

fn fare(config: &Config, n_training: u64) -> Fared {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let training: Vec<Session> = (0..n_training).map(|n| one_key(&mut rng, n % 4, n % 4).session).collect();
    let mut model = fit(config, &training);
    let mut fared = Fared::default();
    let n = 40;
    for idx in 0..n {
        let key = idx % 4;
        let right = one_key(&mut rng, key, key);
        fared.right += score_of(&mut model, right.session.window(right.answered, false)).value / n as f64;
        let wrong = one_key(&mut rng, key, (key + 1) % 4);
        let window = wrong.session.window(wrong.answered, false);
        let score = score_of(&mut model, window);
        fared.wrong += score.value / n as f64;
        let evidence = model.explain(&window, &score);
        let on = |at: usize| attention_on(&evidence, &wrong.session, at);
        let is_most = (0..wrong.answered).all(|at| on(at) <= on(wrong.at));
        fared.on_key += f64::from(u8::from(is_most)) / n as f64;
        fared.share += on(wrong.at) / n as f64;
        fared.highlighted += evidence.figures.get("fall_highlighted_nats").copied().unwrap_or(0.0) / n as f64;
        fared.random += evidence.figures.get("fall_random_nats").copied().unwrap_or(0.0) / n as f64;
    }
    fared
}

#[test]
fn every_variant_learns_what_a_distant_record_decides() {
    for attention in Attention::ALL {
        // Two tiers learn more slowly than one.
        let epochs = if attention == Attention::Tiered { 60 } else { 20 };
        let fared = fare(&Config { attention, epochs, ..small() }, 300);
        // Who does not know the key is surprised by ln 4 = 1.39 nats either way.
        assert!(fared.right < 0.8 && fared.wrong > 2.0, "{attention:?}: {fared:?}");
    }
}

#[test]
fn attention_is_on_the_record_that_decides_and_masking_it_shows_so() {
    let fared = fare(&Config { attention: Attention::Semantic1, ..small() }, 300);
    assert!(fared.on_key > 0.8 && fared.share > 0.5, "{fared:?}");
    assert!(fared.highlighted > fared.random + 0.5, "{fared:?}");
}

#[test]
fn normal_sessions_are_no_surprise_and_disorder_is_named() {
    let mut model = fit(&small(), &normal());
    for session in normal() {
        assert!(score_of(&mut model, session.closed()).value < 1.5, "{:?}", session.key);
    }
    let session = Session::of("swapped", &[1, 2, 3, 8, 5]);
    let score = score_of(&mut model, session.closed());
    assert!(score.value > 3.0 && score.culprit == 3, "{score:?}");
    let evidence = model.explain(&session.closed(), &score);
    assert_eq!((evidence.seen, evidence.culprit), (Some(TemplateId(8)), Some(session.records[3].record)));
    let likely: Vec<u64> = evidence.expected.iter().take(2).map(|expected| expected.template.0).collect();
    assert!(likely.contains(&3) && likely.contains(&4), "{:?}", evidence.expected);
    assert!((evidence.figures["nll"] - score.value).abs() < 1e-6, "{evidence:?}");
    let attention: f64 = (0..3).map(|at| attention_on(&evidence, &session, at)).sum();
    assert!((attention - 1.0).abs() < 1e-5, "all of it is on the three records before: {evidence:?}");
    assert!((0..3).all(|at| evidence.records.contains(&session.records[at].record)), "{evidence:?}");
}

#[test]
fn a_session_that_stops_early_is_seen_when_it_closes() {
    for direction in [Direction::Forward, Direction::Bidirectional] {
        let mut model = fit(&Config { direction, ..small() }, &normal());
        let session = Session::of("cut", &[1, 2]);
        let closed = score_of(&mut model, session.closed());
        assert!(closed.value > 2.0, "{direction:?}: {closed:?}");
        if direction == Direction::Forward {
            let open = score_of(&mut model, session.window(0, false));
            assert!(open.value < 1.5, "{open:?}: more may come");
            assert_eq!(score_of(&mut model, session.window(2, true)), closed, "the end alone decides");
            let evidence = model.explain(&session.closed(), &closed);
            assert!(evidence.summary.starts_with("the session ended after template 2"), "{}", evidence.summary);
            assert_eq!(evidence.seen, None);
        }
    }
}

#[test]
fn an_unseen_template_surprises_most() {
    let mut model = fit(&small(), &normal());
    let session = Session::of("new", &[1, 2, 99, 3, 4, 5]);
    let score = score_of(&mut model, session.closed());
    assert_eq!(score, Score { value: f64::from(MAX_NLL), culprit: 2 });
    let evidence = model.explain(&session.closed(), &score);
    assert!(evidence.summary.contains("never occurred in training"), "{}", evidence.summary);
    assert!(!evidence.figures.contains_key("faithfulness"), "no record makes it less unseen: {evidence:?}");
}

#[test]
fn both_directions_know_a_record_by_what_follows_it() {
    // Four kinds of sessions; the first record is one of four, and only the fourth says which one it had to be.
    let kind = |first: u64, echo: u64| Session::of("echo", &[1 + first, 10, 11, 5 + echo, 12]);
    let training: Vec<Session> = (0..200).map(|n| kind(n % 4, n % 4)).collect();
    let fare = |direction| {
        let mut model = fit(&Config { direction, ..small() }, &training);
        let mut mean =
            |shift| (0..4).map(|n| score_of(&mut model, kind(n, (n + shift) % 4).closed()).value / 4.0).sum();
        (mean(0), mean(1))
    };
    let (normal, spoiled): (f64, f64) = fare(Direction::Forward);
    let (normal_both, spoiled_both): (f64, f64) = fare(Direction::Bidirectional);
    assert!(normal > 1.2, "who reads on only guesses one of four, ln 4 = 1.39: {normal}");
    assert!(normal_both < 0.3, "{normal_both}");
    assert!(spoiled_both - normal_both > spoiled - normal, "{spoiled_both} - {normal_both}, {spoiled} - {normal}");
}

#[test]
fn pieces_of_a_session_score_as_the_whole_does() {
    for direction in [Direction::Forward, Direction::Bidirectional] {
        let mut model = fit(&Config { window: 3, direction, ..small() }, &normal());
        let session = Session::of("x", &[1, 3, 2, 8, 8, 1, 5, 6, 7, 7, 7, 8]);
        let whole = score_of(&mut model, session.closed());
        let mut pieces = Vec::new();
        let mut fresh = 0;
        for n_records in [2, 3, 7, 12, 12] {
            let is_closed = fresh == 12;
            let Window::Log(mut log) = session.window(fresh, is_closed) else { unreachable!("a log window") };
            log.records = &log.records[..n_records];
            pieces.extend(score_all(&mut model, &[Window::Log(log)])[0]);
            fresh = n_records;
        }
        let worst = pieces.into_iter().reduce(|a, b| if b.value > a.value { b } else { a });
        assert_eq!(worst, Some(whole), "{direction:?}");
    }
}

#[test]
fn a_score_does_not_depend_on_company_or_on_the_cache() {
    let sessions: Vec<Session> = (0..60).map(|n| Session::of("s", &[1, n % 9, 2, n / 9, 3, 4, n % 7])).collect();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let mut model = fit(&small(), &normal());
    let snapshot = model.snapshot().expect("plain numbers");
    let together = score_all(&mut model, &windows);
    assert_eq!(score_all(&mut model, &windows), together, "from the cache");
    let mut alone = AttentionRnn::load(&Config { cache_contexts: 1, ..small() }, &snapshot).expect("just written");
    for (window, score) in windows.iter().zip(&together) {
        assert_eq!(score_all(&mut alone, &[*window]), [*score]);
    }
    let Reader::Templates(templates) = &alone.reader else { panic!("the template level") };
    assert!(templates.n_cached() <= 8, "{} rows: a window's own contexts at most", templates.n_cached());
}

#[test]
fn groups_are_as_large_as_they_may_be() {
    assert_eq!(groups(&[2, 3, 0, 9, 1, 4, 5], 5), [0..3, 3..4, 4..6, 6..7]);
    assert!(groups(&[], 5).is_empty());
}

#[test]
fn a_snapshot_scores_bit_for_bit_alike_and_a_damaged_one_is_refused() {
    for attention in Attention::ALL {
        let config = Config { attention, max_training_windows: 1000, ..small() };
        let mut model = fit(&config, &normal());
        let bytes = model.snapshot().expect("plain numbers");
        let mut loaded = AttentionRnn::load(&config, &bytes).expect("just written");
        assert_eq!(loaded.version(), model.version());
        assert_eq!(loaded.snapshot().expect("plain numbers"), bytes);
        let session = Session::of("x", &[1, 3, 2, 8, 8, 1, 5]);
        let score = score_of(&mut model, session.closed());
        assert_eq!(score_of(&mut loaded, session.closed()), score);
        assert_eq!(loaded.explain(&session.closed(), &score), model.explain(&session.closed(), &score));
        let refused = |config: &Config, bytes: &[u8]| match AttentionRnn::load(config, bytes) {
            Err(DetectorError::Snapshot { reason, .. }) => reason,
            other => panic!("taken: {:?}", other.map(|model| model.version)),
        };
        refused(&config, &bytes[..bytes.len() - 4]);
        let text = String::from_utf8(bytes).expect("JSON");
        let fewer = text.replacen("\"templates\":[1,", "\"templates\":[", 1);
        assert!(refused(&config, fewer.as_bytes()).contains("bytes of weights"));
        let wider = refused(&Config { hidden: 8, ..config.clone() }, text.as_bytes());
        assert!(wider.contains("fitted with `hidden` 16"), "{wider}");
        let direction = Direction::Bidirectional;
        let both = refused(&Config { direction, ..config.clone() }, text.as_bytes());
        assert!(both.contains("fitted with `direction` Forward"), "{both}");
    }
}

#[test]
fn the_seed_decides_the_weights() {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    let config = Config { hidden: 4, max_training_windows: 1000, ..small() };
    let fit = |seed| AttentionRnn::fit(&config, &windows, seed).expect("it fits").weights;
    assert_eq!(fit(1), fit(1));
    assert_ne!(fit(1), fit(2));
}

#[test]
fn a_key_out_of_range_is_named() {
    let session = Session::of("a", &[1]);
    let refused =
        |config| AttentionRnn::fit(&config, &[session.closed()], 1).map(|_| ()).expect_err("refused").to_string();
    assert!(refused(Config { window: 0, ..small() }).contains("key `window`"));
    assert!(refused(Config { learning_rate: f64::NAN, ..small() }).contains("key `learning_rate`"));
    assert!(refused(Config { masking: 1.0, ..small() }).contains("key `masking`"));
    let tiered = Config { attention: Attention::Tiered, segment: 10, ..small() };
    assert!(refused(tiered).contains("key `segment`"));
    assert!(AttentionRnn::fit(&Config { segment: 10, ..small() }, &[session.closed()], 1).is_ok(), "not used");
    let error = AttentionRnn::fit(&small(), &[], 1).map(|_| ()).expect_err("nothing to learn from").to_string();
    assert!(error.contains("no training window holds a record"), "{error}");
}
