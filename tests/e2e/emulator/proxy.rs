//! A proxy in front of an emulator that fails by plan, as AWS does: none of the emulators fails on purpose.
//!
//! Which calls fail follows from a seed, the operation, and how often the operation was called; how they fail goes in turns. So
//! a seed gives the same faults to the same calls. `TARN_FAULTS_SEED` replaces the seed of a test; a test that fails prints
//! its seed and what has failed.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any client waits for one attempt of a call to Kinesis or Glue.
pub(crate) const TOO_LATE: Duration = Duration::from_secs(12);

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// 503, and nothing happened.
    Unavailable,
    /// Refused in the service's own words for too many calls.
    Throttled,
    /// Every second record of a put is refused for too many; other calls are throttled.
    PartlyThrottled,
    /// The connection ends before the call is made.
    Reset,
    /// It took effect, and the connection ends.
    LostReply,
    /// It took effect, and 500 is answered.
    Broken,
    /// The answer comes late, but in time.
    Slow,
    /// It took effect, and the answer comes when nobody waits for it any more.
    TooLate,
}

/// Which calls fail.
#[derive(Debug)]
pub(crate) struct Plan {
    seed: u64,
    /// Of a thousand calls.
    per_mille: u64,
    faults: Vec<Fault>,
    /// Whether the operation may fail so.
    allowed: fn(&str, Fault) -> bool,
    most: usize,
    shards: Option<Shards>,
    calls: Mutex<HashMap<String, u64>>,
    /// Operation, which of its calls, and how it failed.
    injected: Mutex<Vec<(String, u64, Fault)>>,
}

impl Plan {
    /// Of all calls, `per_mille` of a thousand fail in one of these ways.
    pub(crate) fn random(seed: u64, per_mille: u64, faults: &[Fault]) -> Self {
        let seed = std::env::var("TARN_FAULTS_SEED").map_or(seed, |text| text.parse().unwrap());
        let (shards, calls, injected) = Default::default();
        let (faults, allowed, most) = (faults.to_vec(), |_: &str, _| true, usize::MAX);
        Self { seed, per_mille, faults, allowed, most, shards, calls, injected }
    }

    /// No call fails but those that `shards` refuse.
    pub(crate) fn narrow(shards: Shards) -> Self {
        Self { shards: Some(shards), ..Self::random(0, 0, &[]) }
    }

    /// The same, where an operation may fail only in ways that `allowed` names.
    pub(crate) fn allowing(self, allowed: fn(&str, Fault) -> bool) -> Self {
        Self { allowed, ..self }
    }

    /// The same, with so many faults and no more.
    pub(crate) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    fn next(&self, operation: &str) -> Option<Fault> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.entry(operation.to_owned()).or_default();
            *number += 1;
            *number
        };
        let mut hasher = DefaultHasher::new();
        (self.seed, operation, number).hash(&mut hasher);
        if xorshift(hasher.finish() | 1) % 1_000 >= self.per_mille {
            return None;
        }
        let mut injected = self.injected.lock().unwrap();
        if injected.len() >= self.most {
            return None;
        }
        let mut turns = (0..self.faults.len()).map(|turn| self.faults[(injected.len() + turn) % self.faults.len()]);
        let fault = turns.find(|fault| (self.allowed)(operation, *fault))?;
        injected.push((operation.to_owned(), number, fault));
        Some(fault)
    }

    /// How often each fault has happened.
    pub(crate) fn injected(&self) -> BTreeMap<Fault, u64> {
        let mut counts = BTreeMap::new();
        for (.., fault) in &*self.injected.lock().unwrap() {
            *counts.entry(*fault).or_default() += 1;
        }
        counts
    }
}

/// Shards of Kinesis that refuse reads after a large answer.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    /// Records of an answer at most.
    pub(crate) records: u64,
    /// Bytes of an answer after which the shard refuses, and for how long.
    pub(crate) bytes: usize,
    pub(crate) refuses: Duration,
    /// The shard of each iterator that was given out.
    iterators: Mutex<HashMap<String, String>>,
    until: Mutex<HashMap<String, Instant>>,
    refused: AtomicU64,
}

impl Shards {
    pub(crate) fn new(records: u64, bytes: usize, refuses: Duration) -> Self {
        Self { records, bytes, refuses, ..Self::default() }
    }

    /// The answer to a call of `GetShardIterator` or `GetRecords`.
    async fn answer(&self, upstream: &str, head: Parts, body: Bytes) -> Response<Body> {
        let mut request: Value = serde_json::from_slice(&body).unwrap();
        let shard = match request["ShardIterator"].as_str() {
            None => format!("{}/{}", request["StreamName"], request["ShardId"]),
            Some(iterator) => {
                let shard = self.iterators.lock().unwrap()[iterator].clone();
                if self.until.lock().unwrap().get(&shard).is_some_and(|until| Instant::now() < *until) {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    return refusal("kinesis", 400, "ProvisionedThroughputExceededException");
                }
                request["Limit"] = request["Limit"].as_u64().unwrap().min(self.records).into();
                shard
            }
        };
        let (head, body) = forward(upstream, head, request.to_string().into()).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        if body.len() > self.bytes {
            self.until.lock().unwrap().insert(shard.clone(), Instant::now() + self.refuses);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap();
        for iterator in ["ShardIterator", "NextShardIterator"].iter().filter_map(|name| answer[name].as_str()) {
            self.iterators.lock().unwrap().insert(iterator.to_owned(), shard.clone());
        }
        Response::from_parts(head, Body::from(body))
    }
}

fn xorshift(mut x: u64) -> u64 {
    for _ in 0..3 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    plan: Arc<Plan>,
    server: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of the server at `upstream`, an `http://` URL.
    pub(crate) async fn start(upstream: &str, plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (upstream, plan) = (upstream.strip_prefix("http://").unwrap().to_owned(), Arc::new(plan));
        let shared = plan.clone();
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (upstream, plan) = (upstream.clone(), shared.clone());
                tokio::spawn(async move {
                    let serve = |request| answer(&upstream, &plan, request);
                    // A fault ends the connection, and so do clients.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service_fn(serve))
                        .await;
                });
            }
        });
        Self { endpoint, plan, server }
    }

    /// How many reads the shards have refused.
    pub(crate) fn refused(&self) -> u64 {
        self.plan.shards.as_ref().map_or(0, |shards| shards.refused.load(Ordering::SeqCst))
    }

    /// How often each fault has happened.
    pub(crate) fn injected(&self) -> BTreeMap<Fault, u64> {
        self.plan.injected()
    }

    /// Asserts that each fault of the plan has happened: otherwise the test has shown nothing.
    pub(crate) fn has_injected_all(&self) {
        let injected = self.plan.injected();
        for fault in &self.plan.faults {
            assert!(injected.contains_key(fault), "{fault:?} never happened: {injected:?}");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        if std::thread::panicking() {
            let injected = self.plan.injected.lock().unwrap();
            eprintln!("TARN_FAULTS_SEED={} gives these faults again: {injected:?}", self.plan.seed);
        }
    }
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn answer(
    upstream: &str,
    plan: &Plan,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    // A client that gave up in the middle of its request.
    let Ok(body) = to_bytes(Body::new(body), usize::MAX).await else { return Err(Dropped) };
    let operation = operation(&head);
    let service = operation.split(':').next().unwrap();
    if let (Some(shards), "kinesis:GetShardIterator" | "kinesis:GetRecords") = (&plan.shards, operation.as_str()) {
        return Ok(shards.answer(upstream, head, body).await);
    }
    match plan.next(&operation) {
        None => Ok(forward(upstream, head, body).await),
        Some(Fault::Unavailable) => Ok(refusal(service, 503, "ServiceUnavailable")),
        Some(Fault::PartlyThrottled) if operation == "kinesis:PutRecords" => Ok(put_half(upstream, head, body).await),
        Some(Fault::Throttled | Fault::PartlyThrottled) => Ok(match service {
            "kinesis" => refusal(service, 400, "ProvisionedThroughputExceededException"),
            "glue" => refusal(service, 400, "ThrottlingException"),
            _ => refusal(service, 503, "SlowDown"),
        }),
        Some(Fault::Reset) => Err(Dropped),
        Some(Fault::LostReply) => {
            forward(upstream, head, body).await;
            Err(Dropped)
        }
        Some(Fault::Broken) => {
            forward(upstream, head, body).await;
            Ok(match service {
                "glue" => refusal(service, 500, "InternalServiceException"),
                "kinesis" => refusal(service, 500, "InternalFailure"),
                _ => refusal(service, 500, "InternalError"),
            })
        }
        Some(Fault::Slow) => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            Ok(forward(upstream, head, body).await)
        }
        Some(Fault::TooLate) => {
            let answer = forward(upstream, head, body).await;
            tokio::time::sleep(TOO_LATE).await;
            Ok(answer)
        }
    }
}

/// As policies name it, e.g. `glue:GetTable`; what is not JSON is a call to S3.
fn operation(head: &Parts) -> String {
    if let Some((service, action)) = head.headers.get("x-amz-target").and_then(|t| t.to_str().ok()?.split_once('.')) {
        let service = if service.starts_with("Kinesis") { "kinesis" } else { "glue" };
        return format!("{service}:{action}");
    }
    let query = head.uri.query().unwrap_or_default();
    let action = match head.method {
        Method::GET if query.contains("list-type") => "ListObjectsV2",
        Method::GET => "GetObject",
        Method::HEAD => "HeadObject",
        Method::PUT if query.contains("partNumber") => "UploadPart",
        Method::PUT => "PutObject",
        Method::POST if query.contains("delete") => "DeleteObjects",
        Method::POST if query.contains("uploads") => "CreateMultipartUpload",
        Method::POST => "CompleteMultipartUpload",
        Method::DELETE => "DeleteObject",
        _ => "Other",
    };
    format!("s3:{action}")
}

fn refusal(service: &str, status: u16, code: &str) -> Response<Body> {
    let response = Response::builder().status(status);
    let response = match service {
        "s3" => response.header("content-type", "application/xml").body(Body::from(format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>by plan</Message></Error>"
        ))),
        _ => response
            .header("content-type", "application/x-amz-json-1.1")
            .body(Body::from(json!({"__type": code, "message": "by plan"}).to_string())),
    };
    response.unwrap()
}

async fn forward(upstream: &str, mut head: Parts, body: Bytes) -> Response<Body> {
    head.headers.remove("expect");
    head.headers.remove("transfer-encoding");
    head.headers.insert("content-length", body.len().into());
    let socket = TcpStream::connect(upstream).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(Request::from_parts(head, Body::from(body))).await.unwrap();
    let (mut head, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
    head.headers.remove("transfer-encoding");
    head.headers.remove("connection");
    Response::from_parts(head, Body::from(body))
}

/// Puts every second record and says of the others that their shard has too many.
async fn put_half(upstream: &str, head: Parts, body: Bytes) -> Response<Body> {
    let mut request: Value = serde_json::from_slice(&body).unwrap();
    let records: Vec<Value> = request["Records"].as_array().unwrap().clone();
    request["Records"] = records.iter().step_by(2).cloned().collect();
    let (head, body) = forward(upstream, head, request.to_string().into()).await.into_parts();
    let mut answer: Value = serde_json::from_slice(&to_bytes(body, usize::MAX).await.unwrap()).unwrap();
    let taken = answer["Records"].as_array().unwrap().clone();
    let refused =
        json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard"});
    let outcome = |index: usize| if index.is_multiple_of(2) { &taken[index / 2] } else { &refused };
    answer["Records"] = (0..records.len()).map(|index| outcome(index).clone()).collect();
    answer["FailedRecordCount"] = (records.len() / 2).into();
    let body = answer.to_string();
    let mut response = Response::from_parts(head, Body::from(body.clone()));
    response.headers_mut().insert("content-length", body.len().into());
    response
}
