//! `GET /workflows/{name}/quarantine`: the rows that quality rules set aside.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{Error, ErrorKind, Result};

use crate::Transform;

/// Bytes of lines that an answer shows at most, besides the first: Lambda answers 6 MB.
const MOST_BYTES: usize = 3 << 20;

/// A row as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// URL of the object that it is in.
    object: String,
    job: String,
    #[serde(flatten)]
    line: Line,
}

/// A line of the quarantine.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    run: String,
    /// Those that the row breaks.
    rules: Vec<String>,
    row: Value,
}

impl Transform {
    /// At most `limit` rows, those of the newest runs first.
    ///
    /// # Errors
    /// `NotFound` for an unknown workflow or job; what the storage answers.
    pub(crate) async fn quarantined(&self, workflow: &str, job: Option<&str>, limit: usize) -> Result<Vec<Row>> {
        let (project, ports) = (&self.context.project, &self.context.ports);
        let declared = project.workflow(workflow)?;
        let folder = match job {
            None => ports.keys.quarantines(workflow),
            Some(job) if declared.jobs.contains_key(job) => ports.keys.quarantines_of_job(workflow, job),
            Some(job) => {
                let known: Vec<_> = declared.jobs.keys().map(|name| format!("`{name}`")).collect();
                return Err(Error::not_found(format!("no job `{job}`: expected one of {}", known.join(", "))));
            }
        };
        let mut objects = ports.storage.list(&folder).await?;
        objects.sort_by_key(|object| std::cmp::Reverse(object.modified_ms));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for object in objects {
            let text = match ports.storage.get(&object.url).await {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let job = object.url.path_segments().and_then(|mut parts| parts.nth_back(1)).unwrap_or_default();
            for line in text.split(|byte| *byte == b'\n') {
                bytes += line.len();
                if rows.len() == limit || (bytes > MOST_BYTES && !rows.is_empty()) {
                    return Ok(rows);
                }
                // A line that another program wrote has no row to show.
                let Ok(line) = serde_json::from_slice(line) else { continue };
                rows.push(Row { object: object.url.to_string(), job: job.to_owned(), line });
            }
        }
        Ok(rows)
    }
}
