//! The rows that quality rules set aside: shown (`GET /workflows/{name}/quarantine`), written after all (`POST …/quarantine/replay`)
//! once they keep the rules, or given up (`POST …/quarantine/discard`).

mod judge;
pub(crate) mod line;
mod replay;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::ports::Ports;
use shared::storage::ObjectInfo;
use shared::{Error, ErrorKind, Result};
use table::replay::Replays;

use self::line::{Filter, Line};
use crate::Transform;

pub(crate) use self::replay::Wanted;

/// Bytes of lines that an answer shows at most, besides the first: Lambda answers 6 MB.
const MOST_BYTES: usize = 3 << 20;

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    workflow: String,
    quarantine: Vec<Row>,
}

/// A row as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    /// URL of the object that it is in.
    object: String,
    job: String,
    run: String,
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    row: Box<RawValue>,
}

/// What a job's rules set aside.
pub(crate) fn of_job(ports: &Ports, workflow: &str, job: &str) -> Replays {
    Replays::new(ports, ports.keys.quarantines_of_job(workflow, job), format!("quarantine/{workflow}/{job}"))
}

/// The name of a run's object.
pub(crate) fn object_of(run: &str) -> String {
    format!("{run}.ndjson")
}

impl Transform {
    /// At most `limit` rows, those of the newest runs first.
    ///
    /// # Errors
    /// `NotFound` for an unknown workflow or job; what the storage answers.
    pub(crate) async fn quarantined(
        &self,
        workflow: &str,
        job: Option<&str>,
        filter: &Filter,
        limit: usize,
    ) -> Result<Shown> {
        let jobs = match job {
            Some(job) => vec![self.known_job(workflow, job).await?],
            None => self.jobs_with_quarantine(workflow).await?,
        };
        let mut objects = Vec::new();
        for job in jobs {
            let waiting = of_job(&self.context.ports, workflow, &job).waiting().await?;
            objects.extend(waiting.into_iter().map(|object| (job.clone(), object)));
        }
        objects.sort_by_key(|(_, object)| std::cmp::Reverse(object.modified_ms));
        let (mut shown, mut bytes) = (Shown { workflow: workflow.into(), quarantine: Vec::new() }, 0);
        for (job, object) in objects {
            let Some(text) = self.text(&object).await? else { continue };
            for line in text.split(|byte| *byte == b'\n') {
                // A line that another program wrote has no row to show.
                let Some(own) = Line::parse(line).filter(|line| filter.takes(line)) else { continue };
                bytes += line.len();
                if shown.quarantine.len() == limit || (bytes > MOST_BYTES && !shown.quarantine.is_empty()) {
                    return Ok(shown);
                }
                let Line { run, rules, reason, row, .. } = own;
                shown.quarantine.push(Row {
                    object: object.url.to_string(),
                    job: job.clone(),
                    run,
                    rules,
                    reason,
                    row,
                });
            }
        }
        Ok(shown)
    }

    /// The objects of all jobs of a workflow that wait, also of those that it has no more.
    ///
    /// # Errors
    /// What storage and state answer.
    pub(crate) async fn all_quarantined(&self, workflow: &str) -> Result<Vec<ObjectInfo>> {
        let mut objects = Vec::new();
        for job in self.jobs_with_quarantine(workflow).await? {
            objects.extend(of_job(&self.context.ports, workflow, &job).waiting().await?);
        }
        Ok(objects)
    }

    /// The jobs of a workflow that have something in quarantine, also those that it has no more.
    async fn jobs_with_quarantine(&self, workflow: &str) -> Result<Vec<String>> {
        let ports = &self.context.ports;
        self.context.project.workflow(workflow)?;
        let folder = ports.keys.quarantines(workflow);
        let mut jobs: Vec<String> = Vec::new();
        for object in ports.storage.list(&folder).await? {
            let below = object.url.as_str().strip_prefix(folder.as_str()).unwrap_or_default();
            if let Some((job, _)) = below.split_once('/')
                && !jobs.iter().any(|known| known == job)
            {
                jobs.push(job.to_owned());
            }
        }
        Ok(jobs)
    }

    /// A job that is declared or has something in quarantine.
    async fn known_job(&self, workflow: &str, job: &str) -> Result<String> {
        let declared = &self.context.project.workflow(workflow)?.jobs;
        if declared.contains_key(job) || self.jobs_with_quarantine(workflow).await?.iter().any(|known| known == job) {
            return Ok(job.to_owned());
        }
        let known: Vec<_> = declared.keys().map(|name| format!("`{name}`")).collect();
        Err(Error::not_found(format!("no job `{job}`: expected one of {}", known.join(", "))))
    }

    /// `None` when the object went since it was listed.
    async fn text(&self, object: &ObjectInfo) -> Result<Option<Bytes>> {
        match self.context.ports.storage.get(&object.url).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
