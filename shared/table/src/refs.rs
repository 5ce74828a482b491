//! The tags and branches of a table.

use std::collections::BTreeMap;

use iceberg::spec::{SnapshotReference, TableMetadata};
use serde::Deserialize;

use shared::{Error, Result};

/// Every tag and branch by name, `main` among them once the table has a snapshot. The `iceberg` crate looks up single ones only,
/// so they are read from the metadata's JSON.
///
/// # Errors
/// `Bug` when the metadata has no JSON.
pub fn all(metadata: &TableMetadata) -> Result<BTreeMap<String, SnapshotReference>> {
    #[derive(Deserialize)]
    struct References {
        #[serde(default)]
        refs: BTreeMap<String, SnapshotReference>,
    }
    let read = || serde_json::from_slice::<References>(&serde_json::to_vec(metadata)?);
    Ok(read().map_err(|e| Error::bug("expected the table's tags and branches in its metadata").with_source(e))?.refs)
}
