//! Pauses between two tries, random, so that those who met once don't meet again.

use std::time::Duration;

/// Any part of `longest`.
pub fn some_of(longest: Duration) -> Duration {
    let share = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 256.0;
    longest.mul_f64(share)
}

/// Any part of `first`, which doubles with each of the `tries` that were made, up to `longest`.
pub fn after(tries: u32, first: Duration, longest: Duration) -> Duration {
    some_of(first.saturating_mul(1 << tries.min(16)).min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        let most = |tries| (0..200).map(|_| after(tries, first, longest)).max().unwrap();
        assert!(most(0) <= first);
        assert!((first..=first * 4).contains(&most(2)), "{:?}", most(2));
        assert!((first * 4..=longest).contains(&most(99)), "{:?}", most(99));
    }
}
