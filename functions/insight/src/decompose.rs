//! Parts a series into trend, seasons and remainder.
//!
//! With seasons: MSTL (Bandara, Hyndman, Bergmeir 2021) by `stlrs`, in double precision. Without: the trend is a running
//! median, smoothed.

use augurs::mstl::stlrs::{MstlParams, StlParams};
use shared::{Error, Result};

use crate::robust::{mean, median, sigma};

/// Remainders of more sigmas than this are replaced before a model learns from the values.
const WILD: f64 = 4.0;

/// A series' parts; they add up to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub trend: Vec<f64>,
    /// One component a season.
    pub seasonal: Vec<Vec<f64>>,
    pub remainder: Vec<f64>,
}

impl Parts {
    /// What the trend and the seasons say of period `i`.
    pub(crate) fn expected(&self, i: usize) -> f64 {
        self.trend[i] + self.seasonal.iter().map(|s| s[i]).sum::<f64>()
    }

    /// The values without their seasons.
    pub(crate) fn adjusted(&self) -> Vec<f64> {
        self.trend.iter().zip(&self.remainder).map(|(t, r)| t + r).collect()
    }
}

/// How a decomposition fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Follows slow changes of level and season: for forecasts.
    Supple,
    /// Keeps wild values out of trend and seasons: to tell what is usual.
    Robust,
}

/// Parts `values`; seasons that they don't hold twice are left out.
///
/// # Errors
/// `Bug` when the decomposition refuses values that were checked before.
pub(crate) fn decompose(values: &[f64], seasons: &[usize], fit: Fit) -> Result<Parts> {
    let seasons: Vec<usize> = seasons.iter().copied().filter(|s| *s > 1 && values.len() >= 2 * s).collect();
    if seasons.is_empty() {
        let trend = smooth(values);
        let remainder = values.iter().zip(&trend).map(|(v, t)| v - t).collect();
        return Ok(Parts { trend, seasonal: Vec::new(), remainder });
    }
    let longest = seasons.iter().copied().max().unwrap_or(2);
    let mut stl = StlParams::new();
    match fit {
        Fit::Supple => {}
        Fit::Robust => {
            // Stiff enough that one period weighs little in what is expected of itself.
            stl.robust(true).inner_loops(2).outer_loops(8).seasonal_length(25).trend_length(2 * longest + 7);
        }
    }
    let parts = MstlParams::new()
        .stl_params(stl)
        .fit(values, &seasons)
        .map_err(|e| Error::bug("the decomposition refused the series").with_source(e))?;
    let (seasonal, trend, remainder) = parts.into_parts();
    Ok(Parts { trend, seasonal, remainder })
}

/// The values with wild ones replaced by what trend and seasons say of them.
///
/// # Errors
/// As [`decompose`].
pub(crate) fn tamed(values: &[f64], seasons: &[usize]) -> Result<Vec<f64>> {
    let parts = decompose(values, seasons, Fit::Robust)?;
    let limit = WILD * sigma(&parts.remainder);
    let tame = |(i, v): (usize, &f64)| if parts.remainder[i].abs() > limit { parts.expected(i) } else { *v };
    Ok(values.iter().enumerate().map(tame).collect())
}

/// The values with gaps filled by what trend and seasons say of them.
///
/// # Errors
/// As [`decompose`].
pub(crate) fn filled(bridged: &[f64], known: &[Option<f64>], seasons: &[usize]) -> Result<Vec<f64>> {
    if known.iter().all(Option::is_some) || seasons.is_empty() {
        return Ok(bridged.to_vec());
    }
    let mut values = bridged.to_vec();
    // Straight lines flatten the seasons, so a second round starts from the fillings of the first.
    for _ in 0..2 {
        let parts = decompose(&values, seasons, Fit::Robust)?;
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| known[*i].is_none()) {
            *value = parts.expected(i);
        }
    }
    Ok(values)
}

/// A running median over about a tenth of the values (5 to 61), continued to the ends by straight lines, then a running mean.
fn smooth(values: &[f64]) -> Vec<f64> {
    let reach = (values.len() / 20).clamp(2, 30);
    let Some(inner) = values.len().checked_sub(2 * reach).filter(|inner| *inner > 0) else {
        let line = line(values);
        return (0..values.len()).map(|i| line.at(i as f64)).collect();
    };
    let length = 2 * reach + 1;
    let (head, tail) = (line(&values[..length]), line(&values[values.len() - length..]));
    let start = (0..reach).map(|i| head.at(i as f64));
    let middle = (0..inner).map(|i| median(&values[i..i + length]));
    let end = (reach + 1..length).map(|i| tail.at(i as f64));
    let medians: Vec<f64> = start.chain(middle).chain(end).collect();
    (0..medians.len())
        .map(|i| {
            let reach = (reach / 2).min(i).min(medians.len() - 1 - i);
            mean(&medians[i - reach..=i + reach])
        })
        .collect()
}

/// A straight line.
struct Line {
    start: f64,
    slope: f64,
}

impl Line {
    fn at(&self, i: f64) -> f64 {
        self.start + self.slope * i
    }
}

/// The line of the median slope between any two values (Theil and Sen).
fn line(values: &[f64]) -> Line {
    let slopes: Vec<f64> =
        (0..values.len()).flat_map(|i| (0..i).map(move |j| (values[i] - values[j]) / (i - j) as f64)).collect();
    let slope = median(&slopes);
    let start = median(&values.iter().enumerate().map(|(i, v)| v - slope * i as f64).collect::<Vec<_>>());
    Line { start, slope }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{noise, wave};

    #[test]
    fn parts_add_up_to_the_values() {
        let values: Vec<f64> = (0..200).map(|i| i as f64 + 10.0 * wave(i, 7) + noise(i)).collect();
        for seasons in [vec![], vec![7], vec![7, 30], vec![150]] {
            let parts = decompose(&values, &seasons, Fit::Robust).unwrap();
            for (i, value) in values.iter().enumerate() {
                assert!((parts.expected(i) + parts.remainder[i] - value).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_wild_value_does_not_leak_into_its_neighbours() {
        let calm: Vec<f64> = (0..140).map(|i| 100.0 + 10.0 * wave(i, 7) + noise(i)).collect();
        let mut wild = calm.clone();
        wild[70] = 0.0;
        let (calm, wild) = (decompose(&calm, &[7], Fit::Robust).unwrap(), decompose(&wild, &[7], Fit::Robust).unwrap());
        for i in (60..80).chain([63, 77]) {
            assert!((calm.expected(i) - wild.expected(i)).abs() < 3.0, "{i}");
        }
    }

    #[test]
    fn wild_values_are_tamed_and_calm_ones_stay() {
        let mut values: Vec<f64> = (0..140).map(|i| 100.0 + 10.0 * wave(i, 7) + noise(i)).collect();
        values[70] = 0.0;
        let tame = tamed(&values, &[7]).unwrap();
        assert!((tame[70] - 100.0).abs() < 5.0);
        assert_eq!(tame[71], values[71]);
    }

    #[test]
    fn gaps_are_filled_in_season() {
        let full: Vec<f64> = (0..70).map(|i| if i % 7 == 6 { 0.0 } else { 100.0 }).collect();
        let mut known: Vec<Option<f64>> = full.iter().copied().map(Some).collect();
        known[34] = None;
        let mut bridged = full.clone();
        bridged[34] = 100.0;
        assert!(filled(&bridged, &known, &[7]).unwrap()[34] < 30.0);
    }
}
