//! Changes of a table that touch no row: columns, partition fields, sort order, properties, tags and branches, rollback.
//!
//! Every change is checked against what readers of Iceberg can follow, and against the changes before it in the same call; all
//! of a call take effect at once or none does. Files that were written before are read by field id, so they stay as they are.

mod columns;
mod draft;
mod layout;
mod mapping;
mod properties;
mod references;

use std::collections::BTreeMap;

use async_trait::async_trait;
use iceberg::spec::TableMetadata;

use self::draft::Draft;
pub use self::layout::iceberg_transform;
pub(crate) use self::properties::{FORMAT_VERSION, check_property, format_version};
use super::Table;
use super::revise::{Revision, revise};
use shared::Result;
use shared::error::Context;
use shared::model::{Column, ColumnType};
use shared::model::{PartitionField, Transform};

/// A change of a table. Columns are named as SQL names them, those inside others as `a.b`; the items of a list are its
/// `element`, those of a map its `value`.
#[derive(Debug, Clone, PartialEq)]
pub enum Alter {
    /// Adds a column that may be null (`column.required` only while the table never had rows). `a.b` adds the field `b` to the
    /// struct `a`.
    AddColumn {
        column: Column,
        after: Position,
    },
    /// Not the source of a partition field or of the sort order, and not the last one.
    DropColumn(String),
    /// `to` is the new name alone, without the struct that holds it.
    RenameColumn {
        from: String,
        to: String,
    },
    /// int → bigint, float → double, a decimal to more digits of the same scale.
    WidenColumn {
        name: String,
        ty: ColumnType,
    },
    /// Within the columns, or the struct, that hold it.
    MoveColumn {
        name: String,
        to: Position,
    },
    /// Lets a required column be null.
    DropNotNull(String),
    /// What the column means; `None` removes the text.
    Comment {
        column: String,
        comment: Option<String>,
    },
    /// Rows that come are partitioned by this too. Files that are there stay as they are.
    AddPartitionField(PartitionField),
    DropPartitionField(PartitionField),
    /// The partitioning of rows that come, whole; empty for none.
    ReplacePartitionFields(Vec<PartitionField>),
    /// How files should be sorted; empty for no order.
    SetSortOrder(Vec<SortField>),
    /// Gives an order an id, by which files say that their rows are in it. How files should be sorted stays as it is.
    NameSortOrder(Vec<SortField>),
    /// `format-version` upgrades the table.
    SetProperties(BTreeMap<String, String>),
    /// Absent ones are passed over.
    RemoveProperties(Vec<String>),
    /// A name for a snapshot (default: the current one). With `replace` one that exists is moved.
    CreateTag {
        name: String,
        snapshot: Option<i64>,
        keep: Keep,
        replace: bool,
    },
    /// A line of snapshots of its own, beginning with a snapshot (default: the current one).
    CreateBranch {
        name: String,
        snapshot: Option<i64>,
        keep: Keep,
        replace: bool,
    },
    /// Removes a tag or branch; `main` stays.
    DropRef(String),
    /// Makes an ancestor of the current snapshot the current one. Streams and jobs that wrote the rows which leave don't write them
    /// again, unless `replay` says so.
    RollbackTo {
        snapshot: i64,
        replay: bool,
    },
    /// Makes the newest ancestor current that was committed before this time (milliseconds since the epoch).
    RollbackToTime {
        before_ms: i64,
        replay: bool,
    },
    /// Makes any snapshot of the table the current one. Streams and jobs go on where they are.
    SetCurrentSnapshot(i64),
    /// Moves a branch forward to where another branch or a tag is; no snapshot of the branch may be lost by it.
    FastForward {
        branch: String,
        to: String,
    },
}

/// Where a column goes among those beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Position {
    #[default]
    Last,
    First,
    /// The name alone, of a column beside it.
    After(String),
    /// The name alone, of a column beside it.
    Before(String),
}

/// A part of a sort order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortField {
    pub column: String,
    /// What is done with the value before it is compared ([`Transform::Identity`] for nothing).
    pub transform: Transform,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What expiry keeps of a tag or branch; what is not set is as the table's properties say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Milliseconds after which the tag or branch itself goes (default: never).
    pub max_ref_age_ms: Option<i64>,
    /// Milliseconds after which snapshots of the branch go; not for tags.
    pub max_snapshot_age_ms: Option<i64>,
    /// Snapshots of the branch that stay however old they are; not for tags.
    pub min_snapshots_to_keep: Option<i32>,
}

impl Table {
    /// Changes the table; all of `changes` in their order, or none. Gives the table as it is then. What is so already is no
    /// error, and without anything to change nothing is written.
    ///
    /// # Errors
    /// `Invalid`, saying what was expected and what was found, for a change that the table can't take; `NotFound` for a snapshot,
    /// tag or branch that it does not have; `Conflict` when others came first until the time was up; `OutcomeUnknown` when it
    /// can't be found out whether the change happened.
    pub async fn alter(&self, changes: &[Alter]) -> Result<Self> {
        let altered = async { revise(self.reload().await?, &mut Alteration { changes }).await };
        let altered = altered.await.context(|| format!("changing the table `{}`", self.name()))?;
        if altered.before.is_some() {
            tracing::info!(table = %self.name(), changes = changes.len(), "table changed");
        }
        Ok(altered.now)
    }
}

/// Whether the change would change the table as it is here.
///
/// # Errors
/// As [`Table::alter`] for a change that the table can't take.
pub(crate) fn would_change(table: &Table, change: &Alter) -> Result<bool> {
    let mut draft = Draft::new(table);
    draft.apply(change)?;
    Ok(draft.finish()?.is_some())
}

struct Alteration<'a> {
    changes: &'a [Alter],
}

#[async_trait]
impl Revision for Alteration<'_> {
    async fn revise(&mut self, base: &Table) -> Result<Option<TableMetadata>> {
        let mut draft = Draft::new(base);
        for change in self.changes {
            draft.apply(change)?;
        }
        draft.finish()
    }
}
