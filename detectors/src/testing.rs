//! Sessions, series, instances and traces for tests and benches: template ids or a seed in, windows out.

mod traces;

use std::{
    f64::consts::TAU,
    ops::Range,
    sync::{Arc, LazyLock},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use faultline_core::{
    Detector, GroupWindow, LogEntry, LogWindow, Numbers, RecordId, RecordNumbers, Score, SeriesKind, SeriesWindow,
    TemplateId, TemplateTexts, Window, WindowKey, WindowState,
};

pub use self::traces::{ServiceFixture, TraceFixture, application, service_minutes};

static SERVICES: LazyLock<[Arc<str>; 1]> = LazyLock::new(|| [Arc::from("service")]);

/// One session, one record a second.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its key, in the stream `test`.
    pub key: WindowKey,
    /// Its records; ids count from 1.
    pub records: Vec<LogEntry>,
    /// Their numbers: one entry for each record, or none.
    pub numbers: Vec<RecordNumbers>,
}

impl Session {
    /// A session of these templates.
    #[must_use]
    pub fn of(session: &str, templates: &[u64]) -> Self {
        let key = WindowKey { stream: Arc::from("test"), session: Arc::from(session) };
        let times = (1..).map(|seconds: i64| seconds * 1_000_000_000);
        let records =
            templates.iter().copied().zip(times).zip(1..).map(|((template, time_unix_nano), record)| LogEntry {
                template: TemplateId(template),
                time_unix_nano,
                record,
                service: 0,
                severity_number: 9,
                is_since_deploy: false,
            });
        Self { key, records: records.collect(), numbers: Vec::new() }
    }

    /// The whole session as one closed window.
    #[must_use]
    pub fn closed(&self) -> Window<'_> {
        self.window(0, true)
    }

    /// The session with `records[fresh..]` fresh.
    #[must_use]
    pub fn window(&self, fresh: usize, closed: bool) -> Window<'_> {
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.records,
            numbers: Numbers::new(&self.numbers),
            fresh,
            n_dropped: 0,
            state: if closed { WindowState::Closed } else { WindowState::Open },
            is_stream: false,
            services: &*SERVICES,
            templates: TemplateTexts::NONE,
        })
    }
}

/// A stream of `n` sessions of a workflow with branches, a loop and jittered lags, of which each in turn with probability
/// `share` is spoiled: an unseen template, a missing end, a wrong order, or far too many repetitions. The unseen record and
/// the repetitions are fatal ones. In time order, each with whether it was spoiled.
#[must_use]
pub fn synthetic(seed: u64, n: usize, share: f64) -> Vec<(Session, bool)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut record, mut start) = (0, 0);
    let mut sessions = Vec::with_capacity(n);
    for idx in 0..n {
        let mut templates = vec![11, 12];
        if rng.random_bool(0.5) {
            templates.extend([21, 22]);
        } else {
            templates.extend([31, 32, 33]);
        }
        for _ in 0..rng.random_range(1..4) {
            templates.extend([41, 42]);
        }
        templates.extend([51, 52]);
        let spoiled = rng.random_bool(share);
        let n_normal = templates.len();
        let mut fatal = 0..0;
        if spoiled {
            match rng.random_range(0..4) {
                0 => {
                    templates.insert(3, 99);
                    fatal = 3..4;
                }
                1 => templates.truncate(3),
                2 => templates[1..].reverse(),
                _ => {
                    templates.extend([42; 20]);
                    fatal = n_normal..templates.len();
                }
            }
        }
        let mut session = Session::of(&format!("s{idx:05}"), &templates);
        session.records[fatal].iter_mut().for_each(|entry| entry.severity_number = 21);
        let mut time = start;
        for entry in &mut session.records {
            record += 1;
            time += 50_000_000 + rng.random_range(0..20_000_000);
            (entry.record, entry.time_unix_nano) = (record, time);
        }
        start += 2_000_000_000;
        sessions.push((session, spoiled));
    }
    sessions
}

/// A series, one point a minute: a season of 144 points with a harmonic, between about 60 and 140, and noise of
/// deviation 2.
#[derive(Clone, Debug)]
pub struct SeriesFixture {
    /// Its key, in the stream `test`.
    pub key: WindowKey,
    /// Number of its first step, counted from the epoch; it decides the phase of the season.
    pub first_step: i64,
    /// Its points; not a number is a gap.
    pub points: Vec<f64>,
    /// The record behind each point; ids count from 1.
    pub records: Vec<RecordId>,
    /// Whether each point is a planted spike, 20 to 40 above or below what it would be.
    pub is_spike: Vec<bool>,
}

impl SeriesFixture {
    /// Nanoseconds of a step.
    pub const STEP_NANOS: i64 = 60_000_000_000;

    /// `n` points, of which each in turn is a spike with probability `share`.
    #[must_use]
    pub fn seasonal(name: &str, seed: u64, first_step: i64, n: usize, share: f64) -> Self {
        const SEASON: f64 = 144.0;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let key = WindowKey { stream: Arc::from("test"), session: Arc::from(name) };
        let (mut points, mut is_spike) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for step in (first_step..).take(n) {
            let phase = TAU * step as f64 / SEASON;
            // Twelve uniform draws make one that is normal enough.
            let noise = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let usual = 100.0 + 30.0 * phase.sin() + 10.0 * (3.0 * phase + 1.0).sin() + 2.0 * noise;
            let size: f64 = rng.random_range(20.0..40.0);
            let spike = if rng.random_bool(0.5) { size } else { -size };
            let has_spike = rng.random_bool(share);
            points.push(if has_spike { usual + spike } else { usual });
            is_spike.push(has_spike);
        }
        Self { key, first_step, points, records: (1..).take(n).collect(), is_spike }
    }

    /// Some of its points as one window.
    #[must_use]
    pub fn window(&self, range: Range<usize>) -> Window<'_> {
        Window::Series(SeriesWindow {
            key: &self.key,
            kind: SeriesKind::Gauge,
            start_unix_nano: (self.first_step + range.start as i64) * Self::STEP_NANOS,
            step_nanos: Self::STEP_NANOS,
            points: &self.points[range.clone()],
            records: &self.records[range],
            service: &SERVICES[0],
        })
    }

    /// All of its points as one window.
    #[must_use]
    pub fn whole(&self) -> Window<'_> {
        self.window(0..self.points.len())
    }

    /// Its points in windows of `size`, in order.
    pub fn pieces(&self, size: usize) -> impl Iterator<Item = Window<'_>> {
        let n = self.points.len();
        (0..n).step_by(size).map(move |start| self.window(start..n.min(start + size)))
    }
}

/// An instance, one row a minute: a load that processor and latency follow, memory that goes up and down within
/// two hours, a few errors, and a number of threads that never changes.
#[derive(Clone, Debug)]
pub struct GroupFixture {
    /// Its key, in the stream `test`.
    pub key: WindowKey,
    /// Names of its columns.
    pub columns: Vec<Arc<str>>,
    /// Number of its first step, counted from the epoch.
    pub first_step: i64,
    /// Row after row; not a number is a gap.
    pub values: Vec<f64>,
    /// Whether the processor of each row is far beyond what its load explains; runs of ten rows.
    pub is_spoiled: Vec<bool>,
}

impl GroupFixture {
    /// Nanoseconds of a step.
    pub const STEP_NANOS: i64 = 60_000_000_000;

    /// `n_rows` rows, of which each run of ten is spoiled with probability `share`.
    #[must_use]
    pub fn coupled(name: &str, seed: u64, first_step: i64, n_rows: usize, share: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let key = WindowKey { stream: Arc::from("test"), session: Arc::from(name) };
        let columns = ["load", "cpu", "latency", "memory", "errors", "threads"].map(Arc::<str>::from).to_vec();
        let (mut values, mut is_spoiled) = (Vec::with_capacity(6 * n_rows), Vec::with_capacity(n_rows));
        let mut has_run = false;
        for (idx, step) in (first_step..).take(n_rows).enumerate() {
            if idx % 10 == 0 {
                has_run = rng.random_bool(share);
            }
            let mut noise = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let load = 50.0 + 10.0 * noise();
            let cpu = 2.0 * load + 2.0 * noise() + if has_run { 200.0 } else { 0.0 };
            let (latency, memory) = (10.0 + 0.5 * load + noise(), 500.0 + 20.0 * (TAU * step as f64 / 120.0).sin());
            let errors = (noise() - 1.5).max(0.0).ceil();
            values.extend([load, cpu, latency, memory + noise(), errors, 64.0]);
            is_spoiled.push(has_run);
        }
        Self { key, columns, first_step, values, is_spoiled }
    }

    /// Some of its rows as one window.
    #[must_use]
    pub fn window(&self, rows: Range<usize>) -> Window<'_> {
        let n_columns = self.columns.len();
        Window::Group(GroupWindow {
            key: &self.key,
            columns: &self.columns,
            start_unix_nano: (self.first_step + rows.start as i64) * Self::STEP_NANOS,
            step_nanos: Self::STEP_NANOS,
            n_rows: rows.len(),
            values: &self.values[rows.start * n_columns..rows.end * n_columns],
            service: &SERVICES[0],
        })
    }

    /// All of its rows as one window.
    #[must_use]
    pub fn whole(&self) -> Window<'_> {
        self.window(0..self.is_spoiled.len())
    }

    /// Its rows in windows of `size`, in order.
    pub fn pieces(&self, size: usize) -> impl Iterator<Item = Window<'_>> {
        let n = self.is_spoiled.len();
        (0..n).step_by(size).map(move |start| self.window(start..n.min(start + size)))
    }
}

/// The scores of `windows`.
pub fn score_all(detector: &mut dyn Detector, windows: &[Window<'_>]) -> Vec<Option<Score>> {
    let mut scores = Vec::new();
    detector.score(windows, &mut scores);
    scores
}
