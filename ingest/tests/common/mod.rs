//! A running pair of OTLP servers and the ways a pipeline can behave behind them.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
};

use bytes::{BufMut, Bytes, BytesMut};
use faultline_core::{BoxFuture, Delivery, Outlet, OutletError};
use faultline_ingest::{GrpcConfig, HttpConfig, IngestError, OtlpConfig, OtlpServers};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;
use tower::ServiceExt;

/// What the pipeline does with a delivery.
#[derive(Clone, Copy, PartialEq)]
pub enum Behaviour {
    Accept,
    Fail,
    Full,
    Closed,
    /// Hands it to the test, unanswered.
    Hold,
}

pub struct Pipeline {
    behaviour: Behaviour,
    taken: Mutex<Vec<Delivery>>,
    held: Mutex<mpsc::Sender<Delivery>>,
}

impl Pipeline {
    pub fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }
}

impl Outlet for Pipeline {
    fn try_send(&self, mut delivery: Delivery) -> Result<(), OutletError> {
        match self.behaviour {
            Behaviour::Accept => {
                std::mem::replace(&mut delivery.ack, faultline_core::Ack::ignored()).done();
                self.taken.lock().unwrap().push(delivery);
            }
            Behaviour::Fail => delivery.ack.failed(),
            Behaviour::Full => return Err(OutletError::Full(Box::new(delivery))),
            Behaviour::Closed => return Err(OutletError::Closed(Box::new(delivery))),
            Behaviour::Hold => self.held.lock().unwrap().send(delivery).unwrap(),
        }
        Ok(())
    }

    fn send(&self, delivery: Delivery) -> BoxFuture<'_, Result<(), OutletError>> {
        Box::pin(async move { self.try_send(delivery) })
    }
}

pub struct Servers {
    pub runtime: Runtime,
    pub pipeline: Arc<Pipeline>,
    /// Deliveries of a pipeline that holds them.
    pub held: mpsc::Receiver<Delivery>,
    grpc: SocketAddr,
    http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<Result<(), IngestError>>>,
}

pub fn free_ports(config: OtlpConfig) -> OtlpConfig {
    let endpoint = || "127.0.0.1:0".to_owned();
    OtlpConfig { grpc: GrpcConfig { endpoint: endpoint() }, http: HttpConfig { endpoint: endpoint() }, ..config }
}

impl Servers {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::with(OtlpConfig::default(), behaviour)
    }

    pub fn with(config: OtlpConfig, behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sender, held) = mpsc::channel();
        let pipeline = Arc::new(Pipeline { behaviour, taken: Mutex::default(), held: Mutex::new(sender) });
        let servers = runtime.block_on(OtlpServers::bind(free_ports(config))).unwrap();
        let (grpc, http) = (servers.grpc_addr().unwrap(), servers.http_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = runtime.spawn(servers.serve(Arc::clone(&pipeline) as Arc<dyn Outlet>, async {
            let _ = stopped.await;
        }));
        Self { runtime, pipeline, held, grpc, http, stop: Some(stop), served: Some(served) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        self.runtime.block_on(endpoint.connect()).unwrap()
    }

    pub fn tell_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub fn join(&mut self) -> Result<(), IngestError> {
        let served = self.served.take().unwrap();
        self.runtime.block_on(served).unwrap()
    }

    /// A call made by hand: these headers, these bytes.
    pub fn raw_call(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> http::Response<tonic::body::Body> {
        let mut request = http::Request::post(format!("http://{}{path}", self.grpc)).header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(tonic::body::Body::new(http_body_util::Full::new(body))).unwrap();
        let channel = self.channel();
        self.runtime.block_on(async { channel.oneshot(request).await.unwrap() })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(served) = self.served.take() {
            let _ = self.runtime.block_on(served);
        }
    }
}

pub const LOGS_CALL: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A gRPC message with its prefix.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(flag);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// Status of a call that failed before its first message.
pub fn status_of(response: &http::Response<tonic::body::Body>) -> tonic::Status {
    tonic::Status::from_header_map(response.headers()).expect("a failed call has its status in the headers")
}

pub fn request(records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

pub fn record(body: &str) -> LogRecord {
    let value = Some(any_value::Value::StringValue(body.into()));
    LogRecord { time_unix_nano: 5, body: Some(AnyValue { value }), ..LogRecord::default() }
}

pub fn bad_record() -> LogRecord {
    LogRecord { trace_id: vec![1, 2, 3], ..record("bad") }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 3).unwrap()
}

pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

/// Sends one HTTP request and returns the answer whatever its status.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body).unwrap()).unwrap();
    let content_type = response.headers().get("content-type").map_or("", |value| value.to_str().unwrap()).to_owned();
    let headers = response.headers().clone();
    let status = response.status().as_u16();
    Answer { status, content_type, headers, body: response.body_mut().read_to_vec().unwrap() }
}

pub fn post(url: &str, content_type: &str, body: &[u8]) -> Answer {
    send("POST", url, &[("content-type", content_type)], body)
}
