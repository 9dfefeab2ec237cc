//! `faultline run`: receive, detect, explain, serve; until a signal says stop.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context;
use faultline_api::{ApiState, Operator, Readiness};
use faultline_core::Sink;
use faultline_detectors::{lifecycle::Monitor, model::Artifact};
use faultline_ingest::OtlpServers;
use faultline_store::Store;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    commands::ConfigArgs,
    config::Config,
    exit::{self, Exit},
    pipeline::{Feed, Pipeline, Progress},
};

/// How long a stop may take before what is left in the pipeline is given up.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Arguments of `faultline run`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where records, alerts and incidents are kept.
    #[arg(long, value_name = "DIR", default_value = "faultline-data")]
    data_dir: PathBuf,
    /// Fitted detectors from `faultline fit`; without them the detectors warm up on what comes in.
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let monitor = monitor(&config, args.models.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = Service::start(&config, &args.data_dir, monitor, Vec::new()).await?;
        tracing::info!(
            event = "ready",
            api = %service.addresses.api,
            otlp_grpc = %shown(service.addresses.otlp_grpc),
            otlp_http = %shown(service.addresses.otlp_http),
            "ready"
        );
        let code = stop_signal().await?;
        tracing::info!(event = "stopping", "stopping: no more telemetry is accepted, the pipeline drains");
        service.stop().await?;
        std::process::exit(code)
    })
}

/// The detectors: loaded where artifacts are given, else cold.
pub fn monitor(config: &Config, models: Option<&std::path::Path>) -> anyhow::Result<Monitor> {
    let Some(path) = models else { return Ok(Monitor::new(config.monitor())?) };
    let bytes = std::fs::read(path).with_context(|| format!("reading models from {}", path.display()))?;
    let artifacts: Vec<Artifact> =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not a models file", path.display()))?;
    Ok(Monitor::from_artifacts(&artifacts, config.alerting.clone())?.adapting(config.monitor().adaptation)?)
}

/// Where a running service listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub api: std::net::SocketAddr,
    /// `None` when `ingest.otlp.grpc.endpoint` is empty: the receiver is off.
    pub otlp_grpc: Option<std::net::SocketAddr>,
    /// `None` when `ingest.otlp.http.endpoint` is empty.
    pub otlp_http: Option<std::net::SocketAddr>,
}

/// Receivers, pipeline and REST interface of one process.
pub struct Service {
    pub addresses: Addresses,
    pub store: Store,
    pub pipeline: Pipeline,
    stop: watch::Sender<bool>,
    receivers: tokio::task::JoinHandle<anyhow::Result<()>>,
    api: tokio::task::JoinHandle<Result<(), faultline_api::ApiError>>,
}

impl Service {
    /// Binds every listener, then starts the pipeline; nothing is accepted before everything is there.
    pub async fn start(
        config: &Config,
        data_dir: &std::path::Path,
        monitor: Monitor,
        sinks: Vec<Box<dyn Sink>>,
    ) -> anyhow::Result<Self> {
        let metrics = faultline_api::install_metrics(env!("CARGO_PKG_VERSION"))?;
        faultline_ingest::describe_metrics();
        let servers = OtlpServers::bind(config.ingest.otlp.clone())
            .await
            .map_err(|error| Exit::new(exit::UNAVAILABLE, format!("{:#}", anyhow::Error::new(error))))?;
        let listener = TcpListener::bind(&config.api.endpoint).await.map_err(|error| {
            Exit::new(exit::UNAVAILABLE, format!("cannot listen on api.endpoint {}: {error}", config.api.endpoint))
        })?;
        let addresses =
            Addresses { api: listener.local_addr()?, otlp_grpc: servers.grpc_addr(), otlp_http: servers.http_addr() };
        if !addresses.api.ip().is_loopback() {
            tracing::warn!(address = %addresses.api, "api.endpoint lets others read everything: there is no authentication yet");
        }

        let store = Store::open(data_dir, config.storage.clone())
            .with_context(|| format!("opening the data directory {}", data_dir.display()))?;
        let pipeline = Pipeline::start(config, &store, monitor, Feed::Live, sinks)?;
        let readiness = Readiness::default();
        let orders = pipeline.orders();
        let operator: Operator = Arc::new(move |detector, order| {
            orders.lock().unwrap_or_else(PoisonError::into_inner).push((detector.to_owned(), order));
        });
        let state = ApiState { store: store.clone(), readiness: readiness.clone(), metrics, operator: Some(operator) };

        let (stop, stopped) = watch::channel(false);
        let outlet = pipeline.outlet();
        let receivers = tokio::spawn({
            let stopped = stopped.clone();
            async move { Ok(servers.serve(outlet, wait(stopped)).await?) }
        });
        let api = tokio::spawn(faultline_api::serve(listener, faultline_api::router(state), wait(stopped.clone())));
        tokio::spawn(report_readiness(Arc::clone(&pipeline.progress()), readiness, stopped));
        Ok(Self { addresses, store, pipeline, stop, receivers, api })
    }

    /// Stops the receivers, lets the pipeline drain, then stops answering.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.receivers.await.context("the receivers panicked")??;
        let drained = tokio::task::spawn_blocking(move || self.pipeline.drain());
        tokio::time::timeout(DRAIN_LIMIT, drained)
            .await
            .map_err(|_| Exit::new(exit::INTERNAL, format!("the pipeline did not drain within {DRAIN_LIMIT:?}")))?
            .context("the pipeline panicked")??;
        self.api.await.context("the API panicked")??;
        Ok(())
    }
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn shown(address: Option<std::net::SocketAddr>) -> String {
    address.map_or_else(|| "off".to_owned(), |address| address.to_string())
}

/// Keeps `/readyz` in step with the warm-up. Warming up is ready: telemetry is taken, and the answer says how far it is.
async fn report_readiness(progress: Arc<Progress>, readiness: Readiness, stopped: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(Duration::from_millis(250));
    let mut stopped = std::pin::pin!(wait(stopped));
    loop {
        tokio::select! {
            _ = interval.tick() => match progress.warm_up() {
                done if done < 1.0 => readiness.note("detectors", format!("warming up, {:.0} %", 100.0 * done)),
                _ => readiness.clear("detectors"),
            },
            () = &mut stopped => break,
        }
    }
    readiness.hold("process", "stopping");
}

/// Waits for SIGINT or SIGTERM and returns the exit code that tells which.
async fn stop_signal() -> anyhow::Result<i32> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    })
}
