use faultline_core::{Detector, Score, Window};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{Buffers, Config, Network, TraceAnomaly, dimensions::ABSENT};
use crate::{
    algorithm::Algorithm,
    algorithms::trace_vector::{PathVector, UNHEARD_OF},
    networks::normals,
    registry,
    testing::{TraceFixture, application, score_all},
};

/// Paths and milliseconds.
type Own = (Vec<u64>, Vec<f64>);

fn vector(own: &Own) -> PathVector<'_> {
    PathVector { root: own.0.first().copied().unwrap_or(0), paths: &own.0, ms: &own.1 }
}

fn small() -> Config {
    Config { hidden: 24, latent: 4, flow_steps: 3, samples: 16, ..Config::default() }
}

fn fit(config: &Config, traces: &[Own]) -> Network {
    Network::fit(config, &traces.iter().map(vector).collect::<Vec<_>>(), 1).expect("there are traces")
}

fn value(network: &Network, own: &Own) -> f64 {
    network.judge(&vector(own), &mut Buffers::default()).expect("it takes paths").value
}

/// Traces of two kinds. In each the times follow one load.
fn traces(seed: u64, n: usize) -> Vec<Own> {
    let draws = normals(4 * n, &mut ChaCha8Rng::seed_from_u64(seed));
    let trace = |(idx, draw): (usize, &[f32])| {
        let load = 20.0 + 4.0 * f64::from(draw[0]);
        let ms = |times: f64, draw: f32| times * load + f64::from(draw);
        if idx % 2 == 0 {
            (vec![1, 2, 3, 4], vec![ms(5.0, draw[1]), ms(2.0, draw[2]), ms(1.0, draw[3]), 3.0])
        } else {
            (vec![1, 5, 6], vec![ms(4.0, draw[1]), ms(3.0, draw[2]), ms(2.0, draw[3])])
        }
    };
    draws.chunks_exact(4).enumerate().map(trace).collect()
}

/// Share of the abnormal that scores more than .99 of the normal.
fn found(network: &Network, abnormal: impl Fn(Own) -> Own) -> f64 {
    let mut normal: Vec<f64> = traces(2, 400).iter().map(|own| value(network, own)).collect();
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 99 / 100];
    let abnormal: Vec<Own> = traces(3, 200).into_iter().map(abnormal).collect();
    abnormal.iter().filter(|own| value(network, own) > threshold).count() as f64 / abnormal.len() as f64
}

#[test]
fn planted_anomalies_stand_out() {
    let network = fit(&small(), &traces(1, 1_000));
    let slow = |(paths, mut ms): Own| {
        ms[0] += 300.0;
        ms[1] += 300.0;
        (paths, ms)
    };
    let share = found(&network, slow);
    assert!(share > 0.95, "slow: {share}");
    // A call of the other kind, as long as it is there.
    let crossed = |(mut paths, mut ms): Own| {
        let (path, own) = if paths[1] == 2 { (6, 40.0) } else { (4, 3.0) };
        let place = paths.partition_point(|known| *known < path);
        paths.insert(place, path);
        ms.insert(place, own);
        (paths, ms)
    };
    let share = found(&network, crossed);
    assert!(share > 0.8, "crossed: {share}");
    let share = found(&network, |own| own);
    assert!(share < 0.05, "normal: {share}");
}

#[test]
fn an_unseen_path_is_an_anomaly_at_once_unless_each_trace_has_one() {
    let with_unseen: Own = (vec![1, 2, 3, 4, 99], vec![100.0, 40.0, 20.0, 3.0, 1.0]);
    let network = fit(&small(), &traces(1, 400));
    let finding = network.judge(&vector(&with_unseen), &mut Buffers::default()).expect("it takes paths");
    assert_eq!((finding.n_unseen, finding.value >= UNHEARD_OF + 1.0), (1, true));
    let mut own_paths = traces(1, 400);
    for (idx, (paths, ms)) in own_paths.iter_mut().enumerate() {
        paths.push(1_000 + idx as u64);
        ms.push(1.0);
    }
    let network = fit(&small(), &own_paths);
    assert!(value(&network, &with_unseen) < UNHEARD_OF, "that is how traces are there");
    // More paths than can be known: then nothing is new.
    let many: Vec<Own> =
        (0..9_000).map(|idx| (vec![1, 1_000 + 2 * idx, 1_001 + 2 * idx], vec![9.0, 1.0, 1.0])).collect();
    let network = fit(&Config { max_paths: 20, epochs: 1, ..small() }, &many);
    let finding = network.judge(&vector(&(vec![1, 7], vec![9.0, 1.0])), &mut Buffers::default()).expect("paths");
    assert_eq!((network.is_complete, finding.n_unseen, finding.value < UNHEARD_OF), (false, 0, true));
}

#[test]
fn a_hundred_thousand_operations_take_no_more_room_than_the_limits() {
    let ids: Vec<u64> = (0..100_000).collect();
    let vectors: Vec<PathVector<'_>> =
        ids.chunks(2).map(|paths| PathVector { root: 1, paths, ms: &[2.0, 1.0] }).collect();
    let config = Config { max_kinds: 500, max_paths: 64, epochs: 1, max_traces: 1_000, ..small() };
    let network = Network::fit(&config, &vectors, 1).expect("there are traces");
    assert_eq!(network.size(), (500, 64));
    assert!(value(&network, &(vec![3, 5], vec![1.0, 1.0])).is_finite());
}

#[test]
fn odd_times_and_odd_vectors_are_no_trouble() {
    let mut odd = traces(1, 200);
    let times = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e300, 1e300, f64::MIN_POSITIVE];
    for ((_, ms), time) in odd.iter_mut().zip(times) {
        ms[0] = time;
    }
    odd.extend([(vec![], vec![]), (vec![1, 2], vec![1.0])]);
    let network = fit(&small(), &odd);
    for own in &odd[..200] {
        assert!(value(&network, own).is_finite());
    }
    for own in &odd[200..] {
        assert!(network.judge(&vector(own), &mut Buffers::default()).is_none());
    }
    let network = fit(&small(), &traces(1, 200));
    for time in times {
        assert!(value(&network, &(vec![1, 5, 6], vec![time; 3])).is_finite(), "{time}");
    }
    assert!(Network::fit(&small(), &[], 1).is_err());
}

#[test]
fn without_kinds_a_score_is_the_negative_log_likelihood() {
    let network = fit(&Config { by_kind: false, ..small() }, &traces(1, 200));
    let own = traces(2, 1).swap_remove(0);
    let finding = network.judge(&vector(&own), &mut Buffers::default()).expect("it takes paths");
    assert_eq!(finding.value, finding.nats);
    let by_kind = fit(&small(), &traces(1, 200));
    let found = by_kind.judge(&vector(&own), &mut Buffers::default()).expect("it takes paths");
    assert_eq!(found.nats, finding.nats, "it is the same network");
    assert_ne!(found.value, finding.value);
}

/// What is absent must not be where times are.
#[test]
fn no_time_is_as_low_as_a_path_that_was_not_taken() {
    let network = fit(&small(), &traces(1, 200));
    let (mut fed, mut wanted) = (Vec::new(), Vec::new());
    for own in traces(2, 200) {
        network.dimensions.standardise(&vector(&own), &mut fed, &mut wanted);
    }
    let n_absent = wanted.iter().filter(|value| **value == ABSENT).count();
    assert_eq!(n_absent, 100 * 2 + 100 * 3);
    assert!(wanted.iter().all(|value| *value >= ABSENT));
}

fn model(config: &Config) -> super::Model {
    let training = application(1, 300, 0.0);
    let windows: Vec<Window<'_>> = training.iter().map(|(trace, _)| trace.window()).collect();
    TraceAnomaly::fit(config, &windows, 1).expect("there are traces")
}

#[test]
fn an_application_is_watched_and_evidence_names_the_place() {
    let mut model = model(&Config::default());
    let traces = application(2, 200, 0.3);
    let windows: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
    let scores: Vec<Score> = score_all(&mut model, &windows).into_iter().map(|score| score.expect("judged")).collect();
    let mut normal: Vec<f64> =
        scores.iter().zip(&traces).filter(|(_, trace)| !trace.1).map(|(score, _)| score.value).collect();
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 97 / 100];
    let (mut n_slow, mut n_found) = (0, 0);
    for ((score, window), (trace, is_spoiled)) in scores.iter().zip(&windows).zip(&traces) {
        let evidence = model.explain(window, score);
        assert!(evidence.summary.contains("; ") && evidence.figures["nats"].is_finite(), "{}", evidence.summary);
        assert!(evidence.culprit.is_some() && evidence.records.contains(&evidence.culprit.expect("a record")));
        let audited = trace.services.iter().any(|service| &**service == "audit");
        if audited {
            assert!(score.value >= UNHEARD_OF && evidence.figures["n_unseen_paths"] >= 1.0, "{}", evidence.summary);
            assert!(evidence.summary.contains("audit"), "{}", evidence.summary);
        }
        // The others are slow or break off, which is hardly seen.
        if *is_spoiled && !audited && trace.spans.len() > 3 {
            n_slow += 1;
            n_found += usize::from(score.value > threshold);
        }
    }
    assert!(n_slow > 5 && n_found * 10 > n_slow * 8, "{n_found} of {n_slow}");
    // One by one, in another order, and again.
    for (window, score) in windows.iter().zip(&scores).rev() {
        assert_eq!(score_all(&mut model, &[*window])[0], Some(*score));
    }
}

#[test]
fn a_snapshot_keeps_every_bit_and_refuses_what_does_not_fit() {
    let config = small();
    let mut model = model(&config);
    let snapshot = model.snapshot().expect("written");
    let mut again = TraceAnomaly::load(&config, &snapshot).expect("its own");
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot.clone()));
    assert_eq!(again.network.weights, model.network.weights);
    assert_eq!(again.network.scale, model.network.scale);
    let traces = application(2, 50, 0.3);
    let windows: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
    assert_eq!(score_all(&mut again, &windows), score_all(&mut model, &windows));
    for n in [0, 16, 40, snapshot.len() / 2, snapshot.len() - 1] {
        assert!(TraceAnomaly::load(&config, &snapshot[..n]).is_err(), "{n} bytes");
    }
    let mut spoiled = snapshot.clone();
    spoiled[snapshot.len() / 2] ^= 1;
    assert!(TraceAnomaly::load(&config, &spoiled).is_err());
    let error = TraceAnomaly::load(&Config { hidden: 25, ..config }, &snapshot).expect_err("another network");
    assert!(error.to_string().contains("`hidden` 24"), "{error}");
}

#[test]
fn a_trace_without_all_its_spans_is_not_judged() {
    let mut cut = application(1, 1, 0.0).swap_remove(0).0;
    cut.n_dropped = 1;
    let mut model = model(&small());
    assert_eq!(score_all(&mut model, &[cut.window(), TraceFixture::empty("none").window()]), [None, None]);
    let evidence = model.explain(&cut.window(), &Score { value: 1.0, culprit: 0 });
    assert!(evidence.summary.contains("not all of them"), "{}", evidence.summary);
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("trace-anomaly").expect("it is listed");
    let training = application(1, 10, 0.0);
    let windows: Vec<Window<'_>> = training.iter().map(|(trace, _)| trace.window()).collect();
    for (key, config) in [("min_deviation", json!({"min_deviation": 0.0})), ("samples", json!({"samples": 0}))] {
        let Err(error) = entry.fit(&config, &windows, 0) else { panic!("{key} was taken") };
        assert!(error.to_string().contains(&format!("key `{key}`")), "{error}");
    }
}
