//! Records that could not be decoded (station 3): counted, and kept so that somebody can look at them.
//!
//! One JSON object a line in `<data-dir>/dead-letters.jsonl`: time, source, reason, and the record's bytes as text (bytes
//! that are no UTF-8 as U+FFFD). At 64 MiB the file becomes `dead-letters.1.jsonl` and a new one begins, so
//! the two together are the bound. A letter that cannot be written is counted as lost and never stops the path.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::SystemTime,
};

use faultline_core::Reject;
use serde_json::json;

const MAX_BYTES: u64 = 64 << 20;

/// The file, opened when there is something to keep.
pub struct DeadLetters {
    folder: PathBuf,
    open: Option<(File, u64)>,
}

impl DeadLetters {
    /// Dead letters of one data directory.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: None }
    }

    /// Keeps what `source` could not decode.
    pub fn keep(&mut self, source: &str, rejects: &[Reject]) {
        if rejects.is_empty() {
            return;
        }
        metrics::counter!("faultline_dead_letters_total", "source" => source.to_owned())
            .increment(rejects.len() as u64);
        if let Err(error) = self.write(source, rejects) {
            metrics::counter!("faultline_dead_letters_lost_total").increment(rejects.len() as u64);
            tracing::error!(error = &error as &dyn std::error::Error, folder = %self.folder.display(), "could not keep dead letters");
        }
    }

    fn write(&mut self, source: &str, rejects: &[Reject]) -> std::io::Result<()> {
        let path = self.folder.join("dead-letters.jsonl");
        if self.open.as_ref().is_some_and(|(_, n_bytes)| *n_bytes >= MAX_BYTES) {
            self.open = None;
            std::fs::rename(&path, self.folder.join("dead-letters.1.jsonl"))?;
        }
        if self.open.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            let n_bytes = file.metadata()?.len();
            self.open = Some((file, n_bytes));
        }
        let Some((file, n_bytes)) = &mut self.open else { return Ok(()) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut text = String::new();
        for reject in rejects {
            let raw = String::from_utf8_lossy(&reject.raw);
            let letter = json!({
                "time_unix_nano": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                "source": source, "reason": reject.reason, "raw": raw,
            });
            text.push_str(&letter.to_string());
            text.push('\n');
        }
        *n_bytes += text.len() as u64;
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_is_kept_with_its_reason_and_bytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut letters = DeadLetters::new(dir.path());
        letters.keep("otlp", &[]);
        assert!(!dir.path().join("dead-letters.jsonl").exists(), "no file without a letter");
        letters.keep("otlp", &[Reject { reason: "trace_id: 3 bytes".into(), raw: vec![b'a', 0xff] }]);
        let text = std::fs::read_to_string(dir.path().join("dead-letters.jsonl")).expect("the file");
        let letter: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
        assert_eq!(letter["reason"], "trace_id: 3 bytes");
        assert_eq!(letter["raw"], "a\u{fffd}");
    }
}
