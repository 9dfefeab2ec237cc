//! Records by their ids: what evidence shows (station 10).
//!
//! Segments are chosen by the id range in their names, row groups by their statistics, pages by the Parquet page
//! index; only the columns that are shown are decoded. Cost: one footer a segment and one page run a cluster of ids.
//! A record that no segment holds any more is left out: ids outlive the segments that people delete.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array},
    compute::filter_record_batch,
    datatypes::UInt64Type,
    error::ArrowError,
};
use faultline_core::{Alert, RecordId, Signal};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
            statistics::StatisticsConverter,
        },
    },
    errors::ParquetError,
    file::metadata::PageIndexPolicy,
};

use crate::{
    Line, Point, Span, Store,
    database::lock,
    error::{StoreError, io},
    segment::{Segment, Table, TableSnapshot},
};

/// Most record ids that one call looks up.
pub const MAX_IDS: usize = 10_000;

/// The records that an alert names, as far as they exist, each with those of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Log lines, by record id.
    pub lines: Vec<Line>,
    /// Spans, by start, then record id.
    pub spans: Vec<Span>,
    /// Metric points, by time, then record id.
    pub points: Vec<Point>,
}

impl Store {
    /// The log lines among `ids` that exist, by record id; at most [`MAX_IDS`] ids.
    ///
    /// # Errors
    /// Too many ids, or a damaged segment, which the message names.
    pub fn lines(&self, ids: &[RecordId]) -> Result<Vec<Line>, StoreError> {
        by_ids(&self.0.logs, ids)
    }

    /// The spans among `ids` that exist, by start, then record id; at most [`MAX_IDS`] ids.
    ///
    /// # Errors
    /// As for [`Store::lines`].
    pub fn spans(&self, ids: &[RecordId]) -> Result<Vec<Span>, StoreError> {
        let mut spans: Vec<Span> = by_ids(&self.0.spans, ids)?;
        spans.sort_by_key(|span| (span.start_unix_nano, span.record_id));
        Ok(spans)
    }

    /// The metric points among `ids` that exist, by time, then record id; at most [`MAX_IDS`] ids.
    ///
    /// # Errors
    /// As for [`Store::lines`].
    pub fn points(&self, ids: &[RecordId]) -> Result<Vec<Point>, StoreError> {
        let mut points: Vec<Point> = by_ids(&self.0.metrics, ids)?;
        points.sort_by_key(|point| (point.time_unix_nano, point.record_id));
        Ok(points)
    }

    /// The records that the evidence of `alert` names and that exist. Its signal says what they are: log lines, spans, or
    /// metric points; and spans for a metric that was made of them, such as the error rate of an operation.
    ///
    /// # Errors
    /// As for [`Store::lines`].
    pub fn records_behind(&self, alert: &Alert) -> Result<Records, StoreError> {
        let ids = &alert.evidence.records;
        if alert.signal == Signal::Traces.name() {
            return Ok(Records { spans: self.spans(ids)?, ..Records::default() });
        }
        if alert.signal == Signal::Series.name() {
            let points = self.points(ids)?;
            let is_point = |id: &RecordId| points.iter().any(|point| point.record_id == *id);
            let others: Vec<RecordId> = ids.iter().copied().filter(|id| !is_point(id)).collect();
            return Ok(Records { spans: self.spans(&others)?, points, ..Records::default() });
        }
        Ok(Records { lines: self.lines(ids)?, ..Records::default() })
    }
}

/// A record as a person wants to see it.
pub(crate) trait Shown: Sized {
    /// The columns it is made of, `record_id` first.
    const COLUMNS: &'static [&'static str];

    /// Adds each row of `batch`, whose columns are [`Shown::COLUMNS`], under its record id.
    fn push(batch: &RecordBatch, found: &mut BTreeMap<RecordId, Self>) -> Result<(), ArrowError>;
}

fn by_ids<T: Shown>(table: &Mutex<Table>, ids: &[RecordId]) -> Result<Vec<T>, StoreError> {
    if ids.len() > MAX_IDS {
        return Err(StoreError::TooMany { what: "number of record ids", asked: ids.len(), limit: MAX_IDS });
    }
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let snapshot = lock(table).snapshot();
    find(&snapshot, &ids.into())
}

/// The records of `ids` (sorted, without duplicates) that exist, by record id.
fn find<T: Shown>(table: &TableSnapshot, ids: &Arc<[RecordId]>) -> Result<Vec<T>, StoreError> {
    let mut found = BTreeMap::new();
    for batch in &table.open {
        let chosen = project::<T>(batch)
            .and_then(|batch| filter_record_batch(&batch, &wanted(batch.column(0), ids)))
            .and_then(|batch| T::push(&batch, &mut found));
        chosen.map_err(|error| StoreError::Internal { what: format!("cannot read the open segment: {error}") })?;
    }
    for segment in &table.closed {
        let begin = ids.partition_point(|id| *id < segment.first);
        if ids.get(begin).is_some_and(|id| *id <= segment.last) {
            let file = io(File::open(&segment.path), "open", &segment.path)?;
            find_in_file(file, ids, &mut found).map_err(|error| damaged(segment, &error))?;
        }
    }
    Ok(found.into_values().collect())
}

fn damaged(segment: &Segment, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Segment { path: segment.path.clone(), reason: error.to_string() }
}

fn find_in_file<T: Shown>(
    file: File,
    ids: &Arc<[RecordId]>,
    found: &mut BTreeMap<RecordId, T>,
) -> Result<(), ParquetError> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let footer = ArrowReaderMetadata::load(&file, options)?;
    let metadata = footer.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let statistics = StatisticsConverter::try_new("record_id", footer.schema(), schema)?;
    let smallest = statistics.row_group_mins(metadata.row_groups())?;
    let largest = statistics.row_group_maxes(metadata.row_groups())?;
    let (smallest, largest) = (smallest.as_primitive::<UInt64Type>(), largest.as_primitive::<UInt64Type>());
    let row_groups = (0..metadata.num_row_groups())
        .filter(|&idx| {
            let begin = ids.partition_point(|id| *id < smallest.value(idx));
            // Without statistics nothing can be ruled out.
            smallest.is_null(idx) || largest.is_null(idx) || ids.get(begin).is_some_and(|id| *id <= largest.value(idx))
        })
        .collect();
    let id_only = ProjectionMask::columns(schema, ["record_id"]);
    let columns = ProjectionMask::columns(schema, T::COLUMNS.iter().copied());
    let ids = Arc::clone(ids);
    let is_wanted = ArrowPredicateFn::new(id_only, move |batch: RecordBatch| Ok(wanted(batch.column(0), &ids)));
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer)
        .with_row_groups(row_groups)
        .with_row_filter(RowFilter::new(vec![Box::new(is_wanted)]))
        .with_projection(columns)
        .build()?;
    for batch in reader {
        T::push(&project::<T>(&batch?)?, found)?;
    }
    Ok(())
}

fn wanted(record_ids: &dyn Array, ids: &[RecordId]) -> BooleanArray {
    let record_ids: &UInt64Array = record_ids.as_primitive();
    record_ids.values().iter().map(|id| Some(ids.binary_search(id).is_ok())).collect()
}

/// The columns that `T` is made of, in its order.
fn project<T: Shown>(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let indices = T::COLUMNS.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
    batch.project(&indices)
}

/// Text of a row, where there is any.
pub(crate) fn text_at(column: &StringArray, row: usize) -> Option<String> {
    (!column.is_null(row)).then(|| column.value(row).to_owned())
}

/// Whether every page of a segment can be decoded; used to name the culprit after a query has failed.
pub(crate) fn verify(path: &Path) -> Result<(), ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    for batch in reader {
        batch?;
    }
    Ok(())
}
