//! Records and files sent until there is an answer: again when the connection broke, while the runtime starts anew, while it has
//! too much to do. Records go under an idempotency key, so that none is stored twice.

use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use shared::api::{Request, Response};
use shared::{ErrorKind, Result};

use super::caller::{Caller, json_body, succeeded};

/// How long something is sent again, and the pause between.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// Requests of records that belong together: each has its own key.
#[derive(Debug)]
pub(crate) struct Delivery {
    key: String,
}

/// The answer to a request of records.
#[derive(Debug)]
pub(crate) struct Sent {
    /// As `ingest` gives it.
    pub(crate) answer: Value,
    /// Whether an earlier request with the key had this answer.
    pub(crate) repeated: bool,
}

impl Delivery {
    /// One of its own, or that of an earlier time under the same key.
    pub(crate) fn new(key: Option<&str>) -> Self {
        Self { key: key.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned) }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Sends records. `part` tells the request from the others and is the same when the delivery is repeated. The answer says of
    /// each record what became of it, also when all were rejected.
    ///
    /// # Errors
    /// What the answer says when it is about the request and not about its records; `Conflict` when the part came with other
    /// records before.
    pub(crate) async fn send(&self, caller: &Caller, mut records: Request, part: &str) -> Result<Sent> {
        // A header takes only ASCII.
        let key = format!("{}/{part}", utf8_percent_encode(&self.key, NON_ALPHANUMERIC));
        records.headers.insert("idempotency-key".into(), key);
        let send = async || {
            let response = caller.call(records.clone()).await?;
            let repeated = response.headers.contains_key("idempotent-replay");
            match json_body(&response) {
                Ok(answer) if answer["records"].is_array() => Ok(Sent { answer, repeated }),
                _ => json_body(&succeeded(response)?).map(|answer| Sent { answer, repeated }),
            }
        };
        insist(send, |sent| sent.answer["throttled"].as_u64() > Some(0) && !sent.finds_no_room()).await
    }
}

impl Sent {
    /// Whether records were not stored as there is no room for them, which waiting does not change.
    pub(crate) fn finds_no_room(&self) -> bool {
        self.answer["records"].as_array().into_iter().flatten().any(|record| record["code"] == "no_room")
    }
}

/// Uploads a file, which has the same effect however often it is done.
///
/// # Errors
/// What the answer says.
pub(crate) async fn upload(caller: &Caller, file: Request) -> Result<Response> {
    insist(async || caller.ask(file.clone()).await, |_| false).await
}

/// Does it again while it fails for the moment or is not `partial`ly done; after a while gives what there is.
async fn insist<T>(attempt: impl AsyncFn() -> Result<T>, partial: impl Fn(&T) -> bool) -> Result<T> {
    let begun = Instant::now();
    loop {
        let done = attempt().await;
        let again = match &done {
            Ok(done) => partial(done),
            Err(error) => error.kind() == ErrorKind::Retry,
        };
        if !again || begun.elapsed() > PATIENCE {
            return done;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use shared::Error;

    use super::*;

    #[tokio::test]
    async fn what_fails_for_the_moment_or_is_done_in_part_is_done_again_and_nothing_else() {
        let calls = Cell::new(0);
        let attempt = async || match calls.replace(calls.get() + 1) {
            0 => Err(Error::retry("nobody there")),
            number => Ok(number),
        };
        assert_eq!(insist(attempt, |number| *number == 1).await.unwrap(), 2);
        let refused = insist(async || Err::<(), _>(Error::invalid("no")), |()| false).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    }
}
