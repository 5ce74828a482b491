//! The back-test: at several cut-offs in the past, what would each model have forecast, and what came?

use serde::Serialize;

use super::models::{Learner, Model};
use crate::robust::{mean, rounded};

/// Most cut-offs, for long and for short histories.
const CUTOFFS: (usize, usize) = (5, 10);

/// The cut-offs of a back-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Number of periods that the models know, at each cut-off; growing.
    pub known: Vec<usize>,
    /// Periods that are forecast from each cut-off.
    pub window: usize,
}

impl Plan {
    /// Spreads cut-offs over the second half of `n` periods. Each leaves two rounds of `season` to learn from, if it can.
    pub(crate) fn new(n: usize, season: usize, horizon: usize) -> Self {
        let least = (n / 2).max(2 * season + 1).max(2).min(n.saturating_sub(1));
        let room = n.saturating_sub(least);
        // Half of the room for the window, the rest to move it along.
        let window = horizon.min(room.div_ceil(2).max(1));
        let most = if n > 1_000 { CUTOFFS.0 } else { CUTOFFS.1 };
        let newest = n.saturating_sub(window);
        let step = (newest.saturating_sub(least) / (most - 1)).clamp(1, window.max(1));
        let mut known: Vec<usize> =
            (0..most).filter_map(|k| newest.checked_sub(k * step)).filter(|k| *k >= least).collect();
        known.reverse();
        Self { known, window }
    }
}

/// What a model said at every cut-off: actual minus forecast, and the actual values.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub model: Model,
    /// One list a cut-off, one error a period.
    pub errors: Vec<Vec<f64>>,
    actual: Vec<Vec<f64>>,
}

impl Trial {
    /// Lets all `models` forecast from every cut-off of the plan. A model that can't from one of them is left out, so that all
    /// are compared on the same ones. Forecasts are not below `floor`.
    pub(crate) fn run(
        models: &[Model],
        values: &[f64],
        seasons: &[usize],
        plan: &Plan,
        floor: Option<f64>,
    ) -> Vec<Self> {
        let blank = |model: &Model| Self { model: *model, errors: Vec::new(), actual: Vec::new() };
        let mut trials: Vec<Self> = models.iter().map(blank).collect();
        for known in &plan.known {
            let (history, future) = values.split_at(*known);
            let future = &future[..plan.window];
            let learner = Learner::new(history, seasons, plan.window);
            for trial in &mut trials {
                let Some(forecast) = learner.forecast(trial.model) else { continue };
                let floored = forecast.iter().map(|f| floor.map_or(*f, |floor| f.max(floor)));
                trial.errors.push(future.iter().zip(floored).map(|(a, f)| a - f).collect());
                trial.actual.push(future.to_vec());
            }
        }
        trials.retain(|trial| trial.errors.len() == plan.known.len());
        trials
    }

    /// Mean absolute error over all cut-offs and periods.
    pub(crate) fn mae(&self) -> f64 {
        mean(&self.errors.iter().flatten().map(|e| e.abs()).collect::<Vec<_>>())
    }

    /// Error figures; `scale` is the mean absolute error of the seasonal naive within the history, `unit` what 1 stands for.
    pub(crate) fn figures(&self, scale: f64, unit: f64) -> Figures {
        let pairs: Vec<(f64, f64)> =
            self.errors.iter().flatten().zip(self.actual.iter().flatten()).map(|(e, a)| (*e, *a)).collect();
        let relative: Vec<f64> = pairs.iter().filter(|(_, a)| *a != 0.0).map(|(e, a)| (e / a).abs()).collect();
        let symmetric: Vec<f64> = pairs
            .iter()
            .map(|(e, a)| (e, a.abs() + (a - e).abs()))
            .map(|(e, size)| if size > 0.0 { 2.0 * e.abs() / size } else { 0.0 })
            .collect();
        let squares: Vec<f64> = pairs.iter().map(|(e, _)| e * e).collect();
        Figures {
            mae: rounded(self.mae() * unit),
            rmse: rounded(mean(&squares).sqrt() * unit),
            mape: (!relative.is_empty()).then(|| rounded(100.0 * mean(&relative))),
            smape: rounded(100.0 * mean(&symmetric)),
            mase: (scale > 0.0).then(|| rounded(self.mae() / scale)),
        }
    }
}

/// How wrong a model was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Mean absolute error, in units of the value.
    pub mae: f64,
    /// Root of the mean squared error, in units of the value.
    pub rmse: f64,
    /// Mean absolute error in percent of the actual value, over actual values other than 0.
    pub mape: Option<f64>,
    /// The same in percent of the mean of actual and forecast: 0 to 200.
    pub smape: f64,
    /// Mean absolute error as a multiple of what repeating the last season (or value) gets wrong one step ahead within the
    /// history; `None` when that is never wrong.
    pub mase: Option<f64>,
}

/// What repeating the value of one season (or one period) before gets wrong, on average.
pub(crate) fn naive_scale(values: &[f64], season: usize) -> f64 {
    mean(&values.iter().zip(values.iter().skip(season.max(1))).map(|(a, b)| (b - a).abs()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_year_of_days_is_tested_from_ten_cutoffs() {
        let plan = Plan::new(365, 7, 14);
        assert_eq!((plan.known.len(), plan.window, plan.known[9]), (10, 14, 351));
    }

    #[test]
    fn errors_are_in_the_words_of_the_textbook() {
        let plan = Plan { known: vec![2], window: 2 };
        let trial = &Trial::run(&[Model::Naive], &[1.0, 2.0, 4.0, 1.0], &[], &plan, None)[0];
        assert_eq!(trial.errors, [[2.0, -1.0]]);
        let figures = trial.figures(naive_scale(&[1.0, 2.0], 1), 10.0);
        assert_eq!((figures.mae, figures.mape, figures.mase), (15.0, Some(75.0), Some(1.5)));
        assert!((figures.smape - 100.0 * (2.0 / 3.0)).abs() < 1e-4);
    }

    #[test]
    fn percent_errors_leave_out_actual_zeros() {
        let plan = Plan { known: vec![1], window: 2 };
        let trial = &Trial::run(&[Model::Naive], &[0.0, 0.0, 0.0], &[], &plan, None)[0];
        let figures = trial.figures(0.0, 1.0);
        assert_eq!((figures.mape, figures.smape, figures.mase), (None, 0.0, None));
    }

    proptest! {
        #[test]
        fn every_cutoff_leaves_room_for_its_window(n in 2..3_000usize, season in 0..200usize, horizon in 1..=1_000usize) {
            let plan = Plan::new(n, season, horizon);
            prop_assert!(plan.window >= 1 && plan.window <= horizon);
            prop_assert!(!plan.known.is_empty(), "{n} {season} {horizon}");
            for known in &plan.known {
                prop_assert!(*known >= 1 && known + plan.window <= n);
            }
        }
    }
}
