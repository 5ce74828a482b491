//! Counting: what each rule says, batch by batch. No I/O.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use serde_json::Value;
use shared::project::{QualityAction, QualityRule, RuleCheck};
use shared::{Error, Result};

use super::form::json_objects;
use super::quarantine::Aside;
use super::{FLAG, Verdict};
use crate::record::RuleReport;

/// Broken rows that a report shows.
const EXAMPLES: usize = 3;
/// Rows that a `unique` rule can tell apart: each takes 16 bytes and its share of a hash table, at most about 600 MB.
const MOST_UNIQUE: usize = 16_000_000;

/// The counts of all rules.
pub(super) struct Tally {
    rules: Vec<Counter>,
    /// Positions of the job's own columns.
    columns: Vec<usize>,
    rows: u64,
    kept: u64,
}

/// Rows of one batch, parted.
pub(super) struct Taken {
    pub(super) keep: RecordBatch,
    pub(super) aside: Vec<Aside>,
}

struct Counter {
    rule: QualityRule,
    check: Check,
    passed: u64,
    failed: u64,
    examples: Vec<Value>,
}

/// A rule with what it needs to look at rows: positions of columns, what it has seen.
enum Check {
    /// Position of the flag in the query's columns.
    Row(usize),
    Completeness {
        column: usize,
        at_least: f64,
    },
    Unique {
        columns: Vec<usize>,
        converter: RowConverter,
        seen: HashSet<u128>,
    },
    RowCount,
}

impl Tally {
    /// `query` is the schema with flags, `job` the one without.
    pub(super) fn new(rules: &[QualityRule], query: &Schema, job: &Schema) -> Result<Self> {
        let rules = rules.iter().enumerate().map(|(index, rule)| Counter::new(index, rule, query, job));
        let columns = query.fields().iter().enumerate().filter(|(_, f)| !f.name().starts_with(FLAG)).map(|(i, _)| i);
        Ok(Self { columns: columns.collect(), rules: rules.collect::<Result<_>>()?, rows: 0, kept: 0 })
    }

    /// Counts a batch of the query and parts its rows.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> Result<Taken> {
        let own = batch.project(&self.columns)?;
        self.rows += own.num_rows() as u64;
        let aside = self.judge_rows(batch, &own)?;
        let keep = match aside.iter().any(|rules| !rules.is_empty()) {
            true => filter_record_batch(&own, &aside.iter().map(|rules| Some(rules.is_empty())).collect())?,
            false => own.clone(),
        };
        self.kept += keep.num_rows() as u64;
        for counter in &mut self.rules {
            counter.judge_kept(&keep)?;
        }
        Ok(Taken { keep, aside: self.set_aside(&own, &aside)? })
    }

    /// Whether a rule that lets nothing through is broken already.
    pub(super) fn is_failed(&self) -> bool {
        self.rules.iter().any(|counter| counter.rule.action == QualityAction::Fail && counter.is_surely_broken())
    }

    /// What the rules say about everything that was taken.
    pub(super) fn finish(self) -> Verdict {
        let (rows, kept) = (self.rows, self.kept);
        let reports: Vec<RuleReport> = self.rules.into_iter().map(|counter| counter.report(kept)).collect();
        let broken = reports.iter().find(|report| !report.passed && report.action == QualityAction::Fail);
        let failure = broken.map(|report| {
            let message = report.message.as_deref().unwrap_or_default();
            Error::invalid(format!("quality rule `{}`: {message}", report.name))
        });
        Verdict { reports, rows, quarantined: rows - kept, failure }
    }

    /// Counts the `row` rules; for each row, the indexes of the rules that set it aside.
    fn judge_rows(&mut self, batch: &RecordBatch, own: &RecordBatch) -> Result<Vec<Vec<usize>>> {
        let mut aside = vec![Vec::new(); batch.num_rows()];
        for (index, counter) in self.rules.iter_mut().enumerate() {
            let Check::Row(flag) = counter.check else { continue };
            let flags = batch.column(flag).as_boolean();
            counter.count(own, &broken_rows(flags))?;
            if counter.rule.action == QualityAction::Quarantine {
                broken_rows(flags).into_iter().for_each(|row| aside[row].push(index));
            }
        }
        Ok(aside)
    }

    fn set_aside(&self, own: &RecordBatch, aside: &[Vec<usize>]) -> Result<Vec<Aside>> {
        let rows: Vec<usize> = (0..aside.len()).filter(|row| !aside[*row].is_empty()).collect();
        let texts = json_rows(own, &rows)?;
        let name = |index: &usize| self.rules[*index].rule.name.clone();
        Ok(rows
            .iter()
            .zip(texts)
            .map(|(row, text)| Aside { rules: aside[*row].iter().map(name).collect(), row: text })
            .collect())
    }
}

impl Counter {
    fn new(index: usize, rule: &QualityRule, query: &Schema, job: &Schema) -> Result<Self> {
        let of = |column: &String| column_of(job, rule, column);
        let check = match &rule.check {
            RuleCheck::Row(_) => Check::Row(query.index_of(&format!("{FLAG}{index}"))?),
            RuleCheck::Completeness { column, at_least } => {
                Check::Completeness { column: of(column)?, at_least: *at_least }
            }
            RuleCheck::Unique(names) => {
                let columns = names.iter().map(of).collect::<Result<Vec<_>>>()?;
                let fields = columns.iter().map(|i| SortField::new(job.field(*i).data_type().clone()));
                Check::Unique { converter: RowConverter::new(fields.collect())?, columns, seen: HashSet::new() }
            }
            RuleCheck::RowCount { .. } => Check::RowCount,
        };
        if rule.action == QualityAction::Quarantine && !matches!(check, Check::Row(_)) {
            return Err(Error::invalid(format!(
                "quality rule `{}`: expected `fail` or `warn`, found `quarantine`, which only `row` rules can have",
                rule.name
            )));
        }
        Ok(Self { rule: rule.clone(), check, passed: 0, failed: 0, examples: Vec::new() })
    }

    /// Counts a rule about the rows that will be written.
    fn judge_kept(&mut self, kept: &RecordBatch) -> Result<()> {
        let broken = match &mut self.check {
            Check::Row(_) | Check::RowCount => return Ok(()),
            Check::Completeness { column, .. } => {
                let values = kept.column(*column);
                let nulls = values.logical_nulls();
                (0..values.len()).filter(|row| nulls.as_ref().is_some_and(|n| n.is_null(*row))).collect()
            }
            Check::Unique { columns, converter, seen } => repeated_rows(kept, columns, converter, seen)?,
        };
        self.count(kept, &broken)
    }

    fn count(&mut self, batch: &RecordBatch, broken: &[usize]) -> Result<()> {
        self.failed += broken.len() as u64;
        self.passed += (batch.num_rows() - broken.len()) as u64;
        let wanted = broken.len().min(EXAMPLES - self.examples.len());
        for text in json_rows(batch, &broken[..wanted])? {
            let row = serde_json::from_str(&text).map_err(|e| Error::bug("a row has no JSON form").with_source(e))?;
            self.examples.push(row);
        }
        Ok(())
    }

    /// Whether no further row can mend it.
    fn is_surely_broken(&self) -> bool {
        match self.check {
            Check::Row(_) | Check::Unique { .. } => self.failed > 0,
            Check::Completeness { .. } | Check::RowCount => false,
        }
    }

    fn report(self, kept: u64) -> RuleReport {
        let message = self.message(kept);
        let (rows_passed, rows_failed) = match self.check {
            Check::RowCount => (kept, 0),
            _ => (self.passed, self.failed),
        };
        RuleReport {
            name: self.rule.name,
            action: self.rule.action,
            passed: message.is_none(),
            rows_passed,
            rows_failed,
            message,
            examples: self.examples,
        }
    }

    /// What was expected and what was found, if the rule does not hold.
    fn message(&self, kept: u64) -> Option<String> {
        let (failed, all) = (self.failed, self.failed + self.passed);
        match (&self.rule.check, &self.check) {
            (RuleCheck::Row(condition), _) if failed > 0 => {
                Some(format!("expected `{condition}` of every row, found {failed} of {all} rows without it"))
            }
            (RuleCheck::Completeness { column, .. }, Check::Completeness { at_least, .. }) => {
                // No rows miss nothing.
                let share = if all == 0 { 1.0 } else { self.passed as f64 / all as f64 };
                (share < *at_least).then(|| {
                    format!("expected a value of `{column}` in at least {at_least} of the rows, found {share:.4} ({failed} of {all} missing)")
                })
            }
            (RuleCheck::Unique(columns), _) if failed > 0 => Some(format!(
                "expected each `{}` once, found {failed} of {all} rows that repeat one",
                columns.join("`, `")
            )),
            (RuleCheck::RowCount { at_least, at_most }, _) => row_count_message(kept, *at_least, *at_most),
            _ => None,
        }
    }
}

fn row_count_message(rows: u64, at_least: Option<u64>, at_most: Option<u64>) -> Option<String> {
    let expected = match (at_least, at_most) {
        (Some(least), _) if rows < least => format!("at least {least}"),
        (_, Some(most)) if rows > most => format!("at most {most}"),
        _ => return None,
    };
    Some(format!("expected {expected} rows, found {rows}"))
}

fn column_of(job: &Schema, rule: &QualityRule, column: &str) -> Result<usize> {
    job.fields().iter().position(|field| field.name() == column).ok_or_else(|| {
        let columns: Vec<_> = job.fields().iter().map(|f| format!("`{}`", f.name())).collect();
        Error::invalid(format!(
            "quality rule `{}`: expected one of {}, found column `{column}`",
            rule.name,
            columns.join(", ")
        ))
    })
}

/// Positions that are not true.
fn broken_rows(flags: &BooleanArray) -> Vec<usize> {
    (0..flags.len()).filter(|row| flags.is_null(*row) || !flags.value(*row)).collect()
}

/// Positions of rows whose values in `columns` were seen before; nulls are equal to each other.
fn repeated_rows(
    batch: &RecordBatch,
    columns: &[usize],
    converter: &RowConverter,
    seen: &mut HashSet<u128>,
) -> Result<Vec<usize>> {
    let keys: Vec<_> = columns.iter().map(|column| batch.column(*column).clone()).collect();
    let rows = converter.convert_columns(&keys)?;
    let repeated = rows.iter().enumerate().filter(|(_, row)| !seen.insert(fingerprint(row.as_ref()))).map(|(at, _)| at);
    let repeated: Vec<usize> = repeated.collect();
    if seen.len() > MOST_UNIQUE {
        return Err(Error::limit(format!("expected at most {MOST_UNIQUE} rows under a `unique` rule, found more")));
    }
    Ok(repeated)
}

/// 128 bits of a key: two of 16 million keys are alike with a probability of about 10⁻²⁴.
fn fingerprint(key: &[u8]) -> u128 {
    let half = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Some rows as JSON objects.
fn json_rows(batch: &RecordBatch, rows: &[usize]) -> Result<Vec<String>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted = vec![false; batch.num_rows()];
    rows.iter().for_each(|row| wanted[*row] = true);
    let chosen = filter_record_batch(batch, &BooleanArray::from(wanted))?;
    json_objects(&chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn rule(name: &str, check: RuleCheck, action: QualityAction) -> QualityRule {
        QualityRule { name: name.into(), check, action }
    }

    fn batch(ids: &[Option<i64>], flags: &[bool]) -> RecordBatch {
        let names: StringArray = ids.iter().map(|id| id.map(|id| format!("n{id}"))).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(ids.iter().copied().collect::<Int64Array>())),
            ("name", Arc::new(names)),
            ("__rule_0", Arc::new(BooleanArray::from(flags.to_vec()))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    fn tally(rules: &[QualityRule], batch: &RecordBatch) -> Tally {
        Tally::new(rules, &batch.schema(), &super::super::without_flags(&batch.schema())).unwrap()
    }

    #[test]
    fn broken_rows_are_set_aside_with_the_rule_and_the_row() {
        let rules = [rule("positive", RuleCheck::Row("id > 0".into()), QualityAction::Quarantine)];
        let batch = batch(&[Some(1), Some(-2), Some(3)], &[true, false, true]);
        let mut tally = tally(&rules, &batch);
        let taken = tally.take(&batch).unwrap();
        assert_eq!(taken.keep.num_columns(), 2);
        assert_eq!(taken.keep.num_rows(), 2);
        assert_eq!(taken.aside, [Aside { rules: vec!["positive".into()], row: r#"{"id":-2,"name":"n-2"}"#.into() }]);
        assert!(!tally.is_failed());
        let verdict = tally.finish();
        assert_eq!((verdict.rows, verdict.quarantined), (3, 1));
        assert!(verdict.failure.is_none());
        assert_eq!((verdict.reports[0].rows_passed, verdict.reports[0].rows_failed), (2, 1));
        assert_eq!(verdict.reports[0].examples, [serde_json::json!({"id": -2, "name": "n-2"})]);
    }

    #[test]
    fn a_repeated_key_is_found_across_batches_and_fails() {
        let unique = RuleCheck::Unique(vec!["id".into(), "name".into()]);
        let rules =
            [rule("row", RuleCheck::Row("true".into()), QualityAction::Warn), rule("key", unique, QualityAction::Fail)];
        let batch = batch(&[Some(1), None], &[true, true]);
        let mut tally = tally(&rules, &batch);
        tally.take(&batch).unwrap();
        assert!(!tally.is_failed());
        tally.take(&batch).unwrap();
        assert!(tally.is_failed());
        let failure = tally.finish().failure.unwrap();
        assert_eq!(
            failure.to_string(),
            "quality rule `key`: expected each `id`, `name` once, found 2 of 4 rows that repeat one"
        );
    }

    #[test]
    fn completeness_and_row_count_speak_about_the_rows_that_are_left() {
        let rules = [
            rule("row", RuleCheck::Row("id > 0".into()), QualityAction::Quarantine),
            rule("full", RuleCheck::Completeness { column: "id".into(), at_least: 0.5 }, QualityAction::Warn),
            rule("many", RuleCheck::RowCount { at_least: Some(3), at_most: None }, QualityAction::Warn),
            rule("few", RuleCheck::RowCount { at_least: None, at_most: Some(1) }, QualityAction::Warn),
        ];
        let batch = batch(&[Some(1), None, None], &[true, true, false]);
        let mut tally = tally(&rules, &batch);
        tally.take(&batch).unwrap();
        let reports = tally.finish().reports;
        assert!(reports[1].passed, "{:?}", reports[1]);
        assert_eq!((reports[1].rows_passed, reports[1].rows_failed), (1, 1));
        assert_eq!(reports[2].message.as_deref(), Some("expected at least 3 rows, found 2"));
        assert_eq!(reports[3].message.as_deref(), Some("expected at most 1 rows, found 2"));
    }

    #[test]
    fn no_rows_keep_every_rule_but_a_row_count() {
        let rules = [
            rule("row", RuleCheck::Row("id > 0".into()), QualityAction::Fail),
            rule("full", RuleCheck::Completeness { column: "id".into(), at_least: 1.0 }, QualityAction::Fail),
            rule("many", RuleCheck::RowCount { at_least: Some(1), at_most: None }, QualityAction::Fail),
        ];
        let verdict = tally(&rules, &batch(&[], &[])).finish();
        let passed: Vec<_> = verdict.reports.iter().map(|r| r.passed).collect();
        assert_eq!(passed, [true, true, false]);
        assert!(verdict.failure.unwrap().to_string().contains("`many`"));
    }

    #[test]
    fn a_rule_that_can_not_be_checked_is_refused() {
        let batch = batch(&[], &[]);
        let job = super::super::without_flags(&batch.schema());
        for check in
            [RuleCheck::Unique(vec!["nope".into()]), RuleCheck::Completeness { column: "nope".into(), at_least: 1.0 }]
        {
            let error = Tally::new(&[rule("r", check, QualityAction::Fail)], &batch.schema(), &job).err().unwrap();
            assert!(error.to_string().contains("`nope`"), "{error}");
        }
        let check = RuleCheck::Unique(vec!["id".into()]);
        assert!(Tally::new(&[rule("r", check, QualityAction::Quarantine)], &batch.schema(), &job).is_err());
    }

    proptest! {
        /// Every row is either kept or set aside, and every rule has counted every row.
        #[test]
        fn no_row_is_lost_or_doubled(rows in proptest::collection::vec((proptest::option::of(0i64..5), any::<bool>()), 0..50)) {
            let rules = [
                rule("row", RuleCheck::Row("id > 0".into()), QualityAction::Quarantine),
                rule("key", RuleCheck::Unique(vec!["id".into()]), QualityAction::Warn),
            ];
            let (ids, flags): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
            let batch = batch(&ids, &flags);
            let mut tally = tally(&rules, &batch);
            let taken = tally.take(&batch).unwrap();
            prop_assert_eq!(taken.keep.num_rows() + taken.aside.len(), rows.len());
            let verdict = tally.finish();
            prop_assert_eq!(verdict.reports[0].rows_passed + verdict.reports[0].rows_failed, rows.len() as u64);
            prop_assert_eq!(verdict.reports[1].rows_passed + verdict.reports[1].rows_failed, taken.keep.num_rows() as u64);
            let kept: HashSet<_> = rows.iter().filter(|(_, flag)| *flag).map(|(id, _)| id).collect();
            prop_assert_eq!(verdict.reports[1].rows_passed, kept.len() as u64);
        }
    }
}
