//! Configuration: one YAML or TOML file, `${env:NAME:-default}` inside it, `FAULTLINE_SECTION__KEY` and `--set` over it.
//!
//! Everything is merged as plain JSON values first and checked against the schema derived from [`Config`], so that an
//! unknown key is named together with its nearest neighbour wherever it came from. Any error here exits with 78.

use std::{collections::BTreeMap, fmt, path::Path};

use faultline_detectors::{
    SeriesConfig, ServiceConfig, TelemetryConfig, TraceConfig, alerting::AlertConfig, lifecycle::MonitorConfig,
    windowing::WindowConfig,
};
use faultline_ingest::{FilesConfig, OtlpConfig};
use faultline_parsers::ParserConfig;
use faultline_rca::RcaConfig;
use faultline_store::StoreConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The whole configuration. Every key has a default; an empty file is valid.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Line format, masks, session key and windowing of a known system, such as `hdfs`, `bgl`, `openstack` or `hadoop`; keys
    /// that are given win over it. Default none.
    pub preset: Option<String>,
    /// Where telemetry comes in.
    pub ingest: Ingest,
    /// How log lines become templates, parameters and session keys.
    pub parser: ParserConfig,
    /// How records become windows.
    pub windowing: WindowConfig,
    /// How metrics, and spans as rate, errors and durations, become series.
    pub series: SeriesConfig,
    /// How spans become traces.
    pub traces: TraceConfig,
    /// How traces become what services did within a step.
    pub services: ServiceConfig,
    /// Which detectors run and how they are fitted.
    pub detection: MonitorConfig,
    /// When a score becomes an alert.
    pub alerting: AlertConfig,
    /// When alerts become one incident.
    pub rca: RcaConfig,
    /// Where records, alerts and incidents are kept.
    pub storage: StoreConfig,
    /// The REST interface.
    pub api: Api,
}

/// Where telemetry comes in.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ingest {
    /// The OTLP receivers, gRPC and HTTP.
    pub otlp: OtlpConfig,
    /// How files are read by `replay` and `fit`.
    pub files: FilesConfig,
    /// What an acknowledgement to a sender promises.
    pub journal: Journal,
}

/// What an acknowledgement to a sender promises.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// `memory`: acknowledged once the batch is in the pipeline; a crash loses what has not reached a segment.
    pub durability: Durability,
}

/// See [`Journal::durability`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In the pipeline's memory.
    #[default]
    Memory,
}

/// The REST interface.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Address to listen on, `host:port`; port 0 picks a free one. Default `127.0.0.1:4319`. Change it to let others
    /// in: faultline warns when it is not a loopback address, because there is no authentication yet.
    pub endpoint: String,
}

impl Default for Api {
    fn default() -> Self {
        Self { endpoint: "127.0.0.1:4319".into() }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The file is not YAML or TOML.
    #[error("configuration file {path} does not parse: {reason}")]
    Syntax {
        /// Its path.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown configuration key `{key}`{}", Nearest(.nearest))]
    UnknownKey {
        /// Where it was given.
        origin: String,
        /// Its dotted path.
        key: String,
        /// The existing key most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or out of range.
    #[error("configuration key `{key}`: {reason}")]
    Value {
        /// Its dotted path.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// `${env:NAME}` without a default where NAME is not set.
    #[error("configuration key `{key}`: environment variable {name} is not set and has no default")]
    Environment {
        /// The dotted path of the key that uses it.
        key: String,
        /// The variable.
        name: String,
    },
    /// `--set` without `=`.
    #[error("--set {0}: expected key=value")]
    Set(String),
}

struct Nearest<'a>(&'a Option<String>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, "; did you mean `{key}`?"),
            None => Ok(()),
        }
    }
}

/// A value on its way into the configuration, with where it came from.
struct Layer {
    origin: String,
    value: Value,
}

impl Config {
    /// Reads the file (if any), then the environment, then the `key=value` settings; later ones win.
    ///
    /// # Errors
    /// Names the file, key or variable that is wrong.
    pub fn load(
        file: Option<&Path>,
        environment: &BTreeMap<String, String>,
        settings: &[String],
    ) -> Result<Self, ConfigError> {
        let mut layers = Vec::new();
        if let Some(path) = file {
            let mut value = parse_file(path)?;
            substitute(&mut value, "", environment)?;
            layers.push(Layer { origin: path.display().to_string(), value });
        }
        for (name, text) in environment {
            if let Some(path) = name.strip_prefix("FAULTLINE_").filter(|path| path.contains("__")) {
                let key = path.split("__").map(str::to_lowercase).collect::<Vec<_>>().join(".");
                layers.push(Layer { origin: format!("environment variable {name}"), value: nest(&key, scalar(text)) });
            }
        }
        for setting in settings {
            let (key, text) = setting.split_once('=').ok_or_else(|| ConfigError::Set(setting.clone()))?;
            layers.push(Layer { origin: format!("--set {setting}"), value: nest(key.trim(), scalar(text)) });
        }
        Self::from_layers(layers)
    }

    fn from_layers(layers: Vec<Layer>) -> Result<Self, ConfigError> {
        let schema = schemars::schema_for!(Config).to_value();
        let mut given = Value::Object(serde_json::Map::new());
        for layer in layers {
            check_keys(&layer, &schema)?;
            merge(&mut given, layer.value);
        }
        // A preset lies below everything that is given, wherever its name was given.
        let mut merged = match given.get("preset").and_then(Value::as_str) {
            Some(name) => preset(name)?,
            None => Value::Object(serde_json::Map::new()),
        };
        merge(&mut merged, given);
        serde_path_to_error::deserialize(merged).map_err(|error| ConfigError::Value {
            key: error.path().to_string(),
            reason: error.into_inner().to_string(),
        })
    }
}

impl Config {
    /// The configuration of station 6 for metrics and spans.
    pub fn telemetry(&self) -> TelemetryConfig {
        let (series, traces, services) = (self.series.clone(), self.traces.clone(), self.services.clone());
        TelemetryConfig { series, traces, services }
    }

    /// The configuration of stations 7 and 8, which share one object.
    pub fn monitor(&self) -> MonitorConfig {
        MonitorConfig { alerting: self.alerting.clone(), ..self.detection.clone() }
    }
}

/// The keys that the preset `name` sets.
fn preset(name: &str) -> Result<Value, ConfigError> {
    let wrong = |reason: String| ConfigError::Value { key: "preset".into(), reason };
    let parser = ParserConfig::preset(name).map_err(|error| wrong(error.to_string()))?;
    let parser = serde_json::to_value(parser).map_err(|error| wrong(error.to_string()))?;
    // Lines of a file are in the order in which they were written.
    let mut windowing = json!({"stream": name, "allowed_lateness_ms": 0});
    if let Some((_, gap_ms)) = SESSION_GAPS_MS.iter().find(|(preset, _)| *preset == name) {
        windowing["session_gap_ms"] = json!(gap_ms);
    }
    if name == "bgl" {
        // A node's lines never end: windows of twenty, as in the published protocols.
        windowing["max_records_per_session"] = json!(30);
        windowing["context_records"] = json!(10);
    }
    // This log holds failed blocks from its first hour on, one in thirty or so.
    let detection = if name == "hdfs" { json!({"contamination": 0.05}) } else { json!({}) };
    Ok(json!({"parser": parser, "windowing": windowing, "detection": detection}))
}

/// How long sessions of known systems pause without being over: an HDFS block is written in seconds and deleted hours
/// later, which is a session of its own.
const SESSION_GAPS_MS: &[(&str, u64)] = &[("hdfs", 3_600_000), ("hadoop", 3_600_000), ("openstack", 600_000)];

/// The process environment, as [`Config::load`] takes it.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))).collect()
}

fn parse_file(path: &Path) -> Result<Value, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: shown.clone(), cause })?;
    let syntax = |reason: String| ConfigError::Syntax { path: shown.clone(), reason };
    let value: Value = if path.extension().is_some_and(|extension| extension == "toml") {
        toml::from_str(&text).map_err(|error| syntax(error.to_string()))?
    } else {
        serde_yaml_ng::from_str(&text).map_err(|error| syntax(error.to_string()))?
    };
    match value {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        Value::Object(_) => Ok(value),
        _ => Err(syntax("expected a mapping at the top level".into())),
    }
}

/// Replaces `${env:NAME}` and `${env:NAME:-default}` in scalars. A scalar that is nothing but one substitution takes
/// the type its text has in YAML, so a port stays a number.
fn substitute(value: &mut Value, key: &str, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                substitute(field, &key, environment)?;
            }
        }
        Value::Array(items) => {
            for (idx, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{key}[{idx}]"), environment)?;
            }
        }
        Value::String(text) if text.contains("${env:") => {
            let whole = text.starts_with("${env:") && text.find('}') == Some(text.len() - 1);
            let filled = fill(text, key, environment)?;
            *value = if whole { scalar(&filled) } else { Value::String(filled) };
        }
        _ => {}
    }
    Ok(())
}

fn fill(text: &str, key: &str, environment: &BTreeMap<String, String>) -> Result<String, ConfigError> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${env:") {
        let Some(length) = rest[start..].find('}') else { break };
        filled.push_str(&rest[..start]);
        let inner = &rest[start + "${env:".len()..start + length];
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        match environment.get(name).map(String::as_str).or(default) {
            Some(found) => filled.push_str(found),
            None => return Err(ConfigError::Environment { key: key.into(), name: name.into() }),
        }
        rest = &rest[start + length + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn scalar(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|_| Value::String(text.into()))
}

fn nest(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, name| {
        let mut fields = serde_json::Map::new();
        fields.insert(name.to_owned(), inner);
        Value::Object(fields)
    })
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Refuses keys that the schema does not have.
fn check_keys(layer: &Layer, schema: &Value) -> Result<(), ConfigError> {
    let known = known_keys(schema, schema, "", 0);
    visit(&layer.value, schema, schema, "", &mut |key| {
        let nearest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(candidate, key), candidate))
            .min()
            .filter(|(distance, candidate)| *distance <= candidate.len().max(key.len()).div_ceil(2))
            .map(|(_, candidate)| candidate.clone());
        ConfigError::UnknownKey { origin: layer.origin.clone(), key: key.into(), nearest }
    })
}

fn visit(
    value: &Value,
    schema: &Value,
    root: &Value,
    path: &str,
    unknown: &mut impl FnMut(&str) -> ConfigError,
) -> Result<(), ConfigError> {
    let Value::Object(fields) = value else { return Ok(()) };
    let schema = resolve(schema, root);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, field) in fields {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match properties.get(name) {
            Some(property) => visit(field, property, root, &key, unknown)?,
            None if closed => return Err(unknown(&key)),
            None => {}
        }
    }
    Ok(())
}

/// Every dotted key of the schema, with its description and default, in schema order.
pub fn reference() -> Vec<(String, String, String)> {
    let root = schemars::schema_for!(Config).to_value();
    let defaults = serde_json::to_value(Config::default()).expect("the configuration is plain data");
    let mut rows = Vec::new();
    collect_reference(&root, &root, &defaults, "", &mut rows);
    rows
}

fn collect_reference(
    schema: &Value,
    root: &Value,
    defaults: &Value,
    path: &str,
    rows: &mut Vec<(String, String, String)>,
) {
    let Some(properties) = resolve(schema, root).get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = defaults.get(name).unwrap_or(&Value::Null);
        if resolve(property, root).get("properties").is_some() && default.is_object() {
            collect_reference(property, root, default, &key, rows);
        } else {
            let text = property.get("description").or_else(|| resolve(property, root).get("description"));
            let text =
                text.and_then(Value::as_str).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            rows.push((key, text, default.to_string()));
        }
    }
}

fn known_keys(schema: &Value, root: &Value, path: &str, depth: usize) -> Vec<String> {
    let mut keys = Vec::new();
    let properties = resolve(schema, root).get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten().filter(|_| depth < 8) {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        keys.extend(known_keys(property, root, &key, depth + 1));
        keys.push(key);
    }
    keys
}

/// Follows `$ref` and the single branch of `anyOf`/`allOf` that has properties.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        return target.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).map_or(schema, |s| resolve(s, root));
    }
    for keyword in ["allOf", "anyOf"] {
        for branch in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
            let branch = resolve(branch, root);
            if branch.get("properties").is_some() {
                return branch;
            }
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)], settings: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("faultline.yaml");
        std::fs::write(&path, text).expect("writable");
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        Config::load(Some(&path), &environment, &settings)
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = load("", &[], &[]).expect("valid");
        assert_eq!(config.api.endpoint, "127.0.0.1:4319");
    }

    #[test]
    fn a_preset_lies_below_what_is_given() {
        let config = load("windowing:\n  session_gap_ms: 5\n", &[], &["preset=hdfs"]).expect("valid");
        assert_eq!(config.windowing.session_gap_ms, 5);
        assert_eq!((config.windowing.stream.as_str(), config.windowing.allowed_lateness_ms), ("hdfs", 0));
        assert!(config.parser.line_format.is_some());
        let error = load("preset: hfds\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("key `preset`") && error.contains("did you mean `hdfs`"), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_nearest_neighbour() {
        let error = load("api:\n  endpont: 127.0.0.1:1\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("`api.endpont`") && error.contains("did you mean `api.endpoint`?"), "{error}");
        let error = load("", &[], &["ingest.otlp.grcp.endpoint=x"]).unwrap_err().to_string();
        assert!(error.contains("--set") && error.contains("`ingest.otlp.grpc"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        let error = load("ingest:\n  journal:\n    durability: sometimes\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("`ingest.journal.durability`"), "{error}");
    }

    #[test]
    fn later_layers_win_file_then_environment_then_settings() {
        let text = "api:\n  endpoint: a:1\n";
        let env = [("FAULTLINE_API__ENDPOINT", "b:2")];
        assert_eq!(load(text, &[], &[]).expect("valid").api.endpoint, "a:1");
        assert_eq!(load(text, &env, &[]).expect("valid").api.endpoint, "b:2");
        assert_eq!(load(text, &env, &["api.endpoint=c:3"]).expect("valid").api.endpoint, "c:3");
    }

    #[test]
    fn environment_variables_fill_scalars_or_their_default_does() {
        let text = "api:\n  endpoint: ${env:HOST:-127.0.0.1}:${env:PORT}\n";
        let config = load(text, &[("PORT", "99")], &[]).expect("valid");
        assert_eq!(config.api.endpoint, "127.0.0.1:99");
        let error = load(text, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("PORT") && error.contains("api.endpoint"), "{error}");
    }

    #[test]
    fn every_key_of_the_reference_says_what_it_does() {
        for (key, text, _) in reference() {
            assert!(text.len() > 10, "configuration key {key} is undocumented");
        }
    }
}
