//! Traces of a small application, and what its services did by the minute.

use std::sync::Arc;

use faultline_core::{CallName, ServiceEntry, ServiceWindow, SpanEntry, TraceWindow, Window, WindowKey};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::traces::{STREAM, ServiceConfig, ServiceStation, Shape};

const MICRO: i64 = 1_000;
const SECOND: i64 = 1_000_000_000;
const CLIENT: u8 = 3;
const SERVER: u8 = 2;

/// A call of a plan: which one makes it, the service called, and the microseconds that it takes there by itself.
type Call = (Option<usize>, &'static str, f64);

/// What the application does for a request.
const PLANS: [&[Call]; 2] = [
    &[(None, "gateway", 2_000.0), (Some(0), "cart", 5_000.0), (Some(1), "stock", 3_000.0)],
    &[
        (None, "gateway", 2_000.0),
        (Some(0), "checkout", 8_000.0),
        (Some(1), "stock", 3_000.0),
        (Some(1), "payment", 20_000.0),
        (Some(1), "mail", 4_000.0),
    ],
];

/// Microseconds that a call is under way.
const UNDER_WAY: f64 = 500.0;

/// One trace.
#[derive(Clone, Debug)]
pub struct TraceFixture {
    /// Its key, in the stream `traces`.
    pub key: WindowKey,
    /// Its spans; record ids count from 1.
    pub spans: Vec<SpanEntry>,
    /// Spans that were left out.
    pub n_dropped: u64,
    /// Names of the services and, in the same places, of what they do.
    pub services: Vec<Arc<str>>,
    /// See `services`.
    pub operations: Vec<Arc<str>>,
}

impl TraceFixture {
    /// A trace without spans.
    #[must_use]
    pub fn empty(trace: &str) -> Self {
        Self {
            key: WindowKey { stream: Arc::from(STREAM), session: Arc::from(trace) },
            spans: Vec::new(),
            n_dropped: 0,
            services: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// A trace of these spans: the index of the caller, service, start and duration in microseconds. The operation of a service
    /// is `do`.
    #[must_use]
    pub fn of(trace: &str, rows: &[(Option<u32>, &str, i64, i64)]) -> Self {
        let mut fixture = Self::empty(trace);
        for &(caller, service, start, duration) in rows {
            fixture.push(caller, service, "do", (start * MICRO, duration * MICRO));
        }
        fixture
    }

    /// Adds a span by its start and duration, nanoseconds; returns its index.
    pub fn push(&mut self, caller: Option<u32>, service: &str, operation: &str, time: (i64, i64)) -> u32 {
        let mut known = self.services.iter().zip(&self.operations);
        let place = known.position(|(one, other)| **one == *service && **other == *operation);
        let place = place.unwrap_or_else(|| {
            self.services.push(Arc::from(service));
            self.operations.push(Arc::from(operation));
            self.services.len() - 1
        });
        let idx = self.spans.len() as u32;
        self.spans.push(SpanEntry {
            start_unix_nano: time.0,
            duration_nanos: time.1,
            record: u64::from(idx) + 1,
            parent: caller.unwrap_or(SpanEntry::NO_PARENT),
            service: place as u32,
            operation: place as u32,
            kind: SERVER,
            is_error: false,
            is_orphan: false,
        });
        idx
    }

    /// The trace.
    #[must_use]
    pub fn trace(&self) -> TraceWindow<'_> {
        TraceWindow {
            key: &self.key,
            spans: &self.spans,
            n_dropped: self.n_dropped,
            services: &self.services,
            operations: &self.operations,
        }
    }

    /// The trace as a window.
    #[must_use]
    pub fn window(&self) -> Window<'_> {
        Window::Trace(self.trace())
    }
}

/// Lays out the calls of a plan as spans.
struct Layout<'a> {
    plan: &'a [Call],
    /// Microseconds that each call takes by itself, with what it calls, and under way.
    own: Vec<f64>,
    total: Vec<f64>,
    under_way: Vec<f64>,
    fixture: TraceFixture,
}

impl Layout<'_> {
    fn place(&mut self, call: usize, caller: Option<u32>, start: f64) {
        let plan = self.plan;
        let nanos = |micros: f64| (micros * MICRO as f64) as i64;
        let total = self.total[call];
        let span = self.fixture.push(caller, plan[call].1, "do", (nanos(start), nanos(total)));
        let mut at = start + self.own[call] / 2.0;
        for (child, &(_, service, _)) in plan.iter().enumerate().filter(|(_, called)| called.0 == Some(call)) {
            let under_way = self.under_way[child];
            let waited = under_way + self.total[child];
            let name = format!("call {service}");
            let client = self.fixture.push(Some(span), plan[call].1, &name, (nanos(at), nanos(waited)));
            self.fixture.spans[client as usize].kind = CLIENT;
            self.place(child, Some(client), at + under_way / 2.0);
            at += waited;
        }
    }
}

/// One trace of the application that starts at this time; `slow` says how much longer than usual each service takes.
fn trace_of(
    rng: &mut ChaCha8Rng,
    name: &str,
    start_nanos: i64,
    plan: &[Call],
    slow: impl Fn(&str) -> f64,
) -> TraceFixture {
    // The sum of a few draws is bell-shaped; its exponential has the long tail that times have.
    let mut noise = || (0.4 * ((0..6).map(|_| rng.random::<f64>()).sum::<f64>() - 3.0)).exp();
    let own: Vec<f64> = plan.iter().map(|call| call.2 * slow(call.1) * noise()).collect();
    let under_way: Vec<f64> = plan.iter().map(|_| UNDER_WAY * noise()).collect();
    let mut total = own.clone();
    for call in (1..plan.len()).rev() {
        if let Some(caller) = plan[call].0 {
            total[caller] += under_way[call] + total[call];
        }
    }
    let mut layout = Layout { plan, own, total, under_way, fixture: TraceFixture::empty(name) };
    layout.place(0, None, 0.0);
    layout.fixture.spans.iter_mut().for_each(|span| span.start_unix_nano += start_nanos);
    layout.fixture
}

/// `n` traces of an application of six services, one a second, of which each in turn with probability `share` is spoiled: one
/// service takes fifty times as long, a call fails before it has called others, or one is made that nobody knows. In the
/// order in which they start, each with whether it was spoiled.
#[must_use]
pub fn application(seed: u64, n: usize, share: f64) -> Vec<(TraceFixture, bool)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut record = 0;
    (0..n)
        .map(|idx| {
            let mut plan = PLANS[usize::from(rng.random_bool(0.5))].to_vec();
            let is_spoiled = rng.random_bool(share);
            let mut slow = "";
            if is_spoiled {
                match rng.random_range(0..3) {
                    0 => slow = plan[rng.random_range(1..plan.len())].1,
                    1 => plan.truncate(2),
                    _ => plan.push((Some(1), "audit", 1_000.0)),
                }
            }
            let start = idx as i64 * SECOND;
            let factor = |service: &str| if service == slow { 50.0 } else { 1.0 };
            let mut trace = trace_of(&mut rng, &format!("{seed:016x}{idx:016x}"), start, &plan, factor);
            for span in &mut trace.spans {
                record += 1;
                span.record = record;
            }
            (trace, is_spoiled)
        })
        .collect()
}

/// What one service did within one minute.
#[derive(Clone, Debug)]
pub struct ServiceFixture {
    /// Its key, in the stream `services`.
    pub key: WindowKey,
    /// Where the minute begins.
    pub start_unix_nano: i64,
    /// The times.
    pub entries: Vec<ServiceEntry>,
    /// Traces that touched the service.
    pub n_traces: u64,
    /// Names of operations and calls.
    pub names: Vec<CallName>,
}

impl ServiceFixture {
    /// Nanoseconds of a step.
    pub const STEP_NANOS: i64 = 60 * SECOND;

    /// The minute as a window.
    #[must_use]
    pub fn window(&self) -> Window<'_> {
        Window::Service(ServiceWindow {
            key: &self.key,
            start_unix_nano: self.start_unix_nano,
            step_nanos: Self::STEP_NANOS,
            entries: &self.entries,
            n_traces: self.n_traces,
            names: &self.names,
            service: &self.key.session,
        })
    }

    /// An owned copy of a window.
    #[must_use]
    pub fn of(window: &ServiceWindow<'_>) -> Self {
        Self {
            key: window.key.clone(),
            start_unix_nano: window.start_unix_nano,
            entries: window.entries.to_vec(),
            n_traces: window.n_traces,
            names: window.names.to_vec(),
        }
    }
}

/// `n` minutes, from `first` on, of the application's services with sixty requests each. In each in turn with probability
/// `share` the stock takes ten times as long. By minute and service, each with whether it was slow.
///
/// # Panics
/// Never: the station's defaults are valid.
#[must_use]
pub fn service_minutes(seed: u64, first: i64, n: usize, share: f64) -> Vec<(ServiceFixture, bool)> {
    const SLOW: &str = "stock";
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut station = ServiceStation::new(ServiceConfig::default()).expect("the defaults are valid");
    let (mut shape, mut fixtures) = (Shape::default(), Vec::new());
    for minute in (first..).take(n) {
        let is_slow = rng.random_bool(share);
        for request in 0..60 {
            let start = minute * ServiceFixture::STEP_NANOS + request * SECOND / 2;
            let plan = PLANS[usize::from(rng.random_bool(0.5))];
            let factor = |service: &str| if is_slow && service == SLOW { 10.0 } else { 1.0 };
            let trace = trace_of(&mut rng, &format!("{minute:016x}{request:016x}"), start, plan, factor);
            shape.measure(&trace.trace());
            station.push(&trace.trace(), &shape);
        }
        station.finish();
        fixtures.extend(station.ready().iter().filter_map(Window::as_service).map(|window| {
            let is_slow = is_slow && &*window.key.session == SLOW;
            (ServiceFixture::of(window), is_slow)
        }));
        station.settle();
    }
    fixtures
}
