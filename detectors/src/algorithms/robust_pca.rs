//! Robust PCA: the metrics of an instance move together; a value that is off the plane they move in is abnormal.
//!
//! Station 7. Jin, Lv, Zhu, Wen, Zhong, Zhao, Zhu, Ren, Wu and Lin, "An anomaly detection algorithm for microservice architecture
//! based on robust principal component analysis", IEEE Access 2020, on the pursuit of Candès et al. (`pcp`). Rows are steps of time, columns the
//! metrics of one instance, each less its median and in units of its interquartile range. The pursuit takes the rows of the
//! warm-up apart, M = L + S: few directions span L, and what failed meanwhile is in S instead of in the directions. Between
//! refits a new row is projected on these directions, as online robust PCA does (Feng, Xu and Yan, NIPS 2013): columns far off the plane are left out of
//! the projection one after the other, so that one failing metric does not tilt it.
//!
//! The score is the distance of the worst column from the plane, in units of how far it usually is; that column is the
//! culprit, as |S| names it in the paper. Of a window with several rows the worst counts.
//!
//! Cost: a product of columns × rank for each row and each column left out; a pursuit every `refit_rows` rows that an instance has
//! brought (2 s for 2,000 × 500, 10 ms for 1,000 × 40). Memory: `max_rows` × columns × 4 bytes an instance.
//!
//! When it fails: on failures that move all metrics the way they always move together, as a surge of load does; on metrics
//! that were constant in the warm-up (they are left out); and while an instance has brought fewer than `min_rows` rows.
//!
//! Differs from the paper: its rows are traces of one kind and its columns spans; the same code serves both, but only metrics are
//! wired. The thresholds of its second stage are the calibration's here.

pub mod pcp;
mod plane;

use std::{collections::BTreeMap, sync::Arc};

use faultline_core::{Detector, DetectorError, Evidence, GroupWindow, Score, Signal, Window, WindowKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::plane::Plane;
use crate::{algorithm::Algorithm, snapshot};

/// Hyperparameters of [`RobustPca`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rows of an instance before it is judged.
    pub min_rows: usize,
    /// Rows of an instance that a pursuit works on, the newest.
    pub max_rows: usize,
    /// Rows after which the plane is fitted anew; 0 keeps the first one.
    pub refit_rows: usize,
    /// Metrics of an instance; further ones are not judged. A bound on time and memory.
    pub max_columns: usize,
    /// Instances with a plane; the one that has been silent for longest gives way. A bound on memory.
    pub max_instances: usize,
    /// Weight of the sparse part against the low-rank one: λ. The default is 1/√max(rows, columns).
    pub lambda: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_rows: 256, max_rows: 2000, refit_rows: 1000, max_columns: 256, max_instances: 1000, lambda: None }
    }
}

/// See the file's documentation.
pub struct RobustPca;

/// A fitted model.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// By stream and session.
    instances: BTreeMap<String, Instance>,
    /// Rows seen, a clock for who has been silent.
    n_rows: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Instance {
    columns: Vec<String>,
    /// The newest rows, each as long as `columns` was when it came.
    rows: Vec<Row>,
    /// Rows since the plane was fitted.
    n_since: usize,
    plane: Option<Plane>,
    /// [`State::n_rows`] when it was last seen.
    seen: u64,
}

/// Values as their bits in a snapshot, because JSON has no gaps (NaN).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
struct Row(Vec<f32>);

impl From<Vec<u32>> for Row {
    fn from(bits: Vec<u32>) -> Self {
        Self(bits.into_iter().map(f32::from_bits).collect())
    }
}

impl From<Row> for Vec<u32> {
    fn from(row: Row) -> Self {
        row.0.into_iter().map(f32::to_bits).collect()
    }
}

impl Algorithm for RobustPca {
    const NAME: &'static str = "robust-pca";
    const SUMMARY: &'static str =
        "metrics of an instance that leave the plane they move in together; robust to failures in the warm-up";
    const PAPER: &'static str = "Jin et al., An anomaly detection algorithm for microservice architecture based on robust principal \
                                 component analysis, IEEE Access 2020";
    const SIGNAL: Signal = Signal::Groups;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let mut state = State::default();
        for group in training.iter().filter_map(Window::as_group) {
            state.learn(config, group);
        }
        for instance in state.instances.values_mut() {
            instance.fit(config);
        }
        let version = snapshot::version_of(Self::NAME, &state)?;
        Ok(Model { config: config.clone(), version, state })
    }

    fn load(config: &Config, bytes: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let (version, state): (u64, State) = snapshot::decode(Self::NAME, bytes)?;
        let is_sound = |instance: &Instance| {
            let n = instance.columns.len();
            n <= config.max_columns
                && instance.rows.iter().all(|row| row.0.len() <= n)
                && instance.plane.as_ref().is_none_or(|plane| plane.is_sound(n))
        };
        if state.instances.len() > config.max_instances || !state.instances.values().all(is_sound) {
            let reason = "an instance does not fit the configuration or itself".to_owned();
            return Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason });
        }
        Ok(Model { config: config.clone(), version, state })
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let is_lambda = config.lambda.is_none_or(|lambda| lambda > 0.0 && lambda.is_finite());
    let reason = if config.min_rows < 16 || config.min_rows > config.max_rows {
        format!("key `min_rows` must be from 16 to `max_rows` ({}), got {}", config.max_rows, config.min_rows)
    } else if !is_lambda {
        "key `lambda` must be above 0".to_owned()
    } else {
        let sizes = [
            ("max_rows", config.max_rows, 16..=100_000),
            ("max_columns", config.max_columns, 2..=4096),
            ("max_instances", config.max_instances, 1..=1_000_000),
        ];
        let Some((key, value, range)) = sizes.into_iter().find(|(_, value, range)| !range.contains(value)) else {
            return Ok(());
        };
        format!("key `{key}` must be from {} to {}, got {value}", range.start(), range.end())
    };
    Err(DetectorError::Config { detector: RobustPca::NAME.to_owned(), reason })
}

fn name_of(key: &WindowKey) -> String {
    format!("{}/{}", key.stream, key.session)
}

impl State {
    /// Takes the rows of a window for the next fit.
    fn learn(&mut self, config: &Config, group: &GroupWindow<'_>) {
        self.n_rows += group.n_rows as u64;
        let name = name_of(group.key);
        if !self.instances.contains_key(&name) && self.instances.len() >= config.max_instances {
            let quietest =
                self.instances.iter().min_by_key(|(_, instance)| instance.seen).map(|(name, _)| name.clone());
            quietest.map(|name| self.instances.remove(&name));
        }
        let instance = self.instances.entry(name).or_default();
        instance.seen = self.n_rows;
        instance.take(config, group);
    }
}

impl Instance {
    fn take(&mut self, config: &Config, group: &GroupWindow<'_>) {
        let n_columns = group.columns.len().min(config.max_columns);
        let n_known = self.columns.len();
        self.columns.extend(group.columns[n_known.min(n_columns)..n_columns].iter().map(|name| String::from(&**name)));
        for idx in 0..group.n_rows {
            let row = group.row(idx);
            self.rows.push(Row(row.iter().take(n_columns).map(|value| *value as f32).collect()));
            self.n_since += 1;
        }
        let n_over = self.rows.len().saturating_sub(config.max_rows);
        self.rows.drain(..n_over);
    }

    /// Fits a plane where there are enough rows.
    fn fit(&mut self, config: &Config) {
        if self.rows.len() >= config.min_rows {
            let plane = Plane::fit(&self.rows, self.columns.len(), config.lambda);
            self.plane = plane.or(self.plane.take());
            self.n_since = 0;
        }
    }

    fn is_due(&self, config: &Config) -> bool {
        match self.plane {
            None => self.rows.len() >= config.min_rows && self.n_since >= config.min_rows,
            Some(_) => config.refit_rows > 0 && self.n_since >= config.refit_rows,
        }
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        RobustPca::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        RobustPca::SIGNAL
    }

    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let score = |window: &Window<'_>| {
            let group = window.as_group()?;
            let plane = self.state.instances.get(&name_of(group.key))?.plane.as_ref()?;
            let n_columns = group.columns.len();
            let worst = |idx: usize| {
                let worst = plane.judge(group.row(idx))?;
                Some(Score { value: worst.distance, culprit: idx * n_columns + worst.column })
            };
            (0..group.n_rows).filter_map(worst).max_by(|a, b| a.value.total_cmp(&b.value))
        };
        scores.extend(windows.iter().map(score));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some(group) = window.as_group() else { return Evidence::default() };
        let n_columns = group.columns.len().max(1);
        let (row, column) = (score.culprit / n_columns, score.culprit % n_columns);
        let name = group.columns.get(column).map_or("a metric", |name: &Arc<str>| &**name);
        let plane = self.state.instances.get(&name_of(group.key)).and_then(|instance| instance.plane.as_ref());
        let worst = plane.and_then(|plane| plane.judge(group.row(row)));
        let Some(worst) = worst else { return Evidence::default() };
        let figures = [
            ("value", worst.value),
            ("expected", worst.expected),
            ("distance", worst.distance),
            ("rank", plane.map_or(0.0, |plane| plane.rank() as f64)),
        ];
        Evidence {
            summary: format!(
                "{name} was {:.4} where the other {} metrics of {} make {:.4} likely, {:.1} times as far off as usual",
                worst.value,
                n_columns - 1,
                group.key.session,
                worst.expected,
                worst.distance
            ),
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Evidence::default()
        }
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        for group in windows.iter().filter_map(Window::as_group) {
            self.state.learn(&self.config, group);
            if let Some(instance) = self.state.instances.get_mut(&name_of(group.key))
                && instance.is_due(&self.config)
            {
                instance.fit(&self.config);
            }
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(RobustPca::NAME, &(self.version, &self.state))
    }
}

#[cfg(test)]
mod tests;
