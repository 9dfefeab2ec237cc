//! `openstack`: DeepLog's OpenStack sequences, one a virtual machine instance, in the three-file split of `hdfs-deeplog` and
//! judged as there.
//!
//! The files hold event numbers without times, so the test sessions come in a fixed random order. The raw nova logs that lie
//! beside them are not judged: they carry no labels, and the one of normal operation holds failures of its own.

use faultline_datasets::{ResultRow, loaders::sessions::SessionSplit};

use super::{
    Args,
    sessions::{FLAG_ALL, Judged, Sessions, Training, flag_all, is_wanted, judge_all, row, shuffled_test},
};

const PROTOCOL: &str = "openstack";

/// Runs the protocol.
pub fn openstack(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "openstack")?;
    let split = SessionSplit::load(&files.data, files.train.as_deref())?;
    let training = Training::in_order(Sessions::of_events(split.train.iter()));
    let (test, truth) = shuffled_test(&split);
    let n_train = training.sessions.len();
    let mut tell =
        |verdict: &Judged| report(row(PROTOCOL, "openstack", verdict, &truth).with_extra("n_train", n_train));
    judge_all(args, &training, &test, &mut tell)?;
    if is_wanted(args, FLAG_ALL) {
        tell(&flag_all(test.len()));
    }
    Ok(())
}
