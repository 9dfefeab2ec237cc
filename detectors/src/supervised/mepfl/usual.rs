//! What normal traces do: how long each task takes, how long the way into it is, and which calls it makes.
//!
//! A task is a call path; where a path was never seen its operation stands in, of which the calls are not known.
//! Memory: 100 bytes a task and 16 for each of at most 64 calls that it makes.

use faultline_core::{TraceWindow, hash::StableHash};
use rustc_hash::FxHashMap;

use crate::{
    bytes::{Reader, Writer},
    traces::Shape,
};

/// Tasks that a task is known to call.
const MAX_CALLED: usize = 64;

/// Share of the calls of a task that make a call which is then missed where it is not made.
const ALWAYS: f64 = 0.9;

/// Calls of a task below which nothing is said of what it calls.
const LEAST: f64 = 5.0;

/// What a deviation is held to be before there are values, and how many values that counts for.
const PRIOR_DEVIATION: f64 = 0.3;
const PRIOR_VALUES: f64 = 4.0;

/// A deviation is never less.
const LEAST_DEVIATION: f64 = 0.1;

/// Deviations that a value may be off, at most.
const MOST: f64 = 20.0;

/// Mean and spread of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moments {
    n: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.n += 1.0;
        let off = value - self.mean;
        self.mean += off / self.n;
        self.squares += off * (value - self.mean);
    }

    /// Deviations from the mean; 0 where nothing is known.
    pub fn z(&self, value: f64) -> f64 {
        if self.n < 1.0 {
            return 0.0;
        }
        let variance = (self.squares + PRIOR_VALUES * PRIOR_DEVIATION * PRIOR_DEVIATION) / (self.n + PRIOR_VALUES);
        ((value - self.mean) / variance.sqrt().max(LEAST_DEVIATION)).clamp(-MOST, MOST)
    }
}

/// One call in the figures that are compared: logarithms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub own: f64,
    pub duration: f64,
    /// One and the calls that it makes.
    pub calls: f64,
    /// What its caller waited besides, where it is of another service.
    pub way: Option<f64>,
}

/// Logarithm of a time, so that what lies below a fifth of a millisecond hardly differs.
pub(super) fn log_ms(nanos: i64) -> f64 {
    (nanos.max(0) as f64 / 1e6 + 0.2).ln()
}

/// What is usual of one task.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Task {
    pub own: Moments,
    pub duration: Moments,
    pub calls: Moments,
    pub way: Moments,
    /// Tasks that it calls, ascending, and how many of its calls did.
    called: Vec<(u64, f64)>,
}

impl Task {
    fn add(&mut self, figures: &Figures) {
        self.own.add(figures.own);
        self.duration.add(figures.duration);
        self.calls.add(figures.calls);
        if let Some(way) = figures.way {
            self.way.add(way);
        }
    }

    /// How many calls that it always makes are not among `called`, and how many of those it never made; both ascending.
    pub fn differences(&self, called: &[u64]) -> (usize, usize) {
        if self.own.n < LEAST {
            return (0, 0);
        }
        let is_missing = |(path, n): &&(u64, f64)| *n >= ALWAYS * self.own.n && called.binary_search(path).is_err();
        let is_extra = |path: &&u64| self.called.binary_search_by_key(*path, |known| known.0).is_err();
        let n_extra = called.iter().filter(is_extra).count();
        (self.called.iter().filter(is_missing).count(), if self.called.len() < MAX_CALLED { n_extra } else { 0 })
    }
}

/// What is usual of all tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usual {
    tasks: FxHashMap<u64, Task>,
}

/// The calls of a trace, in the figures that are compared. Made to be used again for the next trace.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub shape: Shape,
    pub n_calls: Vec<u32>,
    pub figures: Vec<Figures>,
    /// Hash of service and operation, for each span.
    pub operations: Vec<u64>,
    /// Caller and path of what it calls, ascending, no pair twice.
    called: Vec<(u32, u64)>,
    paths: Vec<u64>,
}

impl Calls {
    /// Measures a trace; false where it has no spans, or not all of them.
    pub fn take(&mut self, trace: &TraceWindow<'_>) -> bool {
        if trace.spans.is_empty() || trace.n_dropped > 0 {
            return false;
        }
        self.shape.measure(trace);
        self.n_calls.clear();
        self.n_calls.resize(trace.spans.len(), 0);
        self.called.clear();
        for (span, path) in trace.spans.iter().zip(&self.shape.paths) {
            if let Some(parent) = span.parent() {
                self.n_calls[parent] += 1;
                self.called.push((span.parent, *path));
            }
        }
        self.called.sort_unstable();
        self.called.dedup();
        self.figures.clear();
        self.operations.clear();
        for (idx, span) in trace.spans.iter().enumerate() {
            let caller =
                span.parent().map(|parent| &trace.spans[parent]).filter(|caller| caller.service != span.service);
            let way = caller.map(|caller| log_ms(caller.duration_nanos.saturating_sub(span.duration_nanos)));
            self.figures.push(Figures {
                own: log_ms(self.shape.self_nanos[idx]),
                duration: log_ms(span.duration_nanos),
                calls: f64::from(self.n_calls[idx]).ln_1p(),
                way,
            });
            let operation = StableHash::new().text("operation").text(trace.service(span)).text(trace.operation(span));
            self.operations.push(operation.finish());
        }
        true
    }

    /// The paths that a span calls, ascending.
    pub fn called_by(&mut self, span: usize) -> &[u64] {
        let from = self.called.partition_point(|(caller, _)| (*caller as usize) < span);
        let own = self.called[from..].iter().take_while(|(caller, _)| *caller as usize == span);
        self.paths.clear();
        self.paths.extend(own.map(|(_, path)| *path));
        &self.paths
    }
}

impl Usual {
    /// Learns a trace that has been measured. A task more than `max_tasks` is not learned.
    pub fn learn(&mut self, calls: &mut Calls, max_tasks: usize) {
        for span in 0..calls.figures.len() {
            let figures = calls.figures[span];
            for (key, is_path) in [(calls.shape.paths[span], true), (calls.operations[span], false)] {
                if self.tasks.len() >= max_tasks && !self.tasks.contains_key(&key) {
                    continue;
                }
                let task = self.tasks.entry(key).or_default();
                task.add(&figures);
                if !is_path {
                    continue;
                }
                for path in calls.called_by(span) {
                    match task.called.binary_search_by_key(path, |known| known.0) {
                        Ok(place) => task.called[place].1 += 1.0,
                        Err(place) if task.called.len() < MAX_CALLED => task.called.insert(place, (*path, 1.0)),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// What is known of a span: of its path, and whether that is so, or of its operation.
    pub fn of(&self, calls: &Calls, span: usize) -> Option<(&Task, bool)> {
        let of_path = self.tasks.get(&calls.shape.paths[span]).map(|task| (task, true));
        of_path.or_else(|| self.tasks.get(&calls.operations[span]).map(|task| (task, false)))
    }

    pub fn write(&self, writer: &mut Writer) {
        let mut tasks: Vec<(&u64, &Task)> = self.tasks.iter().collect();
        tasks.sort_unstable_by_key(|(key, _)| **key);
        writer.number(tasks.len() as u64);
        for (key, task) in tasks {
            writer.number(*key);
            for moments in [task.own, task.duration, task.calls, task.way] {
                [moments.n, moments.mean, moments.squares].into_iter().for_each(|figure| writer.double(figure));
            }
            writer.number(task.called.len() as u64);
            for (path, n) in &task.called {
                writer.number(*path);
                writer.double(*n);
            }
        }
    }

    /// Reads what [`Self::write`] wrote; nothing where it is damaged.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        const LEAST_BYTES: usize = 112;
        let mut tasks = FxHashMap::default();
        for _ in 0..reader.length(LEAST_BYTES)? {
            let key = reader.number()?;
            let mut moments = [Moments::default(); 4];
            for own in &mut moments {
                *own = Moments { n: reader.double()?, mean: reader.double()?, squares: reader.double()? };
            }
            let [own, duration, calls, way] = moments;
            let mut called = Vec::new();
            for _ in 0..reader.length(16)? {
                called.push((reader.number()?, reader.double()?));
            }
            tasks.insert(key, Task { own, duration, calls, way, called });
        }
        Some(Self { tasks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TraceFixture;

    /// Gateway and cart, and what the cart calls.
    fn trace(cart: i64, called: &[&str]) -> TraceFixture {
        let mut rows = vec![(None, "gateway", 0, 100_000), (Some(0), "cart", 1_000, cart)];
        rows.extend(called.iter().map(|name| (Some(1), *name, 2_000, 1_000)));
        TraceFixture::of("t", &rows)
    }

    fn usual() -> (Usual, Calls) {
        let (mut usual, mut calls) = (Usual::default(), Calls::default());
        for idx in 0..20 {
            let called: &[&str] = if idx % 2 == 0 { &["stock", "mail"] } else { &["stock"] };
            assert!(calls.take(&trace(50_000 + idx * 100, called).trace()));
            usual.learn(&mut calls, 100);
        }
        (usual, calls)
    }

    #[test]
    fn times_are_compared_with_those_of_the_path_and_the_way_into_it_apart() {
        let (usual, mut calls) = usual();
        let look = |calls: &mut Calls, cart: i64| {
            assert!(calls.take(&trace(cart, &["stock"]).trace()));
            let (task, is_path) = usual.of(calls, 1).expect("it is known");
            let figures = calls.figures[1];
            assert!(is_path);
            (task.own.z(figures.own), task.way.z(figures.way.expect("the gateway is another service")))
        };
        let (own, way) = look(&mut calls, 51_000);
        assert!(own.abs() < 1.0 && way.abs() < 1.0, "{own} and {way}");
        // It answers sooner, and its caller waits as long: the way has become longer.
        let (own, way) = look(&mut calls, 10_000);
        assert!(own < -5.0 && way > 3.0, "{own} and {way}");
        assert_eq!(Moments::default().z(7.0), 0.0);
    }

    #[test]
    fn calls_that_are_always_made_are_missed_and_those_never_made_are_extra() {
        let (usual, mut calls) = usual();
        let mut look = |called: &[&str]| {
            assert!(calls.take(&trace(50_000, called).trace()));
            let paths = calls.called_by(1).to_vec();
            usual.of(&calls, 1).expect("it is known").0.differences(&paths)
        };
        assert_eq!(look(&["stock"]), (0, 0));
        assert_eq!(look(&["mail"]), (1, 0), "the stock is always asked, the mail in half of the calls");
        assert_eq!(look(&["stock", "audit", "audit", "ledger"]), (0, 2));
        assert_eq!(look(&[]), (1, 0));
    }

    #[test]
    fn what_is_not_known_stands_in_for_nothing_and_room_is_bounded() {
        let (usual, mut calls) = usual();
        let elsewhere = TraceFixture::of("t", &[(None, "batch", 0, 9_000), (Some(0), "stock", 0, 1_000)]);
        assert!(calls.take(&elsewhere.trace()));
        assert!(usual.of(&calls, 0).is_none());
        assert!(usual.of(&calls, 1).is_some_and(|(_, is_path)| !is_path), "its operation is known");
        let mut small = Usual::default();
        small.learn(&mut calls, 3);
        assert_eq!(small.tasks.len(), 3);
        assert!(!calls.take(&TraceFixture::empty("none").trace()));
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        const MAGIC: &crate::bytes::Magic = b"faultline usuals";
        let (usual, _) = usual();
        let mut writer = Writer::new(MAGIC);
        usual.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::open(MAGIC, &bytes).expect("its own");
        assert_eq!(Usual::read(&mut reader), Some(usual));
        assert!(reader.is_empty());
    }
}
