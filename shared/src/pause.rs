//! Pauses between two tries, random, so that those who met once don't meet again.

use std::time::Duration;

/// Tries to change what others change at the same time.
pub const TRIES: u32 = 20;
/// The pause after the first of them, at most, and the longest one.
const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Lets those go on that came first, after so many tries.
pub async fn give_way(tries: u32) {
    tokio::time::sleep(after(tries, FIRST, LONGEST)).await;
}

/// Any part of `first`, which doubles with each of the `tries` that were made, up to `longest`.
pub fn after(tries: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << tries.min(16)).min(longest).mul_f64(share())
}

/// From half to all of `wait`.
pub fn most_of(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + share() / 2.0)
}

/// At random from 0 to 1.
fn share() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0
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
        assert!((0..200).all(|_| (longest / 2..=longest).contains(&most_of(longest))));
    }
}
