//! Little-endian bytes of snapshots that are too large for JSON: what begins with a magic and ends with its stable hash.

use std::sync::Arc;

use faultline_core::{WindowKey, hash::StableHash};

/// What a snapshot begins with; the last character is the format.
pub(crate) type Magic = [u8; 16];

/// Writes a snapshot.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub fn new(magic: &Magic) -> Self {
        Self(magic.to_vec())
    }

    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn short(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn word(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn number(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn integer(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn double(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn float(&mut self, value: f32) {
        self.0.extend(value.to_le_bytes());
    }

    pub fn floats(&mut self, values: &[f32]) {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub fn shorts(&mut self, values: &[u16]) {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub fn key(&mut self, key: &WindowKey) {
        self.text(&key.stream);
        self.text(&key.session);
    }

    /// The whole snapshot.
    pub fn finish(mut self) -> Vec<u8> {
        let checksum = StableHash::new().bytes(&self.0).finish();
        self.number(checksum);
        self.0
    }
}

/// Takes what it reads off the front; none when that is too short or a float is not finite.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of a snapshot, or what is wrong with it.
    pub fn open(magic: &Magic, snapshot: &'a [u8]) -> Result<Self, String> {
        let body = snapshot.strip_prefix(magic).ok_or("it belongs to another detector or format")?;
        let (content, checksum) = snapshot.split_at(snapshot.len().saturating_sub(8));
        if body.len() < 8 || checksum != StableHash::new().bytes(content).finish().to_le_bytes() {
            return Err("its checksum does not match".to_owned());
        }
        Ok(Self(&body[..body.len() - 8]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (own, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*own)
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn is(&mut self) -> Option<bool> {
        self.byte().map(|byte| byte != 0)
    }

    pub fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn integer(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    pub fn double(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes).filter(|value| value.is_finite())
    }

    pub fn float(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes).filter(|value| value.is_finite())
    }

    pub fn floats<const N: usize>(&mut self) -> Option<[f32; N]> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.float()?;
        }
        Some(values)
    }

    pub fn shorts<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut values = [0; N];
        for value in &mut values {
            *value = self.short()?;
        }
        Some(values)
    }

    /// The length of a list whose items take `size` bytes or more each.
    pub fn length(&mut self, size: usize) -> Option<usize> {
        let length = usize::try_from(self.number()?).ok()?;
        (length <= self.0.len() / size.max(1)).then_some(length)
    }

    pub fn text(&mut self) -> Option<Arc<str>> {
        let length = self.length(1)?;
        let (own, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(own).ok().map(Arc::from)
    }

    pub fn key(&mut self) -> Option<WindowKey> {
        Some(WindowKey { stream: self.text()?, session: self.text()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = *b"faultline tests1";

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let mut writer = Writer::new(&MAGIC);
        let key = WindowKey { stream: Arc::from("cart"), session: Arc::from("") };
        writer.byte(1);
        writer.word(7);
        writer.integer(-9);
        writer.double(0.1);
        writer.floats(&[1.5, -2.5]);
        writer.shorts(&[3, 65_535]);
        writer.key(&key);
        let bytes = writer.finish();
        let mut reader = Reader::open(&MAGIC, &bytes).expect("its own");
        assert_eq!((reader.is(), reader.word(), reader.integer()), (Some(true), Some(7), Some(-9)));
        assert_eq!((reader.double(), reader.floats()), (Some(0.1), Some([1.5, -2.5])));
        assert_eq!((reader.shorts(), reader.key()), (Some([3, 65_535]), Some(key)));
        assert!(reader.is_empty() && reader.byte().is_none());
        for n in [0, 10, 16, 23, bytes.len() - 1] {
            assert!(Reader::open(&MAGIC, &bytes[..n]).is_err(), "{n} bytes");
        }
        let mut spoiled = bytes.clone();
        spoiled[20] ^= 1;
        assert!(Reader::open(&MAGIC, &spoiled).is_err() && Reader::open(b"faultline other1", &bytes).is_err());
    }

    #[test]
    fn a_length_beyond_the_bytes_and_what_is_no_number_are_refused() {
        let mut writer = Writer::new(&MAGIC);
        writer.number(u64::MAX);
        writer.float(f32::NAN);
        let bytes = writer.finish();
        let mut reader = Reader::open(&MAGIC, &bytes).expect("whole");
        assert_eq!((reader.length(1), reader.float()), (None, None));
    }
}
