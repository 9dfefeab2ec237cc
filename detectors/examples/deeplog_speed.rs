//! DeepLog's uncached predictions a CPU second, a round for every line read: what `benches/peers/deeplog_onnx.py`
//! sets beside ONNX Runtime.
//!
//! `cargo run --release -p faultline-detectors --example deeplog_speed [TEMPLATES [BATCH]]`, 30 and 256 where not
//! given. Each line of standard input is a round's length in CPU seconds, for each the rate is printed. A round
//! scores calls of BATCH windows with one fresh record each, so one prediction a window; the contexts differ from
//! each other and the cache holds one call's, so it is emptied before each. All that a call does is measured, not the
//! network alone. On Linux.

use std::{error::Error, hint::black_box, io::BufRead};

use faultline_core::Window;
use faultline_detectors::{
    entry,
    testing::{Session, score_all},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let number = |n: usize, default: u64| std::env::args().nth(n).map_or(Ok(default), |text| text.parse::<u64>());
    let (n_templates, batch) = (number(1, 30)?, number(2, 256)?);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut sessions = |n: u64, length: usize| -> Vec<Session> {
        let mut templates = || (0..length).map(|_| rng.random_range(0..n_templates)).collect::<Vec<u64>>();
        (0..n).map(|idx| Session::of(&idx.to_string(), &templates())).collect()
    };
    let mut training = sessions(50, 20);
    training.push(Session::of("all", &(0..n_templates).collect::<Vec<u64>>()));
    let windows: Vec<Window<'_>> = training.iter().map(Session::closed).collect();
    let config = json!({"epochs": 1, "max_training_windows": 2000, "cache_contexts": batch});
    let mut model = entry("deeplog")?.fit(&config, &windows, 1)?;
    let sessions = sessions(batch, 11);
    let windows: Vec<Window<'_>> = sessions.iter().map(|session| session.window(10, false)).collect();
    for line in std::io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse()?;
        black_box(score_all(&mut *model, &windows));
        let (begin, mut n) = (cpu_seconds()?, 0);
        let mut spent = 0.0;
        while spent < seconds {
            black_box(score_all(&mut *model, &windows));
            n += batch;
            spent = cpu_seconds()? - begin;
        }
        println!("{:.0}", n as f64 / spent);
    }
    Ok(())
}

/// What this thread has run for.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("schedstat is empty")?.parse::<f64>()? * 1e-9)
}
