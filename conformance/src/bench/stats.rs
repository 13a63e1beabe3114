/// What a series of measurements comes to. No sample is ever left out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    samples: Vec<f64>,
    sorted: Vec<f64>,
}

impl Summary {
    /// Takes the measurements in the order in which they were made.
    pub(super) fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Self { samples, sorted }
    }

    /// A figure that was measured once.
    pub(super) fn single(value: f64) -> Self {
        Self::of(vec![value])
    }

    /// The measurements, in the order in which they were made.
    pub(super) fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// The middle measurement; of an even number, the mean of the two in the middle. `None` without measurements.
    pub(super) fn median(&self) -> Option<f64> {
        let count = self.sorted.len();
        let upper = self.sorted.get(count / 2)?;
        let lower = self.sorted.get(count.checked_sub(1)? / 2)?;
        Some(f64::midpoint(*lower, *upper))
    }

    /// The smallest measurement that at least `percent` of all do not exceed (the nearest rank); `None` without
    /// measurements.
    pub(super) fn percentile(&self, percent: u8) -> Option<f64> {
        let rank = (self.sorted.len() * usize::from(percent.min(100))).div_ceil(100);
        self.sorted.get(rank.max(1) - 1).copied()
    }

    /// A high percentile, where there are enough measurements for one: at least one must lie above it.
    pub(super) fn tail(&self, percent: u8) -> Option<f64> {
        let above = self.sorted.len() * (100 - usize::from(percent.min(100)));
        (above >= 100).then(|| self.percentile(percent)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_percentiles_agree_with_the_table() {
        let hundred: Vec<f64> = (1..=100_u8).rev().map(f64::from).collect();
        let twenty: Vec<f64> = (1..=20_u8).map(f64::from).collect();
        // Samples, median, p50, p95, p99, and p95 where it may be told.
        type Row<'a> = (
            &'a [f64],
            Option<f64>,
            Option<f64>,
            Option<f64>,
            Option<f64>,
            Option<f64>,
        );
        let table: [Row<'_>; 8] = [
            (&[], None, None, None, None, None),
            (&[7.0], Some(7.0), Some(7.0), Some(7.0), Some(7.0), None),
            (&[4.0, 2.0], Some(3.0), Some(2.0), Some(4.0), Some(4.0), None),
            (&[9.0, 1.0, 5.0], Some(5.0), Some(5.0), Some(9.0), Some(9.0), None),
            (
                &[1.0, 1.0, 1.0, 9.0],
                Some(1.0),
                Some(1.0),
                Some(9.0),
                Some(9.0),
                None,
            ),
            (
                &[-1.0, 0.0, 1.0],
                Some(0.0),
                Some(0.0),
                Some(1.0),
                Some(1.0),
                None,
            ),
            (
                &twenty,
                Some(10.5),
                Some(10.0),
                Some(19.0),
                Some(20.0),
                Some(19.0),
            ),
            (
                &hundred,
                Some(50.5),
                Some(50.0),
                Some(95.0),
                Some(99.0),
                Some(95.0),
            ),
        ];
        for (samples, median, p50, p95, p99, reported) in table {
            let summary = Summary::of(samples.to_vec());
            assert_eq!(summary.median(), median, "median of {samples:?}");
            assert_eq!(summary.percentile(50), p50, "p50 of {samples:?}");
            assert_eq!(summary.percentile(95), p95, "p95 of {samples:?}");
            assert_eq!(summary.percentile(99), p99, "p99 of {samples:?}");
            assert_eq!(summary.tail(95), reported, "tail of {samples:?}");
        }
    }

    #[test]
    fn a_tail_needs_a_sample_above_it() {
        for (count, percent, told) in [
            (19, 95, false),
            (20, 95, true),
            (99, 99, false),
            (100, 99, true),
            (200, 100, false),
        ] {
            let summary = Summary::of(vec![1.0; count]);
            assert_eq!(summary.tail(percent).is_some(), told, "p{percent} of {count}");
        }
    }

    #[test]
    fn percentiles_reach_from_the_smallest_to_the_largest() {
        let summary = Summary::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(summary.percentile(0), Some(1.0));
        assert_eq!(summary.percentile(100), Some(3.0));
        assert_eq!(summary.percentile(255), Some(3.0));
    }

    #[test]
    fn samples_keep_their_order_and_their_number() {
        let samples = vec![3.0, 900.0, 1.0, 3.0];
        assert_eq!(Summary::of(samples.clone()).samples(), samples);
    }
}
