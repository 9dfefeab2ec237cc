//! Station 8 for detectors that calibrate themselves ([`Algorithm::IS_SELF_CALIBRATED`](crate::Algorithm::IS_SELF_CALIBRATED)):
//! their scores are surprises in nats, and the p-value of a window is exp(−score), whatever was seen in a warm-up.
//!
//! Such a detector measures each series against that series' own noise and decides by one constant threshold in that unit. A
//! global calibration cannot help it: the anomaly rate of a series is anything from .05 to 8 % of its points, and a tail
//! fitted on that hides the anomalies of busy series and flags quiet ones. So the mapping from its figure to nats is fixed,
//! measured once on 60 series of public data (AIOps 2018, WSD; 5.6 million points), with x = figure / threshold:
//!
//! - an alert: ln 25,000 + 3.3 ln x. At the threshold p is 4e-5: between what noise gives that is normal (1e-5) and that
//!   is Laplacian (4e-3), and small enough for a lone alert of one series to be a discovery at the default rate (`discovery`
//!   asks for 5.6e-5). Beyond it 8,382 alerts on points without a label fell with the power 3.2 to 3.6 of x, from 1.5 to
//!   18 times the threshold. So with one series whatever is beyond the threshold alerts, with a thousand what is about three times
//!   beyond: the budget decides, not the detector.
//! - anything else, also points that are beyond the threshold but belong to an alert that has been raised: 4.5 x², 4.5 at most. That is
//!   less than ln 100, so nothing that is no alert is below the significance of .01, and more than the share of points that is so
//!   far out everywhere: 51 % of the points are beyond a figure of 1 and get p = .86, 3.9 % beyond 3 and get .26.
//!
//! What p does not say: on real KPIs alerts without a label come at 1.5e-3 a point, many of them true and not labelled. For
//! such series p is too small and the budget of false alerts is kept only as far as those are true.

/// Surprise of an alert that is just beyond the threshold: ln 25,000.
pub const OF_ALERT: f64 = 10.126_631_103_850_338;

/// The most that anything else surprises; less than ln 100.
pub const OF_REST: f64 = 4.5;

/// Power with which alerts fall off beyond the threshold.
const TAIL: f64 = 3.3;

/// The surprise of an alert whose figure is `excess` thresholds; 1 where it is less.
#[must_use]
pub fn of_alert(excess: f64) -> f64 {
    OF_ALERT + TAIL * excess.max(1.0).ln()
}

/// The surprise of what is no alert and whose figure is `excess` thresholds.
#[must_use]
pub fn of_rest(excess: f64) -> f64 {
    let excess = excess.clamp(0.0, 1.0);
    OF_REST * excess * excess
}

/// The p-value of a surprise.
#[must_use]
pub fn p_value(surprise: f64) -> f64 {
    const LEAST: f64 = 1e-300;
    (-surprise).exp().clamp(LEAST, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Discoveries;

    #[test]
    fn only_alerts_are_significant_and_louder_ones_more_so() {
        let rest: Vec<f64> = [-1.0, 0.0, 0.3, 0.9, 1.0, 50.0].into_iter().map(of_rest).collect();
        let alerts: Vec<f64> = [0.5, 1.0, 1.1, 3.0, 200.0].into_iter().map(of_alert).collect();
        assert!(rest.is_sorted() && rest.iter().all(|surprise| p_value(*surprise) > 0.01), "{rest:?}");
        assert!(alerts.is_sorted() && alerts.iter().all(|surprise| p_value(*surprise) <= 4.01e-5), "{alerts:?}");
        assert_eq!((p_value(0.0), p_value(-3.0), p_value(1e9)), (1.0, 1.0, 1e-300));
        assert!((OF_ALERT - 25_000f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_lone_alert_of_one_series_is_a_discovery_at_the_default_rate() {
        let mut discoveries = Discoveries::default();
        for _ in 0..100_000 {
            discoveries.begin_session();
        }
        let p_value = p_value(of_alert(1.0));
        discoveries.observe(p_value);
        assert!(discoveries.q_value(p_value, 0.01) <= 0.25);
    }
}
