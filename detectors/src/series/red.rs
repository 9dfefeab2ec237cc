//! Rate, errors and durations of the operations of each service, or of its calls to each other service, from spans.
//!
//! A service has one clock, the newest end of its spans; a step is complete when the clock is the lateness past its end. An
//! operation without spans in a step in which its service had some has a rate of zero there, and gaps for the rest; where
//! the whole service had none, nobody knows, and all is a gap. After [`Timing::max_gap`] such steps it is silent until it
//! comes back. Durations go into an [`Exponential`] sketch for each step, in milliseconds.
//!
//! Cost: a hash lookup and a logarithm a span; a step of all operations of a service when it is complete. Fails when the
//! clock of one host of a service runs ahead by more than the lateness: spans of its other hosts are late until time has
//! caught up.

use std::sync::Arc;

use faultline_core::RecordId;
use rustc_hash::FxHashMap;

use super::{
    exponential::Exponential,
    identity::{hash_of, push_label},
    stage::Stage,
    table::{Made, Name, Outputs, cut},
    track::{Admission, Guard, MAX_TIME, NEVER},
};

/// Services that are told apart.
const MAX_SERVICES: usize = 16_384;

/// Bytes of a service's name that are kept.
const MAX_NAME_BYTES: usize = 256;

/// Steps of a service that wait at a time.
const MAX_OPEN_STEPS: usize = 16;

/// The operation that takes those beyond the limit.
const OTHERS: &str = "*";

/// One span or call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// Start, nanoseconds since the epoch.
    pub start_unix_nano: i64,
    /// End minus start.
    pub duration_nanos: i64,
    /// Whether it failed.
    pub is_error: bool,
    /// The span's record.
    pub record: RecordId,
}

/// What is counted, and how.
#[derive(Clone, Debug)]
pub(super) struct RedConfig {
    /// The stream of those without a service.
    pub stream: Arc<str>,
    /// The metric that its series are named after: `spans`.
    pub metric: &'static str,
    /// The attribute that has the operation: `operation`.
    pub label: &'static str,
    pub step: i64,
    pub lateness: i64,
    pub max_operations: usize,
    pub quantiles: Arc<[f64]>,
}

/// Place of a service and of an operation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub service: u32,
    pub operation: u32,
}

/// See the file's documentation.
#[derive(Debug)]
pub(super) struct Red {
    config: RedConfig,
    services: Vec<Service>,
    by_name: FxHashMap<u64, u32>,
    touched: Vec<u32>,
    /// Steps of one operation that are about to be shown, each with the slot that it has; kept for its memory.
    plan: Vec<(i64, Option<usize>)>,
}

#[derive(Debug)]
struct Service {
    /// Its name, or that of the stream of those without one.
    stream: Arc<str>,
    is_service: bool,
    hash: u64,
    guard: Guard,
    /// The first step that has not been shown.
    next: i64,
    /// Steps in which it had spans and that have not been shown, in order.
    active: Vec<i64>,
    operations: Vec<Operation>,
    by_name: FxHashMap<u64, u32>,
    is_touched: bool,
}

#[derive(Debug)]
struct Operation {
    hash: u64,
    outputs: Outputs,
    slots: Vec<Slot>,
    /// The step to be shown next, [`NEVER`] while it is silent.
    next: i64,
    /// Steps without spans that have been shown in a row.
    n_empty: i64,
    seen: i64,
}

/// What one operation did within one step.
#[derive(Debug)]
struct Slot {
    step: i64,
    n: u64,
    n_errors: u64,
    record: RecordId,
    durations: Exponential,
}

impl Red {
    pub fn new(config: RedConfig) -> Self {
        Self { config, services: Vec::new(), by_name: FxHashMap::default(), touched: Vec::new(), plan: Vec::new() }
    }

    /// Operations now.
    pub fn n_operations(&self) -> usize {
        self.services.iter().map(|service| service.operations.len()).sum()
    }

    /// Place of a service; `None` when there are too many. Places hold until [`Self::retire`].
    pub fn service(&mut self, name: &str) -> Option<u32> {
        let hash = hash_of(&name);
        if let Some(&idx) = self.by_name.get(&hash) {
            return Some(idx);
        }
        if self.services.len() >= MAX_SERVICES {
            return None;
        }
        let idx = self.services.len() as u32;
        let is_service = !name.is_empty();
        self.services.push(Service {
            stream: if is_service { Arc::from(cut(name, MAX_NAME_BYTES)) } else { Arc::clone(&self.config.stream) },
            is_service,
            hash,
            guard: Guard::default(),
            next: NEVER,
            active: Vec::new(),
            operations: Vec::new(),
            by_name: FxHashMap::default(),
            is_touched: false,
        });
        self.by_name.insert(hash, idx);
        Some(idx)
    }

    /// Place of an operation; that of [`OTHERS`] where there are too many, `None` where there is no room for that either.
    pub fn operation(&mut self, service: u32, name: &str, stage: &mut Stage) -> Option<Place> {
        let hash = hash_of(&name);
        let others = hash_of(&OTHERS);
        let known = &self.services[service as usize];
        if let Some(&operation) = known.by_name.get(&hash) {
            return Some(Place { service, operation });
        }
        let is_one_too_many = known.operations.len() >= self.config.max_operations;
        if !is_one_too_many && let Some(place) = self.open(service, name, hash, stage) {
            return Some(place);
        }
        if let Some(&operation) = self.services[service as usize].by_name.get(&others) {
            return Some(Place { service, operation });
        }
        self.open(service, OTHERS, others, stage)
    }

    fn open(&mut self, service: u32, name: &str, hash: u64, stage: &mut Stage) -> Option<Place> {
        let Red { config, services, .. } = self;
        let mut made = vec![Made::Rate, Made::Errors];
        made.extend((0u8..).take(config.quantiles.len()).map(Made::Quantile));
        if !stage.table.has_room(made.len()) {
            return None;
        }
        let known = &mut services[service as usize];
        let mut metric = format!("{}{{", config.metric);
        push_label(&mut metric, config.label, name);
        metric.push('}');
        let name = Name {
            stream: &known.stream,
            is_service: known.is_service,
            metric: &metric,
            scope: "",
            instance: "",
            quantiles: &config.quantiles,
        };
        let outputs = stage.table.open(&name, &made)?;
        let operation = known.operations.len() as u32;
        known.operations.push(Operation { hash, outputs, slots: Vec::new(), next: NEVER, n_empty: 0, seen: NEVER });
        known.by_name.insert(hash, operation);
        Some(Place { service, operation })
    }

    /// Whether spans of this place are those of operations beyond the limit.
    pub fn is_others(&self, place: Place) -> bool {
        self.services[place.service as usize].operations[place.operation as usize].hash == hash_of(&OTHERS)
    }

    /// Counts a span or call. `now` is the time of the whole input.
    pub fn observe(&mut self, place: Place, call: &Call, now: i64, stage: &mut Stage) {
        let duration_nanos = call.duration_nanos.max(0);
        let end = call.start_unix_nano.saturating_add(duration_nanos);
        if end.unsigned_abs() > MAX_TIME as u64 {
            stage.stats.n_out_of_range += 1;
            return;
        }
        match self.services[place.service as usize].guard.admit(end) {
            Admission::Near => {}
            Admission::Strange => {
                stage.stats.n_strange += 1;
                return;
            }
            Admission::Moved => {
                stage.stats.n_moved += 1;
                self.show_all_of(place.service, stage);
                self.services[place.service as usize].restart();
            }
        }
        let service = &mut self.services[place.service as usize];
        let step = end.div_euclid(self.config.step);
        if service.next != NEVER && step < service.next {
            stage.stats.n_late_spans += 1;
            return;
        }
        stage.stats.n_spans += 1;
        service.guard.see(end);
        if let Err(idx) = service.active.binary_search(&step) {
            service.active.insert(idx, step);
        }
        let operation = &mut service.operations[place.operation as usize];
        operation.seen = now;
        let slots = &mut operation.slots;
        let idx = match slots.binary_search_by_key(&step, |slot| slot.step) {
            Ok(idx) => idx,
            Err(idx) => {
                slots.reserve_exact(1);
                slots.insert(idx, Slot { step, n: 0, n_errors: 0, record: 0, durations: Exponential::default() });
                idx
            }
        };
        let slot = &mut slots[idx];
        slot.n += 1;
        slot.n_errors += u64::from(call.is_error);
        slot.record = slot.record.max(call.record);
        slot.durations.observe(duration_nanos as f64 / 1e6);
        if !std::mem::replace(&mut service.is_touched, true) {
            self.touched.push(place.service);
        }
        if service.active.len() > MAX_OPEN_STEPS {
            let oldest = service.active[0];
            stage.stats.n_released_early += 1;
            self.show_until(place.service, oldest, stage);
        }
    }

    /// Shows the steps that are complete of services with news.
    pub fn show_touched(&mut self, stage: &mut Stage) {
        for service in std::mem::take(&mut self.touched) {
            self.services[service as usize].is_touched = false;
            self.show_due(service, stage);
        }
    }

    /// Shows the steps that are complete of all services.
    pub fn show_every(&mut self, stage: &mut Stage) {
        (0..self.services.len() as u32).for_each(|service| self.show_due(service, stage));
    }

    /// Shows all steps.
    pub fn finish(&mut self, stage: &mut Stage) {
        (0..self.services.len() as u32).for_each(|service| self.show_all_of(service, stage));
    }

    fn show_due(&mut self, service: u32, stage: &mut Stage) {
        let newest = self.services[service as usize].guard.newest;
        if newest != NEVER {
            let watermark = newest.max(stage.floor).saturating_sub(self.config.lateness);
            self.show_until(service, watermark.div_euclid(self.config.step) - 1, stage);
        }
    }

    fn show_all_of(&mut self, service: u32, stage: &mut Stage) {
        if let Some(&last) = self.services[service as usize].active.last() {
            self.show_until(service, last, stage);
        }
    }

    /// Shows the steps up to `last`.
    fn show_until(&mut self, service: u32, last: i64, stage: &mut Stage) {
        let Red { config, services, plan, .. } = self;
        let service = &mut services[service as usize];
        if service.next == NEVER {
            let Some(&first) = service.active.first() else { return };
            if first <= last {
                service.next = first;
            }
        }
        if service.next == NEVER || last < service.next {
            return;
        }
        for operation in &mut service.operations {
            operation.plan(last, stage.timing.max_gap, plan);
            for output in operation.outputs.as_slice() {
                let made = stage.table.get(*output).made;
                let mut before = None;
                for (step, slot) in plan.iter() {
                    if before != Some(*step - 1) {
                        stage.shown.begin(*output, *step, config.step);
                    }
                    before = Some(*step);
                    let slot = slot.and_then(|idx| operation.slots.get(idx));
                    let value = match slot {
                        Some(slot) => slot.value(made, config),
                        None if made == Made::Rate && service.active.binary_search(step).is_ok() => 0.0,
                        None => f64::NAN,
                    };
                    stage.stats.n_gaps += u64::from(value.is_nan());
                    let record = slot.filter(|_| !value.is_nan()).map_or(0, |slot| slot.record);
                    stage.shown.point(value, record);
                }
            }
            let n_shown = operation.slots.partition_point(|slot| slot.step <= last);
            operation.slots.drain(..n_shown);
        }
        service.active.retain(|step| *step > last);
        service.next = last + 1;
    }

    /// Drops operations that have not been heard of since `before`, and services without any. Nothing may wait to be settled.
    pub fn retire(&mut self, before: i64, stage: &mut Stage) {
        for service in &mut self.services {
            let n_operations = service.operations.len();
            service.operations.retain(|operation| {
                let is_alive = operation.seen >= before || !operation.slots.is_empty();
                if !is_alive {
                    stage.table.free(&operation.outputs);
                    stage.stats.n_retired += 1;
                }
                is_alive
            });
            if service.operations.len() < n_operations {
                let numbered = service.operations.iter().zip(0..);
                service.by_name = numbered.map(|(operation, idx)| (operation.hash, idx)).collect();
            }
        }
        let n_services = self.services.len();
        self.services.retain(|service| !service.operations.is_empty());
        if self.services.len() < n_services {
            self.touched.clear();
            self.by_name = self.services.iter().zip(0..).map(|(service, idx)| (service.hash, idx)).collect();
            for (service, idx) in self.services.iter().zip(0..) {
                if service.is_touched {
                    self.touched.push(idx);
                }
            }
        }
    }

    /// Memory that it holds, roughly, without its series.
    pub fn bytes(&self) -> usize {
        let of_map = |map: &FxHashMap<u64, u32>| map.capacity() * 8 / 7 * (size_of::<(u64, u32)>() + 1);
        let of_operation = |operation: &Operation| {
            let sketches: usize = operation.slots.iter().map(|slot| slot.durations.heap_bytes()).sum();
            sketches + operation.slots.capacity() * size_of::<Slot>() + size_of_val(operation.outputs.as_slice())
        };
        let of_service = |service: &Service| {
            let operations: usize = service.operations.iter().map(of_operation).sum();
            operations + service.operations.capacity() * size_of::<Operation>() + of_map(&service.by_name)
        };
        let services: usize = self.services.iter().map(of_service).sum();
        services + self.services.capacity() * size_of::<Service>() + of_map(&self.by_name)
    }
}

impl Service {
    fn restart(&mut self) {
        self.next = NEVER;
        self.active.clear();
        for operation in &mut self.operations {
            (operation.next, operation.n_empty) = (NEVER, 0);
        }
    }
}

impl Operation {
    /// Lists the steps up to `last` that are to be shown, empty ones included, and moves on beyond them.
    fn plan(&mut self, last: i64, max_gap: i64, plan: &mut Vec<(i64, Option<usize>)>) {
        plan.clear();
        let n_due = self.slots.partition_point(|slot| slot.step <= last);
        for (idx, slot) in self.slots[..n_due].iter().enumerate() {
            while self.next != NEVER && self.next < slot.step && self.n_empty < max_gap {
                plan.push((self.next, None));
                self.next += 1;
                self.n_empty += 1;
            }
            plan.push((slot.step, Some(idx)));
            (self.next, self.n_empty) = (slot.step + 1, 0);
        }
        while self.next != NEVER && self.next <= last && self.n_empty < max_gap {
            plan.push((self.next, None));
            self.next += 1;
            self.n_empty += 1;
        }
        if self.next <= last {
            self.next = NEVER;
        }
    }
}

impl Slot {
    fn value(&self, made: Made, config: &RedConfig) -> f64 {
        match made {
            Made::Rate => self.n as f64 / (config.step as f64 / 1e9),
            Made::Errors => self.n_errors as f64 / self.n.max(1) as f64,
            Made::Quantile(nth) => {
                let quantile = config.quantiles.get(usize::from(nth)).copied().unwrap_or(f64::NAN);
                self.durations.quantile(quantile)
            }
            Made::Value | Made::Change | Made::Mean => f64::NAN,
        }
    }
}
