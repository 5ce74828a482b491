//! Chance as a value that is passed in: names that nobody else has, and pauses of random length.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Builder, Uuid};

/// Gives random numbers. Programs get [`SystemRandom`]; tests and simulations get [`SeededRandom`].
pub trait Random: Debug + Send + Sync {
    /// 128 bits that nothing told before.
    fn bits(&self) -> u128;

    /// A name that nobody else has (version 4).
    fn uuid(&self) -> Uuid {
        Builder::from_random_bytes(self.bits().to_be_bytes()).into_uuid()
    }

    /// A name that nobody else has and that sorts by the time `now_ms`, milliseconds since the epoch (version 7).
    fn uuid_at(&self, now_ms: i64) -> Uuid {
        let [random @ .., _, _, _, _, _, _] = self.bits().to_be_bytes();
        Builder::from_unix_timestamp_millis(u64::try_from(now_ms).unwrap_or(0), &random).into_uuid()
    }

    /// From 0 to 1.
    fn share(&self) -> f64 {
        f64::from((self.bits() >> 96) as u32) / f64::from(u32::MAX)
    }
}

/// The system's source, as good for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

// The one place that asks the system.
#[allow(clippy::disallowed_methods)]
impl Random for SystemRandom {
    fn bits(&self) -> u128 {
        // A few bits of each say its version: they are laid over others of the second.
        Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64)
    }
}

/// SplitMix64's step (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// What SplitMix64 gives after the state `x`: the same for the same, spread over all bits.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GAMMA);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The same numbers for the same seed: SplitMix64.
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// 64 bits.
    pub fn next(&self) -> u64 {
        mix(self.0.fetch_add(GAMMA, Ordering::Relaxed))
    }
}

impl Random for SeededRandom {
    fn bits(&self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_are_of_their_version() {
        for random in [&SystemRandom as &dyn Random, &SeededRandom::new(7)] {
            let names: BTreeSet<Uuid> = (0..1_000).map(|_| random.uuid()).collect();
            assert_eq!(names.len(), 1_000);
            assert!(names.iter().all(|name| name.get_version_num() == 4));
            let at: Vec<Uuid> = (1..100).map(|ms| random.uuid_at(ms << 10)).collect();
            assert!(at.is_sorted() && at.iter().all(|name| name.get_version_num() == 7));
        }
    }

    #[test]
    fn shares_are_spread_and_a_seed_gives_the_same_again() {
        let shares = |seed| {
            let random = SeededRandom::new(seed);
            (0..1_000).map(|_| random.share()).collect::<Vec<_>>()
        };
        let mean = shares(1).iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean) && shares(1).iter().all(|share| (0.0..=1.0).contains(share)), "{mean}");
        assert_eq!(shares(1), shares(1));
        assert_ne!(shares(1), shares(2));
    }
}
