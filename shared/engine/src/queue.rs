//! Who queries next: a bounded number at once, callers in turn, and each caller's queries in their order.
//!
//! A caller that asks for much waits behind its own queries, not before those of others. Queries that have run for long don't keep
//! short ones out: for each of them one more may run, up to a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use shared::{Error, Result};

/// Queries that wait at most.
const WAITING: usize = 512;
/// After how long a query makes room for another.
const LONG: Duration = Duration::from_secs(2);
/// How often one that waits looks for such room.
const LOOK: Duration = Duration::from_millis(100);
/// Queries for which room is made, for each place.
const MORE: usize = 3;

/// The queries that run and wait.
#[derive(Debug)]
pub(super) struct Queue {
    places: usize,
    long: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that run, by number, with their begin.
    running: HashMap<u64, Instant>,
    /// The number of the next.
    next: u64,
    waiting: usize,
    /// The callers that wait, the next one first.
    lines: VecDeque<Line>,
}

/// Queries of one caller.
#[derive(Debug)]
struct Line {
    caller: String,
    queries: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to run, given on when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    /// None for one that nobody took.
    queue: Option<Arc<Queue>>,
    number: u64,
}

impl Queue {
    /// Lets `places` run at once.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places: places.max(1), long: LONG, state: Mutex::default() })
    }

    /// Queries that run at once at most, with those for which room is made.
    pub(super) fn most(&self) -> usize {
        self.places * (1 + MORE)
    }

    /// Waits for the turn of a query of `caller`.
    ///
    /// # Errors
    /// `Retry` when too many wait.
    pub(super) async fn permit(self: &Arc<Self>, caller: &str) -> Result<Permit> {
        let mut permit = self.join(caller)?;
        loop {
            self.admit();
            match tokio::time::timeout(LOOK, &mut permit).await {
                Ok(next) => return next.map_err(|e| Error::bug("the queue of queries is gone").with_source(e)),
                Err(_) => continue,
            }
        }
    }

    /// Lines up.
    fn join(&self, caller: &str) -> Result<oneshot::Receiver<Permit>> {
        let mut state = self.state();
        if state.waiting >= WAITING {
            state.forget_who_left();
        }
        if state.waiting >= WAITING {
            return Err(Error::retry(format!("{WAITING} queries wait for their turn: send this one again later")));
        }
        state.waiting += 1;
        let (sender, permit) = oneshot::channel();
        match state.lines.iter_mut().find(|line| line.caller == caller) {
            Some(line) => line.queries.push_back(sender),
            None => state.lines.push_back(Line { caller: caller.to_owned(), queries: VecDeque::from([sender]) }),
        }
        Ok(permit)
    }

    /// Gives the room that there is to those who wait.
    fn admit(self: &Arc<Self>) {
        loop {
            let (next, number) = {
                let mut state = self.state();
                if !self.has_room(&state) {
                    return;
                }
                let Some(next) = state.next_in_line() else { return };
                state.next += 1;
                let number = state.next;
                state.running.insert(number, Instant::now());
                (next, number)
            };
            if let Err(mut unwanted) = next.send(Permit { queue: Some(Arc::clone(self)), number }) {
                unwanted.queue = None;
                self.state().running.remove(&number);
            }
        }
    }

    fn has_room(&self, state: &State) -> bool {
        let long = state.running.values().filter(|began| began.elapsed() >= self.long).count();
        state.running.len() < self.places + long.min(self.places * MORE)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes those out of the lines who wait no more.
    fn forget_who_left(&mut self) {
        for line in &mut self.lines {
            line.queries.retain(|query| !query.is_closed());
        }
        self.lines.retain(|line| !line.queries.is_empty());
        self.waiting = self.lines.iter().map(|line| line.queries.len()).sum();
    }

    /// The next query of the next caller, who then goes to the end.
    fn next_in_line(&mut self) -> Option<oneshot::Sender<Permit>> {
        while let Some(mut line) = self.lines.pop_front() {
            let Some(next) = line.queries.pop_front() else { continue };
            if !line.queries.is_empty() {
                self.lines.push_back(line);
            }
            self.waiting -= 1;
            return Some(next);
        }
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.state().running.remove(&self.number);
            queue.admit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ErrorKind;

    #[tokio::test]
    async fn callers_take_turns_and_keep_the_order_of_their_own() {
        let queue = Queue::new(1);
        let mut running = Some(queue.permit("a").await.unwrap());
        let mut waiting: Vec<_> =
            ["a1", "a2", "a3", "b1", "c1"].map(|name| (name, queue.join(&name[..1]).unwrap())).into_iter().collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(running.take());
            let at = waiting.iter_mut().position(|(_, permit)| {
                running = permit.try_recv().ok();
                running.is_some()
            });
            order.push(waiting.remove(at.expect("somebody has the place")).0);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);
    }

    #[tokio::test]
    async fn a_query_that_no_longer_waits_is_passed_over() {
        let queue = Queue::new(1);
        let running = queue.permit("a").await.unwrap();
        let (gone, mut stays) = (queue.join("a").unwrap(), queue.join("a").unwrap());
        drop(gone);
        drop(running);
        drop(stays.try_recv().unwrap());
        assert!(queue.state().running.is_empty() && queue.state().waiting == 0, "the place is free again");
    }

    #[tokio::test]
    async fn long_queries_make_room_for_others_up_to_a_bound() {
        let queue = Arc::new(Queue { places: 1, long: Duration::ZERO, state: Mutex::default() });
        let mut running = Vec::new();
        for _ in 0..queue.most() {
            running.push(queue.permit("a").await.unwrap());
        }
        assert!(tokio::time::timeout(3 * LOOK, queue.permit("a")).await.is_err());
        let short = Queue::new(1);
        let _running = short.permit("a").await.unwrap();
        assert!(tokio::time::timeout(3 * LOOK, short.permit("a")).await.is_err());
    }

    #[tokio::test]
    async fn too_many_are_told_to_come_back() {
        let queue = Queue::new(1);
        let _running = queue.permit("a").await.unwrap();
        let _waiting: Vec<_> = (0..WAITING).map(|_| queue.join("a").unwrap()).collect();
        assert_eq!(queue.permit("b").await.unwrap_err().kind(), ErrorKind::Retry);
    }
}
