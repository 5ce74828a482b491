//! Results as rows of an Iceberg table.
//!
//! Rows carry the insight's name, so that several insights may share a table, and are merged by name and date: a later run
//! replaces what an earlier one said of the same date and leaves the rest. The event's id in the commit makes a replay write
//! nothing.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use shared::model::types::arrow_schema;
use shared::model::{Column, ColumnType, TableName};
use shared::{Error, Result};
use table::{Tables, Token};
use table_datafusion::{Change, ChangeTable};

use crate::anomalies::Anomalies;
use crate::answer::{Answer, Outcome, Stored};
use crate::forecast::Forecast;
use crate::narrative::Narrative;
use crate::series::Series;

const MICROS_A_DAY: i64 = 86_400_000_000;

/// Columns of a result, the rows' key among them.
struct Sheet {
    columns: Vec<(Column, ArrayRef)>,
    key: Vec<String>,
}

/// Stores the result of `answer` once for each `id`; `made_ms` is the time of the run.
///
/// # Errors
/// `Invalid` when the table has columns of other types; `Conflict` when another run of the same insight came first.
pub(crate) async fn store(
    tables: &Tables,
    into: &TableName,
    answer: &Answer,
    series: &Series,
    id: &str,
    made_ms: i64,
) -> Result<Stored> {
    let sheet = Sheet::new(answer, series, made_ms)?;
    let columns: Vec<Column> = sheet.columns.iter().map(|(column, _)| column.clone()).collect();
    let table = tables.ensure(into, &columns, &[]).await?;
    let key = format!("insight.{}", answer.insight);
    let expected = table.token(&key);
    if !id.is_empty() && expected.as_deref() == Some(id) {
        return Ok(Stored { table: into.to_string(), rows: 0, snapshot: table.current_snapshot(), replayed: true });
    }
    let token = (!id.is_empty()).then(|| Token { key, expected, value: id.to_owned() });
    let batch = sheet.batch()?;
    let rows = batch.num_rows() as u64;
    let schema: SchemaRef = batch.schema();
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])));
    let committed = table.commit(Change::Merge { key: sheet.key }, stream, token).await?;
    Ok(Stored { table: into.to_string(), rows, snapshot: Some(committed.snapshot_id), replayed: false })
}

impl Sheet {
    fn new(answer: &Answer, series: &Series, made_ms: i64) -> Result<Self> {
        let mut sheet = Self { columns: Vec::new(), key: vec!["insight".into(), "date".into()] };
        let rows = match &answer.result {
            Outcome::Forecast(forecast) => forecast.points.len(),
            Outcome::Anomalies(found) => found.periods.len(),
            Outcome::Narrative(told) => told.sentences.len(),
        };
        sheet.texts("insight", vec![Some(answer.insight.clone()); rows]);
        match &answer.result {
            Outcome::Forecast(forecast) => sheet.forecast(forecast, series),
            Outcome::Anomalies(found) => sheet.anomalies(found, series)?,
            Outcome::Narrative(told) => sheet.narrative(told, series),
        }
        let made = TimestampMicrosecondArray::from(vec![made_ms.saturating_mul(1_000); rows]).with_timezone("+00:00");
        sheet.add("made_at", ColumnType::TimestampTz, Arc::new(made));
        Ok(sheet)
    }

    fn forecast(&mut self, forecast: &Forecast, series: &Series) {
        let points = &forecast.points;
        self.dates(series, (0..points.len()).map(|h| series.len() + h));
        self.numbers("mean", points.iter().map(|p| Some(p.mean)));
        self.numbers("lower", points.iter().map(|p| Some(p.lower)));
        self.numbers("upper", points.iter().map(|p| Some(p.upper)));
        self.numbers("interval", points.iter().map(|_| Some(forecast.interval)));
        self.texts("model", vec![Some(forecast.model.clone()); points.len()]);
    }

    /// Every period, so that one which is no longer unusual is corrected.
    fn anomalies(&mut self, found: &Anomalies, series: &Series) -> Result<()> {
        let periods = &found.periods;
        let told: std::collections::BTreeMap<usize, _> = found.anomalies.iter().map(|a| (a.at, a)).collect();
        let of = |at: usize| told.get(&at);
        self.dates(series, periods.iter().map(|p| p.at));
        self.numbers("actual", periods.iter().map(|p| p.actual));
        self.numbers("expected", periods.iter().map(|p| Some(p.expected)));
        self.numbers("lower", periods.iter().map(|p| Some(p.lower)));
        self.numbers("upper", periods.iter().map(|p| Some(p.upper)));
        self.numbers("score", periods.iter().map(|p| Some(p.score)));
        let flags = BooleanArray::from_iter(periods.iter().map(|p| Some(p.anomaly)));
        self.add("anomaly", ColumnType::Boolean, Arc::new(flags));
        self.texts("severity", periods.iter().map(|p| Some(of(p.at)?.severity.as_str().into())).collect());
        self.texts("direction", periods.iter().map(|p| Some(of(p.at)?.direction.as_str().into())).collect());
        let parts = periods
            .iter()
            .map(|p| of(p.at).map(|a| serde_json::to_string(&a.contributions)).transpose())
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::bug("contributions have no JSON form").with_source(e))?;
        self.texts("contributions", parts);
        Ok(())
    }

    /// One row a sentence, under the last date of the series.
    fn narrative(&mut self, told: &Narrative, series: &Series) {
        let sentences = &told.sentences;
        self.key.push("position".into());
        self.dates(series, sentences.iter().map(|_| series.len() - 1));
        let positions = Int64Array::from_iter_values((1..).take(sentences.len()));
        self.add("position", ColumnType::BigInt, Arc::new(positions));
        self.texts("about", sentences.iter().map(|s| Some(s.about.as_str().into())).collect());
        self.texts("text", sentences.iter().map(|s| Some(s.text.clone())).collect());
    }

    fn dates(&mut self, series: &Series, periods: impl Iterator<Item = usize>) {
        let starts = periods.map(|i| series.start(i));
        if series.calendar.is_days() {
            // Dates of the years 1 to 9999 fit.
            let days = starts.map(|start| i32::try_from(start.div_euclid(MICROS_A_DAY)).unwrap_or(i32::MAX));
            self.add("date", ColumnType::Date, Arc::new(Date32Array::from_iter_values(days)));
        } else {
            let instants = TimestampMicrosecondArray::from_iter_values(starts);
            self.add("date", ColumnType::Timestamp, Arc::new(instants));
        }
    }

    fn numbers(&mut self, name: &str, values: impl Iterator<Item = Option<f64>>) {
        self.add(name, ColumnType::Double, Arc::new(Float64Array::from_iter(values)));
    }

    fn texts(&mut self, name: &str, values: Vec<Option<String>>) {
        self.add(name, ColumnType::String, Arc::new(StringArray::from(values)));
    }

    fn add(&mut self, name: &str, ty: ColumnType, values: ArrayRef) {
        self.columns.push((Column::new(name, ty), values));
    }

    fn batch(&self) -> Result<RecordBatch> {
        let (columns, arrays): (Vec<Column>, Vec<ArrayRef>) = self.columns.iter().cloned().unzip();
        Ok(RecordBatch::try_new(Arc::new(arrow_schema(&columns)), arrays)?)
    }
}

#[cfg(test)]
mod tests {
    use shared::project::InsightKind;

    use super::*;
    use crate::answer::answer;
    use crate::question::tests::question;
    use crate::series::tests::daily;

    fn sheet(kind: InsightKind) -> Sheet {
        let mut values: Vec<f64> = (0..60).map(|i| 50.0 + f64::from(i % 7)).collect();
        values[40] = 500.0;
        let series = daily(&values);
        Sheet::new(&answer(&series, &question(kind)).unwrap(), &series, 1_000).unwrap()
    }

    #[test]
    fn every_result_becomes_rows_whose_key_never_repeats() {
        for (kind, rows) in
            [(InsightKind::Forecast, Some(14)), (InsightKind::Anomalies, Some(60)), (InsightKind::Narrative, None)]
        {
            let sheet = sheet(kind);
            let batch = sheet.batch().unwrap();
            assert!(rows.is_none_or(|rows| rows == batch.num_rows()));
            let keys: Vec<ArrayRef> = sheet.key.iter().map(|k| batch.column_by_name(k).unwrap().clone()).collect();
            let name = |i: usize| {
                keys.iter().map(|k| arrow::util::display::array_value_to_string(k, i).unwrap()).collect::<Vec<_>>()
            };
            let distinct: std::collections::BTreeSet<_> = (0..batch.num_rows()).map(name).collect();
            assert_eq!(distinct.len(), batch.num_rows());
        }
    }

    #[test]
    fn only_unusual_periods_have_a_severity() {
        let batch = sheet(InsightKind::Anomalies).batch().unwrap();
        let severity = batch.column_by_name("severity").unwrap();
        assert_eq!(batch.num_rows() - severity.null_count(), 1);
    }
}
