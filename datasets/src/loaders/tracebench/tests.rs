use std::fs;

use super::*;

const TRACE: &str = "TaskID,Title,NumReports,NumEdges,FirstSeen,LastUpdated,StartTime,EndTime\n";
const EVENT: &str = "TaskID,TID,OpName,StartTime,EndTime,HostAddress,HostName,Agent,Description\n";
const EDGE: &str = "TaskID,FatherTID,FatherStartTime,ChildTID\n";

fn write(root: &Path, name: &str, trace: &str, event: &str, edge: &str) {
    let folder = root.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("trace.csv"), format!("{TRACE}{trace}")).expect("written");
    fs::write(folder.join("event.csv"), format!("{EVENT}{event}")).expect("written");
    fs::write(folder.join("edge.csv"), format!("{EDGE}{edge}")).expect("written");
}

const MKDIR: &str = "T1,fs -mkdir,3,2,2013-10-28 23:12:29,2013-10-28 23:12:30,1000,9000\n";

/// A client whose clock began long ago asks a name node whose clock has just begun.
const ASKS: &str = "\
    T1,N,mkdirs,50,150,10.0.0.1,namenode,Namenode,Success: return(OW[class=boolean,value=true])\n\
    T1,C,RPC:mkdirs,1000000,1000400,10.0.0.2,client,RPC Client,Success: return(OW[class=boolean,value=true])\n\
    T1,U,fs -mkdir,999900,1000900,10.0.0.2,client,User,A user task\n";

#[test]
fn a_call_on_another_host_stands_in_the_middle_of_the_call_that_caused_it() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), "NM_CL_rpc_01C", MKDIR, ASKS, "T1,C,1000000,N\nT1,U,999900,C\n");
    let all = TraceBench::load(dir.path()).expect("loads");
    let trace = &all.collections[0].traces[0];
    let begin = trace.records[0].time_unix_nano;
    assert_eq!(begin, 1_383_001_949_000_000_000, "23:12:29 on 28 October 2013");
    let told: Vec<(i64, &str, &str)> = trace
        .records
        .iter()
        .map(|record| {
            let at = record.time_unix_nano - begin;
            (at, all.templates[record.template as usize].as_str(), all.services[record.service as usize].as_str())
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, "fs -mkdir begins", "user"),
            (100, "RPC:mkdirs begins", "rpc client"),
            (250, "mkdirs begins", "namenode"),
            (350, "mkdirs ends", "namenode"),
            (500, "RPC:mkdirs ends", "rpc client"),
            (1000, "fs -mkdir ends", "user"),
        ]
    );
    assert_eq!((trace.workload(), trace.is_touched), ("rpc", false));
}

#[test]
fn the_name_of_a_collection_tells_kind_and_severity() {
    let fault = |name: &str| Fault::of(name).expect("a fault");
    let slow = fault("AN_Net_slowDN_w_20ms_04FDN_30C_1to19B_0to600INT_15RT_5WT");
    assert_eq!(slow, Fault { kind: "slowDN_w".to_owned(), delay_ms: Some(20), n_nodes: Some(4) });
    assert_eq!((slow.level(), slow.is_injected()), (4, true));
    let zero = fault("AN_Net_slowHDFS_w_00ms_30C_1to19B_0to600INT_15RT_5WT");
    assert_eq!((zero.level(), zero.is_injected()), (0, false));
    assert_eq!(fault("AN_Net_slowHDFS_rpc_0400ms_30C_0to0INT_5RT_1WT").level(), 400);
    assert!(!fault("AN_Proc_killDN_w_00FDN_30C_1to19B_0to600INT_15RT_5WT").is_injected());
    assert_eq!(fault("COM_Sin_Bug_rwrpc_1_30C_1to5B_0to120INTR").kind, "bug_rwrpc");
    assert_eq!(Fault::of("NM_CL_w_05C_1to19B_0to600INT_50RT_10WT"), None);
}

#[test]
fn a_killed_node_touches_the_traces_that_report_a_failure_and_no_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let traces = "T1,fs -copyFromLocal,1,0,2013-10-28 23:12:31,x,0,0\n\
                  T2,fs -copyFromLocal,1,0,2013-10-28 23:12:30,x,0,0\n";
    let events = "T1,A,writeBlock,1,2,10.0.0.3,dn3,Datanode,Exception: java.net.ConnectException: refused, again\n\
                  T2,B,writeBlock,1,2,10.0.0.4,dn4,Datanode,SUCCESS: done\n";
    write(dir.path(), "AN_Proc_killDN_w_01FDN_30C", traces, events, "");
    write(dir.path(), "AN_Proc_killDN_w_00FDN_30C", traces, events, "");
    let all = TraceBench::load(dir.path()).expect("loads");
    let told = |name: &str| -> Vec<(String, bool, String)> {
        let collection = all.collections.iter().find(|one| one.name.contains(name)).expect("it is there");
        let last = |trace: &Trace| all.templates[trace.records[1].template as usize].clone();
        collection.traces.iter().map(|trace| (trace.id.clone(), trace.is_touched, last(trace))).collect()
    };
    let (fails, ends) = ("writeBlock fails: ConnectException".to_owned(), "writeBlock ends".to_owned());
    let expected =
        |is_touched| vec![("T2".to_owned(), false, ends.clone()), ("T1".to_owned(), is_touched, fails.clone())];
    assert_eq!(told("01FDN"), expected(true));
    assert_eq!(told("00FDN"), expected(false), "nothing was injected there");
}

#[test]
fn slowed_nodes_are_as_many_as_the_name_says_and_touch_what_they_wrote() {
    let dir = tempfile::tempdir().expect("a folder");
    let row = |trace: &str, node: u32, peer: u32, nanos: u32| {
        format!(
            "{trace},{trace}{node},OP: connect next Datanode,0,{nanos},10.0.0.{node},dn{node},Datanode,Success: connected \
             to 10.0.0.{peer}:50010\n"
        )
    };
    let traces: String =
        ["T1", "T2", "T3"].iter().map(|id| format!("{id},fs -copyFromLocal,1,0,2013-10-28 23:12:31,x,0,0\n")).collect();
    // Node 1 is slow; node 2 is so only where it talks to node 1.
    let events = [row("T1", 1, 2, 900), row("T2", 2, 3, 100), row("T3", 3, 2, 120), row("T3", 3, 1, 950)].concat();
    write(dir.path(), "AN_Net_slowDN_w_20ms_01FDN_30C", &traces, &events, "");
    let all = TraceBench::load(dir.path()).expect("loads");
    let touched: Vec<bool> = all.collections[0].traces.iter().map(|trace| trace.is_touched).collect();
    assert_eq!(touched, [true, false, false]);
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), "NM_CL_rpc_01C", MKDIR, "T1,N,mkdirs,x,150,a,h,Namenode,Success\n", "");
    let error = TraceBench::load(dir.path()).expect_err("no time").to_string();
    assert!(error.contains("event.csv:2") && error.contains("`x` is no time"), "{error}");
    let error =
        TraceBench::load(&dir.path().join("NM_CL_rpc_01C").join("none")).expect_err("nothing there").to_string();
    assert!(error.contains("none"), "{error}");
}
