//! Runs that nobody waits for: whoever ticks next does them, and later ticks what is left of them.
//!
//! ```text
//! {prefix}{run}    a run that waits or is not over; `queue/{run}` for those of workflows
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use shared::clock::Clock;
use shared::ports::Ports;
use shared::state::{Expect, State};
use shared::{Error, Result, deadline};

use crate::ledger::group_of;

/// The runs of one kind that wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    /// What the keys of their documents begin with.
    prefix: &'static str,
}

/// How far a run came when it was served.
#[derive(Debug)]
pub enum Served<T> {
    /// It has to wait for another one, or needs no more work.
    Passed,
    Done(T),
    /// Time was up: its rest comes before the next run of its group.
    Unfinished(T),
}

impl Queue {
    /// Those of workflows.
    pub fn of_workflows(ports: &Ports) -> Self {
        Self { state: ports.state.clone(), clock: ports.clock.clone(), prefix: "queue/" }
    }

    /// Puts a run at the end of its group.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn add(&self, run: &str) -> Result<()> {
        self.state.put(&self.key(run), "{}".into(), Expect::Anything).await.map(drop)
    }

    /// Takes a run off.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn remove(&self, run: &str) -> Result<()> {
        self.state.delete(&self.key(run), Expect::Anything).await
    }

    /// The runs that wait, those of one group in the order they came.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn waiting(&self, group: Option<&str>) -> Result<Vec<String>> {
        let prefix = self.key(&group.map(|name| format!("{name}-")).unwrap_or_default());
        let keys = self.state.list(&prefix).await?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(self.prefix)).map(str::to_owned).collect())
    }

    /// Does what waits: the runs of one group in the order they came until time is up, groups side by side. Gives what was served
    /// of them.
    ///
    /// # Errors
    /// The first failure, after all groups had their turn; it ends the turn of its own group.
    pub async fn serve<T, F>(&self, serve: impl Fn(String) -> F) -> Result<Vec<T>>
    where
        F: Future<Output = Result<Served<T>>>,
    {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in self.waiting(None).await? {
            groups.entry(group_of(&run).to_owned()).or_default().push(run);
        }
        let served = join_all(groups.into_values().map(|runs| self.serve_in_turn(runs, &serve))).await;
        let (mut all, mut failed) = (Vec::new(), None);
        for (done, error) in served {
            all.extend(done);
            failed = failed.or(error);
        }
        failed.map_or(Ok(all), Err)
    }

    async fn serve_in_turn<T, F>(&self, runs: Vec<String>, serve: &impl Fn(String) -> F) -> (Vec<T>, Option<Error>)
    where
        F: Future<Output = Result<Served<T>>>,
    {
        let mut done = Vec::new();
        for run in runs {
            if !done.is_empty() && deadline::is_near(self.clock.as_ref()) {
                break;
            }
            match serve(run.clone()).await {
                Ok(Served::Passed) => {}
                Ok(Served::Done(run)) => done.push(run),
                Ok(Served::Unfinished(run)) => {
                    done.push(run);
                    break;
                }
                Err(error) => {
                    tracing::error!(run, %error, "a queued run was not worked on");
                    return (done, Some(error));
                }
            }
        }
        (done, None)
    }

    fn key(&self, run: &str) -> String {
        format!("{}{run}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use shared::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn each_group_is_served_in_its_order_up_to_what_is_not_done() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let queue = Queue::of_workflows(&adapters_embedded::in_memory(clock).unwrap());
        for run in ["a-1", "a-2", "a-3", "b-1", "b-2", "c-1", "c-2"] {
            queue.add(run).await.unwrap();
        }
        queue.remove("c-2").await.unwrap();
        let asked = Mutex::new(Vec::new());
        let serve = async |run: String| {
            asked.lock().unwrap().push(run.clone());
            match run.as_str() {
                "a-1" => Ok(Served::Passed),
                "a-2" => Ok(Served::Unfinished(2)),
                "b-1" => Err(Error::retry("not now")),
                _ => Ok(Served::Done(1)),
            }
        };
        assert!(queue.serve(serve).await.unwrap_err().message().contains("not now"));
        assert_eq!(*asked.lock().unwrap(), ["a-1", "a-2", "b-1", "c-1"]);
        queue.remove("b-1").await.unwrap();
        assert_eq!(queue.serve(serve).await.unwrap(), [2, 1, 1]);
        assert_eq!(queue.waiting(Some("a")).await.unwrap(), ["a-1", "a-2", "a-3"]);
    }
}
