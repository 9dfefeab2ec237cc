//! The simulator against queueing theory: mean waits within 2 % of M/M/1 and M/M/c (Erlang 1917), and Little's law
//! (1961). Seeds are fixed, so these tests pass or fail the same way every time.

use faultline_simulator::{
    Config, ServiceStats, Simulation,
    config::{Operation, RequestKind, Service, ServiceTime, Speech, Step},
    shop,
};

const MEAN_MS: f64 = 10.0;

/// One service with `n_servers` memoryless servers, each busy a share `utilization` of the time.
fn station(n_servers: usize, utilization: f64) -> Config {
    let operation =
        Operation { name: "GET /".into(), steps: vec![Step::Work(ServiceTime::Exponential { mean_ms: MEAN_MS })] };
    Config {
        services: vec![Service {
            name: "station".into(),
            n_servers,
            queue_capacity: usize::MAX,
            operations: vec![operation],
            background: Vec::new(),
        }],
        requests: vec![RequestKind {
            name: "request".into(),
            weight: 1.0,
            service: "station".into(),
            operation: "GET /".into(),
        }],
        arrivals_per_second: utilization * n_servers as f64 * 1e3 / MEAN_MS,
        network_ms: 0.0,
        retry_pause_ms: 0.0,
        max_visits: usize::MAX,
        speech: Speech::Silent,
    }
}

fn run(config: &Config, seed: u64, seconds: u64) -> Vec<ServiceStats> {
    let mut simulation = Simulation::new(config, seed).expect("a valid configuration");
    let telemetry = simulation.advance_to(seconds * 1_000_000_000);
    assert!(config.speech == Speech::Full || telemetry.is_empty());
    simulation.stats()
}

/// Mean wait in the queue of M/M/c, milliseconds.
fn erlang_c_wait_ms(n_servers: usize, utilization: f64) -> f64 {
    let offered = utilization * n_servers as f64;
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..n_servers {
        term *= offered / k as f64;
        sum += term;
    }
    let last = term * offered / n_servers as f64 / (1.0 - utilization);
    let p_wait = last / (sum + last);
    p_wait * MEAN_MS / (n_servers as f64 * (1.0 - utilization))
}

fn assert_within(share: f64, what: &str, measured: f64, expected: f64) {
    let error = (measured / expected - 1.0).abs();
    assert!(error <= share, "{what}: measured {measured:.4}, expected {expected:.4} ({:.2} % off)", error * 100.0);
}

#[test]
fn the_formula_knows_the_single_server() {
    // M/M/1: W_q = rho / (mu - lambda).
    assert_within(1e-12, "wait", erlang_c_wait_ms(1, 0.7), 0.7 * MEAN_MS / 0.3);
}

#[test]
fn mean_waits_of_one_and_of_many_servers_are_erlangs_within_two_percent() {
    for (n_servers, utilization, seed) in [(1, 0.5, 1), (1, 0.7, 2), (2, 0.8, 3), (5, 0.8, 4), (16, 0.9, 5)] {
        let n_works = 1_500_000.0;
        let config = station(n_servers, utilization);
        let stats = run(&config, seed, (n_works / config.arrivals_per_second) as u64)[0];
        let wait_ms = stats.wait_ns as f64 / stats.n_works as f64 / 1e6;
        let what = format!("mean wait at {n_servers} servers, utilization {utilization}");
        assert_within(0.02, &what, wait_ms, erlang_c_wait_ms(n_servers, utilization));
    }
}

#[test]
fn busy_servers_are_the_offered_load() {
    let config = station(4, 0.6);
    let seconds = 2_000;
    let stats = run(&config, 9, seconds)[0];
    assert_within(0.02, "busy servers", stats.busy_ns as f64 / (seconds as f64 * 1e9), 0.6 * 4.0);
}

#[test]
fn littles_law_holds_at_every_service_of_the_shop() {
    let seconds = 600;
    let config = Config { speech: Speech::Silent, ..shop::config() };
    for (idx, stats) in run(&config, 11, seconds).into_iter().enumerate() {
        // L = lambda W: the integral of the visits present is kept apart from the visits' own durations.
        let present = stats.present_ns as f64 / (seconds as f64 * 1e9);
        let rate_times_stay =
            stats.n_ended as f64 / seconds as f64 * (stats.visit_ns as f64 / stats.n_ended as f64 / 1e9);
        assert!(stats.n_ended > 1_000, "service {idx} is used");
        assert_within(0.001, &format!("visits present at service {idx}"), present, rate_times_stay);
    }
}
