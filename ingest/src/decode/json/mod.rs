//! OTLP JSON → OTLP protobuf, by a table of fields (station 2).
//!
//! One table per message says which JSON key is which protobuf field; the rest is the same code for all. What comes out
//! goes through the protobuf decoder, so the two encodings cannot disagree about caps, rejects or the mapping to columns.
//!
//! As OTLP/JSON has it: keys in lowerCamelCase only, unknown keys ignored, ids in hexadecimal of either case, enums as
//! integers only, 64-bit integers as string or number, doubles also as `"NaN"`, `"Infinity"`, `"-Infinity"`, bytes in
//! base64 (standard or URL alphabet, padded or not), `null` the same as absent. Each log record, span and metric point is
//! cut out raw and read on its own: one that is wrong is rejected with its text, the others are kept.
//!
//! Cost: two passes over the text and one over the protobuf. Deep input cannot overflow the stack: values are entered as
//! deep as `max_nesting` (one level more is written, empty, so that the decoder rejects the record) and whatever is
//! unknown is skipped without recursion.

mod tables;

use std::fmt;

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use self::tables::{Field, Kind, LOGS, METRICS, TRACES, Table};
use super::OtlpSignal;

/// The records of a request as they were written.
#[derive(Debug, Default)]
pub struct Records<'a> {
    /// Text of each record that went into the protobuf, in order.
    pub good: Vec<&'a str>,
    /// Reason and text of each record that did not.
    pub bad: Vec<(String, &'a str)>,
}

/// Appends the protobuf form of the request `text` to `out`.
///
/// # Errors
/// When `text` is not JSON, or is wrong outside a record.
pub fn to_protobuf<'a>(
    signal: OtlpSignal,
    text: &'a str,
    max_nesting: usize,
    out: &mut Vec<u8>,
) -> Result<Records<'a>, serde_json::Error> {
    let request = match signal {
        OtlpSignal::Logs => &LOGS,
        OtlpSignal::Traces => &TRACES,
        OtlpSignal::Metrics => &METRICS,
    };
    let mut cx = Cx { out, records: Records::default(), room: max_nesting };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    Message { message: request, cx: &mut cx }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(cx.records)
}

struct Cx<'o, 'a> {
    out: &'o mut Vec<u8>,
    records: Records<'a>,
    /// Levels of lists that may still be entered.
    room: usize,
}

impl<'a> Cx<'_, 'a> {
    fn key(&mut self, number: u32, wire_type: u32) {
        push_varint(self.out, u64::from(number << 3 | wire_type));
    }

    /// Writes field `number` as a message whose content `write` appends.
    fn message<E>(&mut self, number: u32, write: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        const LENGTH_BYTES: usize = 5;
        self.key(number, 2);
        let start = self.out.len() + LENGTH_BYTES;
        self.out.resize(start, 0);
        write(self)?;
        // The length goes in front, as a varint filled up to its fixed width.
        let mut length = self.out.len() - start;
        for byte in &mut self.out[start - LENGTH_BYTES..start] {
            *byte = (length & 0x7f) as u8 | 0x80;
            length >>= 7;
        }
        self.out[start - 1] &= 0x7f;
        Ok(())
    }

    fn record(&mut self, field: &Field, table: &'static Table, raw: &'a RawValue) {
        let before = self.out.len();
        let outcome = self.message(field.number, |cx| {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            deserializer.disable_recursion_limit();
            Message { message: table, cx }.deserialize(&mut deserializer)
        });
        match outcome {
            Ok(()) => self.records.good.push(raw.get()),
            Err(error) => {
                self.out.truncate(before);
                self.records.bad.push((error.to_string(), raw.get()));
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a JSON object as the content of `message`.
struct Message<'m, 'o, 'a> {
    message: &'static Table,
    cx: &'m mut Cx<'o, 'a>,
}

impl<'de> DeserializeSeed<'de> for Message<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")?;
        self.message.fields.first().map_or(Ok(()), |field| write!(f, " (with keys such as {})", field.key))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.message.nests && self.cx.room == 0 {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.cx.room -= usize::from(self.message.nests);
        while let Some(field) = map.next_key_seed(Key(self.message))? {
            match field {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(field) => map.next_value_seed(FieldValue { field, is_item: false, cx: &mut *self.cx })?,
            }
        }
        self.cx.room += usize::from(self.message.nests);
        Ok(())
    }
}

/// Finds the field that a key names.
struct Key(&'static Table);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.key == key))
    }
}

/// Reads the value of a field, or one item of it when it is a list.
struct FieldValue<'m, 'o, 'a> {
    field: &'static Field,
    is_item: bool,
    cx: &'m mut Cx<'o, 'a>,
}

impl<'de> DeserializeSeed<'de> for FieldValue<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, is_item, cx } = self;
        if field.is_list && !is_item {
            return deserializer.deserialize_any(List { field, cx });
        }
        match field.kind {
            Kind::Message(message) if is_item => {
                cx.message(field.number, |cx| Message { message, cx }.deserialize(deserializer))
            }
            Kind::Message(message) => {
                // A null message is an absent one, so what was written for it goes again.
                let before = cx.out.len();
                let mut is_null = true;
                cx.message(field.number, |cx| {
                    deserializer.deserialize_option(Present { message, cx, is_null: &mut is_null })
                })?;
                if is_null {
                    cx.out.truncate(before);
                }
                Ok(())
            }
            Kind::Record(_) => deserializer.deserialize_any(IgnoredAny).map(drop),
            Kind::Double => {
                let text = <&'de RawValue>::deserialize(deserializer)?.get();
                let scalar = Scalar { field, cx };
                let value = match text.as_bytes() {
                    b"null" => return Ok(()),
                    // An escape in it, and it is none of the three names.
                    [b'"', inner @ .., b'"'] => std::str::from_utf8(inner).ok().and_then(double),
                    _ => double(text),
                };
                let value = value.ok_or_else(|| scalar.wrong("not a number"))?;
                scalar.fixed64(value.to_bits());
                Ok(())
            }
            _ => deserializer.deserialize_any(Scalar { field, cx }),
        }
    }
}

/// Reads a message that may be `null`.
struct Present<'m, 'o, 'a> {
    message: &'static Table,
    cx: &'m mut Cx<'o, 'a>,
    is_null: &'m mut bool,
}

impl<'de> Visitor<'de> for Present<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.is_null = false;
        Message { message: self.message, cx: self.cx }.deserialize(deserializer)
    }
}

struct List<'m, 'o, 'a> {
    field: &'static Field,
    cx: &'m mut Cx<'o, 'a>,
}

impl<'de> Visitor<'de> for List<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list or null for {}", self.field.key)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { field, cx } = self;
        if let Kind::Record(table) = field.kind {
            while let Some(raw) = seq.next_element::<Option<&'de RawValue>>()? {
                if let Some(raw) = raw.filter(|raw| raw.get() != "null") {
                    cx.record(field, table, raw);
                }
            }
        } else {
            while seq.next_element_seed(FieldValue { field, is_item: true, cx: &mut *cx })?.is_some() {}
        }
        Ok(())
    }
}

struct Scalar<'m, 'o, 'a> {
    field: &'static Field,
    cx: &'m mut Cx<'o, 'a>,
}

impl Scalar<'_, '_, '_> {
    fn wrong<E: Error>(&self, what: impl fmt::Display) -> E {
        E::custom(format_args!("{}: {what}", self.field.key))
    }

    fn fixed64(self, bits: u64) {
        self.cx.key(self.field.number, 1);
        self.cx.out.extend_from_slice(&bits.to_le_bytes());
    }

    fn varint(self, value: u64) {
        self.cx.key(self.field.number, 0);
        push_varint(self.cx.out, value);
    }

    fn bytes(self, bytes: &[u8]) {
        self.cx.key(self.field.number, 2);
        push_varint(self.cx.out, bytes.len() as u64);
        self.cx.out.extend_from_slice(bytes);
    }

    /// An integer of any kind; `i128` holds them all.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "each range is checked first")]
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let range = match self.field.kind {
            Kind::Fixed64 | Kind::UInt64 => 0..=i128::from(u64::MAX),
            Kind::SFixed64 | Kind::Int64 => i128::from(i64::MIN)..=i128::from(i64::MAX),
            Kind::Fixed32 | Kind::UInt32 => 0..=i128::from(u32::MAX),
            Kind::SInt32 | Kind::Enum => i128::from(i32::MIN)..=i128::from(i32::MAX),
            _ => return Err(self.wrong("does not take a number")),
        };
        if !range.contains(&value) {
            return Err(self.wrong(format_args!("{value} is out of range")));
        }
        match self.field.kind {
            Kind::Fixed64 | Kind::SFixed64 => self.fixed64(value as u64),
            Kind::Fixed32 => {
                self.cx.key(self.field.number, 5);
                self.cx.out.extend_from_slice(&(value as u32).to_le_bytes());
            }
            Kind::SInt32 => {
                let value = value as i32;
                self.varint(u64::from((value << 1 ^ value >> 31) as u32));
            }
            _ => self.varint(value as u64),
        }
        Ok(())
    }
}

impl Visitor<'_> for Scalar<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.field.kind {
            Kind::String => "a string",
            Kind::Base64 => "a base64 string",
            Kind::HexId => "a hexadecimal string",
            Kind::Bool => "true or false",
            Kind::Enum => "an integer (names are not valid in OTLP)",
            _ => "an integer or a string of digits",
        };
        write!(f, "{what} for {}", self.field.key)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if self.field.kind != Kind::Bool {
            return Err(self.wrong("does not take true or false"));
        }
        self.varint(u64::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        // `1e3` and `5.0` are integers in JSON.
        if value.fract() != 0.0 || value.abs() >= 2_f64.powi(64) {
            return Err(self.wrong(format_args!("{value} is not an integer")));
        }
        #[allow(clippy::cast_possible_truncation, reason = "an integer below 2^64")]
        self.integer(value as i128)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::String => self.bytes(text.as_bytes()),
            Kind::HexId => {
                let id = from_hex(text).ok_or_else(|| self.wrong("not hexadecimal"))?;
                self.bytes(&id);
            }
            Kind::Base64 => {
                let bytes = from_base64(text).ok_or_else(|| self.wrong("not base64"))?;
                self.bytes(&bytes);
            }
            Kind::Bool => return Err(self.wrong("must be true or false")),
            Kind::Enum => return Err(self.wrong("must be an integer; names are not valid in OTLP")),
            _ => {
                let value = text.parse::<i128>().map_err(|_| self.wrong("not a string of digits"))?;
                return self.integer(value);
            }
        }
        Ok(())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "two digits are a byte")]
    text.as_bytes().chunks_exact(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, LENIENT).decode(text).ok()
}

/// A number or one of the three names. The standard library reads a decimal to the nearest double; `serde_json` may miss
/// it by one bit.
fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
        _ => None,
    }
}
