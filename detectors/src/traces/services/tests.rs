use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::TraceFixture;

const MS: i64 = 1_000;
const MINUTE: i64 = 60_000_000;

fn station(config: ServiceConfig) -> ServiceStation {
    ServiceStation::new(config).expect("valid")
}

fn push(station: &mut ServiceStation, fixture: &TraceFixture) {
    let trace = fixture.trace();
    station.push(&trace, &Shape::of(&trace));
}

/// A gateway that waits for a cart, from `start` on, in microseconds; records count from `first`.
fn request(name: &str, start: i64, first: u64) -> TraceFixture {
    let mut fixture = TraceFixture::empty(name);
    let nanos = |from: i64, until: i64| ((start + from * MS) * 1_000, (until - from) * MS * 1_000);
    fixture.push(None, "gateway", "GET /", nanos(0, 100));
    fixture.push(Some(0), "gateway", "GET", nanos(10, 90));
    fixture.push(Some(1), "cart", "GET /cart", nanos(20, 70));
    fixture.spans.iter_mut().zip(first..).for_each(|(span, record)| span.record = record);
    fixture
}

/// A window as text: `service@minute/traces: part name milliseconds #record of trace`.
fn text(window: &Window<'_>) -> String {
    let window = window.as_service().expect("a service");
    let minute = window.start_unix_nano / window.step_nanos;
    let mut text = format!("{}@{minute}/{}:", window.key.session, window.n_traces);
    for entry in window.entries {
        let name = window.name(entry).map_or("?", |name| &*name.text);
        let (ms, record, trace) = (entry.nanos / 1_000_000, entry.record, entry.trace);
        text += &format!(" {:?} {name} {ms} #{record} of {trace};", entry.part);
    }
    text
}

fn show(station: &mut ServiceStation) -> Vec<String> {
    let shown = station.ready().iter().map(text).collect();
    station.settle();
    shown
}

#[test]
fn times_go_to_the_services_that_they_were_spent_in_and_between() {
    let mut station = station(ServiceConfig::default());
    push(&mut station, &request("a", 0, 1));
    assert_eq!(show(&mut station), [""; 0], "the minute is not over");
    station.finish();
    assert_eq!(
        show(&mut station),
        [
            "cart@0/1: Own GET /cart 50 #3 of 0; Into gateway GET > cart GET /cart 30 #3 of 0;",
            "gateway@0/1: Own GET / 20 #1 of 0; Own GET 30 #2 of 0; OutOf gateway GET > cart GET /cart 30 #3 of 0;",
        ]
    );
    assert!(show(&mut station).is_empty(), "it is told once");
}

#[test]
fn a_trace_belongs_to_the_minute_in_which_it_ends_or_the_next_that_is_open() {
    let mut station = station(ServiceConfig::default());
    push(&mut station, &request("a", MINUTE - 50 * MS, 1));
    push(&mut station, &request("b", MINUTE - 150 * MS, 4));
    station.advance_to(MINUTE * 1_000 + 1_999_999_999);
    assert_eq!(show(&mut station), [""; 0], "a minute waits for two seconds");
    station.advance_to(MINUTE * 1_000 + 2_000_000_000);
    assert_eq!(station.watermark_unix_nano(), MINUTE * 1_000);
    let keys =
        |shown: Vec<String>| shown.iter().map(|text| text[..text.find(':').expect("a colon")].to_owned()).collect();
    let keys_of = |station: &mut ServiceStation| -> Vec<String> { keys(show(station)) };
    assert_eq!(keys_of(&mut station), ["cart@0/1", "gateway@0/1"]);
    push(&mut station, &request("late", 0, 7));
    station.finish();
    assert_eq!(keys_of(&mut station), ["cart@1/2", "gateway@1/2"]);
    assert_eq!((station.stats().n_late, station.stats().n_windows), (1, 4));
}

#[test]
fn of_many_traces_whole_ones_are_kept_whatever_their_order() {
    let sample = |order: &mut dyn Iterator<Item = u64>| {
        let mut station = station(ServiceConfig { max_entries: 256, ..ServiceConfig::default() });
        for trace in order {
            push(&mut station, &request(&format!("{trace:032x}"), 0, 3 * trace + 1));
        }
        station.finish();
        let windows = station.ready();
        let gateway = windows[1].as_service().expect("a service");
        let traces: Vec<u32> = gateway.entries.iter().map(|entry| entry.trace).collect();
        assert!(gateway.entries.len() <= 256 && gateway.entries.len() > 64, "{}", gateway.entries.len());
        assert!(traces.is_sorted() && traces.chunk_by(|one, other| one == other).all(|run| run.len() == 3));
        assert_eq!(gateway.n_traces, 2_000);
        gateway.entries.iter().map(|entry| entry.record).collect::<BTreeSet<u64>>()
    };
    assert_eq!(sample(&mut (0..2_000)), sample(&mut (0..2_000).rev()));
}

#[test]
fn one_trace_does_not_crowd_out_the_others() {
    let mut station = station(ServiceConfig { max_entries: 256, ..ServiceConfig::default() });
    push(&mut station, &request("a", 0, 1));
    let mut rows = vec![(None, "gateway", 0, 100_000)];
    rows.extend((1..10_000).map(|idx| (Some(0), "gateway", idx, 1)));
    push(&mut station, &TraceFixture::of("crowd", &rows));
    station.finish();
    let windows = station.ready();
    let gateway = windows.iter().filter_map(Window::as_service).find(|window| &**window.service == "gateway");
    let gateway = gateway.expect("it was called");
    assert_eq!((gateway.entries.len(), gateway.n_traces), (3 + MAX_OF_TRACE as usize, 2));
    assert_eq!(station.stats().n_cut, 10_000 - u64::from(MAX_OF_TRACE));
}

#[test]
fn an_absurd_end_keeps_no_minute_open() {
    let mut station = station(ServiceConfig::default());
    let mut absurd = request("absurd", 0, 1);
    absurd.spans.iter_mut().for_each(|span| span.duration_nanos = i64::MAX);
    push(&mut station, &absurd);
    station.advance_to(2 * MINUTE * 1_000);
    assert_eq!((show(&mut station).len(), station.stats().n_open_steps), (2, 0));
}

#[test]
fn a_million_operations_take_no_more_room_than_the_limits() {
    let config = ServiceConfig { max_names: 100, max_services: 3, ..ServiceConfig::default() };
    let mut station = station(config);
    let mut fixture = TraceFixture::of("a", &[(None, "gateway", 0, 100), (Some(0), "cart", 10, 20)]);
    let mut shape = Shape::default();
    for idx in 0..500_000_u64 {
        for place in 0..2 {
            fixture.operations[place] = Arc::from(format!("{place}/{idx}"));
        }
        if idx % 1_000 == 0 {
            fixture.services[1] = Arc::from(format!("cart {idx}"));
        }
        shape.measure(&fixture.trace());
        station.push(&fixture.trace(), &shape);
    }
    let stats = station.stats();
    assert_eq!((stats.n_names, stats.n_open_steps, station.services.len()), (100, 1, 3));
    assert!(stats.n_unnamed > 400_000 && stats.n_unnamed_services > 400_000, "{stats:?}");
    station.finish();
    assert!(station.ready().iter().filter_map(Window::as_service).all(|window| window.entries.len() <= 1_024));
}

#[test]
fn steps_that_are_open_are_bounded() {
    let mut station = station(ServiceConfig::default());
    for minute in 0..1_000 {
        push(&mut station, &request("a", minute * MINUTE, 1));
        station.settle();
    }
    assert_eq!(station.stats().n_open_steps, MAX_OPEN_STEPS);
    assert_eq!(station.stats().n_released_early, 1_000 - MAX_OPEN_STEPS as u64);
}

#[test]
fn a_wrong_clock_reading_opens_no_step_and_steps_go_back_with_the_input() {
    const YEAR: i64 = 400 * 1_440 * MINUTE;
    let mut station = station(ServiceConfig::default());
    push(&mut station, &request("a", 0, 1));
    push(&mut station, &request("wrong", YEAR, 4));
    push(&mut station, &request("b", 0, 7));
    let stats = station.stats();
    assert_eq!((stats.n_traces, stats.n_strange, stats.n_open_steps), (2, 1, 1));
    (0..8).for_each(|n| push(&mut station, &request(&format!("leap {n}"), YEAR, 10 + 3 * n)));
    assert_eq!((station.stats().n_traces, station.stats().n_strange), (3, 8), "the eighth is believed");
    station.advance_to((YEAR + 5 * MINUTE) * 1_000);
    assert_eq!(show(&mut station).len(), 4, "two services in two minutes");
    push(&mut station, &request("back", 0, 40));
    assert_eq!((station.stats().n_late, station.stats().n_moved), (1, 0));
    station.advance_to(2 * MINUTE * 1_000);
    assert_eq!((show(&mut station).len(), station.stats().n_moved, station.stats().n_open_steps), (2, 1, 0));
    push(&mut station, &request("again", 2 * MINUTE, 43));
    station.advance_to(4 * MINUTE * 1_000);
    let shown = show(&mut station);
    assert!(shown.len() == 2 && shown[0].starts_with("cart@2/1:"), "{shown:?}");
}

/// A time of a span, nanoseconds.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => (0..20 * MINUTE).prop_map(|micros| micros * 1_000),
        1 => prop::sample::select(vec![i64::MIN, -1, 0, i64::MAX]),
        1 => any::<i64>(),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_windows_keep_their_promises(
        traces in prop::collection::vec(prop::collection::vec((0..9u32, 0..6usize, any_time(), any_time()), 1..20), 1..40),
        watermarks in prop::collection::vec(any_time(), 40),
        limits in (256..300usize, 1..5usize, 1..30usize),
    ) {
        const NAMES: [&str; 6] = ["gateway", "cart", "stock", "mail", "", "nobody"];
        let (max_entries, max_services, max_names) = limits;
        let mut station = station(ServiceConfig { max_entries, max_services, max_names, ..ServiceConfig::default() });
        let mut n_of_step: BTreeSet<(i64, String)> = BTreeSet::new();
        let mut check = |station: &mut ServiceStation, has_gone_back: bool| {
            for window in station.ready() {
                let window = window.as_service().expect("a service");
                let start = window.start_unix_nano;
                assert!(start.rem_euclid(window.step_nanos) == 0 || start == i64::MIN, "{start}");
                assert!(window.entries.len() <= max_entries && window.n_traces > 0);
                assert!(window.entries.iter().all(|entry| entry.nanos >= 0 && (entry.name as usize) < window.names.len()));
                assert!(window.entries.is_sorted_by_key(|entry| entry.trace), "those of one trace stand together");
                let is_new = n_of_step.insert((start, window.key.session.to_string()));
                assert!(is_new || has_gone_back, "a step is shown once");
            }
            station.settle();
            let stats = station.stats();
            assert!(stats.n_open_steps <= MAX_OPEN_STEPS && stats.n_names <= max_names, "{stats:?}");
        };
        for (idx, (rows, watermark)) in traces.iter().zip(&watermarks).enumerate() {
            let mut fixture = TraceFixture::empty(&format!("{idx:032x}"));
            for (place, (caller, service, start, duration)) in rows.iter().enumerate() {
                let caller = Some(*caller).filter(|caller| (*caller as usize) < place);
                fixture.push(caller, NAMES[*service], "do", (*start, (*duration).max(0)));
            }
            push(&mut station, &fixture);
            if idx % 3 == 0 {
                station.advance_to(*watermark);
            }
            let has_gone_back = station.stats().n_moved > 0;
            check(&mut station, has_gone_back);
        }
        station.finish();
        let has_gone_back = station.stats().n_moved > 0;
        check(&mut station, has_gone_back);
        let stats = station.stats();
        prop_assert_eq!(stats.n_traces + stats.n_strange, traces.len() as u64);
        prop_assert_eq!(stats.n_open_steps, 0);
    }
}

#[test]
fn limits_out_of_range_are_refused_by_key() {
    let refused = |config| ServiceStation::new(config).expect_err("out of range").to_string();
    let defaults = ServiceConfig::default();
    assert!(refused(ServiceConfig { step_ms: 10, ..defaults.clone() }).starts_with("key `step_ms`"));
    assert!(refused(ServiceConfig { max_entries: 100, ..defaults.clone() }).starts_with("key `max_entries`"));
    assert!(refused(ServiceConfig { max_names: 0, ..defaults }).starts_with("key `max_names`"));
}
