//! Statistics that a few wild values don't move, and the quantiles that intervals are made of.

/// Makes the median absolute deviation of normal values their standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;
/// Makes the mean absolute deviation of normal values their standard deviation.
const MEAN_DEVIATION_TO_SIGMA: f64 = 1.2533;

/// The value below which the share `q` (0 to 1) of the values lies, interpolated; 0 for none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// 0 for no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation as the median absolute deviation tells it; where more than half of the values are equal, as the mean
/// absolute deviation does.
pub(crate) fn sigma(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    let mad = median(&distances) * MAD_TO_SIGMA;
    if mad > 0.0 { mad } else { mean(&distances) * MEAN_DEVIATION_TO_SIGMA }
}

/// The inverse of the standard normal distribution, for `p` in (0, 1); absolute error below 5e-4
/// (Abramowitz and Stegun, formula 26.2.23).
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let tail = p.min(1.0 - p).max(1e-12);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = t - above / below;
    if p < 0.5 { -z } else { z }
}

/// Autocorrelation at the lags 0 to `longest`; all 0 but the first for values that don't vary.
pub(crate) fn autocorrelation(values: &[f64], longest: usize) -> Vec<f64> {
    let center = mean(values);
    let apart: Vec<f64> = values.iter().map(|v| v - center).collect();
    let variance: f64 = apart.iter().map(|d| d * d).sum();
    (0..=longest)
        .map(|lag| {
            if lag == 0 {
                return 1.0;
            }
            let together: f64 = apart.iter().zip(apart.iter().skip(lag)).map(|(a, b)| a * b).sum();
            if variance > 0.0 { together / variance } else { 0.0 }
        })
        .collect()
}

/// A figure of an answer: seven significant digits, so that it reads well and is the same on every machine.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { 0.0 } else { value };
    }
    format!("{value:.6e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_value_does_not_move_the_middle_or_the_spread() {
        let calm: Vec<f64> = (0..101).map(|i| f64::from(i % 11)).collect();
        let mut wild = calm.clone();
        wild[7] = 1e9;
        assert_eq!(median(&calm), median(&wild));
        assert!((sigma(&calm) - sigma(&wild)).abs() < 0.5);
    }

    #[test]
    fn quantiles_of_the_normal_distribution_match_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.95, 1.644_854), (0.975, 1.959_964), (0.995, 2.575_829), (0.05, -1.644_854)] {
            assert!((normal_quantile(p) - z).abs() < 5e-4, "{p}");
        }
    }

    #[test]
    fn nothing_has_a_middle_of_zero() {
        assert_eq!((median(&[]), mean(&[]), sigma(&[])), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_weekly_pattern_correlates_with_itself_a_week_later() {
        let values: Vec<f64> = (0..70).map(|i| f64::from(i % 7)).collect();
        let found = autocorrelation(&values, 8);
        assert!(found[7] > 0.85 && found[3] < 0.0);
        assert!(autocorrelation(&[5.0; 9], 3)[1..].iter().all(|r| *r == 0.0));
    }

    #[test]
    fn figures_keep_seven_digits() {
        assert_eq!(rounded(900.057_534_246), 900.057_5);
        assert_eq!(rounded(-0.0).to_string(), "0");
    }
}
