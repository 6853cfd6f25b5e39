//! Means, deviations, and whether a difference exceeds the noise of the seeds.

use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal, StudentsT};

/// Mean and standard deviation of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean of the values.
    pub mean: f64,
    /// Standard deviation of the sample (n − 1); none for a single value.
    pub deviation: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Spread {
    /// Summarizes at least one value.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            count,
        }
    }
}

/// p-value of Student's paired, two-sided t-test: the probability of a mean at least as far from
/// zero as that of `differences` if the true mean is zero. None for fewer than two differences and
/// for equal ones, which say nothing about the noise.
pub fn paired(differences: &[f64]) -> Option<f64> {
    let Spread {
        mean,
        deviation,
        count,
    } = Spread::of(differences);
    let error = deviation.filter(|deviation| *deviation > 0.0)? / (count as f64).sqrt();
    let t = StudentsT::new(0.0, 1.0, (count - 1) as f64).ok()?;
    Some(2.0 * t.sf((mean / error).abs()))
}

/// Share of the comparisons in which a difference of [`detectable`] size is shown.
pub const POWER: f64 = 0.8;

/// Smallest true difference that the test of [`paired`] shows at `level` in four of five comparisons ([`POWER`]), where the differences
/// of `count` pairs deviate by `deviation`. From the noncentral t distribution: t is a normal number around the difference over its
/// error, divided by the root of a χ² number over its degrees of freedom, which is averaged over. None for fewer than two pairs.
pub fn detectable(deviation: f64, count: usize, level: f64) -> Option<f64> {
    /// Points by which the distribution of the deviation is averaged over.
    const POINTS: usize = 400;
    let freedom = count.checked_sub(1).filter(|freedom| *freedom > 0)? as f64;
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let critical = t.inverse_cdf(1.0 - level / 2.0);
    let (squares, normal) = (ChiSquared::new(freedom).ok()?, Normal::new(0.0, 1.0).ok()?);
    let bounds: Vec<f64> = (0..POINTS)
        .map(|i| (i as f64 + 0.5) / POINTS as f64)
        .map(|share| critical * (squares.inverse_cdf(share) / freedom).sqrt())
        .collect();
    let power = |shift: f64| {
        let beyond = |bound: &f64| normal.cdf(shift - bound) + normal.cdf(-shift - bound);
        bounds.iter().map(beyond).sum::<f64>() / POINTS as f64
    };
    let (mut low, mut high) = (0.0, 1.0);
    while power(high) < POWER {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        match power(middle) < POWER {
            true => low = middle,
            false => high = middle,
        }
    }
    Some(high * deviation / (count as f64).sqrt())
}

/// Corrects p-values for multiple tests (Holm, 1979): each is multiplied by the number of those
/// that are not smaller, then raised to the largest corrected value of the smaller ones, up to 1.
/// Missing p-values stay missing and do not count as tests.
pub fn holm(probabilities: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> = probabilities
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some((i, (*p)?)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut corrected = vec![None; probabilities.len()];
    let mut least = 0.0f64;
    for (place, (i, p)) in order.iter().enumerate() {
        least = least.max(p * (order.len() - place) as f64).min(1.0);
        corrected[*i] = Some(least);
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_tables() {
        // Student's table: with two degrees of freedom 5 % lie beyond 4.303, with three beyond
        // 3.182.
        let with_t = |count: usize, t: f64| {
            // Values of mean t/√n and deviation 1.
            let half = ((count - 1) as f64 / count as f64).sqrt();
            let mean = t / (count as f64).sqrt();
            let signs = (0..count).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 });
            let values: Vec<f64> = signs.map(|sign| mean + sign * half).collect();
            assert_eq!(count % 2, 0, "an even count has mean zero");
            paired(&values).expect("a spread")
        };
        assert!((with_t(4, 3.182) - 0.05).abs() < 1e-4);
        assert!((with_t(10, 2.262) - 0.05).abs() < 1e-4);
        let three = paired(&[1.0, 2.0, 3.0]).expect("a spread");
        assert!((three - 0.0742).abs() < 1e-4, "{three}");
        assert_eq!(paired(&[-1.0, -2.0, -3.0]), Some(three));
        assert_eq!(paired(&[2.0]), None);
        assert_eq!(paired(&[2.0, 2.0, 2.0]), None);
    }

    #[test]
    fn what_can_be_shown_is_what_tables_of_power_say() {
        // Cohen's d of a paired t-test at 5 % with a power of 80 %: 1.0 takes 10 pairs, 0.5 takes 34.
        for (count, low, high) in [(10, 0.98, 1.0), (34, 0.485, 0.5), (3, 3.1, 3.4)] {
            let found = detectable(1.0, count, 0.05).expect("pairs");
            assert!((low..high).contains(&found), "{count}: {found}");
            let twice = detectable(2.0, count, 0.05).expect("pairs");
            assert!((twice - 2.0 * found).abs() < 1e-9);
            assert!(detectable(1.0, count, 0.01).expect("pairs") > found);
        }
        assert_eq!(detectable(1.0, 1, 0.05), None);
    }

    #[test]
    fn holm_multiplies_the_smallest_most() {
        let corrected = holm(&[Some(0.04), Some(0.01), None, Some(0.03), Some(0.9)]);
        let expected = [Some(0.09), Some(0.04), None, Some(0.09), Some(0.9)];
        for (a, b) in corrected.iter().zip(expected) {
            match (a, b) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-12, "{corrected:?}"),
                (a, b) => assert_eq!(*a, b),
            }
        }
        assert_eq!(holm(&[Some(0.7), Some(0.8)]), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[3.0]).deviation, None);
        let three = Spread::of(&[1.0, 2.0, 3.0]);
        assert_eq!((three.mean, three.deviation), (2.0, Some(1.0)));
    }
}
