//! DeepLog at work: predictions a second where every context is new and the cache holds no more than is computed at once,
//! and where few contexts come often.
//!
//! `cargo bench -p faultline-detectors --bench deeplog`. The network is the default one, 2 × 64 over ten steps, with thirty
//! templates as in HDFS; how well it is trained makes no difference to its speed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faultline_core::Window;
use faultline_detectors::{
    entry,
    testing::{Session, score_all},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const N_TEMPLATES: u64 = 30;

/// Sessions of `length` records each, drawn from `n_kinds` different ones.
fn sessions(n: usize, length: usize, n_kinds: usize) -> Vec<Session> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let kinds: Vec<Vec<u64>> =
        (0..n_kinds).map(|_| (0..length).map(|_| rng.random_range(0..N_TEMPLATES)).collect()).collect();
    (0..n).map(|idx| Session::of(&idx.to_string(), &kinds[idx % n_kinds])).collect()
}

fn deeplog(criterion: &mut Criterion) {
    let entry = entry("deeplog").expect("it is listed");
    let training = sessions(50, 20, 50);
    let windows: Vec<Window<'_>> = training.iter().map(Session::closed).collect();
    let mut group = criterion.benchmark_group("deeplog");
    for (name, n_kinds, cache) in [("uncached", 1000, 21 * 128), ("cached", 20, 65_536)] {
        let config = json!({"epochs": 1, "max_training_windows": 2000, "cache_contexts": cache});
        let mut model = entry.fit(&config, &windows, 1).expect("it fits");
        let stream = sessions(1000, 20, n_kinds);
        let stream: Vec<Window<'_>> = stream.iter().map(Session::closed).collect();
        // The end of a session is predicted too.
        group.throughput(Throughput::Elements(1000 * 21));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(score_all(&mut *model, &stream))));
    }
    group.finish();
}

criterion_group!(benches, deeplog);
criterion_main!(benches);
