//! A batch on its way: where it came from, and who is waiting to hear that it is safe.
//!
//! Sources make a [`Delivery`]; exactly one place in the pipeline (station 3) calls [`Ack::done`] or [`Ack::failed`].
//! An acknowledgement that is dropped unanswered counts as failed, so a crash of a stage never looks like success.

use std::sync::Arc;

use crate::batch::Batch;

/// Where in its source a batch began and where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Name of the source, such as `otlp` or a file path.
    pub source: Arc<str>,
    /// Offset of the first record in the source's own unit (records, bytes, Kafka offset).
    pub offset: u64,
    /// Offset from which reading resumes once this batch is safe.
    pub next: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckResult {
    /// faultline has taken responsibility: the source may forget the batch.
    Done,
    /// It has not; the source must offer the batch again or tell its sender to.
    Failed,
}

/// The promise to answer a source exactly once.
pub struct Ack(Option<Box<dyn FnOnce(AckResult) + Send>>);

impl Ack {
    /// An acknowledgement that calls `answer` once.
    pub fn new(answer: impl FnOnce(AckResult) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// An acknowledgement that nobody waits for.
    #[must_use]
    pub fn ignored() -> Self {
        Self(None)
    }

    /// The batch is safe.
    pub fn done(mut self) {
        if let Some(answer) = self.0.take() {
            answer(AckResult::Done);
        }
    }

    /// The batch is not safe and will not be.
    pub fn failed(self) {
        drop(self);
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(AckResult::Failed);
        }
    }
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Ack(open)" } else { "Ack(ignored)" })
    }
}

/// One batch with its position and its acknowledgement, as it leaves a source.
#[derive(Debug)]
pub struct Delivery {
    /// The decoded records.
    pub batch: Batch,
    /// Records that could not be decoded: kept as dead letters, never lost.
    pub rejects: Vec<Reject>,
    /// Where the batch stood in its source.
    pub position: Position,
    /// Who waits for it.
    pub ack: Ack,
}

/// A record that could not be decoded, kept so that somebody can look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Why, naming the field.
    pub reason: String,
    /// The record's bytes, cut at a few KiB.
    pub raw: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Ack, AckResult};

    fn answer_of(use_ack: impl FnOnce(Ack)) -> Vec<AckResult> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        use_ack(Ack::new(move |result| sink.lock().expect("no panic while held").push(result)));
        let seen = seen.lock().expect("no panic while held");
        seen.clone()
    }

    #[test]
    fn done_answers_once() {
        assert_eq!(answer_of(Ack::done), [AckResult::Done]);
    }

    #[test]
    fn a_dropped_acknowledgement_counts_as_failed() {
        assert_eq!(answer_of(drop), [AckResult::Failed]);
        assert_eq!(answer_of(Ack::failed), [AckResult::Failed]);
    }
}
