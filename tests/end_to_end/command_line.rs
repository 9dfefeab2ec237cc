//! What a person or a script meets before anything runs: exit codes, and errors that name what to change.

use std::process::{Command, Output};

fn faultline(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_faultline")).args(args).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_unknown_key_exits_78_and_names_its_nearest_neighbour() {
    let output = faultline(&["run", "--set", "ingest.otlp.grpc.endpiont=127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(78));
    let message = stderr(&output);
    assert!(message.contains("`ingest.otlp.grpc.endpiont`"), "{message}");
    assert!(message.contains("did you mean `ingest.otlp.grpc.endpoint`?"), "{message}");
}

#[test]
fn an_unknown_detector_exits_78_and_names_its_nearest_neighbour() {
    let output = faultline(&["validate", "--set", "detection.detectors.deplog={}"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("deeplog"), "{}", stderr(&output));
}

#[test]
fn a_default_configuration_is_valid() {
    let output = faultline(&["validate"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn wrong_usage_exits_64_and_a_missing_file_74() {
    assert_eq!(faultline(&["replay"]).status.code(), Some(64));
    assert_eq!(faultline(&["no-such-command"]).status.code(), Some(64));
    let output = faultline(&["replay", "/no/such/file.log"]);
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    assert!(stderr(&output).contains("/no/such/file.log"), "{}", stderr(&output));
}

#[test]
fn a_missing_dataset_says_which_command_fetches_it() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_faultline"))
        .args(["eval", "hdfs-deeplog"])
        .env("FAULTLINE_DATA", empty.path())
        .env("FAULTLINE_CACHE", empty.path())
        .current_dir(empty.path())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains("faultline datasets fetch hdfs"), "{}", stderr(&output));
}

#[test]
fn every_protocol_of_the_evaluation_is_listed() {
    let output = faultline(&["eval", "--list"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["hdfs-deeplog", "hdfs-raw", "bgl-lines", "loghub-2k", "nezha-tt", "rootcausebench"] {
        assert!(listed.contains(name), "{name} is missing from:\n{listed}");
    }
}

#[test]
fn result_rows_render_as_markdown_and_a_broken_one_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("rows.jsonl");
    let row = r#"{"protocol":"hadoop","dataset":"containers","detector":"flag-all","seed":null,"n":342,"precision":null,"recall":1.0,
        "f1":0.916,"auprc":null,"extra":{},"records_per_second":null,"cpu_seconds":null,"peak_rss_bytes":null}"#;
    let row = row.replace('\n', "");
    std::fs::write(&path, format!("{row}\n")).expect("written");
    let path_text = path.to_str().expect("a path in UTF-8");
    let output = faultline(&["eval", "--render", path_text]);
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(page.contains("| containers | flag-all |  | 342 | 1.000 | .916 |"), "{page}{}", stderr(&output));
    std::fs::write(&path, format!("{row}\nbroken\n")).expect("written");
    let output = faultline(&["eval", "--render", path_text]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert!(stderr(&output).contains("rows.jsonl:2:"), "{}", stderr(&output));
}

#[test]
fn every_detector_is_listed_with_its_paper() {
    let output = faultline(&["detectors"]);
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    for (name, paper) in [("deeplog", "CCS 2017"), ("logsed", "CLOUD 2017"), ("new-template", "")] {
        assert!(listed.contains(name) && listed.contains(paper), "{name}, {paper} missing from:\n{listed}");
    }
}
