//! Reading without the rows that delete files delete.
//!
//! Places in a file (position delete files, deletion vectors) become a selection for DataFusion's own Parquet scan, so that
//! its pruning still works. Deletes by value (equality delete files) are a node of the plan over the files they apply to.
//! Files without deletes are read as if there were none.

mod equality;
mod loader;
mod selection;

pub(super) use self::equality::{EqualityDeletes, ScopeUse};
pub(super) use self::loader::{EqualityColumn, Loader};
pub(super) use self::selection::{DeletedPlaces, DeletingMorselizer};
