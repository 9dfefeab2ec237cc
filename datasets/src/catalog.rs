//! What datasets there are: what each holds, who published it, under what terms, and where it is fetched from.
//!
//! Loghub is fetched from its Zenodo record 8196385; the sizes and MD5 sums are those the record publishes (HDFS_v1, BGL,
//! Hadoop and OpenStack are quoted alike by several independent projects). Where a source publishes no checksum for a
//! file, [`Digest::Unpublished`] says so: a Zenodo file is then checked against the record's own API when it is
//! downloaded, any other against the number of lines that its paper states. Datasets without a public address known
//! to this program are listed too, because `faultline datasets import` takes copies of them.

use crate::{catalog_samples::LOGHUB_2K_FILES, error::DatasetError, protocol::PROTOCOLS};

/// One dataset.
#[derive(Debug)]
pub struct DatasetInfo {
    /// Name: of the folder, of the archive and on the command line.
    pub name: &'static str,
    /// What is in it, in one sentence.
    pub holds: &'static str,
    /// Who published it.
    pub source: &'static str,
    /// Terms, as the source states them.
    pub licence: &'static str,
    /// What to cite.
    pub citation: &'static str,
    /// Files `faultline datasets fetch` downloads; empty where no address is known.
    pub files: &'static [RemoteFile],
}

impl DatasetInfo {
    /// Whether `faultline datasets fetch` can get it.
    #[must_use]
    pub fn is_fetchable(&self) -> bool {
        !self.files.is_empty()
    }

    /// Bytes a fetch downloads, as far as the sources state sizes.
    #[must_use]
    pub fn download_bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.bytes).sum()
    }

    /// Names of the protocols that run on it.
    pub fn protocols(&self) -> impl Iterator<Item = &'static str> {
        PROTOCOLS.iter().filter(|protocol| protocol.dataset == self.name).map(|protocol| protocol.name)
    }
}

/// One file of a dataset at its official address.
#[derive(Clone, Copy, Debug)]
pub struct RemoteFile {
    /// Address.
    pub url: &'static str,
    /// Where it goes, relative to the dataset's folder: the file itself, or the folder its archive is unpacked into.
    pub place: &'static str,
    /// What is done with it after the download.
    pub unpack: Unpack,
    /// Size as published.
    pub bytes: Option<u64>,
    /// Checksum as published.
    pub digest: Digest,
    /// Lines as published, checked where there is no checksum.
    pub n_lines: Option<u64>,
}

/// What is done with a downloaded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// Kept as it is.
    No,
    /// Unpacked; the kind is told by its first bytes.
    Archive,
}

/// A published checksum, in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// MD5, as Zenodo publishes it. Guards against damage, not against an adversary; the transport is TLS.
    Md5(&'static str),
    /// SHA-256.
    Sha256(&'static str),
    /// None was found: see the module's text for what is checked instead.
    Unpublished,
}

const LOGHUB: &str = "Loghub, Zenodo record 8196385 (DOI 10.5281/zenodo.8196385)";
const LOGHUB_TERMS: &str =
    "CC-BY-4.0 on Zenodo; Loghub asks research users to refer to its repository and cite its paper";
const LOGHUB_PAPER: &str =
    "Zhu et al., Loghub: A Large Collection of System Log Datasets for AI-driven Log Analytics, ISSRE 2023";

const fn loghub(url: &'static str, place: &'static str, bytes: u64, md5: &'static str) -> RemoteFile {
    RemoteFile { url, place, unpack: Unpack::Archive, bytes: Some(bytes), digest: Digest::Md5(md5), n_lines: None }
}

const fn import_only(
    name: &'static str,
    holds: &'static str,
    source: &'static str,
    licence: &'static str,
) -> DatasetInfo {
    DatasetInfo { name, holds, source, licence, citation: source, files: &[] }
}

/// Every dataset, logs first.
pub const CATALOG: &[DatasetInfo] = &[
    DatasetInfo {
        name: "hdfs",
        holds: "HDFS v1: 11,175,629 raw lines, 575,061 labelled blocks; DeepLog's split into session files",
        source: "Loghub, Zenodo record 8196385; wuyifan18/DeepLog on GitHub (session files)",
        licence: "CC-BY-4.0 on Zenodo, Loghub's notice; session files MIT",
        citation: "Xu et al., Detecting Large-Scale System Problems by Mining Console Logs, SOSP 2009; Du et al., DeepLog, \
                   CCS 2017; Zhu et al., Loghub, ISSRE 2023",
        files: &[
            RemoteFile {
                url: "https://raw.githubusercontent.com/wuyifan18/DeepLog/6b98fa6f16d14609cf1ab90521baeb2d086a5196/data/hdfs_train",
                place: "deeplog_split/hdfs_train",
                unpack: Unpack::No,
                bytes: Some(253_021),
                digest: Digest::Sha256("55cb65a39728b0d21ab95d0bb44a586e79e27993d7a799e2f42e8a5d7fb20d49"),
                n_lines: Some(4_855),
            },
            RemoteFile {
                url: "https://raw.githubusercontent.com/wuyifan18/DeepLog/ae9050f75631e5fc22c9b5dd22028297448a190d/data/hdfs_test_abnormal",
                place: "deeplog_split/hdfs_test_abnormal",
                unpack: Unpack::No,
                bytes: Some(765_642),
                digest: Digest::Sha256("a1e6c2706bd4df4b068f4b5a06dc1425bfd8d90e68905998d51825dedc563dd0"),
                n_lines: Some(16_838),
            },
            RemoteFile {
                url: "https://raw.githubusercontent.com/wuyifan18/DeepLog/HEAD/data/hdfs_test_normal",
                place: "deeplog_split/hdfs_test_normal",
                unpack: Unpack::No,
                bytes: None,
                digest: Digest::Unpublished,
                n_lines: Some(553_366),
            },
            loghub(
                "https://zenodo.org/records/8196385/files/HDFS_v1.zip?download=1",
                "HDFS_v1",
                186_645_559,
                "76a24b4d9a6164d543fb275f89773260",
            ),
        ],
    },
    DatasetInfo {
        name: "bgl",
        holds: "Blue Gene/L: 4,747,963 raw lines with an alert label in the first field",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: "Oliner and Stearley, What Supercomputers Say, DSN 2007; Zhu et al., Loghub, ISSRE 2023",
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/BGL.zip?download=1",
            "raw",
            57_489_019,
            "4452953c470f2d95fcb32d5f6e733f7a",
        )],
    },
    DatasetInfo {
        name: "hadoop",
        holds: "raw container logs of 55 MapReduce applications, 44 with an injected failure",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: "Lin et al., Log Clustering Based Problem Identification for Online Service Systems, ICSE 2016; Zhu et al., \
                   Loghub, ISSRE 2023",
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/Hadoop.zip?download=1",
            "raw",
            3_416_419,
            "34e28a9943704fd54933e2b455829fcc",
        )],
    },
    DatasetInfo {
        name: "openstack",
        holds: "nova logs of a CloudLab deployment, normal and with injected failures",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: "Du et al., DeepLog, CCS 2017; Zhu et al., Loghub, ISSRE 2023",
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/OpenStack.tar.gz?download=1",
            "raw",
            5_394_691,
            "66bd42c07837a094d9b0ea2d036b5713",
        )],
    },
    DatasetInfo {
        name: "loghub_2k",
        holds: "16 systems of 2,000 lines each with ground-truth templates",
        source: "logpai/loghub on GitHub, commit dd61d09",
        licence: "Loghub's notice: free for research or academic work, refer to the repository and cite",
        citation: LOGHUB_PAPER,
        files: LOGHUB_2K_FILES,
    },
    DatasetInfo {
        name: "hdfs_tracebench",
        holds: "HDFS v3 TraceBench: traces with timed events and edges, 17 kinds of injected fault with graded severity",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: "Zhou et al., TraceBench: An Open Data Set for Trace-Oriented Monitoring, CloudCom 2014; Zhu et al., Loghub, \
                   ISSRE 2023",
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/HDFS_v3_TraceBench.zip?download=1",
            "tracebench",
            567_419_398,
            "c69999ff28933d2b163170d26c2faf64",
        )],
    },
    DatasetInfo {
        name: "linux",
        holds: "25,567 raw lines of /var/log/messages, unlabelled",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: LOGHUB_PAPER,
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/Linux.tar.gz?download=1",
            "raw",
            232_039,
            "6d1802d7778126f21c001c6aa7b6b106",
        )],
    },
    DatasetInfo {
        name: "healthapp",
        holds: "253,395 raw lines of a mobile application, unlabelled",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: LOGHUB_PAPER,
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/HealthApp.tar.gz?download=1",
            "raw",
            2_296_618,
            "cec2cca71da9c4f8e33eaa9b215f1b90",
        )],
    },
    DatasetInfo {
        name: "thunderbird",
        holds: "211,212,192 raw lines of a Sandia supercomputer with an alert label in the first field (2 GB packed, 32 GB raw)",
        source: LOGHUB,
        licence: LOGHUB_TERMS,
        citation: "Oliner and Stearley, What Supercomputers Say, DSN 2007; Zhu et al., Loghub, ISSRE 2023",
        files: &[loghub(
            "https://zenodo.org/records/8196385/files/Thunderbird.tar.gz?download=1",
            "raw",
            2_016_100_298,
            "0891b048df2919dc78c99c4428686b44",
        )],
    },
    import_only(
        "ait_alerts",
        "about 2.4 M intrusion detection alerts of six testbeds with attack phases",
        "AIT Alert Data Set, ait-aecid/alert-data-set",
        "GPL-3 repository (data only)",
    ),
    import_only(
        "aiops2018_kpi",
        "20 KPIs: timestamp, value, label",
        "NetManAIOps KPI-Anomaly-Detection",
        "MIT (origin)",
    ),
    import_only(
        "wsd_slice60",
        "40 web KPIs with gaps and missing values",
        "WSD, a web service KPI dataset",
        "none stated",
    ),
    import_only("nab", "58 series, labels, profiles and published results", "Numenta Anomaly Benchmark", "MIT"),
    import_only(
        "smd_slice6",
        "4 machines of 38 metrics with labels and root dimensions",
        "Server Machine Dataset, OmniAnomaly",
        "MIT",
    ),
    import_only(
        "asd_interfusion",
        "8 servers of 19 metrics with labels, root dimensions and kinds",
        "Application Server Dataset, InterFusion",
        "MIT",
    ),
    import_only(
        "donut_bagel_samples",
        "cpu4 and three more labelled KPIs",
        "Donut and Bagel samples",
        "MIT / none stated",
    ),
    import_only(
        "traceanomaly_trainticket",
        "service trace vectors of TrainTicket, normal and abnormal",
        "TraceAnomaly",
        "none stated",
    ),
    import_only(
        "nezha_trainticket",
        "TrainTicket logs, traces and pod metrics sharing ids, 27 labelled faults",
        "Nezha",
        "MIT / none stated",
    ),
    import_only(
        "onlineboutique_nezha_trastrainer",
        "OnlineBoutique, 24 labelled faults",
        "Nezha and TraStrainer",
        "MIT / none stated",
    ),
    import_only(
        "petshop",
        "latency, requests and availability of 41 components with labelled issues",
        "PetShop, Amazon Science",
        "CC-BY-4.0",
    ),
    import_only(
        "rcd_sockshop",
        "Sock Shop: 5 services, cpu and memory faults, 3 repetitions",
        "RCD",
        "none stated for data",
    ),
    import_only(
        "rootcausebench",
        "16 synthetic incidents with alerts, logs, metrics, traces and remediation",
        "root-cause-bench",
        "Apache-2.0",
    ),
    import_only("traceweaver_jaeger", "1,200 real Jaeger traces at several loads", "TraceWeaver", "Apache-2.0"),
    import_only(
        "otlp_samples",
        "OTLP JSON examples, Jaeger fixtures, OpenTelemetry-shaped records",
        "opentelemetry-proto and others",
        "Apache-2.0, MIT",
    ),
    import_only(
        "rl",
        "utilisation, requests and measured scalers for remediation policies",
        "Alibaba 2018, WorldCup98, NASA, Azure and others",
        "Apache-2.0, MIT, CC-BY-4.0; Alibaba: research use",
    ),
];

/// The dataset of this name.
///
/// # Errors
/// [`DatasetError::UnknownDataset`], naming every dataset there is.
pub fn dataset(name: &str) -> Result<&'static DatasetInfo, DatasetError> {
    CATALOG.iter().find(|info| info.name == name).ok_or_else(|| DatasetError::UnknownDataset {
        name: name.to_owned(),
        known: CATALOG.iter().map(|info| info.name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_places_stay_inside_the_folder() {
        let mut names = HashSet::new();
        for info in CATALOG {
            assert!(names.insert(info.name), "{}", info.name);
            let mut places = HashSet::new();
            for file in info.files {
                assert!(places.insert(file.place), "{}", file.place);
                assert!(file.url.starts_with("https://"), "{}", file.url);
                assert!(!file.place.starts_with('/') && !file.place.contains(".."), "{}", file.place);
            }
        }
    }

    #[test]
    fn checksums_have_the_length_of_their_kind_and_a_file_without_one_is_checked_otherwise() {
        for file in CATALOG.iter().flat_map(|info| info.files) {
            let (sum, length) = match file.digest {
                Digest::Md5(sum) => (sum, 32),
                Digest::Sha256(sum) => (sum, 64),
                Digest::Unpublished => {
                    assert!(file.n_lines.is_some() || file.url.contains("zenodo.org"), "{}", file.url);
                    continue;
                }
            };
            assert_eq!(sum.len(), length, "{}", file.url);
            assert!(sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", file.url);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = dataset("hdsf").expect_err("a typing error").to_string();
        assert!(error.contains("`hdsf`") && error.contains("hdfs, bgl, hadoop"), "{error}");
    }
}
