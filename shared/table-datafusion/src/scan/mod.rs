//! Reads: manifests name the files, filters prune them, DataFusion's own Parquet scan reads what is left.

mod files;
mod lineage;
mod order;

use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext};
use iceberg::spec::{Operation, SchemaRef, SnapshotRef, TableMetadata};

use self::files::{IcebergTable, Rows};
use self::lineage::LineageTable;
use super::address::{FILE, POS};
use super::changes::{self, Side};
use shared::{Error, Result};
use table::io::IcebergContext;
use table::live::{LiveFile, added_files};
use table::{Read, Table, ancestors, refs};

pub(super) async fn provider(table: &Table, read: Read) -> Result<Arc<dyn TableProvider>> {
    let metadata = table.metadata();
    let (schema, rows) = match read {
        Read::Current => (metadata.current_schema().clone(), live(table, metadata.current_snapshot()).await?),
        Read::Added { after, to } => (metadata.current_schema().clone(), Rows::Files(added(table, after, to).await?)),
        Read::Came { after, to } => return changes::difference(table, after, to, Side::Came).await,
        Read::Left { after, to } => return changes::difference(table, after, to, Side::Left).await,
        Read::Snapshot(_) | Read::AsOf { .. } | Read::Reference(_) => {
            let (schema, snapshot) = travel(metadata, &read)?;
            (schema, live(table, Some(snapshot)).await?)
        }
    };
    Ok(Arc::new(IcebergTable::new(table, &schema, rows)?.with_views()))
}

async fn live(table: &Table, snapshot: Option<&SnapshotRef>) -> Result<Rows> {
    match snapshot {
        Some(snapshot) => {
            let list = table.io().manifest_list(snapshot, table.metadata().format_version()).await;
            list.map(Rows::Snapshot)
        }
        None => Ok(Rows::Files(Vec::new())),
    }
}

/// The snapshot that a read back in time names, and its columns. A branch goes on with the table's present columns, as the
/// specification has it.
fn travel<'a>(metadata: &'a TableMetadata, read: &Read) -> Result<(SchemaRef, &'a SnapshotRef)> {
    let snapshot = match read {
        Read::AsOf { ms } => {
            let log = metadata.history().iter().rev().find(|entry| entry.timestamp_ms <= *ms);
            let entry = log.ok_or_else(|| {
                let first = metadata
                    .history()
                    .first()
                    .map_or("none".to_owned(), |e| format!("the first of `{}`", e.timestamp_ms));
                Error::not_found(format!(
                    "expected a snapshot from before `{ms}` (milliseconds since 1970), found {first}"
                ))
            })?;
            find(metadata, entry.snapshot_id)?
        }
        Read::Reference(name) => metadata.snapshot_for_ref(name).ok_or_else(|| {
            let known =
                refs::all(metadata).map(|refs| refs.into_keys().map(|name| format!("`{name}`")).collect::<Vec<_>>());
            let known = known.unwrap_or_default().join(", ");
            Error::not_found(format!("expected a tag or branch of the table ({known}), found `{name}`"))
        })?,
        Read::Snapshot(id) => find(metadata, *id)?,
        Read::Current | Read::Added { .. } | Read::Came { .. } | Read::Left { .. } => {
            return Err(Error::bug("expected a read back in time"));
        }
    };
    let is_branch = match read {
        Read::Reference(name) => refs::all(metadata)?.iter().any(|(n, r)| n == name && r.is_branch()),
        _ => false,
    };
    if is_branch {
        return Ok((metadata.current_schema().clone(), snapshot));
    }
    let schema = snapshot.schema(metadata);
    Ok((schema.doing(|| format!("reading the schema of snapshot `{}`", snapshot.snapshot_id()))?, snapshot))
}

/// The current rows with their addresses, and their lineage if the table keeps one.
pub(super) async fn addressed(table: &Table) -> Result<Arc<dyn TableProvider>> {
    traced(table, live(table, table.metadata().current_snapshot()).await?)
}

/// As [`addressed`], of some files.
pub(super) fn traced_files(table: &Table, files: Vec<LiveFile>) -> Result<Arc<dyn TableProvider>> {
    traced(table, Rows::Files(files))
}

fn traced(table: &Table, rows: Rows) -> Result<Arc<dyn TableProvider>> {
    let rows = IcebergTable::new(table, table.metadata().current_schema(), rows)?;
    Ok(match table.keeps_lineage() {
        true => Arc::new(LineageTable::new(rows)?),
        false => Arc::new(rows.addressed()?),
    })
}

/// The rows of some files as other files take them over: with their lineage, if the table keeps one.
pub(super) fn moving(session: &SessionContext, table: &Table, files: Vec<LiveFile>) -> Result<DataFrame> {
    if !table.keeps_lineage() {
        return Ok(session.read_table(self::files(table, files)?)?);
    }
    Ok(session.read_table(traced_files(table, files)?)?.drop_columns(&[FILE, POS])?)
}

/// Some files of a table in its present schema.
pub(super) fn files(table: &Table, files: Vec<LiveFile>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(IcebergTable::new(table, table.metadata().current_schema(), Rows::Files(files))?))
}

/// Some files of a table in its present schema, with the addresses of their rows.
pub(super) fn addressed_files(table: &Table, files: Vec<LiveFile>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(IcebergTable::new(table, table.metadata().current_schema(), Rows::Files(files))?.addressed()?))
}

/// Those of `files` that may hold rows which all filters let pass.
pub(super) fn may_match(
    state: &dyn Session,
    table: &Table,
    files: Vec<LiveFile>,
    filters: &[Expr],
) -> Result<Vec<LiveFile>> {
    let table = IcebergTable::new(table, table.metadata().current_schema(), Rows::Files(Vec::new()))?;
    Ok(table.may_match(state, &files, filters)?)
}

/// Lets a session find the store of a table's file.
pub(super) fn register_store(session: &SessionContext, table: &Table, file: &LiveFile) -> Result<()> {
    let url = table.io().url(file.data().file_path())?;
    let (store, _) = table.io().storage().resolve(&url)?;
    session.register_object_store(&url, store);
    Ok(())
}

pub(super) fn find(metadata: &TableMetadata, id: i64) -> Result<&SnapshotRef> {
    metadata.snapshot_by_id(id).ok_or_else(|| {
        let known = metadata.snapshots().len();
        Error::not_found(format!("expected one of the table's {known} snapshots, found `{id}`"))
    })
}

/// The files that came in the snapshots after `after` up to `to`.
async fn added(table: &Table, after: Option<i64>, to: i64) -> Result<Vec<LiveFile>> {
    let metadata = table.metadata();
    find(metadata, to)?;
    if let Some(after) = after {
        find(metadata, after)?;
    }
    let mut files = Vec::new();
    let mut next = after;
    for snapshot in ancestors(metadata, Some(to)) {
        if Some(snapshot.snapshot_id()) == after {
            next = None;
            break;
        }
        match snapshot.summary().operation {
            Operation::Append => {}
            Operation::Replace => continue,
            ref other => {
                return Err(Error::invalid(format!(
                    "expected snapshots that only add rows, found `{}` of the kind `{}`: read the table whole",
                    snapshot.snapshot_id(),
                    other.as_str()
                )));
            }
        }
        files.extend(added_files(table.io(), metadata, snapshot).await?);
    }
    match next {
        None => Ok(files),
        Some(after) => Err(Error::invalid(format!("expected an ancestor of the snapshot `{to}`, found `{after}`"))),
    }
}
