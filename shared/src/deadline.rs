//! When the work at hand has to be done. Lambda ends a function at its time-out, so work that can stop early asks before it
//! begins something new; where nobody set a deadline there is none.

use std::future::Future;
use std::time::Duration;

use crate::clock::Clock;

tokio::task_local! {
    static AT_MS: i64;
}

/// What is kept free before the deadline, to end in good order: write a record, release a lease, answer.
pub const RESERVE: Duration = Duration::from_secs(15);

/// Does `work` under a deadline, milliseconds since the epoch. A task that the work spawns does not know of it.
pub async fn until<F: Future>(at_ms: i64, work: F) -> F::Output {
    AT_MS.scope(at_ms, work).await
}

/// The deadline of this task, milliseconds since the epoch.
pub fn current() -> Option<i64> {
    AT_MS.try_with(|at_ms| *at_ms).ok()
}

/// How long this task may go on beginning something new: [`RESERVE`], or a quarter of what is left if that is less, stays free.
/// None without a deadline.
pub fn working_time(clock: &dyn Clock) -> Option<Duration> {
    let left_ms = current()?.saturating_sub(clock.now_ms());
    let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
    Some(left - RESERVE.min(left / 4))
}

/// Whether too little time is left to begin something new.
pub fn is_near(clock: &dyn Clock) -> bool {
    let reserve = i64::try_from(RESERVE.as_millis()).unwrap_or(i64::MAX);
    current().is_some_and(|at_ms| at_ms.saturating_sub(clock.now_ms()) < reserve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn work_under_a_deadline_sees_it_come_near() {
        let clock = ManualClock::at(0);
        assert!(!is_near(&clock), "nobody set one");
        let work = async {
            let before = is_near(&clock);
            clock.advance(45_001);
            (before, is_near(&clock))
        };
        assert_eq!(until(60_000, work).await, (false, true));
        let time = async |at_ms| until(at_ms, async { working_time(&clock) }).await;
        assert_eq!(time(clock.now_ms() + 100_000).await, Some(Duration::from_secs(85)));
        assert_eq!(time(clock.now_ms() + 4_000).await, Some(Duration::from_secs(3)));
        assert_eq!(time(0).await, Some(Duration::ZERO));
        assert_eq!(current(), None);
    }
}
