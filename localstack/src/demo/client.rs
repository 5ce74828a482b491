//! What the demo does over HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use shared::{Error, ErrorKind, Result};

use super::data::RawFile;
use crate::cli::caller::{Caller, Remote, request};
use crate::cli::delivery::{self, Delivery};
use crate::cli::output::Rows;
use crate::cli::sql::rows_of;

/// How long the demo waits for something that the lakehouse does by itself.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);

/// A client of the lakehouse.
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
    pub(super) fn new(remote: Remote) -> Self {
        Self { caller: Caller::Remote(remote), flights: Delivery::new(None) }
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

    /// Rows of a table; `None` while there is none.
    async fn rows(&self, table: &str) -> Result<Option<u64>> {
        match self.number(&format!("SELECT count(*) FROM {table}")).await {
            Ok(rows) => Ok(Some(rows)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until a table has so many rows: crawler, batcher and schedules work by themselves.
    pub(super) async fn until(&self, table: &str, rows: u64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.rows(table).await?;
            if found == Some(rows) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let waited = PATIENCE.as_secs();
                let found = found.map_or("no table".to_owned(), |found| found.to_string());
                return Err(Error::limit(format!(
                    "expected {rows} rows in `{table}` within {waited} s, found {found}"
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A deployed lakehouse takes the demo once: with the rows of an earlier one no count would reconcile.
    ///
    /// # Errors
    /// `NotFound` without the demo's stream; `Conflict` when there are flights.
    pub(super) async fn expect_no_flights(&self) -> Result<()> {
        let streams = self.json("GET", "/streams", None).await?;
        let streams = streams["streams"].as_array().into_iter().flatten();
        let names: Vec<&str> = streams.filter_map(|stream| stream["name"].as_str()).collect();
        if !names.contains(&"flights") {
            return Err(Error::not_found(format!("expected the demo's stream `flights`, found the streams {names:?}")));
        }
        match self.rows("nyc.flights").await? {
            None | Some(0) => Ok(()),
            Some(rows) => Err(Error::conflict(format!(
                "expected no rows in `nyc.flights`, found {rows}: a demo ran there before, start with a new lakehouse"
            ))),
        }
    }
}
