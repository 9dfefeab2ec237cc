//! The evaluation protocols by name: what each needs, whether this version runs it, what others published under it,
//! and how data is split in time.
//!
//! A split is by position in time, never by chance: the training part comes first, then the part on which thresholds
//! are fixed, then the test part, which is read last. Published figures are quoted with their source; where a figure is
//! about another split or another choice of the same data, its source says so.

use std::ops::Range;

use crate::{published, remarks};

/// One evaluation protocol.
#[derive(Debug)]
pub struct ProtocolInfo {
    /// Name, as in `faultline eval <name>`.
    pub name: &'static str,
    /// What is trained on, what is tested, what counts as a hit.
    pub summary: &'static str,
    /// Dataset it runs on, as in the catalogue.
    pub dataset: &'static str,
    /// What must be in the dataset, in words.
    pub needs: &'static str,
    /// Whether this version runs it.
    pub status: Status,
    /// Figures to compare with.
    pub published: &'static [Published],
    /// What a reader of its results has to know, in Markdown; empty where the summary says it all.
    pub remarks: &'static str,
}

/// Whether this version runs a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `faultline eval` runs it.
    Available,
    /// Listed so that its name and needs are known; a later version runs it.
    Later,
}

impl ProtocolInfo {
    /// Whether `faultline eval` runs it in this version.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.status == Status::Available
    }
}

/// A figure somebody else published under a protocol, or a trivial baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Method.
    pub name: &'static str,
    /// Published precision.
    pub precision: Option<f64>,
    /// Published recall.
    pub recall: Option<f64>,
    /// Published F1.
    pub f1: Option<f64>,
    /// Published grouping accuracy.
    pub ga: Option<f64>,
    /// Published F1 of grouping accuracy.
    pub fga: Option<f64>,
    /// Published parsing accuracy.
    pub pa: Option<f64>,
    /// Published F1 over templates.
    pub fta: Option<f64>,
    /// Other published figures, by the names they have in result rows: `auprc`, `kd7_f1`, `vus_pr`, `nab_standard`, `ac_at_1`.
    pub extra: &'static [(&'static str, f64)],
    /// Where it is published.
    pub source: &'static str,
}

impl Published {
    /// The figure of this name in [`Published::extra`].
    #[must_use]
    pub fn extra_number(&self, name: &str) -> Option<f64> {
        self.extra.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

pub(crate) const EMPTY: Published = Published {
    name: "",
    precision: None,
    recall: None,
    f1: None,
    ga: None,
    fga: None,
    pa: None,
    fta: None,
    extra: &[],
    source: "",
};

const fn prf(name: &'static str, precision: f64, recall: f64, f1: f64, source: &'static str) -> Published {
    Published { name, precision: Some(precision), recall: Some(recall), f1: Some(f1), source, ..EMPTY }
}

const fn f1(name: &'static str, f1: f64, source: &'static str) -> Published {
    Published { name, f1: Some(f1), source, ..EMPTY }
}

const fn ga(name: &'static str, ga: f64, source: &'static str) -> Published {
    Published { name, ga: Some(ga), source, ..EMPTY }
}

const LANDAUER: &str = "Landauer et al. 2024, HDFS (LogDeep)";
const LOGDEEP: &str = "logdeep README";
const LOGAD_COMP: &str = "LogADComp 2025, offset 0";
const LE_ZHANG: &str = "Le and Zhang 2022, chronological 20-line windows";

const HDFS_DEEPLOG: &[Published] = &[
    prf("DeepLog", 0.95, 0.96, 0.96, "Du et al. 2017"),
    prf("DeepLog (logdeep)", 0.9583, 0.9330, 0.9454, LOGDEEP),
    prf("LogAnomaly", 0.9690, 0.9825, 0.9757, LOGDEEP),
    prf("LogRobust (supervised)", 0.9216, 0.9586, 0.9397, LOGDEEP),
    prf("FlexFringe", 0.78, 1.00, 0.88, "FlexFringe on the DeepLog split"),
    f1("new event", 0.633, LANDAUER),
    f1("length", 0.541, LANDAUER),
    f1("event + length", 0.904, LANDAUER),
    f1("ECVC", 0.960, LANDAUER),
    f1("event + length + ECVC", 0.988, LANDAUER),
    f1("2-gram", 0.852, LANDAUER),
    f1("3-gram", 0.815, LANDAUER),
    f1("edit distance", 0.718, LANDAUER),
];

const HDFS_CHRONO: &[Published] = &[
    f1("DeepLog", 0.917, LOGAD_COMP),
    f1("LogAnomaly", 0.919, LOGAD_COMP),
    f1("PCA", 0.842, LOGAD_COMP),
    f1("SVM (supervised)", 0.886, LOGAD_COMP),
    f1("LogRobust (supervised)", 0.878, LOGAD_COMP),
    f1("LogBERT", 0.350, LOGAD_COMP),
    f1("DeepLog, mean of ten offsets", 0.510, "LogADComp 2025"),
    f1("LogAnomaly, mean of ten offsets", 0.398, "LogADComp 2025"),
    f1("PCA, mean of ten offsets", 0.301, "LogADComp 2025"),
];

const BGL_WINDOWS: &[Published] = &[
    f1("DeepLog", 0.227, LE_ZHANG),
    f1("LogAnomaly", 0.239, LE_ZHANG),
    f1("PLELog", 0.708, LE_ZHANG),
    f1("LogRobust (supervised)", 0.753, LE_ZHANG),
    f1("CNN (supervised)", 0.767, LE_ZHANG),
];

const LOGPARSER: &str = "logparser README, presets per system, mean of 16";

const LOGHUB_2K: &[Published] = &[
    ga("Drain", 0.8654, LOGPARSER),
    ga("Brain", 0.983, LOGPARSER),
    ga("DivLog (LLM)", 0.920, LOGPARSER),
    ga("Spell", 0.793, LOGPARSER),
    ga("AEL", 0.791, LOGPARSER),
    ga("IPLoM", 0.756, LOGPARSER),
    Published {
        name: "Drain, Loghub-2.0 labels",
        ga: Some(0.85),
        fga: Some(0.74),
        pa: Some(0.32),
        fta: Some(0.28),
        source: "Jiang et al. 2024, other labels of the same lines",
        ..EMPTY
    },
];

const LANDAUER_HADOOP: &str = "Landauer et al. 2024, Hadoop by container, another split";

const HADOOP: &[Published] = &[
    f1("flag everything (trivial)", 0.915, LANDAUER_HADOOP),
    f1("new event", 0.288, LANDAUER_HADOOP),
    f1("ECVC", 0.915, LANDAUER_HADOOP),
];

const OPENSTACK: &[Published] = &[f1("DeepLog", 0.98, "Du et al. 2017")];

const LABELLED_SERIES: &str = "a table of timestamp,value,label (.csv) for each series";
const NEZHA_SPANS: &str = "<day>/trace/HH_MM_trace.csv and a fault list with time, pod and kind";
const MACHINES: &str = "train/<machine>, test/<machine> and test_label/<machine>, a line of values a row";

/// Every protocol, in the order `faultline eval --list` shows them.
pub const PROTOCOLS: &[ProtocolInfo] = &[
    ProtocolInfo {
        name: "hdfs-deeplog",
        summary: "DeepLog's split: fit on its 4,855 normal sessions, judge every session of its test files; a session \
                  is anomalous when any of its windows is",
        dataset: "hdfs",
        needs: "three session files (train, test normal, test abnormal), one line of event numbers a session",
        status: Status::Available,
        published: HDFS_DEEPLOG,
        remarks: remarks::HDFS_DEEPLOG,
    },
    ProtocolInfo {
        name: "hdfs-chrono",
        summary: "all sessions in order of first appearance: train 1 %, calibrate 10 %, test the rest, over ten offsets",
        dataset: "hdfs",
        needs: "the chronological, labelled session table (idx, label, truncated, block id, events)",
        status: Status::Available,
        published: HDFS_CHRONO,
        remarks: remarks::HDFS_CHRONO,
    },
    ProtocolInfo {
        name: "hdfs-raw",
        summary: "raw interleaved lines with times, from bytes to alerts: fit on the first 30 % of the lines, judge \
                  the blocks that first appear after them",
        dataset: "hdfs",
        needs: "a raw HDFS log and a `BlockId,Label` file",
        status: Status::Available,
        published: &[],
        remarks: remarks::HDFS_RAW,
    },
    ProtocolInfo {
        name: "bgl-windows",
        summary: "event stream in order, windows of 20 stride 10: the whole stream fitted on its first 1 %; the second half of \
                  BGL fitted on its own first 1 %, and on everything before it",
        dataset: "bgl",
        needs: "event ids in order (ten a line), one label a window, a template table beside them for severities",
        status: Status::Available,
        published: BGL_WINDOWS,
        remarks: remarks::BGL_WINDOWS,
    },
    ProtocolInfo {
        name: "bgl-lines",
        summary: "lines in order with an alert label each: fit on the first 1 %, judge the rest line by line; then the alerts \
                  a user gets by default, and how many bursts of alert lines they hit",
        dataset: "bgl",
        needs: "a table of event id and line label, a template table beside it for severities",
        status: Status::Available,
        published: &[],
        remarks: remarks::BGL_LINES,
    },
    ProtocolInfo {
        name: "hadoop",
        summary: "raw container logs of MapReduce applications, one session a container: fit on the normal applications that \
                  come first, judge those that begin after them, by container and by application; most are abnormal, \
                  so balanced accuracy and AUPRC decide",
        dataset: "hadoop",
        needs: "raw container logs in a folder for each application, and abnormal_label.txt",
        status: Status::Available,
        published: HADOOP,
        remarks: remarks::HADOOP,
    },
    ProtocolInfo {
        name: "openstack",
        summary: "DeepLog's OpenStack sequences by virtual machine instance: fit on the 19 normal ones of its training file, \
                  judge every one of its test files",
        dataset: "openstack",
        needs: "three session files (train, test normal, test abnormal)",
        status: Status::Available,
        published: OPENSTACK,
        remarks: remarks::OPENSTACK,
    },
    ProtocolInfo {
        name: "loghub-2k",
        summary: "parsing accuracy on 16 systems of 2,000 lines: grouping (GA, FGA) and template text (PA, FTA), \
                  original labels",
        dataset: "loghub_2k",
        needs: "`<System>_2k.log_structured.csv` for each system",
        status: Status::Available,
        published: LOGHUB_2K,
        remarks: remarks::LOGHUB_2K,
    },
    ProtocolInfo {
        name: "tracebench",
        summary: "HDFS v3 TraceBench: fit on the first 45 % of each normal collection, fix thresholds on the next 20 %, judge \
                  the rest and every trace with an injected fault, by fault kind and severity",
        dataset: "hdfs_tracebench",
        needs: "event.csv, edge.csv and trace.csv in a folder for each collection (NM_*, AN_*, COM_*)",
        status: Status::Available,
        published: &[],
        remarks: remarks::TRACEBENCH,
    },
    ProtocolInfo {
        name: "aiops",
        summary: "20 KPIs of the AIOps Challenge 2018, a minute or five apart: thresholds from the first half without labels, \
                  the second half judged point by point; the kd7 rule, VUS-PR and alerts a day beside it",
        dataset: "aiops2018_kpi",
        needs: LABELLED_SERIES,
        status: Status::Available,
        published: published::AIOPS,
        remarks: remarks::AIOPS,
    },
    ProtocolInfo {
        name: "wsd",
        summary: "40 KPIs of web services with gaps, judged as `aiops`",
        dataset: "wsd_slice60",
        needs: LABELLED_SERIES,
        status: Status::Available,
        published: published::WSD,
        remarks: remarks::WSD,
    },
    ProtocolInfo {
        name: "nab",
        summary: "58 series under NAB's own scorer, replayed from their first row: a threshold fixed beforehand, one from the \
                  other half of the files, and NAB's own, which is chosen on the labels it is judged by",
        dataset: "nab",
        needs: "`<category>/<series>.csv` of timestamp,value and combined_windows.json",
        status: Status::Available,
        published: published::NAB,
        remarks: remarks::NAB,
    },
    ProtocolInfo {
        name: "smd",
        summary: "4 machines of 38 metrics: fit and threshold from the training part, which has no labels, judge the test part row \
                  by row",
        dataset: "smd_slice6",
        needs: MACHINES,
        status: Status::Available,
        published: published::SMD,
        remarks: remarks::MACHINES,
    },
    ProtocolInfo {
        name: "asd",
        summary: "8 servers of 19 metrics, judged as `smd`",
        dataset: "asd_interfusion",
        needs: MACHINES,
        status: Status::Available,
        published: &[],
        remarks: remarks::MACHINES,
    },
    ProtocolInfo {
        name: "donut",
        summary: "cpu4 and three more labelled KPIs, judged as `aiops`",
        dataset: "donut_bagel_samples",
        needs: LABELLED_SERIES,
        status: Status::Available,
        published: &[],
        remarks: remarks::SERIES,
    },
    ProtocolInfo {
        name: "traceanomaly",
        summary: "TrainTicket's service trace vectors: fit on the normal ones whose id begins with 0 to 7, fix four thresholds on 8 \
                  and 9, judge the other normal ones and all abnormal ones",
        dataset: "traceanomaly_trainticket",
        needs: "test_normal and test_abnormal, a line `id:v1,v2,...` a trace",
        status: Status::Available,
        published: published::TRACEANOMALY,
        remarks: remarks::TRACEANOMALY,
    },
    ProtocolInfo {
        name: "nezha",
        summary: "Nezha's TrainTicket, spans and logs in event time: fit on the minutes that are given as free of faults, \
                  say which of the others have one of 27 injected faults",
        dataset: "nezha_trainticket",
        needs: "<day>/trace/HH_MM_trace.csv and <day>/log/HH_MM_log.csv, those without a fault below construct_data, and \
                a fault list",
        status: Status::Available,
        published: &[],
        remarks: remarks::NEZHA,
    },
    later(
        "nezha-tt",
        "root cause of 27 TrainTicket faults: AC@1/3/5 and Avg@5 by service",
        "nezha_trainticket",
        published::NEZHA_TT,
    ),
    later(
        "nezha-ob",
        "root cause of 24 OnlineBoutique faults by service",
        "onlineboutique_nezha_trastrainer",
        published::NEZHA_OB,
    ),
    later("rcd", "root cause on Sock Shop: 5 services, cpu and mem, 3 repetitions", "rcd_sockshop", &[]),
    later("petshop", "root cause of labelled issues in 41 components, low and high traffic", "petshop", &[]),
    later(
        "rootcausebench",
        "16 incidents with alerts, logs, metrics, traces and the right remediation",
        "rootcausebench",
        &[],
    ),
    ProtocolInfo {
        name: "nezha-supervised",
        summary: "models that learn from known faults, on Nezha's TrainTicket: which traces were disturbed, by which service and by \
                  what, and which service causes the next slow stretch; first day to last, and in folds by fault",
        dataset: "nezha_trainticket",
        needs: NEZHA_SPANS,
        status: Status::Available,
        published: &[],
        remarks: remarks::NEZHA_SUPERVISED,
    },
    ProtocolInfo {
        name: "nezha-ob-supervised",
        summary: "the same on OnlineBoutique, of which one day is given: in folds by fault",
        dataset: "onlineboutique_nezha_trastrainer",
        needs: NEZHA_SPANS,
        status: Status::Available,
        published: &[],
        remarks: remarks::NEZHA_SUPERVISED,
    },
];

const fn later(
    name: &'static str,
    summary: &'static str,
    dataset: &'static str,
    published: &'static [Published],
) -> ProtocolInfo {
    let needs = "the dataset as published";
    ProtocolInfo { name, summary, dataset, needs, status: Status::Later, published, remarks: "" }
}

/// The protocol of this name.
#[must_use]
pub fn protocol(name: &str) -> Option<&'static ProtocolInfo> {
    PROTOCOLS.iter().find(|protocol| protocol.name == name)
}

/// Three consecutive stretches of `n` items in time order. Together they are all of them, in order, without overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Fit vocabulary, masks, scaling and weights on these.
    pub train: Range<usize>,
    /// Fix thresholds on these; empty where a protocol has no such part.
    pub calibrate: Range<usize>,
    /// Judge these.
    pub test: Range<usize>,
}

impl Split {
    /// Splits `n` items by shares of the whole, rounding down; shares outside 0 to 1 are clamped.
    #[must_use]
    pub fn chronological(n: usize, train_share: f64, calibrate_share: f64) -> Self {
        let at = |share: f64| (n as f64 * share.clamp(0.0, 1.0)) as usize;
        let train = at(train_share);
        let calibrate = at(train_share + calibrate_share).max(train);
        Self { train: 0..train, calibrate: train..calibrate, test: calibrate..n }
    }
}

/// The `k`-th of `n_offsets` cyclic rotations of `n` items: time order from a later start, the early items after the
/// late ones. Drift makes results differ by offset, so a protocol that averages over offsets is the honest one.
pub fn rotation(n: usize, k: usize, n_offsets: usize) -> impl Iterator<Item = usize> + Clone {
    let n_offsets = n_offsets.max(1);
    let start = n * (k % n_offsets) / n_offsets;
    (start..n).chain(0..start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_protocol_of_the_command_is_listed_once() {
        let names: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.name).collect();
        assert_eq!(
            names.join(" "),
            "hdfs-deeplog hdfs-chrono hdfs-raw bgl-windows bgl-lines hadoop openstack loghub-2k tracebench aiops wsd \
             nab smd asd donut traceanomaly nezha nezha-tt nezha-ob rcd petshop rootcausebench \
             nezha-supervised nezha-ob-supervised"
        );
    }

    #[test]
    fn every_protocol_names_a_dataset_of_the_catalogue() {
        for protocol in PROTOCOLS {
            assert!(crate::catalog::dataset(protocol.dataset).is_ok(), "{}", protocol.dataset);
        }
    }

    #[test]
    fn every_published_figure_names_its_source_and_lies_in_the_unit_interval() {
        for figure in PROTOCOLS.iter().flat_map(|protocol| protocol.published) {
            assert!(!figure.source.is_empty() && !figure.name.is_empty(), "{figure:?}");
            let values = [figure.precision, figure.recall, figure.f1, figure.ga, figure.fga, figure.pa, figure.fta];
            assert!(values.iter().flatten().all(|value| (0.0..=1.0).contains(value)), "{figure:?}");
            assert!(values.iter().any(Option::is_some) || !figure.extra.is_empty(), "{figure:?}");
            // NAB's scores are of a hundred.
            let is_share = |(name, value): &(&str, f64)| name.starts_with("nab_") || (0.0..=1.0).contains(value);
            assert!(figure.extra.iter().all(is_share), "{figure:?}");
        }
    }

    #[test]
    fn the_chronological_split_of_hdfs_is_one_and_ten_percent() {
        let split = Split::chronological(575_061, 0.01, 0.10);
        assert_eq!((split.train, split.calibrate, split.test), (0..5_750, 5_750..63_256, 63_256..575_061));
    }

    proptest! {
        #[test]
        fn a_split_covers_everything_in_order(n in 0usize..10_000, a in -0.5f64..1.5, b in 0.0f64..1.5) {
            let split = Split::chronological(n, a, b);
            prop_assert_eq!(split.train.start, 0);
            prop_assert_eq!(split.train.end, split.calibrate.start);
            prop_assert_eq!(split.calibrate.end, split.test.start);
            prop_assert_eq!(split.test.end, n);
        }

        #[test]
        fn a_rotation_is_a_permutation(n in 0usize..500, k in 0usize..20) {
            let mut order: Vec<usize> = rotation(n, k, 10).collect();
            prop_assert_eq!(order.len(), n);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..n));
        }
    }
}
