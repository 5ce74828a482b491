//! What EXPLAIN adds to DataFusion's plans: how many partitions and files each table's scan reads, of how many.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use url::Url;

use super::names::Resolved;
use super::stats::files_of;
use super::tables::ScanLog;

/// The query that EXPLAIN explains.
pub(super) fn inner(statement: &Statement) -> Option<Statement> {
    match statement {
        Statement::Explain(explain) => Some(explain.statement.as_ref().clone()),
        _ => None,
    }
}

/// The schema of an EXPLAIN's answer.
pub(super) fn schema() -> SchemaRef {
    LogicalPlan::explain_schema()
}

/// A line for each table: partitions and files read of those there are.
pub(super) fn pruning(plan: &dyn ExecutionPlan, tables: &[Resolved], log: &ScanLog) -> String {
    let files = files_of(plan);
    let mut lines: Vec<String> = Vec::new();
    for table in tables {
        let root = Url::parse(&table.location).map(|u| u.path().trim_matches('/').to_owned()).unwrap_or_default();
        let read = files.iter().filter(|f| f.starts_with(&format!("{root}/"))).count();
        let of = table.files_total.map_or_else(String::new, |total| format!(" of {total}"));
        let partitions: String = log
            .entries()
            .iter()
            .filter(|p| p.table == table.name)
            .map(|p| match p.total {
                Some(total) => format!(", partitions={} of {total}", p.read),
                None => format!(", partitions={} (chosen by the catalog)", p.read),
            })
            .collect();
        lines.push(format!("{}: files={read}{of}{partitions}", table.name));
    }
    lines.join("\n")
}

/// Adds the row `pruning` to the rows of EXPLAIN.
pub(super) fn with_pruning(rows: SendableRecordBatchStream, text: String) -> SendableRecordBatchStream {
    if text.is_empty() {
        return rows;
    }
    let schema = rows.schema();
    let of_schema = Arc::clone(&schema);
    let added = futures::stream::once(async move {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["pruning"])), Arc::new(StringArray::from(vec![text]))];
        Ok(RecordBatch::try_new(of_schema, columns)?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.chain(added)))
}
