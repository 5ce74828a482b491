//! The models that compete for a forecast.
//!
//! All work on values scaled to a size of about 100, and give up (`None`) on histories they can't learn from.

use std::cell::OnceCell;

use augurs::ets::AutoETS;
use augurs::{Fit as _, Predict as _};

use crate::decompose::{Fit, decompose, tamed};
use crate::robust::{mean, median};

/// Cycles that a seasonal median looks back on.
const CYCLES: usize = 6;
/// Periods that a mean looks back on, without a season.
const RECENT: usize = 30;

/// Additive errors, no or an additive trend, damped or not. Multiplicative errors change point forecasts little and take as
/// long again.
const ETS: &str = "AZN";

/// Values that differ by less than this share of their size are equal.
const CONSTANT: f64 = 1e-9;

/// A way to continue a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// The last value stays.
    Naive,
    /// The last season repeats itself.
    SeasonalNaive,
    /// The mean of the last 30 values stays.
    Mean,
    /// The line from the first to the last value goes on.
    Drift,
    /// For each place in the season, the median of the last six.
    SeasonalMedian,
    /// Exponential smoothing with the error and trend that fit best (AICc), no season.
    Ets,
    /// Seasons by MSTL, the rest by [`Model::Ets`].
    MstlEts,
    /// The same after wild values were replaced by expected ones.
    MstlEtsTamed,
    /// The same on logarithms: seasons and trend multiply.
    MstlEtsLog,
    /// Seasons by MSTL, the rest by Theta: half the line's slope from an exponentially smoothed level.
    MstlTheta,
    /// The mean of `MstlEtsTamed`, `MstlTheta` and `SeasonalMedian`.
    Blend,
}

impl Model {
    /// The candidates, simplest first: of two that are as good the first is taken.
    pub(crate) fn candidates(seasonal: bool) -> Vec<Self> {
        if seasonal {
            vec![
                Self::SeasonalNaive,
                Self::Naive,
                Self::Mean,
                Self::SeasonalMedian,
                Self::Ets,
                Self::MstlEts,
                Self::MstlEtsTamed,
                Self::MstlTheta,
                Self::MstlEtsLog,
                Self::Blend,
            ]
        } else {
            vec![Self::Naive, Self::Mean, Self::Drift, Self::Ets, Self::MstlEtsTamed, Self::MstlTheta, Self::MstlEtsLog]
        }
    }

    /// As answers name it.
    pub(crate) fn as_str(self, seasonal: bool) -> &'static str {
        match (self, seasonal) {
            (Self::Naive, _) => "naive",
            (Self::SeasonalNaive, _) => "seasonal_naive",
            (Self::Mean, _) => "mean",
            (Self::Drift, _) => "drift",
            (Self::SeasonalMedian, _) => "seasonal_median",
            (Self::Ets, _) => "ets",
            (Self::MstlEts, _) => "mstl_ets",
            (Self::MstlEtsTamed, true) => "mstl_ets_tamed",
            (Self::MstlEtsTamed, false) => "ets_tamed",
            (Self::MstlEtsLog, true) => "mstl_ets_log",
            (Self::MstlEtsLog, false) => "ets_log",
            (Self::MstlTheta, true) => "mstl_theta",
            (Self::MstlTheta, false) => "theta",
            (Self::Blend, _) => "blend",
        }
    }
}

/// What the models learn from at one cut-off. Work that several of them share is done once.
pub(crate) struct Learner<'a> {
    history: &'a [f64],
    seasons: &'a [usize],
    horizon: usize,
    /// By tamed values: exponential smoothing and Theta.
    tamed: OnceCell<Option<(Vec<f64>, Vec<f64>)>>,
}

impl<'a> Learner<'a> {
    pub(crate) fn new(history: &'a [f64], seasons: &'a [usize], horizon: usize) -> Self {
        Self { history, seasons, horizon, tamed: OnceCell::new() }
    }

    /// The next values; `None` when the history is too short or of a kind that the model can't work with.
    pub(crate) fn forecast(&self, model: Model) -> Option<Vec<f64>> {
        let (history, seasons, horizon) = (self.history, self.seasons, self.horizon);
        let last = *history.last()?;
        let season = seasons.iter().copied().rfind(|s| history.len() >= 2 * s);
        let values = match model {
            Model::Naive => vec![last; horizon],
            Model::Mean => vec![mean(&history[history.len().saturating_sub(RECENT)..]); horizon],
            Model::Drift => drift(history, horizon)?,
            Model::SeasonalNaive => seasonal_naive(history, season?, horizon),
            Model::SeasonalMedian => seasonal_median(history, season?, horizon),
            Model::Ets => ets(history, horizon)?,
            Model::MstlEts => {
                let parts = Seasonal::new(history, seasons)?;
                parts.put_on(ets(&parts.rest, horizon)?)
            }
            Model::MstlEtsTamed => self.tamed()?.0.clone(),
            Model::MstlTheta => self.tamed()?.1.clone(),
            Model::MstlEtsLog => logarithmic(history, seasons, horizon)?,
            Model::Blend => {
                let ((smoothed, theta), median) = (self.tamed()?, seasonal_median(history, season?, horizon));
                (0..horizon).map(|h| (smoothed[h] + theta[h] + median[h]) / 3.0).collect()
            }
        };
        values.iter().all(|v| v.is_finite()).then_some(values)
    }

    fn tamed(&self) -> Option<&(Vec<f64>, Vec<f64>)> {
        self.tamed
            .get_or_init(|| {
                let parts = Seasonal::new(&tamed(self.history, self.seasons).ok()?, self.seasons)?;
                let smoothed = parts.put_on(ets(&parts.rest, self.horizon)?);
                Some((smoothed, parts.put_on(theta(&parts.rest, self.horizon)?)))
            })
            .as_ref()
    }
}

fn drift(history: &[f64], horizon: usize) -> Option<Vec<f64>> {
    let (first, last) = (history.first()?, history.last()?);
    let slope = (last - first) / (history.len() - 1).max(1) as f64;
    Some((1..=horizon).map(|h| last + slope * h as f64).collect())
}

fn seasonal_naive(history: &[f64], season: usize, horizon: usize) -> Vec<f64> {
    history[history.len() - season..].iter().copied().cycle().take(horizon).collect()
}

fn seasonal_median(history: &[f64], season: usize, horizon: usize) -> Vec<f64> {
    let course: Vec<f64> = (0..season)
        .map(|phase| {
            let back: Vec<f64> =
                history.iter().rev().skip(season - 1 - phase).step_by(season).take(CYCLES).copied().collect();
            median(&back)
        })
        .collect();
    course.into_iter().cycle().take(horizon).collect()
}

/// augurs' automatic choice among non-seasonal exponential smoothings. (Its seasonal ones are not implemented in 0.10.)
fn ets(history: &[f64], horizon: usize) -> Option<Vec<f64>> {
    // A constant, but for rounding, leaves nothing to fit.
    let (first, size) = (*history.first()?, history.iter().fold(0.0_f64, |size, v| size.max(v.abs())));
    if history.iter().all(|v| (v - first).abs() <= CONSTANT * size) {
        return Some(vec![first; horizon]);
    }
    Some(AutoETS::new(1, ETS).ok()?.fit(history).ok()?.predict(horizon, None).ok()?.point)
}

/// The Theta method (Assimakopoulos and Nikolopoulos 2000; as simple smoothing with drift: Hyndman and Billah 2003).
fn theta(history: &[f64], horizon: usize) -> Option<Vec<f64>> {
    let n = history.len() as f64;
    if history.len() < 3 {
        return None;
    }
    let (middle, center) = ((n - 1.0) / 2.0, mean(history));
    let slope = history.iter().enumerate().map(|(i, v)| (i as f64 - middle) * (v - center)).sum::<f64>()
        / (0..history.len()).map(|i| (i as f64 - middle).powi(2)).sum::<f64>();
    let smoothed = |alpha: f64| {
        history.iter().skip(1).fold((history[0], 0.0), |(level, squares), v| {
            (level + alpha * (v - level), squares + (v - level) * (v - level))
        })
    };
    let (alpha, (level, _)) = (1..=99)
        .map(|i| f64::from(i) / 100.0)
        .map(|alpha| (alpha, smoothed(alpha)))
        .min_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
    let start = (1.0 - (1.0 - alpha).powf(n)) / alpha;
    Some((0..horizon).map(|h| level + slope / 2.0 * (h as f64 + start)).collect())
}

/// A history without its seasons, and the last round of each, to be put on what continues it.
struct Seasonal {
    rest: Vec<f64>,
    rounds: Vec<Vec<f64>>,
}

impl Seasonal {
    /// `None` when there are seasons but the history does not hold any of them twice.
    fn new(history: &[f64], seasons: &[usize]) -> Option<Self> {
        if seasons.is_empty() {
            return Some(Self { rest: history.to_vec(), rounds: Vec::new() });
        }
        let held: Vec<usize> = seasons.iter().copied().filter(|s| history.len() >= 2 * s).collect();
        let parts = decompose(history, &held, Fit::Supple).ok().filter(|_| !held.is_empty())?;
        let last = |(component, season): (&Vec<f64>, &usize)| component[component.len() - season..].to_vec();
        Some(Self { rest: parts.adjusted(), rounds: parts.seasonal.iter().zip(&held).map(last).collect() })
    }

    fn put_on(&self, mut values: Vec<f64>) -> Vec<f64> {
        for round in &self.rounds {
            for (value, part) in values.iter_mut().zip(round.iter().cycle()) {
                *value += part;
            }
        }
        values
    }
}

fn logarithmic(history: &[f64], seasons: &[usize], horizon: usize) -> Option<Vec<f64>> {
    if history.iter().any(|v| *v <= 0.0) {
        return None;
    }
    let logs: Vec<f64> = history.iter().map(|v| 100.0 * v.ln()).collect();
    let parts = Seasonal::new(&logs, seasons)?;
    Some(parts.put_on(ets(&parts.rest, horizon)?).iter().map(|v| (v / 100.0).exp()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::wave;

    #[test]
    fn every_model_continues_a_clean_pattern() {
        let history: Vec<f64> = (0..84).map(|i| 100.0 + 10.0 * wave(i, 7)).collect();
        for model in Model::candidates(true) {
            let values = Learner::new(&history, &[7], 14).forecast(model).unwrap();
            assert_eq!(values.len(), 14, "{model:?}");
            if !matches!(model, Model::Naive | Model::Mean | Model::Ets) {
                for (h, value) in values.iter().enumerate() {
                    assert!((value - (100.0 + 10.0 * wave(84 + h, 7))).abs() < 1.5, "{model:?} {h} {value}");
                }
            }
        }
    }

    #[test]
    fn a_trend_goes_on() {
        let history: Vec<f64> = (1..=60).map(|i| 2.0 * f64::from(i)).collect();
        for model in [Model::Drift, Model::Ets] {
            let values = Learner::new(&history, &[], 10).forecast(model).unwrap();
            assert!((values[9] - 140.0).abs() < 2.0, "{model:?} {values:?}");
        }
    }

    #[test]
    fn no_model_fails_on_odd_histories() {
        for history in [vec![], vec![0.0], vec![1.0, 2.0], vec![0.0; 50], vec![-5.0; 20], vec![100.0, 0.0, 0.0, 0.0]] {
            for seasonal in [true, false] {
                for model in Model::candidates(seasonal) {
                    let seasons: &[usize] = if seasonal { &[7] } else { &[] };
                    if let Some(values) = Learner::new(&history, seasons, 1_000).forecast(model) {
                        assert!(values.len() == 1_000 && values.iter().all(|v| v.is_finite()));
                    }
                }
            }
        }
    }
}
