use faultline_core::{Detector, Score, Window};
use serde_json::json;

use super::{Config, TaskInsight};
use crate::{
    algorithm::Algorithm,
    registry,
    testing::{TraceFixture, application, score_all},
};

/// Gateway, cart, stock. In half of the traces the cart has the answer in its cache and does not ask the stock.
fn trace(name: &str, cart_ms: i64, stock_ms: Option<i64>) -> TraceFixture {
    let stock = stock_ms.unwrap_or(0);
    let mut rows =
        vec![(None, "gateway", 0, (10 + cart_ms + stock) * 1_000), (Some(0), "cart", 4_000, (cart_ms + stock) * 1_000)];
    if stock_ms.is_some() {
        rows.push((Some(1), "stock", 5_000, stock * 1_000));
    }
    TraceFixture::of(name, &rows)
}

fn training() -> Vec<TraceFixture> {
    (0..200)
        .map(|idx| {
            let slack = idx % 5;
            let stock = (idx % 2 == 0).then_some(60 + slack);
            trace(&format!("t{idx}"), if stock.is_some() { 20 } else { 4 }, stock)
        })
        .collect()
}

fn model() -> super::Model {
    let training = training();
    let windows: Vec<Window<'_>> = training.iter().map(TraceFixture::window).collect();
    TaskInsight::fit(&Config::default(), &windows, 0).expect("there are traces")
}

fn score(model: &mut super::Model, trace: &TraceFixture) -> Score {
    score_all(model, &[trace.window()])[0].expect("it is judged")
}

#[test]
fn the_slow_task_is_named_and_not_those_that_wait_for_it() {
    let mut model = model();
    let usual = score(&mut model, &trace("usual", 20, Some(62))).value;
    let slow = trace("slow", 20, Some(400));
    let found = score(&mut model, &slow);
    assert!(usual < 3.0 && found.value > 3.0 * usual.max(1.0), "{usual} and {}", found.value);
    assert_eq!(found.culprit, 2);
    let evidence = model.explain(&slow.window(), &found);
    assert!(
        evidence
            .summary
            .starts_with("stock do spent 400.0 ms of its own, where its habits are 62.0 ms (100 %) on this path;"),
        "{}",
        evidence.summary
    );
    assert_eq!((evidence.culprit, evidence.records[0], evidence.figures["own_ms"]), (Some(3), 3, 400.0));
}

#[test]
fn a_slow_answer_from_the_cache_is_abnormal_though_others_take_longer() {
    let mut model = model();
    // 18 ms are quick for a cart that asks the stock, and slow for one that does not.
    let slow = trace("slow", 18, None);
    let found = score(&mut model, &slow);
    assert!(found.value > 2.0 * score(&mut model, &trace("usual", 4, None)).value.max(1.0), "{}", found.value);
    assert_eq!(found.culprit, 1);
    let summary = model.explain(&slow.window(), &found).summary;
    assert!(summary.contains("20.0 ms (50 %)") && summary.contains("4.0 ms (50 %)"), "{summary}");
}

#[test]
fn a_call_too_many_is_heard_where_it_is_made() {
    let mut rows = vec![(None, "gateway", 0, 90_000), (Some(0), "cart", 4_000, 80_000)];
    rows.extend((0..10).map(|idx| (Some(1), "stock", 5_000 + idx * 6_000, 6_000)));
    let loops = TraceFixture::of("loops", &rows);
    let mut model = model();
    let found = score(&mut model, &loops);
    assert_eq!(found.culprit, 1, "the cart asks ten times");
    let summary = model.explain(&loops.window(), &found).summary;
    assert!(summary.starts_with("cart do made 10 calls, where its habits are"), "{summary}");
}

#[test]
fn a_seldom_path_is_judged_as_its_operation_is_elsewhere() {
    let mut model = model();
    let rows = [(None, "batch", 0, 900_000), (Some(0), "stock", 1_000, 800_000)];
    let elsewhere = TraceFixture::of("elsewhere", &rows);
    let found = score(&mut model, &elsewhere);
    assert_eq!(found.culprit, 1);
    assert!(model.explain(&elsewhere.window(), &found).summary.contains("this path is seldom taken"));
    // Of what nobody knows nothing is said.
    let unknown = TraceFixture::of("unknown", &[(None, "batch", 0, 900_000)]);
    assert_eq!(score_all(&mut model, &[unknown.window()]), [None]);
}

#[test]
fn a_trace_without_all_its_spans_is_not_judged() {
    let mut cut = training().swap_remove(0);
    cut.n_dropped = 1;
    assert_eq!(score_all(&mut model(), &[cut.window(), TraceFixture::empty("none").window()]), [None, None]);
}

#[test]
fn failures_in_training_and_in_what_is_learned_do_not_become_habits() {
    let mut traces = training();
    // One in a hundred of those that ask the stock.
    traces.push(trace("slow", 20, Some(5_000)));
    let windows: Vec<Window<'_>> = traces.iter().map(TraceFixture::window).collect();
    let mut model = TaskInsight::fit(&Config::default(), &windows, 0).expect("there are traces");
    let slow = trace("slow", 20, Some(5_000));
    let before = score(&mut model, &slow).value;
    assert!(before > 8.0, "{before}");
    model.learn(&[slow.window()]);
    assert!(score(&mut model, &slow).value > 8.0);
    // What lasts is learned.
    (0..20).for_each(|_| model.learn(&[slow.window()]));
    assert!(score(&mut model, &slow).value < 3.0);
}

#[test]
fn what_a_person_calls_normal_is_from_then_on_and_after_a_restart() {
    let mut model = model();
    let slow = trace("slow", 20, Some(400));
    let (version, cut) = (model.version(), score(&mut model, &slow).value);
    assert_eq!(model.accept(&slow.window(), 0.0), 0, "nothing can score less than nothing");
    assert_eq!(model.accept(&slow.window(), f64::NAN), 0);
    assert!(model.accept(&slow.window(), cut) > 0);
    assert_ne!(model.version(), version);
    assert!(score(&mut model, &slow).value < cut);
    assert!(score(&mut model, &trace("slower", 20, Some(4_000))).value >= 0.5 * cut, "another is still slow");
    assert_eq!(model.accept(&slow.window(), cut), 0, "there is nothing to learn twice");
    let snapshot = model.snapshot().expect("written");
    let mut again = TaskInsight::load(&Config::default(), &snapshot).expect("its own");
    assert_eq!((again.version(), again.snapshot().expect("written")), (model.version(), snapshot));
    assert_eq!(score(&mut again, &slow), score(&mut model, &slow));
}

#[test]
fn a_flood_of_operations_takes_no_more_room_than_the_limit() {
    let flood: Vec<TraceFixture> = (0..3_000)
        .map(|idx| TraceFixture::of("flood", &[(None, format!("service {idx}").as_str(), 0, 5_000)]))
        .collect();
    let mut windows: Vec<Window<'_>> = flood.iter().map(TraceFixture::window).collect();
    let known = training();
    windows.extend(known.iter().map(TraceFixture::window));
    let config = Config { max_tasks: 100, ..Config::default() };
    let mut model = TaskInsight::fit(&config, &windows, 0).expect("there are traces");
    assert_eq!(model.tasks.len(), 100);
    model.learn(&windows);
    assert_eq!(model.tasks.len(), 100);
    assert_eq!(score(&mut model, &trace("slow", 20, Some(400))).culprit, 2, "the most frequent are known");
}

#[test]
fn an_application_whose_training_holds_failures_is_watched_all_the_same() {
    let training = application(3, 2_000, 0.01);
    let windows: Vec<Window<'_>> = training.iter().map(|(trace, _)| trace.window()).collect();
    let mut model = TaskInsight::fit(&Config::default(), &windows, 0).expect("there are traces");
    let mut scores = |seed: u64, share: f64| {
        let traces = application(seed, 500, share);
        let windows: Vec<Window<'_>> = traces.iter().map(|(trace, _)| trace.window()).collect();
        let values = score_all(&mut model, &windows).into_iter().map(|score| score.map_or(0.0, |score| score.value));
        values.collect::<Vec<f64>>()
    };
    let mut normal = scores(4, 0.0);
    normal.sort_unstable_by(f64::total_cmp);
    let threshold = normal[normal.len() * 97 / 100];
    let abnormal = scores(5, 1.0);
    let n_found = abnormal.iter().filter(|value| **value > threshold).count();
    assert!(n_found * 100 > abnormal.len() * 60, "{n_found} of {}", abnormal.len());
}

#[test]
fn values_out_of_range_are_refused_by_key() {
    let entry = registry::entry("task-insight").expect("it is listed");
    let windows = training();
    let windows: Vec<Window<'_>> = windows.iter().map(TraceFixture::window).collect();
    let Err(error) = entry.fit(&json!({"share": 0.7}), &windows, 0) else { panic!("no cluster could be a habit") };
    assert!(error.to_string().contains("key `share`"), "{error}");
}
