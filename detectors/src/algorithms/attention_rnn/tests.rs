use faultline_core::{Detector, DetectorError, Evidence, Score, TemplateId, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Attention, AttentionRnn, Config, Direction, MAX_NLL, Model};
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

/// A grammar in which a distant record decides: a key, three to five records of noise, the question 20, and the answer that belongs
/// to the key. Up to two records of noise come before. The position of the key and its answer.
fn riddle(rng: &mut ChaCha8Rng, key: u64, answer: u64) -> (Session, usize, usize) {
    let mut templates = Vec::new();
    let noise = |rng: &mut ChaCha8Rng, templates: &mut Vec<u64>, n: std::ops::Range<usize>| {
        for _ in 0..rng.random_range(n) {
            templates.push(rng.random_range(10..14));
        }
    };
    noise(rng, &mut templates, 0..3);
    let at = templates.len();
    templates.push(1 + key);
    noise(rng, &mut templates, 3..6);
    templates.extend([20, 30 + answer]);
    let answered = templates.len() - 1;
    (Session::of("riddle", &templates), at, answered)
}

fn riddles(seed: u64, n: usize) -> Vec<(Session, usize, usize)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n as u64).map(|n| riddle(&mut rng, n % 4, n % 4)).collect()
}

fn riddle_config(attention: Attention, direction: Direction) -> Config {
    Config { attention, direction, epochs: 12, masking: 0.05, ..small() }
}

fn attention_on(evidence: &Evidence, session: &Session, at: usize) -> f64 {
    let name = format!("attention_record_{}", session.records[at].record);
    evidence.figures.get(&name).copied().unwrap_or(0.0)
}

#[test]
fn every_variant_learns_what_a_distant_record_decides_and_looks_at_it() {
    let training: Vec<Session> = riddles(1, 400).into_iter().map(|(session, ..)| session).collect();
    for attention in Attention::ALL {
        let mut model = fit(&riddle_config(attention, Direction::Forward), &training);
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        let (mut on_key, mut share, mut falls, mut randoms) = (0, 0.0, 0.0, 0.0);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let n = 40;
        for idx in 0..n {
            let key = idx % 4;
            let (session, _, answered) = riddle(&mut rng, key, key);
            let answer = session.window(answered, false);
            right.push(score_of(&mut model, answer).value);
            let (session, at, answered) = riddle(&mut rng, key, (key + 1) % 4);
            let answer = session.window(answered, false);
            let score = score_of(&mut model, answer);
            wrong.push(score.value);
            let evidence = model.explain(&answer, &score);
            let own = attention_on(&evidence, &session, at);
            let most = (0..answered).map(|at| attention_on(&evidence, &session, at)).fold(0.0, f64::max);
            on_key += u64::from(own == most);
            share += own / n as f64;
            falls += evidence.figures["fall_highlighted_nats"] / n as f64;
            randoms += evidence.figures["fall_random_nats"] / n as f64;
        }
        let worst_right = right.iter().copied().fold(0.0, f64::max);
        let mean_right = right.iter().sum::<f64>() / n as f64;
        let least_wrong = wrong.iter().copied().fold(f64::INFINITY, f64::min);
        eprintln!(
            "{attention:?}: right {mean_right:.3} at most {worst_right:.3}, wrong at least {least_wrong:.3}, on key {on_key}/{n} \
             {share:.3}, falls {falls:.3} random {randoms:.3}"
        );
    }
    panic!("look");
}
