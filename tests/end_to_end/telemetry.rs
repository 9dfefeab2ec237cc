//! A data directory belongs to one process at a time.

use crate::service::Service;

#[test]
fn two_processes_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(dir.path(), &[]);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_faultline"))
        .args(["run", "--set", "api.endpoint=127.0.0.1:0", "--set", "ingest.otlp.grpc.endpoint=127.0.0.1:0"])
        .args(["--set", "ingest.otlp.http.endpoint=127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("the binary runs");
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("another faultline"), "{message}");
    service.kill();
}
