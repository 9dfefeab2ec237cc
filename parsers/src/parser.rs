//! The parser of station 4: batches in, the same batches with template, parameters and session out.
//!
//! Bodies are read in place from the Arrow column; new columns are built once per batch. Cost per record: the header
//! scan where a format is configured, one masked line, one probe. Streams have trees of their own, up to a cap.

use std::{fmt::Write, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BooleanBuilder, Int32Builder, StringBuilder, StringDictionaryBuilder,
        TimestampNanosecondBuilder, UInt64Builder,
    },
    datatypes::Int32Type,
};
use faultline_core::{
    LogBatch, Parser, Template, TemplateId,
    batch::{DictArray, dict_value, params_builder},
    hash::StableHash,
};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::{
    config::ParserConfig,
    drain::{Drain, DrainConfig, DrainStats},
    error::ParserError,
    hash::Hasher,
    header::{Header, LineFormat, Role, severity_number},
    mask::Masker,
    session::{Line, session_of},
    snapshot::{self, Snapshot},
    tokens::{MaskedLine, Params},
};

/// Plain counters of a parser; those of its trees are in [`LogParser::drain_stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParserStats {
    /// Lines that the line format did not match: their whole text is the body.
    pub unmatched_headers: u64,
    /// Lines whose stream had to share a tree because there are too many streams.
    pub overflowed_lines: u64,
}

/// Turns log bodies into templates.
#[derive(Debug)]
pub struct LogParser {
    config: ParserConfig,
    drain_config: DrainConfig,
    format: Option<LineFormat>,
    hash_seed: u64,
    masked: MaskedLine,
    drains: Vec<Drain>,
    names: FxHashMap<String, usize>,
    stats: ParserStats,
}

/// Stream of lines without a service.
const DEFAULT_STREAM: &str = "default";
/// Stream that all share beyond the cap.
const OVERFLOW_STREAM: &str = "_overflow";

impl LogParser {
    /// A parser that knows no template yet.
    ///
    /// # Errors
    /// When a value of the configuration does not do; the error names its key.
    pub fn new(config: ParserConfig) -> Result<Self, ParserError> {
        Self::with_hash_seed(config, 0)
    }

    /// The same with a seed of its own for the token hashes. No output depends on it; a secret one keeps an attacker
    /// from preparing two lines that hash alike.
    ///
    /// # Errors
    /// As [`LogParser::new`].
    pub fn with_hash_seed(config: ParserConfig, hash_seed: u64) -> Result<Self, ParserError> {
        let drain_config = config.drain()?;
        let format = match &config.line_format {
            None if config.time_format.is_some() || !config.time_fields.is_empty() => {
                let reason = "needs parser.line_format, which names the fields".to_owned();
                return Err(ParserError::Config { key: "time_fields", reason });
            }
            None => None,
            Some(format) => {
                let time_format = config.time_format.as_deref();
                let format = LineFormat::new(format, &config.time_fields, time_format, config.utc_offset_minutes);
                Some(format.map_err(|reason| ParserError::Config { key: "line_format", reason })?)
            }
        };
        let is_name =
            |name: &str| (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if let Some(mask) = config.masks.iter().find(|mask| !is_name(&mask.name)) {
            let reason = format!("name `{}` is not 1 to 32 letters, digits and `_`", mask.name);
            return Err(ParserError::Config { key: "masks", reason });
        }
        let masks = config.masks.iter().map(|mask| (mask.name.as_str(), mask.regex.as_str()));
        let masker = Masker::new(masks).map_err(|(idx, cause)| ParserError::Mask {
            name: config.masks[idx].name.clone(),
            cause: Box::new(cause),
        })?;
        let mut masked =
            MaskedLine::new(Arc::new(masker), Hasher::new(hash_seed), config.max_tokens, config.max_line_bytes);
        // Each stream plants its own later; what is wrong with them shows here.
        Drain::new(DEFAULT_STREAM, drain_config).plant(&mut masked, &config.seeds, &config.pins)?;
        Ok(Self {
            config,
            drain_config,
            format,
            hash_seed,
            masked,
            drains: Vec::new(),
            names: FxHashMap::default(),
            stats: ParserStats::default(),
        })
    }

    /// The parser that [`Parser::snapshot`] was taken of. Limits, seeds and pins may have changed since; masks may not.
    ///
    /// # Errors
    /// When the configuration does not do, or the snapshot is corrupt, of another format version or of other masks.
    pub fn restore(config: ParserConfig, snapshot: &[u8]) -> Result<Self, ParserError> {
        let snapshot = snapshot::decode(snapshot)?;
        let mut parser = Self::with_hash_seed(config, snapshot.hash_seed)?;
        if snapshot.masks != parser.masks_hash() {
            return Err(ParserError::SnapshotMasks);
        }
        parser.stats = snapshot.stats;
        for state in snapshot.streams {
            let name = state.stream.clone();
            let mut drain =
                Drain::restore(state, parser.drain_config).map_err(|reason| ParserError::CorruptSnapshot { reason })?;
            drain.plant(&mut parser.masked, &parser.config.seeds, &parser.config.pins)?;
            if parser.names.insert(name, parser.drains.len()).is_some() {
                return Err(ParserError::CorruptSnapshot { reason: "a stream is in it twice".into() });
            }
            parser.drains.push(drain);
        }
        Ok(parser)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ParserConfig {
        &self.config
    }

    /// Plain counters.
    #[must_use]
    pub fn stats(&self) -> ParserStats {
        self.stats
    }

    /// Counters of each stream's tree, in order of stream.
    #[must_use]
    pub fn drain_stats(&self) -> Vec<(&str, DrainStats)> {
        let mut all: Vec<_> = self.names.iter().map(|(name, idx)| (name.as_str(), self.drains[*idx].stats())).collect();
        all.sort_unstable_by_key(|stream| stream.0);
        all
    }

    /// Ids whose templates were merged into another, with the id that took their place, in order.
    #[must_use]
    pub fn aliases(&self) -> Vec<(TemplateId, TemplateId)> {
        let mut all: Vec<_> = self.drains.iter().flat_map(Drain::aliases).collect();
        all.sort_unstable();
        all
    }

    /// Ids that were merged into another since the last call, with the id that took their place, in order. A template that is
    /// founded anew under such an id is its own again; [`Parser::drain_changes`] tells of it then.
    pub fn drain_aliases(&mut self) -> Vec<(TemplateId, TemplateId)> {
        let mut fresh = Vec::new();
        self.drains.iter_mut().for_each(|drain| drain.take_aliases(&mut fresh));
        fresh.sort_unstable();
        fresh
    }

    fn masks_hash(&self) -> u64 {
        let masks = self.config.masks.iter();
        masks.fold(StableHash::new(), |hash, mask| hash.text(&mask.name).text(&mask.regex)).finish()
    }

    fn drain_of(&mut self, stream: &str) -> usize {
        if let Some(idx) = self.names.get(stream) {
            return *idx;
        }
        // One place is kept for the stream that all others share.
        let name = if self.drains.len() + 1 < self.config.max_streams { stream } else { OVERFLOW_STREAM };
        let next = self.drains.len();
        let idx = *self.names.entry(name.to_owned()).or_insert(next);
        if idx == next {
            let mut drain = Drain::new(name, self.drain_config);
            let planted = drain.plant(&mut self.masked, &self.config.seeds, &self.config.pins);
            planted.expect("the templates that the constructor has planted once");
            self.drains.push(drain);
        }
        idx
    }

    /// Stream and tree of each service in a batch: by dictionary key, and last those of records without service.
    fn streams_of(&mut self, services: &DictArray) -> Vec<(String, usize)> {
        let values = services.values().as_any().downcast_ref::<arrow::array::StringArray>();
        let n_values = values.map_or(0, |values| values.len());
        let mut names: Vec<String> = (0..n_values)
            .map(|key| match (&self.config.stream, values) {
                (Some(stream), _) => stream.clone(),
                (None, Some(values)) if values.is_valid(key) => values.value(key).to_owned(),
                _ => DEFAULT_STREAM.to_owned(),
            })
            .collect();
        names.push(self.config.stream.clone().unwrap_or_else(|| DEFAULT_STREAM.to_owned()));
        let mut is_used = vec![false; names.len()];
        (0..services.len()).for_each(|row| is_used[services.key(row).unwrap_or(n_values)] = true);
        let drain_of = |(name, is_used): (String, bool)| {
            let idx = if is_used { self.drain_of(&name) } else { 0 };
            (name, idx)
        };
        names.into_iter().zip(is_used).map(drain_of).collect()
    }

    /// Cuts the header off each raw line and fills the columns that come from it.
    fn split_headers(&mut self, batch: LogBatch) -> LogBatch {
        let Some(format) = &self.format else { return batch };
        let n_records = batch.len();
        let mut time = TimestampNanosecondBuilder::with_capacity(n_records).with_timezone("UTC");
        let mut severity = Int32Builder::with_capacity(n_records);
        let mut level: StringDictionaryBuilder<Int32Type> = StringDictionaryBuilder::new();
        let mut scope: StringDictionaryBuilder<Int32Type> = StringDictionaryBuilder::new();
        let mut body = StringBuilder::with_capacity(n_records, batch.body().value_data().len());
        let mut header = StringBuilder::with_capacity(n_records, n_records * 48);
        let mut attributes = StringBuilder::with_capacity(n_records, n_records * 48);
        let mut json = String::new();
        for row in 0..n_records {
            let line = batch.body().value(row);
            let given_time = batch.time_unix_nano().value(row);
            let given_attributes = batch.attributes().is_valid(row).then(|| batch.attributes().value(row));
            let observed = match batch.observed_time_unix_nano() {
                observed if observed.is_valid(row) => observed.value(row),
                _ => given_time,
            };
            // A record that already has its header apart is left as it is.
            let is_raw = batch.header().is_null(row);
            let split = is_raw.then(|| format.split(line, observed)).flatten();
            self.stats.unmatched_headers += u64::from(is_raw && split.is_none());
            let (mut severity_now, mut level_now) = (None, dict_value(batch.severity_text(), row));
            let mut scope_now = dict_value(batch.scope_name(), row);
            let Some(split) = split else {
                time.append_value(given_time);
                severity
                    .append_option(batch.severity_number().is_valid(row).then(|| batch.severity_number().value(row)));
                level.append_option(level_now);
                scope.append_option(scope_now);
                body.append_value(line);
                header.append_option((!is_raw).then(|| batch.header().value(row)));
                attributes.append_option(given_attributes);
                continue;
            };
            for (idx, (_, role)) in format.fields.iter().enumerate() {
                match role {
                    Role::Level => {
                        level_now = Some(split.field(line, idx));
                        severity_now = severity_number(split.field(line, idx));
                    }
                    Role::Component => scope_now = Some(split.field(line, idx)),
                    Role::Label | Role::Time | Role::Attribute(_) => {}
                }
            }
            time.append_value(split.time_unix_nano.unwrap_or(given_time));
            severity.append_option(severity_now);
            level.append_option(level_now.filter(|level| !level.is_empty()));
            scope.append_option(scope_now.filter(|scope| !scope.is_empty()));
            header.append_value(&line[..split.body]);
            body.append_value(&line[split.body..]);
            write_attributes(&mut json, format, &split, line, given_attributes);
            attributes.append_option((!json.is_empty()).then_some(json.as_str()));
        }
        let columns: [(&str, ArrayRef); 7] = [
            ("time_unix_nano", Arc::new(time.finish())),
            ("severity_number", Arc::new(severity.finish())),
            ("severity_text", Arc::new(level.finish())),
            ("scope_name", Arc::new(scope.finish())),
            ("body", Arc::new(body.finish())),
            ("header", Arc::new(header.finish())),
            ("attributes", Arc::new(attributes.finish())),
        ];
        columns.into_iter().fold(batch, |batch, (name, column)| {
            batch.with_column(name, column).expect("columns of the schema's types, one value for each record")
        })
    }
}

/// The given JSON object with the header's fields added; empty when there is nothing in it.
fn write_attributes(json: &mut String, format: &LineFormat, split: &Header, line: &str, given: Option<&str>) {
    json.clear();
    let given = given.and_then(|given| given.trim().strip_suffix('}')).unwrap_or("{");
    json.push_str(given);
    let mut is_first = given.trim_end().ends_with('{');
    for (idx, (_, role)) in format.fields.iter().enumerate() {
        let Role::Attribute(name) = role else { continue };
        let value = split.field(line, idx);
        if value.is_empty() {
            continue;
        }
        if !is_first {
            json.push(',');
        }
        is_first = false;
        let is_plain = |text: &str| text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\');
        let written = if is_plain(name) && is_plain(value) {
            write!(json, "\"{name}\":\"{value}\"")
        } else {
            write!(json, "{}:{}", serde_json::Value::from(name.as_str()), serde_json::Value::from(value))
        };
        written.expect("writing to a string does not fail");
    }
    if is_first {
        json.clear();
    } else {
        json.push('}');
    }
}

impl Parser for LogParser {
    fn parse(&mut self, batch: LogBatch) -> LogBatch {
        let batch = self.split_headers(batch);
        let n_records = batch.len();
        let streams = self.streams_of(batch.service_name());
        let no_service = streams.len() - 1;
        let overflow = self.names.get(OVERFLOW_STREAM).copied();
        let (bodies, times, services) = (batch.body(), batch.time_unix_nano(), batch.service_name());
        let mut ids = UInt64Builder::with_capacity(n_records);
        let mut params = params_builder();
        let mut sessions = StringBuilder::with_capacity(n_records, n_records * 24);
        let mut are_streams = BooleanBuilder::with_capacity(n_records);
        for row in 0..n_records {
            let body = bodies.value(row);
            let (stream, idx) = &streams[services.key(row).unwrap_or(no_service)];
            self.stats.overflowed_lines += u64::from(Some(*idx) == overflow);
            let drain = &mut self.drains[*idx];
            let found = drain.add(&mut self.masked, body.as_bytes(), times.value(row), Params::Extract);
            ids.append_value(found.id.0);
            for param in self.masked.params() {
                // Cut at a byte of its own only if a user's mask did so.
                params.values().append_value(body.get(param.start as usize..param.end as usize).unwrap_or(""));
            }
            params.append(true);
            let text = |column: &'_ arrow::array::StringArray| column.is_valid(row);
            let line = Line {
                trace_id: if text(batch.trace_id()) { batch.trace_id().value(row) } else { "" },
                span_id: if text(batch.span_id()) { batch.span_id().value(row) } else { "" },
                attributes: if text(batch.attributes()) { batch.attributes().value(row) } else { "" },
                resource: dict_value(batch.resource(), row).unwrap_or(""),
                service: dict_value(services, row).unwrap_or(""),
                stream,
                body,
                params: self.masked.params(),
            };
            let (session, is_stream) = session_of(&self.config.session, &line);
            sessions.append_value(session);
            are_streams.append_value(is_stream);
        }
        let columns: [(&str, ArrayRef); 4] = [
            ("template_id", Arc::new(ids.finish())),
            ("params", Arc::new(params.finish())),
            ("session", Arc::new(sessions.finish())),
            ("session_is_stream", Arc::new(are_streams.finish())),
        ];
        columns.into_iter().fold(batch, |batch, (name, column)| {
            batch.with_column(name, column).expect("columns of the schema's types, one value for each record")
        })
    }

    fn drain_changes(&mut self) -> Vec<Template> {
        let mut changes = Vec::new();
        self.drains.iter_mut().for_each(|drain| drain.take_changes(&mut changes));
        changes.sort_by(|one, other| (one.id, &one.stream).cmp(&(other.id, &other.stream)));
        changes
    }

    fn templates(&self) -> Vec<Template> {
        let mut all: Vec<Template> = self.drains.iter().flat_map(Drain::templates).collect();
        all.sort_by(|one, other| (one.id, &one.stream).cmp(&(other.id, &other.stream)));
        all
    }

    fn snapshot(&self) -> Vec<u8> {
        snapshot::encode(&Snapshot {
            hash_seed: self.hash_seed,
            masks: self.masks_hash(),
            stats: self.stats,
            streams: self.drains.iter().map(Drain::state).collect(),
        })
    }
}
