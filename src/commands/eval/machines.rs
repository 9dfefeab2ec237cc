//! `smd` and `asd`: all metrics of a machine side by side, fitted on its training part and judged row by row on its test part.
//!
//! Two kinds of row. A detector of groups sees all metrics of a machine together. A detector of single series sees each metric
//! by itself, and the largest of their surprises, −ln p, is the score of the row (`<detector> over metrics`). The training part has
//! no labels, so there is no labelled threshold. The files have no times either: their rows are a minute apart in SMD, five minutes in
//! ASD, as their authors say.
//!
//! Cost: a detector over metrics is fitted once for each metric (152 fits on `smd`), so it runs with the first seed only.

use faultline_core::Signal;
use faultline_datasets::{
    ProtocolInfo, ResultRow, Usage,
    loaders::{Machine, machines as load},
    usage::reset_peak_rss,
};
use faultline_detectors::{Entry, REGISTRY};

use super::{
    Args,
    figures::{self, Case, Figures},
    points::{Contender, Rows, Scored, joint_threshold, raise, replay, surprises},
    sessions::is_wanted,
};

/// The p-value from which on a row is flagged.
const SIGNIFICANCE: f64 = 1e-3;

const MINUTE_NANOS: i64 = 60_000_000_000;

/// Time between the rows of a protocol: SMD as Su et al. (KDD 2019) sampled it, ASD as Li et al. (KDD 2021).
fn step_nanos(protocol: &str) -> i64 {
    if protocol == "asd" { 5 * MINUTE_NANOS } else { MINUTE_NANOS }
}

/// A machine's rows, those of training first.
struct Whole<'a> {
    machine: &'a Machine,
    step_nanos: i64,
    values: Vec<f64>,
    n_train: usize,
}

impl<'a> Whole<'a> {
    fn of(machine: &'a Machine, step_nanos: i64) -> Self {
        let values = [machine.train.as_slice(), machine.test.as_slice()].concat();
        Self { machine, step_nanos, values, n_train: machine.train.len() / machine.n_columns.max(1) }
    }

    fn n_rows(&self) -> usize {
        self.values.len() / self.machine.n_columns.max(1)
    }

    fn case(&self) -> Case<'_> {
        let rows = self.values.chunks_exact(self.machine.n_columns.max(1));
        Case {
            name: &self.machine.name,
            step_nanos: self.step_nanos,
            is_known: rows.map(|row| row.iter().any(|value| !value.is_nan())).collect(),
            truth: &self.machine.anomalous,
            n_train: self.n_train,
        }
    }
}

/// Runs the protocol.
pub fn machines(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let all = load(&files.data)?;
    let all: Vec<Whole<'_>> = all.iter().map(|machine| Whole::of(machine, step_nanos(info.name))).collect();
    for contender in Contender::all(args, Signal::Groups) {
        let together = |machine: &Whole<'_>| {
            let key = [info.name, machine.machine.name.as_str()];
            let rows = Rows::of_machine(key, machine.machine.n_columns, 0, machine.step_nanos, &machine.values);
            contender.judged(&rows, machine.n_train, SIGNIFICANCE)
        };
        judge(info, (&contender, contender.rule(SIGNIFICANCE, "the training part")), &all, &together, report)?;
    }
    let alone = REGISTRY.iter().filter(|entry| entry.signal == Signal::Series && is_wanted(args, entry.name));
    for entry in alone {
        let seed = args.seeds.first().copied().filter(|_| entry.is_seeded);
        let contender = Contender { name: format!("{} over metrics", entry.name), seed, members: vec![entry] };
        let each = |machine: &Whole<'_>| over_metrics(entry, seed.unwrap_or(1), info.name, machine);
        let rule =
            format!("p <= {SIGNIFICANCE} for the largest surprise of all metrics, by calibration on the training part");
        judge(info, (&contender, rule), &all, &each, report)?;
    }
    Ok(())
}

/// What says something about the rows of a machine; none when it cannot be fitted.
type Scorer<'f> = dyn Fn(&Whole<'_>) -> anyhow::Result<Option<Scored>> + 'f;

/// Tells the row of one contender and where its threshold comes from, where it can be fitted on any machine.
fn judge(
    info: &ProtocolInfo,
    (contender, rule): (&Contender, String),
    all: &[Whole<'_>],
    scorer: &Scorer<'_>,
    report: &mut dyn FnMut(ResultRow),
) -> anyhow::Result<()> {
    reset_peak_rss();
    let before = Usage::now();
    let bar = crate::progress::bar(all.len() as u64, &contender.name);
    let (mut judged, mut n_silent, mut n_scored, mut seconds) = (Vec::with_capacity(all.len()), 0, 0, 0.0);
    for machine in all {
        let n_rows = machine.n_rows();
        let scored = scorer(machine)?.unwrap_or_else(|| {
            n_silent += 1;
            Scored::nothing(n_rows)
        });
        if scored.seconds > 0.0 {
            n_scored += n_rows - machine.n_train;
            seconds += scored.seconds;
        }
        judged.push(Figures::of(&machine.case(), &scored));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if n_silent == all.len() {
        eprintln!("{}: cannot be fitted on any machine", contender.name);
        return Ok(());
    }
    let mut row = figures::row(info.name, info.dataset, contender, &judged)
        .with_extra("rule", rule)
        .with_extra("n_silent", n_silent);
    row.records_per_second = (seconds > 0.0).then(|| n_scored as f64 / seconds);
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    report(row);
    Ok(())
}

/// The largest surprise of all metrics, row by row. Metrics that a detector cannot be fitted on are left out.
fn over_metrics(
    entry: &'static Entry,
    seed: u64,
    protocol: &str,
    machine: &Whole<'_>,
) -> anyhow::Result<Option<Scored>> {
    let Whole { machine: Machine { name, n_columns, .. }, step_nanos, values, n_train } = machine;
    let mut joint = Scored::nothing(machine.n_rows());
    let mut n_judged = 0;
    for column in 0..*n_columns {
        let own: Vec<f64> = values.iter().skip(column).step_by(*n_columns).copied().collect();
        let session = format!("{name} metric {column}");
        let rows = Rows::of_series([protocol, &session], 0, *step_nanos, &own);
        let Some(replayed) = replay(entry, seed, &rows, *n_train)? else { continue };
        raise(&mut joint.scores, &surprises(entry, &replayed.scores, *n_train));
        joint.seconds += replayed.seconds;
        n_judged += 1;
    }
    joint.threshold = joint_threshold(entry, &joint.scores[..*n_train], SIGNIFICANCE, n_judged);
    Ok((n_judged > 0).then_some(joint))
}

#[cfg(test)]
mod tests {
    use faultline_datasets::protocol;

    use super::{super::points::tests::args, *};

    /// Two waves side by side with a little noise, the second lifted on five rows from `at` on; and the labels.
    fn part(n: usize, at: Option<usize>) -> (String, String) {
        let (mut rows, mut labels) = (String::new(), String::new());
        let mut noise = 11_u32;
        for idx in 0..n {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let is_lifted = at.is_some_and(|at| (at..at + 5).contains(&idx));
            let wave = (idx as f64 / 60.0 * std::f64::consts::TAU).sin() + f64::from(noise >> 8) / 2f64.powi(24) / 5.0;
            rows += &format!("{wave:.5},{:.5}\n", if is_lifted { 25.0 } else { 0.5 * wave });
            labels += if is_lifted { "1\n" } else { "0\n" };
        }
        (rows, labels)
    }

    #[test]
    fn a_lifted_metric_is_found_by_the_detector_of_each_metric() {
        let folder = tempfile::tempdir().expect("a folder");
        let (train, _) = part(2_500, None);
        let (test, labels) = part(800, Some(600));
        for (name, text) in [("train", train), ("test", test), ("test_label", labels)] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
            std::fs::write(folder.path().join(name).join("machine-1.txt"), text).expect("written");
        }
        let data = folder.path().to_string_lossy();
        let args = args(&["smd", "--detector", "donut", "--seeds", "1,2", "--data", &data]);
        let mut rows = Vec::new();
        machines(&args, protocol("smd").expect("listed"), &mut |row| rows.push(row)).expect("it runs");
        let [row] = rows.as_slice() else { panic!("one seed is enough: {rows:?}") };
        assert_eq!((row.detector.as_str(), row.seed, row.n), ("donut over metrics", Some(1), 800));
        assert!(row.auprc.is_some_and(|area| area > 0.05), "5 of 800 at random are .006: {row:?}");
        assert_eq!(row.extra["labelled_threshold_f1"], serde_json::Value::Null);
        assert!(row.extra["oracle_threshold_kd7_f1"].as_f64().is_some_and(|f1| f1 > 0.1), "{row:?}");
        assert_eq!((row.extra["n_runs"].as_u64(), row.extra["n_silent"].as_u64()), (Some(1), Some(0)));
    }

    #[test]
    fn training_rows_come_first_and_have_no_labels() {
        let machine = Machine {
            name: "m".to_owned(),
            n_columns: 2,
            train: vec![1.0, 2.0, 3.0, 4.0],
            test: vec![f64::NAN, f64::NAN],
            anomalous: vec![true],
        };
        let whole = Whole::of(&machine, step_nanos("asd"));
        let case = whole.case();
        assert_eq!(case.step_nanos, 300_000_000_000);
        assert_eq!((whole.n_rows(), whole.n_train, case.truth), (3, 2, &[true][..]));
        assert_eq!(case.is_known, [true, true, false]);
    }
}
