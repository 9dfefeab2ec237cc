//! The token level, on the messages of a file system.

use std::sync::{Arc, LazyLock};

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, TemplateId, TemplateTexts, Window};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    Algorithm,
    algorithms::attention_rnn::{
        Attention, AttentionRnn, Config, Direction, Level, MAX_WORD_NLL, Model, Reader, kernel::Predictor, lines, net,
        shape::Symbol, tokens::Tokens, words::Words,
    },
    testing::{Session, score_all},
};

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Bidirectional];

/// Templates 1 to 6 are normal, the others are not in training.
static TEXTS: LazyLock<TemplateTexts> = LazyLock::new(|| {
    let texts = [
        (1, "Receiving block <BLK> src: <IP> dest: <IP>"),
        (2, "Received block <BLK> of size <NUM> from <IP>"),
        (3, "PacketResponder <NUM> for block <BLK> terminating"),
        (4, "Verification succeeded for <BLK>"),
        (5, "Deleting block <BLK> file <PATH>"),
        (6, "Served block <BLK> to <IP>"),
        (7, "Receiving block <BLK> from <IP> dest: <IP>"),
        (8, "kernel oops at address zero, panic"),
        (9, "Received block <BLK> of length <NUM> from <IP>"),
        (10, "Deleting block <BLK> to <IP>"),
    ];
    texts.into_iter().map(|(template, text)| (TemplateId(template), Arc::from(text))).collect()
});

fn with<'a>(window: Window<'a>, templates: &'a TemplateTexts) -> Window<'a> {
    let Window::Log(log) = window else { unreachable!("a log window") };
    Window::Log(LogWindow { templates, ..log })
}

/// A closed session with the texts of its templates.
fn closed(session: &Session) -> Window<'_> {
    with(session.closed(), &TEXTS)
}

fn normal() -> Vec<Session> {
    let kinds: [&[u64]; 3] = [&[1, 2, 3, 4], &[6, 6], &[1, 2, 3, 5]];
    (0..30).map(|n| Session::of(&format!("normal-{n}"), kinds[n % 3])).collect()
}

/// Small enough for a debug build.
fn small(attention: Attention, direction: Direction) -> Config {
    Config {
        level: Level::Token,
        attention,
        direction,
        window: 6,
        lines: 2,
        hidden: 16,
        attention_width: 8,
        learning_rate: 0.02,
        ..Config::default()
    }
}

/// Trained so little that it only matters that it is trained.
fn hasty(attention: Attention, direction: Direction) -> Config {
    Config { max_training_windows: 500, ..small(attention, direction) }
}

fn fit(config: &Config, seed: u64) -> Model {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(closed).collect();
    AttentionRnn::fit(config, &windows, seed).expect("there are sessions enough")
}

fn score_of(model: &mut Model, window: Window<'_>) -> Score {
    score_all(model, &[window])[0].expect("a line is judged")
}

/// The score of a session of these templates, and why it has it.
fn explained(model: &mut Model, templates: &[u64]) -> (Score, Evidence) {
    let session = Session::of("explained", templates);
    let score = score_of(model, closed(&session));
    let evidence = model.explain(&closed(&session), &score);
    assert!((evidence.figures["nll"] - score.value).abs() < 1e-9, "{score:?}: {evidence:?}");
    (score, evidence)
}

fn figure(evidence: &Evidence, name: &str) -> f64 {
    evidence.figures.get(name).copied().unwrap_or(0.0)
}

#[test]
fn known_lines_surprise_least_reworded_ones_little_and_strange_ones_most() {
    for attention in Attention::ALL {
        for direction in BOTH {
            let mut model = fit(&small(attention, direction), 1);
            let known = normal().iter().map(|session| score_of(&mut model, closed(session)).value).fold(0.0, f64::max);
            assert!(known < 1.0, "{attention:?}, {direction:?}: {known}");
            let (reworded, _) = explained(&mut model, &[7]);
            let (strange, _) = explained(&mut model, &[8]);
            assert!(strange.value > 10.0, "{attention:?}, {direction:?}: {strange:?}");
            assert!(
                known + 0.3 < reworded.value && reworded.value < strange.value / 2.0,
                "{attention:?}, {direction:?}: {known} < {reworded:?} < {strange:?}"
            );
            let (among_others, _) = explained(&mut model, &[1, 2, 8, 3, 4]);
            assert_eq!(among_others.culprit, 2, "{attention:?}, {direction:?}");
        }
    }
}

#[test]
fn only_tiers_read_the_lines_before() {
    let session = Session::of("mixed", &[1, 2, 6]);
    let last = with(session.window(2, false), &TEXTS);
    let alone = Session::of("alone", &[6]);
    let mut model = fit(&small(Attention::Semantic1, Direction::Forward), 1);
    assert_eq!(score_of(&mut model, last).value, score_of(&mut model, closed(&alone)).value);
    let mut model = fit(&small(Attention::Tiered, Direction::Forward), 1);
    let (in_place, out_of_place) = (score_of(&mut model, closed(&alone)), score_of(&mut model, closed(&session)));
    assert!(out_of_place.value > in_place.value + 1.0, "{in_place:?}, {out_of_place:?}");
    assert_eq!(out_of_place.culprit, 2);
    let evidence = model.explain(&closed(&session), &out_of_place);
    let on_lines: f64 = session.records[..2]
        .iter()
        .map(|record| figure(&evidence, &format!("attention_record_{}", record.record)))
        .sum();
    assert!(on_lines > 0.1 && on_lines < 1.0 + 1e-5, "{evidence:?}");
    assert!(evidence.summary.contains("of template"), "{}", evidence.summary);
}

#[test]
fn evidence_names_the_words() {
    let mut model = fit(&small(Attention::Semantic1, Direction::Forward), 1);
    let (score, evidence) = explained(&mut model, &[1, 7, 2]);
    assert_eq!(score.culprit, 1);
    assert_eq!((evidence.seen, evidence.culprit), (Some(TemplateId(7)), Some(2)));
    assert!(evidence.summary.contains("word 4 `from` was held to be"), "{}", evidence.summary);
    assert!(evidence.summary.contains("`src:` was likeliest"), "{}", evidence.summary);
    assert_eq!((figure(&evidence, "word"), figure(&evidence, "n_words")), (4.0, 7.0));
    assert!(figure(&evidence, "nll_word_4") > 3.0 && figure(&evidence, "rank") > 1.0, "{evidence:?}");
    // The word next to it reaches the prediction by itself.
    let attention: f64 = (1..=2).map(|word| figure(&evidence, &format!("attention_word_{word}"))).sum();
    assert!((attention - 1.0).abs() < 1e-5 && !evidence.figures.contains_key("attention_word_3"), "{evidence:?}");
    assert!(evidence.summary.contains("of the attention was on word"), "{}", evidence.summary);
    assert!(evidence.figures.contains_key("fall_highlighted_nats"), "{evidence:?}");
    let (_, evidence) = explained(&mut model, &[9]);
    assert!(evidence.summary.contains("word 5 `length` never occurred in training"), "{}", evidence.summary);
    assert!(!evidence.figures.contains_key("fall_highlighted_nats"), "no word makes it less unseen: {evidence:?}");
}

#[test]
fn faithfulness_tells_whether_the_attention_is_on_the_word_that_decides() {
    for seed in 1..=3 {
        let mut model = fit(&small(Attention::Semantic1, Direction::Forward), seed);
        let (_, evidence) = explained(&mut model, &[10]);
        assert!(evidence.summary.contains("word 4 `to` was held to be"), "{}", evidence.summary);
        // What follows `block <BLK>` is decided by the first word.
        let on_first = figure(&evidence, "attention_word_1") > figure(&evidence, "attention_word_2");
        let faithfulness = figure(&evidence, "faithfulness");
        assert!(if on_first { faithfulness > 0.1 } else { faithfulness < -0.1 }, "seed {seed}: {evidence:?}");
    }
}

#[test]
fn a_known_template_needs_no_text_and_a_new_one_without_is_strange() {
    for direction in BOTH {
        let mut model = fit(&hasty(Attention::Semantic1, direction), 1);
        for session in normal().iter().take(3) {
            assert_eq!(score_of(&mut model, session.closed()), score_of(&mut model, closed(session)));
        }
        let session = Session::of("no text", &[1, 99]);
        let score = score_of(&mut model, closed(&session));
        assert_eq!(score.culprit, 1);
        let evidence = model.explain(&closed(&session), &score);
        assert!(evidence.summary.contains("template 99 has no text"), "{}", evidence.summary);
        assert_eq!(figure(&evidence, "nll_word_1"), f64::from(MAX_WORD_NLL));
    }
}

#[test]
fn the_kernel_reads_lines_as_burn_does() {
    let sessions = normal();
    let windows: Vec<Window<'_>> = sessions.iter().map(closed).collect();
    let logs: Vec<&LogWindow<'_>> = windows.iter().filter_map(Window::as_log).collect();
    for attention in Attention::ALL {
        for direction in BOTH {
            let config = Config { max_words: 12, ..small(attention, direction) };
            let tokens = Tokens::new(&config, Words::of(&config, &logs).expect("there are texts"));
            let shape = tokens.layout.shape;
            assert!(shape.predicts_unknown && shape.n_known == 12);
            let examples = lines::examples_of(&config, &tokens.words, &tokens.layout, &logs);
            let contexts: Vec<&[Symbol]> = examples.contexts.chunks_exact(shape.context_length()).collect();
            assert_eq!(contexts.len(), examples.next.len());
            let weights = net::initial_weights(shape, &mut ChaCha8Rng::seed_from_u64(5));
            let ours = Predictor::new(shape, &weights).predict(&contexts).log_probabilities;
            let (burn, _) = net::predict(shape, &weights, &contexts);
            assert_eq!(ours.len(), burn.len());
            let off = ours.iter().zip(&burn).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "{attention:?}, {direction:?}: {off}");
        }
    }
}

#[test]
fn a_score_depends_neither_on_company_nor_on_the_cache_nor_on_pieces() {
    for attention in [Attention::Fixed, Attention::Tiered] {
        let config = hasty(attention, Direction::Bidirectional);
        let mut model = fit(&config, 1);
        let snapshot = model.snapshot().expect("plain numbers");
        let sessions: Vec<Session> = (0..40).map(|n| Session::of("s", &[1 + n % 10, 2, 1 + n / 4, 8, 3])).collect();
        let windows: Vec<Window<'_>> = sessions.iter().map(closed).collect();
        let together = score_all(&mut model, &windows);
        assert_eq!(score_all(&mut model, &windows), together, "from the cache");
        let alone = Config { cache_contexts: 1, ..config.clone() };
        let mut alone = AttentionRnn::load(&alone, &snapshot).expect("just written");
        for (session, score) in sessions.iter().zip(&together) {
            assert_eq!(score_all(&mut alone, &[closed(session)]), [*score]);
            let pieces = [(0, 2), (2, 3), (3, 5)].map(|(fresh, n_records)| {
                let Window::Log(mut log) = with(session.window(fresh, false), &TEXTS) else { unreachable!("a log") };
                log.records = &log.records[..n_records];
                score_of(&mut alone, Window::Log(log))
            });
            let worst = pieces.into_iter().reduce(|a, b| if b.value > a.value { b } else { a });
            assert_eq!(worst, *score);
        }
        let Reader::Tokens(tokens) = &alone.reader else { panic!("the token level") };
        assert!(tokens.n_cached() <= 6, "{} rows: a window's own lines at most, and one", tokens.n_cached());
    }
}

#[test]
fn a_template_that_is_worded_anew_is_read_anew() {
    let mut model = fit(&hasty(Attention::Fixed, Direction::Forward), 1);
    let session = Session::of("new", &[50]);
    let texts = |text: &str| -> TemplateTexts { [(TemplateId(50), Arc::from(text))].into_iter().collect() };
    let (first, second) = (texts("Served block <BLK> to <IP>"), texts("Served <*> oops"));
    let before = score_of(&mut model, with(session.closed(), &first));
    let after = score_of(&mut model, with(session.closed(), &second));
    assert!(after.value > before.value, "{before:?}, {after:?}");
    assert_eq!(score_of(&mut model, with(session.closed(), &first)), before);
}

#[test]
fn a_snapshot_scores_bit_for_bit_alike_and_another_level_is_refused() {
    let refused = |config: &Config, bytes: &[u8]| match AttentionRnn::load(config, bytes) {
        Err(DetectorError::Snapshot { reason, .. }) => reason,
        other => panic!("taken: {:?}", other.map(|model| model.version)),
    };
    for (attention, direction) in Attention::ALL.into_iter().zip(BOTH.into_iter().cycle()) {
        let config = hasty(attention, direction);
        let mut model = fit(&config, 1);
        let bytes = model.snapshot().expect("plain numbers");
        let mut loaded = AttentionRnn::load(&config, &bytes).expect("just written");
        assert_eq!(loaded.version(), model.version());
        assert_eq!(loaded.snapshot().expect("plain numbers"), bytes);
        assert_eq!(explained(&mut loaded, &[1, 7, 99, 2]), explained(&mut model, &[1, 7, 99, 2]));
        let of_templates = refused(&Config { level: Level::Template, ..config.clone() }, &bytes);
        assert!(of_templates.contains("fitted with `level` Token, the configuration says Template"), "{of_templates}");
        let lines = refused(&Config { lines: 3, ..config.clone() }, &bytes);
        assert!(lines.contains("fitted with `lines` 2"), "{lines}");
        let text = String::from_utf8(bytes).expect("JSON");
        let strange = text.replacen("\"wordings\":[[1,[", "\"wordings\":[[1,[60000,", 1);
        assert!(refused(&config, strange.as_bytes()).contains("template 1"));
        let fewer = text.replacen("\"words\":[\"<BLK>\",", "\"words\":[", 1);
        assert_ne!(fewer, text);
        refused(&config, fewer.as_bytes());
    }
}

#[test]
fn a_snapshot_from_before_there_were_levels_is_of_templates() {
    let config = Config { level: Level::Template, ..hasty(Attention::Semantic1, Direction::Forward) };
    let model = fit(&config, 1);
    let written = String::from_utf8(model.snapshot().expect("plain numbers")).expect("JSON");
    let token = Config { level: Level::Token, ..config.clone() };
    let error = AttentionRnn::load(&token, written.as_bytes()).map(|_| ()).expect_err("another level").to_string();
    assert!(error.contains("fitted with `level` Template, the configuration says Token"), "{error}");
    let mut old = written.clone();
    for new in
        ["\"level\":\"template\",", "\"lines\":2,", "\"words\":[],", "\"knows_others\":false,", "\"wordings\":[],"]
    {
        assert!(old.contains(new), "{new} is not in {old}");
        old = old.replacen(new, "", 1);
    }
    let loaded = AttentionRnn::load(&config, old.as_bytes()).expect("an old snapshot");
    assert_eq!(loaded.snapshot().expect("plain numbers"), written.as_bytes());
}

#[test]
fn the_seed_decides_the_weights() {
    let config = hasty(Attention::Tiered, Direction::Forward);
    let snapshot = |seed| fit(&config, seed).snapshot().expect("plain numbers");
    assert_eq!(snapshot(1), snapshot(1));
    assert_ne!(snapshot(1), snapshot(2));
}

#[test]
fn what_it_cannot_be_fitted_on_is_refused_by_its_key() {
    let session = Session::of("a", &[1, 2]);
    let config = small(Attention::Tiered, Direction::Forward);
    let refused =
        |config: &Config, window| AttentionRnn::fit(config, &[window], 1).map(|_| ()).expect_err("refused").to_string();
    let error = refused(&config, session.closed());
    assert!(error.contains("key `level`") && error.contains("no template of the training has one"), "{error}");
    let empty = Session::of("b", &[]);
    assert!(refused(&config, closed(&empty)).contains("no training window holds a record"));
    assert!(refused(&Config { max_words: 0, ..config.clone() }, closed(&session)).contains("key `max_words`"));
    let long = Config { lines: 60, window: 100, ..config };
    assert!(refused(&long, closed(&session)).contains("key `lines`"));
}
