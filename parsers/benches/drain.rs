//! Lines per second of Drain on real lines, on one core, masks on, beside the crate `logdrain` in the same run.
//!
//! Times are CPU seconds of the measuring thread where the system tells them (Linux), so that other work on the machine
//! distorts them less; seconds on the clock elsewhere. Lines are those of `../shared/data` (or `FAULTLINE_DATA`) without their headers; the trees are warm, as in service.

use std::{hint::black_box, time::Duration};

use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use faultline_parsers::{Drain, DrainConfig, MaskedLine, Params};

#[path = "../tests/common/mod.rs"]
mod common;

/// Name, archive, file in it, header fields before the message, what separates them.
const SETS: [(&str, &str, &str, usize, u8); 4] = [
    ("hdfs", "hdfs", "loglead_2pct_raw/hdfs_2pct.log", 5, b' '),
    ("bgl", "bgl", "raw_fragments/BGL_first10000.log", 9, b' '),
    ("linux", "linux", "Linux.log", 5, b' '),
    ("healthapp", "healthapp", "HealthApp_first20000.log", 3, b'|'),
];

fn message(line: &str, n_fields: usize, separator: u8) -> &str {
    let bytes = line.as_bytes();
    let mut at = 0;
    for _ in 0..n_fields {
        at += bytes[at..].iter().position(|b| *b == separator).map_or(bytes.len() - at, |found| found + 1);
        if separator == b' ' {
            at += bytes[at..].iter().take_while(|b| **b == b' ').count();
        }
    }
    line.get(at..).unwrap_or(line)
}

fn ours(group: &mut BenchmarkGroup<'_, CpuTime>, id: &str, config: DrainConfig, lines: &[String], params: Params) {
    let mut masked = MaskedLine::with_default_masks(256, 1 << 14);
    let mut drain = Drain::new("bench", config);
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            for line in lines {
                black_box(drain.add(&mut masked, line.as_bytes(), 0, params));
            }
        });
    });
}

fn peer(group: &mut BenchmarkGroup<'_, CpuTime>, id: &str, lines: &[String], masks: &[(&str, &str)]) {
    let masks = masks.iter().map(|(regex, name)| logdrain::Mask::new(regex, name).expect("a mask"));
    let miner = logdrain::Miner::builder().masks(masks).build().expect("its defaults");
    group.bench_function(id, |bencher| {
        bencher.iter(|| {
            for line in lines {
                black_box(miner.add(line));
            }
        });
    });
}

/// A word without digits that is different for each number.
fn word(n: usize) -> String {
    format!("{n:x}").bytes().map(|digit| char::from(b'g' + (digit % 39) % 16)).collect()
}

/// Lines that are hard on a parser, with what they are. Of those that make templates without end, each pass brings all
/// of them again, far more than the tree holds.
fn bad_lines() -> [(&'static str, Vec<String>); 3] {
    let random = |n_lines: usize, n_words: usize| -> Vec<String> {
        (0..n_lines).map(|n| (0..n_words).map(|k| word(n * n_words + k)).collect::<Vec<_>>().join(" ")).collect()
    };
    let mut mebibyte = random(16, 150_000);
    mebibyte.iter_mut().for_each(|line| line.truncate(1 << 20));
    let varied = |n: usize| format!("job {} of {} on {} ended {}", word(n), word(n / 3), word(n / 5), word(n / 7));
    [
        ("random words", random(50_000, 8)),
        ("four words vary in nine", (0..50_000).map(varied).collect()),
        ("a mebibyte each", mebibyte),
    ]
}

fn drain_on_bad_lines(criterion: &mut Criterion<CpuTime>) {
    for (name, lines) in bad_lines() {
        let n_bytes: usize = lines.iter().map(String::len).sum();
        let mut group =
            criterion.benchmark_group(format!("{name}/{} lines of {} bytes", lines.len(), n_bytes / lines.len()));
        group.throughput(Throughput::Elements(lines.len() as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
        ours(&mut group, "faultline ids", DrainConfig::default(), &lines, Params::Skip);
        let unlimited = DrainConfig { max_new_templates: 1 << 24, ..DrainConfig::default() };
        ours(&mut group, "faultline ids, new templates without limit", unlimited, &lines, Params::Skip);
        group.finish();
    }
}

fn drain(criterion: &mut Criterion<CpuTime>) {
    for (name, archive, file, n_fields, separator) in SETS {
        let Some(files) = common::files(archive, |path| path.ends_with(file)) else {
            println!("skipped: bench {name}: {archive}.tar.zst absent");
            continue;
        };
        let bytes = files.into_values().next().expect("the archive holds the file");
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> =
            text.lines().take(50_000).map(|line| message(line, n_fields, separator).to_owned()).collect();
        let n_bytes: usize = lines.iter().map(String::len).sum();
        let mut group =
            criterion.benchmark_group(format!("{name}/{} lines of {} bytes", lines.len(), n_bytes / lines.len()));
        group.throughput(Throughput::Elements(lines.len() as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
        ours(&mut group, "faultline ids", DrainConfig::default(), &lines, Params::Skip);
        ours(&mut group, "faultline ids and params", DrainConfig::default(), &lines, Params::Extract);
        peer(&mut group, "logdrain without masks", &lines, &[]);
        let masks = [
            (r"blk_-?\d+", "<BLK>"),
            (r"/?(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?", "<IP>"),
            (r"\b0[xX][0-9a-fA-F]+\b", "<HEX>"),
            (r"\b\d+(?:\.\d+)?\b", "<NUM>"),
        ];
        peer(&mut group, "logdrain with masks", &lines, &masks);
        group.finish();
    }
}

/// CPU time of this thread; the kernel counts it in steps of a few milliseconds, so samples must be long.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        match text.split(' ').next().and_then(|nanos| nanos.parse().ok()) {
            Some(nanos) => Duration::from_nanos(nanos),
            #[allow(clippy::disallowed_methods, reason = "a bench measures time")]
            None => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
        }
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Self::now()
    }

    fn end(&self, start: Duration) -> Duration {
        // Never nothing, which criterion does not take.
        Self::now().saturating_sub(start).max(Duration::from_nanos(1))
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime).measurement_time(Duration::from_secs(6));
    targets = drain, drain_on_bad_lines
}
criterion_main!(benches);
