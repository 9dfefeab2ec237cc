//! Metric points in columns: one row a point, whatever its kind.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array,
        Int64Builder, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder,
        TimestampNanosecondArray, TimestampNanosecondBuilder, UInt32Array, UInt32Builder, UInt64Array, UInt64Builder,
    },
    datatypes::{DataType, Field, Int32Type},
};

use super::{
    DictArray, batch_type, dictionary,
    log::{append_dict, given},
    timestamp,
};

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

batch_type! {
    /// Metric points. `kind` says which of the value columns are set.
    MetricBatch, "metric",
    {
        /// Position among everything accepted, set at station 3; 0 before.
        record_id: UInt64Array = DataType::UInt64, No;
        /// Metric name.
        name: DictArray = dictionary(), No;
        /// UCUM unit.
        unit: DictArray = dictionary(), Yes;
        /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
        kind: DictArray = dictionary(), No;
        /// `delta` or `cumulative`; null where it has no meaning.
        temporality: DictArray = dictionary(), Yes;
        /// Whether a sum only grows.
        monotonic: BooleanArray = DataType::Boolean, Yes;
        /// `service.name` of the resource.
        service_name: DictArray = dictionary(), Yes;
        /// Start of the interval; null when not given.
        start_time_unix_nano: TimestampNanosecondArray = timestamp(), Yes;
        /// Time of the point.
        time_unix_nano: TimestampNanosecondArray = timestamp(), No;
        /// Value of a floating-point gauge or sum.
        value_double: Float64Array = DataType::Float64, Yes;
        /// Value of an integer gauge or sum, all 64 bits.
        value_int: Int64Array = DataType::Int64, Yes;
        /// Count of a histogram or summary.
        count: UInt64Array = DataType::UInt64, Yes;
        /// Sum of a histogram or summary.
        sum: Float64Array = DataType::Float64, Yes;
        /// Smallest value in a histogram.
        min: Float64Array = DataType::Float64, Yes;
        /// Largest value in a histogram.
        max: Float64Array = DataType::Float64, Yes;
        /// Counts per bucket; of the positive range for an exponential histogram.
        bucket_counts: ListArray = list_of(DataType::UInt64), Yes;
        /// Upper bounds of a histogram's buckets; quantiles of a summary.
        bounds: ListArray = list_of(DataType::Float64), Yes;
        /// Values at the quantiles of a summary.
        quantile_values: ListArray = list_of(DataType::Float64), Yes;
        /// Scale of an exponential histogram.
        scale: Int32Array = DataType::Int32, Yes;
        /// Observations at zero.
        zero_count: UInt64Array = DataType::UInt64, Yes;
        /// Index of the first positive bucket.
        positive_offset: Int32Array = DataType::Int32, Yes;
        /// Index of the first negative bucket.
        negative_offset: Int32Array = DataType::Int32, Yes;
        /// Counts per bucket of the negative range.
        negative_bucket_counts: ListArray = list_of(DataType::UInt64), Yes;
        /// OpenTelemetry data point flags (1: no value recorded).
        flags: UInt32Array = DataType::UInt32, Yes;
        /// Attributes as a JSON object; null when there are none.
        attributes: StringArray = DataType::Utf8, Yes;
        /// Exemplars as a JSON array; null when there are none.
        exemplars: StringArray = DataType::Utf8, Yes;
        /// Resource attributes as a JSON object.
        resource: DictArray = dictionary(), Yes;
        /// Name of the instrumentation scope.
        scope_name: DictArray = dictionary(), Yes;
    }
}

/// One point as a decoder hands it over. Empty text and empty lists mean "not given".
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct MetricPoint<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    pub kind: &'a str,
    pub temporality: &'a str,
    pub monotonic: Option<bool>,
    pub service_name: &'a str,
    pub start_time_unix_nano: i64,
    pub time_unix_nano: i64,
    pub value_double: Option<f64>,
    pub value_int: Option<i64>,
    pub count: Option<u64>,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub bucket_counts: &'a [u64],
    pub bounds: &'a [f64],
    pub quantile_values: &'a [f64],
    pub scale: Option<i32>,
    pub zero_count: Option<u64>,
    pub positive_offset: Option<i32>,
    pub negative_offset: Option<i32>,
    pub negative_bucket_counts: &'a [u64],
    pub flags: u32,
    pub attributes: &'a str,
    pub exemplars: &'a str,
    pub resource: &'a str,
    pub scope_name: &'a str,
}

/// Appends points to columns.
pub struct MetricBatchBuilder {
    name: StringDictionaryBuilder<Int32Type>,
    unit: StringDictionaryBuilder<Int32Type>,
    kind: StringDictionaryBuilder<Int32Type>,
    temporality: StringDictionaryBuilder<Int32Type>,
    monotonic: BooleanBuilder,
    service_name: StringDictionaryBuilder<Int32Type>,
    start: TimestampNanosecondBuilder,
    time: TimestampNanosecondBuilder,
    value_double: Float64Builder,
    value_int: Int64Builder,
    count: UInt64Builder,
    sum: Float64Builder,
    min: Float64Builder,
    max: Float64Builder,
    bucket_counts: ListBuilder<UInt64Builder>,
    bounds: ListBuilder<Float64Builder>,
    quantile_values: ListBuilder<Float64Builder>,
    scale: Int32Builder,
    zero_count: UInt64Builder,
    positive_offset: Int32Builder,
    negative_offset: Int32Builder,
    negative_bucket_counts: ListBuilder<UInt64Builder>,
    flags: UInt32Builder,
    attributes: StringBuilder,
    exemplars: StringBuilder,
    resource: StringDictionaryBuilder<Int32Type>,
    scope_name: StringDictionaryBuilder<Int32Type>,
    n_records: usize,
}

impl Default for MetricBatchBuilder {
    fn default() -> Self {
        Self {
            name: StringDictionaryBuilder::new(),
            unit: StringDictionaryBuilder::new(),
            kind: StringDictionaryBuilder::new(),
            temporality: StringDictionaryBuilder::new(),
            monotonic: BooleanBuilder::new(),
            service_name: StringDictionaryBuilder::new(),
            start: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            time: TimestampNanosecondBuilder::new().with_timezone("UTC"),
            value_double: Float64Builder::new(),
            value_int: Int64Builder::new(),
            count: UInt64Builder::new(),
            sum: Float64Builder::new(),
            min: Float64Builder::new(),
            max: Float64Builder::new(),
            bucket_counts: ListBuilder::new(UInt64Builder::new()),
            bounds: ListBuilder::new(Float64Builder::new()),
            quantile_values: ListBuilder::new(Float64Builder::new()),
            scale: Int32Builder::new(),
            zero_count: UInt64Builder::new(),
            positive_offset: Int32Builder::new(),
            negative_offset: Int32Builder::new(),
            negative_bucket_counts: ListBuilder::new(UInt64Builder::new()),
            flags: UInt32Builder::new(),
            attributes: StringBuilder::new(),
            exemplars: StringBuilder::new(),
            resource: StringDictionaryBuilder::new(),
            scope_name: StringDictionaryBuilder::new(),
            n_records: 0,
        }
    }
}

impl MetricBatchBuilder {
    /// Adds one point.
    pub fn push(&mut self, point: &MetricPoint<'_>) {
        self.name.append_value(point.name);
        append_dict(&mut self.unit, point.unit);
        self.kind.append_value(point.kind);
        append_dict(&mut self.temporality, point.temporality);
        self.monotonic.append_option(point.monotonic);
        append_dict(&mut self.service_name, point.service_name);
        self.start.append_option((point.start_time_unix_nano != 0).then_some(point.start_time_unix_nano));
        self.time.append_value(point.time_unix_nano);
        self.value_double.append_option(point.value_double);
        self.value_int.append_option(point.value_int);
        self.count.append_option(point.count);
        self.sum.append_option(point.sum);
        self.min.append_option(point.min);
        self.max.append_option(point.max);
        append_u64s(&mut self.bucket_counts, point.bucket_counts);
        append_f64s(&mut self.bounds, point.bounds);
        append_f64s(&mut self.quantile_values, point.quantile_values);
        self.scale.append_option(point.scale);
        self.zero_count.append_option(point.zero_count);
        self.positive_offset.append_option(point.positive_offset);
        self.negative_offset.append_option(point.negative_offset);
        append_u64s(&mut self.negative_bucket_counts, point.negative_bucket_counts);
        self.flags.append_option((point.flags != 0).then_some(point.flags));
        self.attributes.append_option(given(point.attributes));
        self.exemplars.append_option(given(point.exemplars));
        append_dict(&mut self.resource, point.resource);
        append_dict(&mut self.scope_name, point.scope_name);
        self.n_records += 1;
    }

    /// Points so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_records
    }

    /// Whether no point has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_records == 0
    }

    /// The batch; the builder is empty afterwards.
    pub fn finish(&mut self) -> MetricBatch {
        let n_records = std::mem::take(&mut self.n_records);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_value(0, n_records)),
            Arc::new(self.name.finish()),
            Arc::new(self.unit.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.temporality.finish()),
            Arc::new(self.monotonic.finish()),
            Arc::new(self.service_name.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.value_double.finish()),
            Arc::new(self.value_int.finish()),
            Arc::new(self.count.finish()),
            Arc::new(self.sum.finish()),
            Arc::new(self.min.finish()),
            Arc::new(self.max.finish()),
            Arc::new(self.bucket_counts.finish()),
            Arc::new(self.bounds.finish()),
            Arc::new(self.quantile_values.finish()),
            Arc::new(self.scale.finish()),
            Arc::new(self.zero_count.finish()),
            Arc::new(self.positive_offset.finish()),
            Arc::new(self.negative_offset.finish()),
            Arc::new(self.negative_bucket_counts.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.exemplars.finish()),
            Arc::new(self.resource.finish()),
            Arc::new(self.scope_name.finish()),
        ];
        let batch =
            RecordBatch::try_new(MetricBatch::schema(), columns).expect("the builder fills the schema's columns");
        MetricBatch::try_new(batch).expect("the builder fills the schema's columns")
    }
}

fn append_u64s(builder: &mut ListBuilder<UInt64Builder>, values: &[u64]) {
    builder.values().append_slice(values);
    builder.append(!values.is_empty());
}

fn append_f64s(builder: &mut ListBuilder<Float64Builder>, values: &[f64]) {
    builder.values().append_slice(values);
    builder.append(!values.is_empty());
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn integers_keep_all_their_bits_and_lists_come_back() {
        let mut builder = MetricBatchBuilder::default();
        let value_int = Some(i64::MAX - 1);
        builder.push(&MetricPoint { name: "bytes", kind: "sum", value_int, ..MetricPoint::default() });
        let (bucket_counts, bounds) = (&[1, 2, 3][..], &[0.5, 1.0][..]);
        builder.push(&MetricPoint { name: "t", kind: "histogram", bucket_counts, bounds, ..MetricPoint::default() });
        let batch = builder.finish();
        assert_eq!(batch.value_int().value(0), i64::MAX - 1);
        assert!(batch.bucket_counts().is_null(0));
        assert_eq!(batch.bucket_counts().value(1).len(), 3);
    }
}
