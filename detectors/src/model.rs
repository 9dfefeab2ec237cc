//! A fitted and calibrated detector, and the artifact it is kept as.

use faultline_core::{Detector, Overdue, Window};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    alerting::Scored,
    calibrate::Calibration,
    drift::Shift,
    error::Error,
    registry::{Entry, entry},
    surprise,
};

/// A fitted model that is kept: everything that is needed to score with it again, and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Layout of this artifact.
    pub format: u32,
    /// Name in the registry.
    pub algorithm: String,
    /// The complete configuration it was fitted with.
    pub config: Value,
    /// Version of the model.
    pub version: u64,
    /// The parser state whose template ids it knows.
    pub parser_snapshot_id: String,
    /// Where its training and calibration data came from.
    pub provenance: Provenance,
    /// What its scores look like on normal windows; of no scores for a detector that calibrates itself.
    pub calibration: Calibration,
    /// Its weights, as its detector writes them.
    #[serde(with = "base64_bytes")]
    pub snapshot: Vec<u8>,
}

/// Where a model came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Seed of the fit.
    pub seed: u64,
    /// Windows it was fitted on.
    pub n_training: u64,
    /// Windows it was calibrated on.
    pub n_calibration: u64,
    /// Event time of the first and of the last record, point or span of either.
    pub start_unix_nano: i64,
    /// See `start_unix_nano`.
    pub end_unix_nano: i64,
}

/// A detector in service: the fitted model, its calibration and where it came from.
pub struct Model {
    entry: &'static Entry,
    config: Value,
    detector: Box<dyn Detector>,
    version: u64,
    calibration: Calibration,
    provenance: Provenance,
    sidelined: Option<String>,
    n_scored: u64,
    raw: Vec<Option<faultline_core::Score>>,
}

const FORMAT: u32 = 1;

impl Model {
    /// Fits on `training` and calibrates on `calibration`, both in time order and without a session in common.
    /// Up to `contamination` of the calibration may be abnormal. A detector that calibrates itself only scores it, and needs
    /// neither.
    ///
    /// # Errors
    /// When the detector refuses its configuration or the training data, or returns a non-finite score.
    pub fn fit(
        entry: &'static Entry,
        config: &Value,
        training: &[Window<'_>],
        calibration: &[Window<'_>],
        contamination: f64,
        seed: u64,
    ) -> Result<Self, Error> {
        let wrap = |cause| Error::Detector { name: entry.name.to_owned(), cause };
        let config = entry.complete_config(config).map_err(wrap)?;
        let mut detector = entry.fit(&config, training, seed).map_err(wrap)?;
        let mut raw = Vec::with_capacity(calibration.len());
        detector.score(calibration, &mut raw);
        let scores: Vec<f64> = raw.iter().flatten().map(|score| score.value).collect();
        if let Some(odd) = scores.iter().find(|score| !score.is_finite()) {
            let reason = format!("a calibration window scored {odd}");
            let cause = faultline_core::DetectorError::Fit { detector: entry.name.to_owned(), reason };
            return Err(wrap(cause));
        }
        let spans = || training.iter().chain(calibration).filter_map(span_of);
        let provenance = Provenance {
            seed,
            n_training: training.len() as u64,
            n_calibration: calibration.len() as u64,
            start_unix_nano: spans().map(|span| span.0).min().unwrap_or(0),
            end_unix_nano: spans().map(|span| span.1).max().unwrap_or(0),
        };
        let calibrating: &[f64] = if entry.is_self_calibrated { &[] } else { scores.as_slice() };
        Ok(Self {
            entry,
            config,
            version: detector.version(),
            detector,
            calibration: Calibration::robust(calibrating, contamination, entry.is_surprise),
            provenance,
            sidelined: None,
            n_scored: 0,
            raw: Vec::new(),
        })
    }

    /// Loads what [`Self::artifact`] made.
    ///
    /// # Errors
    /// When the detector is unknown, refuses the configuration or the snapshot, or is not of the version that the artifact
    /// names.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Artifact { algorithm: artifact.algorithm.clone(), reason };
        if artifact.format != FORMAT {
            return Err(refuse(format!("format {} is not {FORMAT}", artifact.format)));
        }
        let wrap = |cause| Error::Detector { name: artifact.algorithm.clone(), cause };
        let entry = entry(&artifact.algorithm).map_err(wrap)?;
        let config = entry.complete_config(&artifact.config).map_err(wrap)?;
        let detector = entry.load(&config, &artifact.snapshot).map_err(wrap)?;
        if detector.version() != artifact.version {
            return Err(refuse(format!(
                "its snapshot is of version {:016x}, the artifact of {:016x}",
                detector.version(),
                artifact.version
            )));
        }
        Ok(Self {
            entry,
            config,
            version: artifact.version,
            detector,
            calibration: artifact.calibration.clone(),
            provenance: artifact.provenance,
            sidelined: None,
            n_scored: 0,
            raw: Vec::new(),
        })
    }

    /// Everything that is needed to go on with this model elsewhere.
    ///
    /// # Errors
    /// When the detector cannot write its state.
    pub fn artifact(&self, parser_snapshot_id: &str) -> Result<Artifact, Error> {
        let wrap = |cause| Error::Detector { name: self.entry.name.to_owned(), cause };
        Ok(Artifact {
            format: FORMAT,
            algorithm: self.entry.name.to_owned(),
            config: self.config.clone(),
            version: self.version,
            parser_snapshot_id: parser_snapshot_id.to_owned(),
            provenance: self.provenance,
            calibration: self.calibration.clone(),
            snapshot: self.detector.snapshot().map_err(wrap)?,
        })
    }

    /// Name of the detector.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Version of the model, part of every alert id.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The complete configuration.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// What its scores look like on normal windows.
    #[must_use]
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Where it came from.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Windows it has given a score.
    #[must_use]
    pub fn n_scored(&self) -> u64 {
        self.n_scored
    }

    /// Why it scores no more, when it does not.
    #[must_use]
    pub fn sidelined(&self) -> Option<&str> {
        self.sidelined.as_deref()
    }

    pub(crate) fn detector(&self) -> &dyn Detector {
        &*self.detector
    }

    /// Pushes what it says about `windows` (all of the signal it scores).
    pub(crate) fn score(
        &mut self,
        model: usize,
        windows: &[Window<'_>],
        scored: &mut Vec<Scored>,
    ) -> Result<(), String> {
        if self.sidelined.is_some() || windows.is_empty() {
            return Ok(());
        }
        debug_assert!(windows.iter().all(|window| window.signal() == self.entry.signal));
        self.raw.clear();
        self.detector.score(windows, &mut self.raw);
        if self.raw.len() != windows.len() {
            let reason = format!("gave {} scores for {} windows", self.raw.len(), windows.len());
            return Err(self.sidelined.insert(reason).clone());
        }
        for (window, score) in self.raw.iter().enumerate() {
            let Some(score) = *score else { continue };
            if !score.value.is_finite() {
                let key = windows[window].key();
                let reason = format!("scored {} for session {} of stream {}", score.value, key.session, key.stream);
                return Err(self.sidelined.insert(reason).clone());
            }
            let p_value = self.p_value(score.value);
            let (detector, version) = (self.entry.name, self.version);
            scored.push(Scored { window, model, detector, version, score, p_value, p_recent: p_value });
        }
        self.n_scored += self.raw.iter().flatten().count() as u64;
        Ok(())
    }

    /// A person says that `window` is normal; see [`Detector::accept`]. The calibration stays as fitted, the version may change.
    pub(crate) fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        if self.sidelined.is_some() {
            return 0;
        }
        let n_learned = self.detector.accept(window, cut);
        self.version = self.detector.version();
        n_learned
    }

    fn p_value(&self, score: f64) -> f64 {
        if self.entry.is_self_calibrated { surprise::p_value(score) } else { self.calibration.p_value(score) }
    }

    /// Reads a score where recent scores stand. A detector that calibrates itself has followed them.
    pub(crate) fn shift(&self, shift: Shift, scored: &mut Scored) {
        if self.entry.is_self_calibrated {
            return;
        }
        let recent = self.calibration.p_value(shift.undo(scored.score.value));
        scored.p_recent = recent.max(scored.p_value);
    }

    /// What should have happened by this event time and has not, each with its p-value.
    pub(crate) fn advance(&mut self, model: usize, watermark_unix_nano: i64) -> Result<Vec<(Overdue, Scored)>, String> {
        if self.sidelined.is_some() {
            return Ok(Vec::new());
        }
        let overdue = self.detector.advance(watermark_unix_nano);
        let is_odd =
            |overdue: &&Overdue| !overdue.score.value.is_finite() || overdue.score.culprit >= overdue.n_items();
        if let Some(Overdue { key, score, .. }) = overdue.iter().find(is_odd) {
            let reason = format!("scored {} for overdue session {} of stream {}", score.value, key.session, key.stream);
            return Err(self.sidelined.insert(reason).clone());
        }
        let scored = |overdue: Overdue| {
            let (score, p_value) = (overdue.score, self.p_value(overdue.score.value));
            let (detector, version) = (self.entry.name, self.version);
            (overdue, Scored { window: 0, model, detector, version, score, p_value, p_recent: p_value })
        };
        Ok(overdue.into_iter().map(scored).collect())
    }

    pub(crate) fn learn(&mut self, windows: &[Window<'_>]) {
        if self.sidelined.is_none() && !windows.is_empty() {
            self.detector.learn(windows);
        }
    }
}

/// Event time of the first and of the last item of a window; none where it is empty.
fn span_of(window: &Window<'_>) -> Option<(i64, i64)> {
    let Some(log) = window.as_log() else { return Some(window.span_unix_nano()) };
    let times = || log.records.iter().map(|record| record.time_unix_nano);
    Some((times().min()?, times().max()?))
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.entry.name).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Bytes as base64 text.
pub(crate) mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SeriesFixture;

    fn fitted(name: &str) -> Model {
        Model::fit(entry(name).expect("it is listed"), &Value::Null, &[], &[], 0.0, 0).expect("it needs no windows")
    }

    #[test]
    fn a_detector_that_calibrates_itself_is_in_service_without_any_windows() {
        let mut series = SeriesFixture::seasonal("load", 1, 0, 600, 0.0);
        series.points[500] += 100.0;
        let mut model = fitted("profile-forecast");
        assert_eq!((model.calibration().n_scores(), model.provenance().n_training), (0, 0));
        let windows: Vec<Window<'_>> = series.pieces(1).collect();
        let mut scored = Vec::new();
        model.score(0, &windows, &mut scored).expect("scores");
        let is_alert = |scored: &&Scored| scored.p_value <= 0.01;
        let alerts: Vec<usize> = scored.iter().filter(is_alert).map(|scored| scored.window).collect();
        assert_eq!(alerts, [500]);
        assert!(scored.iter().all(|scored| scored.p_value == (-scored.score.value).exp().clamp(1e-300, 1.0)));
        assert_eq!(scored.len(), 600 - 119, "the rest is its warm-up");
    }

    #[test]
    fn it_comes_back_from_its_artifact_and_knows_its_span() {
        let series = SeriesFixture::seasonal("load", 1, 1_000, 600, 0.0);
        let windows: Vec<Window<'_>> = series.pieces(50).collect();
        let profile_forecast = entry("profile-forecast").expect("it is listed");
        let fit = Model::fit(profile_forecast, &Value::Null, &windows[..8], &windows[8..11], 0.0, 0);
        let mut model = fit.expect("there are windows");
        let Provenance { n_training, n_calibration, start_unix_nano, end_unix_nano, .. } = model.provenance();
        assert_eq!((n_training, n_calibration, model.calibration().n_scores()), (8, 3, 0));
        let minutes = (start_unix_nano / SeriesFixture::STEP_NANOS, end_unix_nano / SeriesFixture::STEP_NANOS);
        assert_eq!(minutes, (1_000, 1_549));
        let artifact = model.artifact("none").expect("written");
        let mut again = Model::from_artifact(&artifact).expect("its own");
        let score = |model: &mut Model| {
            let mut scored = Vec::new();
            model.score(0, &windows[11..], &mut scored).expect("scores");
            scored.iter().map(|scored| (scored.score, scored.p_value)).collect::<Vec<_>>()
        };
        assert_eq!(score(&mut model), score(&mut again));
    }
}
