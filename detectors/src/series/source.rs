//! One metric with one set of attributes: its points become increments or levels, those become steps, and steps become the
//! values of its series.
//!
//! Resets of a cumulative point, as the OpenTelemetry data model has them: a value below the one before, or a start no earlier
//! than the point before. If the start is given and lies between the two, the point is what was counted since; if not, the
//! point is where counting begins anew and its step stays a gap. A start that merely wobbles resets nothing.

use std::sync::Arc;

use super::{
    columns::{Form, Number, Points},
    exponential::{Buckets, Exponential},
    spread::{Shape, Spread},
    stage::Stage,
    stats::SeriesStats,
    table::{Made, NO_COLUMN, Outputs},
    track::{Admission, MAX_SLOTS, MAX_TIME, NEVER, Slot, Track},
};

/// Explicit buckets that are kept; of a histogram with more only count and mean are.
const MAX_BUCKETS: usize = 256;

/// Quantiles of a summary that are shown.
const MAX_QUANTILES: usize = 8;

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There may be something to show.
    Filed,
    /// There is nothing new.
    Nothing,
    /// Time has jumped: restart, and offer the point again.
    Moved,
}

/// What is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Steps that are complete.
    Due,
    /// All steps.
    All,
}

/// What a source remembers of the point before.
#[derive(Debug)]
enum State {
    Nothing,
    Counter { value: Number, start: i64 },
    Spread(Box<SpreadState>),
}

#[derive(Debug)]
struct SpreadState {
    /// The point before and its start, where points are cumulative.
    last: Option<(i64, Spread)>,
    /// Bounds of the explicit buckets, shared by all their counts.
    bounds: Arc<[f64]>,
    /// The quantiles that are shown.
    quantiles: Arc<[f64]>,
}

/// What a point says.
#[derive(Debug)]
enum Measured {
    /// Nothing that could be used.
    Nothing,
    /// Where counting begins.
    Beginning,
    /// A level, or an increment with the time that it covers.
    Value { value: f64, covered: i64, spread: Option<Box<Spread>> },
}

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Source {
    pub track: Track,
    slots: Vec<Slot>,
    state: State,
    pub outputs: Outputs,
    pub instance: u32,
    /// Hash of the scope that it comes from.
    pub scope: u32,
    pub form: Form,
    /// Whether it is listed to be looked at when the batch is through.
    pub is_touched: bool,
    /// Time of the whole input when its latest point came.
    pub seen: i64,
}

impl Source {
    /// What is made of a source, judged by its first point, and the quantiles among that.
    pub fn plan(points: &Points<'_>, row: usize, form: Form, asked: &Arc<[f64]>) -> (Vec<Made>, Arc<[f64]>) {
        let quantiles: Arc<[f64]> = match form {
            Form::Level => return (vec![Made::Value], Arc::from([])),
            Form::Delta | Form::Counter => return (vec![Made::Rate], Arc::from([])),
            Form::Change => return (vec![Made::Change], Arc::from([])),
            Form::DeltaHistogram | Form::Histogram if points.buckets.row(row).len() < 2 => Arc::from([]),
            Form::DeltaHistogram | Form::Histogram | Form::DeltaExponential | Form::Exponential => Arc::clone(asked),
            Form::Summary => {
                let given = points.bounds.row(row).iter().filter(|quantile| (0.0..=1.0).contains(*quantile));
                given.take(MAX_QUANTILES).copied().collect()
            }
        };
        let mut made = vec![Made::Rate];
        if !points.sum(row).is_nan() {
            made.push(Made::Mean);
        }
        made.extend((0u8..).take(quantiles.len()).map(Made::Quantile));
        (made, quantiles)
    }

    pub fn new(form: Form, quantiles: Arc<[f64]>, outputs: Outputs, instance: u32, scope: u32) -> Self {
        let state = match form {
            Form::Level | Form::Delta | Form::Change | Form::Counter => State::Nothing,
            _ => State::Spread(Box::new(SpreadState { last: None, bounds: Arc::from([]), quantiles })),
        };
        let slots = Vec::new();
        Self { track: Track::default(), slots, state, outputs, instance, scope, form, is_touched: false, seen: NEVER }
    }

    /// Takes a point of its form. `shared` are the bounds that were seen last, of any source.
    pub fn take(&mut self, points: &Points<'_>, row: usize, shared: &mut Arc<[f64]>, stats: &mut SeriesStats) -> Taken {
        let time = points.times.value(row);
        if time.unsigned_abs() > MAX_TIME as u64 {
            stats.n_out_of_range += 1;
            return Taken::Nothing;
        }
        match self.track.guard.admit(time) {
            Admission::Near => {}
            Admission::Strange => {
                stats.n_strange += 1;
                return Taken::Nothing;
            }
            Admission::Moved => {
                stats.n_moved += 1;
                return Taken::Moved;
            }
        }
        if time == self.track.guard.newest || self.slots.iter().any(|slot| slot.time == time) {
            stats.n_duplicate += 1;
            return Taken::Nothing;
        }
        if self.track.is_past(time) {
            stats.n_late += 1;
            return Taken::Nothing;
        }
        if time < self.track.guard.newest {
            stats.n_backwards += 1;
            // What it counted is in the newer point, too.
            if self.form.is_cumulative() {
                return Taken::Nothing;
            }
        }
        let measured = self.measure(points, row, time, shared, stats);
        match measured {
            Measured::Nothing => Taken::Nothing,
            Measured::Beginning => {
                stats.n_points += 1;
                self.track.guard.see(time);
                Taken::Nothing
            }
            Measured::Value { value, covered, spread } => {
                stats.n_points += 1;
                self.track.guard.see(time);
                let slot = Slot { time, covered, record: points.record(row), value, spread };
                self.track.place(&mut self.slots, slot, self.form.merge());
                Taken::Filed
            }
        }
    }

    /// Whether it holds more than it should until the batch is through.
    pub fn is_crowded(&self) -> bool {
        self.slots.len() > MAX_SLOTS
    }

    pub fn is_waiting(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Shows what there is; what comes from now on has nothing to do with it. A step is not found from what is left out.
    pub fn restart(&mut self, stage: &mut Stage) {
        if self.track.is_settled() {
            self.show(Show::All, stage);
        }
        self.slots.clear();
        self.track.restart();
        match &mut self.state {
            State::Spread(state) => state.last = None,
            state => *state = State::Nothing,
        }
    }

    fn measure(
        &mut self,
        points: &Points<'_>,
        row: usize,
        time: i64,
        shared: &mut Arc<[f64]>,
        stats: &mut SeriesStats,
    ) -> Measured {
        let start = points.start(row);
        if let State::Spread(state) = &mut self.state {
            let Some(now) = state.read(points, row, self.form, shared, stats) else {
                stats.n_no_value += 1;
                return Measured::Nothing;
            };
            return state.measure(now, start, time, self.form, &self.track, stats);
        }
        let Some(number) = points.number(row) else {
            stats.n_no_value += 1;
            return Measured::Nothing;
        };
        let value = number.to_f64();
        if !value.is_finite() {
            stats.n_non_finite += 1;
            return Measured::Nothing;
        }
        match self.form {
            Form::Level => Measured::Value { value, covered: 0, spread: None },
            Form::Counter => self.count(number, start, time, stats),
            // A sum that only grows and has not grown is at fault.
            Form::Delta if value < 0.0 => {
                stats.n_resets += 1;
                Measured::Nothing
            }
            _ => Measured::Value { value, covered: self.track.covered(start, time), spread: None },
        }
    }

    /// The increment of a counter.
    fn count(&mut self, now: Number, start: i64, time: i64, stats: &mut SeriesStats) -> Measured {
        let before = std::mem::replace(&mut self.state, State::Counter { value: now, start });
        let State::Counter { value, start: old_start } = before else { return Measured::Beginning };
        let newest = self.track.guard.newest;
        let increment = now.minus(value);
        if increment >= 0.0 && !is_new_start(start, old_start, newest) {
            if !increment.is_finite() {
                stats.n_non_finite += 1;
                return Measured::Beginning;
            }
            return Measured::Value { value: increment, covered: time.saturating_sub(newest), spread: None };
        }
        stats.n_resets += 1;
        match since_start(start, newest, time) {
            Some(covered) if now.to_f64() >= 0.0 => Measured::Value { value: now.to_f64(), covered, spread: None },
            _ => Measured::Beginning,
        }
    }

    /// Shows the steps that are complete: for each of its series a run of values, gaps included.
    pub fn show(&mut self, show: Show, stage: &mut Stage) {
        if self.slots.is_empty() {
            return;
        }
        if !self.track.is_settled() {
            if show == Show::Due && !Track::is_ripe(&self.slots) {
                return;
            }
            let pace = stage.pace(self.instance);
            self.track.settle(&mut self.slots, &stage.timing, pace, self.form.merge());
            stage.join(self.instance, &self.outputs, &self.track);
        }
        let watermark = self.track.guard.newest.max(stage.floor).saturating_sub(stage.timing.lateness);
        let n_due = match show {
            Show::All => self.slots.len(),
            Show::Due => self.slots.iter().take_while(|slot| self.track.due(slot) <= watermark).count(),
        };
        // Half of what there may be is left, so that not each point of a long batch has to be shown by itself.
        let n_crowded = if self.is_crowded() { self.slots.len() - MAX_SLOTS / 2 } else { 0 };
        let n_shown = n_due.max(n_crowded);
        stage.stats.n_released_early += (n_shown - n_due) as u64;
        if n_shown == 0 {
            return;
        }
        for output in self.outputs.as_slice() {
            self.show_one(*output, &self.slots[..n_shown], stage);
        }
        if let Some(last) = self.slots[..n_shown].last() {
            self.track.next = self.track.step_of(last.time) + 1;
        }
        self.slots.drain(..n_shown);
        if self.slots.is_empty() && self.slots.capacity() > 1 {
            self.slots = Vec::with_capacity(1);
        }
    }

    /// The same steps for one of its series.
    fn show_one(&self, output: u32, slots: &[Slot], stage: &mut Stage) {
        let (made, column) = {
            let series = stage.table.get(output);
            (series.made, series.column)
        };
        let step_nanos = self.track.step;
        let mut next = self.track.next;
        let mut is_begun = false;
        for slot in slots {
            let step = self.track.step_of(slot.time);
            let n_gaps = if next == NEVER { 0 } else { step.saturating_sub(next) };
            if next == NEVER || n_gaps > stage.timing.max_gap {
                stage.shown.begin(output, step, step_nanos);
            } else {
                if !is_begun {
                    stage.shown.begin(output, next, step_nanos);
                }
                (0..n_gaps).for_each(|_| stage.shown.point(f64::NAN, 0));
                stage.stats.n_gaps += n_gaps as u64;
            }
            is_begun = true;
            let value = self.value(made, slot);
            stage.shown.point(value, if value.is_nan() { 0 } else { slot.record });
            if column != NO_COLUMN {
                stage.set(self.instance, column, step, value);
            }
            next = step + 1;
        }
    }

    /// A value of one of its series: finite, or NaN where there is none.
    fn value(&self, made: Made, slot: &Slot) -> f64 {
        let spread = slot.spread.as_deref();
        let value = match made {
            Made::Value => slot.value,
            Made::Rate | Made::Change => slot.value / slot.seconds(self.track.step),
            Made::Mean => spread.map_or(f64::NAN, Spread::mean),
            Made::Quantile(nth) => {
                let nth = usize::from(nth);
                let State::Spread(state) = &self.state else { return f64::NAN };
                match (spread, state.quantiles.get(nth)) {
                    (Some(spread), Some(quantile)) => spread.quantile(nth, *quantile),
                    _ => f64::NAN,
                }
            }
            Made::Errors => f64::NAN,
        };
        if value.is_finite() { value } else { f64::NAN }
    }

    /// Memory beside the struct itself, without its series.
    pub fn heap_bytes(&self) -> usize {
        let slots: usize = self.slots.iter().map(Slot::heap_bytes).sum();
        let outputs = if let Outputs::Many(outputs) = &self.outputs { size_of_val(&**outputs) } else { 0 };
        let state = match &self.state {
            State::Spread(state) => {
                let last = state.last.as_ref().map_or(0, |(_, spread)| spread.heap_bytes());
                // Bounds and quantiles are shared by many, as a rule.
                size_of::<SpreadState>() + last
            }
            State::Nothing | State::Counter { .. } => 0,
        };
        slots + self.slots.capacity() * size_of::<Slot>() + outputs + state
    }
}

impl SpreadState {
    /// The point as it came; `None` without a count.
    fn read(
        &mut self,
        points: &Points<'_>,
        row: usize,
        form: Form,
        shared: &mut Arc<[f64]>,
        stats: &mut SeriesStats,
    ) -> Option<Spread> {
        let count = points.count(row)?;
        let mut sum = points.sum(row);
        if sum.is_infinite() {
            stats.n_non_finite += 1;
            sum = f64::NAN;
        }
        let (min, max) = points.extremes(row);
        let shape = match form {
            Form::DeltaExponential | Form::Exponential => {
                let (positive, negative) = points.offsets(row);
                let positive = Buckets::read(positive, points.buckets.row(row));
                let negative = Buckets::read(negative, points.negative_buckets.row(row));
                Exponential::read(points.scale(row), points.zero_count(row), positive, negative).map(Shape::Exponential)
            }
            Form::Summary => {
                let (given, values) = (points.bounds.row(row), points.quantile_values.row(row));
                let value_at = |quantile: &f64| {
                    let place = given.iter().position(|given| given == quantile);
                    place.and_then(|place| values.get(place)).copied().unwrap_or(f64::NAN)
                };
                Some(Shape::Quantiles(self.quantiles.iter().map(value_at).collect()))
            }
            _ => self.explicit(points.bounds.row(row), points.buckets.row(row), shared),
        };
        stats.n_unusable_buckets += u64::from(shape.is_none());
        let is_known = |value: f64| if value.is_finite() { value } else { f64::NAN };
        let (min, max) = (is_known(min), is_known(max));
        Some(Spread { count, sum, min, max, shape: shape.unwrap_or(Shape::Unknown) })
    }

    /// Explicit buckets; `None` when they cannot be used.
    fn explicit(&mut self, bounds: &[f64], counts: &[u64], shared: &mut Arc<[f64]>) -> Option<Shape> {
        if counts.is_empty() && bounds.is_empty() {
            return Some(Shape::Unknown);
        }
        if counts.len() != bounds.len() + 1 || counts.len() > MAX_BUCKETS {
            return None;
        }
        if *bounds != *self.bounds {
            let is_rising = bounds.windows(2).all(|pair| pair[0] < pair[1]);
            if !is_rising || !bounds.iter().all(|bound| bound.is_finite()) {
                return None;
            }
            if *bounds != **shared {
                *shared = Arc::from(bounds);
            }
            self.bounds = Arc::clone(shared);
        }
        Some(Shape::Explicit { bounds: Arc::clone(&self.bounds), counts: counts.to_vec() })
    }

    /// What a point adds.
    fn measure(
        &mut self,
        now: Spread,
        start: i64,
        time: i64,
        form: Form,
        track: &Track,
        stats: &mut SeriesStats,
    ) -> Measured {
        let value_of = |spread: Spread, covered: i64| Measured::Value {
            value: spread.count as f64,
            covered,
            spread: Some(Box::new(spread)),
        };
        if !form.is_cumulative() {
            return value_of(now, track.covered(start, time));
        }
        let newest = track.guard.newest;
        let Some((old_start, last)) = self.last.take() else {
            self.last = Some((start, now));
            return Measured::Beginning;
        };
        let increment = if is_new_start(start, old_start, newest) { None } else { now.since(&last) };
        let measured = match increment {
            Some(increment) => value_of(increment, time.saturating_sub(newest)),
            None => {
                stats.n_resets += 1;
                match since_start(start, newest, time) {
                    Some(covered) => value_of(now.clone(), covered),
                    None => Measured::Beginning,
                }
            }
        };
        self.last = Some((start, now));
        measured
    }
}

/// Whether a cumulative point counts from another start than the one before, which came at `newest`.
fn is_new_start(start: i64, old_start: i64, newest: i64) -> bool {
    start != NEVER && start != old_start && start >= newest
}

/// How long a point that counts from anew has counted, where it is known to have done so since the point before.
fn since_start(start: i64, newest: i64, time: i64) -> Option<i64> {
    (start != NEVER && start >= newest && start < time).then(|| time.saturating_sub(start))
}
