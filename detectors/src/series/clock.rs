//! Event time of the whole input, by which series are judged to be silent. It follows the middle of each batch, at most an
//! hour at a time, so that neither one sender's clock nor one garbled time moves it far; where everything has lain behind
//! for long, it goes back.

use super::track::{MAX_TIME, NEVER, SECOND};

/// How far one batch moves it.
const MAX_STRIDE: i64 = 3600 * SECOND;

/// Batches in a row that lie a stride behind before it goes back.
const CONFIRMATIONS: u32 = 64;

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Clock {
    now: i64,
    n_behind: u32,
    scratch: Vec<i64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: NEVER, n_behind: 0, scratch: Vec::new() }
    }
}

impl Clock {
    /// Event time, [`NEVER`] at first.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Takes the times of a batch.
    pub fn observe(&mut self, times: &[i64]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(times);
        let middle = self.scratch.len() / 2;
        if self.scratch.is_empty() {
            return;
        }
        let (_, median, _) = self.scratch.select_nth_unstable(middle);
        let median = (*median).clamp(-MAX_TIME, MAX_TIME);
        if self.now == NEVER {
            self.now = median;
        } else if median >= self.now.saturating_sub(MAX_STRIDE) {
            self.n_behind = 0;
            self.now = self.now.max(median.min(self.now.saturating_add(MAX_STRIDE)));
        } else {
            self.n_behind += 1;
            if self.n_behind >= CONFIRMATIONS {
                (self.now, self.n_behind) = (median, 0);
            }
        }
    }

    /// Moves it as if a record of this time had come.
    pub fn advance_to(&mut self, time_unix_nano: i64) {
        self.now = self.now.max(time_unix_nano.min(MAX_TIME));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_one_record_nor_one_batch_carries_it_off() {
        let mut clock = Clock::default();
        clock.observe(&[]);
        assert_eq!(clock.now(), NEVER);
        clock.observe(&[0, SECOND, i64::MAX]);
        assert_eq!(clock.now(), SECOND);
        clock.observe(&[MAX_TIME]);
        assert_eq!(clock.now(), SECOND + MAX_STRIDE);
        clock.observe(&[2 * SECOND]);
        assert_eq!(clock.now(), SECOND + MAX_STRIDE, "it never goes back for little");
    }

    #[test]
    fn it_goes_back_when_everything_lies_behind() {
        let mut clock = Clock::default();
        clock.observe(&[MAX_TIME]);
        for _ in 0..CONFIRMATIONS - 1 {
            clock.observe(&[5]);
        }
        assert_eq!(clock.now(), MAX_TIME);
        clock.observe(&[5]);
        assert_eq!(clock.now(), 5);
    }
}
