//! What is asked of a series: a declared or ad hoc insight with its limits checked.

use shared::model::TableName;
use shared::project::{Insight as Declaration, InsightKind, Project};
use shared::{Error, Result};

/// Columns that may part the rows into groups.
const MAX_DIMENSIONS: usize = 5;

/// A declaration whose every field is in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Name of the declaration; `ad_hoc` for a question that came with a request.
    pub name: String,
    pub kind: InsightKind,
    pub sql: String,
    pub date: String,
    pub value: String,
    pub dimensions: Vec<String>,
    /// Periods to forecast, 1 to 1,000.
    pub horizon: usize,
    /// Periods in a season, 1 to 180; `None`: found in the data.
    pub season: Option<usize>,
    /// Share of outcomes that an interval should hold, 0.5 to 0.99.
    pub interval: f64,
    pub into: Option<TableName>,
}

impl Question {
    /// # Errors
    /// `Invalid`, naming the field, what was expected and what was found.
    pub fn new(name: &str, declared: &Declaration, project: &Project) -> Result<Self> {
        let into = declared.into.as_deref().map(|table| project.table_name(table)).transpose()?;
        let question = Self {
            name: name.to_owned(),
            kind: declared.kind,
            sql: declared.sql.clone(),
            date: declared.date.clone(),
            value: declared.value.clone(),
            dimensions: declared.dimensions.clone(),
            horizon: declared.horizon as usize,
            season: declared.season.map(|season| season as usize),
            interval: declared.interval,
            into,
        };
        question.check().map_err(|e| e.context(format!("insight `{name}`")))?;
        Ok(question)
    }

    fn check(&self) -> Result<()> {
        if self.sql.trim().is_empty() {
            return Err(Error::invalid("expected a SELECT in `sql`, found an empty text"));
        }
        if !(1..=1_000).contains(&self.horizon) {
            return Err(Error::invalid(format!("expected a `horizon` of 1 to 1000 periods, found `{}`", self.horizon)));
        }
        if let Some(season) = self.season.filter(|s| !(1..=180).contains(s)) {
            return Err(Error::invalid(format!("expected a `season` of 1 to 180 periods, found `{season}`")));
        }
        if !(0.5..=0.99).contains(&self.interval) {
            return Err(Error::invalid(format!("expected an `interval` of 0.5 to 0.99, found `{}`", self.interval)));
        }
        if self.date == self.value {
            return Err(Error::invalid(format!(
                "expected two columns in `date` and `value`, found `{}` twice",
                self.date
            )));
        }
        self.check_dimensions()
    }

    fn check_dimensions(&self) -> Result<()> {
        if self.dimensions.len() > MAX_DIMENSIONS {
            return Err(Error::invalid(format!(
                "expected at most {MAX_DIMENSIONS} `dimensions`, found {}",
                self.dimensions.len()
            )));
        }
        for (i, dimension) in self.dimensions.iter().enumerate() {
            if *dimension == self.date || *dimension == self.value {
                return Err(Error::invalid(format!(
                    "expected `dimensions` apart from the date and value columns, found `{dimension}`"
                )));
            }
            if self.dimensions[..i].contains(dimension) {
                return Err(Error::invalid(format!("expected each of `dimensions` once, found `{dimension}` twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn question(kind: InsightKind) -> Question {
        Question {
            name: "test".into(),
            kind,
            sql: "SELECT 1".into(),
            date: "day".into(),
            value: "count".into(),
            dimensions: Vec::new(),
            horizon: 14,
            season: None,
            interval: 0.9,
            into: None,
        }
    }

    #[test]
    fn a_field_out_of_range_is_refused_with_its_value() {
        let good = question(InsightKind::Forecast);
        good.check().unwrap();
        for (bad, found) in [
            (Question { horizon: 0, ..good.clone() }, "`0`"),
            (Question { horizon: 1_001, ..good.clone() }, "`1001`"),
            (Question { season: Some(0), ..good.clone() }, "`0`"),
            (Question { season: Some(181), ..good.clone() }, "`181`"),
            (Question { interval: 0.4, ..good.clone() }, "`0.4`"),
            (Question { interval: f64::NAN, ..good.clone() }, "`NaN`"),
            (Question { date: "count".into(), ..good.clone() }, "`count`"),
            (Question { sql: " ".into(), ..good.clone() }, "empty"),
        ] {
            let error = bad.check().unwrap_err();
            assert_eq!(error.kind(), shared::ErrorKind::Invalid);
            assert!(error.to_string().contains(found), "{error}");
        }
        for horizon in [1, 1_000] {
            Question { horizon, ..good.clone() }.check().unwrap();
        }
    }

    #[test]
    fn dimensions_are_at_most_five_and_distinct() {
        let with = |names: &[&str]| Question {
            dimensions: names.iter().map(ToString::to_string).collect(),
            ..question(InsightKind::Anomalies)
        };
        with(&["a", "b", "c", "d", "e"]).check().unwrap();
        assert!(with(&["a", "b", "c", "d", "e", "f"]).check().unwrap_err().to_string().contains("found 6"));
        assert!(with(&["a", "a"]).check().unwrap_err().to_string().contains("`a` twice"));
        assert!(with(&["day"]).check().unwrap_err().to_string().contains("`day`"));
    }
}
