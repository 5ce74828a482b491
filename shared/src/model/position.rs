//! Where a reader stands in a stream: sequence numbers per shard, and intervals `(from, to]` between them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A shard's name, e.g. `shardId-000000000000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub String);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A record's place in its shard: a decimal number of any length (Kinesis uses up to 56 digits), compared by value and kept as
/// the stream wrote it. Numbers grow within a shard and leave gaps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequenceNumber(String);

impl SequenceNumber {
    /// Before every record.
    pub fn zero() -> Self {
        Self("0".into())
    }

    /// The decimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits that tell its value.
    fn significant(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.significant() == other.significant()
    }
}

impl Eq for SequenceNumber {}

impl Hash for SequenceNumber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.significant().hash(state);
    }
}

impl From<u64> for SequenceNumber {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

impl TryFrom<String> for SequenceNumber {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(format!("expected a sequence number of decimal digits, found `{text}`")));
        }
        Ok(Self(text))
    }
}

impl std::str::FromStr for SequenceNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.to_owned().try_into()
    }
}

impl From<SequenceNumber> for String {
    fn from(number: SequenceNumber) -> Self {
        number.0
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.significant(), other.significant());
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The last record read (inclusive) of each shard. A shard that is missing has not been read at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<ShardId, SequenceNumber>);

impl Positions {
    /// The last record read of `shard`, [`SequenceNumber::zero`] when none was.
    pub fn of(&self, shard: &ShardId) -> SequenceNumber {
        self.0.get(shard).cloned().unwrap_or_else(SequenceNumber::zero)
    }

    /// Moves `shard` forward to `to`; never back.
    pub fn advance(&mut self, shard: &ShardId, to: SequenceNumber) {
        let at = self.0.entry(shard.clone()).or_insert_with(SequenceNumber::zero);
        if *at < to {
            *at = to;
        }
    }

    /// Moves every shard of `other` forward.
    pub fn advance_all(&mut self, other: &Self) {
        for (shard, to) in &other.0 {
            self.advance(shard, to.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_ordered_by_value_not_by_text() {
        let small: SequenceNumber = "9".parse().unwrap();
        let large: SequenceNumber = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
        let padded: SequenceNumber = "0010".parse().unwrap();
        assert!(small < padded && padded < large);
        assert_eq!(padded, SequenceNumber::from(10));
    }

    #[test]
    fn a_position_never_moves_back() {
        let shard = ShardId("shardId-000000000000".into());
        let mut positions = Positions::default();
        positions.advance(&shard, 7.into());
        positions.advance(&shard, 3.into());
        assert_eq!(positions.of(&shard), 7.into());
    }

    #[test]
    fn a_sequence_number_that_is_no_number_is_refused() {
        assert!("12a".parse::<SequenceNumber>().is_err());
        assert!("".parse::<SequenceNumber>().is_err());
    }
}
