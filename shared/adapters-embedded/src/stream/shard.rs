//! Which shard a record goes to: the MD5 of its partition key, as a 128-bit number, lies in the shard's range. Kinesis cuts
//! the numbers into ranges of one width, `floor(2^128 / shards)`; the last one takes the remainder.

use md5::{Digest, Md5};

use shared::model::ShardId;

/// The number of the shard that takes records with this partition key.
pub(super) fn shard_of(partition_key: &str, shards: u32) -> u32 {
    if shards <= 1 {
        return 0;
    }
    let hash = u128::from_be_bytes(Md5::digest(partition_key).into());
    let number = hash / width(shards);
    u32::try_from(number).unwrap_or(u32::MAX).min(shards - 1)
}

/// `floor(2^128 / shards)` for two or more shards, without leaving 128 bits.
fn width(shards: u32) -> u128 {
    let shards = u128::from(shards);
    u128::MAX / shards + u128::from(u128::MAX % shards == shards - 1)
}

/// The id of the shard with this number.
pub(super) fn shard_id(number: u32) -> ShardId {
    ShardId(format!("shardId-{number:012}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_kinesis() {
        assert_eq!(width(2), 170_141_183_460_469_231_731_687_303_715_884_105_728);
        assert_eq!(width(3), 113_427_455_640_312_821_154_458_202_477_256_070_485);
        assert_eq!(width(4), 85_070_591_730_234_615_865_843_651_857_942_052_864);
    }

    #[test]
    fn a_key_goes_where_its_md5_lies() {
        // md5("a") = 0cc1…, md5("b") = 92eb…, md5("c") = 4a8a…, md5("e") = e167…
        assert_eq!(["a", "b", "c", "e"].map(|key| shard_of(key, 4)), [0, 2, 1, 3]);
        assert_eq!(shard_of("b", 1), 0);
    }

    #[test]
    fn keys_spread_evenly() {
        for shards in [1, 2, 3, 7, 64] {
            let mut counts = vec![0_u32; shards as usize];
            for key in 0..shards * 1_000 {
                counts[shard_of(&key.to_string(), shards) as usize] += 1;
            }
            assert!(counts.iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
        }
    }

    #[test]
    fn a_shard_is_named_as_kinesis_names_it() {
        assert_eq!(shard_id(17).0, "shardId-000000000017");
    }
}
