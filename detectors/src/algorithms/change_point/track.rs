//! One series: its scale, from its first points, and the runs since.

use super::{
    Config,
    runs::{Run, Runs},
};
use crate::bytes::{Reader, Writer};

/// Values end here, so that differences are numbers.
const FARTHEST: f64 = 1e150;

/// Values in units of the scale end here, so that squares are numbers in single precision.
const FARTHEST_SCALED: f64 = 1e6;

/// What a series is measured in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    pub middle: f64,
    /// More than zero.
    pub unit: f64,
}

impl Scale {
    /// Median, and the median distance from it as a deviation; where more than half of the points are alike, the mean
    /// distance; where all are, a thousandth of them. Points are finite, and there is one.
    fn of(points: &[f64]) -> Self {
        let middle = median(points.to_vec());
        let distances: Vec<f64> = points.iter().map(|point| (point - middle).abs()).collect();
        let mean = distances.iter().map(|distance| distance / distances.len() as f64).sum::<f64>();
        let candidates = [1.4826 * median(distances), mean, middle.abs() * 1e-3];
        let unit = candidates.into_iter().find(|unit| *unit > f64::MIN_POSITIVE).unwrap_or(1.0);
        Self { middle, unit }
    }

    fn scaled(self, point: f64) -> f64 {
        ((point - self.middle) / self.unit).clamp(-FARTHEST_SCALED, FARTHEST_SCALED)
    }

    fn point(self, scaled: f64) -> f64 {
        self.middle + scaled * self.unit
    }
}

/// The lower one of two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len().saturating_sub(1) / 2;
    values.sort_unstable_by(f64::total_cmp);
    values.get(middle).copied().unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Its first points.
    Warming(Vec<f64>),
    Judging(Scale, Box<Runs>),
}

/// What was found of the point that the latest score names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    pub step: i64,
    /// −ln of the probability that there was no change of late.
    pub surprise: f64,
    /// The likeliest run.
    pub run: Run,
    /// The mean before, when it was last likely that there was no change.
    pub before: f64,
}

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    step_nanos: i64,
    /// The step after the last one that was judged.
    next_step: i64,
    state: State,
    /// Mean of the run when it was last likely to be an old one.
    settled: f64,
    pub finding: Option<Finding>,
}

impl Track {
    /// One that is about to see its first point.
    pub fn begin(step_nanos: i64) -> Self {
        Self { step_nanos, next_step: i64::MIN, state: State::Warming(Vec::new()), settled: 0.0, finding: None }
    }

    pub fn step_nanos(&self) -> i64 {
        self.step_nanos
    }

    /// Judges points that follow each other from `first_step` on, not a number being a gap. Those of steps that have been are
    /// passed over. Tells of each point that is judged by its place in `points`.
    pub fn judge(&mut self, first_step: i64, points: &[f64], config: &Config, mut tell: impl FnMut(usize, &Finding)) {
        let n_known = self.next_step.saturating_sub(first_step).max(0);
        let Some(n_skipped) = usize::try_from(n_known).ok().filter(|n| *n < points.len()) else { return };
        let mut step = first_step.saturating_add(n_known);
        for (idx, &value) in points.iter().enumerate().skip(n_skipped) {
            if value.is_finite()
                && let Some(finding) = self.observe(step, value.clamp(-FARTHEST, FARTHEST), config)
            {
                tell(idx, &finding);
            }
            step = step.saturating_add(1);
        }
        self.next_step = step;
    }

    fn observe(&mut self, step: i64, value: f64, config: &Config) -> Option<Finding> {
        let (beliefs, recent) = (config.beliefs(), config.recent());
        match &mut self.state {
            State::Warming(points) => {
                points.push(value);
                if points.len() >= config.warm_up_points as usize {
                    let (scale, mut runs) = (Scale::of(points), Box::new(Runs::new()));
                    points.iter().for_each(|point| runs.observe(scale.scaled(*point), &beliefs));
                    self.settled = scale.point(runs.likeliest().mean);
                    self.state = State::Judging(scale, runs);
                }
                None
            }
            State::Judging(scale, runs) => {
                runs.observe(scale.scaled(value), &beliefs);
                let (surprise, likeliest) = (runs.surprise(recent), runs.likeliest());
                let run = Run { mean: scale.point(likeliest.mean), ..likeliest };
                if run.age > recent && surprise < std::f64::consts::LN_2 {
                    self.settled = run.mean;
                }
                Some(Finding { step, surprise, run, before: self.settled })
            }
        }
    }

    /// Memory that it holds elsewhere.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Warming(points) => points.capacity() * size_of::<f64>(),
            State::Judging(_, runs) => size_of_val(&**runs),
        }
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.integer(self.step_nanos);
        writer.integer(self.next_step);
        writer.double(self.settled);
        match &self.state {
            State::Warming(points) => {
                writer.byte(0);
                writer.number(points.len() as u64);
                points.iter().for_each(|point| writer.double(*point));
            }
            State::Judging(scale, runs) => {
                writer.byte(1);
                writer.double(scale.middle);
                writer.double(scale.unit);
                runs.write(writer);
            }
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let step_nanos = reader.integer().filter(|step| *step > 0)?;
        let (next_step, settled) = (reader.integer()?, reader.double()?);
        let state = if reader.is()? {
            let scale = Scale { middle: reader.double()?, unit: reader.double().filter(|unit| *unit > 0.0)? };
            State::Judging(scale, Box::new(Runs::read(reader)?))
        } else {
            let n_points = reader.length(size_of::<f64>())?;
            let points: Option<Vec<f64>> = (0..n_points).map(|_| reader.double()).collect();
            State::Warming(points?)
        };
        Some(Self { step_nanos, next_step, state, settled, finding: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_that_of_most_points_and_never_zero() {
        let mut points: Vec<f64> = (0..=100).map(|idx| 450.0 + f64::from(idx)).collect();
        points[3] = 1e12;
        let scale = Scale::of(&points);
        assert_eq!(scale.middle, 501.0);
        assert!((scale.unit - 1.4826 * 25.0).abs() < 2.0, "{scale:?}");
        assert!((scale.scaled(scale.point(2.0)) - 2.0).abs() < 1e-9 && scale.scaled(f64::MAX) == 1e6);
        let mostly: Vec<f64> = (0..100).map(|idx| f64::from(u8::from(idx % 10 == 0))).collect();
        assert!((Scale::of(&mostly).unit - 0.1).abs() < 1e-12);
        assert_eq!(Scale::of(&[5.0; 9]), Scale { middle: 5.0, unit: 5e-3 });
        assert_eq!(Scale::of(&[0.0; 9]), Scale { middle: 0.0, unit: 1.0 });
        let huge = Scale::of(&[FARTHEST, -FARTHEST, FARTHEST]);
        assert!(huge.unit.is_finite() && huge.scaled(-FARTHEST).is_finite(), "{huge:?}");
    }
}
