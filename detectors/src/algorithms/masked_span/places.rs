//! The places of a trace at which something is predicted, and how its spans stand to them.
//!
//! Each span is a place, and so is the end of what each span called: there *nothing more* is what came. Such an end is
//! a place like any other, since one who predicts it is not told that it is one; so calls that are missing are seen.

use std::ops::Range;

use crate::{language::Symbol, traces::sequence::Step};

/// How a span may stand to a place.
pub const N_RELATIONS: usize = 8;

const CALLER: u8 = 0;
const ABOVE: u8 = 1;
const CALLED: u8 = 2;
const BELOW: u8 = 3;
const EARLIER_CALL: u8 = 4;
const LATER_CALL: u8 = 5;
const BEFORE: u8 = 6;
const AFTER: u8 = 7;

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The step of its span; for the end of what a span called, the step after that.
    pub at: usize,
    /// The step after all that its span led to; `at` where there is no span.
    pub end: usize,
    /// The steps from `at` to before this one are not to be seen when it is predicted: its span, as in the paper.
    pub hidden_until: usize,
    /// The step that is or would be the caller, and the calls of it just before and after.
    pub parent: Option<usize>,
    pub left: Option<usize>,
    pub right: Option<usize>,
    /// Spans above it.
    pub depth: usize,
    /// What came: the label of the span, or nothing more.
    pub came: Option<Symbol>,
}

impl Place {
    /// The step to blame when something else was expected here.
    pub fn blamed(&self) -> usize {
        if self.came.is_some() { self.at } else { self.parent.unwrap_or(0) }
    }

    /// The steps that are not to be seen when it is predicted.
    pub fn hidden(&self) -> Range<usize> {
        self.at..self.hidden_until
    }

    /// The same place with all that its caller did from here on hidden: what would be known if it had gone no further.
    pub fn without_later(&self, steps: &[Step]) -> Self {
        let until = self.parent.map_or(steps.len(), |parent| steps[parent].end as usize);
        match self.came {
            Some(_) => Self { right: None, hidden_until: until, ..*self },
            None => *self,
        }
    }

    /// How a step stands to it.
    pub fn relation(&self, steps: &[Step], idx: usize) -> usize {
        let step = &steps[idx];
        let relation = if self.parent == Some(idx) {
            CALLER
        } else if step.parent() == self.parent {
            if idx < self.at { EARLIER_CALL } else { LATER_CALL }
        } else if (self.at..self.end).contains(&idx) {
            if step.parent() == Some(self.at) { CALLED } else { BELOW }
        } else if idx >= self.at {
            AFTER
        } else if step.end as usize >= self.end && usize::from(step.depth) < self.depth {
            ABOVE
        } else {
            BEFORE
        };
        usize::from(relation)
    }
}

/// The places of a trace, those of its spans first. Of a trace that is cut only what is whole: a span whose end is not known is
/// none.
pub fn places_of(steps: &[Step], is_cut: bool, to: &mut Vec<Place>) {
    to.clear();
    let is_known = |step: &Step| !is_cut || (step.end as usize) < steps.len();
    // Of each step, and last of the trace, the latest call so far.
    let mut latest: Vec<Option<usize>> = vec![None; steps.len() + 1];
    let mut left = Vec::with_capacity(steps.len());
    let mut right: Vec<Option<usize>> = vec![None; steps.len()];
    for (idx, step) in steps.iter().enumerate() {
        let before = latest[step.parent().unwrap_or(steps.len())].replace(idx);
        if let Some(before) = before {
            right[before] = Some(idx);
        }
        left.push(before);
    }
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| is_known(step)) {
        let (end, depth) = (step.end as usize, usize::from(step.depth));
        let (parent, left, right) = (step.parent(), left[at], right[at]);
        to.push(Place { at, end, hidden_until: at + 1, parent, left, right, depth, came: Some(step.symbol) });
    }
    for (idx, step) in steps.iter().enumerate().filter(|(_, step)| is_known(step)) {
        let (at, depth) = (step.end as usize, usize::from(step.depth) + 1);
        let (parent, left) = (Some(idx), latest[idx]);
        to.push(Place { at, end: at, hidden_until: at, parent, left, right: None, depth, came: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::TraceFixture,
        traces::sequence::{Labels, Sequence},
    };

    /// a calls b, which calls c and d, and then e.
    fn sequence(max_steps: usize) -> Sequence {
        let rows = [
            (None, "a", 0, 100),
            (Some(0), "b", 10, 40),
            (Some(1), "c", 15, 5),
            (Some(1), "d", 30, 5),
            (Some(0), "e", 60, 10),
        ];
        let fixture = TraceFixture::of("t", &rows);
        let (trace, mut sequence) = (fixture.trace(), Sequence::default());
        let (labels, _) = Labels::learn(&[&trace], 10);
        assert!(sequence.take(&labels, &trace, max_steps));
        sequence
    }

    fn relations(place: &Place, steps: &[Step]) -> Vec<usize> {
        (0..steps.len()).map(|idx| place.relation(steps, idx)).collect()
    }

    #[test]
    fn each_span_and_each_end_is_a_place_among_its_neighbours() {
        let (sequence, mut places) = (sequence(100), Vec::new());
        let steps = &sequence.steps;
        places_of(steps, sequence.is_cut, &mut places);
        assert_eq!(places.len(), 10);
        let [caller, above, called, below, earlier, later, before, after] =
            [CALLER, ABOVE, CALLED, BELOW, EARLIER_CALL, LATER_CALL, BEFORE, AFTER].map(usize::from);
        // What stands at the place itself is not seen.
        let d = places[3];
        assert_eq!((d.parent, d.left, d.right, d.depth, d.blamed()), (Some(1), Some(2), None, 2, 3));
        assert_eq!(relations(&d, steps), [above, caller, earlier, later, after]);
        let b = places[1];
        assert_eq!((b.parent, b.left, b.right, b.hidden()), (Some(0), None, Some(4), 1..2));
        let b_alone = b.without_later(steps);
        assert_eq!((b_alone.left, b_alone.right, b_alone.hidden(), b_alone.end), (None, None, 1..5, 4));
        assert_eq!(d.without_later(steps).hidden(), 3..4, "what followed the caller is seen");
        assert_eq!(relations(&b, steps), [caller, later, called, called, later]);
        assert_eq!(relations(&places[0], steps), [later, called, below, below, called]);
        let end_of_b = places[6];
        assert_eq!((end_of_b.left, end_of_b.came, end_of_b.blamed()), (Some(3), None, 1));
        assert!(end_of_b.hidden().is_empty() && end_of_b.without_later(steps) == end_of_b);
        assert_eq!(relations(&end_of_b, steps), [above, caller, earlier, earlier, after]);
        let end_of_a = places[5];
        assert_eq!(relations(&end_of_a, steps), [caller, earlier, before, before, earlier]);
        let end_of_e = places[9];
        assert_eq!(relations(&end_of_e, steps), [above, before, before, before, caller]);
    }

    #[test]
    fn of_a_trace_that_is_cut_only_what_is_whole_is_a_place() {
        let (sequence, mut places) = (sequence(4), Vec::new());
        places_of(&sequence.steps, sequence.is_cut, &mut places);
        let at: Vec<(usize, bool)> = places.iter().map(|place| (place.at, place.came.is_some())).collect();
        assert_eq!(at, [(2, true), (3, false)], "c, and that it called nothing");
    }
}
