//! Which records an alert shows: the ones that decided it, then what stood around them. And how numbers and times are said.

use faultline_core::{Evidence, LogEntry, RecordId, SeriesWindow};

/// Records or points on each side of the culprit that are shown.
const NEIGHBOURS: usize = 10;

/// At most [`Evidence::MAX_RECORDS`] record ids in window order: the culprit first of all, then `deciding`, then the
/// neighbours of the culprit, nearer ones before farther ones.
#[must_use]
pub fn around(records: &[LogEntry], culprit: usize, deciding: impl Iterator<Item = RecordId>) -> Vec<RecordId> {
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

/// The record behind a point, where one is kept.
pub(crate) fn record_of_point(window: &SeriesWindow<'_>, idx: usize) -> Option<RecordId> {
    window.records.get(idx).copied().filter(|&record| record != 0)
}

/// The records behind a point and its neighbours, in the order of the points, none twice.
pub(crate) fn around_point(window: &SeriesWindow<'_>, culprit: usize) -> Vec<RecordId> {
    let mut records: Vec<RecordId> = Vec::new();
    for idx in culprit.saturating_sub(NEIGHBOURS)..=culprit + NEIGHBOURS {
        if let Some(record) = record_of_point(window, idx)
            && !records.contains(&record)
        {
            records.push(record);
        }
    }
    records
}

/// A number as a person reads it.
pub(crate) fn brief(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e9).contains(&size) => format!("{value:.3e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// The time of day, with seconds where there are any.
pub(crate) fn clock(unix_nano: i64) -> String {
    let seconds = unix_nano.div_euclid(1_000_000_000).rem_euclid(86_400);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if seconds == 0 {
        format!("{hours:02}:{minutes:02} UTC")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Session;

    #[test]
    fn numbers_are_as_short_as_their_size_allows() {
        let numbers = [0.0, 812.4, -95.25, 0.01234, 3e-7, 2.5e12].map(brief);
        assert_eq!(numbers, ["0", "812", "-95.2", "0.0123", "3.000e-7", "2.500e12"]);
    }

    #[test]
    fn times_of_day_have_seconds_only_where_they_matter() {
        const MINUTE: i64 = 60_000_000_000;
        let times = [0, 723 * MINUTE, 723 * MINUTE + 20_000_000_000, -MINUTE].map(clock);
        assert_eq!(times, ["00:00 UTC", "12:03 UTC", "12:03:20 UTC", "23:59 UTC"]);
    }

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
