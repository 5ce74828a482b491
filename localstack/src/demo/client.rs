//! What the demo does over HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use shared::{Error, Result};

use super::data::RawFile;
use crate::cli::caller::{Caller, Remote, request};
use crate::cli::delivery::{self, Delivery};
use crate::cli::output::Rows;
use crate::cli::sql::rows_of;

/// How long the demo waits for something that the runtime does by itself.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// A client of the runtime.
pub(super) struct Client {
    caller: Caller,
    flights: Delivery,
}

/// What the answer to a put of records says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub stored: u64,
    pub rejected: u64,
}

impl Client {
    pub(super) fn new(url: &str) -> Result<Self> {
        Ok(Self { caller: Caller::Remote(Remote::new(url)?), flights: Delivery::new(None) })
    }

    pub(super) async fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.caller.json(method, path, body).await
    }

    /// The rows of a query.
    pub(super) async fn sql(&self, sql: &str) -> Result<Rows> {
        Ok(rows_of(&self.json("POST", "/query", Some(&json!({"sql": sql}))).await?))
    }

    /// The one number that a query gives.
    pub(super) async fn number(&self, sql: &str) -> Result<u64> {
        let rows = self.sql(sql).await?;
        let cell = rows.rows.first().and_then(|row| row.first());
        cell.and_then(Value::as_u64)
            .ok_or_else(|| Error::bug(format!("expected a number as answer to `{sql}`, found `{cell:?}`")))
    }

    /// Uploads a file to its location.
    pub(super) async fn upload(&self, file: &RawFile) -> Result<()> {
        let mut put = request("PUT", &format!("/files/{}/{}", file.location, file.path), None);
        put.headers.insert("content-type".into(), "application/octet-stream".into());
        put.body = Bytes::from_static(file.bytes);
        delivery::upload(&self.caller, put).await?;
        Ok(())
    }

    /// Sends gzipped NDJSON to the stream of flights, once however often it is asked under the name of the same part; waits and
    /// sends again when the runtime has too much to do.
    pub(super) async fn send(&self, part: &str, body: Bytes) -> Result<Taken> {
        let mut put = request("POST", "/streams/flights/records", None);
        put.headers.insert("content-type".into(), "application/x-ndjson".into());
        put.headers.insert("content-encoding".into(), "gzip".into());
        put.body = body;
        let answer = self.flights.send(&self.caller, put, part).await?.answer;
        let count = |name: &str| {
            let found = &answer[name];
            found.as_u64().ok_or_else(|| Error::bug(format!("expected a number as `{name}`, found `{found}`")))
        };
        if count("throttled")? > 0 {
            return Err(Error::retry("the stream did not take all records"));
        }
        Ok(Taken { stored: count("stored")?, rejected: count("rejected")? })
    }

    /// Waits until `/status` satisfies `done`.
    pub(super) async fn until(&self, what: &str, done: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.json("GET", "/status", None).await?;
            if done(&status) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::limit(format!("waited {} s for {what}: {status}", PATIENCE.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
