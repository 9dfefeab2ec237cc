//! The configuration of the series station.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How points and spans become series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesConfig {
    /// Stream of the series that belong to no service, as alerts show it. Default `metrics`.
    pub stream: String,
    /// Milliseconds of a step, the same for every series. Default none: each series' step is found from its first points.
    pub step_ms: Option<u64>,
    /// The least step that is found, in milliseconds. Raise it to watch fast series more coarsely. Default 1000.
    pub min_step_ms: u64,
    /// Milliseconds by which a point may be overtaken by later ones of its series. Raise it when a pipeline mixes up their
    /// order; every step then waits for the next point. Default 0: points of one batch may come in any order.
    pub allowed_lateness_ms: u64,
    /// Steps without a point that are filled with gaps; after a longer silence a series begins anew. Default 60.
    pub max_gap_steps: u32,
    /// Series at a time, a memory bound; further ones are refused. A histogram has two and one for each quantile.
    /// Default 100000.
    pub max_series: usize,
    /// Bytes of a metric's name with its attributes that are kept. Default 256.
    pub max_label_bytes: usize,
    /// Quantiles of histograms and durations, at most 8. Default `[0.5, 0.99]`.
    pub quantiles: Vec<f64>,
    /// Whether the series of each instance are shown side by side, too. Default true.
    pub groups: bool,
    /// Series of an instance that are side by side. Default 128.
    pub max_columns: usize,
    /// Whether spans become series. Default true.
    pub red: bool,
    /// Milliseconds of a step of the series that spans become. Default 30000.
    pub red_step_ms: u64,
    /// Milliseconds by which a span may come after later ones of its service. Default 10000, which suits exporters that send
    /// every five seconds.
    pub red_lateness_ms: u64,
    /// As `red_lateness_ms`, for calls between services, which are known when their trace is. Default 30000.
    pub call_lateness_ms: u64,
    /// Operations of a service that are told apart; further ones count as one operation `*`. Default 500.
    pub max_operations: usize,
    /// Milliseconds of event time after which a silent series is dropped. Default 21600000, six hours.
    pub retire_after_ms: u64,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        Self {
            stream: "metrics".to_owned(),
            step_ms: None,
            min_step_ms: 1_000,
            allowed_lateness_ms: 0,
            max_gap_steps: 60,
            max_series: 100_000,
            max_label_bytes: 256,
            quantiles: vec![0.5, 0.99],
            groups: true,
            max_columns: 128,
            red: true,
            red_step_ms: 30_000,
            red_lateness_ms: 10_000,
            call_lateness_ms: 30_000,
            max_operations: 500,
            retire_after_ms: 6 * 3600 * 1000,
        }
    }
}

impl SeriesConfig {
    /// Whether everything is within its range.
    pub(super) fn check(&self) -> Result<(), Error> {
        const DAY_MS: u64 = 86_400_000;
        let refuse = |key, reason: &str| Err(Error::Config { key, reason: reason.to_owned() });
        if self.step_ms.is_some_and(|step| !(1..=DAY_MS).contains(&step)) {
            return refuse("step_ms", "must be between 1 and 86400000");
        }
        if !(1..=DAY_MS).contains(&self.min_step_ms) {
            return refuse("min_step_ms", "must be between 1 and 86400000");
        }
        if !(1..=DAY_MS).contains(&self.red_step_ms) {
            return refuse("red_step_ms", "must be between 1 and 86400000");
        }
        if self.max_series == 0 || self.max_series > u32::MAX as usize / 8 {
            return refuse("max_series", "must be between 1 and 536870911");
        }
        if self.max_label_bytes < 32 {
            return refuse("max_label_bytes", "must be at least 32");
        }
        if self.quantiles.len() > 8 || !self.quantiles.iter().all(|quantile| (0.0..=1.0).contains(quantile)) {
            return refuse("quantiles", "must be at most 8 numbers between 0 and 1");
        }
        if self.groups && self.max_columns == 0 {
            return refuse("max_columns", "must be at least 1; to have no groups, set `groups` to false");
        }
        if self.max_operations == 0 {
            return refuse("max_operations", "must be at least 1; to have no series from spans, set `red` to false");
        }
        if self.retire_after_ms == 0 {
            return refuse("retire_after_ms", "must be at least 1");
        }
        Ok(())
    }
}
