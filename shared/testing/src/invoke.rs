//! Functions called with what Lambda would call them with.

use std::future::Future;

use serde_json::Value;
use shared::Result;
use shared::api::{Event, Reply, Response, gateway};

/// What Lambda would give back for an event: to a request, the answer as API Gateway takes it.
///
/// # Errors
/// Those of `handle`; `Invalid` for what is no event.
pub async fn invoke<F, R>(event: Value, handle: F) -> Result<Value>
where
    F: FnOnce(Event) -> R,
    R: Future<Output = Result<Reply>>,
{
    match handle(Event::parse(event)?).await? {
        Reply::Http(response) => Ok(gateway::answer(response.whole().await?)),
        Reply::Json(value) => Ok(value),
    }
}

/// The whole answer to a request in an event.
///
/// # Panics
/// When the event is no request, or fails as none should.
pub async fn request<F, R>(event: Value, handle: F) -> Response
where
    F: FnOnce(Event) -> R,
    R: Future<Output = Result<Reply>>,
{
    let reply = handle(Event::parse(event).unwrap()).await.unwrap();
    reply.response().unwrap().whole().await.unwrap()
}
