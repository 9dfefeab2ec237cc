//! The warm-up's memory: owned copies of the sessions, traces or steps that detectors are fitted and calibrated on.

use std::{collections::BTreeMap, sync::Arc};

use faultline_core::{
    LogEntry, LogWindow, Numbers, RecordId, RecordNumbers, Signal, TemplateTexts, Window, WindowKey, WindowState,
};

use super::{WarmUp, kept::Kept, renames::Renames};

/// Divides the warm-up's sessions into training and calibration: every so many-th ended session calibrates.
///
/// Taking them evenly over time instead of the last ones keeps both parts alike when the warm-up sees something
/// begin, as the deletions in HDFS that come hours after the writes. Open sessions calibrate only where hardly any has ended.
/// Of series the last part calibrates: a detector that follows them needs them without holes. Of services whole steps do:
/// in each step they come in the same order, and with every tenth window the same service would always calibrate.
pub(crate) fn split<'a>(windows: &[Window<'a>], share: f64) -> (Vec<Window<'a>>, Vec<Window<'a>>) {
    /// Ended sessions with which a calibration can do without open ones.
    const ENOUGH: usize = 100;
    let has_enough = windows.iter().filter(|window| window.is_closed()).count() >= ENOUGH;
    if windows.first().is_some_and(|window| matches!(window.signal(), Signal::Series | Signal::Groups)) {
        let n_training = (windows.len() as f64 * (1.0 - share)).round() as usize;
        let (training, calibration) = windows.split_at(n_training.min(windows.len()));
        return (training.to_vec(), calibration.to_vec());
    }
    let (mut training, mut calibration) = (Vec::new(), Vec::new());
    let mut n_candidates = 0;
    // A little more, so that a tenth of ten is one.
    let due = |n: u64| (n as f64 * share + 1e-9) as u64;
    let mut step = None;
    for window in windows {
        let is_candidate = !has_enough || window.is_closed();
        let is_same_step = window.signal() == Signal::Services && step == Some(window.span_unix_nano().0);
        step = Some(window.span_unix_nano().0);
        n_candidates += u64::from(is_candidate && !is_same_step);
        if is_candidate && due(n_candidates) > due(n_candidates - 1) {
            calibration.push(*window);
        } else {
            training.push(*window);
        }
    }
    (training, calibration)
}

/// The sessions of the warm-up: the ended ones, whole and in the order in which they ended, and what there is of the
/// others. Without the latter a stream that never pauses would never be learned.
#[derive(Debug, Default)]
pub(super) struct Collector {
    sessions: Vec<Collected>,
    open: BTreeMap<WindowKey, Collected>,
    /// What is not of logs, in the order in which it came.
    others: Vec<Kept>,
    services: Vec<Arc<str>>,
    /// Template texts as of the end of the warm-up.
    pub(super) templates: TemplateTexts,
    /// Records of the sessions kept.
    n_kept: u64,
    /// Records seen, in ended sessions or not.
    n_seen: u64,
    pub(super) last_record: RecordId,
    span: Option<(i64, i64)>,
}

/// A session that is kept: its records and what a window says of them.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    key: WindowKey,
    pub(crate) records: Vec<LogEntry>,
    /// Theirs, or none where no detector reads them.
    numbers: Vec<RecordNumbers>,
    n_dropped: u64,
    state: WindowState,
    is_stream: bool,
}

impl Collected {
    /// The records of `log` from `first` on.
    pub(crate) fn of(log: &LogWindow<'_>, first: usize) -> Self {
        Self {
            key: log.key.clone(),
            records: log.records[first..].to_vec(),
            numbers: log.numbers.tail(first).to_vec(),
            n_dropped: log.n_dropped,
            state: log.state,
            is_stream: log.is_stream,
        }
    }

    pub(crate) fn is_of(&self, stream: &str, session: &str) -> bool {
        *self.key.stream == *stream && *self.key.session == *session
    }

    pub(crate) fn window<'a>(&'a self, services: &'a [Arc<str>], templates: &'a TemplateTexts) -> Window<'a> {
        Window::Log(LogWindow {
            key: &self.key,
            records: &self.records,
            numbers: Numbers::new(&self.numbers),
            fresh: 0,
            n_dropped: self.n_dropped,
            state: self.state,
            is_stream: self.is_stream,
            services,
            templates,
        })
    }
}

impl Collector {
    pub(super) fn take(&mut self, window: &Window<'_>) {
        let Some(log) = window.as_log() else {
            let Some(kept) = Kept::of(window) else { return };
            let (from, to) = window.span_unix_nano();
            let (start, end) = self.span.unwrap_or((from, to));
            self.span = Some((start.min(from), end.max(to)));
            self.n_kept += kept.len() as u64;
            self.n_seen += kept.len() as u64;
            self.others.push(kept);
            return;
        };
        self.n_seen += log.fresh_records().len() as u64;
        for record in log.fresh_records() {
            let at = record.time_unix_nano;
            let (start, end) = self.span.unwrap_or((at, at));
            self.span = Some((start.min(at), end.max(at)));
            self.last_record = self.last_record.max(record.record);
        }
        if log.services.len() > self.services.len() {
            self.services = log.services.to_vec();
        }
        self.n_kept += log.fresh_records().len() as u64;
        if !log.is_closed() {
            match self.open.get_mut(log.key) {
                Some(open) => {
                    open.records.extend_from_slice(log.fresh_records());
                    open.numbers.extend_from_slice(log.numbers.tail(log.fresh));
                }
                None => {
                    let open = Collected { n_dropped: 0, ..Collected::of(log, log.fresh) };
                    self.open.insert(log.key.clone(), open);
                }
            }
            return;
        }
        self.open.remove(log.key);
        if !log.records.is_empty() {
            self.sessions.push(Collected::of(log, 0));
        }
    }

    /// Gives its records the ids that the parser would give them now.
    pub(super) fn rename(&mut self, renames: &Renames) {
        let all = self.open.values_mut().chain(&mut self.sessions);
        all.for_each(|collected| renames.apply(&mut collected.records));
    }

    /// Takes note of the template texts as of now.
    pub(super) fn know(&mut self, window: &Window<'_>) {
        self.templates = window.as_log().map(|log| log.templates.clone()).unwrap_or_default();
    }

    /// How far the warm-up of detectors that score `signal` is, 0 to 1.
    pub(super) fn progress(&self, warm_up: &WarmUp, signal: Signal) -> f64 {
        let share = |have: u64, want: u64| if want == 0 { 1.0 } else { have as f64 / want as f64 };
        let span_ms = self.span.map_or(0, |(start, end)| end.abs_diff(start) / 1_000_000);
        let asked = warm_up.asked(signal);
        let n_sessions = if signal == Signal::Logs { self.sessions.len() } else { self.others.len() };
        let asked = [
            asked.sessions.map(|want| share(n_sessions as u64, want)),
            asked.span_ms.map(|want| share(span_ms, want)),
            asked.records.map(|want| share(self.n_seen, want)),
        ];
        let all = asked.into_iter().flatten().fold(1.0, f64::min);
        all.max(share(self.n_kept, warm_up.max_records)).min(1.0)
    }

    /// Open sessions first: they began before the latest ended ones, and calibration is left to whole sessions where
    /// there are enough.
    pub(super) fn windows(&self) -> impl Iterator<Item = Window<'_>> {
        let logs = self.open.values().chain(&self.sessions);
        let logs = logs.map(|collected| collected.window(&self.services, &self.templates));
        logs.chain(self.others.iter().map(|kept| kept.window(&[], TemplateTexts::NONE)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::{SeriesFixture, Session, service_minutes};

    /// A session whose numbers are the ids of its templates.
    fn numbered(key: &str, templates: &[u64]) -> Session {
        let mut session = Session::of(key, templates);
        session.numbers = templates.iter().map(|&template| RecordNumbers::of([template as f32])).collect();
        session
    }

    #[test]
    fn services_calibrate_by_whole_steps_and_series_by_their_last_part() {
        let minutes = service_minutes(1, 0, 40, 0.0);
        let windows: Vec<Window<'_>> = minutes.iter().map(|(minute, _)| minute.window()).collect();
        let (training, calibration) = split(&windows, 0.3);
        let starts = |windows: &[Window<'_>]| -> BTreeSet<i64> {
            windows.iter().map(|window| window.span_unix_nano().0).collect()
        };
        assert_eq!((starts(&training).len(), starts(&calibration).len()), (28, 12));
        assert!(starts(&training).is_disjoint(&starts(&calibration)));
        let series = SeriesFixture::seasonal("load", 1, 0, 100, 0.0);
        let windows: Vec<Window<'_>> = series.pieces(1).collect();
        let (training, calibration) = split(&windows, 0.3);
        assert_eq!((training.len(), calibration.len()), (70, 30));
        assert!(training[69].span_unix_nano() < calibration[0].span_unix_nano());
    }

    #[test]
    fn numbers_are_kept_with_the_records_of_open_and_of_ended_sessions() {
        let (ended, grown) = (numbered("ended", &[4, 5]), numbered("grown", &[1, 2, 3]));
        let mut begun = grown.clone();
        begun.records.truncate(1);
        begun.numbers.truncate(1);
        let mut collector = Collector::default();
        for window in [begun.window(0, false), ended.closed(), grown.window(1, false)] {
            collector.take(&window);
        }
        let windows: Vec<Window<'_>> = collector.windows().collect();
        let logs: Vec<&LogWindow<'_>> = windows.iter().filter_map(Window::as_log).collect();
        assert_eq!(logs.iter().map(|log| log.records.len()).collect::<Vec<_>>(), [3, 2]);
        for log in logs {
            for (idx, record) in log.records.iter().enumerate() {
                assert_eq!(log.numbers.of(idx), [record.template.0 as f32], "{:?}", log.key);
            }
        }
    }
}
