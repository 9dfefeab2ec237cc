//! One table's records: an open segment in memory and on its way to disk, and closed Parquet segments (station 5).
//!
//! A record is visible to queries from the moment it is appended. Small batches are gathered until they fill a
//! run of [`RUN_ROWS`] rows, so that neither memory nor Parquet sees one-record batches. Runs are encoded into
//! `<first id>.parquet.tmp` as they fill; closing finishes the file, syncs it and renames it to
//! `<first id>-<last id>.parquet`. Until then every record also stays in memory, which answers queries and lets a
//! failed write start over: a full disk makes [`Table::append`] fail only once the open segment is full, and
//! nothing that was accepted is dropped.
//!
//! Cost: one concatenation and one Parquet encoding (zstd level 1) a record; memory up to `segment_max_bytes` and one
//! batch. A process that dies loses its open segment (the journal of station 3 replays it).

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::{concat_batches, max, min},
    datatypes::{DataType, Schema, SchemaRef},
};
use faultline_core::RecordId;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};

use crate::{
    config::StoreConfig,
    error::{StoreError, io},
};

/// Rows that are gathered before they are encoded. A batch of a file is a run of its own, which nothing needs to join.
const RUN_ROWS: usize = 4 * 1024;
/// Batches that are gathered before they are encoded, however small.
const RUN_BATCHES: usize = 64;
/// Rows in one Parquet row group: the unit that statistics prune.
const ROW_GROUP_ROWS: usize = 64 * 1024;
/// Rows in one Parquet page: the unit that a look-up by record id decodes.
const PAGE_ROWS: usize = 4 * 1024;

/// Columns of sentences and JSON, whose smallest and largest value tell a query nothing.
const FREE_TEXT: [&str; 6] = ["body", "header", "attributes", "events", "links", "resource"];

const SUFFIX: &str = ".parquet";
const TEMPORARY_SUFFIX: &str = ".parquet.tmp";

/// A closed segment. Immutable.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first: RecordId,
    pub(crate) last: RecordId,
    pub(crate) bytes: u64,
}

impl Segment {
    fn file_name(first: RecordId, last: RecordId) -> String {
        format!("{first:020}-{last:020}{SUFFIX}")
    }

    /// Reads what the name says and checks that the file ends as Parquet files do.
    fn from_file(path: PathBuf) -> Result<Self, StoreError> {
        let damaged = |reason: &str| StoreError::Segment { path: path.clone(), reason: reason.into() };
        let range = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(SUFFIX))
            .and_then(|stem| stem.split_once('-'))
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let Some((first, last)) = range else {
            return Err(damaged("its name is not <first record id>-<last record id>.parquet"));
        };
        let bytes = io(fs::metadata(&path), "read the size of", &path)?.len();
        let mut file = io(File::open(&path), "open", &path)?;
        let mut tail = [0; 4];
        let whole = bytes >= 12 && {
            use std::io::{Read, Seek, SeekFrom};
            io(file.seek(SeekFrom::End(-4)), "read", &path)?;
            io(file.read_exact(&mut tail), "read", &path)?;
            &tail == b"PAR1"
        };
        if whole { Ok(Self { path, first, last, bytes }) } else { Err(damaged("it does not end as a Parquet file")) }
    }
}

/// Whether temporary files of an earlier process are cleared away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    Remove,
    Keep,
}

/// One of `logs`, `spans`, `metrics`.
#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    dir: PathBuf,
    schema: SchemaRef,
    closed: Vec<Arc<Segment>>,
    open: Option<OpenSegment>,
}

/// Everything a reader needs, as of one moment.
#[derive(Clone, Debug)]
pub(crate) struct TableSnapshot {
    pub(crate) schema: SchemaRef,
    pub(crate) closed: Vec<Arc<Segment>>,
    pub(crate) open: Vec<RecordBatch>,
}

impl Table {
    pub(crate) fn open(
        dir: &Path,
        name: &'static str,
        schema: SchemaRef,
        leftovers: Leftovers,
    ) -> Result<Self, StoreError> {
        let dir = dir.join(name);
        if leftovers == Leftovers::Remove {
            io(fs::create_dir_all(&dir), "create", &dir)?;
        }
        let mut closed = Vec::new();
        if dir.exists() {
            for entry in io(fs::read_dir(&dir), "list", &dir)? {
                let path = io(entry, "list", &dir)?.path();
                let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if file_name.ends_with(TEMPORARY_SUFFIX) {
                    if leftovers == Leftovers::Remove {
                        tracing::warn!(file = %path.display(), "removing a segment that a crash left unfinished");
                        io(fs::remove_file(&path), "remove", &path)?;
                    }
                } else if file_name.ends_with(SUFFIX) {
                    closed.push(Arc::new(Segment::from_file(path)?));
                }
            }
        }
        closed.sort_by_key(|segment| (segment.first, segment.last));
        let table = Self { name, dir, schema, closed, open: None };
        table.publish_gauges();
        Ok(table)
    }

    /// Largest record id in a closed segment; 0 when there is none.
    pub(crate) fn last_closed_id(&self) -> RecordId {
        self.closed.iter().map(|segment| segment.last).max().unwrap_or(0)
    }

    pub(crate) fn snapshot(&self) -> TableSnapshot {
        let open = self.open.iter().flat_map(|open| open.runs.iter().chain(&open.pending)).cloned().collect();
        TableSnapshot { schema: Arc::clone(&self.schema), closed: self.closed.clone(), open }
    }

    /// Takes one batch. On an error the batch has not been taken.
    pub(crate) fn append(
        &mut self,
        batch: &RecordBatch,
        ids: (RecordId, RecordId),
        config: &StoreConfig,
    ) -> Result<(), StoreError> {
        if self.open.as_ref().is_some_and(|open| open.is_full(config)) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| OpenSegment::new(&self.dir, ids.0));
        open.push(batch, ids);
        let full = open.is_full(config);
        if let Err(error) = open.gather(&self.schema, full).and_then(|()| if full { self.close() } else { Ok(()) }) {
            // The records are safe in memory; the next append or flush starts the file over.
            metrics::counter!("faultline_store_write_failures_total", "table" => self.name).increment(1);
            tracing::warn!(table = self.name, error = %with_causes(&error), "cannot write to the open segment yet");
        }
        self.publish_gauges();
        Ok(())
    }

    /// Closes the open segment when it is older than `max_age`.
    pub(crate) fn close_if_older_than(&mut self, max_age: Duration) -> Result<(), StoreError> {
        if self.open.as_ref().is_some_and(|open| open.since.elapsed() >= max_age) { self.close() } else { Ok(()) }
    }

    /// Writes the open segment out and makes it a closed one. On an error it stays open and whole.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let segment = match open.finish(&self.dir, &self.schema) {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                open.forget_file();
                return Err(error);
            }
        };
        self.open = None;
        // The same records closed again after a replay take the place of the file they have just overwritten.
        self.closed.retain(|other| other.path != segment.path);
        self.closed.push(segment);
        metrics::counter!("faultline_store_segments_closed_total", "table" => self.name).increment(1);
        self.publish_gauges();
        Ok(())
    }

    fn publish_gauges(&self) {
        let open_bytes = self.open.as_ref().map_or(0, |open| open.bytes);
        metrics::gauge!("faultline_store_segments", "table" => self.name).set(self.closed.len() as f64);
        metrics::gauge!("faultline_store_open_segment_bytes", "table" => self.name).set(open_bytes as f64);
        let closed_bytes: u64 = self.closed.iter().map(|segment| segment.bytes).sum();
        metrics::gauge!("faultline_store_segment_bytes", "table" => self.name).set(closed_bytes as f64);
    }
}

/// The segment that is being filled.
struct OpenSegment {
    first: RecordId,
    last: RecordId,
    /// Gathered runs; the first `n_written` of them are in the file.
    runs: Vec<RecordBatch>,
    n_written: usize,
    /// Batches too small to be a run of their own yet.
    pending: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    since: Instant,
    temporary: PathBuf,
    writer: Option<ArrowWriter<File>>,
}

impl std::fmt::Debug for OpenSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenSegment({}..={}, {} rows)", self.first, self.last, self.rows)
    }
}

impl OpenSegment {
    fn new(dir: &Path, first: RecordId) -> Self {
        Self {
            first,
            last: first,
            runs: Vec::new(),
            n_written: 0,
            pending: Vec::new(),
            rows: 0,
            bytes: 0,
            since: Instant::now(),
            temporary: dir.join(format!("{first:020}{TEMPORARY_SUFFIX}")),
            writer: None,
        }
    }

    fn push(&mut self, batch: &RecordBatch, (first, last): (RecordId, RecordId)) {
        self.first = self.first.min(first);
        self.last = self.last.max(last);
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.pending.push(batch.clone());
    }

    fn is_full(&self, config: &StoreConfig) -> bool {
        self.rows >= config.segment_max_rows
            || self.bytes >= config.segment_max_bytes
            || self.since.elapsed() >= Duration::from_secs(config.segment_max_age_secs)
    }

    /// Makes a run of the pending batches once they are many enough (or `all` must go), and encodes it.
    fn gather(&mut self, schema: &SchemaRef, all: bool) -> Result<(), StoreError> {
        let rows: usize = self.pending.iter().map(RecordBatch::num_rows).sum();
        let due = all || rows >= RUN_ROWS || self.pending.len() >= RUN_BATCHES;
        if !due || self.pending.is_empty() {
            return Ok(());
        }
        if let [only] = self.pending.as_slice() {
            self.runs.push(only.clone());
        } else {
            let before: usize = self.pending.iter().map(RecordBatch::get_array_memory_size).sum();
            let run = concat_batches(schema, &self.pending)
                .map_err(|error| StoreError::Internal { what: format!("cannot join batches: {error}") })?;
            self.bytes = (self.bytes + run.get_array_memory_size()).saturating_sub(before);
            self.runs.push(run);
        }
        self.pending.clear();
        let written = self.write_runs(schema);
        if written.is_err() {
            self.forget_file();
        }
        written
    }

    fn write_runs(&mut self, schema: &SchemaRef) -> Result<(), StoreError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let file = io(File::create(&self.temporary), "create", &self.temporary)?;
                let options = ArrowWriterOptions::new().with_properties(writer_properties(schema));
                let writer = ArrowWriter::try_new_with_options(file, Arc::clone(schema), options)
                    .map_err(|source| StoreError::Write { path: self.temporary.clone(), source })?;
                self.writer.insert(writer)
            }
        };
        for run in &self.runs[self.n_written..] {
            writer.write(run).map_err(|source| StoreError::Write { path: self.temporary.clone(), source })?;
            self.n_written += 1;
        }
        Ok(())
    }

    /// Finishes, syncs and renames the file.
    fn finish(&mut self, dir: &Path, schema: &SchemaRef) -> Result<Segment, StoreError> {
        self.gather(schema, true)?;
        self.write_runs(schema)?;
        let write_error = |source: ParquetError| StoreError::Write { path: self.temporary.clone(), source };
        let writer = self.writer.take().ok_or_else(|| StoreError::Internal { what: "no segment writer".into() })?;
        let file = writer.into_inner().map_err(write_error)?;
        io(file.sync_all(), "sync", &self.temporary)?;
        let bytes = io(file.metadata(), "read the size of", &self.temporary)?.len();
        let path = dir.join(Segment::file_name(self.first, self.last));
        io(fs::rename(&self.temporary, &path), "rename", &self.temporary)?;
        io(File::open(dir).and_then(|dir| dir.sync_all()), "sync", dir)?;
        Ok(Segment { path, first: self.first, last: self.last, bytes })
    }

    /// After a failed write: drops the file, so that the next attempt begins with the first run.
    fn forget_file(&mut self) {
        self.writer = None;
        self.n_written = 0;
        // Already gone or still in the way: either way the next attempt truncates it.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// How each column is encoded. A dictionary pays where values come again (names, templates, parameters, sessions); ids
/// and times grow in small steps, and free text is left to the compressor, without bounds that no query could use.
fn writer_properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a zstd level")))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(concat!("faultline ", env!("CARGO_PKG_VERSION")).into());
    for field in schema.fields() {
        let column = ColumnPath::from(field.name().as_str());
        if field.name() == "record_id" || matches!(field.data_type(), DataType::Timestamp(..)) {
            properties = properties
                .set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED)
                .set_column_dictionary_enabled(column, false);
        } else if FREE_TEXT.contains(&field.name().as_str()) {
            properties = properties
                .set_column_statistics_enabled(column.clone(), EnabledStatistics::None)
                .set_column_dictionary_enabled(column, matches!(field.data_type(), DataType::Dictionary(..)));
        }
    }
    properties.build()
}

/// Smallest and largest record id of a batch; `None` for an empty batch, 0 where a record has none.
pub(crate) fn id_range(record_id: &UInt64Array) -> Option<(RecordId, RecordId)> {
    Some((min(record_id)?, max(record_id)?))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
