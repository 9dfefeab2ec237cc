//! Small made-up applications; the real ones are in the crate's `tests/real_data.rs`.

use std::fs;

use super::*;

const SPANS: &str = "TraceID,SpanID,ParentID,PodName,OperationName,StartTimeUnixNano,EndTimeUnixNano,Duration\n";
const LOGS: &str = "Timestamp,TimeUnixNano,Node,PodName,Container,TraceID,SpanID,Log\n";
const METRICS: &str = "Time,TimeStamp,PodName,CpuUsage(m),PodWorkload(Ops)\n";
const POD: &str = "ts-basic-service-5dc8d4f9fd-46997";

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
}

fn span_row(trace: &str, span: &str, parent: &str, start: i64, end: i64) -> String {
    format!("{trace},{span},{parent},{POD},/*,{start},{end},0\n")
}

/// One day with three minutes and a fault, one minute without one.
fn application() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let first = [span_row("t1", "b", "a", 30, 40), span_row("t1", "a", "root", 20, 50)].concat();
    write(root, "rca_data/2023-01-29/trace/08_43_trace.csv", &format!("{SPANS}{first}"));
    let second = [first.as_str(), &span_row("t2", "a", "root", 70, 60)].concat();
    write(root, "rca_data/2023-01-29/trace/08_44_trace.csv", &format!("{SPANS}{second}"));
    write(root, "more/2023-01-29/trace/08_46_trace.csv", &format!("{SPANS}{second}"));
    write(root, "construct_data/2023-01-29/trace/08_40_trace.csv", SPANS);
    let log = |stamp: &str, time: i64, text: &str| {
        format!("{stamp},{time},33.33.33.1,{POD},server,t1,a,\"{}\"\n", text.replace('"', "\"\""))
    };
    let logs = [
        log("2023-01-29T08:42:22Z", 9, r#"{"log":"16:42 INFO said \"hi, you\"\n","stream":"stdout"}"#),
        log("1970-01-01T00:00:00.000000007", -6_795_364_578_871_345_152, r#"{"log":"no time\n"}tail of another, "#),
        log("2023-01-29T08:42:22Z", 8, "no JSON"),
    ];
    write(root, "rca_data/2023-01-29/log/08_44_log.csv", &format!("{LOGS}{}", logs.concat()));
    write(root, "rca_data/2023-01-29/traceid/08_44_traceid.csv", "t1\n");
    let faults = format!(
        r#"{{"09": [{{"inject_time": "2023-01-29 09:03:53", "inject_timestamp": "1", "inject_pod": "frontend", "inject_type": "return"}}],
            "08": [{{"inject_time": "2023-01-29 08:43:04", "inject_timestamp": "1", "inject_pod": "{POD}", "inject_type": "exception"}}]}}"#
    );
    write(root, "rca_data/2023-01-29/2023-01-29-fault_list.json", &faults);
    let cells = [("120", "2", "NaN"), ("60", "1", "ssh7.5"), ("180", "", "9"), ("120", "3", "8")];
    let rows: String = cells.iter().map(|(time, cpu, load)| format!("t,{time},{POD},{cpu},{load}\n")).collect();
    write(root, &format!("rca_data/2023-01-29/metric/{POD}_metric.csv"), &format!("{METRICS}{rows}"));
    write(
        root,
        "warm_up_metric/0127/front_service.csv",
        "Time,TimeStamp,ServiceName,SuccessRate(%)\nt,60,Frontend,100\n",
    );
    folder
}

#[test]
fn minutes_faults_and_days_are_found_and_in_order() {
    let folder = application();
    let nezha = Nezha::load(folder.path()).expect("loads");
    let faults: Vec<_> = nezha.faults.iter().map(|fault| (fault.service(), fault.kind.as_str())).collect();
    assert_eq!(faults, [("ts-basic-service", "exception"), ("frontend", "return")]);
    let [first, second] = nezha.faults.as_slice() else { panic!("{faults:?}") };
    assert_eq!(first.time_unix_nano, 1_674_981_784_000_000_000);
    let minutes: Vec<_> =
        nezha.minutes.iter().map(|minute| (minute.has_spans(), minute.has_logs(), minute.is_fault_free)).collect();
    assert_eq!(minutes, [(true, false, true), (true, false, false), (true, true, false), (true, false, false)]);
    assert_eq!(nezha.minutes[1].time_unix_nano - nezha.minutes[0].time_unix_nano, 3 * MINUTE_NANOS);
    assert_eq!(nezha.minutes_of(first), &nezha.minutes[1..3]);
    assert!(nezha.minutes_of(second).is_empty());
    assert_eq!(nezha.fault_before(nezha.minutes[1].time_unix_nano), None);
    assert_eq!(nezha.fault_before(nezha.minutes[2].time_unix_nano), Some(first));
    let days: Vec<_> =
        nezha.metric_days.iter().map(|day| (day.name.as_str(), day.is_fault_free, day.n_pods())).collect();
    assert_eq!(days, [("warm_up_metric/0127", true, 0), ("rca_data/2023-01-29/metric", false, 1)]);
}

#[test]
fn records_come_minute_by_minute_and_once() {
    let folder = application();
    let nezha = Nezha::load(folder.path()).expect("loads");
    let all: Vec<MinuteRecords> = records(&nezha.minutes).collect::<Result<_, _>>().expect("readable");
    let shown: Vec<_> = all.iter().map(|it| (it.spans.len(), it.logs.len(), it.n_repeated, it.is_fault_free)).collect();
    assert_eq!(shown, [(0, 0, 0, true), (2, 0, 0, false), (1, 3, 2, false), (0, 0, 3, false)]);
    let [a, b] = all[1].spans.as_slice() else { panic!("{:?}", all[1].spans) };
    assert_eq!((a.span_id.as_str(), a.parent_id.as_deref(), a.start_unix_nano), ("a", None, 20));
    assert_eq!((b.span_id.as_str(), b.parent_id.as_deref(), b.end_unix_nano), ("b", Some("a"), 40));
    assert_eq!((a.service(), a.operation.as_str()), ("ts-basic-service", "/*"));
    let late = &all[2].spans[0];
    assert_eq!((late.start_unix_nano, late.end_unix_nano), (70, 70), "never shorter than nothing");
    let logs: Vec<_> = all[2].logs.iter().map(|log| (log.time_unix_nano, log.body.as_str())).collect();
    assert_eq!(logs, [(7, "no time"), (8, "no JSON"), (9, "16:42 INFO said \"hi, you\"")]);
    assert_eq!((all[2].logs[0].service(), all[2].logs[0].trace_id.as_str()), ("ts-basic-service", "t1"));
    // A part of them forgets what came before.
    let last = records(&nezha.minutes[3..]).next().expect("a minute").expect("readable");
    assert_eq!((last.spans.len(), last.n_repeated), (3, 0));
}

#[test]
fn metrics_are_in_order_of_time_with_gaps() {
    let folder = application();
    let nezha = Nezha::load(folder.path()).expect("loads");
    let [calm, day] = nezha.metric_days.as_slice() else { panic!("{:?}", nezha.metric_days) };
    let pods: Vec<PodMetrics> = day.pods().collect::<Result<_, _>>().expect("readable");
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    assert_eq!((pod.pod.as_str(), pod.service()), (POD, "ts-basic-service"));
    assert_eq!(pod.columns, ["CpuUsage(m)", "PodWorkload(Ops)"]);
    let shown = |column: &str| -> Vec<(i64, String)> {
        let series = pod.series(column).expect("a column");
        series.map(|(time, value)| (time / 1_000_000_000, value.to_string())).collect()
    };
    assert_eq!(shown("CpuUsage(m)"), [(60, "1".to_owned()), (120, "3".to_owned()), (180, "NaN".to_owned())]);
    assert_eq!(shown("PodWorkload(Ops)"), [(60, "NaN".to_owned()), (120, "8".to_owned()), (180, "9".to_owned())]);
    assert!(pod.series("PodName").is_none());
    assert_eq!(day.front().expect("readable"), None);
    let front = calm.front().expect("readable").expect("there");
    assert_eq!((front.pod.as_str(), front.values.as_slice()), ("Frontend", &[100.0][..]));
}

#[test]
fn services_are_pods_without_what_kubernetes_adds() {
    for (pod, service) in [
        ("ts-basic-service-5dc8d4f9fd-46997", "ts-basic-service"),
        ("adservice-5f6585d649-fnmft", "adservice"),
        ("ts-food-service-f5756978c-k8vqf", "ts-food-service"),
        ("frontend", "frontend"),
        ("front-service-other", "front-service-other"),
        ("redis-cart-0", "redis-cart-0"),
        ("a-5dc8d4f9fd-46997x", "a-5dc8d4f9fd-46997x"),
    ] {
        assert_eq!(service_of(pod), service);
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = application();
    let root = folder.path();
    let refused = || {
        let nezha = Nezha::load(root)?;
        records(&nezha.minutes).try_for_each(|minute| minute.map(|_| ()))?;
        nezha.metric_days.iter().flat_map(MetricDay::pods).try_for_each(|pod| pod.map(|_| ()))
    };
    let expect = |expected: &str| {
        let error = refused().expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused().expect("as it was written it is readable");
    let metric = format!("rca_data/2023-01-29/metric/{POD}_metric.csv");
    write(root, &metric, &format!("{METRICS}t,60,{POD},1,2\nt,x,{POD},1,2\n"));
    expect("_metric.csv:3: `x` is no time");
    write(root, &metric, &format!("{METRICS}t,60,{POD},1,2\nt,60,other,1,2\n"));
    expect("`other` among the metrics of `ts-basic-service");
    let log = "rca_data/2023-01-29/log/08_44_log.csv";
    write(root, log, &format!("{LOGS}a,b,c\n"));
    expect("08_44_log.csv:2: 3 fields, expected 8");
    write(root, log, SPANS);
    expect("08_44_log.csv:1: the columns are not Timestamp,TimeUnixNano");
    let trace = "rca_data/2023-01-29/trace/08_44_trace.csv";
    write(root, trace, &format!("{SPANS}t,s,root,p,o,x,1,1\n"));
    expect("08_44_trace.csv:2: `x` is no time");
    write(root, "rca_data/2023-01-29/trace/8h_trace.csv", SPANS);
    expect("8h_trace.csv: not HH_MM below a folder YYYY-MM-DD");
    fs::remove_file(root.join("rca_data/2023-01-29/trace/8h_trace.csv")).expect("removed");
    write(root, "rca_data/2023-01-29/2023-01-29-fault_list.json", r#"{"08": [{"inject_time": "now"}]}"#);
    expect("fault_list.json:1: no list of faults");
    let empty = tempfile::tempdir().expect("a folder");
    assert!(Nezha::load(empty.path()).is_err());
}
