//! Rows of a subject, wherever a table still keeps them: in the current snapshot, and in data files that only older snapshots,
//! tags or branches name, or from which they are only marked as deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::AsArray;
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, ident, lit};
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use iceberg::spec::{MAIN_BRANCH, ManifestContentType, ManifestFile};
use shared::Result;
use shared::erasure::Subject;
use shared::error::Context;
use shared::text::canonical_number;
use table::live::{LiveFile, files_of};
use table::{Alter, Expire, Read, Table, refs};

use super::address::{FILE, POS};
use super::{Change, ChangeTable, ReadTable, Rewrite, scan};

/// Where a table keeps rows of a subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Rows that a query sees.
    pub rows: u64,
    /// Rows in data files that some snapshot names, deleted ones among them; a row that was moved to another file counts in each.
    pub kept_rows: u64,
    /// Locations of those files.
    pub files: BTreeSet<String>,
    /// The snapshots that list one of them, also as one that has left, each with its sequence number.
    pub snapshots: BTreeMap<i64, i64>,
    /// Tags and branches of these snapshots, without the main branch.
    pub references: Vec<String>,
}

impl Traces {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.files.is_empty()
    }
}

/// What was removed of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows that queries saw.
    pub rows: u64,
    pub files_rewritten: u64,
    /// Tags and branches that were dropped, as they named rows of the subject.
    pub references: Vec<String>,
    pub snapshots_expired: u64,
    /// Files that could not be removed.
    pub left_behind: u64,
}

/// A column that a subject names and a table lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// It never had it.
    Never(String),
    /// It was dropped: files that were written before still hold it.
    Dropped(String),
    /// It is of a type whose values can't be told from their text.
    Unreadable(String),
}

/// The column of the subject by which rows of the table can't be told, if any.
pub fn missing(table: &Table, subject: &Subject) -> Option<Missing> {
    for column in subject.columns() {
        let Some(own) = field(table.arrow_schema(), column) else {
            let named = |schema: &iceberg::spec::SchemaRef| schema.field_by_name_case_insensitive(column).is_some();
            let had = table.metadata().schemas_iter().any(named);
            let column = column.to_owned();
            return Some(if had { Missing::Dropped(column) } else { Missing::Never(column) });
        };
        if !can_cast_types(&DataType::Utf8, own.data_type()) {
            return Some(Missing::Unreadable(column.to_owned()));
        }
    }
    None
}

/// The column, whatever the case of its name.
fn field<'a>(schema: &'a SchemaRef, column: &str) -> Option<&'a FieldRef> {
    schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(column))
}

/// Looks for rows of the subject.
///
/// # Errors
/// What reading answers.
pub async fn traces(table: &Table, subject: &Subject) -> Result<Traces> {
    let found = async {
        let table = table.reload().await?;
        let Some(filter) = filter(table.arrow_schema(), subject) else { return Ok(Traces::default()) };
        let rows = live_rows(&table, &filter).await?;
        let listed = SnapshotFiles::of(&table).await?;
        let held = holding(&table, listed.files(), &filter).await?;
        let files: BTreeSet<String> = held.keys().cloned().collect();
        let snapshots = listed.snapshots_of(&table, &files);
        let named = refs::all(table.metadata())?.into_iter();
        let references = named
            .filter(|(name, reference)| name != MAIN_BRANCH && snapshots.contains_key(&reference.snapshot_id))
            .map(|(name, _)| name)
            .collect();
        Ok(Traces { rows, kept_rows: held.values().sum(), files, snapshots, references })
    };
    let found: Result<Traces> = found.await;
    found.context(|| format!("looking for rows to erase in the table `{}`", table.name()))
}

/// Deletes the subject's rows and rewrites the files from which they are only marked as deleted; older snapshots keep them.
///
/// # Errors
/// As [`ChangeTable::commit`] and [`ChangeTable::rewrite`].
pub async fn delete(table: &Table, subject: &Subject, rewrite: &Rewrite) -> Result<Purged> {
    let Some(filter) = filter(table.arrow_schema(), subject) else { return Ok(Purged::default()) };
    let mut purged = Purged::default();
    if live_rows(table, &filter).await? > 0 {
        let none = Box::pin(EmptyRecordBatchStream::new(table.arrow_schema().clone()));
        let change = Change::OverwriteWhere(vec![filter.clone()]);
        purged.rows = table.commit(change, none, None).await?.rows_deleted;
    }
    // What is only marked as deleted goes with its file.
    let rewrite = Rewrite { filters: vec![filter], min_input_files: Some(usize::MAX), ..rewrite.clone() };
    purged.files_rewritten = table.rewrite(&rewrite).await?.files_removed;
    // What left is still listed, with the least and the greatest of its values.
    table.forget_removed_files().await?;
    Ok(purged)
}

/// Removes every snapshot, tag and branch that names files with the subject's rows, and those files. What is current must be
/// free of them.
///
/// # Errors
/// As [`Table::alter`] and [`Table::expire`].
pub async fn purge(table: &Table, found: &Traces, purged: &mut Purged) -> Result<()> {
    let Some(newest) = found.snapshots.values().max() else { return Ok(()) };
    for name in &found.references {
        table.alter(&[Alter::DropRef(name.clone())]).await?;
        purged.references.push(name.clone());
    }
    let expire = Expire {
        older_than_ms: Some(i64::MIN),
        retain_last: Some(1),
        through_sequence: Some(*newest),
        ..Expire::default()
    };
    let expired = table.expire(&expire).await?;
    purged.snapshots_expired += expired.snapshots.len() as u64;
    purged.left_behind += expired.left_behind;
    Ok(())
}

/// The condition over columns of these types; none when no value of a column can be one of its type.
fn filter(schema: &SchemaRef, subject: &Subject) -> Option<Expr> {
    let terms = subject.terms().iter().map(|term| {
        let column = field(schema, &term.column)?;
        let ty = column.data_type();
        let typed = |text: &String| typed(text, ty);
        let values: Vec<Expr> = term.values.iter().filter_map(typed).map(lit).collect();
        (!values.is_empty()).then(|| ident(column.name()).in_list(values, false))
    });
    terms.collect::<Option<Vec<_>>>()?.into_iter().reduce(Expr::and)
}

/// The value of a type that a text stands for; none where it says more than the type holds.
fn typed(text: &str, ty: &DataType) -> Option<ScalarValue> {
    let value = ScalarValue::Utf8(Some(text.to_owned())).cast_to(ty).ok().filter(|value| !value.is_null())?;
    let same = match ty {
        DataType::Date32 => text.trim().len() <= "2024-01-31".len(),
        ty if ty.is_numeric() => {
            let back = value.cast_to(&DataType::Utf8).ok()?;
            canonical_number(text.trim().as_bytes()).ok() == canonical_number(back.to_string().as_bytes()).ok()
        }
        _ => true,
    };
    same.then_some(value)
}

async fn live_rows(table: &Table, filter: &Expr) -> Result<u64> {
    let session = SessionContext::new();
    register(&session, table)?;
    let provider = table.provider(Read::Current).await?;
    let frame = session.read_table(provider)?.filter(filter.clone())?;
    Ok(frame.count().await? as u64)
}

/// How many rows of each file the filter lets pass, for files that have some.
async fn holding(table: &Table, files: Vec<LiveFile>, filter: &Expr) -> Result<BTreeMap<String, u64>> {
    let session = SessionContext::new();
    let mut held = BTreeMap::new();
    let files = scan::may_match(&session.state(), table, files, std::slice::from_ref(filter))?;
    if files.is_empty() {
        return Ok(held);
    }
    register(&session, table)?;
    let frame: DataFrame = session.read_table(scan::addressed_files(table, files)?)?.filter(filter.clone())?;
    let counted = frame.aggregate(vec![ident(FILE)], vec![count(ident(POS)).alias("rows")])?;
    let mut batches = counted.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        let names = cast(batch.column(0), &DataType::Utf8)?;
        let counts = cast(batch.column(1), &DataType::UInt64)?;
        let counts = counts.as_primitive::<arrow::datatypes::UInt64Type>();
        for (name, rows) in names.as_string::<i32>().iter().zip(counts) {
            held.insert(name.unwrap_or_default().to_owned(), rows.unwrap_or(0));
        }
    }
    Ok(held)
}

fn register(session: &SessionContext, table: &Table) -> Result<()> {
    let url = table.io().url(table.metadata().location())?;
    let (store, _) = table.io().storage().resolve(&url)?;
    session.register_object_store(&url, store);
    Ok(())
}

/// The data files of all snapshots.
struct SnapshotFiles {
    /// By the location of the manifest that lists them.
    manifests: HashMap<String, ManifestFiles>,
    /// The manifests of each snapshot.
    snapshots: HashMap<i64, Vec<String>>,
}

/// The files of a manifest.
struct ManifestFiles {
    alive: Vec<LiveFile>,
    /// Locations of those that have left.
    left: BTreeSet<String>,
}

impl SnapshotFiles {
    async fn of(table: &Table) -> Result<Self> {
        let (io, metadata) = (table.io(), table.metadata());
        let mut listed = Self { manifests: HashMap::new(), snapshots: HashMap::new() };
        for snapshot in metadata.snapshots() {
            let list = io.manifest_list(snapshot, metadata.format_version()).await?;
            let data: Vec<_> = list.iter().filter(|m| m.content == ManifestContentType::Data).collect();
            let location = |manifest: &ManifestFile| manifest.manifest_path.clone();
            for manifest in &data {
                if !listed.manifests.contains_key(&manifest.manifest_path) {
                    listed.manifests.insert(location(manifest), ManifestFiles::of(table, manifest).await?);
                }
            }
            listed.snapshots.insert(snapshot.snapshot_id(), data.into_iter().map(location).collect());
        }
        Ok(listed)
    }

    /// Each file once, without the deletes that apply to it.
    fn files(&self) -> Vec<LiveFile> {
        let all = self.manifests.values().flat_map(|listed| &listed.alive).map(|file| (file.data().file_path(), file));
        all.collect::<HashMap<_, _>>().into_values().cloned().collect()
    }

    /// The snapshots that list one of the files, also as one that has left.
    fn snapshots_of(&self, table: &Table, files: &BTreeSet<String>) -> BTreeMap<i64, i64> {
        let lists = |listed: &ManifestFiles| {
            listed.alive.iter().any(|file| files.contains(file.data().file_path())) || !listed.left.is_disjoint(files)
        };
        let hit: HashMap<&String, bool> = self.manifests.iter().map(|(at, listed)| (at, lists(listed))).collect();
        let named = self.snapshots.iter().filter(|(_, manifests)| manifests.iter().any(|m| hit[m]));
        let sequence = |id: i64| Some((id, table.metadata().snapshot_by_id(id)?.sequence_number()));
        named.filter_map(|(id, _)| sequence(*id)).collect()
    }
}

impl ManifestFiles {
    async fn of(table: &Table, manifest: &ManifestFile) -> Result<Self> {
        let alive = match manifest.has_added_files() || manifest.has_existing_files() {
            true => files_of(table.io(), &[manifest], &[]).await?,
            false => Vec::new(),
        };
        if !manifest.has_deleted_files() {
            return Ok(Self { alive, left: BTreeSet::new() });
        }
        let read = table.io().any_manifest(manifest).await?;
        let left = read.entries().iter().filter(|entry| !entry.is_alive());
        Ok(Self { alive, left: left.map(|entry| entry.file_path().to_owned()).collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_value_that_a_column_can_not_hold_finds_nothing() {
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![
            arrow::datatypes::Field::new("id", DataType::Int64, true),
            arrow::datatypes::Field::new("name", DataType::Utf8, true),
        ]));
        let of = |condition: &str| filter(&schema, &Subject::parse(condition).unwrap()).map(|e| e.to_string());
        assert_eq!(of("id = 'x'"), None);
        assert_eq!(of("id IN ('x', 3, 3.5)").unwrap(), "id IN ([Int64(3)])");
        assert_eq!(of("name = 3 AND id = 4").unwrap(), "name IN ([Utf8(\"3\")]) AND id IN ([Int64(4)])");
    }
}
