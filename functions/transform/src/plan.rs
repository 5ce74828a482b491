//! The order of a workflow's jobs: which must succeed before which, what may start now, what a failure blocks.
//!
//! A job waits for the jobs it names in `after`, and for every job that writes a table which its SQL reads. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::model::TableName;
use shared::{Error, Result};

use crate::record::Status;

/// What the plan must know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub writes: TableName,
    pub reads: BTreeSet<TableName>,
    /// Jobs that the user named.
    pub after: BTreeSet<String>,
}

/// For each job, the jobs that must succeed first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Plan {
    /// A job that the user placed before the writer of what it reads (it wants the rows of the run before) stays there: what
    /// is declared wins over what is inferred.
    ///
    /// # Errors
    /// `Invalid` when `after` names a job that is not there, or when jobs wait for each other in a circle.
    pub fn new(nodes: &BTreeMap<String, Node>) -> Result<Self> {
        let mut needs = BTreeMap::new();
        for (name, node) in nodes {
            if let Some(unknown) = node.after.iter().find(|job| !nodes.contains_key(*job)) {
                return Err(Error::invalid(format!(
                    "job `{name}`: expected a job of this workflow in `after`, found `{unknown}`"
                )));
            }
            needs.insert(name.clone(), node.after.clone());
        }
        let declared = Self { needs: needs.clone() };
        for (name, node) in nodes {
            let writers = nodes.iter().filter(|(other, of)| *other != name && node.reads.contains(&of.writes));
            let inferred = writers.map(|(other, _)| other).filter(|other| !declared.waits_for(other, name));
            needs.entry(name.clone()).or_default().extend(inferred.cloned());
        }
        let plan = Self { needs };
        match plan.circle() {
            Some(circle) => {
                Err(Error::invalid(format!("jobs wait for each other in a circle: {}", circle.join(" → "))))
            }
            None => Ok(plan),
        }
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

    /// Whether `job` waits for `other`, directly or through others.
    fn waits_for(&self, job: &str, other: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = self.needs(job).collect();
        while let Some(next) = open.pop() {
            if next == other {
                return true;
            }
            if seen.insert(next) {
                open.extend(self.needs(next));
            }
        }
        false
    }

    /// Some jobs that wait for each other: the first one comes again at the end.
    fn circle(&self) -> Option<Vec<String>> {
        let start = self.needs.keys().find(|job| self.waits_for(job, job))?;
        let mut path = vec![format!("`{start}`")];
        let mut at = start.as_str();
        loop {
            let next = self.needs(at).find(|need| *need == start).or_else(|| {
                self.needs(at).find(|need| self.waits_for(need, start) && !path.contains(&format!("`{need}`")))
            })?;
            path.push(format!("`{next}`"));
            if next == start {
                return Some(path);
            }
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(writes: &str, reads: &[&str], after: &[&str]) -> Node {
        let table = |name: &str| TableName::new("nyc", name).unwrap();
        Node {
            writes: table(writes),
            reads: reads.iter().map(|r| table(r)).collect(),
            after: after.iter().map(|a| (*a).to_owned()).collect(),
        }
    }

    fn plan(nodes: &[(&str, Node)]) -> Result<Plan> {
        Plan::new(&nodes.iter().map(|(name, node)| ((*name).to_owned(), node.clone())).collect())
    }

    fn status(all: &[(&str, Status)]) -> BTreeMap<String, Status> {
        all.iter().map(|(job, status)| ((*job).to_owned(), *status)).collect()
    }

    #[test]
    fn a_job_waits_for_the_writer_of_what_it_reads_and_for_what_it_names() {
        let plan = plan(&[
            ("clean", node("flights", &["raw"], &[])),
            ("daily", node("delays", &["flights", "planes"], &[])),
            ("mail", node("report", &[], &["daily"])),
        ])
        .unwrap();
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
        let plan = plan(&[
            ("a", node("ta", &[], &[])),
            ("b", node("tb", &["ta"], &[])),
            ("c", node("tc", &["tb"], &[])),
            ("d", node("td", &[], &[])),
        ])
        .unwrap();
        let now =
            status(&[("a", Status::Failed), ("b", Status::Pending), ("c", Status::Pending), ("d", Status::Pending)]);
        assert_eq!(plan.blocked(&now), BTreeMap::from([("b".into(), "a".into()), ("c".into(), "b".into())]));
        assert_eq!(plan.ready(&now), ["d"]);
    }

    #[test]
    fn jobs_that_wait_for_each_other_are_refused_with_the_circle() {
        let error =
            plan(&[("a", node("ta", &["tc"], &[])), ("b", node("tb", &["ta"], &[])), ("c", node("tc", &["tb"], &[]))])
                .unwrap_err();
        assert_eq!(error.to_string(), "jobs wait for each other in a circle: `a` → `c` → `b` → `a`");
        let error = plan(&[("a", node("ta", &[], &["a"]))]).unwrap_err();
        assert_eq!(error.to_string(), "jobs wait for each other in a circle: `a` → `a`");
    }

    #[test]
    fn a_declared_order_wins_over_an_inferred_one() {
        let plan =
            plan(&[("rate", node("rates", &["prices"], &[])), ("load", node("prices", &[], &["rate"]))]).unwrap();
        let now = status(&[("rate", Status::Pending), ("load", Status::Pending)]);
        assert_eq!(plan.ready(&now), ["rate"]);
    }

    #[test]
    fn a_job_may_read_the_table_that_it_writes() {
        let plan = plan(&[("a", node("ta", &["ta"], &[]))]).unwrap();
        assert_eq!(plan.ready(&status(&[("a", Status::Pending)])), ["a"]);
    }

    #[test]
    fn an_unknown_job_in_after_is_refused_with_its_name() {
        let error = plan(&[("a", node("ta", &[], &["b"]))]).unwrap_err();
        assert!(error.to_string().contains("found `b`"), "{error}");
    }
}
