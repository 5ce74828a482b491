//! Pauses between two tries, random, so that those who met once don't meet again.

use std::time::Duration;

use crate::random::Random;

/// Tries to change what others change at the same time.
pub const TRIES: u32 = 20;
/// The pause after the first of them, at most, and the longest one.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Lets those go on that came first, after so many tries.
pub async fn give_way(random: &dyn Random, tries: u32) {
    tokio::time::sleep(after(random, tries, FIRST, LONGEST)).await;
}

/// Any part of `first`, which doubles with each of the `tries` that were made, up to `longest`.
pub fn after(random: &dyn Random, tries: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << tries.min(16)).min(longest).mul_f64(random.share())
}

/// From half to all of `wait`.
pub fn most_of(random: &dyn Random, wait: Duration) -> Duration {
    wait.mul_f64(0.5 + random.share() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn pauses_differ_and_double_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        let most = |tries| (0..200).map(|_| after(&SystemRandom, tries, first, longest)).max().unwrap();
        assert!(most(0) <= first);
        assert!((first..=first * 4).contains(&most(2)), "{:?}", most(2));
        assert!((first * 4..=longest).contains(&most(99)), "{:?}", most(99));
        assert!((0..200).all(|_| (longest / 2..=longest).contains(&most_of(&SystemRandom, longest))));
    }
}
