//! A batch of metric points with its columns at hand, and what each point is by its kind.

use arrow::{
    array::{
        Array, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, PrimitiveArray, StringArray,
        TimestampNanosecondArray, UInt32Array, UInt64Array,
    },
    datatypes::{ArrowNativeType, ArrowPrimitiveType},
};
use faultline_core::{MetricBatch, RecordId, batch::DictArray};

use super::track::{Merge, NEVER};

/// OpenTelemetry data point flag: no value recorded.
const NO_VALUE: u32 = 1;

/// What the points of a source are, of OpenTelemetry's kinds and temporalities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A gauge, or a cumulative sum that may fall.
    Level,
    /// A delta sum that only grows.
    Delta,
    /// A delta sum that may fall.
    Change,
    /// A cumulative sum that only grows.
    Counter,
    DeltaHistogram,
    Histogram,
    DeltaExponential,
    Exponential,
    Summary,
}

impl Form {
    /// Whether a point has everything since its start in it.
    pub fn is_cumulative(self) -> bool {
        matches!(self, Self::Counter | Self::Histogram | Self::Exponential | Self::Summary)
    }

    /// What two of its points are together, once they are increments.
    pub fn merge(self) -> Merge {
        if self == Self::Level { Merge::Latest } else { Merge::Sum }
    }
}

/// A value with all its bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Double(f64),
}

impl Number {
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    /// The difference, exact for integers before it is rounded.
    pub fn minus(self, earlier: Self) -> f64 {
        match (self, earlier) {
            (Self::Int(now), Self::Int(then)) => (i128::from(now) - i128::from(then)) as f64,
            (now, then) => now.to_f64() - then.to_f64(),
        }
    }
}

/// A column of lists.
#[derive(Debug)]
pub(super) struct Lists<'a, T> {
    list: &'a ListArray,
    items: &'a [T],
}

impl<'a, T: ArrowNativeType> Lists<'a, T> {
    fn of<A: ArrowPrimitiveType<Native = T>>(list: &'a ListArray) -> Self {
        let items = list.values().as_any().downcast_ref::<PrimitiveArray<A>>();
        Self { list, items: items.map(|items| &items.values()[..]).unwrap_or_default() }
    }

    /// The list of a row; empty when not given.
    pub fn row(&self, row: usize) -> &'a [T] {
        if self.list.is_null(row) {
            return &[];
        }
        let offsets = self.list.value_offsets();
        self.items.get(offsets[row] as usize..offsets[row + 1] as usize).unwrap_or_default()
    }
}

/// The columns of a batch.
#[derive(Debug)]
pub(super) struct Points<'a> {
    pub times: &'a TimestampNanosecondArray,
    starts: &'a TimestampNanosecondArray,
    records: &'a UInt64Array,
    doubles: &'a Float64Array,
    ints: &'a Int64Array,
    counts: &'a UInt64Array,
    sums: &'a Float64Array,
    mins: &'a Float64Array,
    maxes: &'a Float64Array,
    pub buckets: Lists<'a, u64>,
    pub negative_buckets: Lists<'a, u64>,
    pub bounds: Lists<'a, f64>,
    pub quantile_values: Lists<'a, f64>,
    scales: &'a Int32Array,
    zeros: &'a UInt64Array,
    positive_offsets: &'a Int32Array,
    negative_offsets: &'a Int32Array,
    flags: &'a UInt32Array,
    attributes: &'a StringArray,
    monotonic: &'a BooleanArray,
    kinds: Vec<&'a str>,
    kind_keys: &'a Int32Array,
    temporalities: Vec<&'a str>,
    temporality_keys: &'a Int32Array,
}

impl<'a> Points<'a> {
    pub fn of(batch: &'a MetricBatch) -> Self {
        use arrow::datatypes::{Float64Type, UInt64Type};
        Self {
            times: batch.time_unix_nano(),
            starts: batch.start_time_unix_nano(),
            records: batch.record_id(),
            doubles: batch.value_double(),
            ints: batch.value_int(),
            counts: batch.count(),
            sums: batch.sum(),
            mins: batch.min(),
            maxes: batch.max(),
            buckets: Lists::of::<UInt64Type>(batch.bucket_counts()),
            negative_buckets: Lists::of::<UInt64Type>(batch.negative_bucket_counts()),
            bounds: Lists::of::<Float64Type>(batch.bounds()),
            quantile_values: Lists::of::<Float64Type>(batch.quantile_values()),
            scales: batch.scale(),
            zeros: batch.zero_count(),
            positive_offsets: batch.positive_offset(),
            negative_offsets: batch.negative_offset(),
            flags: batch.flags(),
            attributes: batch.attributes(),
            monotonic: batch.monotonic(),
            kinds: texts(batch.kind()),
            kind_keys: batch.kind().keys(),
            temporalities: texts(batch.temporality()),
            temporality_keys: batch.temporality().keys(),
        }
    }

    pub fn is_without_value(&self, row: usize) -> bool {
        self.flags.is_valid(row) && self.flags.value(row) & NO_VALUE != 0
    }

    /// What the point is; `None` for a kind that is not known. A sum or histogram without temporality counts as
    /// cumulative.
    pub fn form(&self, row: usize) -> Option<Form> {
        let is_delta = text_at(&self.temporalities, self.temporality_keys, row) == "delta";
        let is_monotonic = self.monotonic.is_valid(row) && self.monotonic.value(row);
        match (text_at(&self.kinds, self.kind_keys, row), is_delta) {
            ("gauge", _) => Some(Form::Level),
            ("sum", true) => Some(if is_monotonic { Form::Delta } else { Form::Change }),
            ("sum", false) => Some(if is_monotonic { Form::Counter } else { Form::Level }),
            ("histogram", true) => Some(Form::DeltaHistogram),
            ("histogram", false) => Some(Form::Histogram),
            ("exponential_histogram", true) => Some(Form::DeltaExponential),
            ("exponential_histogram", false) => Some(Form::Exponential),
            ("summary", _) => Some(Form::Summary),
            _ => None,
        }
    }

    pub fn record(&self, row: usize) -> RecordId {
        self.records.value(row)
    }

    /// Attributes as they came; empty when there are none.
    pub fn attributes(&self, row: usize) -> &'a str {
        if self.attributes.is_null(row) { "" } else { self.attributes.value(row) }
    }

    /// Start of the interval, [`NEVER`] when not given.
    pub fn start(&self, row: usize) -> i64 {
        if self.starts.is_null(row) { NEVER } else { self.starts.value(row) }
    }

    pub fn number(&self, row: usize) -> Option<Number> {
        if self.doubles.is_valid(row) {
            Some(Number::Double(self.doubles.value(row)))
        } else {
            self.ints.is_valid(row).then(|| Number::Int(self.ints.value(row)))
        }
    }

    pub fn count(&self, row: usize) -> Option<u64> {
        self.counts.is_valid(row).then(|| self.counts.value(row))
    }

    /// Sum of the values, NaN when not given.
    pub fn sum(&self, row: usize) -> f64 {
        double(self.sums, row)
    }

    /// The least and the greatest value, NaN when not given.
    pub fn extremes(&self, row: usize) -> (f64, f64) {
        (double(self.mins, row), double(self.maxes, row))
    }

    pub fn scale(&self, row: usize) -> i32 {
        int(self.scales, row)
    }

    pub fn zero_count(&self, row: usize) -> u64 {
        if self.zeros.is_null(row) { 0 } else { self.zeros.value(row) }
    }

    /// Index of the first positive and of the first negative bucket.
    pub fn offsets(&self, row: usize) -> (i32, i32) {
        (int(self.positive_offsets, row), int(self.negative_offsets, row))
    }
}

/// Values of a dictionary column by key.
pub(super) fn texts(column: &DictArray) -> Vec<&str> {
    let values = column.values().as_any().downcast_ref::<StringArray>();
    values.map(|values| values.iter().map(Option::unwrap_or_default).collect()).unwrap_or_default()
}

/// The text of a row; empty when null.
pub(super) fn text_at<'a>(texts: &[&'a str], keys: &Int32Array, row: usize) -> &'a str {
    key_at(keys, row).and_then(|key| texts.get(key)).copied().unwrap_or_default()
}

/// The key of a row; `None` when null.
pub(super) fn key_at(keys: &Int32Array, row: usize) -> Option<usize> {
    if keys.is_null(row) { None } else { usize::try_from(keys.value(row)).ok() }
}

fn double(column: &Float64Array, row: usize) -> f64 {
    if column.is_null(row) { f64::NAN } else { column.value(row) }
}

fn int(column: &Int32Array, row: usize) -> i32 {
    if column.is_null(row) { 0 } else { column.value(row) }
}
