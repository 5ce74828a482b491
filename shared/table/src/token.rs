//! What a commit was made for, kept in the table itself: how work is done exactly once.

/// Table properties of this prefix keep the tokens of expired snapshots.
pub(crate) const EXPIRED_TOKEN: &str = "tarn.token.";

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
