//! `aiops`, `wsd` and `donut`: labelled series, each fitted on its first half and judged on its second.
//!
//! Every series by itself. A detector that warms up by itself is replayed from the first point on, point by point; another is
//! fitted on the first 60 % of the first half (`points`). The threshold is the score of which calibration on the first half says
//! that a normal point reaches it once in 10,000 times; no label is looked at. Detectors that say themselves what is an alert are
//! taken at their word (`verdicts`). `figures` says what is reported beside it.
//!
//! Cost: the series of a set lie in memory, 9 bytes a point (50 MB for `aiops`); one at a time is scored.

use faultline_core::Signal;
use faultline_datasets::{
    ProtocolInfo, ResultRow, Usage,
    loaders::{LabelledSeries, labelled_series},
    usage::reset_peak_rss,
};

use super::{
    Args,
    figures::{self, Case, Figures},
    points::{Contender, Rows, Scored},
};

/// The p-value from which on a point is flagged.
const SIGNIFICANCE: f64 = 1e-4;

/// Runs the protocol.
pub fn series(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let all = labelled_series(&files.data)?;
    for contender in Contender::all(args, Signal::Series) {
        match judge(info, &contender, &all)? {
            Some(row) => report(row),
            None => eprintln!("{}: cannot be fitted on any series", contender.name),
        }
    }
    Ok(())
}

/// The row of one contender; none when there is no series that it can be fitted on.
fn judge(info: &ProtocolInfo, contender: &Contender, all: &[LabelledSeries]) -> anyhow::Result<Option<ResultRow>> {
    reset_peak_rss();
    let before = Usage::now();
    let bar = crate::progress::bar(all.len() as u64, &contender.name);
    let (mut judged, mut n_silent, mut n_scored, mut seconds) = (Vec::with_capacity(all.len()), 0, 0, 0.0);
    for series in all {
        let rows =
            Rows::of_series([info.name, &series.name], series.start_unix_nano, series.step_nanos, &series.values);
        let n_train = rows.len() / 2;
        let scored = contender.judged(&rows, n_train, SIGNIFICANCE)?.unwrap_or_else(|| {
            n_silent += 1;
            Scored::nothing(rows.len())
        });
        if scored.seconds > 0.0 {
            n_scored += rows.len() - n_train;
            seconds += scored.seconds;
        }
        let case = Case {
            name: &series.name,
            step_nanos: series.step_nanos,
            is_known: series.values.iter().map(|value| !value.is_nan()).collect(),
            truth: &series.anomalous,
            n_train,
        };
        judged.push(Figures::of(&case, &scored));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if n_silent == all.len() {
        return Ok(None);
    }
    let mut row = figures::row(info.name, info.dataset, contender, &judged)
        .with_extra("rule", contender.rule(SIGNIFICANCE, "the first half"))
        .with_extra("n_silent", n_silent);
    row.records_per_second = (seconds > 0.0).then(|| n_scored as f64 / seconds);
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    Ok(Some(row))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use faultline_datasets::protocol;

    use super::{super::points::tests::args, *};

    /// Two periods in a wave of 60 points with a little noise, and a spike of two points at each of `spikes`.
    fn table(n: usize, spikes: &[usize]) -> String {
        let mut text = "timestamp,value,label\n".to_owned();
        let mut noise = 7_u32;
        for idx in 0..n {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let is_spike = spikes.iter().any(|at| (*at..*at + 2).contains(&idx));
            let wave = (idx as f64 / 60.0 * std::f64::consts::TAU).sin() + f64::from(noise >> 8) / 2f64.powi(24) / 5.0;
            let value = if is_spike { wave + 25.0 } else { wave };
            let _ = writeln!(text, "{},{value},{}", 1_500_000_000 + 60 * idx, u8::from(is_spike));
        }
        text
    }

    #[test]
    fn planted_spikes_are_found_on_made_up_series() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("kpi.csv"), table(6_000, &[1_200, 2_700, 4_000, 5_500])).expect("written");
        // Too short for donut, and nothing to find in it.
        std::fs::write(folder.path().join("short.csv"), table(200, &[])).expect("written");
        let data = folder.path().to_string_lossy();
        let args = args(&["donut", "--detector", "donut", "--seeds", "1", "--data", &data]);
        let mut rows = Vec::new();
        series(&args, protocol("donut").expect("listed"), &mut |row| rows.push(row)).expect("it runs");
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.detector.as_str(), row.seed, row.n), ("donut", Some(1), 3_100));
        let number = |name: &str| row.extra[name].as_f64().unwrap_or_else(|| panic!("{name}: {:?}", row.extra));
        assert_eq!((number("n_series"), number("n_series_rated"), number("n_silent")), (2.0, 1.0, 1.0));
        assert!(row.auprc.is_some_and(|area| area > 0.3), "4 of 3,000 at random are .001: {row:?}");
        assert!(number("oracle_threshold_f1") >= row.f1.expect("there are spikes"));
        assert!(number("oracle_threshold_kd7_f1") > 0.5 && number("vus_pr") > 0.1, "{row:?}");
        for name in ["kd7_f1", "labelled_threshold_f1", "labelled_threshold_kd7_f1", "pooled_f1"] {
            assert!((0.0..=1.0).contains(&number(name)), "{name}");
        }
        assert_eq!(number("n_runs"), 2.0);
        assert!(number("n_runs_found") <= 2.0 && number("alerts_per_day") >= number("false_alerts_per_day"));
        assert!(row.records_per_second.is_some_and(|rate| rate > 0.0));
    }
}
