//! How many calls wait in each service, tick by tick: what Seer sees.
//!
//! The depth of a service in a tick is the time that its spans were open within it, divided by the length of the tick:
//! the mean number of calls that it had taken and not answered. Seer reads queues where they are; spans come when they
//! have ended, so what is computed from recorded ones knows of calls that went on at the time. Live, the last ticks are
//! as deep as the calls that have ended until then make them.
//!
//! Cost: the ticks that a span was open in. Memory: 4 bytes a tick and service, at most `max_ticks` and `max_services`;
//! what is beyond is counted and left out.

use std::sync::Arc;

/// Depths of some services over some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Depths {
    start_unix_nano: i64,
    tick_nanos: i64,
    max_services: usize,
    max_ticks: usize,
    /// Services in the order in which they were first seen.
    services: Vec<Arc<str>>,
    /// A list for each service, by tick; ticks beyond its end are 0.
    columns: Vec<Vec<f32>>,
    n_ticks: usize,
    n_left_out: u64,
}

impl Depths {
    /// Nothing yet, from `start_unix_nano` on.
    #[must_use]
    pub fn new(start_unix_nano: i64, tick_nanos: i64, max_services: usize, max_ticks: usize) -> Self {
        Self {
            start_unix_nano,
            tick_nanos: tick_nanos.max(1),
            max_services,
            max_ticks,
            services: Vec::new(),
            columns: Vec::new(),
            n_ticks: 0,
            n_left_out: 0,
        }
    }

    /// Takes a span. The part of it that lies before the start or beyond the last tick is left out.
    pub fn push(&mut self, service: &str, start_unix_nano: i64, end_unix_nano: i64) {
        let last = self.tick_start(self.max_ticks);
        let (from, until) = (start_unix_nano.max(self.start_unix_nano), end_unix_nano.min(last));
        if from >= until {
            self.n_left_out += u64::from(start_unix_nano >= last || end_unix_nano < self.start_unix_nano);
            return;
        }
        let known = self.services.iter().position(|known| **known == *service);
        let Some(place) = known.or_else(|| self.add(service)) else {
            self.n_left_out += 1;
            return;
        };
        let (first, end) = (self.tick_of(from), self.tick_of(until - 1) + 1);
        let starts: Vec<i64> = (first..=end).map(|tick| self.tick_start(tick)).collect();
        let column = &mut self.columns[place];
        if column.len() < end {
            column.resize(end, 0.0);
        }
        for (depth, bounds) in column[first..end].iter_mut().zip(starts.windows(2)) {
            let open = until.min(bounds[1]) - from.max(bounds[0]);
            *depth += (open as f64 / self.tick_nanos as f64) as f32;
        }
        self.n_ticks = self.n_ticks.max(end);
    }

    fn add(&mut self, service: &str) -> Option<usize> {
        if self.services.len() >= self.max_services {
            return None;
        }
        self.services.push(Arc::from(service));
        self.columns.push(Vec::new());
        Some(self.services.len() - 1)
    }

    /// The tick that a time lies in; 0 before the start.
    #[must_use]
    pub fn tick_of(&self, time_unix_nano: i64) -> usize {
        let since = time_unix_nano.saturating_sub(self.start_unix_nano).max(0);
        usize::try_from(since / self.tick_nanos).unwrap_or(usize::MAX)
    }

    /// When a tick begins.
    #[must_use]
    pub fn tick_start(&self, tick: usize) -> i64 {
        let since = i64::try_from(tick).unwrap_or(i64::MAX).saturating_mul(self.tick_nanos);
        self.start_unix_nano.saturating_add(since)
    }

    /// The services, in the order in which they were first seen.
    #[must_use]
    pub fn services(&self) -> &[Arc<str>] {
        &self.services
    }

    /// Ticks up to the last in which a span was open.
    #[must_use]
    pub fn n_ticks(&self) -> usize {
        self.n_ticks
    }

    /// Spans that lie outside or whose service was one too many.
    #[must_use]
    pub fn n_left_out(&self) -> u64 {
        self.n_left_out
    }

    /// Depth of a service, by its place in [`Self::services`], in a tick.
    #[must_use]
    pub fn depth(&self, service: usize, tick: usize) -> f32 {
        self.columns.get(service).and_then(|column| column.get(tick)).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_the_mean_number_of_open_calls() {
        let mut depths = Depths::new(1_000, 100, 8, 50);
        depths.push("cart", 1_050, 1_250);
        depths.push("cart", 1_150, 1_175);
        depths.push("stock", 1_300, 1_300);
        depths.push("stock", 1_399, 1_401);
        let cart: Vec<f32> = (0..4).map(|tick| depths.depth(0, tick)).collect();
        assert_eq!(cart, [0.5, 1.25, 0.5, 0.0]);
        assert_eq!((depths.depth(1, 3), depths.depth(1, 4), depths.depth(7, 0)), (0.01, 0.01, 0.0));
        assert_eq!((depths.services().len(), depths.n_ticks(), depths.n_left_out()), (2, 5, 0));
        assert_eq!((depths.tick_of(1_399), depths.tick_of(0), depths.tick_start(3)), (3, 0, 1_300));
    }

    #[test]
    fn room_is_bounded_and_odd_times_do_not_upset_it() {
        let mut depths = Depths::new(0, 100, 2, 10);
        for service in 0..5 {
            depths.push(&format!("service {service}"), 0, 50);
        }
        assert_eq!((depths.services().len(), depths.n_left_out()), (2, 3));
        for (start, end) in
            [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MAX, i64::MAX), (500, 400), (1_000, 1_100)]
        {
            depths.push("service 0", start, end);
        }
        assert_eq!(depths.n_ticks(), 10, "no more than there may be");
        assert_eq!(depths.depth(0, 9), 1.0, "the endless one");
        let mut early = Depths::new(i64::MAX - 10, i64::MAX, 2, usize::MAX);
        early.push("service", i64::MAX - 5, i64::MAX);
        assert_eq!(early.n_ticks(), 1);
    }
}
