//! What every detector in the registry must do, whatever it is.

use std::{collections::BTreeMap, sync::LazyLock};

use faultline_core::{Detector, Evidence, Overdue, RecordId, Score, Signal, TemplateTexts, Window};
use faultline_detectors::{
    Entry, REGISTRY,
    testing::{
        GroupFixture, SeriesFixture, ServiceFixture, Session, TraceFixture, application, score_all, service_minutes,
        synthetic,
    },
};
use serde_json::{Value, json};

#[path = "contract/bad_input.rs"]
mod bad_input;

const SEED: u64 = 7;

static TRAINING: LazyLock<Vec<Session>> =
    LazyLock::new(|| synthetic(1, 120, 0.0).into_iter().map(|(session, _)| session).collect());

static LATER: LazyLock<Vec<(Session, bool)>> = LazyLock::new(|| synthetic(2, 80, 0.3));

/// Enough of a series to be learned, and what comes after it.
static SERIES: LazyLock<SeriesFixture> = LazyLock::new(|| SeriesFixture::seasonal("load", 1, 0, 1400, 0.0));

static LATER_SERIES: LazyLock<SeriesFixture> = LazyLock::new(|| SeriesFixture::seasonal("load", 2, 1400, 600, 0.02));

/// The same of an instance.
static INSTANCE: LazyLock<GroupFixture> = LazyLock::new(|| GroupFixture::coupled("a", 1, 0, 1500, 0.0));

static LATER_INSTANCE: LazyLock<GroupFixture> = LazyLock::new(|| GroupFixture::coupled("a", 2, 1500, 600, 0.1));

static TRACES: LazyLock<Vec<TraceFixture>> =
    LazyLock::new(|| application(1, 400, 0.0).into_iter().map(|(trace, _)| trace).collect());

static LATER_TRACES: LazyLock<Vec<(TraceFixture, bool)>> = LazyLock::new(|| application(2, 100, 0.3));

static MINUTES: LazyLock<Vec<ServiceFixture>> =
    LazyLock::new(|| service_minutes(1, 1_000, 30, 0.0).into_iter().map(|(minute, _)| minute).collect());

static LATER_MINUTES: LazyLock<Vec<(ServiceFixture, bool)>> = LazyLock::new(|| service_minutes(2, 1_030, 30, 0.3));

static ODD_SESSIONS: LazyLock<[Session; 5]> = LazyLock::new(|| {
    [
        Session::of("empty", &[]),
        Session::of("one", &[11]),
        Session::of("unseen", &[900, 901, 900, 902]),
        Session::of("one unseen", &[u64::MAX]),
        Session::of("long", &[41; 600]),
    ]
});

static ODD_SERIES: LazyLock<Vec<SeriesFixture>> = LazyLock::new(|| {
    let of = |name: &str, first_step: i64, points: Vec<f64>| {
        let n = points.len();
        SeriesFixture { points, ..SeriesFixture::seasonal(name, 3, first_step, n, 0.0) }
    };
    let huge = (0..300).map(|idx| if idx % 2 == 0 { f64::MAX } else { f64::MIN });
    vec![
        of("load", 1400, vec![100.0]),
        of("load", 1401, vec![f64::NAN; 200]),
        of("load", 1601, vec![f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 100.0]),
        of("load", 1605, huge.collect()),
        of("load", 1905, vec![0.0; 600]),
        of("load", 100_000_000, vec![100.0; 200]),
        of("load", -100_000_000, vec![100.0; 200]),
        of("unknown", 1400, vec![1.0; 200]),
    ]
});

static ODD_INSTANCES: LazyLock<Vec<GroupFixture>> = LazyLock::new(|| {
    let of = |name: &str, first_step: i64, n_rows: usize, cell: fn(usize) -> f64| {
        let usual = GroupFixture::coupled(name, 3, first_step, n_rows, 0.0);
        GroupFixture { values: (0..usual.values.len()).map(cell).collect(), ..usual }
    };
    let bare = GroupFixture { columns: Vec::new(), values: Vec::new(), ..of("bare", 0, 3, |_| 0.0) };
    let mut turned = GroupFixture::coupled("a", 4, 2300, 20, 0.0);
    turned.columns.reverse();
    let mut more = GroupFixture::coupled("a", 4, 2320, 20, 0.0);
    (more.columns, more.is_spoiled) = ((0..30).map(|idx| format!("new {idx}").into()).collect(), vec![false; 4]);
    vec![
        of("a", 1500, 1, |_| 50.0),
        of("a", 1501, 100, |_| f64::NAN),
        of("a", 1601, 300, |idx| if idx % 2 == 0 { f64::MAX } else { f64::MIN }),
        of("a", 1901, 4, |idx| [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0][idx % 4]),
        of("a", 1905, 300, |_| 0.0),
        turned,
        more,
        of("a", 100_000_000, 50, |_| 1.0),
        of("a", -100_000_000, 50, |_| 1.0),
        of("unknown", 1500, 50, |_| 1.0),
        bare,
    ]
});

static ODD_TRACES: LazyLock<Vec<TraceFixture>> = LazyLock::new(|| {
    let mut odd = vec![
        TraceFixture::empty("empty"),
        TraceFixture::of("one", &[(None, "gateway", 0, 5)]),
        TraceFixture::of("unknown", &[(None, "nobody", 0, 5), (Some(0), "knows", 1, 2), (Some(0), "knows", 3, 0)]),
        TraceFixture::of("two roots", &[(None, "gateway", 0, 5), (None, "gateway", 1, 5)]),
        TraceFixture::of("nameless", &[(None, "", 0, 0), (Some(0), "", 0, 0)]),
    ];
    let mut orphans = TRACES[0].clone();
    orphans.spans.iter_mut().for_each(|span| (span.parent, span.is_orphan) = (u32::MAX, true));
    let mut cut = TRACES[1].clone();
    cut.n_dropped = 7;
    let mut endless = TRACES[2].clone();
    endless.spans.iter_mut().for_each(|span| span.duration_nanos = i64::MAX);
    let mut early = TRACES[3].clone();
    early.spans.iter_mut().for_each(|span| (span.start_unix_nano, span.duration_nanos) = (i64::MIN, 0));
    odd.extend([orphans, cut, endless, early]);
    odd
});

static ODD_MINUTES: LazyLock<Vec<ServiceFixture>> = LazyLock::new(|| {
    let changed = |change: fn(&mut ServiceFixture)| {
        let mut minute = MINUTES[0].clone();
        change(&mut minute);
        minute
    };
    vec![
        changed(|minute| minute.entries.clear()),
        changed(|minute| minute.names.clear()),
        changed(|minute| minute.entries.iter_mut().for_each(|entry| entry.nanos = i64::MAX)),
        changed(|minute| minute.entries.iter_mut().for_each(|entry| entry.nanos = 0)),
        changed(|minute| minute.start_unix_nano = i64::MAX),
        changed(|minute| minute.start_unix_nano = i64::MIN),
        changed(|minute| minute.key.session = "nobody".into()),
    ]
});

/// Fitting may be slow, so each detector is fitted once; tests load what it wrote.
static SNAPSHOTS: LazyLock<BTreeMap<&'static str, Vec<u8>>> = LazyLock::new(|| {
    REGISTRY.iter().map(|entry| (entry.name, fit(entry).snapshot().expect("a fitted model can be written"))).collect()
});

fn fit(entry: &Entry) -> Box<dyn Detector> {
    entry.fit(&Value::Null, &training_windows(entry.signal), SEED).unwrap_or_else(|error| panic!("{error}"))
}

fn load(entry: &Entry) -> Box<dyn Detector> {
    entry.load(&Value::Null, &SNAPSHOTS[entry.name]).unwrap_or_else(|error| panic!("{error}"))
}

fn training_windows(signal: Signal) -> Vec<Window<'static>> {
    match signal {
        Signal::Logs => TRAINING.iter().map(Session::closed).collect(),
        Signal::Series => SERIES.pieces(100).collect(),
        Signal::Groups => INSTANCE.pieces(100).collect(),
        Signal::Traces => TRACES.iter().map(TraceFixture::window).collect(),
        Signal::Services => MINUTES.iter().map(ServiceFixture::window).collect(),
    }
}

/// Whole sessions, and sessions that grow and then end; points one by one, and several at a time.
fn later_windows(signal: Signal) -> Vec<Window<'static>> {
    let mut windows = Vec::new();
    match signal {
        Signal::Logs => {
            for (idx, (session, _)) in LATER.iter().enumerate() {
                if idx % 2 == 0 {
                    windows.push(session.closed());
                } else {
                    windows.extend([session.window(0, false), session.window(session.records.len(), true)]);
                }
            }
        }
        Signal::Series => {
            windows.extend(LATER_SERIES.pieces(1).take(100));
            windows.extend((100..600).step_by(50).map(|start| LATER_SERIES.window(start..start + 50)));
        }
        Signal::Groups => {
            windows.extend(LATER_INSTANCE.pieces(1).take(100));
            windows.extend((100..600).step_by(50).map(|start| LATER_INSTANCE.window(start..start + 50)));
        }
        Signal::Traces => windows.extend(LATER_TRACES.iter().map(|(trace, _)| trace.window())),
        Signal::Services => windows.extend(LATER_MINUTES.iter().map(|(minute, _)| minute.window())),
    }
    windows
}

/// Windows of which some are spoiled.
fn labelled_windows(signal: Signal) -> Vec<(Window<'static>, bool)> {
    match signal {
        Signal::Logs => LATER.iter().map(|(session, is_spoiled)| (session.closed(), *is_spoiled)).collect(),
        Signal::Series => {
            let is_spoiled = LATER_SERIES.is_spike.chunks(10).map(|is_spike| is_spike.contains(&true));
            LATER_SERIES.pieces(10).zip(is_spoiled).collect()
        }
        Signal::Groups => {
            let is_spoiled = LATER_INSTANCE.is_spoiled.chunks(10).map(|is_spoiled| is_spoiled.contains(&true));
            LATER_INSTANCE.pieces(10).zip(is_spoiled).collect()
        }
        Signal::Traces => LATER_TRACES.iter().map(|(trace, is_spoiled)| (trace.window(), *is_spoiled)).collect(),
        Signal::Services => LATER_MINUTES.iter().map(|(minute, is_slow)| (minute.window(), *is_slow)).collect(),
    }
}

fn odd_windows(signal: Signal) -> Vec<Window<'static>> {
    match signal {
        Signal::Logs => {
            let mut windows: Vec<_> = ODD_SESSIONS.iter().map(Session::closed).collect();
            windows.extend(ODD_SESSIONS.iter().map(|session| session.window(0, false)));
            windows.extend(ODD_SESSIONS.iter().map(|session| session.window(session.records.len(), true)));
            windows
        }
        Signal::Series => ODD_SERIES.iter().map(SeriesFixture::whole).collect(),
        Signal::Groups => ODD_INSTANCES.iter().map(GroupFixture::whole).collect(),
        Signal::Traces => ODD_TRACES.iter().map(TraceFixture::window).collect(),
        Signal::Services => ODD_MINUTES.iter().map(ServiceFixture::window).collect(),
    }
}

/// The records behind the items of a window, one for each.
fn records_of(window: &Window<'_>) -> Vec<RecordId> {
    match window {
        Window::Log(log) => log.records.iter().map(|entry| entry.record).collect(),
        Window::Series(series) => series.records.to_vec(),
        Window::Trace(trace) => trace.spans.iter().map(|span| span.record).collect(),
        Window::Service(service) => service.entries.iter().map(|entry| entry.record).collect(),
        _ => Vec::new(),
    }
}

fn scores_of(detector: &mut dyn Detector, windows: &[Window<'_>]) -> Vec<Option<Score>> {
    let scores = score_all(detector, windows);
    assert_eq!(scores.len(), windows.len(), "{}: one entry for each window", detector.name());
    for (score, window) in scores.iter().zip(windows).filter_map(|(score, window)| Some((score.as_ref()?, window))) {
        assert!(score.value.is_finite(), "{} scored {}", detector.name(), score.value);
        let n_items = window.as_group().map_or_else(|| records_of(window).len(), |group| group.values.len());
        assert!(score.culprit < n_items, "{}: culprit {} of {n_items}", detector.name(), score.culprit);
    }
    scores
}

#[test]
fn entries_describe_themselves() {
    for entry in REGISTRY {
        let name = entry.name;
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{name}");
        assert!(!entry.summary.is_empty() && entry.summary.len() < 120, "{name}: {}", entry.summary);
        assert!(entry.paper.chars().any(|c| c.is_ascii_digit()), "{name}: no year in {}", entry.paper);
        let schema = entry.config_schema();
        let properties = schema.get("properties").cloned().unwrap_or(json!({}));
        for key in entry.default_config().as_object().expect("a configuration is an object").keys() {
            let described = properties.get(key).and_then(|property| property.get("description"));
            assert!(described.is_some(), "{name}: key `{key}` has no description");
        }
    }
}

#[test]
fn scores_are_finite_and_one_a_window() {
    for entry in REGISTRY {
        let mut detector = load(entry);
        assert_eq!(detector.name(), entry.name);
        assert_eq!(detector.signal(), entry.signal);
        let scores = scores_of(&mut *detector, &later_windows(entry.signal));
        assert!(scores.iter().any(Option::is_some), "{} has nothing to say about anything", entry.name);
    }
}

#[test]
fn a_snapshot_brings_back_an_equal_model() {
    for entry in REGISTRY {
        let (mut first, mut second) = (load(entry), load(entry));
        let windows = later_windows(entry.signal);
        assert_eq!(first.snapshot().expect("written"), SNAPSHOTS[entry.name], "{}: bytes", entry.name);
        assert_eq!(scores_of(&mut *first, &windows), scores_of(&mut *second, &windows), "{}: scores", entry.name);
        // And again in the middle of a run.
        first.learn(&windows);
        let snapshot = first.snapshot().expect("written");
        let mut third = entry.load(&Value::Null, &snapshot).expect("its own snapshot");
        assert_eq!(third.version(), first.version(), "{}: version", entry.name);
        assert_eq!(
            scores_of(&mut *first, &windows),
            scores_of(&mut *third, &windows),
            "{}: after learning",
            entry.name
        );
    }
}

#[test]
fn the_same_seed_fits_the_same_model() {
    for entry in REGISTRY {
        let again = fit(entry);
        assert!(again.snapshot().expect("written") == SNAPSHOTS[entry.name], "{}: another model", entry.name);
        assert_eq!(again.version(), load(entry).version(), "{}: version", entry.name);
    }
}

#[test]
fn odd_windows_do_not_upset_a_detector() {
    for entry in REGISTRY {
        let (mut detector, windows) = (load(entry), odd_windows(entry.signal));
        scores_of(&mut *detector, &windows);
        detector.learn(&windows);
        scores_of(&mut *detector, &windows);
        scores_of(&mut *detector, &[]);
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    for entry in REGISTRY {
        let defaults = entry.default_config();
        let Some(key) = defaults.as_object().and_then(|keys| keys.keys().next().cloned()) else { continue };
        let Err(error) = entry.fit(&json!({format!("{key}x"): 1}), &[], SEED) else { panic!("{} took it", entry.name) };
        let message = error.to_string();
        assert!(message.contains(&format!("`{key}x`")) && message.contains(&format!("`{key}`?")), "{message}");
    }
}

#[test]
fn nothing_to_fit_on_and_damaged_snapshots_are_errors() {
    for entry in REGISTRY {
        // One that calibrates itself warms up in service.
        let is_fitted = entry.fit(&Value::Null, &[], SEED).is_ok();
        assert_eq!(is_fitted, entry.is_self_calibrated, "{}: fitted on nothing", entry.name);
        let snapshot = &SNAPSHOTS[entry.name];
        assert!(entry.load(&Value::Null, &snapshot[..snapshot.len() / 2]).is_err(), "{}: half a snapshot", entry.name);
        assert!(entry.load(&Value::Null, b"").is_err(), "{}: no snapshot", entry.name);
        let other = REGISTRY.iter().find(|other| other.name != entry.name).expect("there are several");
        assert!(entry.load(&Value::Null, &SNAPSHOTS[other.name]).is_err(), "{} took one of {}", entry.name, other.name);
    }
}

#[test]
fn spoiled_windows_score_higher_than_normal_ones() {
    // To `change-point` a spike is no change, `heartbeat` looks at no value; their tests plant shifts and silences.
    for entry in REGISTRY.iter().filter(|entry| !["change-point", "heartbeat"].contains(&entry.name)) {
        let mut detector = load(entry);
        let (windows, is_spoiled): (Vec<_>, Vec<bool>) = labelled_windows(entry.signal).into_iter().unzip();
        let scores = scores_of(&mut *detector, &windows);
        let value = |score: &Option<Score>| score.map_or(f64::NEG_INFINITY, |score| score.value);
        let of = |spoiled| {
            let pairs = scores.iter().zip(&is_spoiled);
            pairs.filter(move |(_, own)| **own == spoiled).map(|(score, _)| value(score)).collect::<Vec<_>>()
        };
        let (spoiled, normal) = (of(true), of(false));
        let mut wins = 0.0;
        for &bad in &spoiled {
            for &good in &normal {
                wins += if bad > good {
                    1.0
                } else if bad == good {
                    0.5
                } else {
                    0.0
                };
            }
        }
        let auc = wins / (spoiled.len() * normal.len()) as f64;
        assert!(auc > 0.6, "{}: area under the ROC curve {auc:.3}", entry.name);
    }
}

#[test]
fn evidence_says_something_and_is_bounded() {
    for entry in REGISTRY {
        let mut detector = load(entry);
        for window in later_windows(entry.signal) {
            let Some(score) = scores_of(&mut *detector, &[window])[0] else { continue };
            let evidence = detector.explain(&window, &score);
            assert!(!evidence.summary.is_empty(), "{}: no summary", entry.name);
            assert!(evidence.records.len() <= Evidence::MAX_RECORDS, "{}: too many records", entry.name);
            let records = records_of(&window);
            let in_window = |id| records.contains(&id);
            assert!(evidence.records.iter().copied().all(in_window), "{}: records of another window", entry.name);
            assert!(evidence.culprit.is_none_or(in_window), "{}: culprit of another window", entry.name);
            assert!(
                evidence.figures.values().all(|figure| figure.is_finite()),
                "{}: {:?}",
                entry.name,
                evidence.figures
            );
            assert!(evidence.expected.iter().all(|expected| (0.0..=1.0).contains(&expected.probability)));
        }
    }
}

/// Detectors that learn from a person's verdict. LogSed does, too; its tests have sessions that it can tell apart.
const LEARNERS: [&str; 8] =
    ["new-template", "length", "ngram", "count-vector", "common-kinds", "severe-incident", "deeplog", "ensemble"];

#[test]
fn an_accepted_session_is_normal_from_then_on_and_another_odd_one_is_not() {
    let odd = |name: &str, templates: &[u64]| {
        let mut session = Session::of(name, templates);
        let fatal = session.records.iter_mut().filter(|record| record.template.0 > 90);
        fatal.for_each(|record| record.severity_number = 21);
        session
    };
    // Too long, breaks off, with a step that nobody knows.
    let accepted = odd("accepted", &[&[11, 12, 21, 99, 22, 41, 42][..], &[42; 20][..]].concat());
    let another = |unseen: [u64; 2]| odd("another", &[&[11, 12, 21][..], &unseen.repeat(30)[..]].concat());
    let (before, after) = (another([97, 98]), another([95, 96]));
    // Long enough for whatever went on to be over.
    let quiet = Session::of("quiet", &[41; 300]);
    let value = |detector: &mut dyn Detector, session: &Session| {
        scores_of(detector, &[quiet.closed()]);
        scores_of(detector, &[session.closed()])[0].map_or(f64::NAN, |score| score.value)
    };
    for entry in REGISTRY.iter().filter(|entry| LEARNERS.contains(&entry.name)) {
        let (name, mut detector) = (entry.name, load(entry));
        let (version, cut) = (detector.version(), value(&mut *detector, &accepted));
        assert!(value(&mut *detector, &before) >= cut, "{name}");
        assert!(detector.accept(&accepted.closed(), cut) > 0, "{name} has learned nothing");
        assert_ne!(detector.version(), version, "{name}: it is another model");
        assert!(value(&mut *detector, &accepted) < cut, "{name}: what was accepted still scores {cut} or more");
        let odd_still = value(&mut *detector, &after);
        // DeepLog's scores are of single precision, and its update moves the last digits of all.
        assert!(
            odd_still >= cut - 1e-6 * cut.abs(),
            "{name}: it has learned too much: {odd_still} where {cut} was accepted"
        );
        assert_eq!(detector.accept(&accepted.closed(), cut), 0, "{name}: there is nothing to learn twice");
        let snapshot = detector.snapshot().expect("written");
        let mut again = entry.load(&Value::Null, &snapshot).expect("its own snapshot");
        assert_eq!(again.version(), detector.version(), "{name}");
        assert!(value(&mut *again, &accepted) < cut, "{name}: a restart forgets it");
    }
}

#[test]
fn odd_verdicts_do_not_upset_a_detector() {
    let sessions = [Session::of("empty", &[]), Session::of("one", &[11]), Session::of("unseen", &[900, u64::MAX])];
    let is_quick = |entry: &&Entry| !["deeplog", "ensemble"].contains(&entry.name);
    for entry in REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs).filter(is_quick) {
        let mut detector = load(entry);
        for session in &sessions {
            let n = session.records.len();
            for window in [session.closed(), session.window(0, false), session.window(n, true)] {
                for cut in [0.0, -1.0, f64::INFINITY, f64::NAN] {
                    detector.accept(&window, cut);
                }
            }
        }
        scores_of(&mut *detector, &later_windows(entry.signal));
    }
}

/// What a detector tells as time passes, in steps, of sessions that stop in the middle.
fn overdue_of(detector: &mut dyn Detector) -> Vec<Overdue> {
    const STEP: i64 = 1_000_000_000;
    assert_eq!(detector.advance(i64::MIN), [], "{}: before the first record", detector.name());
    let mut all = Vec::new();
    for (session, _) in LATER.iter() {
        let records = session.records[..session.records.len() / 2].to_vec();
        let Some(end) = records.last().map(|record| record.time_unix_nano) else { continue };
        let half = Session { key: session.key.clone(), records, numbers: Vec::new() };
        scores_of(detector, &[half.window(0, false)]);
        all.extend(detector.advance(end));
        all.extend(detector.advance(end + STEP));
        assert_eq!(detector.advance(end + STEP), [], "{}: told once", detector.name());
        assert_eq!(detector.advance(end), [], "{}: time does not run backwards", detector.name());
        for overdue in &all {
            let (name, score, window) = (detector.name(), overdue.score, overdue.window(TemplateTexts::NONE));
            assert!(score.value.is_finite() && score.culprit < overdue.records.len(), "{name}: {score:?}");
            assert!(overdue.records.iter().all(|record| (record.service as usize) < overdue.services.len()), "{name}");
            assert!(!detector.explain(&window, &score).summary.is_empty(), "{name}: no summary");
        }
    }
    all.extend(detector.advance(i64::MAX));
    let is_repeated = |(idx, overdue): (usize, &Overdue)| all[..idx].contains(overdue);
    assert!(!all.iter().enumerate().any(is_repeated), "{}: told twice", detector.name());
    all
}

#[test]
fn what_is_overdue_is_sound_explained_told_once_and_the_same_again() {
    for entry in REGISTRY.iter().filter(|entry| entry.signal == Signal::Logs) {
        assert_eq!(overdue_of(&mut *load(entry)), overdue_of(&mut *load(entry)), "{}", entry.name);
        // What ends is not overdue.
        let mut detector = load(entry);
        scores_of(&mut *detector, &LATER.iter().map(|(session, _)| session.window(0, false)).collect::<Vec<_>>());
        scores_of(&mut *detector, &LATER.iter().map(|(session, _)| session.closed()).collect::<Vec<_>>());
        assert_eq!(detector.advance(i64::MAX), [], "{}", entry.name);
    }
    // The training above is too short for deadlines.
    let entry = REGISTRY.iter().find(|entry| entry.name == "logsed").expect("it is listed");
    let training = synthetic(3, 600, 0.0);
    let windows: Vec<_> = training.iter().map(|(session, _)| session.closed()).collect();
    let mut fitted = entry.fit(&Value::Null, &windows, SEED).expect("six hundred suffice");
    let told = overdue_of(&mut *fitted);
    assert!(!told.is_empty(), "sessions that stop in the middle are overdue");
    let mut loaded = entry.load(&Value::Null, &fitted.snapshot().expect("written")).expect("its own snapshot");
    assert_eq!(overdue_of(&mut *loaded), told, "from its snapshot");
}
