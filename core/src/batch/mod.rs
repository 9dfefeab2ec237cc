//! The three batch types that travel the path, each checked against one documented Arrow schema.
//!
//! Batches are columnar from decode to Parquet. A batch type is a [`RecordBatch`] that has passed
//! [`SchemaError`]'s checks once, so its accessors hand out typed columns without checking again.
//! Attributes and resources travel as JSON object text (OTLP/JSON values, flattened to plain JSON); identifiers as
//! lower-case hexadecimal text, because that is what people type into a query.

mod log;
mod metric;
mod span;

use std::sync::Arc;

use arrow::{
    array::{Array, DictionaryArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int32Type, Schema, TimeUnit},
};

pub use log::{LogBatch, LogBatchBuilder, LogRecord, params_builder};
pub use metric::{MetricBatch, MetricBatchBuilder, MetricPoint};
pub use span::{SpanBatch, SpanBatchBuilder, SpanRecord};

use crate::error::{Classified, Domain};

/// A record batch that does not have the columns its type promises.
#[derive(Debug, thiserror::Error)]
#[error("{kind} batch: column {column}: {reason}")]
pub struct SchemaError {
    kind: &'static str,
    column: String,
    reason: String,
}

impl Classified for SchemaError {
    fn domain(&self) -> Domain {
        Domain::Internal
    }

    fn retryable(&self) -> bool {
        false
    }
}

/// Any of the three.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Log records.
    Logs(LogBatch),
    /// Spans.
    Spans(SpanBatch),
    /// Metric points.
    Metrics(MetricBatch),
}

impl Batch {
    /// Number of records.
    #[must_use]
    pub fn n_records(&self) -> usize {
        self.as_arrow().num_rows()
    }

    /// Lower-case name of the signal: `logs`, `spans`, `metrics`; also the SQL table.
    #[must_use]
    pub fn table(&self) -> &'static str {
        match self {
            Self::Logs(_) => "logs",
            Self::Spans(_) => "spans",
            Self::Metrics(_) => "metrics",
        }
    }

    /// The columns.
    #[must_use]
    pub fn as_arrow(&self) -> &RecordBatch {
        match self {
            Self::Logs(batch) => batch.as_arrow(),
            Self::Spans(batch) => batch.as_arrow(),
            Self::Metrics(batch) => batch.as_arrow(),
        }
    }

    /// The same batch with `record_id` numbered from `first`.
    #[must_use]
    pub fn numbered_from(self, first: u64) -> Self {
        match self {
            Self::Logs(batch) => Self::Logs(batch.numbered_from(first)),
            Self::Spans(batch) => Self::Spans(batch.numbered_from(first)),
            Self::Metrics(batch) => Self::Metrics(batch.numbered_from(first)),
        }
    }
}

/// A column of few distinct strings.
pub type DictArray = DictionaryArray<Int32Type>;

/// Text of row `row` in a dictionary column, `None` when null.
#[must_use]
pub fn dict_value(column: &DictArray, row: usize) -> Option<&str> {
    let key = column.key(row)?;
    let values = column.values().as_any().downcast_ref::<StringArray>()?;
    (!values.is_null(key)).then(|| values.value(key))
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::from("UTC")))
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Checks that `batch` has exactly the fields of `schema`, in order, and no nulls where they are forbidden.
fn check(kind: &'static str, schema: &Schema, batch: &RecordBatch) -> Result<(), SchemaError> {
    let actual = batch.schema();
    if actual.fields().len() != schema.fields().len() {
        let reason = format!("expected {} columns, got {}", schema.fields().len(), actual.fields().len());
        return Err(SchemaError { kind, column: "*".into(), reason });
    }
    for (idx, (want, got)) in schema.fields().iter().zip(actual.fields()).enumerate() {
        let problem = if want.name() != got.name() {
            Some(format!("found column {} in its place", got.name()))
        } else if want.data_type() != got.data_type() {
            Some(format!("expected {}, got {}", want.data_type(), got.data_type()))
        } else if !want.is_nullable() && batch.column(idx).null_count() > 0 {
            Some("has nulls".into())
        } else {
            None
        };
        if let Some(reason) = problem {
            return Err(SchemaError { kind, column: want.name().clone(), reason });
        }
    }
    Ok(())
}

fn field(name: &str, data_type: DataType, nullable: Nullable) -> Field {
    Field::new(name, data_type, nullable == Nullable::Yes)
}

#[derive(Clone, Copy, PartialEq)]
enum Nullable {
    Yes,
    No,
}

/// Declares a batch type: its schema, the checked constructor and the typed column accessors.
macro_rules! batch_type {
    (
        $(#[$doc:meta])* $name:ident, $kind:literal,
        { $( $(#[$column_doc:meta])* $column:ident : $array:ty = $data_type:expr, $nullable:ident; )* }
    ) => {
        /// Each column's place in the schema, which is its place in the declaration.
        #[allow(non_camel_case_types, reason = "named as the columns are")]
        enum Place {
            $( $column, )*
        }

        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(arrow::array::RecordBatch);

        impl $name {
            /// The schema every batch of this type has.
            #[must_use]
            pub fn schema() -> arrow::datatypes::SchemaRef {
                static SCHEMA: std::sync::LazyLock<arrow::datatypes::SchemaRef> = std::sync::LazyLock::new(|| {
                    std::sync::Arc::new(arrow::datatypes::Schema::new(vec![
                        $( $crate::batch::field(stringify!($column), $data_type, $crate::batch::Nullable::$nullable), )*
                    ]))
                });
                std::sync::Arc::clone(&SCHEMA)
            }

            /// Checks the columns once.
            ///
            /// # Errors
            /// Names the first column that is missing, of another type, or null where that is forbidden.
            pub fn try_new(batch: arrow::array::RecordBatch) -> Result<Self, $crate::batch::SchemaError> {
                $crate::batch::check($kind, &Self::schema(), &batch)?;
                Ok(Self(batch))
            }

            /// The columns.
            #[must_use]
            pub fn as_arrow(&self) -> &arrow::array::RecordBatch {
                &self.0
            }

            /// Gives the columns up.
            #[must_use]
            pub fn into_arrow(self) -> arrow::array::RecordBatch {
                self.0
            }

            /// Number of records.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.num_rows()
            }

            /// Whether it holds no record.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.0.num_rows() == 0
            }

            /// `len` records from row `first` on. Copies nothing.
            ///
            /// # Panics
            /// When there are fewer.
            #[must_use]
            pub fn slice(&self, first: usize, len: usize) -> Self {
                Self(self.0.slice(first, len))
            }

            /// The same batch with `column` replaced.
            ///
            /// # Errors
            /// When the new column has another type or length, or nulls where they are forbidden.
            pub fn with_column(
                self,
                column: &str,
                values: arrow::array::ArrayRef,
            ) -> Result<Self, $crate::batch::SchemaError> {
                let schema = Self::schema();
                let wrong = |reason: String| $crate::batch::SchemaError { kind: $kind, column: column.into(), reason };
                let idx = schema.index_of(column).map_err(|error| wrong(error.to_string()))?;
                let mut columns = self.0.columns().to_vec();
                columns[idx] = values;
                arrow::array::RecordBatch::try_new(schema, columns)
                    .map(Self)
                    .map_err(|error| wrong(error.to_string()))
            }

            /// The same batch with `record_id` numbered from `first`.
            #[must_use]
            pub fn numbered_from(self, first: u64) -> Self {
                let ids = arrow::array::UInt64Array::from_iter_values(first..first + self.len() as u64);
                self.with_column("record_id", std::sync::Arc::new(ids)).expect("one id for each record")
            }

            $(
                $(#[$column_doc])*
                #[must_use]
                pub fn $column(&self) -> &$array {
                    let column = self.0.column(Place::$column as usize);
                    column.as_any().downcast_ref().expect("try_new checked the type of each column")
                }
            )*
        }
    };
}
use batch_type;
