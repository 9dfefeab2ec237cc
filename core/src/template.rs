//! Log templates: what a line is once its variable parts are taken out (station 4).

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::hash::StableHash;

/// Identity of one log template.
///
/// The id is a hash of the masked line that founded the template, so the same line founds the same id in every run,
/// on every shard, and again after an eviction; it never comes to mean another template. When the template widens its
/// id stays and its [`Template::lineage`] grows. Ids fit in 53 bits so that JSON numbers and SQL integers carry
/// them exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(pub u64);

impl TemplateId {
    const MASK: u64 = (1 << 53) - 1;

    /// The id of a template founded by `masked` in `stream`; `attempt` is 0 unless that id is already another's.
    #[must_use]
    pub fn founded(stream: &str, masked: &str, attempt: u64) -> Self {
        let hash = StableHash::new().text(stream).text(masked).number(attempt).finish();
        Self((hash & Self::MASK).max(1))
    }
}

impl std::fmt::Display for TemplateId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Position of a record in everything this data directory has accepted: 1, 2, 3 ... without reuse.
pub type RecordId = u64;

/// A template with its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Identity; stays when the text widens.
    pub id: TemplateId,
    /// The stream (usually a service) whose lines it describes.
    pub stream: String,
    /// Current text, tokens joined by one space, variable parts as `<*>` or a typed placeholder such as `<NUM>`.
    pub text: String,
    /// Earlier texts, oldest first: how the template widened to what it is.
    pub lineage: Vec<String>,
    /// Lines that matched it.
    pub count: u64,
    /// Event time of the first and of the latest line, nanoseconds since the epoch.
    pub first_seen_unix_nano: i64,
    /// See `first_seen_unix_nano`.
    pub last_seen_unix_nano: i64,
}

/// Texts of templates by id. Texts change when a template widens; the latest is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTexts(BTreeMap<TemplateId, Arc<str>>);

impl TemplateTexts {
    /// No texts: what a source of bare event numbers has.
    pub const NONE: &'static Self = &Self(BTreeMap::new());

    /// The text of a template.
    #[must_use]
    pub fn get(&self, id: TemplateId) -> Option<&Arc<str>> {
        self.0.get(&id)
    }

    /// Takes note of a text.
    pub fn insert(&mut self, id: TemplateId, text: Arc<str>) {
        self.0.insert(id, text);
    }

    /// Templates with a text.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no text is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every template with its text, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (TemplateId, &Arc<str>)> {
        self.0.iter().map(|(id, text)| (*id, text))
    }
}

impl FromIterator<(TemplateId, Arc<str>)> for TemplateTexts {
    fn from_iter<I: IntoIterator<Item = (TemplateId, Arc<str>)>>(texts: I) -> Self {
        Self(texts.into_iter().collect())
    }
}

/// What a variable part of a line looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// IPv4 or IPv6 address, with or without port.
    Ip,
    /// Decimal number, signed, fractional or with a unit.
    Number,
    /// Hexadecimal number or digest.
    Hex,
    /// UUID.
    Uuid,
    /// File system path or URL.
    Path,
    /// Dotted host or package name.
    Host,
    /// HDFS block id.
    Block,
    /// Date or time.
    Time,
    /// An identifier matched by a mask that the user added.
    Custom,
    /// A token that differs between lines and that no mask recognises.
    Text,
}

/// One variable part of a line, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// What it looks like.
    pub kind: ParamKind,
    /// Its text in the line.
    pub value: &'a str,
}
