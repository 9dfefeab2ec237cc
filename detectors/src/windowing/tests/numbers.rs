use faultline_core::batch::params_builder;

use super::*;

/// The batch with these parameters for each record.
fn with_params(batch: LogBatch, params: &[Vec<String>]) -> LogBatch {
    let mut column = params_builder();
    for own in params {
        own.iter().for_each(|param| column.values().append_value(param));
        column.append(true);
    }
    batch.with_column("params", Arc::new(column.finish())).expect("lists of texts")
}

/// Records whose one number is the id of their template.
fn numbered(records: &[(i64, &str, u64)]) -> LogBatch {
    let params: Vec<Vec<String>> = records.iter().map(|record| vec![record.2.to_string()]).collect();
    with_params(batch_of(1, records), &params)
}

/// Checks the windows that are shown; how many records they hold.
fn n_aligned(windower: &mut Windower) -> usize {
    let windows = windower.ready();
    let logs = || windows.iter().filter_map(Window::as_log);
    for log in logs() {
        for (idx, record) in log.records.iter().enumerate() {
            assert_eq!(log.numbers.of(idx), [record.template.0 as f32], "record {idx} of {}", log.key.session);
        }
        assert_eq!(log.numbers.tail(0).len(), log.records.len(), "and none beyond");
    }
    logs().map(|log| log.records.len()).sum()
}

#[test]
fn numbers_are_those_of_the_record_whatever_stands_between_them() {
    let mut windower = Windower::new(config()).expect("valid").with_numbers();
    let params =
        [vec!["10.0.0.1:80", "12 ms", "abc", "3"], vec![], vec!["1", "2", "3", "4", "5"], vec!["blk_7", "-1.5"]];
    let params: [Vec<String>; 4] = params.map(|own| own.into_iter().map(str::to_owned).collect());
    let batch = with_params(batch_of(1, &[(0, "a", 1), (1, "a", 2), (2, "a", 3), (3, "a", 4)]), &params);
    // A piece of a batch begins in the middle of its columns.
    windower.push(&batch.slice(0, 1));
    windower.push(&batch.slice(1, 3));
    let windows = windower.ready();
    let log = windows[0].as_log().expect("a log window");
    let numbers: Vec<&[f32]> = (0..4).map(|idx| log.numbers.of(idx)).collect();
    assert_eq!(numbers, [&[12e3, 3.0][..], &[], &[1.0, 2.0, 3.0, 4.0], &[-1.5]]);
}

#[test]
fn nothing_is_kept_where_nobody_asks_and_a_batch_without_parameters_has_none() {
    let mut windower = Windower::new(config()).expect("valid");
    windower.push(&numbered(&[(0, "a", 1), (1, "a", 2)]));
    let windows = windower.ready();
    let log = windows[0].as_log().expect("a log window");
    assert!((0..2).all(|idx| log.numbers.of(idx).is_empty()) && log.numbers.tail(0).is_empty());
    drop(windows);
    let mut windower = Windower::new(config()).expect("valid").with_numbers();
    windower.push(&batch_of(1, &[(0, "a", 1)]));
    windower.push(&numbered(&[(1, "a", 2)]));
    let windows = windower.ready();
    let log = windows[0].as_log().expect("a log window");
    assert!(log.numbers.of(0).is_empty() && log.numbers.of(1) == [2.0]);
}

#[test]
fn a_cut_session_and_a_stream_that_starts_anew_take_their_numbers_along() {
    let limits = WindowConfig { max_records_per_session: 4, context_records: 2, ..config() };
    let mut windower = Windower::new(limits).expect("valid").with_numbers();
    for time in 0..12 {
        let template = time as u64 + 1;
        windower.push(&numbered(&[(time, "a", template), (time, "", 100 + template)]));
        assert!(n_aligned(&mut windower) > 0);
        windower.settle();
    }
    assert!(windower.stats().n_cut > 0 && windower.stats().n_closed > 0, "{:?}", windower.stats());
}

proptest! {
    /// Records that overtake each other, come late, are released early, cut off the front, carried over and evicted.
    #[test]
    fn numbers_stay_with_their_records(
        records in records(4_000),
        cut in 1..20usize,
        cap in prop::sample::select(vec![4usize, 8, 1024]),
        max_held_records in prop::sample::select(vec![3usize, 1024]),
        max_open_sessions in prop::sample::select(vec![2usize, 1024]),
        emit in prop::sample::select(vec![Emit::OnClose, Emit::Incremental]),
    ) {
        let limits = WindowConfig {
            allowed_lateness_ms: 2_000,
            max_records_per_session: cap,
            context_records: 2,
            max_held_records,
            max_open_sessions,
            emit,
            ..config()
        };
        let mut windower = Windower::new(limits).expect("valid").with_numbers();
        // One of the keys becomes a stream.
        let records: Vec<(i64, &str, u64)> =
            records.into_iter().map(|(time, key, template)| (time, if key == "e" { "" } else { key }, template)).collect();
        let mut n_seen = 0;
        for batch in records.chunks(cut) {
            windower.push(&numbered(batch));
            n_seen += n_aligned(&mut windower);
            windower.settle();
        }
        windower.finish();
        n_seen += n_aligned(&mut windower);
        prop_assert!(n_seen >= records.len(), "{} of {} records were shown", n_seen, records.len());
    }
}
