//! Station 6: log records become windows, one run of records for each session, in event time.
//!
//! Model: session windows with a watermark, as in Akidau et al., "The Dataflow Model", VLDB 2015. The watermark is the
//! newest event time seen minus the allowed lateness. A record waits until the watermark has reached it; so records that
//! overtook each other on their way are put back in order, and how the input was cut into batches makes no difference to
//! the sessions. A session ends when the watermark is a gap past its latest record.
//!
//! Three calls make a round: [`Windower::push`] takes a batch, [`Windower::ready`] shows what there is to score
//! (borrowed from the session table, nothing is copied), [`Windower::settle`] takes it as scored.
//!
//! - **Late records** (older than the watermark when they arrive) are counted and kept, never dropped: they stand where
//!   they arrived, in the open session of their key or in one of their own.
//! - **Records without a session key** form one endless stream for each service. It is closed at its length cap
//!   and starts anew with its last records as context. A keyed session beyond the cap loses its oldest scored records
//!   instead.
//! - **Numbers** in the texts of records (see `numbers`) go beside them where a detector reads them
//!   ([`Windower::with_numbers`]), at most four a record, and through every delay, cut and copy with them.
//! - **Order** of the windows: ended sessions in the order in which they ended, then open ones in the order of their
//!   first new record.
//!
//! Cost: a hash lookup and a list splice a record, a heap operation more for one out of order; ending a session costs
//! the same however many are open; numbers cost a pass over the parameters where they are kept, and nothing where they
//! are not. Memory: bounded by `max_open_sessions`, `max_records_per_session` and `max_held_records`, each with a
//! counter in [`WindowStats`]; 32 bytes a record of a session, 48 with numbers, and 24 more on hold. Fails when one
//! source's clock runs ahead: every other record then counts as late and sessions break into pieces.

mod deploys;
mod numbers;
mod reorder;
mod run;
mod services;
mod sessions;

use std::{ops::Deref, sync::Arc};

use arrow::array::{Array, StringArray};
use faultline_core::{
    LogBatch, LogEntry, LogWindow, RecordNumbers, ServiceIdx, Template, TemplateId, TemplateTexts, Window, WindowKey,
    WindowState,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::deploys::Deploy;
use self::{
    deploys::Deploys,
    numbers::NumberColumn,
    reorder::{Held, Reorder},
    run::Run,
    services::Services,
    sessions::{Owner, Sessions},
};
use crate::{adaptation::AdaptationConfig, error::Error};

/// Templates whose text is kept, a memory bound. The parser keeps fewer by default.
const MAX_TEXTS: usize = 262_144;

/// How records are grouped into sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WindowConfig {
    /// Name of the stream the sessions belong to, as alerts show it. Default `logs`.
    pub stream: String,
    /// Milliseconds of event time without a record after which a session has ended. Default 10000, which suits a
    /// request through services; presets set it for data whose sessions pause for longer.
    pub session_gap_ms: u64,
    /// Milliseconds of event time by which a record may be overtaken by newer ones and still be put in order. Raise it
    /// when sources deliver at different speeds; every window waits that long. Default 2000; 0 for sorted input.
    pub allowed_lateness_ms: u64,
    /// Records of one session that are kept as its window; older ones are cut off. Default 1024.
    pub max_records_per_session: usize,
    /// Sessions open at a time; one more evicts the one that has been idle for longest. Default 100000.
    pub max_open_sessions: usize,
    /// Records that wait for the watermark at a time; one more releases the oldest early. Default 262144.
    pub max_held_records: usize,
    /// Records that a stream without sessions carries over as context when its length cap closes it. Default 32.
    pub context_records: usize,
    /// When a session is shown to the detectors. Default `incremental`.
    pub emit: Emit,
}

/// When a session is shown to the detectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// Once, when it has ended (and each time it reaches the length cap).
    OnClose,
    /// Whenever it has grown, and when it has ended: alerts come before the session is over.
    Incremental,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            stream: "logs".to_owned(),
            session_gap_ms: 10_000,
            allowed_lateness_ms: 2_000,
            max_records_per_session: 1024,
            max_open_sessions: 100_000,
            max_held_records: 262_144,
            context_records: 32,
            emit: Emit::Incremental,
        }
    }
}

/// What the windowing station has done so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WindowStats {
    /// Records taken into a session.
    pub n_records: u64,
    /// Records without a template id, which no detector can judge: skipped.
    pub n_unparsed: u64,
    /// Records that arrived behind the watermark.
    pub n_late: u64,
    /// Records released before the watermark reached them, because `max_held_records` or `max_open_sessions` was hit.
    pub n_released_early: u64,
    /// Records cut off the front of a session by `max_records_per_session`.
    pub n_cut: u64,
    /// Sessions that ended.
    pub n_closed: u64,
    /// Of those, sessions that ended early because `max_open_sessions` was hit.
    pub n_evicted: u64,
    /// Records whose service name was one too many to be told apart.
    pub n_unnamed_services: u64,
    /// Sessions open now.
    pub n_open: usize,
    /// Records on hold now.
    pub n_held: usize,
}

/// A session, or a part of one, that has left the table and waits to be scored.
#[derive(Debug)]
struct Done {
    key: WindowKey,
    run: Run,
    fresh: usize,
    n_dropped: u64,
    state: WindowState,
    is_stream: bool,
}

/// The windowing station. See the file's documentation.
#[derive(Debug)]
pub struct Windower {
    config: WindowConfig,
    stream: Arc<str>,
    gap_nanos: i64,
    lateness_nanos: i64,
    /// Newest event time seen; the watermark follows it.
    newest: i64,
    held: Reorder,
    sessions: Sessions,
    services: Services,
    templates: TemplateTexts,
    deploys: Deploys,
    keeps_numbers: bool,
    done: Vec<Done>,
    touched: Vec<u32>,
    spare: Vec<Run>,
    stats: WindowStats,
}

/// Windows to score, borrowed from the session table.
#[derive(Debug)]
pub struct Ready<'a> {
    windows: Vec<Window<'a>>,
}

impl<'a> Deref for Ready<'a> {
    type Target = [Window<'a>];

    fn deref(&self) -> &[Window<'a>] {
        &self.windows
    }
}

impl Windower {
    /// An empty station.
    ///
    /// # Errors
    /// When a limit is zero or the length cap leaves no room beside the context.
    pub fn new(config: WindowConfig) -> Result<Self, Error> {
        let refuse = |key, reason: &str| Err(Error::Config { key, reason: reason.to_owned() });
        if config.session_gap_ms == 0 {
            return refuse("session_gap_ms", "must be at least 1");
        }
        if config.max_records_per_session < 4 {
            return refuse("max_records_per_session", "must be at least 4");
        }
        if config.context_records > config.max_records_per_session / 2 {
            return refuse("context_records", "must be at most half of `max_records_per_session`");
        }
        if config.max_open_sessions == 0 || config.max_open_sessions > u32::MAX as usize / 2 {
            return refuse("max_open_sessions", "must be between 1 and 2147483647");
        }
        let nanos = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        Ok(Self {
            stream: Arc::from(config.stream.as_str()),
            gap_nanos: nanos(config.session_gap_ms),
            lateness_nanos: nanos(config.allowed_lateness_ms),
            newest: i64::MIN,
            held: Reorder::default(),
            sessions: Sessions::default(),
            services: Services::default(),
            templates: TemplateTexts::default(),
            deploys: Deploys::new(0, 1.0),
            keeps_numbers: false,
            done: Vec::new(),
            touched: Vec::new(),
            spare: Vec::new(),
            stats: WindowStats::default(),
            config,
        })
    }

    /// Lets templates that come with a new version of their service stand for old ones, see `deploys`.
    #[must_use]
    pub fn following(mut self, adaptation: &AdaptationConfig) -> Self {
        self.deploys = Deploys::new(adaptation.deploy_window_ms, adaptation.nearest_similarity);
        self
    }

    /// Keeps the numbers in the texts of records, for detectors that read them. To be called before the first record.
    #[must_use]
    pub fn with_numbers(mut self) -> Self {
        self.keeps_numbers = true;
        self
    }

    /// The detectors have been fitted: versions that come from now on are deploys.
    pub fn watch_deploys(&mut self) {
        self.deploys.is_watching = true;
    }

    /// Deploys since the last call.
    pub fn take_deploys(&mut self) -> Vec<Deploy> {
        std::mem::take(&mut self.deploys.news)
    }

    /// Takes note of the templates that a batch founded or widened, before the batch is [pushed](Self::push).
    pub fn know(&mut self, batch: &LogBatch, templates: &[Template]) {
        for template in templates {
            if self.templates.len() < MAX_TEXTS || self.templates.get(template.id).is_some() {
                self.templates.insert(template.id, Arc::from(template.text.as_str()));
            }
        }
        let service_of = self.services.resolve(batch.service_name());
        self.deploys.observe(batch, templates, &service_of, &self.services.names);
    }

    /// Takes the records of a parsed batch. None of them is late because of another one: a sender groups the records of
    /// a batch as it likes, by service for instance.
    pub fn push(&mut self, batch: &LogBatch) {
        let (times, ids, templates) = (batch.time_unix_nano(), batch.record_id(), batch.template_id());
        let (severities, sessions, streams) = (batch.severity_number(), batch.session(), batch.session_is_stream());
        let service_of = self.services.resolve(batch.service_name());
        let service_keys = batch.service_name().keys();
        let numbers = self.keeps_numbers.then(|| NumberColumn::of(batch));
        let mut newest = self.newest;
        for row in 0..batch.len() {
            if templates.is_null(row) {
                self.stats.n_unparsed += 1;
                continue;
            }
            let service = if service_keys.is_null(row) { 0 } else { service_of[service_keys.value(row) as usize] };
            let severity = if severities.is_null(row) { 0 } else { severities.value(row).clamp(0, 24) };
            self.stats.n_unnamed_services += u64::from(service == 0 && !service_keys.is_null(row));
            let own = TemplateId(templates.value(row));
            let (template, is_since_deploy) = self.deploys.standing_of(own, severity as u8);
            let entry = LogEntry {
                template,
                time_unix_nano: times.value(row),
                record: ids.value(row),
                service,
                severity_number: severity as u8,
                is_since_deploy,
            };
            let is_stream = streams.is_valid(row) && streams.value(row);
            let slot = self.slot_of(sessions, row, service, is_stream);
            newest = newest.max(entry.time_unix_nano);
            self.take(slot, entry, numbers.as_ref().map(|numbers| numbers.row(row)));
        }
        self.advance_to(newest);
    }

    /// Moves the watermark as if a record of this time had come: for a live source that has fallen quiet, so that its
    /// last records are shown and its sessions end. Never for replayed input, whose times lie in the past.
    pub fn advance_to(&mut self, time_unix_nano: i64) {
        self.newest = self.newest.max(time_unix_nano);
        self.release_until(self.watermark_unix_nano());
        self.close_expired();
    }

    /// Ends every session: the input has ended.
    pub fn finish(&mut self) {
        self.release_until(i64::MAX);
        while let Some(slot) = self.sessions.oldest() {
            self.close(slot);
        }
    }

    /// What there is to score. The same windows again until [`Self::settle`] is called.
    pub fn ready(&mut self) -> Ready<'_> {
        let mut windows = Vec::with_capacity(self.done.len() + self.touched.len());
        windows.extend(self.done.iter().map(|done| {
            Window::Log(LogWindow {
                key: &done.key,
                records: done.run.records(),
                numbers: done.run.numbers(),
                fresh: done.fresh,
                n_dropped: done.n_dropped,
                state: done.state,
                is_stream: done.is_stream,
                services: &self.services.names,
                templates: &self.templates,
            })
        }));
        if self.config.emit == Emit::Incremental {
            // A slot may be listed twice, when its session ended and another one took the slot.
            self.touched.retain(|&slot| std::mem::take(&mut self.sessions.get_mut(slot).touched));
            for &slot in &self.touched {
                self.sessions.get_mut(slot).touched = true;
            }
            windows.extend(self.touched.iter().map(|&slot| {
                let session = self.sessions.get(slot);
                Window::Log(LogWindow {
                    key: &session.key,
                    records: session.run.records(),
                    numbers: session.run.numbers(),
                    fresh: session.n_scored,
                    n_dropped: session.n_dropped,
                    state: WindowState::Open,
                    is_stream: session.is_stream,
                    services: &self.services.names,
                    templates: &self.templates,
                })
            }));
        }
        Ready { windows }
    }

    /// Takes everything that [`Self::ready`] shows as scored, and forgets the sessions that have ended.
    pub fn settle(&mut self) {
        self.settle_first(usize::MAX);
    }

    /// Takes the first `n` windows that [`Self::ready`] shows as scored; it will show the others again.
    pub fn settle_first(&mut self, n: usize) {
        const MAX_SPARE: usize = 4096;
        let n_done = n.min(self.done.len());
        let n_touched = (n - n_done).min(self.touched.len());
        for mut done in self.done.drain(..n_done) {
            if self.spare.len() < MAX_SPARE {
                done.run.clear();
                self.spare.push(done.run);
            }
        }
        for slot in self.touched.drain(..n_touched) {
            let session = self.sessions.get_mut(slot);
            if std::mem::take(&mut session.touched) && self.config.emit == Emit::Incremental {
                session.n_scored = session.run.len();
            }
        }
    }

    /// Service names by their index in records.
    #[must_use]
    pub fn services(&self) -> &[Arc<str>] {
        &self.services.names
    }

    /// Template texts as known by now.
    #[must_use]
    pub fn templates(&self) -> &TemplateTexts {
        &self.templates
    }

    /// Newest event time seen; the least there is before the first record.
    #[must_use]
    pub fn newest_unix_nano(&self) -> i64 {
        self.newest
    }

    /// Event time up to which the input is taken to be complete.
    #[must_use]
    pub fn watermark_unix_nano(&self) -> i64 {
        self.newest.saturating_sub(self.lateness_nanos)
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> WindowStats {
        WindowStats { n_open: self.sessions.len(), n_held: self.held.len(), ..self.stats }
    }

    fn slot_of(&mut self, sessions: &StringArray, row: usize, service: ServiceIdx, is_stream: bool) -> u32 {
        let key = if sessions.is_null(row) { None } else { Some(sessions.value(row)) };
        let found = match key {
            Some(key) => self.sessions.find_key(key),
            None => self.sessions.find_service(service),
        };
        if let Some(slot) = found {
            return slot;
        }
        self.make_room();
        let (session, owner) = match key {
            Some(key) => (Arc::from(key), Owner::Key),
            None if service == 0 => (Arc::clone(&self.stream), Owner::Service(0)),
            None => (Arc::clone(&self.services.names[service as usize]), Owner::Service(service)),
        };
        let run = self.spare.pop().unwrap_or_default();
        let is_stream = is_stream || key.is_none();
        self.sessions.open(WindowKey { stream: Arc::clone(&self.stream), session }, owner, is_stream, run)
    }

    /// Evicts until there is room for one more session.
    fn make_room(&mut self) {
        while self.sessions.len() >= self.config.max_open_sessions {
            match self.sessions.oldest() {
                Some(slot) => {
                    self.stats.n_evicted += 1;
                    self.close(slot);
                }
                // Every session only waits for its first record.
                None => self.release_oldest_early(),
            }
        }
    }

    fn take(&mut self, slot: u32, entry: LogEntry, numbers: Option<RecordNumbers>) {
        let watermark = self.watermark_unix_nano();
        self.stats.n_records += 1;
        self.stats.n_late += u64::from(entry.time_unix_nano < watermark);
        let at = entry.time_unix_nano.max(watermark);
        self.sessions.get_mut(slot).n_held += 1;
        self.held.push(at, slot, entry, numbers);
        if self.held.len() > self.config.max_held_records {
            self.release_oldest_early();
        }
    }

    fn release_until(&mut self, watermark: i64) {
        while let Some(held) = self.held.pop_until(watermark) {
            self.release(held);
        }
    }

    fn release_oldest_early(&mut self) {
        if let Some(held) = self.held.pop_until(i64::MAX) {
            self.stats.n_released_early += 1;
            self.release(held);
        }
    }

    /// Appends a record to its session, which ends first if the record comes more than a gap after its latest.
    fn release(&mut self, held: Held) {
        let numbers = self.held.take_numbers(&held);
        let Held { at, slot, entry, .. } = held;
        let session = self.sessions.get(slot);
        if !session.run.is_empty() && at > session.active_at.saturating_add(self.gap_nanos) {
            self.move_out(slot, WindowState::Closed);
        }
        if self.sessions.get(slot).run.len() >= self.config.max_records_per_session {
            self.cut(slot);
        }
        let session = self.sessions.get_mut(slot);
        session.n_held -= 1;
        session.run.push(entry, numbers);
        session.active_at = session.active_at.max(at);
        if !std::mem::replace(&mut session.touched, true) {
            self.touched.push(slot);
        }
        self.sessions.make_newest(slot);
    }

    /// Makes room in a session that has reached its length cap.
    fn cut(&mut self, slot: u32) {
        let keep = self.config.max_records_per_session / 2;
        let session = self.sessions.get_mut(slot);
        let n_unscored = session.run.len() - session.n_scored;
        let (carry, state) = match session.is_stream {
            false if n_unscored + self.config.context_records <= keep => {
                let n_cut = session.run.len() - keep;
                session.run.cut_front(n_cut);
                session.n_scored -= n_cut;
                session.n_dropped += n_cut as u64;
                self.stats.n_cut += n_cut as u64;
                return;
            }
            false => (keep, WindowState::Open),
            true => (self.config.context_records, WindowState::Closed),
        };
        let mut tail = self.spare.pop().unwrap_or_default();
        tail.extend_from(&session.run, session.run.len() - carry);
        // A stream that starts anew is a new session, of which nothing has been cut off yet.
        let n_cut = if state == WindowState::Open { (session.run.len() - carry) as u64 } else { 0 };
        let n_dropped = if state == WindowState::Open { session.n_dropped + n_cut } else { 0 };
        self.move_out(slot, state);
        let session = self.sessions.get_mut(slot);
        session.n_scored = carry;
        session.n_context = if state == WindowState::Closed { carry } else { 0 };
        session.n_dropped = n_dropped;
        session.run = tail;
        self.stats.n_cut += n_cut;
    }

    /// Moves a session's records to the windows that leave the table; its slot stays, without records.
    fn move_out(&mut self, slot: u32, state: WindowState) {
        let session = self.sessions.get_mut(slot);
        let run = std::mem::take(&mut session.run);
        let (n_scored, n_context) = (std::mem::take(&mut session.n_scored), std::mem::take(&mut session.n_context));
        let n_dropped = std::mem::take(&mut session.n_dropped);
        session.touched = false;
        // A stream that the cap closed and that nothing followed is only its own context.
        if run.len() > n_context {
            self.stats.n_closed += u64::from(state == WindowState::Closed);
            let is_stream = session.is_stream;
            self.done.push(Done { key: session.key.clone(), run, fresh: n_scored, n_dropped, state, is_stream });
        }
    }

    fn close(&mut self, slot: u32) {
        self.move_out(slot, WindowState::Closed);
        if self.sessions.get(slot).n_held == 0 {
            self.sessions.free(slot);
        } else {
            self.sessions.unlist(slot);
        }
    }

    fn close_expired(&mut self) {
        let watermark = self.watermark_unix_nano();
        while let Some(slot) = self.sessions.oldest() {
            if self.sessions.get(slot).active_at.saturating_add(self.gap_nanos) >= watermark {
                break;
            }
            self.close(slot);
        }
    }
}

#[cfg(test)]
mod tests;
