//! The list of localizers, and what it takes to be on it.

use std::collections::BTreeMap;

use faultline_core::{Classified, Domain, Localizer};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{alert_count::AlertCount, self_time::SelfTime};

/// Every localizer, in order of trust: the first that has an answer leads.
///
/// `self-time` looks at what the services did; `alert-count` only at who complained, so it comes last and answers when
/// there are no spans.
pub static LOCALIZERS: &[LocalizerEntry] = &[LocalizerEntry::of::<SelfTime>(), LocalizerEntry::of::<AlertCount>()];

/// What an author of a localizer writes beside [`Localizer`].
pub trait LocalizerKind: Localizer + Sized + 'static {
    /// Name in configuration and in [`faultline_core::Cause::localizer`]: lower case, words joined by `-`.
    const NAME: &'static str;
    /// One line for the command line and the docs.
    const SUMMARY: &'static str;
    /// Where it comes from: authors, title, venue, year.
    const PAPER: &'static str;
    /// Its options.
    type Config: Default + Serialize + DeserializeOwned + JsonSchema;

    /// A localizer that has seen nothing yet.
    fn new(config: Self::Config) -> Self;
}

/// A localizer with its type erased.
pub struct LocalizerEntry {
    /// See [`LocalizerKind::NAME`].
    pub name: &'static str,
    /// See [`LocalizerKind::SUMMARY`].
    pub summary: &'static str,
    /// See [`LocalizerKind::PAPER`].
    pub paper: &'static str,
    /// JSON schema of its options.
    pub schema: fn() -> schemars::Schema,
    /// Its options' defaults, as JSON.
    pub defaults: fn() -> Value,
    build: fn(Value) -> Result<Box<dyn Localizer>, serde_json::Error>,
}

impl LocalizerEntry {
    const fn of<L: LocalizerKind>() -> Self {
        Self {
            name: L::NAME,
            summary: L::SUMMARY,
            paper: L::PAPER,
            schema: schema::<L>,
            defaults: defaults::<L>,
            build: build::<L>,
        }
    }

    /// A localizer with `options` (a JSON object; missing ones take their defaults).
    ///
    /// # Errors
    /// Names the key that is unknown or holds what cannot be read.
    pub fn build(&self, options: Value) -> Result<Box<dyn Localizer>, RcaError> {
        let options = if options.is_null() { Value::Object(serde_json::Map::new()) } else { options };
        (self.build)(options).map_err(|source| RcaError::Options { name: self.name, source })
    }
}

fn schema<L: LocalizerKind>() -> schemars::Schema {
    schemars::schema_for!(L::Config)
}

fn defaults<L: LocalizerKind>() -> Value {
    serde_json::to_value(L::Config::default()).expect("options are plain data")
}

fn build<L: LocalizerKind>(options: Value) -> Result<Box<dyn Localizer>, serde_json::Error> {
    serde_json::from_value(options).map(|config| Box::new(L::new(config)) as Box<dyn Localizer>)
}

/// The localizer called `name`.
///
/// # Errors
/// When there is none, naming those there are.
pub fn localizer(name: &str) -> Result<&'static LocalizerEntry, RcaError> {
    LOCALIZERS.iter().find(|entry| entry.name == name).ok_or_else(|| RcaError::Unknown {
        key: "rca.localizers",
        name: name.into(),
        known: LOCALIZERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })
}

/// Builds the localizers called `names`, in that order, with their `options`.
pub(crate) fn build_all(
    names: &[String],
    options: &BTreeMap<String, Value>,
) -> Result<Vec<Box<dyn Localizer>>, RcaError> {
    if let Some(stray) = options.keys().find(|name| LOCALIZERS.iter().all(|entry| entry.name != **name)) {
        let known = LOCALIZERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        return Err(RcaError::Unknown { key: "rca.options", name: stray.clone(), known });
    }
    names.iter().map(|name| localizer(name)?.build(options.get(name).cloned().unwrap_or_default())).collect()
}

/// A configuration that root-cause analysis cannot work with.
#[derive(Debug, thiserror::Error)]
pub enum RcaError {
    /// A localizer that does not exist.
    #[error("{key}: no such localizer `{name}`; there are {known}")]
    Unknown {
        /// Where the name stands.
        key: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Options that a localizer does not take.
    #[error("rca.options.{name} cannot be read")]
    Options {
        /// The localizer.
        name: &'static str,
        /// What is wrong, naming the key.
        #[source]
        source: serde_json::Error,
    },
    /// A value outside its range.
    #[error("rca.{key}: {reason}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong with the value.
        reason: String,
    },
}

impl Classified for RcaError {
    fn domain(&self) -> Domain {
        Domain::User
    }

    fn retryable(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, error::Error};

    use serde_json::json;

    use super::{LOCALIZERS, localizer};

    #[test]
    fn names_are_unique_and_well_formed_and_every_localizer_builds_from_its_defaults() {
        let names: BTreeSet<_> = LOCALIZERS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), LOCALIZERS.len());
        for entry in LOCALIZERS {
            assert!(entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", entry.name);
            assert!(!entry.summary.is_empty() && !entry.paper.is_empty());
            let built = entry.build((entry.defaults)()).expect("its own defaults");
            assert_eq!(built.name(), entry.name);
            assert!(built.localize(&[]).is_empty(), "no alert, no suspect");
            assert!((entry.schema)().get("properties").is_some());
        }
    }

    #[test]
    fn an_unknown_name_or_option_is_named() {
        let unknown = localizer("self_time").err().expect("no such name").to_string();
        assert_eq!(unknown, "rca.localizers: no such localizer `self_time`; there are self-time, alert-count");
        let entry = localizer("self-time").expect("it is on the list");
        let stray = entry.build(json!({"histroy_seconds": 5})).err().expect("no such option");
        assert_eq!(stray.to_string(), "rca.options.self-time cannot be read");
        assert!(stray.source().is_some_and(|cause| cause.to_string().contains("histroy_seconds")));
    }
}
