//! What a commit was made for, kept in the table itself: how work is done exactly once.
//!
//! A token's newest value stands in the newest snapshot that has one. When that snapshot is no longer among the current one's
//! ancestors, the table's properties have it:
//!
//! - because it has expired: `tarn.token.{key}`, which counts where no snapshot has the token;
//! - because the table was rolled back and the work behind the token is not to be done again: `tarn.token-kept.{key}`, which counts
//!   before the snapshots up to the one that the table was rolled back to (`tarn.token-boundary`).

use std::collections::BTreeMap;

use iceberg::spec::TableMetadata;

use super::ancestors;

/// Table properties of this prefix keep the tokens of expired snapshots.
pub(crate) const EXPIRED_TOKEN: &str = "tarn.token.";

/// Table properties of this prefix keep the tokens of snapshots that a rollback left.
pub(crate) const KEPT_TOKEN: &str = "tarn.token-kept.";

/// The table property that names the snapshot of the last rollback that kept tokens.
pub(crate) const BOUNDARY: &str = "tarn.token-boundary";

/// How the keys of tokens begin whose work may be done again however late: expiry keeps them.
const KEPT_TOKENS: [&str; 5] = ["stream.", "job.", "runs.", "insight.", "replay."];

/// What a commit was made for: `value` is stored under `key` in the snapshot's summary, if the newest value under `key` in
/// the table's history still is `expected`.
///
/// Streams use the key `stream.{name}` and the JSON of [`shared::model::Positions`]; jobs use `job.{workflow}.{job}`. Tokens of
/// streams, jobs and replays outlast the snapshots that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub key: String,
    pub expected: Option<String>,
    pub value: String,
}

impl Token {
    /// The table property that holds the token where no snapshot does.
    pub fn property(&self) -> (String, String) {
        (format!("{EXPIRED_TOKEN}{}", self.key), self.value.clone())
    }
}

/// Whether expiry keeps the token with this key.
pub(crate) fn is_kept_token(key: &str) -> bool {
    KEPT_TOKENS.iter().any(|kind| key.starts_with(kind))
}

/// The newest value stored under a token's key.
pub(crate) fn find<'a>(metadata: &'a TableMetadata, key: &str) -> Option<&'a String> {
    let properties = metadata.properties();
    let boundary = properties.get(BOUNDARY).and_then(|id| id.parse::<i64>().ok());
    let mut older = None;
    for snapshot in ancestors(metadata, metadata.current_snapshot_id()) {
        if boundary == Some(snapshot.snapshot_id()) {
            older = Some(snapshot.snapshot_id());
            break;
        }
        if let Some(value) = snapshot.summary().additional_properties.get(key) {
            return Some(value);
        }
    }
    let behind = || ancestors(metadata, older).find_map(|snapshot| snapshot.summary().additional_properties.get(key));
    properties
        .get(&format!("{KEPT_TOKEN}{key}"))
        .or_else(behind)
        .or_else(|| properties.get(&format!("{EXPIRED_TOKEN}{key}")))
}

/// Every token whose work may be done again however late, with its newest value.
pub(crate) fn all(metadata: &TableMetadata) -> BTreeMap<String, String> {
    let snapshots = ancestors(metadata, metadata.current_snapshot_id());
    let held = snapshots.flat_map(|snapshot| snapshot.summary().additional_properties.keys());
    let kept = [EXPIRED_TOKEN, KEPT_TOKEN]
        .into_iter()
        .flat_map(|prefix| metadata.properties().keys().filter_map(move |key| key.strip_prefix(prefix)));
    let keys = held.map(String::as_str).chain(kept).filter(|key| is_kept_token(key));
    keys.filter_map(|key| Some((key.to_owned(), find(metadata, key)?.clone()))).collect()
}
