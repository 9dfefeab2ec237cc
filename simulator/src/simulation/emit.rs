//! The simulation's voice: what visits and services write down as they go.

use std::sync::Arc;

use super::{PendingCall, Simulation, THROTTLE_WARNING_NS, Visit};
use crate::{
    config::{OnFailure, Speech},
    fault::FaultKind,
    plan::PlannedCall,
    simulation::Event,
    slab::Key,
    speech::{Facts, Failure, operation_attributes},
    telemetry::{Attribute, SimLog, SimSpan, SpanKind, SpanStatus, Value},
};

impl Simulation {
    /// What a caller writes about a call that failed.
    pub(super) fn complain(&mut self, pending: &PendingCall, call: PlannedCall, failure: Failure, retry: bool) {
        let plan = Arc::clone(&self.plan);
        let callee = &plan.operations[call.operation];
        let what = failure.told_by_caller(self.now_ns - pending.start_ns);
        let (peer, operation) = (&plan.services[callee.service].name, &callee.name);
        let (severity_number, body) = if retry {
            (13, format!("call to {peer} failed: {what}, retrying {operation}"))
        } else if call.on_failure == OnFailure::Continue {
            (13, format!("going on without {peer}: {operation} failed: {what}"))
        } else {
            (17, format!("request failed: {peer} did not answer {operation}: {what}"))
        };
        let attributes = vec![("error.type", Value::Text(failure.error_type().into()))];
        self.log(pending.visit, severity_number, body, attributes);
    }

    /// What a caller says about a call that has ended.
    pub(super) fn client_span(&mut self, pending: &PendingCall, call: PlannedCall, failure: Option<Failure>) {
        if self.speech == Speech::Silent {
            return;
        }
        let Some(visit) = self.visits.get_mut(pending.visit) else { return };
        let callee = &self.plan.operations[call.operation];
        let caller = &self.plan.operations[visit.operation];
        let mut attributes = operation_attributes(&callee.name);
        let peer = self.plan.services[callee.service].name.to_string();
        attributes.push(("server.address", Value::Text(peer.into())));
        if failure.is_none_or(|failure| !matches!(failure, Failure::Timeout | Failure::Refused)) {
            push_status(&mut attributes, failure);
        } else if let Some(failure) = failure {
            attributes.push(("error.type", Value::Text(failure.error_type().into())));
        }
        let elapsed_ns = self.now_ns - pending.start_ns;
        self.telemetry.spans.push(SimSpan {
            trace_id: visit.trace_id,
            span_id: pending.span_id,
            parent_span_id: Some(visit.span_id),
            name: Arc::clone(&callee.name),
            kind: SpanKind::Client,
            service: Arc::clone(&self.plan.services[caller.service].name),
            start_ns: pending.start_ns,
            end_ns: self.now_ns,
            status: status(failure),
            status_message: failure.map(|failure| failure.told_by_caller(elapsed_ns)).unwrap_or_default(),
            attributes,
            events: Vec::new(),
        });
    }

    /// What a service says about a visit that has ended.
    pub(super) fn server_span(&mut self, visit: Visit, failure: Option<Failure>) {
        if self.speech == Speech::Silent {
            return;
        }
        let operation = &self.plan.operations[visit.operation];
        let mut attributes = operation_attributes(&operation.name);
        push_status(&mut attributes, failure);
        let message = failure.map(|failure| match failure {
            Failure::Overloaded => "queue is full",
            Failure::Exception => "unhandled exception",
            Failure::Timeout | Failure::Refused | Failure::Upstream => "a call failed",
        });
        self.telemetry.spans.push(SimSpan {
            trace_id: visit.trace_id,
            span_id: visit.span_id,
            parent_span_id: visit.parent_span_id,
            name: Arc::clone(&operation.name),
            kind: SpanKind::Server,
            service: Arc::clone(&self.plan.services[operation.service].name),
            start_ns: visit.start_ns,
            end_ns: self.now_ns,
            status: status(failure),
            status_message: message.unwrap_or_default().into(),
            attributes,
            events: visit.exception.into_iter().collect(),
        });
    }

    /// Writes what a service writes by the clock.
    pub(super) fn background(&mut self, service: u32, entry: u32) {
        let plan = Arc::clone(&self.plan);
        let planned = &plan.services[service as usize];
        let (period_ns, _, words) = &planned.background[entry as usize];
        self.schedule(self.now_ns + period_ns, Event::Background { service, entry });
        // A service whose every instance is dead says nothing.
        if self.severity(service as usize, FaultKind::Unavailable).is_none_or(|share| share < 1.0) {
            let elapsed_ns = self.streams.words.around_ns(4.0);
            let body = words.speak(&Facts::default(), elapsed_ns, &mut self.streams.words);
            self.log_by_the_clock(service as usize, words.severity_number, body);
        }
    }

    /// Writes a throttled service's warning.
    pub(super) fn throttled(&mut self, idx: u32) {
        let (service, fault) = &self.faults[idx as usize];
        let service = *service;
        if self.now_ns < fault.until_ns {
            let percent = 90 + self.streams.words.below(10);
            let body = format!("cpu throttled: {percent} percent of the quota used over the last 2 seconds");
            self.log_by_the_clock(service, 13, body);
            self.schedule(self.now_ns + THROTTLE_WARNING_NS, Event::Throttled { fault: idx });
        }
    }

    fn log_by_the_clock(&mut self, service: usize, severity_number: u8, body: String) {
        let service = Arc::clone(&self.plan.services[service].name);
        let (time_ns, attributes) = (self.now_ns, Vec::new());
        self.telemetry.logs.push(SimLog { time_ns, severity_number, service, body, trace: None, attributes });
    }

    /// Writes a record from within a visit.
    pub(super) fn log(&mut self, visit: Key, severity_number: u8, body: String, attributes: Vec<Attribute>) {
        if self.speech == Speech::Silent {
            return;
        }
        let Some(visit) = self.visits.get_mut(visit) else { return };
        let service = Arc::clone(&self.plan.services[self.plan.operations[visit.operation].service].name);
        let trace = Some((visit.trace_id, visit.span_id));
        let time_ns = self.now_ns;
        self.telemetry.logs.push(SimLog { time_ns, severity_number, service, body, trace, attributes });
    }
}

fn status(failure: Option<Failure>) -> SpanStatus {
    if failure.is_some() { SpanStatus::Error } else { SpanStatus::Unset }
}

/// Status code for HTTP operations, and the error type where there is one.
fn push_status(attributes: &mut Vec<Attribute>, failure: Option<Failure>) {
    if attributes.iter().any(|(name, _)| *name == "http.route") {
        let code = failure.map_or(200, Failure::http_status);
        attributes.push(("http.response.status_code", Value::Int(code)));
    }
    if let Some(failure) = failure {
        attributes.push(("error.type", Value::Text(failure.error_type().into())));
    }
}
