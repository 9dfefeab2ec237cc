//! What both transports do with a request once they know what it is: decode, hand on, wait, count.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use faultline_core::{Ack, AckResult, Delivery, Outlet, OutletError, Position};
use tokio::sync::{Semaphore, oneshot};

use super::{
    OtlpConfig,
    body::{Budget, Compression, collect, inflate},
    refusal::Refusal,
};
use crate::{
    decode::{DecodeLimits, Decoded, Decoder, Encoding, OtlpSignal},
    source::counters,
};

/// Name of the source in positions.
pub(super) const SOURCE: &str = "otlp";
/// Grain of `max_inflight_bytes`.
pub(super) const BYTES_PER_PERMIT: usize = 1024;
/// Requests above this are decoded off the async threads.
const INLINE_BYTES: usize = 256 << 10;
/// The same for compressed ones, which become larger.
const INLINE_COMPRESSED_BYTES: usize = 32 << 10;
/// Decoders kept for reuse.
const MAX_IDLE_DECODERS: usize = 16;

/// The transport of a request, as in metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Grpc,
    Http,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What a request is, from its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) transport: Transport,
    pub(super) signal: OtlpSignal,
    pub(super) encoding: Encoding,
    pub(super) compression: Compression,
}

/// What the sender is told when its request was taken.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportResponse {
    /// Set only when some records were rejected.
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// The same message for all three signals but for the name of its first field, which only JSON shows.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

pub(super) struct Intake {
    outlet: Arc<dyn Outlet>,
    limits: DecodeLimits,
    max_request_bytes: usize,
    read_timeout: Duration,
    ack_timeout: Duration,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    decoders: Mutex<Vec<Decoder>>,
    n_records: AtomicU64,
    source: Arc<str>,
}

impl Intake {
    pub(super) fn new(config: &OtlpConfig, outlet: Arc<dyn Outlet>) -> Self {
        Self {
            outlet,
            limits: config.limits,
            max_request_bytes: config.max_request_bytes,
            read_timeout: Duration::from_millis(config.read_timeout_ms),
            ack_timeout: Duration::from_millis(config.ack_timeout_ms),
            requests: Arc::new(Semaphore::new(config.max_concurrent_requests)),
            bytes: Arc::new(Semaphore::new(config.max_inflight_bytes / BYTES_PER_PERMIT)),
            decoders: Mutex::new(Vec::new()),
            n_records: AtomicU64::new(0),
            source: SOURCE.into(),
        }
    }

    pub(super) fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    /// Takes one HTTP request, whose body is the message.
    pub(super) async fn take(self: &Arc<Self>, head: Head, body: Body) -> Result<ExportResponse, Refusal> {
        let limit = self.max_request_bytes;
        self.take_with(head, body, limit, |_| Ok(()), |body| Ok((body, head.compression))).await
    }

    /// Takes one request. `check` sees the body as it arrives; `unframe` cuts the message out of the whole of it.
    pub(super) async fn take_with(
        self: &Arc<Self>,
        head: Head,
        body: Body,
        limit: usize,
        check: impl Fn(&[u8]) -> Result<(), Refusal>,
        unframe: impl FnOnce(Vec<u8>) -> Result<(Vec<u8>, Compression), Refusal>,
    ) -> Result<ExportResponse, Refusal> {
        let outcome = self.try_take(head, body, limit, check, unframe).await;
        if let Err(refusal) = &outcome {
            self.count_refused_request(head.transport, refusal);
        }
        outcome
    }

    pub(super) fn count_refused_request(&self, transport: Transport, refusal: &Refusal) {
        counters::refused_request(transport.name(), refusal.reason());
        tracing::debug!(transport = transport.name(), %refusal, "OTLP request refused");
    }

    async fn try_take(
        self: &Arc<Self>,
        head: Head,
        body: Body,
        limit: usize,
        check: impl Fn(&[u8]) -> Result<(), Refusal>,
        unframe: impl FnOnce(Vec<u8>) -> Result<(Vec<u8>, Compression), Refusal>,
    ) -> Result<ExportResponse, Refusal> {
        let _request = self.requests.try_acquire().map_err(|_| Refusal::TooManyRequests)?;
        let mut budget = Budget::new(Arc::clone(&self.bytes));
        let body = tokio::time::timeout(self.read_timeout, collect(body, limit, &mut budget, check))
            .await
            .map_err(|_| Refusal::ReadTimeout)??;
        let (message, compression) = unframe(body)?;
        let received_unix_nano = now_unix_nano();
        let inline = if compression == Compression::None { INLINE_BYTES } else { INLINE_COMPRESSED_BYTES };
        let (decoded, _budget) = if message.len() <= inline {
            self.decode(head, message, compression, budget, received_unix_nano)?
        } else {
            let intake = Arc::clone(self);
            let work = move || intake.decode(head, message, compression, budget, received_unix_nano);
            tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Internal)??
        };
        self.deliver(head, decoded).await
    }

    fn decode(
        &self,
        head: Head,
        message: Vec<u8>,
        compression: Compression,
        mut budget: Budget,
        received_unix_nano: i64,
    ) -> Result<(Decoded, Budget), Refusal> {
        let message = inflate(message, compression, self.max_request_bytes, &mut budget)?;
        let idle = self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = idle.unwrap_or_else(|| Decoder::new(self.limits));
        let decoded = decoder.decode(head.signal, head.encoding, &message, received_unix_nano);
        let mut decoders = self.decoders.lock().unwrap_or_else(PoisonError::into_inner);
        if decoders.len() < MAX_IDLE_DECODERS {
            decoders.push(decoder);
        }
        drop(decoders);
        decoded.map(|decoded| (decoded, budget)).map_err(Refusal::Undecodable)
    }

    async fn deliver(&self, head: Head, decoded: Decoded) -> Result<ExportResponse, Refusal> {
        let Decoded { batch, rejects, n_rejected, caps } = decoded;
        let n_records = batch.n_records() as u64;
        let response =
            ExportResponse { partial_success: partial_success(head.signal, n_records, n_rejected, &rejects) };
        counters::capped(&caps);
        if n_records == 0 && n_rejected == 0 {
            return Ok(response);
        }
        counters::refused(head.signal, head.transport.name(), n_rejected);
        let offset = self.n_records.fetch_add(n_records, Ordering::Relaxed);
        let position = Position { source: Arc::clone(&self.source), offset, next: offset + n_records };
        let (answer, answered) = oneshot::channel();
        let ack = Ack::new(move |result| {
            // Nobody listens any more when the sender has given up.
            let _ = answer.send(result);
        });
        let outcome = match self.outlet.try_send(Delivery { batch, rejects, position, ack }) {
            Ok(()) => match tokio::time::timeout(self.ack_timeout, answered).await {
                Ok(Ok(AckResult::Done)) => Ok(response),
                Ok(_) => Err(Refusal::NotStored),
                Err(_) => Err(Refusal::AckTimeout),
            },
            Err(OutletError::Full(_)) => Err(Refusal::Full),
            Err(OutletError::Closed(_)) => Err(Refusal::Stopping),
        };
        let count = if outcome.is_ok() { counters::accepted } else { counters::refused };
        count(head.signal, head.transport.name(), n_records);
        outcome
    }
}

fn partial_success(
    signal: OtlpSignal,
    n_records: u64,
    n_rejected: u64,
    rejects: &[faultline_core::Reject],
) -> Option<PartialSuccess> {
    if n_rejected == 0 {
        return None;
    }
    let records = signal.records().replace('_', " ");
    let first = rejects.first().map_or("", |reject| reject.reason.as_str());
    let error_message = format!("{n_rejected} of {} {records} rejected; first: {first}", n_records + n_rejected);
    Some(PartialSuccess { rejected: i64::try_from(n_rejected).unwrap_or(i64::MAX), error_message })
}

fn now_unix_nano() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
