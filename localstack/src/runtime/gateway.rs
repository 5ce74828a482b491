//! The HTTP server on 127.0.0.1: lets programs in ([`super::access`]), reads requests within the limits ([`super::body`]), lets the
//! [`OpenLakehouse`] answer them, wakes the triggers that a request gives work to.
//!
//! Nothing that is slow holds what others need: a connection waits for its head and its body for a time only, a request counts
//! as under way from when it has arrived whole to the last byte of its answer, and `GET /health` waits for nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::api::{self, Request, Response};
use shared::{Error, Principal, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::access::AccessPolicy;
use super::body::{Bodies, too_many};
use super::events;
use super::lakehouse::OpenLakehouse;
use super::objects::Watcher;
use super::shutdown::Shutdown;
use super::triggers::Wakeups;

/// How long open requests may take after the runtime was told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long a connection may take for the head of a request, or to send none at all: longer than clients keep unused connections
/// (90 s is usual), as one that is closed while a request comes in fails the request.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// The pause after a connection that could not be accepted, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What browsers are to make of answers: nothing but what their type says, and nothing in pages of other origins.
const FOR_BROWSERS: [(&str, &str); 2] =
    [("x-content-type-options", "nosniff"), ("cross-origin-resource-policy", "same-origin")];

/// What the server needs to answer.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) lakehouse: Arc<OpenLakehouse>,
    pub(super) wakeups: Wakeups,
    pub(super) watcher: Arc<Watcher>,
    pub(super) access: AccessPolicy,
    pub(super) bodies: Bodies,
    /// Requests under way at most; more are answered with 429.
    pub(super) in_flight: Arc<Semaphore>,
}

impl Gateway {
    /// Serves until `stop`, then lets open requests finish.
    ///
    /// # Errors
    /// None at present: a connection that can't be accepted is tried again.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: Shutdown) -> Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.wait() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let connection = self.clone().serve_connection(stream, stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finished).await.is_err() {
            tracing::warn!(grace_s = GRACE.as_secs(), "requests were still open when the runtime stopped");
        }
        Ok(())
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, mut stop: Shutdown) {
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let gateway = self.clone();
            async move {
                let (head, body) = request.into_parts();
                Ok::<_, Infallible>(to_http(gateway.respond(head, Body::new(body)).await))
            }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        let done = tokio::select! {
            done = connection.as_mut() => done,
            () = stop.wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Lets a request in, reads it within the limits and answers it.
    async fn respond(&self, head: Parts, body: Body) -> Response<api::Body> {
        if let Err(refusal) = self.access.admit(&head) {
            return Response::from(*refusal);
        }
        if head.method == Method::GET && head.uri.path() == "/health" {
            return self.lakehouse.health().into();
        }
        let body = match self.bodies.read(body).await {
            Ok(body) => body,
            Err(refusal) => return refusal.into(),
        };
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            return too_many().into();
        };
        match read(&head, body.bytes.clone()) {
            Ok(request) => under_way(self.answer(request).await, permit),
            Err(error) => Response::error(&error).into(),
        }
    }

    /// The answer to a request; what it gives work to is woken.
    async fn answer(&self, request: Request) -> Response<api::Body> {
        let (method, path) = (request.method.clone(), request.path.clone());
        let response = self.lakehouse.answer(request).await;
        if (200..300).contains(&response.status) {
            self.follow_up(&method, &path);
        }
        response
    }

    /// Wakes the triggers that a successful request gives work to, so that they needn't wait for their next look.
    fn follow_up(&self, method: &str, path: &str) {
        match (method, path.split('/').filter(|s| !s.is_empty()).collect::<Vec<_>>().as_slice()) {
            ("POST", ["streams", name, "records"]) => self.wakeups.wake(name),
            ("PUT", ["files", ..]) => self.watcher.wake(),
            _ => {}
        }
    }
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(|e| Error::bug("the places of connections are gone").with_source(e))?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

fn read(head: &Parts, body: Bytes) -> Result<Request> {
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
        principal: Principal::Owner,
        // Without chunks nobody could tell a broken-off answer from a whole one.
        streams: head.version >= Version::HTTP_11,
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

/// The answer, whose request is under way until its last byte was given on.
fn under_way(response: Response<api::Body>, permit: OwnedSemaphorePermit) -> Response<api::Body> {
    let body = match response.body {
        api::Body::Parts(parts) => api::Body::Parts(Box::pin(parts.map(move |part| {
            let _held = &permit;
            part
        }))),
        whole => whole,
    };
    Response { body, ..response }
}

fn to_http(response: Response<api::Body>) -> hyper::Response<Body> {
    let mut answer = hyper::Response::new(match response.body {
        api::Body::Whole(bytes) => Body::from(bytes),
        api::Body::Parts(parts) => Body::from_stream(parts),
    });
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                answer.headers_mut().insert(name, value);
            }
            _ => tracing::warn!(header = name, "a function answered with a header that HTTP can't carry"),
        }
    }
    for (name, value) in FOR_BROWSERS {
        answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}
