//! What a detector sees of one service: where the traces that ended within one step spent their time in and around it.

use std::sync::Arc;

use crate::{
    template::RecordId,
    window::{Culprit, WindowKey},
};

/// Where a trace spent a time, seen from a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// In the service itself: the time of a span less that of the spans it called.
    Own,
    /// On the way into it: how much longer a caller in another service waited for a call than it took here.
    Into,
    /// On the way out of it: the same of a call that it made of another service.
    OutOf,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Own, Self::Into, Self::OutOf];
}

/// One time that a trace spent in or around a service. 32 bytes, copied freely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// How long, never negative.
    pub nanos: i64,
    /// The span that it was measured on, of a call the span of the called service.
    pub record: RecordId,
    /// Which operation or call, as an index into [`ServiceWindow::names`].
    pub name: u32,
    /// Number of the trace within the window. Entries of one trace stand together.
    pub trace: u32,
    /// Where it was spent.
    pub part: Part,
}

/// An operation of a service, or a call of one service by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallName {
    /// Hash of the names of the services and operations: the same in every run.
    pub hash: u64,
    /// As a person reads it: `GET /cart`, `gateway GET / > cart GET /cart`.
    pub text: Arc<str>,
}

/// One service within one step.
///
/// Its key has `services` as stream and the service as session.
#[derive(Clone, Copy, Debug)]
pub struct ServiceWindow<'a> {
    /// Which service.
    pub key: &'a WindowKey,
    /// Where the step begins; a multiple of `step_nanos`.
    pub start_unix_nano: i64,
    /// The step, more than zero.
    pub step_nanos: i64,
    /// The times, trace by trace; of so many traces that they are a sample, whole traces that chance has chosen.
    pub entries: &'a [ServiceEntry],
    /// Traces that touched the service, in the sample or not.
    pub n_traces: u64,
    /// Names by [`ServiceEntry::name`].
    pub names: &'a [CallName],
    /// The service.
    pub service: &'a Arc<str>,
}

impl<'a> ServiceWindow<'a> {
    /// Where the step begins, twice: steps that follow each other are a step apart, wherever in them something happened.
    #[must_use]
    pub fn span_unix_nano(&self) -> (i64, i64) {
        (self.start_unix_nano, self.start_unix_nano)
    }

    /// The entry that a score names, at the beginning of the step.
    #[must_use]
    pub fn culprit(&self, idx: usize) -> Option<Culprit<'a>> {
        self.entries.get(idx)?;
        Some(Culprit { time_unix_nano: self.start_unix_nano, service: self.service, severity_number: 0 })
    }

    /// Name of an entry's operation or call.
    #[must_use]
    pub fn name(&self, entry: &ServiceEntry) -> Option<&'a CallName> {
        self.names.get(entry.name as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_thirty_two_bytes() {
        assert_eq!(size_of::<ServiceEntry>(), 32);
    }

    #[test]
    fn whatever_a_score_names_lies_at_the_beginning_of_the_step() {
        let key = WindowKey { stream: Arc::from("services"), session: Arc::from("cart") };
        let (service, names) = (Arc::from("cart"), [CallName { hash: 1, text: Arc::from("GET /cart") }]);
        let entry = ServiceEntry { nanos: 5, record: 9, name: 0, trace: 0, part: Part::Own };
        let window = ServiceWindow {
            key: &key,
            start_unix_nano: 120,
            step_nanos: 60,
            entries: &[entry, ServiceEntry { name: 7, ..entry }],
            n_traces: 1,
            names: &names,
            service: &service,
        };
        assert_eq!(window.culprit(1).map(|entry| (entry.time_unix_nano, entry.service)), Some((120, "cart")));
        assert_eq!((window.culprit(2), window.span_unix_nano()), (None, (120, 120)));
        assert_eq!(window.name(&entry).map(|name| &*name.text), Some("GET /cart"));
        assert_eq!(window.name(&window.entries[1]), None);
    }
}
