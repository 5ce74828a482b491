//! What a row-level change came to against one state of the table, and whether it still holds against another.

use std::collections::{BTreeMap, HashSet};

use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::prelude::SessionContext;
use iceberg::spec::FormatVersion;

use super::positions::Addresses;
use super::{RowChangeKind, deletes, rewrite, vectors};
use crate::scan;
use shared::{Error, Result};
use table::Table;
use table::properties::read;
use table::snapshot::{AddedFile, DeleteFile, Delta, LiveFile, Rows, live_files};
use table::write::Writer;

/// How rows leave their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    CopyOnWrite,
    MergeOnRead,
}

/// What others may commit between the state that a change was worked out against and the change itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Nothing that concerns the rows of the change.
    Serializable,
    /// Rows that came meanwhile, even if the change would have concerned them.
    Snapshot,
}

/// What the table's properties ask for.
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) isolation: Isolation,
}

impl Settings {
    /// # Errors
    /// `Invalid`, naming the property, for a value that it can't have.
    pub(super) fn of(table: &Table, kind: RowChangeKind) -> Result<Self> {
        let property = |name: &str, choices: [&str; 2]| {
            let key = format!("write.{}.{name}", kind.name());
            let [first, second] = choices;
            match read::<String>(table.metadata(), &key, "a text")?.as_deref() {
                None => Ok(false),
                Some(found) if found == first => Ok(false),
                Some(found) if found == second => Ok(true),
                Some(found) => Err(Error::invalid(format!(
                    "table property `{key}`: expected `{first}` or `{second}`, found `{found}`"
                ))),
            }
        };
        let on_read = property("mode", ["copy-on-write", "merge-on-read"])?;
        let snapshot = property("isolation-level", ["serializable", "snapshot"])?;
        Ok(Self {
            mode: if on_read { Mode::MergeOnRead } else { Mode::CopyOnWrite },
            isolation: if snapshot { Isolation::Snapshot } else { Isolation::Serializable },
        })
    }
}

/// Files that are written and files that leave, and what that rests on.
pub(super) struct Work {
    base: Table,
    filters: Vec<Expr>,
    isolation: Isolation,
    /// Data files with rows that leave.
    touched: HashSet<String>,
    pub(super) added: Vec<AddedFile>,
    pub(super) removed: HashSet<String>,
    removed_deletes: HashSet<DeleteFile>,
    pub(super) rows: Rows,
}

impl Work {
    pub(super) fn new(base: &Table, filters: Vec<Expr>, isolation: Isolation) -> Self {
        Self {
            base: base.clone(),
            filters: unnormalize_cols(filters),
            isolation,
            touched: HashSet::new(),
            added: Vec::new(),
            removed: HashSet::new(),
            removed_deletes: HashSet::new(),
            rows: Rows::default(),
        }
    }

    pub(super) fn delta(&self) -> Delta {
        Delta {
            added: self.added.clone(),
            removed: self.removed.clone(),
            removed_deletes: self.removed_deletes.clone(),
            replaces: false,
            forgets: false,
            rows: self.rows,
        }
    }

    /// Takes whole files out of the table.
    pub(super) fn drop_files<'a>(&mut self, files: impl IntoIterator<Item = &'a LiveFile>) {
        for file in files {
            let path = file.data().file_path();
            self.touched.insert(path.to_owned());
            self.removed.insert(path.to_owned());
        }
    }

    /// Takes rows out of the table, and finishes what `writer` holds.
    ///
    /// # Errors
    /// What reading and writing answer; `Bug` for an address that the table does not have.
    pub(super) async fn remove(
        &mut self,
        base: &Table,
        addresses: Addresses,
        mode: Mode,
        writer: &mut Writer,
    ) -> Result<()> {
        let spec_id = base.metadata().default_partition_spec_id();
        let files = located(base, addresses).await?;
        self.touched.extend(files.iter().map(|(file, _)| file.data().file_path().to_owned()));
        match mode {
            Mode::CopyOnWrite => {
                self.removed.extend(files.iter().map(|(file, _)| file.data().file_path().to_owned()));
                rewrite::without(base, files, writer).await?;
            }
            Mode::MergeOnRead if base.metadata().format_version() > FormatVersion::V2 => {
                let vectors = vectors::write(base, &files, writer).await?;
                self.added.extend(vectors.added);
                self.removed_deletes.extend(vectors.removed);
            }
            Mode::MergeOnRead => self.added.extend(deletes::write(base, &files, writer).await?),
        }
        let written = writer.finish().await?;
        self.added.extend(written.into_iter().map(|file| AddedFile::new(file, spec_id)));
        Ok(())
    }

    /// Whether the same work would do in the table as it is now.
    pub(super) async fn holds(&self, now: &Table) -> Result<bool> {
        let concerned = |came: Vec<LiveFile>| {
            let concerned = may_match(now, came, &self.filters).inspect_err(|error| {
                tracing::debug!(%error, "the filters of a change tell no files apart");
            });
            !concerned.is_ok_and(|files| files.is_empty())
        };
        self.holds_unless(now, |came| self.isolation == Isolation::Serializable && concerned(came)).await
    }

    /// As [`Work::holds`], where `concerns` says whether files with rows that came meanwhile matter.
    pub(super) async fn holds_unless(&self, now: &Table, concerns: impl Fn(Vec<LiveFile>) -> bool) -> Result<bool> {
        let (then, metadata) = (self.base.metadata(), now.metadata());
        if then.current_snapshot_id() == metadata.current_snapshot_id()
            && then.current_schema_id() == metadata.current_schema_id()
            && then.default_partition_spec_id() == metadata.default_partition_spec_id()
        {
            return Ok(true);
        }
        if then.current_schema_id() != metadata.current_schema_id()
            || then.default_partition_spec_id() != metadata.default_partition_spec_id()
        {
            return Ok(false);
        }
        let before = live(&self.base).await?;
        let files = live(now).await?;
        let known: BTreeMap<&str, &LiveFile> = before.iter().map(|file| (file.data().file_path(), file)).collect();
        let mut missing: HashSet<&str> = self.touched.iter().map(String::as_str).collect();
        let mut came = Vec::new();
        for file in &files {
            let path = file.data().file_path();
            match known.get(path) {
                None => came.push(file.clone()),
                Some(old) => match (missing.remove(path), old.same_rows(file)) {
                    (true, false) => return Ok(false),
                    // Rows of it may be there again: a rollback takes deletes back.
                    (false, false) => came.push(file.clone()),
                    (_, true) => {}
                },
            }
        }
        Ok(missing.is_empty() && !concerns(came))
    }
}

/// A writer of what is worked out against `base`.
pub(super) fn begin(base: &Table, prefix: String) -> Result<Writer> {
    Ok(Writer::new(base.io(), base.metadata(), prefix)?.with_lineage(base.metadata()))
}

/// What was worked out; `created` gets the name of every file that was begun for it, whatever came of it.
pub(super) async fn end(worked_out: Result<Work>, mut writer: Writer, created: &mut Vec<String>) -> Result<Work> {
    if worked_out.is_err() {
        writer.settle().await;
    }
    created.extend_from_slice(writer.created());
    worked_out
}

/// The data files of a table.
pub(super) async fn live(table: &Table) -> Result<Vec<LiveFile>> {
    match table.metadata().current_snapshot() {
        Some(snapshot) => live_files(table.io(), table.metadata(), snapshot).await,
        None => Ok(Vec::new()),
    }
}

/// The files of some addresses, in the order of their locations.
async fn located(base: &Table, addresses: Addresses) -> Result<Vec<(LiveFile, roaring::RoaringTreemap)>> {
    if addresses.files.is_empty() {
        return Ok(Vec::new());
    }
    let live = live(base).await?;
    let by_path: BTreeMap<&str, &LiveFile> = live.iter().map(|file| (file.data().file_path(), file)).collect();
    let located = addresses.files.into_iter().map(|(path, places)| match by_path.get(path.as_str()) {
        Some(file) => Ok(((*file).clone(), places)),
        None => Err(Error::bug(format!("expected rows of the table's data files, found `{path}`"))),
    });
    located.collect()
}

/// The files that may hold rows which all filters let pass.
pub(super) fn may_match(table: &Table, files: Vec<LiveFile>, filters: &[Expr]) -> Result<Vec<LiveFile>> {
    scan::may_match(&SessionContext::new().state(), table, files, filters)
}
