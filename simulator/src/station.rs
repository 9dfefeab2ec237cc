//! A service as queueing theory sees it: c servers, one first-in-first-out queue, and the sums that Little's law is
//! checked with.

use std::collections::VecDeque;

use crate::slab::Key;

/// Work that waits for a server: who, since when.
pub(crate) struct Station<T> {
    n_servers: usize,
    n_busy: usize,
    queue: VecDeque<(T, u64)>,
    changed_ns: u64,
    /// Units of work that were taken on.
    pub n_started: u64,
    /// Units of work done.
    pub n_done: u64,
    /// Sum of the times between arrival and start.
    pub wait_ns: u128,
    /// Integral over time of the units in the station.
    pub unit_ns: u128,
    /// Integral over time of the busy servers.
    pub busy_ns: u128,
}

impl<T> Station<T> {
    pub fn new(n_servers: usize) -> Self {
        Self {
            n_servers,
            n_busy: 0,
            queue: VecDeque::new(),
            changed_ns: 0,
            n_started: 0,
            n_done: 0,
            wait_ns: 0,
            unit_ns: 0,
            busy_ns: 0,
        }
    }

    /// Brings the integrals up to `now_ns`.
    pub fn settle(&mut self, now_ns: u64) {
        let elapsed = u128::from(now_ns - self.changed_ns);
        self.unit_ns += elapsed * (self.n_busy + self.queue.len()) as u128;
        self.busy_ns += elapsed * self.n_busy as u128;
        self.changed_ns = now_ns;
    }

    pub fn n_waiting(&self) -> usize {
        self.queue.len()
    }

    /// Gives `unit` a server at once (then it comes back) or lets it wait.
    pub fn arrive(&mut self, unit: T, now_ns: u64) -> Option<T> {
        self.settle(now_ns);
        if self.n_busy < self.n_servers {
            self.n_busy += 1;
            self.n_started += 1;
            Some(unit)
        } else {
            self.queue.push_back((unit, now_ns));
            None
        }
    }

    /// Frees a server; the unit that gets it next comes back.
    pub fn leave(&mut self, now_ns: u64) -> Option<T> {
        self.settle(now_ns);
        self.n_done += 1;
        match self.queue.pop_front() {
            Some((unit, since_ns)) => {
                self.n_started += 1;
                self.wait_ns += u128::from(now_ns - since_ns);
                Some(unit)
            }
            None => {
                self.n_busy -= 1;
                None
            }
        }
    }
}

/// What has happened at one service so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceStats {
    /// Visits that began.
    pub n_visits: u64,
    /// Visits that ended.
    pub n_ended: u64,
    /// Visits that ended in failure.
    pub n_failed: u64,
    /// Visits turned away because the queue (or the whole simulation) was full.
    pub n_turned_away: u64,
    /// Sum of the visits' durations, nanoseconds.
    pub visit_ns: u128,
    /// Pieces of work that got a server.
    pub n_works: u64,
    /// Sum of their waits for one, nanoseconds.
    pub wait_ns: u128,
    /// Integral over time of the works waiting or in service, nanoseconds.
    pub work_ns: u128,
    /// Integral over time of the busy servers, nanoseconds.
    pub busy_ns: u128,
    /// Integral over time of the visits under way, nanoseconds.
    pub present_ns: u128,
}

/// A service as the simulation keeps it.
pub(crate) struct ServiceState {
    pub station: Station<Key>,
    pub stats: ServiceStats,
    pub n_present: u64,
    changed_ns: u64,
}

impl ServiceState {
    pub fn new(n_servers: usize) -> Self {
        Self { station: Station::new(n_servers), stats: ServiceStats::default(), n_present: 0, changed_ns: 0 }
    }

    /// Brings the integral of the visits up to `now_ns`.
    pub fn settle(&mut self, now_ns: u64) {
        self.stats.present_ns += u128::from(now_ns - self.changed_ns) * u128::from(self.n_present);
        self.changed_ns = now_ns;
    }
}
