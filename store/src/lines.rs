//! The raw lines behind record ids: what evidence shows (station 10).
//!
//! Segments are chosen by the id range in their names, row groups by their statistics, pages by the Parquet page
//! index; only the columns of a [`Line`] are decoded. Cost: one footer a segment and one page run a cluster of ids.

use std::{collections::BTreeMap, fs::File, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch, UInt64Array},
    compute::{cast, filter_record_batch},
    datatypes::{DataType, TimestampNanosecondType, UInt64Type},
    error::ArrowError,
};
use faultline_core::{RecordId, TemplateId};
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
    error::{StoreError, io},
    segment::{Segment, TableSnapshot},
};

/// Most record ids that one call looks up.
pub const MAX_LINES: usize = 10_000;

const COLUMNS: [&str; 7] = ["record_id", "time_unix_nano", "service_name", "body", "header", "template_id", "trace_id"];

/// A log record as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its id.
    pub record_id: RecordId,
    /// Event time.
    pub time_unix_nano: i64,
    /// Service that wrote it; empty where the source names none.
    pub service: String,
    /// The line as it was read: `header || body`.
    pub raw: String,
    /// Its template.
    pub template_id: Option<TemplateId>,
    /// Its trace, 32 hexadecimal digits.
    pub trace_id: Option<String>,
}

/// The lines of `ids` (sorted, without duplicates) that exist, by record id.
pub(crate) fn find(table: &TableSnapshot, ids: &Arc<[RecordId]>) -> Result<Vec<Line>, StoreError> {
    let mut found = BTreeMap::new();
    for batch in &table.open {
        let chosen = batch
            .project_by_names()
            .and_then(|batch| filter_record_batch(&batch, &wanted(batch.column(0), ids)))
            .and_then(|batch| push_lines(&batch, &mut found));
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

fn find_in_file(file: File, ids: &Arc<[RecordId]>, found: &mut BTreeMap<RecordId, Line>) -> Result<(), ParquetError> {
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
    let columns = ProjectionMask::columns(schema, COLUMNS);
    let ids = Arc::clone(ids);
    let is_wanted = ArrowPredicateFn::new(id_only, move |batch: RecordBatch| Ok(wanted(batch.column(0), &ids)));
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer)
        .with_row_groups(row_groups)
        .with_row_filter(RowFilter::new(vec![Box::new(is_wanted)]))
        .with_projection(columns)
        .build()?;
    for batch in reader {
        let batch = batch?.project_by_names()?;
        push_lines(&batch, found)?;
    }
    Ok(())
}

fn wanted(record_ids: &dyn Array, ids: &[RecordId]) -> BooleanArray {
    let record_ids: &UInt64Array = record_ids.as_primitive();
    record_ids.values().iter().map(|id| Some(ids.binary_search(id).is_ok())).collect()
}

trait ProjectByNames {
    /// The [`COLUMNS`] in that order; text columns as plain text.
    fn project_by_names(&self) -> Result<RecordBatch, ArrowError>;
}

impl ProjectByNames for RecordBatch {
    fn project_by_names(&self) -> Result<RecordBatch, ArrowError> {
        let schema = self.schema();
        let indices = COLUMNS.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        self.project(&indices)
    }
}

fn push_lines(batch: &RecordBatch, found: &mut BTreeMap<RecordId, Line>) -> Result<(), ArrowError> {
    let record_id = batch.column(0).as_primitive::<UInt64Type>();
    let time = batch.column(1).as_primitive::<TimestampNanosecondType>();
    let service = cast(batch.column(2), &DataType::Utf8)?;
    let service = service.as_string::<i32>();
    let body = batch.column(3).as_string::<i32>();
    let header = batch.column(4).as_string::<i32>();
    let template_id = batch.column(5).as_primitive::<UInt64Type>();
    let trace_id = batch.column(6).as_string::<i32>();
    for row in 0..batch.num_rows() {
        let header = if header.is_null(row) { "" } else { header.value(row) };
        let line = Line {
            record_id: record_id.value(row),
            time_unix_nano: time.value(row),
            service: if service.is_null(row) { String::new() } else { service.value(row).to_owned() },
            raw: format!("{header}{}", body.value(row)),
            template_id: (!template_id.is_null(row)).then(|| TemplateId(template_id.value(row))),
            trace_id: (!trace_id.is_null(row)).then(|| trace_id.value(row).to_owned()),
        };
        found.insert(line.record_id, line);
    }
    Ok(())
}

/// Whether every page of a segment can be decoded; used to name the culprit after a query has failed.
pub(crate) fn verify(path: &std::path::Path) -> Result<(), ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?.build()?;
    for batch in reader {
        batch?;
    }
    Ok(())
}
