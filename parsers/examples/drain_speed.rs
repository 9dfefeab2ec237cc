//! Drain's lines a CPU second on one core, a round for every line read: what `benches/peers/drain3_lines.py` sets beside
//! Drain3.
//!
//! `cargo run --release -p faultline-parsers --example drain_speed FILE`, a file of messages, without headers. It is read
//! once before the first round, so the tree is warm, as in service. Each line of standard input is a round's length in CPU
//! seconds, for each the rate is printed. Masks are on and parameters extracted. On Linux.

use std::{error::Error, hint::black_box, io::BufRead};

use faultline_parsers::{Drain, DrainConfig, MaskedLine, Params};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("a file of messages is missing")?;
    let bytes = std::fs::read(file)?;
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut masked = MaskedLine::with_default_masks(256, 1 << 14);
    let mut drain = Drain::new("bench", DrainConfig::default());
    let mut pass = || lines.iter().for_each(|line| _ = black_box(drain.add(&mut masked, line, 0, Params::Extract)));
    pass();
    for line in std::io::stdin().lock().lines() {
        let seconds: f64 = line?.trim().parse()?;
        let (begin, mut n) = (cpu_seconds()?, 0);
        let mut spent = 0.0;
        while spent < seconds {
            pass();
            n += lines.len();
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
