//! Which records an alert shows: the ones that decided it, then what stood around them.

use faultline_core::{Evidence, LogEntry, RecordId};

/// At most [`Evidence::MAX_RECORDS`] record ids in window order: the culprit first of all, then `deciding`, then the
/// neighbours of the culprit, nearer ones before farther ones.
#[must_use]
pub fn around(records: &[LogEntry], culprit: usize, deciding: impl Iterator<Item = RecordId>) -> Vec<RecordId> {
    const NEIGHBOURS: usize = 10;
    let mut chosen: Vec<RecordId> = records.get(culprit).map(|entry| entry.record).into_iter().collect();
    // Half the room is for context: a thousand deciding records say no more than sixteen.
    for record in deciding {
        if chosen.len() >= Evidence::MAX_RECORDS / 2 {
            break;
        }
        if !chosen.contains(&record) {
            chosen.push(record);
        }
    }
    for distance in 1..=NEIGHBOURS {
        for idx in [culprit.checked_sub(distance), culprit.checked_add(distance)].into_iter().flatten() {
            if let Some(entry) = records.get(idx)
                && chosen.len() < Evidence::MAX_RECORDS
                && !chosen.contains(&entry.record)
            {
                chosen.push(entry.record);
            }
        }
    }
    let in_window_order = |record: &RecordId| records.iter().position(|entry| entry.record == *record);
    chosen.sort_by_key(in_window_order);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Session;

    #[test]
    fn the_culprit_and_its_neighbours_come_in_window_order_and_are_bounded() {
        let session = Session::of("a", &[1; 100]);
        let records = &session.records;
        let shown = around(records, 50, records.iter().map(|entry| entry.record));
        assert_eq!(shown.len(), Evidence::MAX_RECORDS);
        assert!(shown.contains(&records[50].record) && shown.contains(&records[49].record));
        assert!(shown.is_sorted());
        assert_eq!(around(records, 0, std::iter::empty()).len(), 11);
    }
}
