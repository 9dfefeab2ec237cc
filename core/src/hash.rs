//! The one stable hash: ids that leave the process (template ids, alert ids, model versions) are made with it, so its
//! output is part of the on-disk format and never changes.
//!
//! FNV-1a over 64 bits (Fowler, Noll, Vo), finished with the murmur3 mixer so that short keys fill all bits.
//! Cost: one multiply a byte. Not for hash tables (use `rustc_hash`) and not against an adversary.

/// An incremental stable hash. Fields are framed by their length, so `("ab", "c")` and `("a", "bc")` differ.
#[derive(Clone, Copy, Debug)]
pub struct StableHash(u64);

impl Default for StableHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHash {
    /// Starts an empty hash.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one field of bytes.
    #[must_use]
    pub fn bytes(mut self, field: &[u8]) -> Self {
        for byte in (field.len() as u64).to_le_bytes().iter().chain(field) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Adds one text field.
    #[must_use]
    pub fn text(self, field: &str) -> Self {
        self.bytes(field.as_bytes())
    }

    /// Adds one number.
    #[must_use]
    pub fn number(self, field: u64) -> Self {
        self.bytes(&field.to_le_bytes())
    }

    /// The finished 64-bit hash.
    #[must_use]
    pub fn finish(self) -> u64 {
        let mut x = self.0;
        x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        x ^ (x >> 33)
    }
}

#[cfg(test)]
mod tests {
    use super::StableHash;

    #[test]
    fn the_hash_never_changes() {
        // Written to disk by every release: a different value here is a format break.
        assert_eq!(StableHash::new().text("faultline").number(7).finish(), 0x34e3_6ab2_dd59_ed49);
    }

    #[test]
    fn fields_are_framed() {
        assert_ne!(StableHash::new().text("ab").text("c").finish(), StableHash::new().text("a").text("bc").finish());
    }
}
