//! Records: segments, restarts, crashes, look-ups by id.

use std::fs;

use arrow::array::StringArray;
use faultline_core::{AlertId, Batch, Classified, Domain, LogBatchBuilder, LogRecord, TemplateId};
use faultline_store::{MAX_IDS, Store, StoreConfig, StoreError};
use serde_json::json;

use crate::fixtures::{SECOND, alert, crash, files, logs, one, open, open_small, rows, spans};

#[test]
fn record_ids_and_records_continue_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.append(&spans(11, 5)).expect("taken");
    assert_eq!(store.next_record_id(), 16);
    store.close().expect("closes");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.next_record_id(), 16, "a clean restart skips none");
    store.append(&logs(16, 4)).expect("taken");
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(14));
    assert_eq!(store.lines(&[3, 18]).expect("found").len(), 2);
}

#[test]
fn a_store_that_is_dropped_unclosed_has_written_its_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    drop(store);
    let store = open(dir.path());
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(10));
    assert!(store.next_record_id() > 10);
}

#[test]
fn a_crash_leaves_no_temporary_file_and_no_id_is_given_out_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    store.append(&logs(11, 20_000)).expect("taken");
    store.put_alerts(&[alert(1, 1)]).expect("written");
    assert_eq!(files(dir.path(), "logs").len(), 2, "the open segment is on its way to disk");
    let next = store.next_record_id();
    let dir = crash(store, &dir);
    assert_eq!(files(dir.path(), "logs").len(), 2);
    let store = open(dir.path());
    assert_eq!(files(dir.path(), "logs"), ["00000000000000000001-00000000000000000010.parquet"]);
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(10));
    assert!(store.next_record_id() >= next, "ids of lost records may stand in alerts");
    assert_eq!(store.alert(AlertId(1)).expect("read"), Some(alert(1, 1)));
}

#[test]
fn a_closed_segment_that_is_written_again_is_there_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for _ in 0..2 {
        store.append(&logs(1, 10)).expect("taken");
        store.flush().expect("closes");
    }
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(10));
}

#[test]
fn one_process_writes_and_others_read_what_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = Store::open_for_reading(dir.path(), StoreConfig::default()).expect_err("nothing there");
    assert!(matches!(missing, StoreError::NoData { .. }), "{missing}");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    store.append(&logs(11, 10)).expect("taken");
    let second = Store::open(dir.path(), StoreConfig::default()).expect_err("held");
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    let reader = Store::open_for_reading(dir.path(), StoreConfig::default()).expect("opens");
    assert_eq!(one(&reader, "SELECT count(*) FROM logs"), json!(10));
    assert!(matches!(reader.append(&logs(11, 1)), Err(StoreError::ReadOnly)));
    assert!(matches!(reader.put_alerts(&[alert(1, 1)]), Err(StoreError::ReadOnly)));
}

#[test]
fn a_directory_with_an_odd_name_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let odd = dir.path().join("a b%20c [é]#?");
    let store = open(&odd);
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    assert_eq!(one(&store, "SELECT count(body) FROM logs"), json!(10));
}

#[test]
fn lines_are_found_across_segments_in_order_of_their_ids() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 1_000);
    for first in (1..=3_500).step_by(500) {
        store.append(&logs(first, 500)).expect("taken");
    }
    let lines = store.lines(&[3_400, 9, 1_001, 9, 99_999, 3_499]).expect("found");
    let ids: Vec<_> = lines.iter().map(|line| line.record_id).collect();
    assert_eq!(ids, [9, 1_001, 3_400, 3_499]);
    assert_eq!(lines[0].raw, "081109 203518 INFO line 9");
    assert_eq!(lines[0].trace_id.as_deref(), Some("ab"));
    assert_eq!(lines[1].raw, "line 1001");
    assert_eq!((lines[1].service.as_str(), lines[2].service.as_str()), ("", "cart"));
    assert_eq!(lines[3].time_unix_nano, 3_499 * SECOND);
    assert_eq!(lines[3].template_id, Some(TemplateId(4)));
    let error = store.lines(&vec![1; MAX_IDS + 1]).expect_err("too many");
    assert_eq!(error.domain(), Domain::User);
}

#[test]
fn a_look_up_in_a_large_segment_reads_past_its_first_row_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 70_000)).expect("taken");
    store.append(&logs(70_001, 70_000)).expect("taken");
    store.flush().expect("closes");
    let ids = [1, 65_536, 65_537, 70_000, 70_001, 139_999, 140_000];
    let raws: Vec<_> = store.lines(&ids).expect("found").into_iter().map(|line| line.record_id).collect();
    assert_eq!(raws, ids);
}

#[test]
fn unnumbered_records_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut builder = LogBatchBuilder::default();
    builder.push(&LogRecord::default());
    let error = open(dir.path()).append(&Batch::Logs(builder.finish())).expect_err("no ids");
    assert!(error.to_string().contains("logs"), "{error}");
}

#[test]
fn small_batches_are_gathered_and_their_columns_survive() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    for id in 1..=1_000 {
        store.append(&logs(id, 1)).expect("taken");
    }
    assert_eq!(one(&store, "SELECT count(DISTINCT body) FROM logs"), json!(1_000));
    store.flush().expect("closes");
    assert_eq!(one(&store, "SELECT count(*) FROM logs WHERE body = 'line ' || record_id"), json!(1_000));
    assert_eq!(one(&store, "SELECT count(*) FROM logs WHERE service_name = 'cart'"), json!(500));
}

#[test]
fn readers_and_a_writer_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 200);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for first in (1..=2_000).step_by(20) {
                store.append(&logs(first, 20)).expect("taken");
                store.put_alerts(&[alert(first, 1)]).expect("written");
            }
        });
        let mut counts = vec![0];
        while !writer.is_finished() {
            let count = one(&store, "SELECT count(*) FROM logs").as_u64().expect("a number");
            let distinct = rows(&store, "SELECT count(*) = count(DISTINCT record_id) FROM logs");
            assert_eq!(distinct, [[json!(true)]], "no record twice");
            counts.push(count);
        }
        assert!(counts.is_sorted(), "a record once visible stays so: {counts:?}");
    });
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(2_000));
    assert_eq!(one(&store, "SELECT count(*) FROM alerts"), json!(100));
}

#[test]
fn body_text_in_parquet_is_what_other_tools_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 10)).expect("taken");
    store.flush().expect("closes");
    let path = dir.path().join("logs").join(files(dir.path(), "logs").remove(0));
    let file = fs::File::open(path).expect("opens");
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("a footer");
    assert_eq!(*reader.schema(), faultline_core::LogBatch::schema());
    let column = reader.metadata().row_group(0).column(0);
    assert!(matches!(column.compression(), parquet::basic::Compression::ZSTD(_)));
    let batch = reader.build().expect("reads").next().expect("a batch").expect("reads");
    let body: &StringArray = batch.column_by_name("body").expect("there").as_any().downcast_ref().expect("text");
    assert_eq!(body.value(9), "line 10");
}
