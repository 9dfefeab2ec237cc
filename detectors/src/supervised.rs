//! Models that learn from labels: which traces were disturbed, by which service and by what.
//!
//! Beside the path, not on it: station 7 fits detectors on a warm-up, and a warm-up has no labels. A model here is
//! fitted by an entrance of its own that takes them ([`mepfl::Mepfl::fit_labelled`], [`seer::Seer::fit_labelled`]).
//! That is why these methods are not in [`crate::registry::REGISTRY`]: whoever names one there would get a detector
//! that cannot be fitted. [`SUPERVISED`] lists those that are detectors once they are fitted: their entries load what
//! was written, and refuse to fit.
//!
//! Where labels come from ([`labels`]):
//! - recorded fault injections: an exercise, a simulator or a public data set says which service was disturbed how and
//!   when, and every trace that called it meanwhile is an example;
//! - incidents that were resolved, whose cause someone wrote down: the same, with the time of the incident;
//! - verdicts: a trace whose alert a person called a false positive is normal, whatever it looks like.
//!
//! What such a model knows are the faults that were shown to it. A fault of another kind is at best heard as something
//! odd, and the service of one that never was a culprit is found only as far as culprits look alike. So none of them
//! alerts by default, and unsupervised detectors stay beside them.

pub mod forest;
pub mod labels;
pub mod mepfl;
pub mod seer;

use crate::registry::Entry;

/// Models of labelled data that score windows like any detector. Loading is as in the registry; fitting without labels
/// is an error that says what is missing.
pub static SUPERVISED: &[Entry] = &[Entry::of::<mepfl::Mepfl>()];
