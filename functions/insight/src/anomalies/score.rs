//! How unusual each period is: its distance from what was expected in robust standard deviations, weighed by how a random
//! cut forest sees it among its neighbours.

use krcf::{RandomCutForest, RandomCutForestOptions};
use shared::{Error, Result};

use crate::robust::{median, quantile, sigma};

/// Consecutive distances that the forest sees together.
const SHINGLE: usize = 2;
const TREES: usize = 60;
const SAMPLE: usize = 256;
/// Any number: the same answer every time.
const SEED: u64 = 20_130_208;
/// Standard deviations that hold 90 % of normal deviations.
const NINETY_PERCENT: f64 = 1.645;
/// Deviations below this share of the usual size of the values are never unusual: they are rounding.
const ROUNDING: f64 = 1e-3;

/// Standard deviation of what ordinary periods deviate by: as the middle half of them tells it or, if that is more, as the
/// calmest 90 % do. At least the size of rounding; 0 when nothing varies at all.
pub(crate) fn spread(values: &[f64], deviations: &[f64]) -> f64 {
    let range = quantile(values, 0.95) - quantile(values, 0.05);
    let size = median(&values.iter().map(|v| v.abs()).collect::<Vec<_>>());
    let tails = quantile(&deviations.iter().map(|d| d.abs()).collect::<Vec<_>>(), 0.9) / NINETY_PERCENT;
    sigma(deviations).max(tails).max(ROUNDING * range.max(size))
}

/// Scores of all periods: |z| × (0.75 + 0.5 × r), where r in 0 to 1 is how isolated the forest finds the period. So the
/// forest moves a score by a quarter at most.
///
/// # Errors
/// `Bug` when the forest refuses its input.
pub(crate) fn scores(z: &[f64]) -> Result<Vec<f64>> {
    let isolated = isolation(z)?;
    Ok(z.iter().zip(isolated).map(|(z, r)| z.abs() * (0.75 + 0.5 * r)).collect())
}

/// 0 to 1 for each period. A forest's score is 0.6 to 1 for a point among its like and grows with isolation: 2 and above is 1
/// here. Periods too early to fill a shingle count as half isolated.
fn isolation(z: &[f64]) -> Result<Vec<f64>> {
    let mut isolated = vec![0.5; z.len()];
    if z.len() < 16 * SHINGLE {
        return Ok(isolated);
    }
    let mut forest = forest().map_err(refused)?;
    // Logarithms, so that one wild period does not make all others look alike.
    let points: Vec<Vec<f32>> =
        z.windows(SHINGLE).map(|w| w.iter().map(|z| (z.signum() * z.abs().ln_1p()) as f32).collect()).collect();
    for point in &points {
        forest.update(point).map_err(refused)?;
    }
    for (i, point) in points.iter().enumerate() {
        let score = forest.score(point).map_err(refused)?;
        isolated[i + SHINGLE - 1] = if score.is_finite() { (score - 1.0).clamp(0.0, 1.0) } else { 0.5 };
    }
    Ok(isolated)
}

fn forest() -> std::result::Result<RandomCutForest, Box<dyn std::error::Error + Send + Sync>> {
    let options = RandomCutForestOptions {
        dimensions: SHINGLE,
        shingle_size: 1,
        num_trees: Some(TREES),
        sample_size: Some(SAMPLE),
        output_after: Some(1),
        random_seed: Some(SEED),
        parallel_execution_enabled: Some(false),
        internal_shingling: Some(false),
        // Every period counts the same, early or late.
        lambda: Some(0.0),
        ..Default::default()
    };
    RandomCutForest::new(options).map_err(|e| format!("{e:?}").into())
}

fn refused(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::bug("the random cut forest refused the series").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::noise;

    #[test]
    fn an_isolated_period_scores_higher_than_its_distance_and_an_ordinary_one_lower() {
        let mut z: Vec<f64> = (0..300).map(noise).collect();
        z[150] = 25.0;
        let scores = scores(&z).unwrap();
        assert!(scores[150] > 25.0, "{}", scores[150]);
        let ordinary = z[..150].iter().zip(&scores).filter(|(z, _)| z.abs() < 1.0).skip(SHINGLE);
        assert!(ordinary.clone().count() > 50 && ordinary.clone().all(|(z, s)| *s <= z.abs()));
    }

    #[test]
    fn rounding_errors_are_not_unusual() {
        let values: Vec<f64> = (0..50).map(|i| 100.0 + f64::from(i % 7)).collect();
        let deviations: Vec<f64> = (0..50).map(|i| 1e-12 * noise(i)).collect();
        assert!(spread(&values, &deviations) > 1e-4);
        assert_eq!(spread(&[0.0; 5], &[0.0; 5]), 0.0);
    }
}
