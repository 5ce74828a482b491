//! Finds the lengths after which a series repeats itself.
//!
//! Lengths that calendars and clocks suggest (7 days, 24 and 168 hours, 12 months …) are tried first, each on what is left
//! after the shorter ones were taken out; a length is accepted when the autocorrelation at its lag is significant
//! (above 1.96 standard errors by Bartlett's formula) and not small. Without any, the first clear peak of the
//! autocorrelation counts, and a second one on what it leaves.

use crate::robust::{autocorrelation, median, quantile, sigma};

/// Longest season that is looked for beside the usual ones.
const LONGEST: usize = 180;
/// Standard errors that a correlation must exceed.
const SIGNIFICANT: f64 = 1.96;
/// Correlation that a usual season must have.
const USUAL: f64 = 0.2;
/// Correlation that a season which no calendar suggests must have.
const UNUSUAL: f64 = 0.4;

/// Season lengths in periods, shortest first; empty for a series that does not repeat itself. At least two whole seasons
/// lie in `values`.
pub(crate) fn find(values: &[f64], usual: &[usize]) -> Vec<usize> {
    let mut left = values.to_vec();
    let mut found = Vec::new();
    for season in usual.iter().copied().filter(|s| values.len() >= 2 * s) {
        let level = detrended(&left, season);
        // Two or three cycles of a long season prove little, so they must agree more.
        let needed = if values.len() < 4 * season { 1.5 * USUAL } else { USUAL };
        let correlations = autocorrelation(&level, season);
        if correlations[season] >= needed && is_significant(&correlations, season, values.len()) {
            left = without(&left, &level, season);
            found.push(season);
        }
    }
    if found.is_empty() { unusual(values) } else { found }
}

/// A declared season, if `values` hold it twice; a season of 1 is none.
pub(crate) fn declared(season: usize, values: &[f64]) -> Vec<usize> {
    if season > 1 && values.len() >= 2 * season { vec![season] } else { Vec::new() }
}

/// Up to two seasons that no calendar suggests; the second is looked for in what the first leaves.
fn unusual(values: &[f64]) -> Vec<usize> {
    let Some(first) = peak(values) else { return Vec::new() };
    let left = without(values, &detrended(values, first), first);
    let second = peak(&left).filter(|second| second % first == 0 && second > &first);
    std::iter::once(first).chain(second).collect()
}

/// The first lag whose correlation is a peak and nearly the highest of all.
fn peak(values: &[f64]) -> Option<usize> {
    let longest = LONGEST.min(values.len() / 3);
    if longest < 4 {
        return None;
    }
    let correlations = autocorrelation(&detrended(values, longest), longest);
    let peaks: Vec<usize> = (2..longest)
        .filter(|lag| correlations[*lag] > correlations[lag - 1] && correlations[*lag] >= correlations[lag + 1])
        .filter(|lag| correlations[*lag] >= UNUSUAL && is_significant(&correlations, *lag, values.len()))
        .collect();
    let highest = peaks.iter().map(|lag| correlations[*lag]).reduce(f64::max)?;
    peaks.into_iter().find(|lag| correlations[*lag] >= 0.85 * highest)
}

/// Bartlett: the correlation at a lag varies by chance with (1 + 2 × the squares of the shorter ones) / n.
fn is_significant(correlations: &[f64], lag: usize, n: usize) -> bool {
    let shorter: f64 = correlations[1..lag].iter().map(|r| r * r).sum();
    correlations[lag] > SIGNIFICANT * ((1.0 + 2.0 * shorter) / n as f64).sqrt()
}

/// What is left of the values when their average over about one season is taken away; wild values are cut off.
fn detrended(values: &[f64], season: usize) -> Vec<f64> {
    let reach = (season / 2).max(1);
    let (low, high) = (quantile(values, 0.05), quantile(values, 0.95));
    let fence = 2.0 * (high - low);
    // A wild value must not spread over the averages around it.
    let values: Vec<f64> = values.iter().map(|v| v.clamp(low - fence, high + fence)).collect();
    let mut sums = vec![0.0];
    for value in &values {
        sums.push(sums[sums.len() - 1] + value);
    }
    // A season of even length is centred by giving its two ends half the weight.
    let even = season.is_multiple_of(2);
    let apart: Vec<f64> = (0..values.len())
        .map(|i| {
            let reach = reach.min(i).min(values.len() - 1 - i);
            let (from, to) = (i - reach, i + reach + 1);
            let ends = if even && reach > 0 { (values[from] + values[to - 1]) / 2.0 } else { 0.0 };
            let weight = (to - from) as f64 - if even && reach > 0 { 1.0 } else { 0.0 };
            values[i] - (sums[to] - sums[from] - ends) / weight
        })
        .collect();
    let spread = sigma(&apart).max((quantile(&apart, 0.9) - quantile(&apart, 0.1)) / 3.0);
    if spread > 0.0 { apart.iter().map(|v| v.clamp(-4.0 * spread, 4.0 * spread)).collect() } else { apart }
}

/// The values without the typical course of a season.
fn without(values: &[f64], level: &[f64], season: usize) -> Vec<f64> {
    let course: Vec<f64> = (0..season)
        .map(|phase| median(&level.iter().copied().skip(phase).step_by(season).collect::<Vec<_>>()))
        .collect();
    values.iter().enumerate().map(|(i, v)| v - course[i % season]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{noise, wave};

    #[test]
    fn usual_seasons_are_found_under_trend_and_noise() {
        let week = |n: usize| -> Vec<f64> {
            (0..n).map(|i| 100.0 + 0.3 * i as f64 + if i % 7 > 4 { -20.0 } else { 5.0 } + 4.0 * noise(i)).collect()
        };
        assert_eq!(find(&week(365), &[7, 365]), [7]);
        assert_eq!(find(&week(28), &[7, 365]), [7]);
        let year: Vec<f64> = (0..72).map(|i| i as f64 + 20.0 * wave(i, 12) + 3.0 * noise(i)).collect();
        assert_eq!(find(&year, &[12]), [12]);
    }

    #[test]
    fn hours_repeat_by_day_and_by_week() {
        let hours: Vec<f64> =
            (0..24 * 7 * 6).map(|i| 50.0 + 20.0 * wave(i, 24) + 15.0 * wave(i, 168) + 3.0 * noise(i)).collect();
        assert_eq!(find(&hours, &[24, 168]), [24, 168]);
    }

    #[test]
    fn a_season_that_no_calendar_suggests_is_found_by_its_peak() {
        let values: Vec<f64> = (0..200).map(|i| 10.0 * wave(i, 10) + noise(i)).collect();
        assert_eq!(find(&values, &[7]), [10]);
        let two: Vec<f64> = (0..600).map(|i| 20.0 * wave(i, 10) + 15.0 * wave(i, 50) + 2.0 * noise(i)).collect();
        assert!(find(&two, &[7]).contains(&50), "{:?}", find(&two, &[7]));
    }

    #[test]
    fn noise_walks_and_constants_have_no_season() {
        let mut walk = vec![0.0];
        for i in 0..300 {
            walk.push(walk[i] + noise(i));
        }
        assert!(find(&walk, &[7]).is_empty());
        assert!(find(&(0..300).map(noise).collect::<Vec<_>>(), &[7]).is_empty());
        assert!(find(&[5.0; 60], &[7]).is_empty());
        assert!(find(&[1.0], &[7]).is_empty());
        assert!(find(&(0..60).map(|i| i as f64).collect::<Vec<_>>(), &[7]).is_empty());
    }

    #[test]
    fn one_wild_day_does_not_hide_the_week() {
        let mut values: Vec<f64> = (0..120).map(|i| if i % 7 > 4 { 60.0 } else { 100.0 + noise(i) }).collect();
        values[50] = 1e6;
        assert_eq!(find(&values, &[7]), [7]);
    }

    #[test]
    fn a_declared_season_needs_two_rounds() {
        assert_eq!(declared(5, &[0.0; 10]), [5]);
        assert!(declared(5, &[0.0; 9]).is_empty());
        assert!(declared(1, &[0.0; 9]).is_empty());
    }
}
