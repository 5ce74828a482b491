//! `GET /status/crawl`: what is wrong with the locations, their last crawls, and what is due.

use std::collections::BTreeMap;

use format::FileFault;
use jobs::failures;
use jobs::schedule::{self, Kind};
use serde::Serialize;
use shared::Result;
use shared::api::status::{PartStatus, Problem, counted, joined};

use crate::marks::Marks;
use crate::{Crawl, marks, report};

/// Files that a problem names.
const NAMED: usize = 3;

/// A location, and what its crawls saw.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LocationStatus<'a> {
    name: &'a str,
    /// Objects that crawls have seen.
    objects: usize,
    /// Those of them that belong to no table, though they hold something.
    skipped: usize,
}

impl Crawl {
    /// How all locations are.
    ///
    /// # Errors
    /// What the state answers.
    pub(crate) async fn status(&self) -> Result<PartStatus> {
        let (mut part, mut locations) = (PartStatus::default(), Vec::new());
        let reports = report::last(self.ports.state.as_ref()).await?;
        let crawled_ms: BTreeMap<&str, i64> = reports.iter().map(|r| (r.location.as_str(), r.started_ms)).collect();
        for name in self.project.file().locations.keys() {
            let failing = failures::load(&self.ports, "crawl", name).await?;
            part.problems.extend(failing.map(|failing| failing.problem("location", name, "its crawl")));
            let marks = marks::load(self.ports.state.as_ref(), name).await?;
            let skipped = skipped(&marks);
            let problem = problem(name, &skipped);
            part.problems.extend(problem.map(|problem| match crawled_ms.get(name.as_str()) {
                Some(at_ms) => problem.since(*at_ms),
                None => problem,
            }));
            locations.push(LocationStatus { name, objects: marks.objects.len(), skipped: skipped.len() });
        }
        part.list("locations", &locations)?;
        part.list("crawls", &reports)?;
        Ok(joined([part, schedule::status(&self.ports, &self.project, Kind::Crawl).await?]))
    }
}

/// The files that belong to no table, and why. One without content is not missed.
fn skipped(marks: &Marks) -> Vec<(&str, &FileFault)> {
    let fault = |mark: &crate::marks::Mark| match &mark.fault {
        Some(FileFault::Empty | FileFault::Vanished) | None => false,
        Some(_) => true,
    };
    let skipped = marks.objects.iter().filter(|(_, mark)| fault(mark));
    skipped.filter_map(|(path, mark)| Some((path.as_str(), mark.fault.as_ref()?))).collect()
}

fn problem(location: &str, skipped: &[(&str, &FileFault)]) -> Option<Problem> {
    let told: Vec<_> = skipped.iter().take(NAMED).map(|(path, fault)| format!("`{path}`: {fault}")).collect();
    let rest = skipped.len() - told.len();
    let more = if rest > 0 { format!("; and {rest} more") } else { String::new() };
    let message = format!("{} without a table: {}{more}", counted(skipped.len() as u64, "file"), told.join("; "));
    (!skipped.is_empty()).then(|| {
        Problem::warning("location", location, message)
            .advise("mend them, move them away, or `exclude` them in the lakehouse file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::Mark;

    #[test]
    fn files_without_a_table_are_named_but_not_all_of_them() {
        let mark = |fault: FileFault| Mark { mark: "m".into(), table: None, fault: Some(fault) };
        let odd = |_| mark(FileFault::Misfit { found: "odd".into() });
        let mut marks = Marks { objects: (0..5).map(|at| (format!("{at}.csv"), odd(at))).collect() };
        marks.objects.insert("empty.csv".into(), mark(FileFault::Empty));
        let problem = problem("w", &skipped(&marks)).unwrap();
        assert!(problem.message.starts_with("5 files without a table: `0.csv`: "), "{}", problem.message);
        assert!(
            problem.message.contains("`2.csv`") && problem.message.ends_with("; and 2 more"),
            "{}",
            problem.message
        );
        assert_eq!(super::problem("w", &[]), None);
    }
}
