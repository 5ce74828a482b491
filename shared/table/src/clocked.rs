//! Revisions of metadata at the time of our clock. The `iceberg` crate takes the machine's, and refuses a revision that it takes to be
//! older than what the table's logs say: the clock of another writer may be ahead.

use std::sync::Arc;

use iceberg::spec::TableMetadata;
use serde_json::Value;
use shared::{Error, Result};

use super::Table;

/// A shift that makes no difference, in milliseconds.
const SMALL_MS: i64 = 1_000;

/// A table whose logs are put to where the machine's time is.
pub(super) struct Clocked {
    pub(super) base: Table,
    /// Milliseconds that they are put back by, and the time of the revision; `None` where the clocks agree.
    shift: Option<(i64, i64)>,
}

impl Clocked {
    /// # Errors
    /// `Bug` for metadata that has no JSON form.
    pub(super) fn new(base: &Table) -> Result<Self> {
        // What the builder will take.
        #[allow(clippy::disallowed_methods)]
        let machine_ms = chrono::Utc::now().timestamp_millis();
        let at_ms = base.ports.clock.now_ms().max(base.metadata.last_updated_ms());
        let by_ms = at_ms - machine_ms;
        if by_ms.abs() <= SMALL_MS {
            return Ok(Self { base: base.clone(), shift: None });
        }
        let metadata = Arc::new(shifted(&base.metadata, -by_ms, base.metadata.last_updated_ms() - by_ms)?);
        Ok(Self { base: Table { metadata, ..base.clone() }, shift: Some((by_ms, at_ms)) })
    }

    /// What became of the table's metadata, with its logs where they were.
    ///
    /// # Errors
    /// `Bug` for metadata that has no JSON form.
    pub(super) fn back(&self, revised: TableMetadata) -> Result<TableMetadata> {
        match self.shift {
            None => Ok(revised),
            Some((by_ms, at_ms)) => shifted(&revised, by_ms, at_ms),
        }
    }
}

/// The metadata with each time of its logs moved, those of other writers exactly, and last changed at `changed_ms`.
fn shifted(metadata: &TableMetadata, by_ms: i64, changed_ms: i64) -> Result<TableMetadata> {
    let failed = |error| Error::bug("table metadata has no JSON form").with_source(error);
    let mut json = serde_json::to_value(metadata).map_err(failed)?;
    let set = |time: &mut Value| {
        if let Some(ms) = time.as_i64() {
            *time = (ms + by_ms).into();
        }
    };
    for log in ["snapshot-log", "metadata-log"] {
        for entry in json.get_mut(log).and_then(Value::as_array_mut).into_iter().flatten() {
            entry.get_mut("timestamp-ms").into_iter().for_each(set);
        }
    }
    json["last-updated-ms"] = changed_ms.into();
    serde_json::from_value(json).map_err(failed)
}
