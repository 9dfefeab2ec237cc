//! `traceanomaly`: TrainTicket's service trace vectors, normal ones to fit on and to fix thresholds on, the others to judge.
//!
//! A trace is a response time for each call path it takes. A method ([`METHODS`]) is fitted on the normal traces whose id begins
//! with 0 to 7 and scores traces in batches. Thresholds are quantiles of its scores of 8 and 9, which it has not seen, and a trace
//! is flagged when it scores more: the paper's rule (p < .001 by a kernel density of training scores) had recalls of .13 to
//! .60 when others repeated it. Four quantiles are shown, since so many normal traces are alike that they may coincide.
//!
//! Beside the detectors `trace-vector` and `trace-anomaly` (once with its own scores, once with the paper's, [`ONE_SCALE`]),
//! baselines say what there is to gain: [`UNSEEN_PATH`], a combination of call paths that training does not have, [`MAX_Z`], the
//! call path that is furthest from its mean, and [`EITHER`], the latter of combinations that training has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use faultline_datasets::{
    Confusion, ProtocolInfo, ResultRow, Usage, average_precision,
    loaders::{TraceVectors, Vectors, traceanomaly::Vector},
    series_metrics::Curve,
    usage::reset_peak_rss,
};
use faultline_detectors::{
    Algorithm,
    algorithms::{
        trace_anomaly::{self, Buffers, Network, TraceAnomaly},
        trace_vector::{Config, Kinds, PathVector, TraceVector, UNHEARD_OF},
    },
};

use super::{Args, sessions::is_wanted};

/// Shares of the calibration part that a threshold leaves below it.
const QUANTILES: [f64; 4] = [0.99, 0.995, 0.998, 0.999];

/// Traces scored at a time.
const BATCH: usize = 256;

/// The baseline that knows which call paths come together.
const UNSEEN_PATH: &str = "unseen-path";

/// The baseline that knows how long each call path takes.
const MAX_Z: &str = "max-z";

/// The baseline that knows both.
const EITHER: &str = "unseen-path|max-z";

/// `trace-anomaly` whose scores are negative log-likelihoods, as in the paper, whatever the kind of trace.
const ONE_SCALE: &str = "trace-anomaly, one scale";

/// The score of a call path that training does not have.
const UNSEEN_Z: f64 = 1e9;

/// Standard deviations are a millisecond at least, as in the paper.
const LEAST_DEVIATION: f64 = 1.0;

/// What was fitted: a score for each trace, the higher the more abnormal.
type Scorer = Box<dyn FnMut(&[Vector<'_>]) -> Vec<f64>>;

/// A way to score traces.
struct Method {
    name: &'static str,
    /// Whether it runs once for each seed.
    is_seeded: bool,
    /// Fits on normal traces, with a seed.
    fit: fn(&Vectors, u64) -> anyhow::Result<Scorer>,
}

/// Every method, baselines first.
const METHODS: &[Method] = &[
    Method { name: UNSEEN_PATH, is_seeded: false, fit: |train, _| Ok(unseen_path(train)) },
    Method { name: MAX_Z, is_seeded: false, fit: |train, _| Ok(max_z(train)) },
    Method { name: EITHER, is_seeded: false, fit: |train, _| Ok(either(train)) },
    Method { name: TraceVector::NAME, is_seeded: false, fit: |train, _| trace_vector(train) },
    Method { name: TraceAnomaly::NAME, is_seeded: true, fit: |train, seed| trace_anomaly(train, seed, true) },
    Method { name: ONE_SCALE, is_seeded: true, fit: |train, seed| trace_anomaly(train, seed, false) },
];

/// Whether this protocol has a method of this name.
pub fn has_method(name: &str) -> bool {
    METHODS.iter().any(|method| method.name == name)
}

/// Runs the protocol.
pub fn traceanomaly(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let data = TraceVectors::load(&files.data)?;
    anyhow::ensure!(
        !data.train.is_empty() && !data.calibrate.is_empty(),
        "{}: no normal trace to fit on (ids from 0 to 7) or to fix thresholds on (8 and 9)",
        files.data.display()
    );
    for method in METHODS.iter().filter(|method| is_wanted(args, method.name)) {
        let seeds: Vec<Option<u64>> =
            if method.is_seeded { args.seeds.iter().copied().map(Some).collect() } else { vec![None] };
        for seed in seeds {
            judge(info, method, seed, &data)?.into_iter().for_each(&mut *report);
        }
    }
    Ok(())
}

/// Fits, fixes the thresholds, then scores the test part: a row for each quantile.
fn judge(
    info: &ProtocolInfo,
    method: &Method,
    seed: Option<u64>,
    data: &TraceVectors,
) -> anyhow::Result<Vec<ResultRow>> {
    reset_peak_rss();
    let before = Usage::now();
    let mut scorer = (method.fit)(&data.train, seed.unwrap_or(1))?;
    let mut held_out = score_all(&mut scorer, data.calibrate.iter());
    held_out.sort_by(f64::total_cmp);
    let n_test = data.test_normal.len() + data.test_abnormal.len();
    let truth: Vec<bool> = (0..n_test).map(|idx| idx >= data.test_normal.len()).collect();
    let started = Instant::now();
    let scores = score_all(&mut scorer, data.test_normal.iter().chain(data.test_abnormal.iter()));
    let records_per_second = n_test as f64 / started.elapsed().as_secs_f64();
    let cpu_seconds = Usage::now().cpu_seconds_since(&before);
    let auprc = average_precision(&scores, &truth);
    let oracle = Curve::plain(&scores, &truth).best().map(|(_, f1)| f1);
    let rows = QUANTILES.map(|share| {
        let threshold = quantile(&held_out, share);
        let counts = Confusion::of(scores.iter().map(|score| *score > threshold).zip(truth.iter().copied()));
        let mut row = ResultRow::new(info.name, &format!("{}, quantile {share}", info.dataset), method.name)
            .with_confusion(&counts)
            .with_extra("balanced_accuracy", counts.balanced_accuracy())
            .with_extra("rule", format!("above {share} of the {} traces that fix thresholds", held_out.len()))
            .with_extra("threshold", threshold)
            .with_extra("oracle_threshold_f1", oracle);
        row.seed = seed;
        row.auprc = auprc;
        row.records_per_second = Some(records_per_second).filter(|rate| rate.is_finite());
        row.cpu_seconds = cpu_seconds;
        row.peak_rss_bytes = Usage::now().peak_rss_bytes;
        row
    });
    Ok(rows.into())
}

fn score_all<'a>(scorer: &mut Scorer, traces: impl Iterator<Item = Vector<'a>>) -> Vec<f64> {
    let traces: Vec<Vector<'_>> = traces.collect();
    let mut scores = Vec::with_capacity(traces.len());
    for batch in traces.chunks(BATCH) {
        scores.extend(scorer(batch));
    }
    scores
}

/// The least of the ascending `scores` that a share of them does not exceed; not a number where there is none.
pub fn quantile(scores: &[f64], share: f64) -> f64 {
    let n_below = (share * scores.len() as f64).ceil() as usize;
    scores.get(n_below.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// 1 for a combination of call paths that training does not have.
fn unseen_path(train: &Vectors) -> Scorer {
    let known: BTreeSet<Vec<u16>> = train.iter().map(|trace| trace.columns.to_vec()).collect();
    let score = move |trace: &Vector<'_>| f64::from(u8::from(!known.contains(trace.columns)));
    Box::new(move |batch: &[Vector<'_>]| batch.iter().map(&score).collect())
}

/// The most standard deviations that a call path is from its mean in training.
fn max_z(train: &Vectors) -> Scorer {
    #[derive(Default)]
    struct Sums {
        n: f64,
        sum: f64,
        squares: f64,
    }
    let mut sums: BTreeMap<u16, Sums> = BTreeMap::new();
    for trace in train.iter() {
        for (column, value) in trace.columns.iter().zip(trace.values) {
            let own = sums.entry(*column).or_default();
            own.n += 1.0;
            own.sum += value;
            own.squares += value * value;
        }
    }
    let scale = |own: &Sums| {
        let mean = own.sum / own.n;
        (mean, (own.squares / own.n - mean * mean).max(0.0).sqrt().max(LEAST_DEVIATION))
    };
    let scales: BTreeMap<u16, (f64, f64)> = sums.iter().map(|(column, own)| (*column, scale(own))).collect();
    let score = move |trace: &Vector<'_>| {
        let z = |(column, value): (&u16, &f64)| {
            scales.get(column).map_or(UNSEEN_Z, |(mean, deviation)| ((value - mean) / deviation).abs())
        };
        trace.columns.iter().zip(trace.values).map(z).fold(0.0, f64::max)
    };
    Box::new(move |batch: &[Vector<'_>]| batch.iter().map(&score).collect())
}

/// The larger of the two, an unseen combination being beyond all.
fn either(train: &Vectors) -> Scorer {
    let (mut unseen, mut z) = (unseen_path(train), max_z(train));
    Box::new(move |batch: &[Vector<'_>]| {
        let both = unseen(batch).into_iter().zip(z(batch));
        both.map(|(is_unseen, z)| if is_unseen > 0.0 { UNSEEN_Z } else { z }).collect()
    })
}

/// Call paths of a trace.
fn paths_of(trace: &Vector<'_>) -> Vec<u64> {
    trace.columns.iter().copied().map(u64::from).collect()
}

/// A trace as the detectors take it. The columns of an entry begin with that of its root.
fn path_vector<'a>(paths: &'a [u64], trace: &Vector<'a>) -> PathVector<'a> {
    PathVector { root: paths.first().copied().unwrap_or(0), paths, ms: trace.values }
}

/// What `trace-vector` says of vectors without spans.
fn trace_vector(train: &Vectors) -> anyhow::Result<Scorer> {
    let paths: Vec<Vec<u64>> = train.iter().map(|trace| paths_of(&trace)).collect();
    let vectors: Vec<PathVector<'_>> =
        train.iter().zip(&paths).map(|(trace, paths)| path_vector(paths, &trace)).collect();
    let kinds = Kinds::fit(&Config::default(), &vectors)?;
    let score = move |trace: &Vector<'_>| {
        let paths = paths_of(trace);
        kinds.judge(&path_vector(&paths, trace)).map_or(UNHEARD_OF, |found| found.value)
    };
    Ok(Box::new(move |batch: &[Vector<'_>]| batch.iter().map(&score).collect()))
}

/// What `trace-anomaly` says of them.
fn trace_anomaly(train: &Vectors, seed: u64, by_kind: bool) -> anyhow::Result<Scorer> {
    let paths: Vec<Vec<u64>> = train.iter().map(|trace| paths_of(&trace)).collect();
    let vectors: Vec<PathVector<'_>> =
        train.iter().zip(&paths).map(|(trace, paths)| path_vector(paths, &trace)).collect();
    let config = trace_anomaly::Config { by_kind, ..trace_anomaly::Config::default() };
    let network = Network::fit(&config, &vectors, seed)?;
    let mut buffers = Buffers::default();
    Ok(Box::new(move |batch: &[Vector<'_>]| {
        let mut score = |trace: &Vector<'_>| {
            let paths = paths_of(trace);
            network.judge(&path_vector(&paths, trace), &mut buffers).map_or(UNHEARD_OF, |found| found.value)
        };
        batch.iter().map(&mut score).collect()
    }))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, path::Path};

    use faultline_datasets::protocol;

    use super::{super::points::tests::args, *};

    /// 320 normal traces of two kinds, whose ids begin with every digit in turn; abnormal ones of which the first has a path of
    /// its own, the second is slow, and the third is as a normal one.
    fn written(folder: &Path) {
        let mut normal = String::new();
        for idx in 0..320 {
            let time = 10.0 + f64::from(idx % 7);
            let values = if idx % 3 == 0 { format!("{time},0,0") } else { format!("{time},{},0", 2.0 * time) };
            let _ = writeln!(normal, "{:x}{idx:07x}:{values}", idx % 16);
        }
        std::fs::write(folder.join("test_normal"), normal).expect("written");
        let abnormal = "a0000001:11,0,5\nb0000002:90,22,0\nc0000003:12,24,0\n";
        std::fs::write(folder.join("test_abnormal"), abnormal).expect("written");
    }

    fn rows(detectors: &[&str]) -> Vec<ResultRow> {
        let folder = tempfile::tempdir().expect("a folder");
        written(folder.path());
        let data = folder.path().to_string_lossy().into_owned();
        let mut line = vec!["traceanomaly", "--seeds", "1", "--data", data.as_str()];
        detectors.iter().for_each(|detector| line.extend(["--detector", *detector]));
        let mut rows = Vec::new();
        traceanomaly(&args(&line), protocol("traceanomaly").expect("listed"), &mut |row| rows.push(row))
            .expect("it runs");
        rows
    }

    #[test]
    fn each_method_has_a_row_for_each_quantile() {
        let all = rows(&[]);
        let of_zero = |row: &&ResultRow| row.dataset.ends_with("quantile 0.998");
        let shown: Vec<_> = all.iter().filter(of_zero).map(|row| (row.detector.as_str(), row.n)).collect();
        assert_eq!(
            shown,
            [
                ("unseen-path", 123),
                ("max-z", 123),
                ("unseen-path|max-z", 123),
                ("trace-vector", 123),
                ("trace-anomaly", 123),
                ("trace-anomaly, one scale", 123)
            ],
            "six digits of normal traces and three abnormal ones"
        );
        assert_eq!(all.len(), METHODS.len() * QUANTILES.len());
    }

    #[test]
    fn one_baseline_finds_the_path_the_other_and_the_detector_the_time_as_well() {
        let counts = |detector: &str| {
            let all = rows(&[detector]);
            let number = |name: &str| all[0].extra[name].as_u64();
            (number("tp"), number("fp"), number("fn"))
        };
        assert_eq!(counts(UNSEEN_PATH), (Some(1), Some(0), Some(2)));
        assert_eq!(counts(MAX_Z), (Some(2), Some(0), Some(1)));
        assert_eq!(counts(TraceVector::NAME), (Some(2), Some(0), Some(1)));
        // The one with a path of its own and the slow one; what else is flagged depends on a network.
        let (n_found, _, n_missed) = counts(TraceAnomaly::NAME);
        assert!(n_found >= Some(2) && n_missed <= Some(1), "{n_found:?} found");
    }

    #[test]
    fn a_quantile_is_a_score_that_was_seen() {
        let scores: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!(QUANTILES.map(|share| quantile(&scores, share)), [990.0, 995.0, 998.0, 999.0]);
        assert!(quantile(&[], 0.99).is_nan());
    }
}
