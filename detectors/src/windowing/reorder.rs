//! Records that are not yet older than the watermark, and so may still have to let an older one pass.

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque};

use faultline_core::LogEntry;

/// A record on hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Its place in the order: its event time, or the watermark at its arrival when it came late.
    pub at: i64,
    /// Arrival number, which decides between equal times.
    arrival: u64,
    /// Session it belongs to.
    pub slot: u32,
    pub entry: LogEntry,
}

impl Held {
    fn order(&self) -> (i64, u64) {
        (self.at, self.arrival)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A priority queue that costs nothing more than a ring buffer as long as records arrive in order.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    /// Sorted by construction.
    in_order: VecDeque<Held>,
    /// Those that were older than the newest in `in_order` when they came.
    stragglers: BinaryHeap<Reverse<Held>>,
    n_arrived: u64,
}

impl Reorder {
    pub fn push(&mut self, at: i64, slot: u32, entry: LogEntry) {
        let held = Held { at, arrival: self.n_arrived, slot, entry };
        self.n_arrived += 1;
        if self.in_order.back().is_none_or(|newest| newest.at <= at) {
            self.in_order.push_back(held);
        } else {
            self.stragglers.push(Reverse(held));
        }
    }

    pub fn len(&self) -> usize {
        self.in_order.len() + self.stragglers.len()
    }

    /// Takes the oldest record if it is no newer than `watermark`.
    pub fn pop_until(&mut self, watermark: i64) -> Option<Held> {
        let straggler_first = match (self.in_order.front(), self.stragglers.peek()) {
            (Some(front), Some(Reverse(straggler))) => straggler < front,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if straggler_first {
            let Reverse(straggler) = self.stragglers.peek()?;
            if straggler.at > watermark {
                return None;
            }
            self.stragglers.pop().map(|Reverse(held)| held)
        } else {
            if self.in_order.front()?.at > watermark {
                return None;
            }
            self.in_order.pop_front()
        }
    }
}
