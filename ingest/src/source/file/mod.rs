//! Replays files and standard input (stations 1 and 2).
//!
//! Three formats: **text**, where each line is a record whose body is the raw line (station 4 splits the header off and
//! sets the time, which stays 0 here: nothing is known, and the clock would make a replay irreproducible); **OTLP JSON**,
//! one `LogsData`, `TracesData` or `MetricsData` a line (`.json` may also be one document over many lines); **sessions**,
//! one session a line, written as event ids (DeepLog's HDFS split): each id becomes a record with body `E<id>` and the
//! attribute `session.id` = `<file name>:<line number>`. Gzip and zstd are recognised by their first bytes.
//!
//! Every line is a record, empty ones too, so record n of a text file is line n. Cost: text bypasses the builders, the
//! lines of a batch are copied once into the body column and checked for UTF-8 once. Bad input never stops a replay:
//! invalid UTF-8 is replaced and counted, over-long lines are cut and counted, a line that is not OTLP is a reject.
//! Only a file that cannot be opened or read does.

mod config;
mod lines;
mod source;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::StringArray,
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
};
use faultline_core::{Batch, LogBatch, LogBatchBuilder, LogRecord, Position, Reject};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::lines::Lines;
pub use self::{
    config::{FileFormat, FilesConfig},
    source::FileSource,
};
use crate::{
    decode::{DecodeLimits, Decoder, Encoding, OtlpSignal},
    error::IngestError,
};

/// A line of OTLP JSON, and a `.json` document, may be as large as a request.
const MAX_OTLP_LINE_BYTES: usize = 64 << 20;
/// A batch ends at this much text, whatever `batch_records` says; text columns count bytes in 32 bits.
const MAX_BATCH_TEXT_BYTES: usize = 8 << 20;

/// A batch of a file with its place in it.
#[derive(Debug)]
pub struct FileBatch {
    /// The records.
    pub batch: Batch,
    /// Records or lines that could not be decoded.
    pub rejects: Vec<Reject>,
    /// Bytes of the uncompressed file before the first line and after the last.
    pub position: Position,
}

/// What a reader has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Lines read.
    pub n_lines: u64,
    /// Bytes read, uncompressed.
    pub n_bytes: u64,
    /// Lines in which invalid UTF-8 was replaced.
    pub n_invalid_utf8: u64,
    /// Lines cut at `max_line_bytes`.
    pub n_truncated: u64,
    /// Records and lines rejected.
    pub n_rejected: u64,
}

/// Reads one file, batch by batch, on the caller's thread.
pub struct FileReader {
    path: PathBuf,
    lines: Lines,
    source: Arc<str>,
    batch_records: usize,
    n_invalid_utf8: u64,
    n_rejected: u64,
    is_done: bool,
    kind: Kind,
}

#[allow(clippy::large_enum_variant, reason = "one value a file; boxing would only add a hop")]
enum Kind {
    Text {
        /// As many rows as a batch may have, complete but for the body.
        rows: LogBatch,
        /// Text of the batch before, as a measure for the next.
        n_text_bytes: usize,
    },
    Sessions {
        builder: Box<LogBatchBuilder>,
        file_name: String,
        service_name: String,
        resource: String,
    },
    OtlpJson {
        decoder: Box<Decoder>,
        ready: VecDeque<FileBatch>,
    },
}

impl FileReader {
    /// Opens `path`; `-` is standard input.
    ///
    /// # Errors
    /// When the file cannot be opened, naming it, or its start not be read.
    pub fn open(path: impl AsRef<Path>, config: &FilesConfig) -> Result<Self, IngestError> {
        let path = path.as_ref();
        if path == Path::new("-") {
            return Self::from_reader(path, io::stdin(), config);
        }
        let failed = |cause| IngestError::Open { path: path.into(), cause };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Self::from_reader(path, file, config)
    }

    /// Reads `reader` as if it were the file `path`.
    ///
    /// # Errors
    /// When its start cannot be read, or the configuration makes no sense.
    pub fn from_reader(
        path: &Path,
        reader: impl Read + Send + 'static,
        config: &FilesConfig,
    ) -> Result<Self, IngestError> {
        config.validate()?;
        let failed = |cause| IngestError::Read { path: path.into(), offset: 0, cause };
        let reader = inflated(reader).map_err(failed)?;
        let names = Names::of(path, config);
        let mut lines = Lines::new(reader, config.max_line_bytes);
        let is_otlp = match config.format {
            FileFormat::OtlpJson => true,
            FileFormat::Auto => names.is_json && looks_like_otlp(lines.peek().map_err(failed)?),
            FileFormat::Text | FileFormat::Sessions => false,
        };
        let kind = if is_otlp {
            lines.set_max_line_bytes(MAX_OTLP_LINE_BYTES);
            if names.is_document {
                lines = as_one_line(lines).map_err(failed)?;
            }
            let decoder = Box::new(Decoder::new(DecodeLimits::default()));
            Kind::OtlpJson { decoder, ready: VecDeque::new() }
        } else {
            if config.format == FileFormat::Sessions {
                let Names { file_name, service_name, resource, .. } = names;
                Kind::Sessions { builder: Box::default(), file_name, service_name, resource }
            } else {
                Kind::Text { rows: empty_rows(&names, config.batch_records), n_text_bytes: 0 }
            }
        };
        Ok(Self {
            path: path.into(),
            lines,
            source: path.to_string_lossy().into(),
            batch_records: config.batch_records,
            n_invalid_utf8: 0,
            n_rejected: 0,
            is_done: false,
            kind,
        })
    }

    /// What has been read so far.
    #[must_use]
    pub fn stats(&self) -> FileStats {
        FileStats {
            n_lines: self.lines.n_lines,
            n_bytes: self.lines.offset(),
            n_invalid_utf8: self.n_invalid_utf8,
            n_truncated: self.lines.n_truncated,
            n_rejected: self.n_rejected,
        }
    }

    fn next_batch(&mut self) -> io::Result<Option<FileBatch>> {
        let offset = self.lines.offset();
        let Self { lines, kind, batch_records, .. } = self;
        let batch = match kind {
            Kind::Text { rows, n_text_bytes } => {
                text_batch(lines, rows, *batch_records, n_text_bytes, &mut self.n_invalid_utf8)?
            }
            Kind::Sessions { builder, file_name, service_name, resource } => {
                let record = LogRecord { service_name, resource, ..LogRecord::default() };
                session_batch(lines, builder, file_name, record, *batch_records, &mut self.n_invalid_utf8)?
            }
            Kind::OtlpJson { decoder, ready } => {
                if ready.is_empty() {
                    self.n_rejected += otlp_batches(lines, decoder, *batch_records, &self.source, ready)?;
                }
                return Ok(ready.pop_front());
            }
        };
        let position = Position { source: Arc::clone(&self.source), offset, next: self.lines.offset() };
        Ok(batch.map(|batch| FileBatch { batch: Batch::Logs(batch), rejects: Vec::new(), position }))
    }
}

impl Iterator for FileReader {
    type Item = Result<FileBatch, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let batch = self.next_batch().map_err(|cause| IngestError::Read {
            path: self.path.clone(),
            offset: self.lines.offset(),
            cause,
        });
        self.is_done = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }
}

/// What a path says about its content.
struct Names {
    file_name: String,
    service_name: String,
    resource: String,
    is_json: bool,
    is_document: bool,
}

impl Names {
    fn of(path: &Path, config: &FilesConfig) -> Self {
        let is_stdin = path == Path::new("-");
        let file_name = if is_stdin {
            "stdin".into()
        } else {
            path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
        };
        let plain = file_name.strip_suffix(".gz").or_else(|| file_name.strip_suffix(".zst")).unwrap_or(&file_name);
        let (stem, ending) = match plain.rsplit_once('.') {
            Some((stem, ending)) if !stem.is_empty() => (stem, ending),
            _ => (plain, ""),
        };
        let service_name = config.service_name.clone().unwrap_or_else(|| stem.into());
        let resource = if is_stdin {
            serde_json::json!({ "service.name": service_name, "log.iostream": "stdin" })
        } else {
            serde_json::json!({ "service.name": service_name, "log.file.path": path.to_string_lossy() })
        };
        let is_document = ending == "json";
        let is_json = is_document || ending == "jsonl" || ending == "ndjson" || is_stdin;
        Self { service_name, resource: resource.to_string(), is_json, is_document, file_name }
    }
}

/// Undoes gzip or zstd, which the first bytes tell.
fn inflated(reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(256 << 10, reader);
    let start = reader.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::stream::read::Decoder::with_buffer(reader)?)
    } else {
        Box::new(reader)
    })
}

fn looks_like_otlp(start: &[u8]) -> bool {
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    let has = |key: &str| {
        memchr::memmem::find_iter(start, key).any(|at| start[at + key.len()..].trim_ascii_start().starts_with(b":"))
    };
    first == Some(&b'{') && (has("\"resourceLogs\"") || has("\"resourceSpans\"") || has("\"resourceMetrics\""))
}

/// A document over many lines as one line: in JSON a line end can only be white space. Anything else stays as it is.
fn as_one_line(lines: Lines) -> io::Result<Lines> {
    let mut document = Vec::new();
    let (start, rest) = lines.into_parts();
    let mut reader = Cursor::new(start).chain(rest);
    (&mut reader).take(MAX_OTLP_LINE_BYTES as u64).read_to_end(&mut document)?;
    if serde_json::from_slice::<&RawValue>(&document).is_ok() {
        for byte in &mut document {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    Ok(Lines::new(Box::new(Cursor::new(document).chain(reader)), MAX_OTLP_LINE_BYTES))
}

fn empty_rows(names: &Names, n_rows: usize) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    let record = LogRecord { service_name: &names.service_name, resource: &names.resource, ..LogRecord::default() };
    for _ in 0..n_rows {
        builder.push(&record);
    }
    builder.finish()
}

fn text_batch(
    lines: &mut Lines,
    rows: &LogBatch,
    batch_records: usize,
    n_text_bytes: &mut usize,
    n_invalid_utf8: &mut u64,
) -> io::Result<Option<LogBatch>> {
    let mut text = Vec::with_capacity(*n_text_bytes + *n_text_bytes / 8);
    let mut ends = Vec::with_capacity(batch_records + 1);
    ends.push(0_i32);
    while ends.len() <= batch_records && text.len() < MAX_BATCH_TEXT_BYTES {
        let Some(line) = lines.next_line()? else { break };
        text.extend_from_slice(lines.bytes(line));
        ends.push(i32::try_from(text.len()).expect("a batch ends well below 2 GiB"));
    }
    *n_text_bytes = text.len();
    let n_rows = ends.len() - 1;
    if n_rows == 0 {
        return Ok(None);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let text = Buffer::from_vec(text);
    let body = StringArray::try_new(offsets.clone(), text.clone(), None).unwrap_or_else(|_| {
        // Not all of it is UTF-8: look at each line by itself.
        offsets
            .windows(2)
            .map(|ends| {
                #[allow(clippy::cast_sign_loss, reason = "offsets count up from 0")]
                let line = String::from_utf8_lossy(&text[ends[0] as usize..ends[1] as usize]);
                *n_invalid_utf8 += u64::from(matches!(line, std::borrow::Cow::Owned(_)));
                Some(line)
            })
            .collect()
    });
    let rows = LogBatch::try_new(rows.as_arrow().slice(0, n_rows)).expect("rows of a checked batch");
    Ok(Some(rows.with_column("body", Arc::new(body)).expect("one text for each row")))
}

fn session_batch(
    lines: &mut Lines,
    builder: &mut LogBatchBuilder,
    file_name: &str,
    record: LogRecord<'_>,
    batch_records: usize,
    n_invalid_utf8: &mut u64,
) -> io::Result<Option<LogBatch>> {
    let mut body = String::new();
    while builder.len() < batch_records {
        let Some(line) = lines.next_line()? else { break };
        let session = format!("{file_name}:{}", lines.n_lines);
        let attributes = serde_json::json!({ "session.id": session }).to_string();
        let line = String::from_utf8_lossy(lines.bytes(line));
        *n_invalid_utf8 += u64::from(matches!(line, std::borrow::Cow::Owned(_)));
        for id in line.split_ascii_whitespace() {
            body.clear();
            if id.bytes().all(|byte| byte.is_ascii_digit()) {
                body.push('E');
            }
            body.push_str(id);
            builder.push(&LogRecord { body: &body, attributes: &attributes, ..record });
        }
    }
    Ok((!builder.is_empty()).then(|| builder.finish()))
}

const SIGNALS: [OtlpSignal; 3] = [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics];

/// Reads until one signal has a batch full, then hands out all three: a position is behind every record before it, so only
/// the last of them moves it on. A record without any time stays at 0, as in text. Returns how much was rejected.
fn otlp_batches(
    lines: &mut Lines,
    decoder: &mut Decoder,
    batch_records: usize,
    source: &Arc<str>,
    ready: &mut VecDeque<FileBatch>,
) -> io::Result<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line<'a> {
        #[serde(borrow)]
        resource_logs: Option<&'a RawValue>,
        #[serde(borrow)]
        resource_spans: Option<&'a RawValue>,
        #[serde(borrow)]
        resource_metrics: Option<&'a RawValue>,
    }
    let offset = lines.offset();
    let mut n_bytes = 0;
    while n_bytes < MAX_BATCH_TEXT_BYTES && SIGNALS.iter().all(|signal| decoder.n_records(*signal) < batch_records) {
        let Some(line) = lines.next_line()? else { break };
        let number = lines.n_lines;
        let line = lines.bytes(line);
        n_bytes += line.len();
        if line.trim_ascii().is_empty() {
            continue;
        }
        let parts = match serde_json::from_slice::<Line<'_>>(line) {
            Ok(parts) => [parts.resource_logs, parts.resource_spans, parts.resource_metrics],
            Err(error) => {
                decoder.push_reject(format!("line {number} is not OTLP JSON: {error}"), line);
                continue;
            }
        };
        if parts.iter().all(Option::is_none) {
            let reason = format!("line {number} has no resourceLogs, resourceSpans or resourceMetrics");
            decoder.push_reject(reason, line);
        }
        for (signal, part) in SIGNALS.into_iter().zip(parts) {
            if part.is_some()
                && let Err(error) = decoder.push(signal, Encoding::Json, line, 0)
            {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                decoder.push_reject(format!("line {number}: {error}{cause}"), line);
            }
        }
    }
    let mut n_rejected = 0;
    for signal in SIGNALS {
        // Rejects come with the first batch; logs stand in when there is nothing but rejects.
        if decoder.n_records(signal) > 0 || (signal == OtlpSignal::Logs && decoder.has_rejects()) {
            let decoded = decoder.finish(signal);
            n_rejected += decoded.n_rejected;
            let position = Position { source: Arc::clone(source), offset, next: offset };
            ready.push_back(FileBatch { batch: decoded.batch, rejects: decoded.rejects, position });
        }
    }
    if let Some(last) = ready.back_mut() {
        last.position.next = lines.offset();
    }
    Ok(n_rejected)
}
