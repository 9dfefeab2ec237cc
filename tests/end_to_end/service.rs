//! A running `faultline run`, started on free ports and stopped by its own process id.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A `faultline run` process.
pub struct Service {
    child: Child,
    pub api: SocketAddr,
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
}

impl Service {
    /// Starts it on free ports and waits for its ready line.
    pub fn start(data_dir: &Path, settings: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faultline"));
        command.args(["--log-format", "json", "run", "--data-dir"]).arg(data_dir);
        let ports = ["api.endpoint", "ingest.otlp.grpc.endpoint", "ingest.otlp.http.endpoint"];
        for key in ports {
            command.args(["--set", &format!("{key}=127.0.0.1:0")]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let ready = lines
            .by_ref()
            .map(|line| line.expect("stderr is text"))
            .find(|line| line.contains(r#""event":"ready""#))
            .expect("a ready line before the process ends");
        // Keep reading, so that the process never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{}", line.unwrap_or_default())));
        let ready: Value = serde_json::from_str(&ready).expect("the JSON log format");
        let address = |field: &str| ready[field].as_str().expect("an address").parse().expect("an address");
        Self { child, api: address("api"), otlp_grpc: address("otlp_grpc"), otlp_http: address("otlp_http") }
    }

    /// `GET` from the REST interface.
    pub fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.api);
        let mut response = ureq::get(&url).call().unwrap_or_else(|error| panic!("GET {url}: {error}"));
        serde_json::from_reader(response.body_mut().as_reader()).expect("a JSON answer")
    }

    /// `POST` of a JSON body to the REST interface.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("http://{}{path}", self.api);
        let mut response = ureq::post(&url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("POST {url}: {error}"));
        serde_json::from_reader(response.body_mut().as_reader()).expect("a JSON answer")
    }

    /// `POST /api/v1/query`; the rows.
    pub fn query(&self, sql: &str) -> Vec<Vec<Value>> {
        let url = format!("http://{}/api/v1/query", self.api);
        let body = serde_json::json!({ "sql": sql }).to_string();
        let mut response = ureq::post(&url)
            .header("content-type", "application/json")
            .send(body)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let answer: Value = serde_json::from_reader(response.body_mut().as_reader()).expect("a JSON answer");
        serde_json::from_value(answer["rows"].clone()).expect("rows")
    }

    /// Asks until `answer` has something, or panics with `what` after [`PATIENCE`].
    pub fn wait_for<T>(&self, what: &str, mut answer: impl FnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = answer(self) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "{what} did not come");
            // A pause between questions, so that the process under test gets the processor.
            std::thread::park_timeout(Duration::from_millis(25));
        }
    }

    /// SIGTERM, by its own id; the exit code.
    pub fn stop(mut self) -> i32 {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        self.child.wait().expect("the process ends").code().expect("an exit code, not a signal")
    }

    /// SIGKILL: what a crash looks like.
    pub fn kill(mut self) {
        self.child.kill().expect("the process ends");
        self.child.wait().expect("the process ends");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A test that has failed must not leave a process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
