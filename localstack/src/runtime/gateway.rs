//! The HTTP door on 127.0.0.1: reads requests within the limits, lets the [`House`] answer them, wakes the triggers that a
//! request gives work to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use serde_json::json;
use shared::api::{Request, Response};
use shared::{Error, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::events;
use super::house::House;
use super::objects::Watcher;
use super::stop::Stop;
use super::triggers::Pokes;

/// How long open requests may take after the runtime was told to stop.
const GRACE: Duration = Duration::from_secs(60);

/// What the door needs to answer.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) house: Arc<House>,
    pub(super) pokes: Pokes,
    pub(super) watcher: Arc<Watcher>,
    /// Bytes of a body at most; more is answered with 413.
    pub(super) max_body: usize,
    /// Requests under way at most; more are answered with 429.
    pub(super) in_flight: Semaphore,
}

impl Gateway {
    /// Serves until `stop`, then lets open requests finish.
    ///
    /// # Errors
    /// `Retry` when the listener fails.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: Stop) -> Result<()> {
        let router = Router::new().fallback(answer).with_state(self);
        let mut stopped = stop.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move { stopped.wait().await });
        let overdue = async {
            stop.wait().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = server.into_future() => Ok(served?),
            () = overdue => {
                tracing::warn!(grace_s = GRACE.as_secs(), "requests were still open when the runtime stopped");
                Ok(())
            }
        }
    }

    /// The answer to a request; what it gives work to is woken.
    async fn answer(&self, request: Request) -> Response {
        let (method, path) = (request.method.clone(), request.path.clone());
        let response = self.house.answer(request).await;
        if (200..300).contains(&response.status) {
            self.follow_up(&method, &path);
        }
        response
    }

    /// Wakes the triggers that a successful request gives work to, so that they needn't wait for their next look.
    fn follow_up(&self, method: &str, path: &str) {
        match (method, path.split('/').filter(|s| !s.is_empty()).collect::<Vec<_>>().as_slice()) {
            ("POST", ["streams", name, "records"]) => self.pokes.poke(name),
            ("PUT", ["files", ..]) => self.watcher.poke(),
            _ => {}
        }
    }
}

/// The axum side: reads the request within the limits, writes the answer.
async fn answer(State(gateway): State<Arc<Gateway>>, request: axum::extract::Request) -> axum::response::Response {
    let Ok(_permit) = gateway.in_flight.try_acquire() else {
        return to_axum(too_many());
    };
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, gateway.max_body).await else {
        return to_axum(Response::error(&Error::limit(format!(
            "expected a body of {} bytes at most that arrives whole",
            gateway.max_body
        ))));
    };
    match read(&head, body) {
        Ok(request) => to_axum(gateway.answer(request).await),
        Err(error) => to_axum(Response::error(&error)),
    }
}

/// 429, with the advice to come back.
fn too_many() -> Response {
    let body =
        json!({"error": {"kind": "Retry", "message": "too many requests are under way: send this one again later"}});
    Response::new(429, "application/json", body.to_string()).with_header("retry-after", "1")
}

fn read(head: &axum::http::request::Parts, body: Bytes) -> Result<Request> {
    let path = percent_encoding::percent_decode_str(head.uri.path())
        .decode_utf8()
        .map_err(|e| Error::invalid(format!("expected a path in UTF-8, found `{}`", head.uri.path())).with_source(e))?;
    Ok(Request {
        method: head.method.as_str().to_owned(),
        path: path.into_owned(),
        query: events::query_parameters(head.uri.query().unwrap_or_default()),
        headers: headers(&head.headers),
        body,
        request_id: uuid::Uuid::new_v4().to_string(),
    })
}

/// Names in lower case, the values of a repeated name joined by commas, as API Gateway gives them.
fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    map.keys()
        .map(|name| {
            let values: Vec<_> =
                map.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            (name.as_str().to_owned(), values.join(","))
        })
        .collect()
}

fn to_axum(response: Response) -> axum::response::Response {
    let mut answer = axum::response::Response::new(Body::from(response.body));
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                answer.headers_mut().insert(name, value);
            }
            _ => tracing::warn!(header = name, "a function answered with a header that HTTP can't carry"),
        }
    }
    answer
}
