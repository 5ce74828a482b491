//! What a crawl did: the answer of a crawl and the state document `crawl-reports/{location}`.

use format::FileFault;
use serde::{Deserialize, Serialize};
use shared::Result;
use shared::state::{Expect, State, get_json, put_json};

const PREFIX: &str = "crawl-reports/";

/// The outcome of one crawl of one location.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub location: String,
    /// Milliseconds since the epoch.
    pub started_ms: i64,
    pub elapsed_ms: i64,
    pub files: FileCounts,
    /// The tables that files of this crawl belong to, and those whose files are gone.
    pub tables: Vec<TableReport>,
    /// Files that belong to no table, and why.
    pub skipped: Vec<SkippedFile>,
    /// What else a user should know, e.g. of rows that are short.
    pub notes: Vec<String>,
    /// Whether time was up before all new files were read: the next crawl reads the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
}

/// Objects by what was done with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCounts {
    pub listed: usize,
    pub read: usize,
    /// New, but taken to be like the read ones of their folder (`sample`).
    pub assumed: usize,
    pub unchanged: usize,
    /// Hidden or excluded.
    pub ignored: usize,
    pub gone: usize,
    pub skipped: usize,
}

/// What happened to a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableReport {
    /// `database.table`.
    pub table: String,
    pub change: Change,
    pub format: String,
    /// Files of this crawl that belong to it.
    pub files: usize,
    pub partitions_added: usize,
    /// Partitions that were marked, removed or found without files.
    pub partitions_gone: usize,
    /// Added and widened columns, and changes that the location's policy kept out.
    pub details: Vec<String>,
}

/// What a crawl did with a table's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Updated,
    Unchanged,
    /// All its files are gone; it was marked.
    Deprecated,
    /// All its files are gone; it was removed from the catalog.
    Deleted,
    /// All its files are gone; it was left alone.
    Orphaned,
}

/// A file that belongs to no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    /// Relative to the location.
    pub file: String,
    #[serde(flatten)]
    pub fault: FileFault,
    /// The fault in words.
    pub message: String,
}

impl SkippedFile {
    pub fn new(file: impl Into<String>, fault: FileFault) -> Self {
        Self { file: file.into(), message: fault.to_string(), fault }
    }
}

/// Keeps the report as the location's last one.
///
/// # Errors
/// What the state answers.
pub async fn save(state: &dyn State, report: &Report) -> Result<()> {
    put_json(state, &format!("{PREFIX}{}", report.location), report, Expect::Anything).await?;
    Ok(())
}

/// The last report of each location that was crawled, in order of name.
///
/// # Errors
/// What the state answers.
pub async fn last(state: &dyn State) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for key in state.list(PREFIX).await? {
        if let Some((report, _)) = get_json(state, &key).await? {
            reports.push(report);
        }
    }
    Ok(reports)
}
