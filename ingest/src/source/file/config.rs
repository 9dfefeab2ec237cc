//! Section `ingest.files` of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_OTLP_LINE_BYTES;
use crate::error::IngestError;

/// Section `ingest.files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Files to replay, one after the other; `-` is standard input. Default none.
    pub paths: Vec<String>,
    /// What a line is. Default `auto`: OTLP JSON when the name ends in `.json`, `.jsonl` or `.ndjson` and the start looks
    /// like it, else text; sessions have to be asked for.
    pub format: FileFormat,
    /// `service.name` of the records of text and session files. Default: the file's name without its endings.
    pub service_name: Option<String>,
    /// Bytes kept of a line of text or sessions; the rest is cut off and counted. Default 1 MiB, at most 64 MiB.
    pub max_line_bytes: usize,
    /// Records to a batch. Default 4096, at most 65,536.
    pub batch_records: usize,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            format: FileFormat::Auto,
            service_name: None,
            max_line_bytes: 1 << 20,
            batch_records: 4096,
        }
    }
}

impl FilesConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Names the first key whose value cannot work.
    pub fn validate(&self) -> Result<(), IngestError> {
        let wrong = |key, reason: &str| Err(IngestError::Config { key, reason: reason.into() });
        if !(1..=MAX_OTLP_LINE_BYTES).contains(&self.max_line_bytes) {
            return wrong("ingest.files.max_line_bytes", "must be between 1 byte and 64 MiB");
        }
        if !(1..=65_536).contains(&self.batch_records) {
            return wrong("ingest.files.batch_records", "must be between 1 and 65,536");
        }
        Ok(())
    }
}

/// What a line of a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// By the name and the first bytes.
    #[default]
    Auto,
    /// One record.
    Text,
    /// One `LogsData`, `TracesData` or `MetricsData`.
    OtlpJson,
    /// One session: event ids with spaces between them.
    Sessions,
}
