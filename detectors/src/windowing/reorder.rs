//! Records that are not yet older than the watermark, and so may still have to let an older one pass.

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque};

use faultline_core::{LogEntry, RecordNumbers};

/// Stands for the place of numbers that are not kept.
const NOT_KEPT: u32 = u32::MAX;

/// A record on hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Its place in the order: its event time, or the watermark at its arrival when it came late.
    pub at: i64,
    /// Arrival number, which decides between equal times.
    arrival: u64,
    /// Session it belongs to.
    pub slot: u32,
    /// Place of its numbers on the shelf, or [`NOT_KEPT`].
    numbers: u32,
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
    shelf: Shelf,
    n_arrived: u64,
}

/// The numbers of records on hold, apart from them, so that those without are no larger and no slower to move. As many
/// places as records were ever on hold at a time.
#[derive(Debug, Default)]
struct Shelf {
    places: Vec<RecordNumbers>,
    free: Vec<u32>,
}

impl Shelf {
    fn put(&mut self, numbers: RecordNumbers) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = numbers;
                place
            }
            None => {
                self.places.push(numbers);
                (self.places.len() - 1) as u32
            }
        }
    }

    fn take(&mut self, place: u32) -> RecordNumbers {
        self.free.push(place);
        self.places[place as usize]
    }
}

impl Reorder {
    pub fn push(&mut self, at: i64, slot: u32, entry: LogEntry, numbers: Option<RecordNumbers>) {
        let numbers = numbers.map_or(NOT_KEPT, |numbers| self.shelf.put(numbers));
        let held = Held { at, arrival: self.n_arrived, slot, numbers, entry };
        self.n_arrived += 1;
        if self.in_order.back().is_none_or(|newest| newest.at <= at) {
            self.in_order.push_back(held);
        } else {
            self.stragglers.push(Reverse(held));
        }
    }

    /// The numbers of a record that has just been taken, where they are kept. To be called once for each.
    pub fn take_numbers(&mut self, held: &Held) -> Option<RecordNumbers> {
        (held.numbers != NOT_KEPT).then(|| self.shelf.take(held.numbers))
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

#[cfg(test)]
mod tests {
    use faultline_core::TemplateId;

    use super::*;

    #[test]
    fn numbers_make_no_record_on_hold_larger() {
        assert_eq!(size_of::<Held>(), 56);
    }

    #[test]
    fn the_shelf_holds_no_more_numbers_than_there_were_records_on_hold_at_a_time() {
        let entry = LogEntry {
            template: TemplateId(1),
            time_unix_nano: 0,
            record: 1,
            service: 0,
            severity_number: 0,
            is_since_deploy: false,
        };
        let mut held = Reorder::default();
        for round in 0..100 {
            for at in [round + 2, round + 1, round] {
                held.push(at, 0, entry, Some(RecordNumbers::of([at as f32])));
            }
            while let Some(record) = held.pop_until(i64::MAX) {
                let numbers = held.take_numbers(&record).expect("they are kept");
                assert_eq!(numbers.as_slice(), [record.at as f32]);
            }
        }
        assert_eq!((held.shelf.places.len(), held.shelf.free.len()), (3, 3));
        held.push(0, 0, entry, None);
        let record = held.pop_until(0).expect("just put there");
        assert_eq!(held.take_numbers(&record), None);
        assert_eq!(held.shelf.places.len(), 3);
    }
}
