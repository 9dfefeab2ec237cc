//! What others published under the protocols about series, traces and root causes. None of it was measured here.
//!
//! None of the choices of data is quite ours: sources say whose it is. What was read only in somebody's table is quoted from
//! there, and what nobody here has read again says "from memory".

use crate::protocol::{EMPTY, Published};

const fn extra(name: &'static str, extra: &'static [(&'static str, f64)], source: &'static str) -> Published {
    Published { name, extra, source, ..EMPTY }
}

const REN: &str = "Ren et al. 2019, one threshold for all KPIs, other split; from memory";
const TSB_IOPS: &str = "TSB-AD 2024, mean of its own 15 of the KPIs";
const TSB_WSD: &str = "TSB-AD 2024, mean of its own 20 of the KPIs";
const TSB_SMD: &str = "TSB-AD 2024, mean of its own 20 of machines";

pub(crate) const AIOPS: &[Published] = &[
    extra("SPOT", &[("kd7_f1", 0.217)], REN),
    extra("DSPOT", &[("kd7_f1", 0.521)], REN),
    extra("Donut", &[("kd7_f1", 0.347)], REN),
    extra("SR", &[("kd7_f1", 0.622)], REN),
    extra("SR-CNN", &[("kd7_f1", 0.771)], REN),
    extra("Donut", &[("vus_pr", 0.103)], TSB_IOPS),
    extra("OmniAnomaly", &[("vus_pr", 0.195)], TSB_IOPS),
    extra("Sub-PCA", &[("vus_pr", 0.227)], TSB_IOPS),
    extra("SR", &[("vus_pr", 0.245)], TSB_IOPS),
    extra("AutoEncoder", &[("vus_pr", 0.255)], TSB_IOPS),
    extra("CNN", &[("vus_pr", 0.260)], TSB_IOPS),
    extra("POLY", &[("vus_pr", 0.310)], TSB_IOPS),
    extra("MOMENT-FT", &[("vus_pr", 0.377)], TSB_IOPS),
];

pub(crate) const WSD: &[Published] = &[
    extra("Donut", &[("vus_pr", 0.061)], TSB_WSD),
    extra("Sub-PCA", &[("vus_pr", 0.094)], TSB_WSD),
    extra("OmniAnomaly", &[("vus_pr", 0.139)], TSB_WSD),
    extra("AutoEncoder", &[("vus_pr", 0.141)], TSB_WSD),
    extra("SR", &[("vus_pr", 0.221)], TSB_WSD),
    extra("CNN", &[("vus_pr", 0.245)], TSB_WSD),
    extra("POLY", &[("vus_pr", 0.411)], TSB_WSD),
    extra("MOMENT-FT", &[("vus_pr", 0.500)], TSB_WSD),
];

pub(crate) const SMD: &[Published] = &[
    extra("RobustPCA", &[("vus_pr", 0.097)], TSB_SMD),
    extra("OmniAnomaly", &[("vus_pr", 0.174)], TSB_SMD),
    extra("Donut", &[("vus_pr", 0.194)], TSB_SMD),
    extra("AutoEncoder", &[("vus_pr", 0.301)], TSB_SMD),
    extra("LSTMAD", &[("vus_pr", 0.325)], TSB_SMD),
    extra("CNN", &[("vus_pr", 0.353)], TSB_SMD),
    extra("PCA", &[("vus_pr", 0.364)], TSB_SMD),
];

const SCOREBOARD: &str = "NAB, final_results.json; threshold chosen on the labels";

/// The scores of a detector under the three profiles.
macro_rules! nab {
    ($name:literal, $standard:literal, $low_fp:literal, $low_fn:literal) => {
        extra($name, &[("nab_standard", $standard), ("nab_low_fp", $low_fp), ("nab_low_fn", $low_fn)], SCOREBOARD)
    };
}

pub(crate) const NAB: &[Published] = &[
    nab!("ARTime", 74.9, 65.2, 80.4),
    nab!("Numenta HTM", 70.1, 63.1, 74.3),
    nab!("CAD-OSE", 69.9, 67.0, 73.2),
    nab!("htm.java", 65.5, 53.3, 70.4),
    nab!("NumentaTM", 64.6, 56.7, 69.2),
    nab!("EarthGecko Skyline", 58.2, 46.2, 63.8),
    nab!("KNN-CAD", 58.0, 43.4, 64.8),
    nab!("RelativeEntropy", 54.6, 47.6, 58.8),
    nab!("RandomCutForest", 51.7, 38.4, 59.7),
    nab!("Twitter ADVec", 47.1, 33.6, 53.5),
    nab!("WindowedGaussian", 39.6, 20.9, 47.4),
    nab!("Skyline", 35.7, 27.1, 44.5),
    nab!("Random (trivial)", 16.8, 5.8, 25.9),
    nab!("EXPoSE", 16.4, 3.2, 26.9),
    nab!("Null (trivial)", 0.0, 0.0, 0.0),
];

pub(crate) const TRACEANOMALY: &[Published] = &[
    Published {
        name: "TraceAnomaly",
        precision: Some(0.98),
        recall: Some(0.97),
        source: "Liu et al. 2020, its testbed, rounded",
        ..EMPTY
    },
    Published {
        name: "TraceAnomaly, reproduced",
        f1: Some(0.931),
        extra: &[("auprc", 0.976)],
        source: "AbraaoCF/traceanomaly-reproduction 2026, mean of 5 runs on the files published, threshold chosen on the labels",
        ..EMPTY
    },
    Published {
        name: "TraceAnomaly, reproduced, p < .001",
        precision: Some(0.995),
        recall: Some(0.440),
        source: "AbraaoCF/traceanomaly-reproduction 2026, the paper's rule (recall .13 to .60 by run)",
        ..EMPTY
    },
];

const YU_TT: &str = "Yu et al. 2023, table 3, all 45 faults, time of the fault given";
const YU_OB: &str = "Yu et al. 2023, table 3, all 56 faults, time of the fault given";

/// Shares of faults whose service is ranked first, among the first three and among the first five.
macro_rules! ranked {
    ($name:literal, $first:literal, $three:literal, $five:literal, $source:ident) => {
        extra($name, &[("ac_at_1", $first), ("ac_at_3", $three), ("ac_at_5", $five)], $source)
    };
}

pub(crate) const NEZHA_TT: &[Published] = &[
    ranked!("PDiagnose", 0.089, 0.133, 0.222, YU_TT),
    ranked!("TraceAnomaly", 0.133, 0.289, 0.333, YU_TT),
    ranked!("MicroRank", 0.156, 0.244, 0.356, YU_TT),
    ranked!("SBLD", 0.156, 0.222, 0.244, YU_TT),
    ranked!("MicroScope", 0.178, 0.267, 0.356, YU_TT),
    ranked!("LogFaultFlagger", 0.178, 0.244, 0.244, YU_TT),
    ranked!("MicroRCA", 0.200, 0.311, 0.444, YU_TT),
    ranked!("Nezha without logs", 0.422, 0.444, 0.444, YU_TT),
    ranked!("Nezha without metrics", 0.556, 0.622, 0.689, YU_TT),
    ranked!("Nezha", 0.867, 0.978, 0.978, YU_TT),
];

pub(crate) const NEZHA_OB: &[Published] = &[
    ranked!("MicroScope", 0.125, 0.411, 0.554, YU_OB),
    ranked!("MicroRCA", 0.161, 0.625, 0.928, YU_OB),
    ranked!("SBLD", 0.196, 0.232, 0.250, YU_OB),
    ranked!("LogFaultFlagger", 0.196, 0.214, 0.232, YU_OB),
    ranked!("Nezha without metrics", 0.268, 0.339, 0.357, YU_OB),
    ranked!("TraceAnomaly", 0.304, 0.339, 0.482, YU_OB),
    ranked!("MicroRank", 0.411, 0.482, 0.625, YU_OB),
    ranked!("PDiagnose", 0.411, 0.732, 0.821, YU_OB),
    ranked!("Nezha without logs", 0.643, 0.643, 0.643, YU_OB),
    ranked!("Nezha", 0.929, 0.964, 0.964, YU_OB),
];
