//! Metric points as evidence shows them (station 10), found by [`lookup`](crate::lookup).

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType, UInt64Type},
    error::ArrowError,
};
use faultline_core::RecordId;

use crate::lookup::{Shown, text_at};

/// A metric point as a person wants to see it. Values are in the metric's unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its id.
    pub record_id: RecordId,
    /// Time of the point, event time.
    pub time_unix_nano: i64,
    /// Service that it is of; empty where the source names none.
    pub service: String,
    /// Name of the metric.
    pub name: String,
    /// UCUM unit of the metric, where given.
    pub unit: Option<String>,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: String,
    /// `delta` (since the point before) or `cumulative` (since the counter began); none where it has no meaning.
    pub temporality: Option<String>,
    /// Attributes as a JSON object; none when there are none.
    pub attributes: Option<String>,
    /// What a gauge or a sum says; none for the other kinds, and where nothing was recorded.
    pub value: Option<PointValue>,
    /// Observations in a histogram or summary.
    pub count: Option<u64>,
    /// Sum of these, where the sender gives one.
    pub sum: Option<f64>,
}

/// The value of a gauge or sum, with all its digits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PointValue {
    /// An integer.
    Int(i64),
    /// A floating-point number, which may be infinite or NaN.
    Double(f64),
}

impl Shown for Point {
    const COLUMNS: &'static [&'static str] = &[
        "record_id",
        "time_unix_nano",
        "service_name",
        "name",
        "unit",
        "kind",
        "temporality",
        "attributes",
        "value_double",
        "value_int",
        "count",
        "sum",
    ];

    fn push(batch: &RecordBatch, found: &mut BTreeMap<RecordId, Self>) -> Result<(), ArrowError> {
        let record_id = batch.column(0).as_primitive::<UInt64Type>();
        let time = batch.column(1).as_primitive::<TimestampNanosecondType>();
        // Service, name, unit, kind and temporality have few values each and come as dictionaries.
        let texts = (2..7).map(|idx| cast(batch.column(idx), &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
        let text = |idx: usize, row: usize| text_at(texts[idx].as_string::<i32>(), row);
        let attributes = batch.column(7).as_string::<i32>();
        let value_double = batch.column(8).as_primitive::<Float64Type>();
        let value_int = batch.column(9).as_primitive::<Int64Type>();
        let count = batch.column(10).as_primitive::<UInt64Type>();
        let sum = batch.column(11).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let double = (!value_double.is_null(row)).then(|| PointValue::Double(value_double.value(row)));
            let int = (!value_int.is_null(row)).then(|| PointValue::Int(value_int.value(row)));
            let point = Self {
                record_id: record_id.value(row),
                time_unix_nano: time.value(row),
                service: text(0, row).unwrap_or_default(),
                name: text(1, row).unwrap_or_default(),
                unit: text(2, row),
                kind: text(3, row).unwrap_or_default(),
                temporality: text(4, row),
                attributes: text_at(attributes, row),
                value: int.or(double),
                count: (!count.is_null(row)).then(|| count.value(row)),
                sum: (!sum.is_null(row)).then(|| sum.value(row)),
            };
            found.insert(point.record_id, point);
        }
        Ok(())
    }
}
