//! The answer to a question.

use serde::Serialize;
use shared::Result;
use shared::project::InsightKind;

use crate::anomalies::{Anomalies, anomalies};
use crate::forecast::{Forecast, forecast};
use crate::narrative::{Narrative, narrative};
use crate::question::Question;
use crate::series::{LeftOut, Series};

/// Newest periods of the series that an answer repeats.
const HISTORY: usize = 2_000;

/// What was asked, what it was asked of, and the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Name of the insight; `ad_hoc` for one that came with a request.
    pub insight: String,
    pub kind: InsightKind,
    pub series: Observed,
    #[serde(flatten)]
    pub result: Outcome,
    /// Where the result was stored; absent when the insight names no table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
}

/// The series that the rows make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// Name of the date column.
    pub date: String,
    /// Name of the value column.
    pub value: String,
    /// Length of a period: `day`, `hour`, `15 minutes` …
    pub period: String,
    pub periods: usize,
    /// Names of the first and the last period.
    pub from: String,
    pub to: String,
    /// Rows that the SELECT gave.
    pub rows: u64,
    /// Rows without a date or a finite number.
    pub ignored_rows: u64,
    /// Periods without a value; the first 100 are named.
    pub gaps: usize,
    pub gap_dates: Vec<String>,
    /// Periods at the ends that are not whole.
    pub left_out: Vec<LeftOut>,
    /// The newest 2,000 periods; a gap is null.
    pub history: Vec<Observation>,
}

/// A period and its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    pub date: String,
    pub value: Option<f64>,
}

/// The result, under the name of its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Forecast(Forecast),
    Anomalies(Anomalies),
    Narrative(Narrative),
}

/// Where a result was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    pub table: String,
    pub rows: u64,
    pub snapshot: Option<i64>,
    /// Whether the same event had stored it before; nothing was written then.
    pub replayed: bool,
}

/// Answers a question of a series: pure, and the same every time.
///
/// # Errors
/// `Invalid` when the series is too short for what is asked.
pub fn answer(series: &Series, question: &Question) -> Result<Answer> {
    let result = match question.kind {
        InsightKind::Forecast => Outcome::Forecast(forecast(series, question)?),
        InsightKind::Anomalies => Outcome::Anomalies(anomalies(series, question)?),
        InsightKind::Narrative => Outcome::Narrative(narrative(series, question)?),
    };
    let series = observed(series);
    Ok(Answer { insight: question.name.clone(), kind: question.kind, series, result, stored: None })
}

fn observed(series: &Series) -> Observed {
    let gaps = || (0..series.len()).filter(|i| series.values[*i].is_none());
    let first = series.len().saturating_sub(HISTORY);
    Observed {
        date: series.date.clone(),
        value: series.value.clone(),
        period: series.calendar.unit().as_str().into(),
        periods: series.len(),
        from: series.label(0),
        to: series.label(series.len().saturating_sub(1)),
        rows: series.rows,
        ignored_rows: series.ignored_rows,
        gaps: gaps().count(),
        gap_dates: gaps().take(100).map(|i| series.label(i)).collect(),
        left_out: series.left_out.clone(),
        history: (first..series.len())
            .map(|i| Observation { date: series.label(i), value: series.values[i] })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::tests::question;
    use crate::series::tests::daily;

    #[test]
    fn an_answer_has_its_result_under_the_name_of_its_kind() {
        let series = daily(&(0..40).map(|i| f64::from(i % 7)).collect::<Vec<_>>());
        for (kind, name) in [
            (InsightKind::Forecast, "forecast"),
            (InsightKind::Anomalies, "anomalies"),
            (InsightKind::Narrative, "narrative"),
        ] {
            let answer = serde_json::to_value(answer(&series, &question(kind)).unwrap()).unwrap();
            assert_eq!(answer["kind"], name);
            assert!(answer[name].is_object(), "{answer}");
            assert_eq!(
                (answer["series"]["period"].as_str(), answer["series"]["periods"].as_u64()),
                (Some("day"), Some(40))
            );
            assert!(answer.get("stored").is_none());
        }
    }
}
