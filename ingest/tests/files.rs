//! Replay of files and standard input: every format, every compression, every way a file can be bad.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

use std::{
    io::{Cursor, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use arrow::array::Array;
use faultline_core::{
    Batch, BoxFuture, Classified, Delivery, Domain, LogBatch, Outlet, OutletError, Source, batch::dict_value,
};
use faultline_ingest::{FileBatch, FileFormat, FileReader, FileSource, FilesConfig, IngestError};

fn read(name: &str, content: impl Into<Vec<u8>>, config: &FilesConfig) -> (Vec<FileBatch>, FileReader) {
    let mut reader = FileReader::from_reader(Path::new(name), Cursor::new(content.into()), config).unwrap();
    let batches = reader.by_ref().collect::<Result<_, _>>().unwrap();
    (batches, reader)
}

fn logs(batch: &FileBatch) -> &LogBatch {
    match &batch.batch {
        Batch::Logs(batch) => batch,
        other => panic!("expected logs, got {}", other.table()),
    }
}

fn bodies(batches: &[FileBatch]) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| logs(batch).body().iter().map(|body| body.unwrap().to_owned()).collect::<Vec<_>>())
        .collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn each_line_of_text_is_a_record_with_the_raw_line_as_body() {
    let config = FilesConfig { batch_records: 2, ..FilesConfig::default() };
    let content = "081109 203530 INFO a\r\n\nlast without newline";
    for bytes in
        [content.as_bytes().to_vec(), gzip(content.as_bytes()), zstd::encode_all(content.as_bytes(), 3).unwrap()]
    {
        let (batches, reader) = read("/var/log/HDFS.2008.log.gz", bytes, &config);
        assert_eq!(bodies(&batches), ["081109 203530 INFO a", "", "last without newline"]);
        let first = logs(&batches[0]);
        assert_eq!(first.time_unix_nano().values(), &[0, 0]);
        assert!(first.header().is_null(0) && first.attributes().is_null(0) && first.trace_id().is_null(0));
        assert_eq!(dict_value(first.service_name(), 0), Some("HDFS.2008"));
        let resource = r#"{"log.file.path":"/var/log/HDFS.2008.log.gz","service.name":"HDFS.2008"}"#;
        assert_eq!(dict_value(first.resource(), 1), Some(resource));
        let positions: Vec<_> = batches.iter().map(|batch| (batch.position.offset, batch.position.next)).collect();
        assert_eq!(positions, [(0, 23), (23, 43)]);
        assert_eq!(&*batches[0].position.source, "/var/log/HDFS.2008.log.gz");
        assert_eq!((reader.stats().n_lines, reader.stats().n_bytes), (3, 43));
    }
}

#[test]
fn the_service_name_can_be_given() {
    let config = FilesConfig { service_name: Some("name \"node\"".into()), ..FilesConfig::default() };
    let (batches, _) = read("-", "x\n", &config);
    assert_eq!(dict_value(logs(&batches[0]).service_name(), 0), Some("name \"node\""));
    let resource: serde_json::Value =
        serde_json::from_str(dict_value(logs(&batches[0]).resource(), 0).unwrap()).unwrap();
    assert_eq!(resource, serde_json::json!({ "service.name": "name \"node\"", "log.iostream": "stdin" }));
}

#[test]
fn invalid_utf8_is_replaced_line_by_line_and_counted() {
    // The first line ends inside a character that the second seems to go on with.
    let (batches, reader) = read("a.log", b"caf\xc3\n\xa9\nfine\n\xff\xfe\n".to_vec(), &FilesConfig::default());
    assert_eq!(bodies(&batches), ["caf\u{fffd}", "\u{fffd}", "fine", "\u{fffd}\u{fffd}"]);
    assert_eq!(reader.stats().n_invalid_utf8, 3);
    // What continues a character right behind one that was cut must not be taken for a whole one.
    let (batches, _) = read("a.log", b"\xc3\n\xa9".to_vec(), &FilesConfig::default());
    assert_eq!(bodies(&batches), ["\u{fffd}", "\u{fffd}"]);
}

#[test]
fn over_long_lines_are_cut_and_counted() {
    let config = FilesConfig { max_line_bytes: 4, ..FilesConfig::default() };
    let (batches, reader) = read("a.log", "123456789\n1234\n12é4\n", &config);
    assert_eq!(bodies(&batches), ["1234", "1234", "12é"]);
    assert_eq!(reader.stats().n_truncated, 2);
}

#[test]
fn batches_end_at_the_configured_number_of_records_and_at_eight_mebibytes() {
    let (batches, _) = read("a.log", "x\n".repeat(10_000), &FilesConfig::default());
    let sizes: Vec<_> = batches.iter().map(|batch| batch.batch.n_records()).collect();
    assert_eq!(sizes, [4096, 4096, 1808]);
    let (batches, _) = read("a.log", ("x".repeat(1 << 20) + "\n").repeat(10), &FilesConfig::default());
    let sizes: Vec<_> = batches.iter().map(|batch| batch.batch.n_records()).collect();
    assert_eq!(sizes, [8, 2]);
}

#[test]
fn an_empty_file_has_no_batch() {
    for content in [&b""[..], &gzip(b"")] {
        assert!(read("a.log", content, &FilesConfig::default()).0.is_empty());
    }
}

#[test]
fn each_line_of_a_session_file_is_a_session_of_event_ids() {
    let config = FilesConfig { format: FileFormat::Sessions, batch_records: 4, ..FilesConfig::default() };
    let (batches, _) = read("/data/hdfs_train", "5 5 22 \n\nE7 blk\n11", &config);
    assert_eq!(bodies(&batches), ["E5", "E5", "E22", "E7", "blk", "E11"]);
    let sessions: Vec<_> = batches
        .iter()
        .flat_map(|batch| logs(batch).attributes().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>())
        .collect();
    let session = |line: u32| format!(r#"{{"session.id":"hdfs_train:{line}"}}"#);
    assert_eq!(sessions, [session(1), session(1), session(1), session(3), session(3), session(4)]);
    // A batch ends with a session, never inside one.
    assert_eq!(batches.iter().map(|batch| batch.batch.n_records()).collect::<Vec<_>>(), [5, 1]);
}

const LOG_LINE: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#;
const SPAN_LINE: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"GET"}]}]}]}"#;
const METRIC_LINE: &str =
    r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;

#[test]
fn otlp_lines_of_all_signals_decode_and_bad_lines_are_rejects() {
    let content = [LOG_LINE, "{\"resourceLogs\": 5}", SPAN_LINE, "", "no json", "{}", METRIC_LINE, LOG_LINE].join("\n");
    let (batches, reader) = read("a.jsonl", content.as_str(), &FilesConfig::default());
    let tables: Vec<_> = batches.iter().map(|batch| (batch.batch.table(), batch.batch.n_records())).collect();
    assert_eq!(tables, [("logs", 2), ("spans", 1), ("metrics", 1)]);
    // A record without any time stays without one, so that a replay is reproducible.
    assert_eq!(logs(&batches[0]).time_unix_nano().values(), &[0, 0]);
    let reasons: Vec<_> = batches.iter().flat_map(|batch| &batch.rejects).map(|reject| &*reject.reason).collect();
    assert_eq!(reasons.len(), 3);
    assert!(reasons[0].starts_with("line 2: the request is not OTLP JSON"), "{}", reasons[0]);
    assert!(reasons[1].starts_with("line 5 is not OTLP JSON"), "{}", reasons[1]);
    assert_eq!(reasons[2], "line 6 has no resourceLogs, resourceSpans or resourceMetrics");
    assert_eq!(reader.stats().n_rejected, 3);
    // Only the last batch of the lines moves the position on: before it, the records of the others are not all out.
    let positions: Vec<_> = batches.iter().map(|batch| batch.position.next).collect();
    assert_eq!(positions, [0, 0, content.len() as u64]);
}

#[test]
fn a_json_document_may_go_over_many_lines() {
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(LOG_LINE).unwrap()).unwrap();
    let (batches, _) = read("logs.json", pretty.replace('\n', "\r\n"), &FilesConfig::default());
    assert_eq!(bodies(&batches), ["a"]);
    let (batches, _) = read("logs.json", format!("{LOG_LINE}\n{LOG_LINE}\n"), &FilesConfig::default());
    assert_eq!(bodies(&batches), ["a", "a"]);
}

#[test]
fn json_lines_that_are_not_otlp_are_text_unless_asked_for() {
    let line = r#"{"level":"info","msg":"resourceLogs"}"#;
    let (batches, _) = read("app.jsonl", line, &FilesConfig::default());
    assert_eq!(bodies(&batches), [line]);
    let config = FilesConfig { format: FileFormat::OtlpJson, ..FilesConfig::default() };
    let (batches, _) = read("app.jsonl", line, &config);
    assert_eq!((batches[0].batch.n_records(), batches[0].rejects.len()), (0, 1));
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let error = FileReader::open("/nowhere/hdfs.log", &FilesConfig::default()).err().unwrap();
    assert_eq!(error.to_string(), "cannot open /nowhere/hdfs.log");
    assert_eq!((error.domain(), error.retryable()), (Domain::User, false));
    let error = FileReader::open("/", &FilesConfig::default()).err().unwrap();
    assert_eq!(error.to_string(), "cannot open /");
}

#[test]
fn a_cut_gzip_file_gives_its_lines_and_then_an_error_with_the_place() {
    let whole = gzip("line\n".repeat(200_000).as_bytes());
    let cut = whole[..whole.len() / 2].to_vec();
    let reader = FileReader::from_reader(Path::new("a.log.gz"), Cursor::new(cut), &FilesConfig::default()).unwrap();
    let outcomes: Vec<_> = reader.collect();
    let (last, batches) = outcomes.split_last().unwrap();
    assert!(batches.len() > 1 && batches.iter().all(Result::is_ok));
    assert!(matches!(last, Err(IngestError::Read { offset, .. }) if *offset > 0), "{last:?}");
}

#[test]
fn wrong_values_are_refused_with_their_key() {
    let config = FilesConfig { batch_records: 0, ..FilesConfig::default() };
    let error = FileReader::from_reader(Path::new("a"), Cursor::new(Vec::new()), &config).err().unwrap();
    assert!(error.to_string().starts_with("ingest.files.batch_records: "), "{error}");
}

/// Takes everything that is sent.
#[derive(Default)]
struct Collect(Mutex<Vec<Delivery>>);

impl Outlet for Collect {
    fn try_send(&self, delivery: Delivery) -> Result<(), OutletError> {
        self.0.lock().unwrap().push(delivery);
        Ok(())
    }

    fn send(&self, delivery: Delivery) -> BoxFuture<'_, Result<(), OutletError>> {
        Box::pin(async move { self.try_send(delivery) })
    }
}

#[tokio::test]
async fn the_source_sends_every_file_in_order_and_then_ends() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = ["b.log", "a.log"]
        .map(|name| folder.path().join(name))
        .iter()
        .map(|path| {
            std::fs::write(path, format!("{}\n", path.display())).unwrap();
            path.to_string_lossy().into_owned()
        })
        .collect();
    let outlet = Arc::new(Collect::default());
    let config = FilesConfig { paths: paths.clone(), ..FilesConfig::default() };
    Box::new(FileSource::new(config)).run(outlet.clone(), Box::pin(std::future::pending())).await.unwrap();
    let sources: Vec<_> =
        outlet.0.lock().unwrap().iter().map(|delivery| delivery.position.source.to_string()).collect();
    assert_eq!(sources, paths);
}

#[tokio::test]
async fn the_source_names_a_file_that_is_missing() {
    let config = FilesConfig { paths: vec!["/nowhere/x.log".into()], ..FilesConfig::default() };
    let source = Box::new(FileSource::new(config));
    let error = source.run(Arc::new(Collect::default()), Box::pin(std::future::pending())).await.unwrap_err();
    assert_eq!(error.to_string(), "source file: reading ingest.files.paths");
    assert_eq!(error.cause.unwrap().to_string(), "cannot open /nowhere/x.log");
    assert_eq!(error.domain, Domain::User);
}
