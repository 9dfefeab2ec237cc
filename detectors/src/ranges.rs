//! Checks of configuration values, which name the key that is out of range.

use std::{fmt::Display, ops::RangeInclusive};

use faultline_core::DetectorError;

/// The checks of the detector of this name.
pub struct Ranges(pub &'static str);

impl Ranges {
    /// Each value lies in its range. What is not a number lies in none.
    pub fn within<T: PartialOrd + Display>(
        &self,
        values: impl IntoIterator<Item = (&'static str, T, RangeInclusive<T>)>,
    ) -> Result<(), DetectorError> {
        match values.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => {
                Err(self.refuse(key, &format!("{value} is not from {} to {}", range.start(), range.end())))
            }
            None => Ok(()),
        }
    }

    /// The value is above 0 and at most 1.
    pub fn above_zero(&self, key: &str, value: f64) -> Result<(), DetectorError> {
        if value > 0.0 && value <= 1.0 {
            return Ok(());
        }
        Err(self.refuse(key, &format!("{value} is not above 0 and at most 1")))
    }

    /// The value of `key` cannot be taken.
    pub fn refuse(&self, key: &str, reason: &str) -> DetectorError {
        DetectorError::Config { detector: self.0.to_owned(), reason: format!("key `{key}`: {reason}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_out_of_range_is_named() {
        let ranges = Ranges("it");
        assert!(ranges.within([("a", 1, 1..=3), ("b", 3, 1..=3)]).is_ok());
        let error = ranges.within([("a", 1, 1..=3), ("b", 4, 1..=3), ("c", 5, 1..=3)]).expect_err("4 is too many");
        assert_eq!(error.to_string(), "detector it: key `b`: 4 is not from 1 to 3");
        assert!(ranges.within([("a", f64::NAN, 0.0..=1.0)]).is_err());
    }

    #[test]
    fn above_zero_is_above_zero() {
        let ranges = Ranges("it");
        assert!(ranges.above_zero("rate", 1.0).is_ok());
        for value in [0.0, -0.1, 1.1, f64::NAN] {
            let error = ranges.above_zero("rate", value).expect_err("out of range").to_string();
            assert!(error.contains("key `rate`") && error.contains("above 0"), "{error}");
        }
    }
}
