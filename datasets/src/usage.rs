//! What a run costs: CPU seconds and peak resident memory of this process, from `/proc` on Linux.
//!
//! Needs no unsafe code and no library: `/proc/self/stat` counts in clock ticks, which the Linux ABI fixes at 100 a
//! second, so a figure is good to 10 ms. Fails quietly: where `/proc` is not there (other systems, some sandboxes) the
//! figures are `None`, and a report shows null.

use std::fs;

/// Clock ticks a second in `/proc/self/stat` (`USER_HZ`), part of the Linux ABI.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of this process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system CPU time of all threads so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Largest resident set since the start of the process or the last [`reset_peak_rss`], in bytes.
    pub peak_rss_bytes: Option<u64>,
}

impl Usage {
    /// Reads the figures of this process.
    #[must_use]
    pub fn now() -> Self {
        Self {
            cpu_seconds: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds),
            peak_rss_bytes: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(peak_rss_bytes),
        }
    }

    /// CPU seconds spent since `start`.
    #[must_use]
    pub fn cpu_seconds_since(&self, start: &Self) -> Option<f64> {
        Some((self.cpu_seconds? - start.cpu_seconds?).max(0.0))
    }
}

/// Starts the peak of the resident set anew, so that the next detector in the same process is measured by itself.
/// False where the system does not offer it; the peak then stays that of the whole process.
pub fn reset_peak_rss() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The command name may hold spaces and parentheses, so fields are counted after its last one: state is the first.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn peak_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_a_name_with_spaces_and_parentheses() {
        let stat =
            "42 (a (b) c) R 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 200 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak_rss_bytes("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"), Some(2_097_152));
        assert_eq!(peak_rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn on_linux_both_figures_are_there_and_cpu_time_grows_with_work() {
        let start = Usage::now();
        let mut x = 1_u64;
        let mut spent = 0.0;
        // Bounded: 2^36 steps is minutes; the first 10 ms tick comes long before.
        for i in 0..1_u64 << 36 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i));
            if i % (1 << 22) == 0 {
                spent = Usage::now().cpu_seconds_since(&start).expect("/proc is there");
                if spent > 0.0 {
                    break;
                }
            }
        }
        assert!(spent > 0.0);
        assert!(Usage::now().peak_rss_bytes.expect("/proc is there") > 1 << 20);
    }
}
