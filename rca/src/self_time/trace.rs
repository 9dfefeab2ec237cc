//! One trace taken apart: who spent its time, and where its errors begin.

use rustc_hash::FxHashMap;

use super::{Kept, NOBODY, SelfTime};
use crate::span::Side;

/// Whose time it was, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Spender {
    pub service: u32,
    /// Operation, by the span's name.
    pub name: u32,
    pub how: How,
}

/// How a stretch of time is attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum How {
    /// The service's own span, less its children.
    Own,
    /// A caller's span less the callee's: on the way or in the callee's door.
    Way,
    /// A caller's span of a callee whose own spans are not there.
    Unseen,
}

/// Where an error begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The service failed by itself.
    Own(u32),
    /// The service did not answer, as `caller` says.
    Silent { service: u32, caller: u32 },
}

/// Calls deeper than this are not followed (a cycle of parents would have no end).
const MAX_DEPTH: usize = 64;

/// A trace's spans, sorted by span id, with their children.
pub(crate) struct Tree<'a> {
    view: &'a SelfTime,
    spans: &'a [Kept],
    /// Children of each span, by index, in order of their start.
    children: Vec<Vec<usize>>,
    callees: &'a FxHashMap<(u32, u32), u32>,
}

impl<'a> Tree<'a> {
    pub fn new(view: &'a SelfTime, spans: &'a [Kept], callees: &'a FxHashMap<(u32, u32), u32>) -> Self {
        let mut children = vec![Vec::new(); spans.len()];
        for (idx, span) in spans.iter().enumerate() {
            if span.parent == 0 || span.parent == span.span {
                continue;
            }
            // A client and a server span may share one id (Zipkin); the child then belongs to the last, the server's.
            let after = spans.partition_point(|other| other.span <= span.parent);
            if after > 0 && spans[after - 1].span == span.parent {
                children[after - 1].push(idx);
            }
        }
        for siblings in &mut children {
            siblings.sort_by_key(|idx| (spans[*idx].start, spans[*idx].span));
        }
        Self { view, spans, children, callees }
    }

    /// Self time of every span in nanoseconds, with whose it was.
    pub fn self_times(&self) -> impl Iterator<Item = (Spender, i64)> {
        self.spans.iter().enumerate().map(|(idx, span)| {
            let own = span.end - span.start - self.covered(idx);
            let spender = match span.side {
                Side::Working => Spender { service: span.service, name: span.name, how: How::Own },
                Side::Calling => match self.answering(idx) {
                    Some(child) => Spender { service: child.service, name: span.name, how: How::Way },
                    None => match self.callee(span) {
                        Some(callee) => Spender { service: callee, name: span.name, how: How::Unseen },
                        None => Spender { service: span.service, name: span.name, how: How::Own },
                    },
                },
            };
            (spender, own)
        })
    }

    /// How much of a span its children cover: the union of their intervals, clipped to it.
    fn covered(&self, idx: usize) -> i64 {
        let span = &self.spans[idx];
        let (mut covered, mut until) = (0, span.start);
        for child in &self.children[idx] {
            let child = &self.spans[*child];
            let (start, end) = (child.start.max(until), child.end.min(span.end));
            if end > start {
                covered += end - start;
                until = end;
            }
        }
        covered
    }

    /// The callee's span under a calling span.
    fn answering(&self, idx: usize) -> Option<&Kept> {
        let children = self.children[idx].iter().map(|child| &self.spans[*child]);
        children.into_iter().find(|child| child.service != self.spans[idx].service)
    }

    /// Whom a calling span called: the service its address means, else who answered such calls before, else the
    /// address as it stands.
    fn callee(&self, span: &Kept) -> Option<u32> {
        let known = self.view.service_called(span.peer);
        let learned = || self.callees.get(&(span.service, span.name)).copied();
        known.or_else(learned).or((span.peer != NOBODY).then_some(span.peer))
    }

    /// Where each of the trace's errors begins.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.spans.iter().enumerate().filter(|(_, span)| span.is_error).filter_map(|(idx, span)| {
            if self.children[idx].iter().any(|child| self.spans[*child].is_error && self.spans[*child].end <= span.end)
            {
                return None; // It only passes on what went wrong below.
            }
            if span.side == Side::Working {
                return Some(Origin::Own(span.service));
            }
            let service = match self.answering(idx) {
                // It was answered too late or not at all: whoever was being waited for when the caller gave up.
                Some(_) => self.waited_for(idx, span.end)?,
                None => self.callee(span).unwrap_or(span.service),
            };
            Some(if service == span.service {
                Origin::Own(service)
            } else {
                Origin::Silent { service, caller: span.service }
            })
        })
    }

    /// Follows the calls that were under way at time `at` down from a calling span to whoever was working then.
    fn waited_for(&self, idx: usize, at: i64) -> Option<u32> {
        let mut idx = idx;
        for _ in 0..MAX_DEPTH {
            let under_way = |child: &&usize| self.spans[**child].start < at && at <= self.spans[**child].end;
            match self.children[idx].iter().rev().find(under_way) {
                Some(child) => idx = *child,
                None => {
                    let span = &self.spans[idx];
                    if span.side == Side::Working {
                        return Some(span.service);
                    }
                    // The call was under way but its callee's work was over: an answer lost on the way.
                    return self.answering(idx).map(|child| child.service).or_else(|| self.callee(span));
                }
            }
        }
        None
    }
}
