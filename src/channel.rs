//! The bounded channel between two stations, with its depth in `/metrics`.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

/// Messages a channel holds before the station in front of it waits. Few: a station should find what it takes up still in
/// the processor's cache, and four thousand records are more than a megabyte.
const CAPACITY: usize = 8;

/// The end that a station sends on. Dropping it closes the channel.
pub struct Sender<T> {
    channel: mpsc::SyncSender<T>,
    depth: metrics::Gauge,
}

/// The end that a station receives from.
pub struct Receiver<T> {
    channel: mpsc::Receiver<T>,
    depth: metrics::Gauge,
}

/// A channel into the station `name`.
pub fn channel<T>(name: &'static str) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(CAPACITY);
    let depth = metrics::gauge!("faultline_queue_size", "queue" => name);
    metrics::gauge!("faultline_queue_capacity", "queue" => name).set(CAPACITY as f64);
    (Sender { channel: sender, depth: depth.clone() }, Receiver { channel: receiver, depth })
}

impl<T> Sender<T> {
    /// Hands a message on, waiting while the channel is full.
    ///
    /// # Errors
    /// When the receiving station is gone: it failed, and its own error says why.
    pub fn send(&self, message: T) -> anyhow::Result<()> {
        self.depth.increment(1.0);
        self.channel.send(message).map_err(|_| anyhow::anyhow!("the next station has stopped"))
    }
}

impl<T> Receiver<T> {
    /// The next message; `None` once the channel is closed and empty.
    pub fn recv(&self) -> Option<T> {
        let message = self.channel.recv().ok()?;
        self.depth.decrement(1.0);
        Some(message)
    }

    /// The next message; `Some(None)` when none came for `timeout`; `None` once the channel is closed and empty.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Option<T>> {
        match self.channel.recv_timeout(timeout) {
            Ok(message) => {
                self.depth.decrement(1.0);
                Some(Some(message))
            }
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}
