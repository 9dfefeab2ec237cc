//! Runs an application: one heap of timed events, popped in order of (time, order of scheduling).
//!
//! A visit is one operation of one service at work for one caller. It walks its operation's steps; a work step holds a
//! server of the service, a call step starts visits at other services and waits for their answers or its
//! patience. A caller that has given up does not stop the callee. Cost: about five events and one microsecond a
//! visit; memory grows with the visits under way and with the telemetry that was not yet taken.
//!
//! Differs from a real application: one instance a service, no connection pools, no cancellation, and an operation's
//! later work steps are never turned away (the queue's capacity guards the door only).

mod emit;

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use crate::{
    config::{Config, ConfigError, OnFailure, Speech},
    fault::{Fault, FaultKind},
    plan::{Plan, PlannedCall, PlannedStep},
    random::{Streams, ms_to_ns},
    slab::{Key, Slab},
    speech::{Facts, Failure, exception},
    station::{ServiceState, ServiceStats},
    telemetry::{SimEvent, Telemetry, Value},
};

/// The most faults that may be injected into one simulation.
const MAX_FAULTS: usize = 1024;
/// How often a throttled service says so.
const THROTTLE_WARNING_NS: u64 = 2_000_000_000;

/// A running application.
pub struct Simulation {
    plan: Arc<Plan>,
    speech: Speech,
    arrivals_per_second: f64,
    network_ms: f64,
    retry_pause_ns: u64,
    max_visits: usize,
    now_ns: u64,
    n_scheduled: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    visits: Slab<Visit>,
    calls: Slab<PendingCall>,
    services: Vec<ServiceState>,
    faults: Vec<(usize, Fault)>,
    streams: Streams,
    telemetry: Telemetry,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next user request.
    Request,
    /// A visit reaches its service.
    Begin(Key),
    /// A visit that a fault held back goes on.
    Enter(Key),
    /// A server is done with a visit's work step.
    Worked(Key),
    /// A visit makes the `slot`-th call of its step for the `attempt`-th time, from 0.
    Attempt { visit: Key, slot: u32, attempt: u32 },
    /// The answer to a call reaches its caller: how it failed, if it did.
    Answer(Key, Option<Reason>),
    /// A caller's patience ends.
    Deadline(Key),
    /// The `entry`-th background record of a service is due.
    Background { service: u32, entry: u32 },
    /// A throttled service says so.
    Throttled { fault: u32 },
}

/// [`Failure`] in an order, so that events can stand in the heap.
type Reason = u8;

const FAILURES: [Failure; 5] =
    [Failure::Timeout, Failure::Refused, Failure::Overloaded, Failure::Exception, Failure::Upstream];

struct Visit {
    operation: usize,
    caller: Option<Key>,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent_span_id: Option<[u8; 8]>,
    facts: Facts,
    start_ns: u64,
    step: usize,
    has_worked: bool,
    n_pending: usize,
    failure: Option<Failure>,
    exception: Option<SimEvent>,
}

struct PendingCall {
    visit: Key,
    slot: u32,
    attempt: u32,
    span_id: [u8; 8],
    start_ns: u64,
}

impl Simulation {
    /// An application at virtual time 0, with its first request scheduled.
    ///
    /// # Errors
    /// Names the key whose value is out of range, or the name that nothing bears.
    pub fn new(config: &Config, seed: u64) -> Result<Self, ConfigError> {
        let plan = Arc::new(Plan::new(config)?);
        let mut simulation = Self {
            services: plan.services.iter().map(|service| ServiceState::new(service.n_servers)).collect(),
            plan: Arc::clone(&plan),
            speech: config.speech,
            arrivals_per_second: config.arrivals_per_second,
            network_ms: config.network_ms,
            retry_pause_ns: ms_to_ns(config.retry_pause_ms),
            max_visits: config.max_visits,
            now_ns: 0,
            n_scheduled: 0,
            events: BinaryHeap::new(),
            visits: Slab::new(),
            calls: Slab::new(),
            faults: Vec::new(),
            streams: Streams::new(seed),
            telemetry: Telemetry::default(),
        };
        simulation.schedule_request();
        if config.speech == Speech::Full {
            for (service, planned) in plan.services.iter().enumerate() {
                for (entry, (_, offset_ns, _)) in planned.background.iter().enumerate() {
                    let event = Event::Background { service: service as u32, entry: entry as u32 };
                    simulation.schedule(*offset_ns, event);
                }
            }
        }
        Ok(simulation)
    }

    /// Breaks a service for a while. Times that have passed count as now.
    ///
    /// # Errors
    /// When there is no such service, or the severity or times cannot be meant.
    pub fn inject(&mut self, fault: Fault) -> Result<(), ConfigError> {
        let service = self.plan.service("fault.service", &fault.service)?;
        let invalid = |key: &str, reason| Err(ConfigError::Invalid { key: format!("fault.{key}"), reason });
        if let Some(reason) = fault.kind.refuse(fault.severity) {
            return invalid("severity", reason);
        }
        if fault.until_ns <= fault.from_ns {
            return invalid("until_ns", format!("{} is not after from_ns {}", fault.until_ns, fault.from_ns));
        }
        if self.faults.len() >= MAX_FAULTS {
            return invalid("service", format!("at most {MAX_FAULTS} faults can be injected"));
        }
        if fault.kind == FaultKind::CpuHog && self.speech == Speech::Full {
            let event = Event::Throttled { fault: self.faults.len() as u32 };
            self.schedule(fault.from_ns.max(self.now_ns) + THROTTLE_WARNING_NS / 4, event);
        }
        self.faults.push((service, fault));
        Ok(())
    }

    /// Lets the application run to virtual time `t_ns` and takes what it said since the last call. A time that has
    /// passed already takes only what is left.
    pub fn advance_to(&mut self, t_ns: u64) -> Telemetry {
        while let Some(Reverse((time_ns, _, _))) = self.events.peek()
            && *time_ns <= t_ns
        {
            let Some(Reverse((time_ns, _, event))) = self.events.pop() else { break };
            self.now_ns = time_ns;
            self.handle(event);
        }
        self.now_ns = self.now_ns.max(t_ns);
        std::mem::take(&mut self.telemetry)
    }

    /// Virtual time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Names of the services, in the configuration's order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<str>> {
        self.plan.services.iter().map(|service| &service.name)
    }

    /// What has happened at each service up to now, in the configuration's order.
    pub fn stats(&mut self) -> Vec<ServiceStats> {
        let now_ns = self.now_ns;
        let settle = |state: &mut ServiceState| {
            state.settle(now_ns);
            state.station.settle(now_ns);
            ServiceStats {
                n_works: state.station.n_started,
                wait_ns: state.station.wait_ns,
                work_ns: state.station.unit_ns,
                busy_ns: state.station.busy_ns,
                ..state.stats
            }
        };
        self.services.iter_mut().map(settle).collect()
    }

    fn schedule(&mut self, time_ns: u64, event: Event) {
        self.n_scheduled += 1;
        self.events.push(Reverse((time_ns, self.n_scheduled, event)));
    }

    fn schedule_request(&mut self) {
        if self.arrivals_per_second > 0.0 {
            let gap_ms = self.streams.arrivals.exponential(1e3 / self.arrivals_per_second);
            self.schedule(self.now_ns + ms_to_ns(gap_ms).max(1), Event::Request);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request => self.request(),
            Event::Begin(visit) => self.begin(visit),
            Event::Enter(visit) => self.walk(visit),
            Event::Worked(visit) => self.worked(visit),
            Event::Attempt { visit, slot, attempt } => self.attempt(visit, slot, attempt),
            Event::Answer(call, reason) => self.answered(call, reason.map(|idx| FAILURES[usize::from(idx)])),
            Event::Deadline(call) => self.answered(call, Some(Failure::Timeout)),
            Event::Background { service, entry } => self.background(service, entry),
            Event::Throttled { fault } => self.throttled(fault),
        }
    }

    /// Severity of the fault of `kind` at `service` now; the worst where several overlap.
    fn severity(&self, service: usize, kind: FaultKind) -> Option<f64> {
        let now = self.now_ns;
        let active = |fault: &Fault| fault.kind == kind && fault.from_ns <= now && now < fault.until_ns;
        let mine = self.faults.iter().filter(|(culprit, fault)| *culprit == service && active(fault));
        mine.map(|(_, fault)| fault.severity).max_by(f64::total_cmp)
    }

    /// Whether a fault that strikes a share of cases strikes this one.
    fn struck(&mut self, service: usize, kind: FaultKind) -> bool {
        self.severity(service, kind).is_some_and(|share| self.streams.faults.unit() < share)
    }

    fn service_of(&self, operation: usize) -> usize {
        self.plan.operations[operation].service
    }

    fn request(&mut self) {
        self.schedule_request();
        let total = self.plan.requests.last().map_or(0.0, |(cumulated, _)| *cumulated);
        let pick = self.streams.arrivals.unit() * total;
        let Some((_, operation)) = self.plan.requests.iter().find(|(cumulated, _)| pick < *cumulated).copied() else {
            return;
        };
        if self.visits.len() >= self.max_visits {
            let service = self.service_of(operation);
            self.services[service].stats.n_turned_away += 1;
            return;
        }
        let (high, low) = (self.streams.ids.bits() | 1, self.streams.ids.bits());
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&high.to_be_bytes());
        trace_id[8..].copy_from_slice(&low.to_be_bytes());
        let facts = Facts::draw(&mut self.streams.words);
        let visit = self.new_visit(operation, None, trace_id, None, facts);
        self.begin(visit);
    }

    fn new_visit(
        &mut self,
        operation: usize,
        caller: Option<Key>,
        trace_id: [u8; 16],
        parent_span_id: Option<[u8; 8]>,
        facts: Facts,
    ) -> Key {
        let span_id = self.new_span_id();
        self.visits.insert(Visit {
            operation,
            caller,
            trace_id,
            span_id,
            parent_span_id,
            facts,
            start_ns: self.now_ns,
            step: 0,
            has_worked: false,
            n_pending: 0,
            failure: None,
            exception: None,
        })
    }

    fn new_span_id(&mut self) -> [u8; 8] {
        (self.streams.ids.bits() | 1).to_be_bytes()
    }

    /// A visit reaches its service, which may hold it back.
    fn begin(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let Some(visit) = self.visits.get_mut(key) else { return };
        visit.start_ns = now_ns;
        let service = self.plan.operations[visit.operation].service;
        let state = &mut self.services[service];
        state.settle(now_ns);
        state.stats.n_visits += 1;
        state.n_present += 1;
        match self.severity(service, FaultKind::Delay) {
            None => self.walk(key),
            Some(delay_ms) => {
                let spread = 0.9 + 0.2 * self.streams.faults.unit();
                self.schedule(now_ns + ms_to_ns(delay_ms * spread), Event::Enter(key));
            }
        }
    }

    /// Walks a visit's steps until one of them takes time.
    fn walk(&mut self, key: Key) {
        let plan = Arc::clone(&self.plan);
        loop {
            let Some(visit) = self.visits.get_mut(key) else { return };
            let operation = &plan.operations[visit.operation];
            let Some(step) = operation.steps.get(visit.step) else { return self.finish(key, None) };
            match step {
                PlannedStep::Log(words) => {
                    let (facts, elapsed_ns) = (visit.facts, self.now_ns - visit.start_ns);
                    if self.speech == Speech::Full {
                        let body = words.speak(&facts, elapsed_ns, &mut self.streams.words);
                        self.log(key, words.severity_number, body, Vec::new());
                    }
                }
                PlannedStep::Work(_) => {
                    let at_the_door = !visit.has_worked;
                    let station = &mut self.services[operation.service].station;
                    if at_the_door && station.n_waiting() >= plan.services[operation.service].queue_capacity.max(1) {
                        self.services[operation.service].stats.n_turned_away += 1;
                        return self.finish(key, Some(Failure::Overloaded));
                    }
                    if let Some(key) = station.arrive(key, self.now_ns) {
                        self.work(key);
                    }
                    return;
                }
                PlannedStep::Call(calls) => {
                    let mut n_calls = 0;
                    for (slot, call) in calls.iter().enumerate() {
                        if call.probability >= 1.0 || self.streams.work.unit() < call.probability {
                            n_calls += 1;
                            self.attempt(key, slot as u32, 0);
                        }
                    }
                    if n_calls > 0 {
                        if let Some(visit) = self.visits.get_mut(key) {
                            visit.n_pending = n_calls;
                        }
                        return;
                    }
                }
            }
            if let Some(visit) = self.visits.get_mut(key) {
                visit.step += 1;
            }
        }
    }

    /// A visit has a server for its present work step.
    fn work(&mut self, key: Key) {
        let Some(visit) = self.visits.get_mut(key) else { return };
        let operation = &self.plan.operations[visit.operation];
        let PlannedStep::Work(time) = operation.steps[visit.step] else { return };
        let stretch = self.severity(operation.service, FaultKind::CpuHog).unwrap_or(1.0);
        let duration_ns = self.streams.work.service_time_ns(time, stretch);
        self.schedule(self.now_ns + duration_ns, Event::Worked(key));
    }

    /// The work step is done: the server goes to whoever waits, the visit goes on or throws.
    fn worked(&mut self, key: Key) {
        let Some(visit) = self.visits.get_mut(key) else { return };
        visit.step += 1;
        let is_first = !std::mem::replace(&mut visit.has_worked, true);
        let operation = visit.operation;
        let service = self.service_of(operation);
        if let Some(next) = self.services[service].station.leave(self.now_ns) {
            self.work(next);
        }
        if is_first && self.struck(service, FaultKind::Exception) {
            self.throw(key, operation);
        } else {
            self.walk(key);
        }
    }

    fn throw(&mut self, key: Key, operation: usize) {
        let plan = Arc::clone(&self.plan);
        let operation = &plan.operations[operation];
        let attributes = exception(&plan.services[operation.service].name, &operation.name, &mut self.streams.words);
        let text = |idx: usize| match &attributes[idx].1 {
            Value::Text(text) => text.to_string(),
            Value::Int(number) => number.to_string(),
        };
        let body = format!("unhandled exception in {}: {}", operation.name, text(2));
        self.log(key, 17, body, attributes.to_vec());
        if let Some(visit) = self.visits.get_mut(key) {
            let attributes = attributes.to_vec();
            visit.exception = Some(SimEvent { time_ns: self.now_ns, name: "exception", attributes });
        }
        self.finish(key, Some(Failure::Exception));
    }

    /// The call that `visit` makes from `slot` of its present step.
    fn planned_call(&mut self, visit: Key, slot: u32) -> Option<PlannedCall> {
        let visit = self.visits.get_mut(visit)?;
        match self.plan.operations[visit.operation].steps.get(visit.step)? {
            PlannedStep::Call(calls) => calls.get(slot as usize).copied(),
            _ => None,
        }
    }

    fn attempt(&mut self, key: Key, slot: u32, attempt: u32) {
        let Some(call) = self.planned_call(key, slot) else { return };
        let span_id = self.new_span_id();
        let there_ns = self.now_ns + self.streams.work.around_ns(self.network_ms);
        let Some(visit) = self.visits.get_mut(key) else { return };
        let (trace_id, facts) = (visit.trace_id, visit.facts);
        let pending = PendingCall { visit: key, slot, attempt, span_id, start_ns: self.now_ns };
        let pending = self.calls.insert(pending);
        self.schedule(self.now_ns + call.timeout_ns, Event::Deadline(pending));
        let callee = self.service_of(call.operation);
        if self.struck(callee, FaultKind::Unavailable) {
            self.answer(pending, there_ns, Some(Failure::Refused));
        } else if self.visits.len() >= self.max_visits {
            self.services[callee].stats.n_turned_away += 1;
            self.answer(pending, there_ns, Some(Failure::Overloaded));
        } else {
            let callee = self.new_visit(call.operation, Some(pending), trace_id, Some(span_id), facts);
            self.schedule(there_ns, Event::Begin(callee));
        }
    }

    /// Sends the answer to a call, which leaves at `from_ns`.
    fn answer(&mut self, call: Key, from_ns: u64, failure: Option<Failure>) {
        let reason = failure.and_then(|failure| FAILURES.iter().position(|f| *f == failure)).map(|idx| idx as Reason);
        let back_ns = self.streams.work.around_ns(self.network_ms);
        self.schedule(from_ns + back_ns, Event::Answer(call, reason));
    }

    /// A caller has its answer, or no more patience. Whichever comes second finds the call gone.
    fn answered(&mut self, key: Key, failure: Option<Failure>) {
        let Some(pending) = self.calls.remove(key) else { return };
        let Some(call) = self.planned_call(pending.visit, pending.slot) else { return };
        self.client_span(&pending, call, failure);
        if let Some(failure) = failure {
            let retry = pending.attempt < call.n_retries && failure.worth_a_retry();
            self.complain(&pending, call, failure, retry);
            if retry {
                let (visit, slot, attempt) = (pending.visit, pending.slot, pending.attempt + 1);
                return self.schedule(self.now_ns + self.retry_pause_ns, Event::Attempt { visit, slot, attempt });
            }
        }
        let Some(visit) = self.visits.get_mut(pending.visit) else { return };
        if failure.is_some() && call.on_failure == OnFailure::Fail {
            visit.failure = Some(if failure == Some(Failure::Timeout) { Failure::Timeout } else { Failure::Upstream });
        }
        visit.n_pending -= 1;
        if visit.n_pending > 0 {
            return;
        }
        match visit.failure {
            Some(failure) => self.finish(pending.visit, Some(failure)),
            None => {
                visit.step += 1;
                self.walk(pending.visit);
            }
        }
    }

    /// Ends a visit and answers its caller.
    fn finish(&mut self, key: Key, failure: Option<Failure>) {
        let Some(visit) = self.visits.remove(key) else { return };
        let state = &mut self.services[self.plan.operations[visit.operation].service];
        state.settle(self.now_ns);
        state.n_present -= 1;
        state.stats.n_ended += 1;
        state.stats.n_failed += u64::from(failure.is_some());
        state.stats.visit_ns += u128::from(self.now_ns - visit.start_ns);
        let caller = visit.caller;
        self.server_span(visit, failure);
        if let Some(call) = caller {
            self.answer(call, self.now_ns, failure);
        }
    }
}
