//! What a reader of the results of a protocol has to know beside the figures: what was chosen with sight of the data, and
//! where the figures fall short. `faultline eval --render` puts it below the table. A figure in here is one that
//! the protocol's rows do not have; how it was had is said with it.

pub(crate) const HDFS_DEEPLOG: &str = "\
The test sessions come in a fixed random order. The files hold no times, on which LogSed lives.

Rows with a share of the training abnormal have that many abnormal sessions slipped into the training part, which nobody marks. The ensemble \
notices the contamination (2 or 3 suspicious sessions of 4,855 when clean, 17 to 39 when not) and then trusts common kinds only, so that the \
figure does not depend on how much there is. Its thresholds were chosen with sight of this split.";

pub(crate) const HDFS_CHRONO: &str = "\
Nobody marks the failures in the training part. The mean over the starts is the figure to quote: one start hides the drift. At two starts the \
ensemble does not notice that its 1 % holds failures: their kinds are too frequent there to look seldom. The constants of common-kinds were \
chosen on this stream; with time reversed its mean is .939 (prototype). About 1,150 of its 1,500 false positives of each start are normal \
re-replications that hold as large a share as the abnormal ones.";

pub(crate) const HDFS_RAW: &str = "\
`default` is any alert. `lag_quantile`, the false-discovery rate and `contamination` were chosen on this data.";

pub(crate) const BGL_WINDOWS: &str = "\
The severity in the BGL header does much of the work of severe-incident: any fatal line alone has an F1 of .58 to .60 (by a script). Where the \
first 1 % holds severe incidents, as on the whole stream, the calibration of the default takes them for normal.";

pub(crate) const BGL_LINES: &str = "\
A burst is a run of alert lines with gaps of at most 1,000 lines. It is hit when an alert begins on one of its alert lines, and covered when an \
alert lasts over one. The file has no times; records are taken to be 300 ms apart, a spacing that was chosen with sight of the counts.";

pub(crate) const HADOOP: &str = "\
A container has the label of its application, although most containers of an application with a fault see little of it; an application is \
flagged when any of its containers is. The training part is the shortest run of first normal applications with every workload in it: of the 40 \
applications at hand 6, with 101 containers, every third of which fixes the threshold. Judged are the applications that begin after the last of \
those has ended: 20, of which 4 are normal; 342 containers, of which 53 are. One normal application more or less that is \
flagged moves balanced accuracy by application by .125. The published figures are by container on another split (17 normal containers to fit on, 150 normal and 811 \
abnormal ones to judge).";

pub(crate) const OPENSTACK: &str = "\
The sequences say little about the fault: 195 of the 198 abnormal ones equal a normal one, event for event, 177 of them one of the training file. \
Whatever a detector makes of whole sequences alone, its F1 on these files is at most .184, and flagging everything has .176 (both by a script): \
the published figure cannot be had from them. The raw nova logs beside them are not judged: they carry no labels, and the one of normal operation \
holds failures of its own.";

pub(crate) const LOGHUB_2K: &str = "\
`drain` is one configuration for all systems. A preset gives masks of its own to one of them only (Thunderbird); its line format is not used, as \
the files hold messages without their headers.";

pub(crate) const TRACEBENCH: &str = "\
Positives are traces that the injected fault touched; the loader's documentation says how that is known. Larger severities are at least half of \
the largest of their kind. The goal there is a precision and a recall of .90. Recall of the whole collection counts every trace of a collection \
with a fault, touched or not.";

/// What holds for every series that is judged by halves.
macro_rules! series {
    ($($more:literal)*) => {
        concat!(
            "\
Figures are means over the series that have something to find in their second half; alerts and false alerts are a day of one series, runs of flagged \
points with pauses of at most 10. The row's threshold is the score with p <= 1e-4 by calibration on the first half, of which up to .05 is taken to \
be abnormal, without a look at labels. `profile-forecast` says itself which points belong to an episode and where alerts begin, by constants that \
are the same for every series (chosen on the first halves of the AIOps KPIs, and with sight of their labels): its plain points are those of \
episodes, its kd7 rule and its alerts are by onsets, and AUPRC is of the largest of its spike score, the one before and its level score. `one level` is one p-value for all series, the one that is best on the labels of their first halves; `labelled` thresholds are those of the best F1 on the labels of the first half of \
each series, `oracle` ones those of the \
best F1 on the second half, chosen for each series; they are of scores, without the episodes of `profile-forecast`, which may so be above its oracle. VUS-PR has buffers of up to 100 points for every series, where TSB-AD takes the period of \
each. What was not measured is a gap: it is neither to be found nor flagged. A detector that does not warm up by itself is fitted on the first 60 % of \
the first half and calibrated on the rest. `default` flags what any default detector flags; the false-discovery rate and the budget of \
`faultline run` are not in it.",
            $($more),*
        )
    };
}

pub(crate) const SERIES: &str = series!();

pub(crate) const AIOPS: &str = series!(
    "

The holes of these files were filled by straight lines when they were published, and their halves are not the challenge's two phases. \
The published kd7 figures have one threshold for all KPIs and count their points together: `pooled_kd7_f1` of the rows is nearer to them."
);

pub(crate) const WSD: &str = series!(
    "

The slice is every third series of those with an anomaly; the published figures are of another choice."
);

pub(crate) const NAB: &str = "\
A threshold that is fixed beforehand is, for each file, the score with p <= 1e-4 by calibration on the rows that NAB does not judge (the first 15 %, \
750 at most). `heavy-tail` is taken at its S, as [its documentation](../detectors/src/algorithms/heavy_tail.rs) has it for benchmarks with one threshold \
for all series, with the rows that are not judged as its warm-up; its fixed threshold is the S of points of which chance makes 9.1 in a history, as many false rows as cost as much as one missed window in \
NAB's standard profile; that was argued from the weights, though after the curve had been seen. The threshold from the other half is the best for the files of even number on those of odd number, and the other way round, for each \
profile. NAB's own is the best for all files with sight of their labels, as in the published figures; only that row compares with them. Rows are taken to \
be a step apart, as the clocks of some files go back. `donut` has no row: what NAB does not judge is too little to fit it on.";

pub(crate) const MACHINES: &str = "\
The training part has no labels. A detector that calibrates itself is fitted on all of it; another is replayed over it or, where it does not warm up \
by itself, fitted on its first 60 %, and calibrated on what it says about the rest. The threshold is the score with p <= 1e-3. `mahalanobis` says itself which rows belong to an episode: \
from 3.5 times the running median of the distance down to 2.625 times, constants that were chosen with sight of the test labels of both sets, for \
want of others.  `oracle` thresholds are chosen on the test part, for each machine. Rows called `over metrics` are of a detector of single series: the \
largest surprise, -ln p, of all metrics of a row counts. The files have no times; rows are a minute apart in SMD and five in ASD, as their authors say. VUS-PR has buffers of up to 100 rows.";

pub(crate) const TRACEANOMALY: &str = "\
A trace is flagged when it scores more than that share of the traces that fix thresholds. The normal traces have 21 patterns of call paths, the \
abnormal ones 110, so `unseen-path`, which looks at nothing else, is the bar to clear. `trace-anomaly` is the paper's network over the vectors that \
`trace-vector` judges without one; `trace-anomaly, one scale` scores by the likelihood alone, as the paper does, instead of against traces of the \
same kind. Its settings were chosen on normal traces with planted anomalies, without the abnormal ones.";

pub(crate) const NEZHA: &str = "\
A fault minute is one of the clock that has 25 s in common with the 200 s after an injection: what the authors list, not what can be seen. By the \
study of these data effects begin between a minute before and a minute after the time in the list and last from two to over four minutes, and 8 of the 63 fault minutes as its files cut \
them hold nothing of their fault, so that a recall of .87 was the most that any detector could have there. `recall, sure minutes` is over those fault \
minutes that have 25 s in common with the time in which every fault but one was under way (60 to 115 s after the injection), and in which the service has \
a span or a log. A false alert is a run of flagged minutes that begins in a normal one, more than a minute before and 260 s after any listed injection. There are some \
17 normal minutes: one false alert an hour cannot be told from three, and one more or less is 3.5 an hour. In one of the stretches taken for normal, 12:22 to \
12:26 of the second day (`mistaken` in the rows), the metrics show a service at 50 times its processor load that no list has.

The constants were chosen with sight of these faults and normal minutes (`service-latency` gives the same from 3.5 to 5, `ngram` from 8 to 16), labels are used in no fit and no \
threshold. `ngram, as studied` is what a study of the same data had before it was looked at by minutes of the clock. Two \
minutes to fit on are too few for a monitor's calibration, which is why its alerts stand in rows of their own. Logs are the statements that wrote them \
(class, line and level) rather than templates of messages, and ids in the names of operations are taken out.";

pub(crate) const NEZHA_SUPERVISED: &str = "\
Precision and recall of `mepfl` are those of latent errors by trace, AC@k is by fault, all of whose traces vote; `kind_accuracy` and the shares of \
what training did not have are in the rows of `--json`. Labels come from the fault list: a trace is disturbed if it called the faulty service \
between 30 and 150 seconds after the injection, nothing within 110 seconds around that, and else normal. Of many disturbed traces spans show nothing: \
the returns and some of the exceptions of TrainTicket change a log line and no time. Its first day has returns and exceptions only and its last contentions \
and delays only, so from day to day no kind can be right, and what is found is found as something odd. In folds most faults have a sibling of the same \
kind or service in training: the figures are those of faults that were seen before. `seer` and `deepest queue` are by tick of 5 seconds; the \
faults are injected at once, so that little is there to foresee, and violations are few: read `n_violations` first.";
