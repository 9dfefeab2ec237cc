//! The one list of detectors. The command line's help, the configuration schema, the documentation and the contract
//! tests are all made from it.

use faultline_core::{Detector, DetectorError, Signal, Window};
use serde::Serialize;
use serde_json::Value;

use crate::{algorithm::Algorithm, algorithms};

/// Every detector, in the order in which tables show them: the cheap ones first.
pub static REGISTRY: &[Entry] = &[
    Entry::of::<algorithms::new_template::NewTemplate>(),
    Entry::of::<algorithms::length::Length>(),
    Entry::of::<algorithms::severe_incident::SevereIncident>(),
    Entry::of::<algorithms::ngram::Ngram>(),
    Entry::of::<algorithms::count_vector::CountVector>(),
    Entry::of::<algorithms::common_kinds::CommonKinds>(),
    Entry::of::<algorithms::logsed::LogSed>(),
    Entry::of::<algorithms::deeplog::DeepLog>(),
    Entry::of::<algorithms::attention_rnn::AttentionRnn>(),
    Entry::of::<algorithms::ensemble::Ensemble>(),
    Entry::of::<algorithms::robust_z::RobustZ>(),
    Entry::of::<algorithms::moving_average::MovingAverage>(),
    Entry::of::<algorithms::holt_winters::HoltWinters>(),
    Entry::of::<algorithms::heartbeat::Heartbeat>(),
    Entry::of::<algorithms::birch::Birch>(),
    Entry::of::<algorithms::profile_forecast::ProfileForecast>(),
    Entry::of::<algorithms::heavy_tail::HeavyTail>(),
    Entry::of::<algorithms::change_point::ChangePoint>(),
    Entry::of::<algorithms::mahalanobis::Mahalanobis>(),
    Entry::of::<algorithms::donut::Donut>(),
    Entry::of::<algorithms::robust_pca::RobustPca>(),
    Entry::of::<algorithms::trace_vector::TraceVector>(),
    Entry::of::<algorithms::task_insight::TaskInsight>(),
    Entry::of::<algorithms::span_lstm::SpanLstm>(),
    Entry::of::<algorithms::masked_span::MaskedSpan>(),
    Entry::of::<algorithms::service_latency::ServiceLatency>(),
    Entry::of::<algorithms::trace_anomaly::TraceAnomaly>(),
];

/// The entry called `name`.
///
/// # Errors
/// When there is none; the message names the nearest one.
pub fn entry(name: &str) -> Result<&'static Entry, DetectorError> {
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| DetectorError::Config {
        detector: name.to_owned(),
        reason: format!("no such detector{}", did_you_mean(name, REGISTRY.iter().map(|entry| entry.name))),
    })
}

/// An [`Algorithm`] with its types erased.
pub struct Entry {
    /// Name in configuration, labels and tables.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// Authors, title, venue, year.
    pub paper: &'static str,
    /// Which windows it scores.
    pub signal: Signal,
    /// See [`Algorithm::PUBLISHED_THRESHOLD`].
    pub published_threshold: Option<f64>,
    /// See [`Algorithm::IS_DEFAULT`].
    pub is_default: bool,
    /// See [`Algorithm::IS_SEEDED`].
    pub is_seeded: bool,
    /// See [`Algorithm::IS_SURPRISE`].
    pub is_surprise: bool,
    /// See [`Algorithm::IS_SELF_CALIBRATED`].
    pub is_self_calibrated: bool,
    config_schema: fn() -> schemars::Schema,
    default_config: fn() -> Value,
    complete_config: fn(&Value) -> Result<Value, DetectorError>,
    reads_numbers: fn(&Value) -> bool,
    fit: fn(&Value, &[Window<'_>], u64) -> Erased,
    load: fn(&Value, &[u8]) -> Erased,
}

/// A model without its type.
type Erased = Result<Box<dyn Detector>, DetectorError>;

impl Entry {
    /// Erases `A`.
    #[must_use]
    pub const fn of<A: Algorithm>() -> Self {
        Self {
            name: A::NAME,
            summary: A::SUMMARY,
            paper: A::PAPER,
            signal: A::SIGNAL,
            published_threshold: A::PUBLISHED_THRESHOLD,
            is_default: A::IS_DEFAULT,
            is_seeded: A::IS_SEEDED,
            is_surprise: A::IS_SURPRISE,
            is_self_calibrated: A::IS_SELF_CALIBRATED,
            config_schema: || schemars::schema_for!(A::Config),
            default_config: || to_value::<A>(&A::Config::default()),
            complete_config: |config| Ok(to_value::<A>(&typed_config::<A>(config)?)),
            reads_numbers: |config| typed_config::<A>(config).is_ok_and(|config| A::reads_numbers(&config)),
            fit: |config, training, seed| Ok(Box::new(A::fit(&typed_config::<A>(config)?, training, seed)?)),
            load: |config, snapshot| Ok(Box::new(A::load(&typed_config::<A>(config)?, snapshot)?)),
        }
    }

    /// JSON schema of the configuration.
    #[must_use]
    pub fn config_schema(&self) -> schemars::Schema {
        (self.config_schema)()
    }

    /// The configuration that a user gets without giving one.
    #[must_use]
    pub fn default_config(&self) -> Value {
        (self.default_config)()
    }

    /// Fits a model. `config` is an object that overrides the defaults key by key, or null.
    ///
    /// # Errors
    /// When the configuration has an unknown key (the nearest one is named) or a value out of range, or when the
    /// windows do not suffice.
    pub fn fit(&self, config: &Value, training: &[Window<'_>], seed: u64) -> Result<Box<dyn Detector>, DetectorError> {
        (self.fit)(config, training, seed)
    }

    /// Loads a model that [`Detector::snapshot`] wrote.
    ///
    /// # Errors
    /// As [`Self::fit`] for the configuration; when the snapshot is damaged or belongs to something else.
    pub fn load(&self, config: &Value, snapshot: &[u8]) -> Result<Box<dyn Detector>, DetectorError> {
        (self.load)(config, snapshot)
    }

    /// Checks a configuration without fitting, and fills in the defaults.
    ///
    /// # Errors
    /// When a key is unknown (the nearest one is named) or a value has the wrong type.
    pub fn complete_config(&self, config: &Value) -> Result<Value, DetectorError> {
        (self.complete_config)(config)
    }

    /// See [`Algorithm::reads_numbers`]; false for a configuration that is refused.
    #[must_use]
    pub fn reads_numbers(&self, config: &Value) -> bool {
        (self.reads_numbers)(config)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The candidate that `text` is most likely a misspelling of; none when nothing is close.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut best_likeness = 0.7;
    for candidate in candidates {
        let likeness = strsim::jaro_winkler(text, candidate);
        if likeness > best_likeness {
            (best, best_likeness) = (Some(candidate), likeness);
        }
    }
    best
}

fn did_you_mean<'a>(text: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(text, candidates.clone()) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => format!("; there are: {}", candidates.collect::<Vec<_>>().join(", ")),
    }
}

fn to_value<A: Algorithm>(config: &impl Serialize) -> Value {
    serde_json::to_value(config)
        .unwrap_or_else(|error| panic!("{} has a configuration that is not JSON: {error}", A::NAME))
}

/// `config` over the defaults. Only top-level keys are merged: a nested value replaces the default as a whole.
fn overlay(detector: &str, defaults: Value, config: &Value) -> Result<Value, DetectorError> {
    let refuse = |reason: String| DetectorError::Config { detector: detector.to_owned(), reason };
    let Value::Object(mut merged) = defaults else {
        return Err(refuse("its default configuration is not an object".to_owned()));
    };
    match config {
        Value::Null => {}
        Value::Object(given) => {
            for (key, value) in given {
                if !merged.contains_key(key) {
                    let known = did_you_mean(key, merged.keys().map(String::as_str));
                    return Err(refuse(format!("unknown key `{key}`{known}")));
                }
                merged.insert(key.clone(), value.clone());
            }
        }
        other => return Err(refuse(format!("expected an object of keys, got `{other}`"))),
    }
    Ok(Value::Object(merged))
}

fn typed_config<A: Algorithm>(config: &Value) -> Result<A::Config, DetectorError> {
    let merged = overlay(A::NAME, to_value::<A>(&A::Config::default()), config)?;
    // Which key has the wrong type is not in serde_json's message for a `Value`, so find it one key at a time.
    serde_json::from_value(merged).map_err(|error| {
        let culprit = config.as_object().into_iter().flatten().find(|(key, value)| {
            let mut alone = to_value::<A>(&A::Config::default());
            alone[key.as_str()] = (*value).clone();
            serde_json::from_value::<A::Config>(alone).is_err()
        });
        let reason = match culprit {
            Some((key, _)) => format!("key `{key}`: {error}"),
            None => error.to_string(),
        };
        DetectorError::Config { detector: A::NAME.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_algorithm_file_has_a_registry_line_and_every_line_a_file() {
        let folder = "src/algorithms";
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder of algorithms")
            .map(|file| file.expect("a folder entry").file_name().into_string().expect("a UTF-8 file name"))
            .filter_map(|file| file.strip_suffix(".rs").map(|stem| stem.replace('_', "-")))
            .filter(|stem| stem != "mod")
            .collect();
        let lines: BTreeSet<String> = REGISTRY.iter().map(|entry| entry.name.to_owned()).collect();
        assert_eq!(files, lines, "left: files in src/algorithms; right: REGISTRY");
        assert_eq!(lines.len(), REGISTRY.len(), "a name is used twice");
    }

    #[test]
    fn an_unknown_detector_or_key_is_refused_with_the_nearest_one() {
        let error = entry("new-tempalte").expect_err("misspelt").to_string();
        assert!(error.contains("did you mean `new-template`?"), "{error}");
        let new_template = entry("new-template").expect("it exists");
        let error = new_template.complete_config(&json!({"min_suport": 2})).expect_err("misspelt").to_string();
        assert!(error.contains("unknown key `min_suport`; did you mean `min_support`?"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key() {
        let new_template = entry("new-template").expect("it exists");
        let Err(error) = new_template.fit(&json!({"min_support": "two"}), &[], 0) else { panic!("not a number") };
        assert!(error.to_string().contains("key `min_support`"), "{error}");
    }

    #[test]
    fn numbers_are_read_only_where_a_configuration_asks_for_them() {
        assert!(REGISTRY.iter().all(|entry| !entry.reads_numbers(&Value::Null)), "they cost memory");
        let reads = |name: &str, config: Value| entry(name).expect("it exists").reads_numbers(&config);
        assert!(reads("deeplog", json!({"parameters": true})));
        assert!(reads("ensemble", json!({"deeplog": {"parameters": true}})));
        assert!(!reads("deeplog", json!({"parameters": "yes"})), "refused elsewhere");
    }

    #[test]
    fn a_given_key_overrides_only_itself() {
        let new_template = entry("new-template").expect("it exists");
        let mut expected = new_template.default_config();
        expected["min_support"] = json!(3);
        assert_eq!(new_template.complete_config(&json!({"min_support": 3})).expect("a known key"), expected);
        assert_eq!(new_template.complete_config(&Value::Null).expect("defaults"), new_template.default_config());
    }
}
