//! Receives OTLP over gRPC and HTTP (stations 1 and 2).
//!
//! Bind first, then serve: [`OtlpServers::bind`] reports the addresses it got (port 0 picks a free one), then
//! [`OtlpServers::serve`] hands every request on as a `Delivery` and answers success only after its acknowledgement. Both
//! transports share one `intake`: the same size cap, which holds while inflating, the same bound on requests and bytes
//! in flight, the same way of saying "come back later".
//!
//! | | HTTP | gRPC |
//! |---|---|---|
//! | undecodable, bad compression | 400 | `INVALID_ARGUMENT` |
//! | larger than `max_request_bytes`, before or after inflating | 413 | `RESOURCE_EXHAUSTED`, no RetryInfo |
//! | the pipeline is full | 429, Retry-After | `UNAVAILABLE`, RetryInfo |
//! | too much in flight, not acknowledged, shutting down | 503, Retry-After | `UNAVAILABLE`, RetryInfo |
//! | unknown content type or encoding | 415 | HTTP 415; `UNIMPLEMENTED` |
//!
//! Cost: one copy of the body; requests above 256 KiB are inflated and decoded off the async threads. It fails to start
//! on an address that is taken or a key that makes no sense; after that only when the listener itself does.

mod body;
mod grpc;
mod http;
mod intake;
mod refusal;

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use faultline_core::{BoxFuture, Classified, Outlet, Source, SourceError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch};

use self::intake::Intake;
use crate::{
    decode::{DecodeLimits, MAX_NESTING},
    error::IngestError,
};

/// Section `ingest.otlp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// The gRPC listener.
    pub grpc: GrpcConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// Bytes that one request may have, as received and after inflating; larger ones are refused for good (413,
    /// `RESOURCE_EXHAUSTED`). Default 64 MiB as OTLP recommends, at most 256 MiB.
    pub max_request_bytes: usize,
    /// Bytes that all requests in flight may have together, compressed and inflated; beyond that senders are told to
    /// come back. Raise it with many large senders, lower it on a small machine. Default 256 MiB, at least twice
    /// `max_request_bytes`.
    pub max_inflight_bytes: usize,
    /// Requests handled at the same time; beyond that senders are told to come back. Default 256.
    pub max_concurrent_requests: usize,
    /// How long a sender may take to send one request, in milliseconds. Default 30,000.
    pub read_timeout_ms: u64,
    /// How long to wait for the pipeline to take responsibility for a request, in milliseconds, before the sender is told
    /// to try again. Keep it below the sender's own timeout (10 s in the OpenTelemetry SDKs). Default 8,000.
    pub ack_timeout_ms: u64,
    /// How long requests in flight may take to finish after a stop, in milliseconds. Default 10,000.
    pub drain_timeout_ms: u64,
    /// Caps on what one record may hold.
    pub limits: DecodeLimits,
}

/// Section `ingest.otlp.grpc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Host and port to listen on; port 0 picks a free one, an empty text turns gRPC off. Default `127.0.0.1:4317`.
    pub endpoint: String,
}

/// Section `ingest.otlp.http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Host and port to listen on; port 0 picks a free one, an empty text turns HTTP off. Default `127.0.0.1:4318`.
    pub endpoint: String,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self { endpoint: "127.0.0.1:4317".into() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { endpoint: "127.0.0.1:4318".into() }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            grpc: GrpcConfig::default(),
            http: HttpConfig::default(),
            max_request_bytes: 64 << 20,
            max_inflight_bytes: 256 << 20,
            max_concurrent_requests: 256,
            read_timeout_ms: 30_000,
            ack_timeout_ms: 8_000,
            drain_timeout_ms: 10_000,
            limits: DecodeLimits::default(),
        }
    }
}

/// Text columns count bytes in 32 bits, and JSON text of attributes can be six times the request.
const MAX_REQUEST_BYTES: usize = 256 << 20;

impl OtlpConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Names the first key whose value cannot work.
    pub fn validate(&self) -> Result<(), IngestError> {
        let wrong = |key, reason: &str| Err(IngestError::Config { key, reason: reason.into() });
        if !(1024..=MAX_REQUEST_BYTES).contains(&self.max_request_bytes) {
            return wrong("ingest.otlp.max_request_bytes", "must be between 1 KiB and 256 MiB");
        }
        if self.max_inflight_bytes < 2 * self.max_request_bytes {
            return wrong("ingest.otlp.max_inflight_bytes", "must be at least twice max_request_bytes");
        }
        if self.max_inflight_bytes / intake::BYTES_PER_PERMIT > u32::MAX as usize {
            return wrong("ingest.otlp.max_inflight_bytes", "must be below 4 TiB");
        }
        if !(1..=100_000).contains(&self.max_concurrent_requests) {
            return wrong("ingest.otlp.max_concurrent_requests", "must be between 1 and 100,000");
        }
        if !(1..=MAX_NESTING).contains(&self.limits.max_nesting) {
            return wrong("ingest.otlp.limits.max_nesting", "must be between 1 and 128");
        }
        if !(1..=10_000_000).contains(&self.limits.max_records) {
            return wrong("ingest.otlp.limits.max_records", "must be between 1 and 10,000,000");
        }
        Ok(())
    }
}

/// The bound listeners.
#[derive(Debug)]
pub struct OtlpServers {
    config: OtlpConfig,
    grpc: Option<(TcpListener, SocketAddr)>,
    http: Option<(TcpListener, SocketAddr)>,
}

impl OtlpServers {
    /// Binds both listeners; nothing is accepted yet.
    ///
    /// # Errors
    /// Names the key whose value cannot work.
    pub async fn bind(config: OtlpConfig) -> Result<Self, IngestError> {
        config.validate()?;
        let grpc = listen("ingest.otlp.grpc.endpoint", &config.grpc.endpoint).await?;
        let http = listen("ingest.otlp.http.endpoint", &config.http.endpoint).await?;
        Ok(Self { config, grpc, http })
    }

    /// Where gRPC is listened for; `None` when it is off.
    #[must_use]
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|(_, addr)| *addr)
    }

    /// Where HTTP is listened for; `None` when it is off.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, addr)| *addr)
    }

    /// Serves until `stop` resolves and the requests in flight are done, or `drain_timeout_ms` after it.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn serve(
        self,
        outlet: Arc<dyn Outlet>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), IngestError> {
        let drain_timeout = Duration::from_millis(self.config.drain_timeout_ms);
        let intake = Arc::new(Intake::new(&self.config, outlet));
        let (stop_sender, stopped) = watch::channel(false);
        let mut servers = pin!(async {
            tokio::try_join!(
                grpc::serve(self.grpc, Arc::clone(&intake), wait_for(stopped.clone())),
                http::serve(self.http, Arc::clone(&intake), wait_for(stopped.clone())),
            )
        });
        tokio::select! {
            outcome = &mut servers => return outcome.map(drop),
            () = stop => {}
        }
        stop_sender.send_replace(true);
        match tokio::time::timeout(drain_timeout, servers).await {
            Ok(outcome) => outcome.map(drop),
            Err(_) => {
                tracing::warn!(?drain_timeout, "OTLP requests were still in flight at the end of the drain");
                Ok(())
            }
        }
    }
}

async fn wait_for(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever would have said stop.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

async fn listen(key: &'static str, endpoint: &str) -> Result<Option<(TcpListener, SocketAddr)>, IngestError> {
    if endpoint.is_empty() {
        return Ok(None);
    }
    let failed = |cause| IngestError::Bind { key, endpoint: endpoint.into(), cause };
    let listener = TcpListener::bind(endpoint).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    if !addr.ip().is_loopback() {
        tracing::warn!(%addr, key, "OTLP is accepted from other machines, without authentication");
    }
    Ok(Some((listener, addr)))
}

impl Source for OtlpServers {
    fn name(&self) -> &'static str {
        intake::SOURCE
    }

    fn run<'a>(
        self: Box<Self>,
        outlet: Arc<dyn Outlet>,
        stop: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<(), SourceError>>
    where
        Self: 'a,
    {
        Box::pin(async move {
            self.serve(outlet, stop).await.map_err(|error| SourceError {
                name: intake::SOURCE.into(),
                operation: "serving OTLP".into(),
                domain: error.domain(),
                cause: Some(Box::new(error)),
            })
        })
    }
}
