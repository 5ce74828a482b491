//! Partition values as one key of bytes, in the values' own order, in which a prefix of values is a prefix of bytes.
//!
//! Each value ends with a zero byte. A zero or one inside a value becomes a one and the byte plus one, which keeps the order.

use std::ops::Range;

/// The key of a partition's values.
pub(super) fn key(values: &[String]) -> Vec<u8> {
    let mut key = Vec::with_capacity(values.iter().map(|v| v.len() + 1).sum());
    for value in values {
        for byte in value.bytes() {
            match byte {
                0 | 1 => key.extend([1, byte + 1]),
                _ => key.push(byte),
            }
        }
        key.push(0);
    }
    key
}

/// The keys of all partitions whose first values are `prefix`.
pub(super) fn range(prefix: &[String]) -> Range<Vec<u8>> {
    let start = key(prefix);
    let mut end = start.clone();
    match end.last_mut() {
        Some(last) => *last = 1,
        // No UTF-8 text has this byte.
        None => end.push(0xff),
    }
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_ordered_as_their_values(
            a in prop::collection::vec("[\0\u{1}\u{2}a-cé]{0,3}", 2),
            b in prop::collection::vec("[\0\u{1}\u{2}a-cé]{0,3}", 2),
        ) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn a_range_holds_those_that_begin_with_the_prefix(
            values in prop::collection::vec("[\0\u{1}ab]{0,2}", 2),
            prefix in prop::collection::vec("[\0\u{1}ab]{0,2}", 0..=2),
        ) {
            prop_assert_eq!(range(&prefix).contains(&key(&values)), values.starts_with(&prefix));
        }
    }
}
