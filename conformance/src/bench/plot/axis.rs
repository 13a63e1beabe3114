/// How a value becomes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// One direction of a plot: which values it shows, and at which of them there is a line with a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

/// Values that are further apart than this are not told from each other on a linear axis.
const WIDE: f64 = 5.0;
/// The same where zero is worth a place.
const VERY_WIDE: f64 = 20.0;
/// More numbers than this run into each other.
const MOST_TICKS: usize = 9;

impl Axis {
    /// An axis on which each of the values can be told; `None` without any.
    pub(super) fn fitting(values: &[f64]) -> Option<Self> {
        let (low, high) = ends(values)?;
        if low > 0.0 && high / low > WIDE {
            Some(Self::log(low, high))
        } else {
            Some(Self::linear(low, high))
        }
    }

    /// An axis that begins at zero, but for values that are so far apart that the small ones could not be told from it.
    pub(super) fn from_zero(values: &[f64]) -> Option<Self> {
        let (low, high) = ends(values)?;
        if low > 0.0 && high / low > VERY_WIDE {
            Some(Self::log(low, high))
        } else {
            Some(Self::linear(low.min(0.0), high))
        }
    }

    /// A linear axis with numbers at given values; `None` without any.
    pub(super) fn at(ticks: Vec<f64>) -> Option<Self> {
        let (low, high) = ends(&ticks)?;
        let scale = Scale::Linear;
        Some(Self {
            scale,
            low,
            high,
            ticks,
        })
    }

    /// An axis of per cent.
    pub(super) fn percent() -> Self {
        Self {
            scale: Scale::Linear,
            low: 0.0,
            high: 100.0,
            ticks: vec![0.0, 25.0, 50.0, 75.0, 95.0],
        }
    }

    /// A linear axis, widened to round numbers.
    fn linear(low: f64, high: f64) -> Self {
        let step = round_step((high - low).max(high.abs() * 1e-3).max(1e-9) / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let high = if high > low { high } else { low + step };
        let ticks = (0..=12_u8).map(|count| low + f64::from(count) * step);
        Self {
            scale: Scale::Linear,
            low,
            high,
            ticks: ticks.take_while(|tick| *tick < high + step / 2.0).collect(),
        }
    }

    /// A logarithmic axis for two values above zero that are far apart.
    fn log(low: f64, high: f64) -> Self {
        let decades = |factors: &'static [f64]| {
            let decades = (-12..=12_i32).map(|exponent| 10_f64.powi(exponent));
            let ticks = decades.flat_map(move |decade| factors.iter().map(move |factor| factor * decade));
            let ticks = ticks.filter(|tick| (low..=high).contains(tick));
            ticks.collect::<Vec<_>>()
        };
        let many = decades(&[1.0, 2.0, 5.0]);
        let ticks = if many.len() > MOST_TICKS {
            decades(&[1.0])
        } else {
            many
        };
        Self {
            scale: Scale::Log,
            low,
            high,
            ticks,
        }
    }

    /// Where a value is, from 0 at the low end to 1 at the high one; what lies outside is at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let part = |value: f64, low: f64, high: f64| (value - low) / (high - low);
        let place = match self.scale {
            Scale::Linear => part(value, self.low, self.high),
            Scale::Log => part(value.ln(), self.low.ln(), self.high.ln()),
        };
        if place.is_nan() {
            0.0
        } else {
            place.clamp(0.0, 1.0)
        }
    }

    /// The values at which there is a number.
    pub(super) fn ticks(&self) -> &[f64] {
        &self.ticks
    }
}

fn ends(values: &[f64]) -> Option<(f64, f64)> {
    let low = values.iter().copied().min_by(f64::total_cmp)?;
    let high = values.iter().copied().max_by(f64::total_cmp)?;
    Some((low, high))
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|factor| factor * decade);
    let fits = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9));
    fits.unwrap_or(10.0 * decade)
}

/// A tick's number, no longer than it must be.
pub(super) fn number(value: f64) -> String {
    let rounded = format!("{value:.3}");
    let text = rounded.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(axis: &Axis) -> Vec<String> {
        axis.ticks().iter().map(|tick| number(*tick)).collect()
    }

    #[test]
    fn axes_have_few_round_numbers_around_their_values() {
        let table: [(&[f64], &[&str]); 8] = [
            (&[3.1, 3.9], &["3", "3.2", "3.4", "3.6", "3.8", "4"]),
            (&[0.87, 1.18], &["0.8", "0.9", "1", "1.1", "1.2"]),
            (&[1.2, 30.0], &["2", "5", "10", "20"]),
            (&[0.4, 90_000.0], &["1", "10", "100", "1000", "10000"]),
            (&[0.0, 20.0], &["0", "5", "10", "15", "20"]),
            (&[-2.0, 2.0], &["-2", "-1", "0", "1", "2"]),
            (&[0.0], &["0", "0"]),
            (&[7.0], &["7", "7.002"]),
        ];
        for (values, expected) in table {
            assert_eq!(numbers(&Axis::fitting(values).unwrap()), expected, "{values:?}");
        }
        assert_eq!(Axis::fitting(&[]), None);
        assert_eq!(
            numbers(&Axis::from_zero(&[30.0, 80.0]).unwrap()),
            ["0", "20", "40", "60", "80"]
        );
        let apart = Axis::from_zero(&[2.0, 80.0]).unwrap();
        assert_eq!(numbers(&apart), ["2", "5", "10", "20", "50"]);
    }

    #[test]
    fn places_go_from_end_to_end() {
        let log = Axis::fitting(&[1.0, 100.0]).unwrap();
        assert_eq!([1.0, 10.0, 100.0].map(|value| log.place(value)), [0.0, 0.5, 1.0]);
        // Nothing has a logarithm at or below zero.
        assert_eq!([0.0, -1.0, 1e9].map(|value| log.place(value)), [0.0, 0.0, 1.0]);
        let same = Axis::at(vec![5.0]).unwrap();
        assert_eq!(same.place(5.0), 0.0);
    }
}
