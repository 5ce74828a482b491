//! Rows that quality rules set aside: one NDJSON object a job and run, `{"form": 2, "run": …, "rules": ["name", …], "row": {…}}` a line;
//! the row in the form of [`super::form`].
//!
//! The object's name holds the run and the job, so another try of the same run writes the same object again.

use object_store::buffered::BufWriter;
use shared::error::Context;
use shared::storage::Storage;
use shared::{Error, Result};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::form::FORM;

/// A row that is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Names of the rules that the row breaks.
    pub rules: Vec<String>,
    /// The row as a JSON object.
    pub row: String,
}

/// Writes the rows that are set aside; without any, there is no object.
#[derive(Debug)]
pub struct Quarantine {
    storage: Storage,
    url: Url,
    run: String,
    writer: Option<BufWriter>,
}

impl Quarantine {
    pub fn new(storage: Storage, url: Url, run: impl Into<String>) -> Self {
        Self { storage, url, run: run.into(), writer: None }
    }

    /// Adds rows.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn write(&mut self, rows: &[Aside]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for aside in rows {
            let (run, rules) = (json(&self.run)?, json(&aside.rules)?);
            lines.push_str(&format!("{{\"form\":{FORM},\"run\":{run},\"rules\":{rules},\"row\":{}}}\n", aside.row));
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.storage.writer(&self.url)?),
        };
        writer.write_all(lines.as_bytes()).await.context(|| format!("writing `{}`", self.url))
    }

    /// Stores what was written; the rows are durable when it returns.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn finish(self) -> Result<()> {
        let Some(mut writer) = self.writer else { return Ok(()) };
        writer.shutdown().await.context(|| format!("writing `{}`", self.url))
    }

    /// Stores nothing.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn abort(self) -> Result<()> {
        let Some(mut writer) = self.writer else { return Ok(()) };
        writer.abort().await.context(|| format!("dropping `{}`", self.url))
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::bug("text has no JSON form").with_source(e))
}
