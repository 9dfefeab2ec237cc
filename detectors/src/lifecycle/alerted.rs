//! The sessions that alerted, kept for the verdict of a person, the oldest out first.
//!
//! Cost: a copy of the session for each alert that begins, changes or ends. Memory: [`MAX_ALERTS`] sessions, [`MAX_RECORDS`]
//! records of 32 bytes, 48 where a detector reads their numbers.

use std::collections::VecDeque;

use faultline_core::{Alert, AlertId, LogWindow, Window};
use rustc_hash::FxHashMap;

use super::collector::Collected;

const MAX_ALERTS: usize = 4_096;
const MAX_RECORDS: usize = 250_000;

/// See the file's documentation.
#[derive(Debug, Default)]
pub(super) struct Alerted {
    sessions: FxHashMap<AlertId, Collected>,
    /// Their alerts in the order in which they were first kept.
    order: VecDeque<AlertId>,
    n_records: usize,
}

impl Alerted {
    /// Keeps, for each of `alerts`, the one of `windows` that it is about: all of its session by now.
    pub(super) fn keep(&mut self, windows: &[Window<'_>], alerts: &[Alert]) {
        if alerts.is_empty() {
            return;
        }
        let mut by_key: FxHashMap<(&str, &str), Vec<&LogWindow<'_>>> = FxHashMap::default();
        for alert in alerts {
            by_key.entry((alert.stream.as_str(), alert.session.as_str())).or_default();
        }
        for log in windows.iter().filter_map(Window::as_log) {
            if let Some(own) = by_key.get_mut(&(&*log.key.stream, &*log.key.session)) {
                own.push(log);
            }
        }
        for alert in alerts {
            let Some(own) = by_key.get(&(alert.stream.as_str(), alert.session.as_str())) else { continue };
            // A session may have ended and begun anew meanwhile.
            let is_about = |log: &&&LogWindow<'_>| {
                alert.evidence.culprit.is_none_or(|culprit| log.records.iter().any(|record| record.record == culprit))
            };
            if let Some(log) = own.iter().rev().find(is_about) {
                self.insert(alert.id, Collected::of(log, 0));
            }
        }
    }

    pub(super) fn get(&self, alert: AlertId) -> Option<&Collected> {
        self.sessions.get(&alert)
    }

    fn insert(&mut self, alert: AlertId, session: Collected) {
        self.n_records += session.records.len();
        match self.sessions.insert(alert, session) {
            Some(before) => self.n_records -= before.records.len(),
            None => self.order.push_back(alert),
        }
        while self.order.len() > MAX_ALERTS || self.n_records > MAX_RECORDS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.n_records -= self.sessions.remove(&oldest).map_or(0, |session| session.records.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Session;

    #[test]
    fn memory_stays_bounded_and_the_oldest_goes() {
        let mut alerted = Alerted::default();
        let session = Session::of("s", &[1; 500]);
        let window = session.closed();
        let log = window.as_log().expect("a log window");
        for id in 0..600 {
            alerted.insert(AlertId(id), Collected::of(log, 0));
        }
        assert_eq!((alerted.n_records, alerted.order.len(), alerted.sessions.len()), (MAX_RECORDS, 500, 500));
        assert!(alerted.get(AlertId(99)).is_none() && alerted.get(AlertId(100)).is_some());
        // The same alert again takes the place of what was kept of it.
        alerted.insert(AlertId(100), Collected::of(log, 499));
        assert_eq!((alerted.n_records, alerted.order.len()), (MAX_RECORDS - 499, 500));
        for id in 0..10_000 {
            alerted.insert(AlertId(1_000 + id), Collected::of(log, 499));
        }
        assert_eq!(alerted.sessions.len(), MAX_ALERTS);
    }
}
