//! The raw shape of `lakehouse.yaml`. Every struct refuses unknown fields; the JSON Schema for editors is made from these types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::maintenance::{Maintenance, MaintenancePolicy};
use super::switch::{Switch, Switched};
use super::units::{ByteSize, Schedule, Seconds};
use crate::model::Column;
use crate::model::PartitionField;

/// A lakehouse: streams, crawled locations, workflows and insights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakehouseFile {
    /// Version of this format: 1.
    pub version: u32,
    /// Database of every table that is named without one.
    pub database: String,
    /// Database of the tables that Tarn writes about itself, such as the runs of workflows (default: tarn). Two lakehouses in one
    /// account and region need two.
    #[serde(default = "system_database")]
    pub system_database: String,
    /// What producers send record by record, by stream name.
    #[serde(default)]
    pub streams: BTreeMap<String, StreamDeclaration>,
    /// Folders of files that the crawler keeps in the catalog, by location name.
    #[serde(default)]
    pub locations: BTreeMap<String, Location>,
    /// Workflows of SQL jobs, by name.
    #[serde(default)]
    pub workflows: BTreeMap<String, Workflow>,
    /// Forecasts, anomalies and narratives, by name.
    #[serde(default)]
    pub insights: BTreeMap<String, Insight>,
    /// How the tables of streams, and the table of the workflows' runs, are kept unless a workflow's own `maintenance` names them; `off`
    /// for not at all (default: on).
    #[serde(default)]
    pub maintenance: Switched<MaintenancePolicy>,
}

fn system_database() -> String {
    "tarn".into()
}

/// A stream: its records' schema and the table that they end in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamDeclaration {
    /// How records are written (default: json).
    #[serde(default)]
    pub format: Format,
    /// The columns of a record, in order.
    pub schema: Vec<Column>,
    /// `table` or `database.table` (default: the stream's name).
    pub table: Option<String>,
    /// The name that the stream had before: what it holds and where its table stands go on under the new one. With `table`, which
    /// names the table of the old one; it may stay for ever.
    pub was: Option<String>,
    /// Iceberg partition fields of the table, e.g. `day(time_hour)`.
    #[serde(default)]
    pub partition_by: Vec<PartitionField>,
    /// When to write what has arrived, whichever comes first.
    #[serde(default)]
    pub buffer: Buffering,
    /// Column whose value chooses the shard (default: records are spread evenly).
    pub partition_key: Option<String>,
    /// Number of shards, 1 to 64 (default: 1).
    #[serde(default = "one")]
    pub shards: u32,
    /// How long records stay readable in the stream, 24h to 365d (default: 24h).
    #[serde(default = "one_day")]
    pub retention: Seconds,
    /// Whether records that `ingest` refuses are kept below `errors/`, like those that can't be stored (default: false, their sender
    /// alone is told).
    #[serde(default)]
    pub keep_rejects: bool,
    /// Whether its table is kept as the lakehouse's `maintenance` says (default: on).
    #[serde(default)]
    pub maintenance: Switch,
    /// What the stream carries.
    pub description: Option<String>,
}

fn one() -> u32 {
    1
}

fn one_day() -> Seconds {
    Seconds(86_400)
}

/// How records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a record.
    #[default]
    Json,
}

/// When a stream's records are written to its table: at `size` or at `interval`, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buffering {
    /// Bytes of record data, 1MiB to 128MiB (default: 64MiB).
    #[serde(default = "default_size")]
    pub size: ByteSize,
    /// Age of the oldest record, 0s to 900s (default: 60s).
    #[serde(default = "default_interval")]
    pub interval: Seconds,
}

impl Default for Buffering {
    fn default() -> Self {
        Self { size: default_size(), interval: default_interval() }
    }
}

fn default_size() -> ByteSize {
    ByteSize(64 << 20)
}

fn default_interval() -> Seconds {
    Seconds(60)
}

/// A folder of files that the crawler registers as one or more tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// URL of a folder below the warehouse (default: `raw/{name}/` in the warehouse, where uploads to this location go).
    pub path: Option<String>,
    /// Database of the tables (default: the lakehouse's).
    pub database: Option<String>,
    /// Name of the table when the folder is one table (default: named by the folder).
    pub table: Option<String>,
    /// Glob patterns, relative to the folder, of what to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// When to crawl, besides each object event.
    pub schedule: Option<Schedule>,
    /// Crawl when an object lands (default: true).
    #[serde(default = "yes")]
    pub on_object: bool,
    /// What to do when files bring another schema (default: update).
    #[serde(default)]
    pub on_schema_change: OnSchemaChange,
    /// What to do when a table's files are gone (default: deprecate).
    #[serde(default)]
    pub on_delete: OnDelete,
    /// Files to read for the schema in each folder, 1 to 249 (default: all).
    pub sample: Option<u32>,
    pub description: Option<String>,
}

fn yes() -> bool {
    true
}

/// What a crawl does with a changed schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSchemaChange {
    /// Add columns and widen types.
    #[default]
    Update,
    /// Only add columns.
    MergeNewColumns,
    /// Leave the table as it is; say so in the crawl's report.
    Log,
}

/// What a crawl does with a table or partition whose files are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// Mark it as deprecated.
    #[default]
    Deprecate,
    /// Remove it from the catalog.
    Delete,
    /// Leave it; say so in the crawl's report.
    Log,
}

/// Jobs that run together, in the order of their dependencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    pub schedule: Option<Schedule>,
    /// Named texts that SQL refers to as `${name}`; a run may set others.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The SQL jobs, by name.
    #[serde(default)]
    pub jobs: BTreeMap<String, Job>,
    /// Maintenance of tables, by name; these are jobs of the workflow like the others.
    #[serde(default)]
    pub maintenance: BTreeMap<String, Maintenance>,
    /// Jobs that may run at once, 1 to 16 (default: 2).
    #[serde(default = "two")]
    pub parallel: u32,
    pub description: Option<String>,
}

fn two() -> u32 {
    2
}

/// A SELECT whose rows go into a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The SELECT; `${name}` stands for a parameter.
    pub sql: String,
    /// `table` or `database.table` that takes the rows; made when it does not exist.
    pub into: String,
    /// How the rows go in (default: overwrite).
    #[serde(default)]
    pub write: Write,
    /// Columns that name a row, for `merge`.
    #[serde(default)]
    pub key: Vec<String>,
    /// Read everything, or only what the named table gained since the last successful run (default: full).
    #[serde(default)]
    pub mode: Mode,
    /// The table whose new rows an incremental job reads; other tables are read whole.
    pub incremental: Option<String>,
    /// What an incremental job does when rows of `incremental` that it has read are deleted or changed (default: `propagate` for
    /// `merge`, `ignore` for `append`; an `overwrite` reads everything again).
    pub on_source_delete: Option<OnSourceDelete>,
    /// Iceberg partition fields of a table that this job makes.
    #[serde(default)]
    pub partition_by: Vec<PartitionField>,
    /// Jobs of this workflow that must succeed first; those whose tables the SQL reads are found without being named.
    #[serde(default)]
    pub after: Vec<String>,
    /// Tries after the first one fails, 0 to 10 (default: 0).
    #[serde(default)]
    pub retries: u32,
    /// How long one try may take (default: 15m).
    #[serde(default = "fifteen_minutes")]
    pub timeout: Seconds,
    /// Rules that the rows must keep.
    #[serde(default)]
    pub quality: Vec<QualityRule>,
    pub description: Option<String>,
}

impl Job {
    /// What the job does when rows that it has read are deleted; none for a job that reads everything again then.
    pub fn source_deletes(&self) -> Option<OnSourceDelete> {
        match (self.on_source_delete, self.write) {
            (Some(policy), _) => Some(policy),
            (None, Write::Merge) => Some(OnSourceDelete::Propagate),
            (None, Write::Append) => Some(OnSourceDelete::Ignore),
            (None, Write::Overwrite) => None,
        }
    }
}

pub(super) fn fifteen_minutes() -> Seconds {
    Seconds(900)
}

/// How a job's rows go into its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// The rows become the whole table.
    #[default]
    Overwrite,
    /// The rows are added.
    Append,
    /// A row replaces the one with the same key, or is added.
    Merge,
}

/// What becomes of rows that an incremental job made of rows that are deleted since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSourceDelete {
    /// They stay. Of a row that was changed a merge takes the new values; an append can't tell them from a new row, and fails.
    Ignore,
    /// Those whose key nothing in the source makes any more leave. For `merge`.
    Propagate,
    /// The job fails.
    Fail,
}

/// What an SQL job reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Full,
    Incremental,
}

/// A rule about a job's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QualityRule {
    /// Name in reports.
    pub name: String,
    pub check: RuleCheck,
    /// What happens when it does not hold (default: fail).
    #[serde(default)]
    pub action: QualityAction,
}

/// What a rule asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RuleCheck {
    /// An SQL condition over the job's columns that every row must meet; null counts as not met.
    Row(String),
    /// At least this share (0 to 1) of a column's values is there.
    Completeness { column: String, at_least: f64 },
    /// The columns together never repeat.
    Unique(Vec<String>),
    /// The number of rows lies between these.
    RowCount { at_least: Option<u64>, at_most: Option<u64> },
}

/// What happens with rows that break a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QualityAction {
    /// The job fails and nothing is written.
    #[default]
    Fail,
    /// The rows that break the rule go to the quarantine, the others are written. Only for `row` rules.
    Quarantine,
    /// The rows are written, the report says so.
    Warn,
}

/// A question that is asked of a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Insight {
    pub kind: InsightKind,
    /// A SELECT that gives the series.
    pub sql: String,
    /// Its date or timestamp column.
    pub date: String,
    /// Its numeric column.
    pub value: String,
    /// Columns that part the rows into groups, at most 5; used by anomalies and narratives to say who contributed.
    #[serde(default)]
    pub dimensions: Vec<String>,
    /// Periods to forecast, 1 to 1,000 (default: 14).
    #[serde(default = "fourteen")]
    pub horizon: u32,
    /// Periods in a season, 1 to 180 (default: found in the data).
    pub season: Option<u32>,
    /// Share of outcomes that the interval should hold, 0.5 to 0.99 (default: 0.9).
    #[serde(default = "ninety_percent")]
    pub interval: f64,
    pub schedule: Option<Schedule>,
    /// `table` or `database.table` that takes the results (default: none).
    pub into: Option<String>,
    pub description: Option<String>,
}

fn fourteen() -> u32 {
    14
}

fn ninety_percent() -> f64 {
    0.9
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InsightKind {
    Forecast,
    Anomalies,
    Narrative,
}
