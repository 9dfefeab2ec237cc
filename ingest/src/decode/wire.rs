//! Reads the protobuf wire format in place: no copies, no structs, no recursion.
//!
//! Station 2. A [`Fields`] walks the fields of one message and hands out borrowed slices, so that a caller matches on
//! the field number and appends what it finds straight to columns. Cost: one pass over the bytes, no allocation.
//! It fails on a field that is cut short, a varint of more than ten bytes, field number zero, and the group wire types
//! (3 and 4), which OTLP has never used.

/// Bytes that are not the protobuf message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field reaches past the end of its message.
    #[error("a field is cut short")]
    Truncated,
    /// A varint longer than 64 bits.
    #[error("a varint is longer than ten bytes")]
    Varint,
    /// Field number zero, or one that does not fit.
    #[error("an invalid field number")]
    FieldNumber,
    /// Wire type 3, 4, 6 or 7.
    #[error("an unsupported wire type")]
    WireType,
    /// A known field in another wire type than its own.
    #[error("field {0} has the wrong wire type")]
    Mismatch(u32),
}

/// The value of one field, as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// Walks the fields of one message.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Over the fields of `message`.
    #[inline]
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field, `None` at the end of the message.
    ///
    /// # Errors
    /// When the bytes are not a field; the reader must not be used after that.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "the caller matches on the field at once: 10 % of decoding, see benches/decode.rs"
    )]
    pub fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError::FieldNumber)?;
        if number == 0 {
            return Err(WireError::FieldNumber);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.take_array()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(*self.take_array()?)),
            _ => return Err(WireError::WireType),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first & 0x7f) | u64::from(*second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (idx, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * idx);
            if byte & 0x80 == 0 {
                if idx == 9 && *byte > 1 {
                    return Err(WireError::Varint);
                }
                self.rest = &self.rest[idx + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { WireError::Truncated } else { WireError::Varint })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, WireError> {
        self.take_array().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl<'a> Value<'a> {
    /// Bytes of a length-delimited field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    pub fn bytes(self, number: u32) -> Result<&'a [u8], WireError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(WireError::Mismatch(number)) }
    }

    /// Value of a varint field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    pub fn varint(self, number: u32) -> Result<u64, WireError> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(WireError::Mismatch(number)) }
    }

    /// Value of a 64-bit field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    pub fn fixed64(self, number: u32) -> Result<u64, WireError> {
        if let Self::Fixed64(value) = self { Ok(value) } else { Err(WireError::Mismatch(number)) }
    }

    /// Value of a `double` field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    pub fn double(self, number: u32) -> Result<f64, WireError> {
        self.fixed64(number).map(f64::from_bits)
    }

    /// Value of a 32-bit field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    pub fn fixed32(self, number: u32) -> Result<u32, WireError> {
        if let Self::Fixed32(value) = self { Ok(value) } else { Err(WireError::Mismatch(number)) }
    }

    /// Value of an `int32` or enum field, which negative numbers fill to 64 bits.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits")]
    pub fn int32(self, number: u32) -> Result<i32, WireError> {
        self.varint(number).map(|value| value as i32)
    }

    /// Value of a `sint32` field.
    ///
    /// # Errors
    /// When field `number` came in another wire type.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits")]
    pub fn sint32(self, number: u32) -> Result<i32, WireError> {
        self.varint(number).map(|value| {
            let value = value as u32;
            (value >> 1) as i32 ^ -((value & 1) as i32)
        })
    }
}

/// The first length-delimited field `wanted` of `message`, without looking into any other.
///
/// # Errors
/// When the bytes before it are not fields.
#[inline]
pub fn find_bytes(message: &[u8], wanted: u32) -> Result<Option<&[u8]>, WireError> {
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next_field()? {
        if number == wanted {
            return value.bytes(number).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_message_is_whole_fields_or_an_error() {
        // 1: 300, 2: fixed64, 3: "abc", 4: fixed32
        let message = [0x08, 0xac, 0x02, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 3, b'a', b'b', b'c', 0x25, 7, 0, 0, 0];
        let read = |bytes: &[u8]| -> Result<usize, WireError> {
            let mut fields = Fields::new(bytes);
            let mut n_fields = 0;
            while fields.next_field()?.is_some() {
                n_fields += 1;
            }
            Ok(n_fields)
        };
        let whole: Vec<usize> = vec![0, 3, 12, 17, 22];
        for cut in 0..=message.len() {
            let got = read(&message[..cut]);
            match whole.iter().position(|&end| end == cut) {
                Some(n_fields) => assert_eq!(got, Ok(n_fields)),
                None => assert_eq!(got, Err(WireError::Truncated), "cut at {cut}"),
            }
        }
    }

    #[test]
    fn overlong_varints_and_strange_wire_types_are_refused() {
        assert_eq!(Fields::new(&[0x08; 1]).next_field(), Err(WireError::Truncated));
        let mut long = vec![0x08];
        long.extend([0xff; 10]);
        assert_eq!(Fields::new(&long).next_field(), Err(WireError::Varint));
        long[10] = 0x01;
        assert_eq!(Fields::new(&long).next_field(), Ok(Some((1, Value::Varint(u64::MAX)))));
        assert_eq!(Fields::new(&[0x0b]).next_field(), Err(WireError::WireType));
        assert_eq!(Fields::new(&[0x0f]).next_field(), Err(WireError::WireType));
        assert_eq!(Fields::new(&[0x00, 0x00]).next_field(), Err(WireError::FieldNumber));
        let huge_length = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Fields::new(&huge_length).next_field(), Err(WireError::Truncated));
    }

    #[test]
    fn zigzag_and_negative_enums_decode() {
        assert_eq!(Value::Varint(3).sint32(1), Ok(-2));
        assert_eq!(Value::Varint(u64::MAX).int32(1), Ok(-1));
        assert_eq!(Value::Fixed32(1).int32(9), Err(WireError::Mismatch(9)));
    }
}
