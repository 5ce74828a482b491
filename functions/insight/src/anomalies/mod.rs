//! Unusual periods: what was expected of them, how far off they are, and who made them so.
//!
//! What was expected comes from a robust decomposition (trend and seasons), made a second time without the periods that
//! stood out the first time, so that a wild period neither raises nor lowers what is expected of itself and its neighbours.

mod contribution;
mod score;

use serde::Serialize;
use shared::Result;

pub use contribution::{Contribution, Mover};

use crate::decompose::{Fit, decompose};
use crate::forecast::prepared;
use crate::question::Question;
use crate::robust::{normal_quantile, rounded};
use crate::series::Series;

/// Periods that the search needs.
const LEAST: usize = 8;
/// Newest periods that are searched.
const MOST: usize = 20_000;
/// Score from which a period is an anomaly. Of normal deviations, about 1 in 10,000 gets there.
const UNUSUAL: f64 = 4.0;
/// Anomalies that are told with their contributions.
const EXPLAINED: usize = 50;

/// What was found in a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Anomalies {
    /// Season lengths in periods; empty for none.
    pub seasons: Vec<usize>,
    /// Share of ordinary periods that lie between `lower` and `upper`.
    pub interval: f64,
    /// Standard deviation of ordinary periods from what is expected, in units of the value.
    pub spread: f64,
    /// Most unusual first.
    pub anomalies: Vec<Anomaly>,
    /// Every period of the search, in order of time.
    pub periods: Vec<Period>,
}

/// A period beside what was expected of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Period {
    pub date: String,
    /// `None` for a gap.
    pub actual: Option<f64>,
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    pub score: f64,
    pub anomaly: bool,
    /// Place in the series.
    #[serde(skip)]
    pub at: usize,
}

/// An unusual period.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Anomaly {
    /// 1 for the most unusual.
    pub rank: usize,
    pub date: String,
    pub actual: f64,
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    /// Actual minus expected.
    pub deviation: f64,
    /// The deviation in percent of what was expected; `None` when that is 0.
    pub percent: Option<f64>,
    /// Distance in robust standard deviations, weighed by the random cut forest.
    pub score: f64,
    pub severity: Severity,
    pub direction: Direction,
    /// One a dimension; for the 50 most unusual periods.
    pub contributions: Vec<Contribution>,
    /// Place in the series.
    #[serde(skip)]
    pub at: usize,
}

/// How unusual, by score: from 4, from 6, from 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Moderate,
    High,
    Extreme,
}

impl Severity {
    fn of(score: f64) -> Self {
        match score {
            s if s >= 10.0 => Self::Extreme,
            s if s >= 6.0 => Self::High,
            _ => Self::Moderate,
        }
    }

    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Moderate => "moderate",
            Self::High => "high",
            Self::Extreme => "extreme",
        }
    }
}

/// Where an anomaly lies from what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Above,
    Below,
}

impl Direction {
    /// As answers name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

/// Searches the newest 20,000 periods.
///
/// # Errors
/// `Invalid` for fewer than eight known periods.
pub fn anomalies(series: &Series, question: &Question) -> Result<Anomalies> {
    series.require(LEAST, "finding anomalies")?;
    let (values, seasons) = prepared(series, question.season)?;
    let skipped = values.len().saturating_sub(MOST);
    let values = &values[skipped..];
    let expected = expected(values, &seasons)?;
    let deviations: Vec<f64> = values.iter().zip(&expected).map(|(v, e)| v - e).collect();
    let spread = score::spread(values, &deviations);
    let known = &series.values[skipped..];
    let z: Vec<f64> = deviations.iter().map(|d| if spread > 0.0 { d / spread } else { 0.0 }).collect();
    let scores = score::scores(&z)?;
    let reach = normal_quantile(0.5 + question.interval / 2.0) * spread;
    let floor = values.iter().all(|v| *v >= 0.0).then_some(0.0);
    let floored = |v: f64| rounded(floor.map_or(v, |f| v.max(f)));
    let periods: Vec<Period> = (0..values.len())
        .map(|i| Period {
            date: series.label(skipped + i),
            actual: known[i],
            expected: floored(expected[i]),
            lower: floored(expected[i] - reach),
            upper: floored(expected[i] + reach),
            score: rounded(scores[i]),
            anomaly: known[i].is_some() && scores[i] >= UNUSUAL,
            at: skipped + i,
        })
        .collect();
    let found = ranked(series, &periods, seasons.last().copied());
    Ok(Anomalies { seasons, interval: question.interval, spread: rounded(spread), anomalies: found, periods })
}

/// What trend and seasons say of each period.
fn expected(values: &[f64], seasons: &[usize]) -> Result<Vec<f64>> {
    let parts = decompose(values, seasons, Fit::Robust)?;
    let spread = score::spread(values, &parts.remainder);
    let calm: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(i, v)| if parts.remainder[i].abs() > UNUSUAL * spread { parts.expected(i) } else { *v })
        .collect();
    let parts = decompose(&calm, seasons, Fit::Robust)?;
    Ok((0..values.len()).map(|i| parts.expected(i)).collect())
}

fn ranked(series: &Series, periods: &[Period], season: Option<usize>) -> Vec<Anomaly> {
    let mut found: Vec<&Period> = periods.iter().filter(|p| p.anomaly).collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.at.cmp(&b.at)));
    let mut unusual = vec![false; series.len()];
    for period in &found {
        unusual[period.at] = true;
    }
    found
        .into_iter()
        .zip(1..)
        .filter_map(|(period, rank)| {
            let actual = period.actual?;
            let deviation = actual - period.expected;
            let explained = if rank <= EXPLAINED { series.dimensions.as_slice() } else { &[] };
            let part = |d| contribution::contribution(d, period.at, period.expected, season, &unusual);
            Some(Anomaly {
                rank,
                date: period.date.clone(),
                actual,
                expected: period.expected,
                lower: period.lower,
                upper: period.upper,
                deviation: rounded(deviation),
                percent: (period.expected != 0.0).then(|| rounded(100.0 * deviation / period.expected.abs())),
                score: period.score,
                severity: Severity::of(period.score),
                direction: if deviation < 0.0 { Direction::Below } else { Direction::Above },
                contributions: explained.iter().map(part).collect(),
                at: period.at,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
