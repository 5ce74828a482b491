//! The order of a workflow's jobs: which must succeed before which, what may start now, what a failure blocks.
//!
//! What a job waits for is told by the lakehouse file ([`shared::project::job_needs`]). Pure.

use std::collections::{BTreeMap, BTreeSet};

use jobs::Status;

/// For each job, the jobs that must succeed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Plan {
    /// The plan of jobs that wait for each other in no circle: a validated lakehouse file has none.
    pub fn new(needs: BTreeMap<String, BTreeSet<String>>) -> Self {
        Self { needs }
    }

    /// The same for some jobs alone, which wait for none of the others.
    #[must_use]
    pub fn only(self, jobs: &BTreeSet<String>) -> Self {
        let kept = self.needs.into_iter().filter(|(job, _)| jobs.contains(job));
        Self { needs: kept.map(|(job, needs)| (job, needs.intersection(jobs).cloned().collect())).collect() }
    }

    /// The jobs that must succeed before `job`.
    pub fn needs(&self, job: &str) -> impl Iterator<Item = &str> {
        self.needs.get(job).into_iter().flatten().map(String::as_str)
    }

    /// Pending jobs that may start now, in order of name.
    pub fn ready(&self, status: &BTreeMap<String, Status>) -> Vec<String> {
        let is = |job: &str, wanted: Status| status.get(job) == Some(&wanted);
        self.needs
            .iter()
            .filter(|(job, needs)| is(job, Status::Pending) && needs.iter().all(|need| is(need, Status::Succeeded)))
            .map(|(job, _)| job.clone())
            .collect()
    }

    /// Pending jobs that can't start any more, each with the job that stopped it: the failed, cancelled or skipped one that it
    /// needs, directly or through others.
    pub fn blocked(&self, status: &BTreeMap<String, Status>) -> BTreeMap<String, String> {
        let mut blocked: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let next = self.needs.iter().find_map(|(job, needs)| {
                let waits = status.get(job) == Some(&Status::Pending) && !blocked.contains_key(job);
                let by = needs.iter().find(|need| {
                    blocked.contains_key(*need)
                        || status.get(*need).is_some_and(|s| s.is_over() && *s != Status::Succeeded)
                });
                by.filter(|_| waits).map(|by| (job.clone(), by.clone()))
            });
            let Some((job, by)) = next else { return blocked };
            blocked.insert(job, by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(needs: &[(&str, &[&str])]) -> Plan {
        let set = |jobs: &[&str]| jobs.iter().map(|job| (*job).to_owned()).collect();
        Plan::new(needs.iter().map(|(job, needs)| ((*job).to_owned(), set(needs))).collect())
    }

    fn status(all: &[(&str, Status)]) -> BTreeMap<String, Status> {
        all.iter().map(|(job, status)| ((*job).to_owned(), *status)).collect()
    }

    #[test]
    fn a_job_starts_when_all_that_it_needs_succeeded() {
        let plan = plan(&[("clean", &[]), ("daily", &["clean"]), ("mail", &["daily"])]);
        let mut now = status(&[("clean", Status::Pending), ("daily", Status::Pending), ("mail", Status::Pending)]);
        assert_eq!(plan.ready(&now), ["clean"]);
        now.insert("clean".into(), Status::Succeeded);
        assert_eq!(plan.ready(&now), ["daily"]);
        now.insert("daily".into(), Status::Running);
        assert_eq!(plan.ready(&now), Vec::<String>::new());
        now.insert("daily".into(), Status::Succeeded);
        assert_eq!(plan.ready(&now), ["mail"]);
    }

    #[test]
    fn a_failure_blocks_what_depends_on_it_and_nothing_else() {
        let plan = plan(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &[])]);
        let now =
            status(&[("a", Status::Failed), ("b", Status::Pending), ("c", Status::Pending), ("d", Status::Pending)]);
        assert_eq!(plan.blocked(&now), BTreeMap::from([("b".into(), "a".into()), ("c".into(), "b".into())]));
        assert_eq!(plan.ready(&now), ["d"]);
    }
}
