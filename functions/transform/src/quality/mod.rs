//! Quality rules: checked while a job's rows stream into the commit, so that nothing is read twice or held in memory.
//!
//! Conditions of `row` rules become columns of the job's own query, true where a row keeps the rule. Behind the query,
//! [`watch`] counts, takes those columns away, sets broken rows aside (`quarantine`) and, when a `fail` rule is broken, ends
//! the stream with an error: a commit whose rows end in an error does not happen. The rows set aside are stored before the
//! stream ends, that is, before the commit.
//!
//! `row` rules look at every row; `completeness`, `unique` and `row_count` at the rows that are left to be written.

pub mod form;
pub mod quarantine;
mod tally;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use shared::project::sql::without_end;
use shared::project::{QualityAction, QualityRule, RuleCheck};
use shared::{Error, Result};
use std::sync::Arc;
use tokio::sync::oneshot;

use crate::record::RuleReport;
use quarantine::Quarantine;
use tally::Tally;

/// Begins the names of the columns that say whether a row keeps a rule.
const FLAG: &str = "__rule_";

/// What the rules say about all of a job's rows.
#[derive(Debug)]
pub struct Verdict {
    pub reports: Vec<RuleReport>,
    /// Rows that the job's SQL gave.
    pub rows: u64,
    pub quarantined: u64,
    /// Why nothing may be written.
    pub failure: Option<Error>,
}

/// The job's query with a column for each `row` rule. Without such rules it stays as it is.
pub fn with_flags(sql: &str, rules: &[QualityRule]) -> String {
    let flags: Vec<String> =
        conditions(rules).map(|(index, condition)| format!("((\n{condition}\n) IS TRUE) AS {FLAG}{index}")).collect();
    if flags.is_empty() {
        return sql.into();
    }
    select_from(&format!("*, {}", flags.join(", ")), sql)
}

/// A query over the rows of a job's query.
pub fn select_from(list: &str, sql: &str) -> String {
    // The line ends close comments that the list or the query may end with.
    format!("SELECT {list} FROM (\n{}\n) AS job", without_end(sql))
}

/// The rules whose rows set aside or fail, each with the column that [`with_flags`] added for it.
///
/// # Errors
/// `Bug` when the rows lack it.
pub fn flags<'a>(rules: &'a [QualityRule], rows: &RecordBatch) -> Result<Vec<(&'a QualityRule, ArrayRef)>> {
    let strict = conditions(rules).filter(|(index, _)| rules[*index].action != QualityAction::Warn);
    let flag = |(index, _): (usize, &str)| {
        let column = rows.column_by_name(&format!("{FLAG}{index}")).cloned();
        Ok((&rules[index], column.ok_or_else(|| Error::bug("a rule has no column"))?))
    };
    strict.map(flag).collect()
}

/// The schema without the columns that [`with_flags`] added.
pub fn without_flags(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| !field.name().starts_with(FLAG)).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Whether a broken row can be set aside.
pub fn may_quarantine(rules: &[QualityRule]) -> bool {
    rules.iter().any(|rule| rule.action == QualityAction::Quarantine)
}

/// The rows that may be written, and what the rules say once the stream has ended.
///
/// # Errors
/// `Invalid` when a rule names a column that the rows don't have, or sets rows aside without being a `row` rule.
pub fn watch(
    rows: SendableRecordBatchStream,
    rules: &[QualityRule],
    quarantine: Quarantine,
) -> Result<(SendableRecordBatchStream, oneshot::Receiver<Verdict>)> {
    let schema = without_flags(&rows.schema());
    let tally = Tally::new(rules, &rows.schema(), &schema)?;
    let (verdict, receiver) = oneshot::channel();
    let watch = Watch { rows, tally, quarantine, verdict };
    let checked = futures::stream::try_unfold(Some(watch), |watch| async {
        let Some(mut watch) = watch else { return Ok(None) };
        match watch.next().await? {
            Some(batch) => Ok(Some((batch, Some(watch)))),
            None => watch.finish().await.map(|()| None),
        }
    });
    Ok((Box::pin(RecordBatchStreamAdapter::new(schema, checked)), receiver))
}

/// Whether the rules fit the rows of a query with their columns ([`with_flags`]).
///
/// # Errors
/// `Invalid`, with the rule's name.
pub fn check(rules: &[QualityRule], schema: &Schema) -> Result<()> {
    Tally::new(rules, schema, &without_flags(schema)).map(drop)
}

struct Watch {
    rows: SendableRecordBatchStream,
    tally: Tally,
    quarantine: Quarantine,
    verdict: oneshot::Sender<Verdict>,
}

impl Watch {
    /// The next rows to write. Once a `fail` rule is broken there are none, but the rest is counted for the report.
    async fn next(&mut self) -> Result<Option<RecordBatch>, DataFusionError> {
        while let Some(batch) = self.rows.try_next().await? {
            let taken = self.tally.take(&batch)?;
            if self.tally.is_failed() {
                continue;
            }
            self.quarantine.write(&taken.aside).await?;
            if taken.keep.num_rows() > 0 {
                return Ok(Some(taken.keep));
            }
        }
        Ok(None)
    }

    async fn finish(self) -> Result<(), DataFusionError> {
        let verdict = self.tally.finish();
        let stored = match verdict.failure {
            Some(_) => self.quarantine.abort().await,
            None => self.quarantine.finish().await,
        };
        let failure = verdict.failure.as_ref().map(|error| Error::new(error.kind(), error.message()));
        // A receiver that is gone has given up on the job.
        let _ = self.verdict.send(verdict);
        stored?;
        failure.map_or(Ok(()), |error| Err(DataFusionError::from(error)))
    }
}

/// The `row` rules' conditions, with the index of each rule.
fn conditions(rules: &[QualityRule]) -> impl Iterator<Item = (usize, &str)> {
    rules.iter().enumerate().filter_map(|(index, rule)| match &rule.check {
        RuleCheck::Row(condition) => Some((index, condition.as_str())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(condition: &str) -> QualityRule {
        QualityRule { name: "r".into(), check: RuleCheck::Row(condition.into()), action: QualityAction::Fail }
    }

    #[test]
    fn conditions_become_columns_and_comments_do_not_swallow_them() {
        let rules = [
            QualityRule {
                name: "n".into(),
                check: RuleCheck::RowCount { at_least: Some(1), at_most: None },
                action: QualityAction::Fail,
            },
            row("a > 0 -- positive"),
        ];
        assert_eq!(
            with_flags("SELECT a FROM t -- all; \n ; ", &rules),
            "SELECT *, ((\na > 0 -- positive\n) IS TRUE) AS __rule_1 FROM (\nSELECT a FROM t -- all; \n   \n) AS job"
        );
        assert_eq!(with_flags("SELECT 1;", &rules[..1]), "SELECT 1;");
    }
}
