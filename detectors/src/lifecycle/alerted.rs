//! The sessions, series, traces and services that alerted, kept for the verdict of a person, the oldest out first.
//!
//! Cost: a copy of the session for each alert that begins, changes or ends. Memory: [`MAX_ALERTS`] sessions, [`MAX_RECORDS`]
//! records of 32 bytes, 48 where a detector reads their numbers.

use std::collections::VecDeque;

use faultline_core::{Alert, AlertId, Window};
use rustc_hash::FxHashMap;

use super::kept::Kept;

const MAX_ALERTS: usize = 4_096;
const MAX_RECORDS: usize = 250_000;

/// See the file's documentation.
#[derive(Debug, Default)]
pub(super) struct Alerted {
    sessions: FxHashMap<AlertId, Kept>,
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
        let mut by_key: FxHashMap<(&str, &str), Vec<&Window<'_>>> = FxHashMap::default();
        for alert in alerts {
            by_key.entry((alert.stream.as_str(), alert.session.as_str())).or_default();
        }
        for window in windows {
            let key = window.key();
            if let Some(own) = by_key.get_mut(&(&*key.stream, &*key.session)) {
                own.push(window);
            }
        }
        for alert in alerts {
            let Some(own) = by_key.get(&(alert.stream.as_str(), alert.session.as_str())) else { continue };
            let about = own.iter().rev().find(|window| is_about(window, alert));
            if let Some(kept) = about.and_then(|window| Kept::of(window)) {
                self.insert(alert.id, kept);
            }
        }
    }

    pub(super) fn get(&self, alert: AlertId) -> Option<&Kept> {
        self.sessions.get(&alert)
    }

    fn insert(&mut self, alert: AlertId, session: Kept) {
        self.n_records += session.len();
        match self.sessions.insert(alert, session) {
            Some(before) => self.n_records -= before.len(),
            None => self.order.push_back(alert),
        }
        while self.order.len() > MAX_ALERTS || self.n_records > MAX_RECORDS {
            let Some(oldest) = self.order.pop_front() else { break };
            self.n_records -= self.sessions.remove(&oldest).map_or(0, |session| session.len());
        }
    }
}

/// Whether a window of the alert's key is the one that it speaks of: a session may have ended and begun anew meanwhile, a
/// series or a service goes on.
fn is_about(window: &Window<'_>, alert: &Alert) -> bool {
    match window {
        Window::Log(log) => {
            let culprit = alert.evidence.culprit;
            culprit.is_none_or(|culprit| log.records.iter().any(|record| record.record == culprit))
        }
        _ => {
            let (start, end) = window.span_unix_nano();
            start <= alert.end_unix_nano && alert.start_unix_nano <= end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lifecycle::collector::Collected, testing::Session};

    #[test]
    fn memory_stays_bounded_and_the_oldest_goes() {
        let mut alerted = Alerted::default();
        let session = Session::of("s", &[1; 500]);
        let window = session.closed();
        let log = window.as_log().expect("a log window");
        let kept = |first: usize| Kept::Log(Collected::of(log, first));
        for id in 0..600 {
            alerted.insert(AlertId(id), kept(0));
        }
        assert_eq!((alerted.n_records, alerted.order.len(), alerted.sessions.len()), (MAX_RECORDS, 500, 500));
        assert!(alerted.get(AlertId(99)).is_none() && alerted.get(AlertId(100)).is_some());
        // The same alert again takes the place of what was kept of it.
        alerted.insert(AlertId(100), kept(499));
        assert_eq!((alerted.n_records, alerted.order.len()), (MAX_RECORDS - 499, 500));
        for id in 0..10_000 {
            alerted.insert(AlertId(1_000 + id), kept(499));
        }
        assert_eq!(alerted.sessions.len(), MAX_ALERTS);
    }
}
