//! Station 7, what takes seconds: fits on threads of their own, while the detect station goes on.
//!
//! A first fit of log detectors holds their records back; one of metrics or traces leaves its windows unjudged; one on recent
//! sessions runs beside the models in service. A thread each; a fit that panics ends the station.

use std::thread::JoinHandle;

use faultline_detectors::{
    Telemetry,
    adaptation::Shadows,
    lifecycle::{Fitted, Monitor},
    telemetry::LaneFitted,
};

use crate::pipeline::Progress;

/// Fits that run beside the service.
#[derive(Default)]
pub struct Fits {
    /// The first fit of the detectors of logs.
    pub logs: Option<JoinHandle<Fitted>>,
    telemetry: Vec<JoinHandle<LaneFitted>>,
    shadows: Option<JoinHandle<Shadows>>,
}

impl Fits {
    /// Begins what is due and takes what is done; `true` when a first fit of log detectors begins.
    pub fn begin(
        &mut self,
        logs: &mut Monitor,
        telemetry: &mut Telemetry,
        progress: &Progress,
    ) -> anyhow::Result<bool> {
        let run = |name: &str| std::thread::Builder::new().name(format!("faultline-{name}"));
        let due = logs.begin_fit();
        let has_begun = due.is_some();
        if let Some(job) = due {
            tracing::info!("the warm-up is over; the detectors are being fitted");
            self.logs = Some(run("fit").spawn(|| job.run())?);
        }
        for job in telemetry.begin_fits() {
            self.telemetry.push(run("fit").spawn(|| job.run())?);
        }
        for done in self.telemetry.extract_if(.., |running| running.is_finished()) {
            conclude_lane(done, telemetry, progress)?;
        }
        // Service goes on beside a fit on recent sessions.
        match self.shadows.take() {
            Some(running) if running.is_finished() => conclude_shadows(running, logs, progress)?,
            Some(running) => self.shadows = Some(running),
            None => {
                if let Some(job) = logs.begin_shadow_fit() {
                    self.shadows = Some(run("shadow").spawn(|| job.run())?);
                }
            }
        }
        Ok(has_begun)
    }

    /// Waits for all of them.
    pub fn finish(self, logs: &mut Monitor, telemetry: &mut Telemetry, progress: &Progress) -> anyhow::Result<()> {
        if let Some(running) = self.logs {
            conclude(running, logs, progress)?;
        }
        for running in self.telemetry {
            conclude_lane(running, telemetry, progress)?;
        }
        if let Some(running) = self.shadows {
            conclude_shadows(running, logs, progress)?;
        }
        Ok(())
    }
}

/// Waits for a fit and takes its models into service.
pub fn conclude(fit: JoinHandle<Fitted>, monitor: &mut Monitor, progress: &Progress) -> anyhow::Result<()> {
    let fitted = fit.join().map_err(|_| anyhow::anyhow!("fitting the detectors panicked"))?;
    monitor.conclude(fitted).iter().for_each(|event| progress.report(event));
    Ok(())
}

/// The same for detectors of metrics or traces.
fn conclude_lane(fit: JoinHandle<LaneFitted>, telemetry: &mut Telemetry, progress: &Progress) -> anyhow::Result<()> {
    let fitted = fit.join().map_err(|_| anyhow::anyhow!("fitting the detectors panicked"))?;
    telemetry.conclude(fitted).iter().for_each(|event| progress.report(event));
    Ok(())
}

/// Waits for a fit on recent sessions and lets its models wait for their promotion.
fn conclude_shadows(fit: JoinHandle<Shadows>, monitor: &mut Monitor, progress: &Progress) -> anyhow::Result<()> {
    let shadows = fit.join().map_err(|_| anyhow::anyhow!("fitting shadows panicked"))?;
    monitor.conclude_shadows(shadows).iter().for_each(|event| progress.report(event));
    Ok(())
}
