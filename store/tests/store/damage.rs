//! What a damaged or unwritable file leads to.

use std::fs;

use faultline_core::{AlertId, Classified, Domain};
use faultline_store::{Store, StoreConfig, StoreError};
use serde_json::json;

use crate::fixtures::{alert, files, logs, one, open, open_small, rows};

#[test]
fn damage_is_reported_with_the_name_of_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.append(&logs(1, 5_000)).expect("taken");
    store.flush().expect("closes");
    let name = files(dir.path(), "logs").remove(0);
    let segment = dir.path().join("logs").join(&name);
    let whole = fs::read(&segment).expect("read");

    // Zeroes in front of the footer: found when the records are wanted.
    let mut damaged = whole.clone();
    let end = whole.len() - 8;
    let footer_bytes = u32::from_le_bytes(whole[end..end + 4].try_into().expect("four bytes")) as usize;
    damaged[4..end - footer_bytes].fill(0);
    fs::write(&segment, &damaged).expect("written");
    for error in [
        store.lines(&[1, 4_999]).expect_err("damaged"),
        store.query("SELECT max(body) FROM logs").expect_err("damaged"),
    ] {
        assert!(matches!(error, StoreError::Segment { .. }), "{error:?}");
        assert!(error.to_string().contains(&name), "{error}");
        assert_eq!(error.domain(), Domain::External);
    }
    drop(store);

    // Cut short: found when the store opens.
    fs::write(&segment, &whole[..whole.len() / 3]).expect("written");
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("cut short");
    assert!(error.to_string().contains(&name), "{error}");
    fs::write(&segment, &whole).expect("written");
    drop(open(dir.path()));

    fs::write(dir.path().join("faultline.db"), vec![b'x'; 4_096]).expect("written");
    let _ = fs::remove_file(dir.path().join("faultline.db-wal"));
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("no database");
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("faultline.db"), "{error}");
}

#[test]
fn a_database_of_a_newer_faultline_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let connection = rusqlite::Connection::open(dir.path().join("faultline.db")).expect("opens");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    let error = Store::open(dir.path(), StoreConfig::default()).expect_err("newer");
    assert!(matches!(error, StoreError::SchemaVersion { found: 99, .. }), "{error:?}");
}

#[test]
fn a_damaged_row_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.put_alerts(&[alert(1, 1)]).expect("written");
    let connection = rusqlite::Connection::open(dir.path().join("faultline.db")).expect("opens");
    connection.execute("UPDATE alerts SET evidence = '{'", []).expect("set");
    let error = store.alert(AlertId(1)).expect_err("damaged").to_string();
    assert!(error.contains("0000000000000001") && error.contains("evidence"), "{error}");
}

#[test]
fn records_that_cannot_be_written_yet_stay_readable() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open_small(dir.path(), 100);
    // A directory that is gone stands for a disk that is full.
    let (table, aside) = (dir.path().join("logs"), dir.path().join("aside"));
    fs::rename(&table, &aside).expect("moved");
    store.append(&logs(1, 100)).expect("taken: the segment fills, its file has to wait");
    let error = store.append(&logs(101, 10)).expect_err("full and not writable");
    assert!(error.retryable(), "{error:?}");
    assert_eq!(one(&store, "SELECT count(*) FROM logs"), json!(100));
    fs::rename(&aside, &table).expect("moved back");
    store.append(&logs(101, 10)).expect("taken now");
    store.flush().expect("closes");
    assert_eq!(rows(&store, "SELECT count(*), count(DISTINCT body) FROM logs"), [[json!(110), json!(110)]]);
}
