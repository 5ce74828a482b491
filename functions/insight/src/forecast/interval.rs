//! Intervals from what the model got wrong in the back-test (split conformal prediction), growing with the distance.
//!
//! Errors grow about as a power of the distance: step^β with β from 0 (a series that returns to its course) to 0.5 (a random
//! walk), fitted to the mean error at each step. Errors divided by that growth are pooled; the share asked for of them is the
//! width at distance 1. So widths never shrink with distance.

use crate::robust::{mean, normal_quantile};

/// Half the width of an interval by distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Widths {
    first: f64,
    growth: f64,
}

impl Widths {
    /// Learns from `errors` (one list a cut-off, one error a step) the widths that hold the share `level`.
    pub(crate) fn new(errors: &[Vec<f64>], level: f64) -> Self {
        let growth = growth(errors);
        let pooled: Vec<f64> =
            errors.iter().flat_map(|e| e.iter().enumerate()).map(|(h, e)| e.abs() / power(h, growth)).collect();
        Self { first: share(pooled, level), growth }
    }

    /// Half the width at step `h`, from 0.
    pub(crate) fn at(&self, h: usize) -> f64 {
        self.first * power(h, self.growth)
    }
}

/// The share of the past that intervals would have held, each cut-off judged by the errors of the others; `None` for fewer
/// than three cut-offs.
pub(crate) fn coverage(errors: &[Vec<f64>], level: f64) -> Option<f64> {
    if errors.len() < 3 {
        return None;
    }
    let held: Vec<f64> = (0..errors.len())
        .flat_map(|judged| {
            let others: Vec<_> =
                errors.iter().enumerate().filter(|(i, _)| *i != judged).map(|(_, e)| e.clone()).collect();
            let widths = Widths::new(&others, level);
            errors[judged]
                .iter()
                .enumerate()
                .map(move |(h, e)| f64::from(u8::from(e.abs() <= widths.at(h))))
                .collect::<Vec<_>>()
        })
        .collect();
    Some(mean(&held))
}

fn power(h: usize, growth: f64) -> f64 {
    ((h + 1) as f64).powf(growth)
}

/// The slope of log mean error over log step, by least squares, kept within 0 to 0.5.
fn growth(errors: &[Vec<f64>]) -> f64 {
    let steps = errors.iter().map(Vec::len).min().unwrap_or(0);
    let points: Vec<(f64, f64)> = (0..steps)
        .map(|h| (h, mean(&errors.iter().map(|e| e[h].abs()).collect::<Vec<_>>())))
        .filter(|(_, size)| *size > 0.0)
        .map(|(h, size)| (((h + 1) as f64).ln(), size.ln()))
        .collect();
    if points.len() < 4 || errors.len() < 3 {
        // Too little to tell: half of what a random walk does.
        return 0.25;
    }
    let (x, y) =
        (mean(&points.iter().map(|p| p.0).collect::<Vec<_>>()), mean(&points.iter().map(|p| p.1).collect::<Vec<_>>()));
    let along: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let across: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if across > 0.0 { (along / across).clamp(0.0, 0.5) } else { 0.0 }
}

/// The size that the share `level` of errors does not exceed: the (n + 1) × level-th smallest; with too few errors for that,
/// what normal errors of the same spread would need, more the fewer there are (Student's t, first correction).
fn share(mut sizes: Vec<f64>, level: f64) -> f64 {
    sizes.sort_by(f64::total_cmp);
    let n = sizes.len();
    let rank = ((n + 1) as f64 * level).ceil() as usize;
    let Some(empirical) = sizes.get(rank.clamp(1, n.max(1)) - 1).copied() else { return 0.0 };
    if n >= 20 && rank <= n {
        return empirical;
    }
    let z = normal_quantile(0.5 + level / 2.0);
    let spread = mean(&sizes.iter().map(|s| s * s).collect::<Vec<_>>()).sqrt();
    empirical.max(spread * (z + (z.powi(3) + z) / (4.0 * n as f64)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shapes::noise;

    #[test]
    fn ninety_percent_of_normal_errors_are_held() {
        let errors: Vec<Vec<f64>> = (0..20).map(|k| (0..14).map(|h| noise(k * 14 + h)).collect()).collect();
        let widths = Widths::new(&errors, 0.9);
        assert!((1.4..2.1).contains(&widths.at(0)), "{widths:?}");
        let held = coverage(&errors, 0.9).unwrap();
        assert!((0.84..0.96).contains(&held), "{held}");
    }

    #[test]
    fn errors_of_a_random_walk_widen_with_the_root_of_the_distance() {
        let errors: Vec<Vec<f64>> = (0..60)
            .map(|k| {
                (0..16)
                    .scan(0.0, |sum, h| {
                        *sum += noise(k * 16 + h);
                        Some(*sum)
                    })
                    .collect()
            })
            .collect();
        let widths = Widths::new(&errors, 0.9);
        assert!((0.35..=0.5).contains(&widths.growth), "{widths:?}");
    }

    #[test]
    fn a_model_that_was_never_wrong_has_no_width() {
        assert_eq!(Widths::new(&[vec![0.0; 5], vec![0.0; 5], vec![0.0; 5]], 0.9).at(99), 0.0);
    }

    proptest! {
        #[test]
        fn widths_never_shrink_with_distance_or_level(
            errors in prop::collection::vec(prop::collection::vec(-1e6..1e6f64, 6), 1..12),
            level in 0.5..0.98f64,
        ) {
            let (narrow, wide) = (Widths::new(&errors, level), Widths::new(&errors, level + 0.01));
            for h in 0..200 {
                prop_assert!(narrow.at(h) >= 0.0 && narrow.at(h) <= narrow.at(h + 1));
                prop_assert!(narrow.at(h) <= wide.at(h) * (1.0 + 1e-9));
            }
        }
    }
}
