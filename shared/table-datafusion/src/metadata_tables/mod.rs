//! The table's metadata as tables of its own, in the columns of Athena's and Trino's `"table$snapshots"` and so on.
//!
//! Columns are made when a query asks for them: statistics of many files are large, and most questions need two columns.

mod files;
mod partitions;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use iceberg::spec::{SnapshotReference, SnapshotRetention, TableMetadata};

use self::files::{files, manifests};
use self::partitions::partitions;
use shared::{Error, Result};
use table::live::{LiveFile, live_entries};
use table::{Table, ancestors, refs};

/// What can be asked of a table's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataTable {
    /// All snapshots that the table still knows.
    Snapshots,
    /// Which snapshot was current from when on.
    History,
    /// The files of the current snapshot, data and deletes.
    Files,
    /// The manifests of the current snapshot.
    Manifests,
    /// Counts and statistics of each partition of the current snapshot.
    Partitions,
    /// Tags and branches.
    Refs,
}

impl MetadataTable {
    /// All of them, with the names that follow the `$`.
    pub const NAMES: [(&str, Self); 6] = [
        ("snapshots", Self::Snapshots),
        ("history", Self::History),
        ("files", Self::Files),
        ("manifests", Self::Manifests),
        ("partitions", Self::Partitions),
        ("refs", Self::Refs),
    ];
}

impl FromStr for MetadataTable {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, table)| *table).ok_or_else(|| {
            let known = Self::NAMES.map(|(known, _)| format!("`{known}`")).join(", ");
            Error::not_found(format!("expected one of a table's metadata tables ({known}), found `{name}`"))
        })
    }
}

pub(super) async fn provider(table: &Table, which: MetadataTable) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(match which {
        MetadataTable::Snapshots => snapshots(table.metadata()),
        MetadataTable::History => history(table.metadata()),
        MetadataTable::Refs => references(table.metadata())?,
        MetadataTable::Manifests => manifests(table).await?,
        MetadataTable::Files => files(table).await?,
        MetadataTable::Partitions => partitions(table).await?,
    }))
}

type Make = Box<dyn Fn() -> Result<ArrayRef> + Send + Sync>;

/// Rows whose columns are made on demand.
struct Columns {
    rows: usize,
    fields: Vec<Field>,
    make: Vec<Make>,
}

impl Columns {
    fn new(rows: usize) -> Self {
        Self { rows, fields: Vec::new(), make: Vec::new() }
    }

    fn ready(mut self, name: &str, nullable: bool, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, array.data_type().clone(), nullable));
        self.make.push(Box::new(move || Ok(array.clone())));
        self
    }

    /// A column that may be null.
    fn lazy(mut self, name: &str, ty: DataType, make: impl Fn() -> Result<ArrayRef> + Send + Sync + 'static) -> Self {
        self.fields.push(Field::new(name, ty, true));
        self.make.push(Box::new(make));
        self
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Columns").field("rows", &self.rows).field("fields", &self.fields).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields.clone()))
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.fields.len()).collect();
        let chosen = projection.unwrap_or(&all);
        let schema = Arc::new(self.schema().project(chosen)?);
        let columns = chosen.iter().map(|i| (self.make[*i])()).collect::<Result<Vec<_>>>();
        let columns = columns?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        let exec: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?;
        Ok(exec)
    }
}

fn longs<T: TryInto<i64>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.map(|value| value.and_then(|v| v.try_into().ok())).collect::<Int64Array>())
}

fn ints<T: TryInto<i32>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.map(|value| value.and_then(|v| v.try_into().ok())).collect::<Int32Array>())
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    let micros: TimestampMicrosecondArray = values.map(|ms| Some(ms.saturating_mul(1000))).collect();
    Arc::new(micros.with_timezone("+00:00"))
}

fn snapshots(metadata: &TableMetadata) -> Columns {
    let mut all: Vec<_> = metadata.snapshots().collect();
    all.sort_by_key(|s| (s.sequence_number(), s.timestamp_ms()));
    let each = || all.iter();
    Columns::new(all.len())
        .ready("committed_at", false, times(each().map(|s| s.timestamp_ms())))
        .ready("snapshot_id", false, longs(each().map(|s| Some(s.snapshot_id()))))
        .ready("parent_id", true, longs(each().map(|s| s.parent_snapshot_id())))
        .ready("operation", true, texts(each().map(|s| Some(s.summary().operation.as_str().to_owned()))))
        .ready("manifest_list", true, texts(each().map(|s| Some(s.manifest_list().to_owned()))))
        .ready("summary", true, {
            let mut map = MapBuilder::new(Some(names()), StringBuilder::new(), StringBuilder::new());
            for snapshot in each() {
                for (key, value) in snapshot.summary().additional_properties.iter().collect::<BTreeMap<_, _>>() {
                    map.keys().append_value(key);
                    map.values().append_value(value);
                }
                // One append for each row keeps keys and values in step, which is all that can be wrong.
                let _ = map.append(true);
            }
            Arc::new(map.finish())
        })
}

fn names() -> MapFieldNames {
    MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() }
}

fn history(metadata: &TableMetadata) -> Columns {
    let log = metadata.history();
    let current: HashSet<i64> =
        ancestors(metadata, metadata.current_snapshot_id()).map(|snapshot| snapshot.snapshot_id()).collect();
    let parent = |id| metadata.snapshot_by_id(id).and_then(|s| s.parent_snapshot_id());
    let is_ancestor: BooleanArray = log.iter().map(|entry| Some(current.contains(&entry.snapshot_id))).collect();
    Columns::new(log.len())
        .ready("made_current_at", false, times(log.iter().map(|entry| entry.timestamp_ms)))
        .ready("snapshot_id", false, longs(log.iter().map(|entry| Some(entry.snapshot_id))))
        .ready("parent_id", true, longs(log.iter().map(|entry| parent(entry.snapshot_id))))
        .ready("is_current_ancestor", false, Arc::new(is_ancestor))
}

fn references(metadata: &TableMetadata) -> Result<Columns> {
    let all = refs::all(metadata)?;
    let age = |r: &SnapshotReference| match r.retention {
        SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms } => max_ref_age_ms,
    };
    let branch = |r: &SnapshotReference| match r.retention {
        SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. } => {
            (min_snapshots_to_keep, max_snapshot_age_ms)
        }
        SnapshotRetention::Tag { .. } => (None, None),
    };
    let kind = |r: &SnapshotReference| if r.is_branch() { "BRANCH" } else { "TAG" };
    Ok(Columns::new(all.len())
        .ready("name", false, texts(all.keys().cloned().map(Some)))
        .ready("type", false, texts(all.values().map(|r| Some(kind(r).to_owned()))))
        .ready("snapshot_id", false, longs(all.values().map(|r| Some(r.snapshot_id))))
        .ready("max_reference_age_in_ms", true, longs(all.values().map(age)))
        .ready("min_snapshots_to_keep", true, ints(all.values().map(|r| branch(r).0)))
        .ready("max_snapshot_age_in_ms", true, longs(all.values().map(|r| branch(r).1))))
}

async fn current_entries(table: &Table) -> Result<Vec<LiveFile>> {
    match table.metadata().current_snapshot() {
        Some(snapshot) => live_entries(table.io(), table.metadata(), snapshot).await,
        None => Ok(Vec::new()),
    }
}
