//! One series: what is usual for it, what its next point should be, and how far off the next point is.
//!
//! Three residuals: of a forecast from the last points, of the same forecast once the time of day is taken out, and of the usual
//! level, which is the profile and a slow offset. Whatever learns from a residual sees it winsorised at four deviations.

use super::{
    Config, Judged,
    episodes::{Episodes, Found},
    forecaster::{Forecaster, SETTLED},
    place::{BINS, DAY, Moment, Pace, Paces, Place},
    scale::Scale,
    season::History,
};
use crate::bytes::{Reader, Writer};

/// Values end here, so that squares of residuals are numbers in single precision.
const LIMIT: f64 = 1e17;

/// Deviations beyond which a residual teaches the profile and the offset no more.
const CLIP: f64 = 4.0;

/// Share of the root mean square of a month below which no scale is.
const FLOOR: f64 = 0.5;

/// How much more that is for a series that mostly repeats itself.
const SPARSE: f64 = 2.0;

/// Share of the level score in the spike score.
const LEVEL_SHARE: f64 = 0.15;

/// See the file's documentation. Arrays are of single precision: double gives the same figures on AIOps and WSD.
#[derive(Clone, Debug)]
pub struct Series {
    step_nanos: i64,
    season_nanos: i64,
    /// The step after the last one that was judged.
    next_step: i64,
    /// Usual distance from the offset at each part of the season.
    profile: [f32; BINS],
    counts: [u16; BINS],
    /// Of the values, and of their distance from the profile.
    forecasters: [Forecaster; 2],
    /// Of the residuals of the two forecasters and of the usual level.
    scales: [Scale; 3],
    offset: f64,
    last: f64,
    /// Mean size of the values.
    size: f32,
    /// Mean distance from the usual level.
    spread: f32,
    /// Share of points that are equal to the one before.
    repeats: f32,
    n_seen: u32,
    /// Points that are missing to a whole season, while it is young.
    n_missing: u32,
    is_young: bool,
    episodes: Episodes,
    /// While the season is not known.
    history: Option<Box<History>>,
    /// Parts of a history.
    n_parts: u16,
    /// What was found of the point that its latest score names.
    pub finding: Finding,
}

/// What was found of a point that is worth telling.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Finding {
    pub step: i64,
    pub expected: f64,
    /// Distance from there at which an alert would have begun.
    pub reach: f32,
    pub spike: f32,
    pub level: f32,
}

/// A judged point.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    pub judged: Judged,
    /// Whether the warm-up of the series is over and there is a point.
    pub is_judged: bool,
    /// Residuals of the two forecasters and of the usual level.
    errors: [f64; 3],
    /// The point, as far as it was used.
    value: f64,
}

impl Series {
    /// One that is about to see its first point.
    pub fn begin(config: &Config, step_nanos: i64, n_parts: u16) -> Self {
        let season_nanos = config.season_nanos().unwrap_or(DAY as i64);
        Self {
            step_nanos,
            season_nanos,
            next_step: i64::MIN,
            profile: [0.0; BINS],
            counts: [0; BINS],
            forecasters: [Forecaster::new(0.0), Forecaster::new(0.0)],
            scales: [Scale::new(), Scale::new(), Scale::new()],
            offset: 0.0,
            last: 0.0,
            size: 0.0,
            spread: 0.0,
            repeats: 0.0,
            n_seen: 0,
            n_missing: Pace::of(config, step_nanos, season_nanos).n_season,
            is_young: true,
            episodes: Episodes::new(),
            history: None,
            n_parts,
            finding: Finding::default(),
        }
    }

    pub fn step_nanos(&self) -> i64 {
        self.step_nanos
    }

    pub fn season_nanos(&self) -> i64 {
        self.season_nanos
    }

    /// Judges and learns points that follow each other from `first_step` on; those that came before are passed over, unless
    /// they lie back by a day. Tells of each of the others by its place in `points`.
    pub fn judge(
        &mut self,
        first_step: i64,
        points: &[f64],
        config: &Config,
        paces: &mut Paces,
        mut tell: impl FnMut(usize, &Observed),
    ) {
        self.follow(first_step, points.len());
        let n_known = self.next_step.saturating_sub(first_step).max(0);
        let Some(skipped) = usize::try_from(n_known).ok().filter(|skipped| *skipped < points.len()) else { return };
        let mut step = first_step.saturating_add(n_known);
        let mut pace = paces.of(config, self.step_nanos, self.season_nanos);
        let mut phase = pace.phase(step);
        for (idx, &value) in points.iter().enumerate().skip(skipped) {
            if value.is_finite() {
                let value = value.clamp(-LIMIT, LIMIT);
                if self.n_seen == 0 {
                    self.see_first(step, value, config);
                }
                tell(idx, &self.observe(value, pace.place(phase), config, &pace));
                self.remember(step, value);
            } else {
                tell(idx, &Observed::gap(self.episodes.is_open));
            }
            step = step.saturating_add(1);
            if pace.season_nanos == self.season_nanos {
                phase = pace.next_phase(phase);
            } else {
                pace = paces.of(config, self.step_nanos, self.season_nanos);
                phase = pace.phase(step);
                self.n_missing = pace.n_season;
            }
        }
        self.next_step = step;
    }

    /// Goes on at an earlier step where that lies so far back that the clock must have been set back.
    fn follow(&mut self, first_step: i64, n_points: usize) {
        let end = first_step.saturating_add(i64::try_from(n_points).unwrap_or(i64::MAX));
        let n_back = self.next_step.saturating_sub(end);
        if n_back.saturating_mul(self.step_nanos) > DAY as i64 {
            self.next_step = first_step;
            if self.history.is_some() {
                self.history = Some(Box::new(History::new(first_step, self.last, self.step_nanos, self.n_parts)));
            }
        }
    }

    fn see_first(&mut self, step: i64, value: f64, config: &Config) {
        self.offset = value;
        self.forecasters = [Forecaster::new(value), Forecaster::new(value)];
        if config.season_nanos().is_none() {
            self.history = Some(Box::new(History::new(step, value, self.step_nanos, self.n_parts)));
        }
    }

    fn observe(&mut self, value: f64, place: Place, config: &Config, pace: &Pace) -> Observed {
        let seasonal = place.between(|bin| f64::from(self.profile[bin]));
        if self.is_young {
            self.is_young = self.n_missing > 0;
            self.n_missing = self.n_missing.saturating_sub(1);
            if !self.is_young {
                self.forecasters[1].lower(seasonal);
            }
        }
        let expected = seasonal + self.offset;
        let error = value - seasonal - self.offset;
        let known = if self.is_young { 0.0 } else { seasonal };
        let [plain, seasoned] = &mut self.forecasters;
        let errors = [plain.error(value, self.n_seen), seasoned.error(value - known, self.n_seen), error];
        self.learn_level(error, place.bin, pace);
        let moment = self.moment(value, place, pace);
        let [plain, seasoned, level] = &mut self.scales;
        let level = level.judge(errors[2], &moment);
        let forecasts = (plain.judge(errors[0], &moment) + seasoned.judge(errors[1], &moment)) * 0.5;
        let spike = if self.is_young { forecasts } else { (forecasts + LEVEL_SHARE * level) / (1.0 + LEVEL_SHARE) };
        self.size += (self.share().max(0.0005) * (value.abs() - f64::from(self.size))) as f32;
        self.n_seen = self.n_seen.saturating_add(1);
        self.last = value;
        let is_judged = self.n_seen >= config.warm_up_points;
        let mut judged = Judged { spike, level, is_alert: false, is_hot: false, expected };
        if is_judged {
            let found = Found { spike, level, error, is_young: self.is_young };
            let verdict = self.episodes.observe(&found, config, pace);
            self.offset += verdict.adopted.unwrap_or(0.0);
            (judged.is_alert, judged.is_hot) = (verdict.is_alert, verdict.is_hot);
        }
        Observed { judged, is_judged, errors, value }
    }

    /// What one point is of all so far.
    fn share(&self) -> f64 {
        1.0 / (f64::from(self.n_seen) + 1.0)
    }

    /// The profile and the offset learn a distance from their sum.
    fn learn_level(&mut self, error: f64, bin: usize, pace: &Pace) {
        let (spread, share) = (f64::from(self.spread), self.share());
        let is_clipped = self.n_seen > SETTLED && spread > 0.0;
        let lesson = if is_clipped { error.clamp(-CLIP * spread, CLIP * spread) } else { error };
        self.offset += pace.offset_gain.max(share) * lesson;
        self.spread += (share.max(0.001) * (lesson.abs() - spread)) as f32;
        self.counts[bin] = self.counts[bin].saturating_add(1);
        self.profile[bin] += (lesson / f64::from(self.counts[bin]).min(pace.profile_memory)) as f32;
    }

    fn moment(&mut self, value: f64, place: Place, pace: &Pace) -> Moment {
        let is_repeat = self.n_seen > 0 && value == self.last;
        let repeat = f64::from(u8::from(is_repeat));
        self.repeats += (self.share().max(0.0005) * (repeat - f64::from(self.repeats))) as f32;
        let repeats = f64::from(self.repeats);
        Moment {
            place,
            n_seen: self.n_seen,
            floor: FLOOR * (1.0 + SPARSE * repeats.powi(4)),
            rounding: 1e-9 + 1e-4 * f64::from(self.size),
            is_repeat,
            is_sparse: repeats > 0.5,
            scale_memory: pace.scale_memory,
            square_memory: pace.square_memory,
        }
    }

    /// Keeps the first days until they tell the season. What was learned of another season is void then.
    fn remember(&mut self, step: i64, value: f64) {
        if !self.history.as_mut().is_some_and(|history| history.take(step, value)) {
            return;
        }
        let Some(history) = self.history.take() else { return };
        match history.season_nanos(self.step_nanos) {
            // Too little was known of these days.
            None => self.history = Some(Box::new(History::new(step, value, self.step_nanos, self.n_parts))),
            Some(season_nanos) if season_nanos != self.season_nanos => {
                self.season_nanos = season_nanos;
                self.profile = [0.0; BINS];
                self.counts = [0; BINS];
                self.scales.iter_mut().for_each(Scale::forget_season);
                self.forecasters[1] = self.forecasters[0].clone();
                self.is_young = true;
            }
            Some(_) => {}
        }
    }

    /// Memory that it holds elsewhere.
    pub fn heap_bytes(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.bytes())
    }

    pub fn write(&self, writer: &mut Writer) {
        for number in [self.step_nanos, self.season_nanos, self.next_step] {
            writer.integer(number);
        }
        writer.floats(&self.profile);
        writer.shorts(&self.counts);
        self.forecasters.iter().for_each(|forecaster| forecaster.write(writer));
        self.scales.iter().for_each(|scale| scale.write(writer));
        writer.double(self.offset);
        writer.double(self.last);
        writer.floats(&[self.size, self.spread, self.repeats]);
        writer.word(self.n_seen);
        writer.word(self.n_missing);
        writer.byte(u8::from(self.is_young));
        self.episodes.write(writer);
        writer.short(self.n_parts);
        writer.byte(u8::from(self.history.is_some()));
        if let Some(history) = &self.history {
            history.write(writer);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let [step_nanos, season_nanos, next_step] = [reader.integer()?, reader.integer()?, reader.integer()?];
        if step_nanos < 1 || season_nanos < 1 {
            return None;
        }
        let (profile, counts) = (reader.floats()?, reader.shorts()?);
        let forecasters = [Forecaster::read(reader)?, Forecaster::read(reader)?];
        let scales = [Scale::read(reader)?, Scale::read(reader)?, Scale::read(reader)?];
        let (offset, last) = (reader.double()?, reader.double()?);
        let [size, spread, repeats] = reader.floats()?;
        let (n_seen, n_missing, is_young) = (reader.word()?, reader.word()?, reader.is()?);
        let (episodes, n_parts) = (Episodes::read(reader)?, reader.short()?);
        let history = if reader.is()? { Some(Box::new(History::read(reader)?)) } else { None };
        Some(Self {
            step_nanos,
            season_nanos,
            next_step,
            profile,
            counts,
            forecasters,
            scales,
            offset,
            last,
            size,
            spread,
            repeats,
            n_seen,
            n_missing,
            is_young,
            episodes,
            history,
            n_parts,
            finding: Finding::default(),
        })
    }
}

impl Observed {
    /// A step without a point: nothing is learned, an open level stays open.
    fn gap(is_open: bool) -> Self {
        let judged = Judged { spike: 0.0, level: 0.0, is_alert: false, is_hot: is_open, expected: f64::NAN };
        Self { judged, is_judged: false, errors: [0.0; 3], value: f64::NAN }
    }

    /// What there is to tell of it: the forecasts where they are what is off, else the usual level.
    pub fn finding(&self, step: i64, threshold: f64) -> Finding {
        let Judged { spike, level, expected, .. } = self.judged;
        let [plain, seasoned, error] = self.errors;
        let (expected, distance, score) = if spike >= level {
            let distance = 0.5 * (plain.abs() + seasoned.abs());
            let is_above = plain + seasoned > 0.0;
            (self.value - if is_above { distance } else { -distance }, distance, spike)
        } else {
            (expected, error.abs(), level)
        };
        let reach = if score > 0.0 { distance * threshold / score } else { 0.0 };
        Finding { step, expected, reach: reach as f32, spike: spike as f32, level: level as f32 }
    }
}
