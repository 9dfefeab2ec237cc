//! Online clusters: how far all series of an instance, side by side, are from every state that the instance is often in.
//!
//! Station 7. Gulenko, Schmidt, Acker, Wallschläger, Kao, Liu, "Detecting Anomalous Behavior of Black-Box Services Modeled with
//! Distance-Based Online Clustering", CLOUD 2018, on the cluster features of Zhang, Ramakrishnan, Livny, "BIRCH: An
//! Efficient Data Clustering Method for Very Large Databases", SIGMOD 1996. Rows are scaled by the lowest and highest of each
//! column; a row joins the nearest cluster where its radius then stays within a threshold, or founds one; clusters age
//! (`clusters`).
//!
//! The score is how far beyond the radius of the nearest cluster a row is, in units of the threshold: below 0 is within. Distances
//! are root mean squares over the columns that are known, so the number of columns does not matter. Of a window with
//! several rows the worst counts; the culprit is its column that is farthest off. An instance is silent for its first sixty rows.
//!
//! Cost: 64 distances a row at most. Memory: 512 bytes for each column of an instance and 16 for each cluster, so 13 KiB for 20
//! columns, up to twice that while clusters are founded; `max_instances` at most.
//!
//! When it fails: one column of many hardly moves a distance; seasons and the order of rows mean nothing to it; where columns
//! jitter over their whole range there are no clusters, only one ball.
//!
//! Differences from the paper, of which not all details are public: a flat list of at most 64 clusters instead of a tree; when
//! it is full the threshold grows to the distance of the two nearest clusters, which are joined, as in BIRCH when it rebuilds; a
//! row must also be within two thresholds of its cluster, since a heavy cluster's radius takes no notice of one row; a cluster
//! counts as normal once it holds a two-hundredth of the weight, and what is abnormal enters at a tenth of a row, so that an
//! anomaly that lasts is normal after hundreds of rows, not from its second on. The paper fits on a normal phase and then only
//! predicts; here it goes on, and ageing forgets.

mod clusters;

use faultline_core::{Detector, DetectorError, Evidence, GroupWindow, Score, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::clusters::{Clusters, Judged};
use crate::{
    algorithm::Algorithm,
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Hyperparameters of [`Birch`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Radius of a cluster at most, as a share of the range of the columns. It grows by itself where there are too many clusters.
    pub threshold: f64,
    /// Rows after which what was seen counts a third. Lower it where what is normal changes within days.
    pub memory_rows: u32,
    /// Instances that have clusters; of more, those seen least recently lose theirs. A memory bound.
    pub max_instances: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { threshold: 0.05, memory_rows: 10_000, max_instances: 1000 }
    }
}

/// See the file's documentation.
pub struct Birch;

const MAGIC: &Magic = b"faultline birch1";

/// A fitted model: clusters for each instance.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    instances: Bounded<Instance>,
}

/// One instance.
#[derive(Debug)]
struct Instance {
    step_nanos: i64,
    /// The step after the last row.
    next_step: i64,
    clusters: Clusters,
    /// The value that decided the latest score, by step and column; not in snapshots.
    latest: Option<(i64, Judged)>,
}

impl Algorithm for Birch {
    const NAME: &'static str = "birch";
    const SUMMARY: &'static str = "series of an instance that are, side by side, far from every state it is often in";
    const PAPER: &'static str = "Gulenko et al.: Detecting Anomalous Behavior of Black-Box Services Modeled with \
                                 Distance-Based Online Clustering, CLOUD 2018";
    const SIGNAL: Signal = Signal::Groups;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        let mut model = Model::new(config)?;
        let mut n_values = 0;
        for window in training.iter().filter_map(Window::as_group) {
            n_values += window.values.iter().filter(|value| value.is_finite()).count();
            model.score_group(window);
        }
        if n_values == 0 {
            let reason = "no instance has a value".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        let mut model = Model::new(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        model.decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))?;
        Ok(model)
    }
}

impl Instance {
    fn new(step_nanos: i64, threshold: f64) -> Self {
        Self { step_nanos, next_step: i64::MIN, clusters: Clusters::new(threshold), latest: None }
    }

    /// The score of the worst row; none where none can be judged.
    fn score(&mut self, window: &GroupWindow<'_>, config: &Config) -> Option<Score> {
        let (first, n_columns) = (first_step(window), window.columns.len());
        if window.step_nanos != self.step_nanos || first < self.next_step || !self.clusters.fits(window.columns) {
            *self = Self::new(window.step_nanos, config.threshold);
        }
        self.clusters.widen(window.columns);
        self.next_step = step_at(first, window.n_rows);
        let mut worst: Option<Score> = None;
        for row in 0..window.n_rows {
            let Some(judged) = self.clusters.observe(window.row(row), config.memory_rows) else { continue };
            if worst.is_none_or(|worst| judged.beyond > worst.value) {
                worst = Some(Score { value: judged.beyond, culprit: row * n_columns + judged.column });
                self.latest = Some((step_at(first, row), judged));
            }
        }
        worst
    }
}

fn first_step(window: &GroupWindow<'_>) -> i64 {
    window.start_unix_nano.div_euclid(window.step_nanos.max(1))
}

fn step_at(first: i64, row: usize) -> i64 {
    first.saturating_add(i64::try_from(row).unwrap_or(i64::MAX))
}

impl Model {
    fn new(config: &Config) -> Result<Self, DetectorError> {
        let ranges = Ranges(Birch::NAME);
        ranges.above_zero("threshold", config.threshold)?;
        ranges.within([("memory_rows", config.memory_rows, 100..=100_000_000)])?;
        ranges.within([("max_instances", config.max_instances, 1..=1_000_000)])?;
        Ok(Self { config: config.clone(), version: 0, instances: Bounded::new(config.max_instances) })
    }

    fn score_group(&mut self, window: &GroupWindow<'_>) -> Option<Score> {
        let Self { config, instances, .. } = self;
        instances.touch(window.key, || Instance::new(window.step_nanos, config.threshold)).score(window, config)
    }

    /// Memory that it takes, without keys and names, which it shares with the series station.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let clusters: usize = self.instances.values().map(|instance| instance.clusters.heap_bytes()).sum();
        self.instances.bytes() + clusters
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.number(self.instances.len() as u64);
        for (key, instance) in self.instances.in_order() {
            writer.key(key);
            writer.integer(instance.step_nanos);
            writer.integer(instance.next_step);
            instance.clusters.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        /// An instance has its key and its steps at least.
        const LEAST: usize = 32;
        self.version = reader.number()?;
        for _ in 0..reader.length(LEAST)? {
            let (key, step_nanos, next_step) = (reader.key()?, reader.integer()?, reader.integer()?);
            let clusters = Clusters::read(reader)?;
            let instance = self.instances.touch(&key, || Instance::new(step_nanos, self.config.threshold));
            *instance = Instance { step_nanos, next_step, clusters, latest: None };
        }
        reader.is_empty().then_some(())
    }

    fn evidence(&self, window: &GroupWindow<'_>, score: &Score) -> Evidence {
        let (instance, service, n_columns) = (&window.key.session, &window.key.stream, window.columns.len().max(1));
        let (row, column) = (score.culprit / n_columns, score.culprit % n_columns);
        let (Some(name), Some(&value)) = (window.columns.get(column), window.values.get(score.culprit)) else {
            return Evidence { summary: format!("{instance} of {service} has no such value"), ..Evidence::default() };
        };
        let step = step_at(first_step(window), row);
        let latest = self.instances.get(window.key).and_then(|instance| instance.latest);
        let judged = latest.filter(|(own, judged)| *own == step && judged.column == column).map(|(_, judged)| judged);
        let farthest = match judged {
            Some(judged) => {
                format!("{name} most of all, {value:.4} where {:.4} is usual in the nearest", judged.expected)
            }
            None => format!("{name} most of all, {value:.4}"),
        };
        let summary = format!("{instance} of {service} is in a state unlike its usual ones: {farthest}");
        let known = judged.map(|judged| {
            [
                ("expected", judged.expected),
                ("distance", judged.distance),
                ("radius", judged.radius),
                ("threshold", judged.threshold),
            ]
        });
        let figures = [("value", value), ("beyond", score.value)].into_iter().chain(known.into_iter().flatten());
        let figures = figures.filter(|(_, figure)| figure.is_finite());
        let figures = figures.map(|(name, figure)| (name.to_owned(), figure)).collect();
        Evidence { summary, figures, ..Evidence::default() }
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Birch::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Birch::SIGNAL
    }

    /// How far the worst row is beyond the nearest cluster, in units of the threshold.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_group().and_then(|group| self.score_group(group));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        match window.as_group() {
            Some(group) => self.evidence(group, score),
            None => Evidence { summary: "the window holds no instance".to_owned(), ..Evidence::default() },
        }
    }

    /// Does nothing: what is scored has been learned.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
mod tests;
