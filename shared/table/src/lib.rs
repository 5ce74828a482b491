//! Iceberg tables: create, load, commit, evolve, maintain; also those that others wrote: v1 to v3, with row-level deletes of every
//! kind. Rows come as a [`RowStream`]; who reads them or changes some of them builds on the modules here (`table-datafusion`).
//!
//! A commit is: build from the current metadata, write new metadata under a fresh name, swap the catalog's pointer under its
//! version; on conflict reload, validate, rebase, retry ([`mod@commit`]). A [`Token`] stored in the snapshot that holds the rows makes
//! a commit happen exactly once. `Conflict` says that another writer changed what was read, `OutcomeUnknown` that a commit may have
//! happened.

pub mod alter;
mod append;
mod clocked;
pub mod commit;
pub mod conform;
mod create;
mod declared;
pub mod deletes;
mod drop;
mod expire;
mod extensions;
mod files;
mod forget;
pub mod io;
pub mod lineage;
pub mod live;
mod manifest_names;
pub mod manifests;
mod metrics;
mod orphans;
mod ownership;
pub mod partitioning;
pub mod properties;
pub mod reachable;
pub mod refs;
mod register;
pub mod replay;
mod revise;
mod row_stream;
pub mod schema;
pub mod snapshot;
pub mod summary;
mod table;
mod tables;
mod token;
pub mod transform;
pub mod write;

use std::collections::BTreeMap;

use iceberg::spec::{Snapshot, TableMetadata};

pub use self::alter::{Alter, Keep, Position, SortField};
pub use self::append::{Written, write_rows};
pub use self::conform::assigned;
pub use self::create::NewTable;
pub use self::declared::{Evolution, TableColumns};
pub use self::drop::{Dropped, Purge};
pub use self::expire::{Expire, Expired};
pub use self::extensions::Extensions;
pub use self::orphans::{OrphanReport, Orphans};
pub use self::reachable::FileKind;
pub use self::row_stream::RowStream;
pub use self::table::Table;
pub use self::tables::Tables;
pub use self::token::Token;

/// Which rows a read sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Current,
    Snapshot(i64),
    /// What was current at a time, in milliseconds since the epoch.
    AsOf {
        ms: i64,
    },
    /// A tag, with the columns it had then, or a branch.
    Reference(String),
    /// Rows of the files that were added after `after` (none: from the start) up to and including `to`.
    Added {
        after: Option<i64>,
        to: i64,
    },
    /// Rows that the snapshot `to` has and `after` has not: each as often as it is there more often.
    Came {
        after: i64,
        to: i64,
    },
    /// Rows that the snapshot `after` had and `to` has not: each as often as it was there more often.
    Left {
        after: i64,
        to: i64,
    },
}

/// What a commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The new snapshot. Where nothing changes and without a token nothing is committed: the current snapshot then, 0 if there
    /// is none.
    pub snapshot_id: i64,
    pub rows_added: u64,
    /// Rows whose values were replaced by a row-level change; such rows are neither added nor deleted.
    pub rows_updated: u64,
    pub rows_deleted: u64,
    /// Data files.
    pub files_added: u64,
    pub files_removed: u64,
    pub delete_files_added: u64,
    /// Bytes of the data and delete files that were added.
    pub bytes_added: u64,
    /// Tries it took; more than 1 when other writers came first.
    pub attempts: u32,
}

/// A snapshot of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: i64,
    pub parent: Option<i64>,
    /// Milliseconds since the epoch.
    pub committed_ms: i64,
    /// `append`, `overwrite`, `replace` or `delete`.
    pub operation: String,
    pub summary: BTreeMap<String, String>,
}

/// The snapshot `from`, its parent, and so on, as far back as the metadata reaches.
pub fn ancestors(metadata: &TableMetadata, from: Option<i64>) -> impl Iterator<Item = &Snapshot> {
    let find = |id: Option<i64>| id.and_then(|id| metadata.snapshot_by_id(id)).map(|snapshot| snapshot.as_ref());
    std::iter::successors(find(from), move |snapshot| find(snapshot.parent_snapshot_id()))
}

impl From<&Snapshot> for SnapshotInfo {
    fn from(snapshot: &Snapshot) -> Self {
        let summary = snapshot.summary();
        Self {
            id: snapshot.snapshot_id(),
            parent: snapshot.parent_snapshot_id(),
            committed_ms: snapshot.timestamp_ms(),
            operation: summary.operation.as_str().to_owned(),
            summary: summary.additional_properties.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }
}
