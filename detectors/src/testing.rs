//! Sessions for tests and benches: template ids in, windows out.

use std::sync::{Arc, LazyLock};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use faultline_core::{
    Detector, LogEntry, LogWindow, Numbers, RecordNumbers, Score, TemplateId, TemplateTexts, Window, WindowKey,
    WindowState,
};

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

/// The scores of `windows`.
pub fn score_all(detector: &mut dyn Detector, windows: &[Window<'_>]) -> Vec<Option<Score>> {
    let mut scores = Vec::new();
    detector.score(windows, &mut scores);
    scores
}
