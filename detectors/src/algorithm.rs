//! What an author of a detector writes: one typed value, which the registry erases.

use faultline_core::{Detector, DetectorError, Signal, Window};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

/// A detection algorithm: how to fit a [`Detector`] to windows and how to load one that was fitted before.
///
/// Fitting is the only way to get a model, so there is no unfitted state to check for. `fit` and `load` are
/// deterministic: the same windows, configuration and seed give the same model on the same CPU.
pub trait Algorithm: 'static {
    /// Name in configuration, labels and tables: lower case, words joined by `-`.
    const NAME: &'static str;
    /// One line for `faultline detectors`.
    const SUMMARY: &'static str;
    /// Where it comes from: authors, title, venue, year.
    const PAPER: &'static str;
    /// Which windows it scores.
    const SIGNAL: Signal;
    /// The decision threshold on the raw score that the paper publishes, where it publishes one. Only evaluation uses
    /// it, to reproduce published figures; in service the calibration decides.
    const PUBLISHED_THRESHOLD: Option<f64>;

    /// Whether a score is a surprise in nats: −ln of how often training saw the like. Its calibration then never calls a
    /// score rarer than the detector itself does.
    const IS_SURPRISE: bool = false;

    /// Whether its scores are surprises in nats that need no calibration: the p-value of a window is exp(−score). For a
    /// detector that measures each series against itself ([`crate::surprise`]). It can be fitted on no windows at all.
    const IS_SELF_CALIBRATED: bool = false;

    /// Whether it runs where the configuration does not say which detectors do. Not for one that costs much and adds little
    /// to the others, or that is a member of another.
    const IS_DEFAULT: bool = true;

    /// Whether a fit depends on its seed. An evaluation then runs several.
    const IS_SEEDED: bool = false;

    /// Hyperparameters; the defaults are the paper's.
    type Config: Default + Clone + Serialize + DeserializeOwned + JsonSchema;
    /// The fitted model.
    type Model: Detector;

    /// Whether models of this configuration read [`LogWindow::numbers`](faultline_core::LogWindow::numbers). The
    /// windowing station keeps them only where a detector that runs does.
    fn reads_numbers(_config: &Self::Config) -> bool {
        false
    }

    /// Fits a model to windows that are taken to be mostly normal, in time order.
    ///
    /// # Errors
    /// When the windows are too few or the configuration is out of range.
    fn fit(config: &Self::Config, training: &[Window<'_>], seed: u64) -> Result<Self::Model, DetectorError>;

    /// Loads what [`Detector::snapshot`] wrote.
    ///
    /// # Errors
    /// When the snapshot is damaged or was written by something else.
    fn load(config: &Self::Config, snapshot: &[u8]) -> Result<Self::Model, DetectorError>;
}
