//! The configuration with its names resolved to indices and its ranges checked once, so that the run cannot fail.

use std::sync::Arc;

use crate::{
    config::{Config, ConfigError, OnFailure, ServiceTime, Step},
    random::ms_to_ns,
    speech::Words,
};

pub(crate) struct Plan {
    pub services: Vec<PlannedService>,
    /// Operations of all services in one list.
    pub operations: Vec<PlannedOperation>,
    /// Cumulated weight and entry operation of each kind of request.
    pub requests: Vec<(f64, usize)>,
}

pub(crate) struct PlannedService {
    pub name: Arc<str>,
    pub n_servers: usize,
    pub queue_capacity: usize,
    /// Period, offset, words.
    pub background: Vec<(u64, u64, Words)>,
}

pub(crate) struct PlannedOperation {
    pub service: usize,
    pub name: Arc<str>,
    pub steps: Vec<PlannedStep>,
}

pub(crate) enum PlannedStep {
    Log(Words),
    Work(ServiceTime),
    Call(Vec<PlannedCall>),
}

#[derive(Clone, Copy)]
pub(crate) struct PlannedCall {
    pub operation: usize,
    pub probability: f64,
    pub timeout_ns: u64,
    pub n_retries: u32,
    pub on_failure: OnFailure,
}

impl Plan {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        require("arrivals_per_second", config.arrivals_per_second, 0.0, 1e9)?;
        require("network_ms", config.network_ms, 0.0, 1e6)?;
        require("retry_pause_ms", config.retry_pause_ms, 0.0, 1e6)?;
        let mut services = Vec::new();
        let mut operations = Vec::new();
        for (service_idx, service) in config.services.iter().enumerate() {
            let key = format!("services.{}", service.name);
            require(&format!("{key}.n_servers"), service.n_servers as f64, 1.0, 1e6)?;
            let mut background = Vec::new();
            for entry in &service.background {
                require(&format!("{key}.background.period_ms"), entry.period_ms, 1.0, 1e9)?;
                require(&format!("{key}.background.offset_ms"), entry.offset_ms, 0.0, 1e9)?;
                let words = Words::parse(&format!("{key}.background.line"), &entry.line)?;
                background.push((ms_to_ns(entry.period_ms), ms_to_ns(entry.offset_ms), words));
            }
            services.push(PlannedService {
                name: Arc::from(service.name.as_str()),
                n_servers: service.n_servers,
                queue_capacity: service.queue_capacity,
                background,
            });
            for operation in &service.operations {
                let key = format!("{key}.{}", operation.name);
                let steps =
                    operation.steps.iter().map(|step| plan_step(config, &key, step)).collect::<Result<_, _>>()?;
                operations.push(PlannedOperation {
                    service: service_idx,
                    name: Arc::from(operation.name.as_str()),
                    steps,
                });
            }
        }
        let mut requests = Vec::new();
        let mut cumulated = 0.0;
        for request in &config.requests {
            let key = format!("requests.{}", request.name);
            require(&format!("{key}.weight"), request.weight, 0.0, 1e9)?;
            cumulated += request.weight;
            requests.push((cumulated, find_operation(config, &key, &request.service, &request.operation)?));
        }
        if cumulated <= 0.0 && config.arrivals_per_second > 0.0 {
            return Err(invalid("requests", "no request has a weight above 0".into()));
        }
        let plan = Self { services, operations, requests };
        plan.refuse_cycles()?;
        Ok(plan)
    }

    /// Index of the service called `name`.
    pub fn service(&self, key: &str, name: &str) -> Result<usize, ConfigError> {
        self.services.iter().position(|service| &*service.name == name).ok_or_else(|| ConfigError::Unknown {
            key: key.into(),
            what: "service",
            name: name.into(),
            known: self.services.iter().map(|service| &*service.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// A visit waits for its calls, so a cycle of operations would never end. Operations are peeled off once all they
    /// call are peeled off; what remains calls itself.
    fn refuse_cycles(&self) -> Result<(), ConfigError> {
        let mut ends = vec![false; self.operations.len()];
        for _ in 0..self.operations.len() {
            for (idx, operation) in self.operations.iter().enumerate() {
                ends[idx] = operation.steps.iter().all(|step| match step {
                    PlannedStep::Call(calls) => calls.iter().all(|call| ends[call.operation]),
                    _ => true,
                });
            }
        }
        match ends.iter().position(|ends| !ends) {
            None => Ok(()),
            Some(idx) => {
                let operation = &self.operations[idx];
                let key = format!("services.{}.{}", self.services[operation.service].name, operation.name);
                Err(invalid(&key, "its calls lead into a cycle".into()))
            }
        }
    }
}

fn plan_step(config: &Config, key: &str, step: &Step) -> Result<PlannedStep, ConfigError> {
    Ok(match step {
        Step::Log(line) => PlannedStep::Log(Words::parse(key, line)?),
        Step::Work(time) => {
            match *time {
                ServiceTime::Constant { ms } | ServiceTime::Exponential { mean_ms: ms } => {
                    require(&format!("{key}.work"), ms, 0.0, 1e9)?;
                }
                ServiceTime::LogNormal { median_ms, sigma } => {
                    require(&format!("{key}.work.median_ms"), median_ms, 0.0, 1e9)?;
                    require(&format!("{key}.work.sigma"), sigma, 0.0, 5.0)?;
                }
            }
            PlannedStep::Work(*time)
        }
        Step::Call(calls) => {
            let mut planned = Vec::new();
            for call in calls {
                require(&format!("{key}.call.probability"), call.probability, 0.0, 1.0)?;
                require(&format!("{key}.call.timeout_ms"), call.timeout_ms, 0.001, 1e9)?;
                require(&format!("{key}.call.n_retries"), f64::from(call.n_retries), 0.0, 10.0)?;
                planned.push(PlannedCall {
                    operation: find_operation(config, key, &call.service, &call.operation)?,
                    probability: call.probability,
                    timeout_ns: ms_to_ns(call.timeout_ms),
                    n_retries: call.n_retries,
                    on_failure: call.on_failure,
                });
            }
            PlannedStep::Call(planned)
        }
    })
}

fn find_operation(config: &Config, key: &str, service: &str, operation: &str) -> Result<usize, ConfigError> {
    let all = || config.services.iter().flat_map(|s| s.operations.iter().map(move |o| (&s.name, &o.name)));
    all().position(|(s, o)| s == service && o == operation).ok_or_else(|| ConfigError::Unknown {
        key: key.into(),
        what: "operation",
        name: format!("{service} {operation}"),
        known: all().map(|(s, o)| format!("{s} {o}")).collect::<Vec<_>>().join(", "),
    })
}

fn require(key: &str, value: f64, min: f64, max: f64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(invalid(key, format!("{value} is not within {min} to {max}")))
    }
}

fn invalid(key: &str, reason: String) -> ConfigError {
    ConfigError::Invalid { key: key.into(), reason }
}
