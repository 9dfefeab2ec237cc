//! What is known of traces: which were disturbed, by which service, by what.
//!
//! People know when a fault was injected or repaired, not which traces it reached. [`Episodes`] turns the one into the
//! other: a trace that called the service while the fault was surely there is an example of it; one that did not, or
//! ran while there was surely none, is normal; one from around its beginning or end is nothing.
//!
//! Fails where a service disturbs others that do not call it, by what they share; those traces are then taken for normal.

use std::sync::Arc;

use faultline_core::{SpanEntry, TraceWindow};

/// What disturbed a trace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault {
    /// The service that it was in.
    pub service: Arc<str>,
    /// What it was, such as `network_delay`.
    pub kind: Arc<str>,
}

/// What is known of a trace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// Nothing disturbed it.
    Normal,
    /// A fault did.
    Fault(Fault),
}

impl Label {
    /// The fault, where there is one.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        if let Self::Fault(fault) = self { Some(fault) } else { None }
    }
}

/// A fault and when it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// What it was.
    pub fault: Fault,
    /// From when on it surely was there.
    pub start_unix_nano: i64,
    /// Until when it surely was there.
    pub end_unix_nano: i64,
}

/// All faults that are known of some stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Episodes {
    episodes: Vec<Episode>,
    margin_nanos: i64,
}

impl Episodes {
    /// These episodes, each of which may have been there up to `margin_nanos` before its start and after its end.
    #[must_use]
    pub fn new(mut episodes: Vec<Episode>, margin_nanos: i64) -> Self {
        episodes.sort_by_key(|episode| episode.start_unix_nano);
        Self { episodes, margin_nanos: margin_nanos.max(0) }
    }

    /// The episodes, in order of their start.
    #[must_use]
    pub fn all(&self) -> &[Episode] {
        &self.episodes
    }

    /// The label of a trace; none where it is not known. Of several episodes the first that reached it counts.
    #[must_use]
    pub fn label(&self, trace: &TraceWindow<'_>) -> Option<Label> {
        let (start, end) = trace.span_unix_nano();
        let mut is_sure = true;
        for episode in &self.episodes {
            if episode.start_unix_nano <= end && start <= episode.end_unix_nano {
                let reaches = |span: &SpanEntry| {
                    span.start_unix_nano <= episode.end_unix_nano
                        && span.end_unix_nano() >= episode.start_unix_nano
                        && trace.service(span) == &*episode.fault.service
                };
                if trace.spans.iter().any(reaches) {
                    return Some(Label::Fault(episode.fault.clone()));
                }
            } else if episode.start_unix_nano.saturating_sub(self.margin_nanos) <= end
                && start <= episode.end_unix_nano.saturating_add(self.margin_nanos)
            {
                let calls = trace.spans.iter().any(|span| trace.service(span) == &*episode.fault.service);
                is_sure &= !calls;
            }
        }
        is_sure.then_some(Label::Normal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TraceFixture;

    const SECOND: i64 = 1_000_000_000;

    fn episodes() -> Episodes {
        let fault = |service: &str| Fault { service: service.into(), kind: "delay".into() };
        let episode = |service: &str, start: i64, end: i64| Episode {
            fault: fault(service),
            start_unix_nano: start * SECOND,
            end_unix_nano: end * SECOND,
        };
        Episodes::new(vec![episode("stock", 500, 600), episode("cart", 100, 200)], 50 * SECOND)
    }

    /// Gateway and cart, one second long, from so many seconds on.
    fn at(seconds: i64) -> TraceFixture {
        let start = seconds * 1_000_000;
        TraceFixture::of("t", &[(None, "gateway", start, 1_000_000), (Some(0), "cart", start, 900_000)])
    }

    #[test]
    fn a_trace_is_an_example_while_the_fault_is_there_and_nothing_around_that() {
        let episodes = episodes();
        let label = |seconds: i64| episodes.label(&at(seconds).trace());
        let service = |label: Option<Label>| label.and_then(|label| label.fault().map(|fault| fault.service.clone()));
        assert_eq!(service(label(150)), Some("cart".into()));
        assert_eq!(service(label(100)), Some("cart".into()));
        for seconds in [60, 98, 202, 249] {
            assert_eq!(label(seconds), None, "at {seconds} s");
        }
        assert_eq!((label(10), label(300)), (Some(Label::Normal), Some(Label::Normal)));
        assert_eq!(label(550), Some(Label::Normal), "it did not call the stock");
        assert_eq!(label(480), Some(Label::Normal), "nor there");
        assert!(episodes.all().is_sorted_by_key(|episode| episode.start_unix_nano));
    }

    #[test]
    fn times_at_the_ends_of_time_do_not_overflow() {
        let fault = Fault { service: "cart".into(), kind: "delay".into() };
        let endless = Episode { fault, start_unix_nano: i64::MIN, end_unix_nano: i64::MAX };
        let episodes = Episodes::new(vec![endless], i64::MAX);
        assert!(episodes.label(&at(1).trace()).is_some_and(|label| label.fault().is_some()));
        assert_eq!(episodes.label(&TraceFixture::empty("none").trace()), Some(Label::Normal));
    }
}
