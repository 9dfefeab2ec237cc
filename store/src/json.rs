//! Arrow columns as JSON values, for query results.
//!
//! Integers are JSON numbers with all their digits; timestamps are RFC 3339 text in UTC with nanoseconds; lists are
//! arrays, structs objects; NaN, infinities and null are `null`; whatever JSON has no form for (dates, decimals,
//! intervals, binary) is the text that Arrow prints.

use arrow::{
    array::{Array, AsArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::Value;

/// A short name for a column's type, as people write them.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "float64".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list<{}>", type_name(item.data_type()))
        }
        other => other.to_string().to_ascii_lowercase(),
    }
}

/// Text of a moment: RFC 3339, UTC, always nine digits after the second.
#[must_use]
pub fn rfc3339(unix_nano: i64) -> String {
    // Every i64 of nanoseconds lies between the years 1677 and 2262.
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_nano)).unwrap_or_default();
    format!("{time:.9}")
}

pub(crate) fn values(array: &dyn Array) -> Result<Vec<Value>, ArrowError> {
    let rows = 0..array.len();
    let or_null =
        |row: usize, value: &dyn Fn(usize) -> Value| if array.is_null(row) { Value::Null } else { value(row) };
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => {
            let array = array.as_boolean();
            rows.map(|row| or_null(row, &|row| array.value(row).into())).collect()
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            rows.map(|row| or_null(row, &|row| array.value(row).into())).collect()
        }
        DataType::LargeUtf8 | DataType::Utf8View => values(&cast(array, &DataType::Utf8)?)?,
        DataType::Dictionary(_, of) => values(&cast(array, of)?)?,
        DataType::UInt64 => {
            let array = array.as_primitive::<UInt64Type>();
            rows.map(|row| or_null(row, &|row| array.value(row).into())).collect()
        }
        DataType::Int64 => {
            let array = array.as_primitive::<Int64Type>();
            rows.map(|row| or_null(row, &|row| array.value(row).into())).collect()
        }
        other if other.is_integer() => values(&cast(array, &DataType::Int64)?)?,
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            rows.map(|row| or_null(row, &|row| array.value(row).into())).collect()
        }
        DataType::Float16 | DataType::Float32 => values(&cast(array, &DataType::Float64)?)?,
        DataType::Timestamp(unit, _) => {
            let nanos: i128 = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            let counts = cast(array, &DataType::Int64)?;
            let counts = counts.as_primitive::<Int64Type>();
            let text = |row: usize| match jiff::Timestamp::from_nanosecond(i128::from(counts.value(row)) * nanos) {
                Ok(time) => format!("{time:.9}").into(),
                Err(_) => Value::Null,
            };
            rows.map(|row| or_null(row, &text)).collect()
        }
        DataType::List(_) => {
            let array = array.as_list::<i32>();
            rows.map(
                |row| if array.is_null(row) { Ok(Value::Null) } else { values(&array.value(row)).map(Value::Array) },
            )
            .collect::<Result<_, _>>()?
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            values(&cast(array, &DataType::List(std::sync::Arc::clone(item)))?)?
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(|column| values(column));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let object = |row: usize| {
                let pairs = fields.iter().zip(&columns);
                Value::Object(pairs.map(|(field, column)| (field.name().clone(), column[row].clone())).collect())
            };
            rows.map(|row| or_null(row, &object)).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(array, &options)?;
            rows.map(|row| or_null(row, &|row| text.value(row).to_string().into())).collect()
        }
    })
}

/// Roughly how many bytes a value takes in an answer.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Float64Array, Int32Array, StringArray, StructArray, TimestampSecondArray};
    use serde_json::json;

    use super::*;

    #[test]
    fn not_a_number_and_the_infinities_are_null() {
        let array = Float64Array::from(vec![Some(1.5), Some(f64::NAN), Some(f64::INFINITY), None]);
        assert_eq!(values(&array).expect("plain"), [json!(1.5), json!(null), json!(null), json!(null)]);
    }

    #[test]
    fn timestamps_carry_nine_digits_whatever_their_unit() {
        let array = TimestampSecondArray::from(vec![Some(0), None, Some(i64::MAX)]);
        assert_eq!(values(&array).expect("plain"), [json!("1970-01-01T00:00:00.000000000Z"), json!(null), json!(null)]);
        assert_eq!(rfc3339(1_226_349_309_000_000_001), "2008-11-10T20:35:09.000000001Z");
        assert_eq!(rfc3339(i64::MIN), "1677-09-21T00:12:43.145224192Z");
    }

    #[test]
    fn structs_are_objects_and_odd_types_are_text() {
        let number: Arc<dyn Array> = Arc::new(Int32Array::from(vec![7]));
        let text: Arc<dyn Array> = Arc::new(StringArray::from(vec!["x"]));
        let fields = ["n", "t"].map(String::from);
        let array =
            StructArray::try_from(vec![(fields[0].as_str(), number), (fields[1].as_str(), text)]).expect("equal");
        assert_eq!(values(&array).expect("plain"), [json!({"n": 7, "t": "x"})]);
        assert_eq!(values(&Date32Array::from(vec![1])).expect("plain"), [json!("1970-01-02")]);
    }
}
