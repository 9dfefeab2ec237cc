//! The present of the traces: the newest time that is believed.
//!
//! A wrong clock reading must not end every trace for good, which it would if the watermark followed it. A time more than a day
//! ahead is not believed until eight in a row have said so; where everything in batch after batch has lain more than a day
//! behind, the present goes back.

/// A day. Times further ahead are not taken at their word.
pub(super) const MAX_LEAP_NANOS: i64 = 86_400_000_000_000;

/// Times in a row that lie so far ahead, after which time has indeed leapt.
const CONFIRMATIONS: u32 = 8;

/// Batches in a row that lie so far behind, after which it has gone back.
const BATCHES_BEHIND: u32 = 64;

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Present {
    /// The least time there is before the first.
    pub newest: i64,
    n_ahead: u32,
    n_behind: u32,
}

impl Default for Present {
    fn default() -> Self {
        Self { newest: i64::MIN, n_ahead: 0, n_behind: 0 }
    }
}

impl Present {
    /// Whether a time is believed. If it is the newest, it is the present from now on.
    pub fn admit(&mut self, time: i64) -> bool {
        if self.newest != i64::MIN && time.saturating_sub(self.newest) > MAX_LEAP_NANOS {
            self.n_ahead += 1;
            if self.n_ahead < CONFIRMATIONS {
                return false;
            }
        }
        self.n_ahead = 0;
        self.newest = self.newest.max(time);
        true
    }

    /// A batch has been taken of which this time is the newest, believed or not. Says whether the present has gone back to it.
    pub fn end_batch(&mut self, newest: i64) -> bool {
        if self.newest.saturating_sub(newest) <= MAX_LEAP_NANOS {
            self.n_behind = 0;
            return false;
        }
        self.n_behind += 1;
        if self.n_behind < BATCHES_BEHIND {
            return false;
        }
        *self = Self { newest, ..Self::default() };
        true
    }

    /// Moves it as if something of this time had come that is believed.
    pub fn advance_to(&mut self, time: i64) {
        self.newest = self.newest.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_leap_is_believed_when_eight_in_a_row_say_so() {
        let mut present = Present::default();
        assert!(present.admit(-5 * SECOND) && present.admit(0) && present.admit(MAX_LEAP_NANOS));
        let year = 400 * MAX_LEAP_NANOS;
        assert!((0..100).all(|n| !present.admit(year) && present.admit(n)), "never two in a row");
        assert_eq!(present.newest, MAX_LEAP_NANOS);
        let answers: Vec<bool> = (0..9).map(|n| present.admit(year + n)).collect();
        assert_eq!(answers, [false, false, false, false, false, false, false, true, true]);
        assert_eq!(present.newest, year + 8);
        assert!(present.admit(0) && present.newest == year + 8, "one that lies behind changes nothing");
    }

    #[test]
    fn it_goes_back_when_batch_after_batch_lies_behind() {
        let mut present = Present::default();
        present.admit(i64::MAX);
        assert!((1..BATCHES_BEHIND).all(|_| !present.end_batch(5)));
        assert!(!present.end_batch(i64::MAX) && (1..BATCHES_BEHIND).all(|_| !present.end_batch(5)), "counted anew");
        assert!(present.end_batch(5) && present.newest == 5);
        present.advance_to(9);
        assert!(!present.end_batch(7) && present.newest == 9);
    }
}
