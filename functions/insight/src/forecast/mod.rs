//! Forecasts: models compete in a back-test, the one with the smallest error continues the series, and its past errors make
//! the intervals.

mod backtest;
mod interval;
mod models;

use serde::Serialize;
use shared::{Error, Result};

use crate::decompose::filled;
use crate::question::Question;
use crate::robust::rounded;
use crate::season;
use crate::series::Series;
use backtest::{Figures, Plan, Trial, naive_scale};
use interval::{Widths, coverage};
use models::{Learner, Model};

/// Periods that a forecast needs.
const LEAST: usize = 3;
/// Newest periods that models learn from; more when the longest season asks for it.
const MOST: usize = 2_000;
/// Rounds of the longest season that models may learn from, if that is more.
const ROUNDS: usize = 4;

/// A forecast and how far to trust it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// The model that was chosen: the one with the smallest back-test error.
    pub model: String,
    /// Season lengths in periods; empty for none.
    pub seasons: Vec<usize>,
    /// Share of outcomes that the intervals should hold.
    pub interval: f64,
    pub points: Vec<Point>,
    pub backtest: Backtest,
}

/// One period to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    pub date: String,
    pub mean: f64,
    pub lower: f64,
    pub upper: f64,
}

/// How the chosen model did in the past.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    /// Cut-offs in the past that forecasts were made from.
    pub cutoffs: usize,
    /// Periods that were forecast from each.
    pub periods: usize,
    #[serde(flatten)]
    pub figures: Figures,
    /// Share of the actual values that the intervals would have held; `None` with fewer than three cut-offs.
    pub coverage: Option<f64>,
    pub baseline: Baseline,
    /// Every model that could forecast, best first.
    pub candidates: Vec<Candidate>,
}

/// The simplest model, for comparison: the last season (or the last value) repeated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Baseline {
    pub model: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// A model and its back-test error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    pub model: String,
    /// Mean absolute error, in units of the value.
    pub mae: f64,
}

/// Forecasts the series.
///
/// # Errors
/// `Invalid` for fewer than three known periods.
pub fn forecast(series: &Series, question: &Question) -> Result<Forecast> {
    series.require(LEAST, "a forecast")?;
    let (values, seasons) = history(series, question.season)?;
    let unit = values.iter().fold(0.0_f64, |size, v| size.max(v.abs())) / 100.0;
    let unit = if unit > 0.0 { unit } else { 1.0 };
    let scaled: Vec<f64> = values.iter().map(|v| v / unit).collect();
    let floor = scaled.iter().all(|v| *v >= 0.0).then_some(0.0);
    let contest = Contest::run(&scaled, &seasons, question.horizon, floor)?;
    let (chosen, continued) = contest.winner(&scaled, &seasons, question.horizon)?;
    let widths = Widths::new(&chosen.errors, question.interval);
    let floored = |v: f64| rounded(floor.map_or(v, |f| v.max(f)) * unit);
    let points = continued.iter().enumerate().map(|(h, mean)| Point {
        date: series.label(series.len() + h),
        mean: floored(*mean),
        lower: floored(mean.min(*mean - widths.at(h))),
        upper: floored(mean + widths.at(h)),
    });
    Ok(Forecast {
        model: chosen.model.as_str(!seasons.is_empty()).into(),
        seasons: seasons.clone(),
        interval: question.interval,
        points: points.collect(),
        backtest: contest.report(chosen, question.interval, unit),
    })
}

/// The newest values, without gaps, and their seasons.
fn history(series: &Series, declared: Option<usize>) -> Result<(Vec<f64>, Vec<usize>)> {
    let (values, seasons) = prepared(series, declared)?;
    let longest = seasons.last().copied().unwrap_or(0);
    let kept = MOST.max(ROUNDS * longest);
    Ok((values[values.len().saturating_sub(kept)..].to_vec(), seasons))
}

/// All values of a series, gaps filled, and its seasons: those declared, or those found.
///
/// # Errors
/// `Bug` when the decomposition refuses the values.
pub fn prepared(series: &Series, declared: Option<usize>) -> Result<(Vec<f64>, Vec<usize>)> {
    let bridged = series.bridged();
    let seasons = match declared {
        Some(declared) => season::declared(declared, &bridged),
        None => season::find(&bridged, series.calendar.unit().usual_seasons()),
    };
    Ok((filled(&bridged, &series.values, &seasons)?, seasons))
}

/// The back-test of all candidates.
struct Contest {
    plan: Plan,
    /// Best first.
    trials: Vec<Trial>,
    /// Mean absolute error of the seasonal naive, one step ahead, before the first cut-off.
    scale: f64,
    seasonal: bool,
}

impl Contest {
    fn run(values: &[f64], seasons: &[usize], horizon: usize, floor: Option<f64>) -> Result<Self> {
        let longest = seasons.last().copied().unwrap_or(0);
        let plan = Plan::new(values.len(), longest, horizon);
        let seasonal = !seasons.is_empty();
        let mut trials = Trial::run(&Model::candidates(seasonal), values, seasons, &plan, floor);
        trials.sort_by(|a, b| a.mae().total_cmp(&b.mae()));
        let first = plan.known.first().copied().unwrap_or(values.len());
        let scale = naive_scale(&values[..first], longest);
        if trials.is_empty() {
            return Err(Error::bug("no model could forecast the series"));
        }
        Ok(Self { plan, trials, scale, seasonal })
    }

    /// The best model whose forecast stays within reach of what the series ever did.
    fn winner(&self, values: &[f64], seasons: &[usize], horizon: usize) -> Result<(&Trial, Vec<f64>)> {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let reach = (most - least) * (2.0 + 3.0 * horizon as f64 / values.len() as f64);
        let learner = Learner::new(values, seasons, horizon);
        self.trials
            .iter()
            .find_map(|trial| {
                let continued = learner.forecast(trial.model)?;
                let within = continued.iter().all(|v| (least - reach..=most + reach).contains(v));
                within.then_some((trial, continued))
            })
            .ok_or_else(|| Error::bug("no model could continue the series"))
    }

    fn report(&self, chosen: &Trial, level: f64, unit: f64) -> Backtest {
        let simplest = if self.seasonal { Model::SeasonalNaive } else { Model::Naive };
        let baseline = self.trials.iter().find(|t| t.model == simplest).unwrap_or(chosen);
        let name = |model: Model| model.as_str(self.seasonal).to_owned();
        Backtest {
            cutoffs: self.plan.known.len(),
            periods: self.plan.window,
            figures: chosen.figures(self.scale, unit),
            coverage: coverage(&chosen.errors, level).map(rounded),
            baseline: Baseline { model: name(baseline.model), figures: baseline.figures(self.scale, unit) },
            candidates: self
                .trials
                .iter()
                .map(|t| Candidate { model: name(t.model), mae: rounded(t.mae() * unit) })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
