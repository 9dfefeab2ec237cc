//! The spans of one trace, in whatever order they came, as a tree: each once, callers before those they call.
//!
//! Every step is decided by start, id and record number of the spans, so the order in which they came makes no
//! difference. Cost: two sorts and a binary search a span, n log n. Nothing recurses: a chain of calls may be as long as
//! the trace.

use faultline_core::SpanEntry;

use super::open::OpenSpan;

/// No span.
const NONE: u32 = SpanEntry::NO_PARENT;

/// What was wrong with the spans of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flaws {
    /// Spans whose id another span has, left out.
    pub n_duplicates: u64,
    /// Spans whose caller is not there.
    pub n_orphans: u64,
    /// Circles of spans, each cut open.
    pub n_circles: u64,
}

/// Makes trees; its buffers are used again. A span is named by its rank in the order of start.
#[derive(Debug, Default)]
pub(super) struct TreeBuilder {
    /// The spans of the trace at hand: filled by the caller, empty again after [`Self::build`].
    pub spans: Vec<OpenSpan>,
    by_id: Vec<(u64, u32)>,
    parent: Vec<u32>,
    /// Which walk along callers has passed the span, 0 for none.
    walk: Vec<u32>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    /// Where in the output the span is.
    place: Vec<u32>,
}

impl TreeBuilder {
    /// Appends the tree of [`Self::spans`] to `out`: each span is followed by all that it called, directly or not.
    pub fn build(&mut self, out: &mut Vec<SpanEntry>) -> Flaws {
        self.spans.sort_unstable_by_key(|span| {
            (span.entry.start_unix_nano, span.id, span.entry.record, span.parent_id, span.entry.duration_nanos)
        });
        let n_duplicates = self.leave_out_duplicates();
        self.find_parents();
        let n_circles = self.cut_circles();
        let first = self.link();
        let n_torn = self.lay_out(first, out);
        self.spans.clear();
        Flaws { n_duplicates, n_orphans: n_torn - n_circles, n_circles }
    }

    fn index_ids(&mut self) {
        self.by_id.clear();
        self.by_id
            .extend(self.spans.iter().zip(0..).filter(|(span, _)| span.id != 0).map(|(span, rank)| (span.id, rank)));
        self.by_id.sort_unstable();
    }

    /// Of the spans with one id the earliest stays, and of those that start at once the one that came first.
    fn leave_out_duplicates(&mut self) -> u64 {
        self.index_ids();
        let n_spans = self.spans.len();
        if self.by_id.windows(2).all(|pair| pair[0].0 != pair[1].0) {
            return 0;
        }
        self.walk.clear();
        self.walk.resize(n_spans, 0);
        for pair in self.by_id.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            self.walk[pair[1].1 as usize] = 1;
        }
        let mut is_duplicate = self.walk.iter().map(|&marked| marked == 1);
        self.spans.retain(|_| !is_duplicate.next().unwrap_or(false));
        self.index_ids();
        (n_spans - self.spans.len()) as u64
    }

    fn find_parents(&mut self) {
        let by_id = &self.by_id;
        self.parent.clear();
        self.parent.extend(self.spans.iter().map(|span| {
            let found = by_id.binary_search_by_key(&span.parent_id, |&(id, _)| id);
            found.map_or(NONE, |at| by_id[at].1)
        }));
    }

    /// Walks along the callers from each span; who meets their own walk again is on a circle. It is cut at its earliest
    /// span, which counts as an orphan. Returns how many there were.
    fn cut_circles(&mut self) -> u64 {
        let n_spans = self.parent.len();
        self.walk.clear();
        self.walk.resize(n_spans, 0);
        let mut n_circles = 0;
        for (start, walk) in (0..n_spans).zip(1..) {
            let mut at = start;
            while self.walk[at] == 0 {
                self.walk[at] = walk;
                if self.parent[at] == NONE {
                    break;
                }
                at = self.parent[at] as usize;
            }
            if self.walk[at] != walk || self.parent[at] == NONE {
                continue;
            }
            let (mut earliest, mut member) = (at, self.parent[at] as usize);
            while member != at {
                earliest = earliest.min(member);
                member = self.parent[member] as usize;
            }
            self.parent[earliest] = NONE;
            n_circles += 1;
        }
        n_circles
    }

    /// Chains the children of each span, and the spans without a caller, by their start. Returns the first of the latter.
    fn link(&mut self) -> u32 {
        let n_spans = self.parent.len();
        for chain in [&mut self.first_child, &mut self.next_sibling] {
            chain.clear();
            chain.resize(n_spans, NONE);
        }
        let mut first = NONE;
        for rank in (0..n_spans).rev() {
            let head = match self.parent[rank] {
                NONE => &mut first,
                parent => &mut self.first_child[parent as usize],
            };
            self.next_sibling[rank] = std::mem::replace(head, rank as u32);
        }
        first
    }

    /// Writes the spans in order. Returns how many name a caller and have none.
    fn lay_out(&mut self, first: u32, out: &mut Vec<SpanEntry>) -> u64 {
        self.place.clear();
        self.place.resize(self.spans.len(), NONE);
        let (base, mut n_torn, mut at) = (out.len(), 0, first);
        out.reserve(self.spans.len());
        while at != NONE {
            let rank = at as usize;
            let (span, caller) = (&self.spans[rank], self.parent[rank]);
            let is_orphan = caller == NONE && span.parent_id != 0;
            let parent = if caller == NONE { NONE } else { self.place[caller as usize] };
            self.place[rank] = (out.len() - base) as u32;
            out.push(SpanEntry { parent, is_orphan, ..span.entry });
            n_torn += u64::from(is_orphan);

            if self.first_child[rank] != NONE {
                at = self.first_child[rank];
                continue;
            }
            // Back up to the nearest span with a sibling that is still to come.
            while at != NONE && self.next_sibling[at as usize] == NONE {
                at = self.parent[at as usize];
            }
            if at != NONE {
                at = self.next_sibling[at as usize];
            }
        }
        n_torn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the tree of `(id, parent id, start)`; shows each span as `id<parent` with `?` before orphans.
    fn tree(spans: &[(u64, u64, i64)]) -> (Vec<String>, Flaws) {
        let mut builder = TreeBuilder::default();
        builder.spans.extend(spans.iter().zip(1..).map(|(&(id, parent_id, start_unix_nano), record)| OpenSpan {
            entry: SpanEntry {
                start_unix_nano,
                duration_nanos: 1,
                record,
                parent: 7,
                service: 0,
                operation: id as u32,
                kind: 0,
                is_error: false,
                is_orphan: false,
            },
            id,
            parent_id,
        }));
        let mut out = Vec::new();
        let flaws = builder.build(&mut out);
        assert!(builder.spans.is_empty());
        let show = |span: &SpanEntry| {
            let caller = span.parent().map_or(String::new(), |caller| format!("<{}", out[caller].operation));
            format!("{}{}{caller}", if span.is_orphan { "?" } else { "" }, span.operation)
        };
        (out.iter().map(show).collect(), flaws)
    }

    #[test]
    fn each_span_is_followed_by_what_it_called_in_the_order_of_start() {
        let spans = [(5, 3, 40), (3, 1, 30), (2, 1, 20), (4, 2, 50), (1, 0, 10)];
        assert_eq!(tree(&spans), (["1", "2<1", "4<2", "3<1", "5<3"].map(String::from).to_vec(), Flaws::default()));
    }

    #[test]
    fn a_caller_that_starts_after_those_it_calls_still_comes_first() {
        assert_eq!(tree(&[(1, 0, 50), (2, 1, 10), (3, 2, 5)]).0, ["1", "2<1", "3<2"]);
    }

    #[test]
    fn spans_without_their_caller_stand_beside_the_roots() {
        let (shown, flaws) = tree(&[(1, 0, 10), (2, 9, 5), (3, 2, 20), (6, 0, 7)]);
        assert_eq!(shown, ["?2", "3<2", "6", "1"]);
        assert_eq!(flaws, Flaws { n_orphans: 1, ..Flaws::default() });
    }

    #[test]
    fn a_circle_is_cut_at_its_earliest_span_wherever_it_is_entered() {
        let circle = [(1, 3, 30), (2, 1, 10), (3, 2, 20), (4, 1, 5), (5, 4, 6)];
        for turn in 0..circle.len() {
            let mut spans = circle;
            spans.rotate_left(turn);
            let (shown, flaws) = tree(&spans);
            assert_eq!(shown, ["?2", "3<2", "1<3", "4<1", "5<4"]);
            assert_eq!(flaws, Flaws { n_circles: 1, ..Flaws::default() });
        }
    }

    #[test]
    fn a_span_that_calls_itself_is_a_circle_of_one() {
        let (shown, flaws) = tree(&[(1, 1, 0), (2, 1, 1), (3, 3, 2)]);
        assert_eq!(shown, ["?1", "2<1", "?3"]);
        assert_eq!(flaws, Flaws { n_circles: 2, ..Flaws::default() });
    }

    #[test]
    fn of_spans_with_one_id_the_earliest_stays_and_its_children_find_it() {
        let (shown, flaws) = tree(&[(2, 1, 9), (1, 0, 0), (2, 1, 4), (3, 2, 5), (2, 0, 12)]);
        assert_eq!(shown, ["1", "2<1", "3<2"]);
        assert_eq!(flaws, Flaws { n_duplicates: 2, ..Flaws::default() });
    }

    #[test]
    fn spans_without_an_id_are_nobodys_caller_and_nobodys_duplicate() {
        let (shown, flaws) = tree(&[(0, 1, 3), (1, 0, 0), (0, 1, 2)]);
        assert_eq!((shown.len(), flaws), (3, Flaws::default()));
        assert_eq!(shown, ["1", "0<1", "0<1"]);
    }

    #[test]
    fn a_chain_of_any_length_is_no_matter() {
        let chain: Vec<_> = (1..=100_000).map(|id| (id, id - 1, 0)).collect();
        let (shown, flaws) = tree(&chain);
        assert_eq!((shown.len(), flaws), (100_000, Flaws::default()));
        assert_eq!(shown[99_999], "100000<99999");
    }
}
