//! `faultline demo`: a small web shop speaks real OTLP to a real pipeline, something in it breaks, and the incident names
//! the culprit. Nothing is staged: the shop is simulated, but everything from the socket on is the product.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use faultline_core::{Alert, AlertId, Incident, RecordId, Sink};
use faultline_detectors::lifecycle::Monitor;
use faultline_simulator::{Fault, FaultKind, Simulation, shop};

use crate::{
    commands::run::Service,
    config::Config,
    evidence,
    exit::{self, Exit},
    out::outln,
    speak::Speaker,
};

/// How often the shop's telemetry is shipped, as an exporter's batch timer would.
const SHIP: Duration = Duration::from_millis(200);
/// Within this time after the injection the incident must name the culprit.
const LIMIT: Duration = Duration::from_secs(20);

/// False alerts that are printed; the rest is counted.
const SHOWN: usize = 10;

/// Arguments of `faultline demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Service that breaks.
    #[arg(long, default_value = "inventory")]
    service: String,
    /// How it breaks.
    #[arg(long, value_enum, default_value = "delay")]
    fault: Kind,
    /// Seed of the simulated shop and of the detectors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Minutes of the shop's past that are sent first, for the detectors to learn from.
    #[arg(long, value_name = "MINUTES", default_value_t = 5)]
    past: u64,
    /// Seconds of quiet, live traffic before the fault.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    quiet: u64,
    /// Keep the data directory, to look at with `faultline query`; otherwise it is deleted.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Go on serving the REST interface after the incident, until interrupted.
    #[arg(long)]
    stay: bool,
}

/// How a service breaks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// It answers late.
    Delay,
    /// It throws.
    Exception,
    /// It refuses connections.
    Unavailable,
    /// Something eats its processor.
    CpuHog,
}

impl From<Kind> for FaultKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Delay => Self::Delay,
            Kind::Exception => Self::Exception,
            Kind::Unavailable => Self::Unavailable,
            Kind::CpuHog => Self::CpuHog,
        }
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("making a temporary data directory")?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| scratch.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(play(args, &data_dir))
}

async fn play(args: &Args, data_dir: &std::path::Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let say = |text: String| outln!("[{:5.1} s] {text}", started.elapsed().as_secs_f64());

    let config = config(args)?;
    let (sink, news) = NewsSink::new();
    let monitor = Monitor::new(config.monitor())?;
    let service = Service::start(&config, data_dir, monitor, vec![Box::new(sink)]).await?;
    let progress = service.pipeline.progress();
    let otlp = service.addresses.otlp_grpc.context("the demo needs ingest.otlp.grpc")?;
    say(format!("faultline listens for OTLP on {otlp} and answers on http://{}", service.addresses.api));

    // The shop's past: virtual zero lies `past` minutes ago, so that event times are true when live traffic begins.
    let past = Duration::from_secs(60 * args.past);
    let epoch = SystemTime::now() - past;
    let epoch_ns = u64::try_from(epoch.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())?;
    let now_ns = || u64::try_from(epoch.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    let mut shop = Simulation::new(&shop::config(), args.seed)?;
    let mut speaker = Speaker::connect(otlp, epoch_ns).await?;
    say(format!(
        "a web shop of {} services sends the last {} minutes of its telemetry",
        shop.services().count(),
        args.past
    ));
    let mut at_ns = 0;
    while at_ns < u64::try_from(past.as_nanos())? {
        at_ns += 2_000_000_000;
        speaker.send(&shop.advance_to(at_ns)).await?;
    }
    while progress.warm_up() < 1.0 {
        if started.elapsed() > Duration::from_secs(120) {
            bail!("the detectors did not finish warming up: {:.0} %", 100.0 * progress.warm_up());
        }
        tokio::time::sleep(SHIP).await;
        speaker.send(&shop.advance_to(now_ns())).await?;
    }
    say(format!("fitted: {}", progress.fitted().join(", ")));

    say(format!("live traffic, {} s in which nothing should happen", args.quiet));
    let quiet_until = Instant::now() + Duration::from_secs(args.quiet);
    while Instant::now() < quiet_until {
        tokio::time::sleep(SHIP).await;
        speaker.send(&shop.advance_to(now_ns())).await?;
    }
    let before: Vec<News> = news.try_iter().collect();
    // An alert is published again when it grows.
    let false_alerts: BTreeMap<AlertId, &Alert> =
        before.iter().flat_map(|news| &news.alerts).map(|alert| (alert.id, alert)).collect();

    let kind = FaultKind::from(args.fault);
    let fault = Fault {
        service: args.service.clone(),
        kind,
        from_ns: now_ns(),
        until_ns: u64::MAX,
        severity: kind.typical_severity(),
    };
    shop.inject(fault).map_err(|error| Exit::new(exit::USAGE, error.to_string()))?;
    say(format!("fault injected: {} ({})", args.service, kind.name()));

    let injected = Instant::now();
    let verdict = loop {
        tokio::time::sleep(SHIP).await;
        speaker.send(&shop.advance_to(now_ns())).await?;
        let found = news
            .try_iter()
            .flat_map(|news| news.incidents)
            .find(|incident| incident.causes.first().is_some_and(|cause| cause.name == args.service));
        if let Some(incident) = found {
            break Some((incident, injected.elapsed()));
        }
        if injected.elapsed() > LIMIT {
            break None;
        }
    };

    let address = service.addresses.api;
    if let Some((incident, after)) = &verdict {
        say(format!("incident {}, {:.1} s after the injection", incident.id, after.as_secs_f64()));
        print_incident(incident, &service, address)?;
    } else {
        say(format!("no incident named {} within {} s", args.service, LIMIT.as_secs()));
    }
    say(format!("false alerts before the injection: {}", false_alerts.len()));
    for alert in false_alerts.values().take(SHOWN) {
        outln!("          {} {} {}: {}", alert.id, alert.detector, alert.service, alert.evidence.summary);
    }
    if args.stay {
        say(format!("still serving on http://{address}; stop with Ctrl-C"));
        tokio::signal::ctrl_c().await?;
    }
    service.stop().await?;
    if verdict.is_none() || !false_alerts.is_empty() {
        return Err(Exit::new(exit::INTERNAL, "the demo did not show what it should").into());
    }
    Ok(())
}

fn print_incident(incident: &Incident, service: &Service, address: std::net::SocketAddr) -> anyhow::Result<()> {
    outln!("          {}", incident.summary);
    for (rank, cause) in incident.causes.iter().take(3).enumerate() {
        outln!(
            "          {}. {} (confidence {:.0} %, by {})",
            rank + 1,
            cause.name,
            100.0 * cause.confidence,
            cause.localizer
        );
        for line in &cause.evidence {
            outln!("               {line}");
        }
    }
    outln!("          {} alerts in {}", incident.alerts.len(), incident.services.join(", "));
    for id in incident.alerts.iter().take(2) {
        let Some(alert) = service.store.alert(*id)? else { continue };
        outln!(
            "          alert {} by {} (p = {:.1e}): {}",
            alert.id,
            alert.detector,
            alert.p_value,
            alert.evidence.summary
        );
        let records = service.store.records_behind(&alert)?;
        let is_culprit = |record: RecordId| alert.evidence.culprit == Some(record);
        for line in records.lines.iter().filter(|line| is_culprit(line.record_id)) {
            outln!("               {} | {}", line.service, line.raw);
        }
        for (_, text) in evidence::texts(&records).filter(|(record, _)| is_culprit(*record)) {
            outln!("               {text}");
        }
    }
    outln!("          http://{address}/api/v1/incidents/{}", incident.id);
    Ok(())
}

/// The defaults, on free ports, with a warm-up that fits the shop's past.
fn config(args: &Args) -> anyhow::Result<Config> {
    let mut config = Config::default();
    config.ingest.otlp.grpc.endpoint = "127.0.0.1:0".into();
    config.ingest.otlp.http.endpoint = "127.0.0.1:0".into();
    config.api.endpoint = "127.0.0.1:0".into();
    config.detection.seed = args.seed;
    // The past is short: what services do by the minute is learned from most of it instead of from an hour.
    config.detection.warm_up.sessions = Some(3_400);
    config.detection.warm_up.span_ms = Some(args.past * 60_000 * 4 / 5);
    Ok(config)
}

/// What was published at once.
struct News {
    alerts: Vec<Alert>,
    incidents: Vec<Incident>,
}

/// Hands what is published to the demo.
struct NewsSink(mpsc::Sender<News>);

impl NewsSink {
    fn new() -> (Self, mpsc::Receiver<News>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }
}

impl Sink for NewsSink {
    fn name(&self) -> &'static str {
        "demo"
    }

    fn publish(
        &mut self,
        alerts: &[Alert],
        incidents: &[Incident],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // A demo that has ended listens no more; that is no failure of the pipeline.
        let _ = self.0.send(News { alerts: alerts.to_vec(), incidents: incidents.to_vec() });
        Ok(())
    }
}
