//! Lambda's runtime API for one function: the real program asks it for events and answers them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::lake::program;

/// An event and the headers that come with it.
type Call = (Value, Vec<(&'static str, String)>);

/// The runtime API of Lambda for one function: hands out events, takes answers.
struct RuntimeApi {
    port: u16,
    events: mpsc::Sender<Call>,
    answers: mpsc::Receiver<Result<Value, Value>>,
}

#[derive(Clone)]
struct Shared {
    events: Arc<tokio::sync::Mutex<mpsc::Receiver<Call>>>,
    answers: mpsc::Sender<Result<Value, Value>>,
    count: Arc<AtomicU32>,
}

impl RuntimeApi {
    async fn start() -> Self {
        let (events, receive) = mpsc::channel(8);
        let (send, answers) = mpsc::channel(8);
        let events_out = Arc::new(tokio::sync::Mutex::new(receive));
        let shared = Shared { events: events_out, answers: send, count: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(serve).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, events, answers }
    }
}

async fn serve(State(shared): State<Shared>, request: Request<axum::body::Body>) -> (StatusCode, HeaderMap, String) {
    let path = request.uri().path().to_owned();
    if path.ends_with("/invocation/next") {
        let Some((event, headers)) = shared.events.lock().await.recv().await else {
            return (StatusCode::GONE, HeaderMap::new(), String::new());
        };
        let number = shared.count.fetch_add(1, Ordering::SeqCst) + 1;
        let function = "arn:aws:lambda:eu-west-1:123456789012:function:tarn".to_owned();
        let headers = headers
            .into_iter()
            .chain([
                ("lambda-runtime-aws-request-id", format!("request-{number}")),
                ("lambda-runtime-invoked-function-arn", function),
            ])
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap()))
            .collect();
        return (StatusCode::OK, headers, event.to_string());
    }
    let body = axum::body::to_bytes(request.into_body(), 64 << 20).await.unwrap();
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = if path.ends_with("/response") { Ok(value) } else { Err(value) };
    shared.answers.send(answer).await.unwrap();
    (StatusCode::ACCEPTED, HeaderMap::new(), "{}".into())
}

/// A function's process, ended with the test.
pub(crate) struct Function {
    child: Child,
    api: RuntimeApi,
    /// What it writes to standard error and standard output.
    log: PathBuf,
    output: PathBuf,
}

impl Function {
    pub(crate) async fn start(name: &str, dir: &Path) -> Self {
        Self::start_with(name, dir, &[]).await
    }

    /// The same with more variables in its environment.
    pub(crate) async fn start_with(name: &str, dir: &Path, variables: &[(&str, &str)]) -> Self {
        let api = RuntimeApi::start().await;
        let environment = BTreeMap::from([
            ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{}", api.port)),
            ("AWS_LAMBDA_FUNCTION_NAME", name.into()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769".into()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "tarn".into()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "test".into()),
            ("TARN_DATA", dir.join("data").display().to_string()),
            ("TARN_PROJECT", dir.join("lakehouse.yaml").display().to_string()),
        ]);
        let (log, output) = (dir.join(format!("{name}.log")), dir.join(format!("{name}.out")));
        let append = |path: &Path| std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(program(name));
        for variable in shared::config::VARIABLES {
            command.env_remove(variable.name);
        }
        command.envs(environment).envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stderr(append(&log)).stdout(append(&output)).spawn().unwrap();
        Self { child, api, log, output }
    }

    /// Gives the function an event and waits for what it makes of it.
    pub(crate) async fn invoke(&mut self, event: Value) -> Result<Value, Value> {
        self.invoke_within(event, Duration::from_secs(900)).await
    }

    /// The same with so much time until Lambda would end it.
    pub(crate) async fn invoke_within(&mut self, event: Value, time: Duration) -> Result<Value, Value> {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + time;
        let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let headers = vec![
            ("lambda-runtime-deadline-ms", at.as_millis().to_string()),
            ("lambda-runtime-trace-id", trace.to_owned()),
        ];
        self.api.events.send((event, headers)).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), self.api.answers.recv()).await;
        answer.unwrap_or_else(|_| panic!("expected an answer in time, found none\n{}", self.log())).unwrap()
    }

    /// An HTTP request through API Gateway; status and JSON body.
    pub(crate) async fn http(&mut self, method: &str, path: &str, body: &str) -> (u64, Value) {
        let answer = self.invoke(request(method, path, body)).await;
        read(answer.unwrap_or_else(|e| panic!("{method} {path} failed: {e:#}")))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of the log whose message this is.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        lines(&self.log()).into_iter().filter(|line| line["message"] == message).collect()
    }

    /// The JSON lines on standard output.
    pub(crate) fn output(&self) -> Vec<Value> {
        lines(&std::fs::read_to_string(&self.output).unwrap())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}` is no JSON: {e}"))).collect()
}

/// The event of an HTTP request.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json"}, "body": body, "isBase64Encoded": false,
        "requestContext": {
            "accountId": "123456789012", "apiId": "api", "stage": "$default", "requestId": "r", "routeKey": "$default",
            "time": "01/Jan/2024:00:00:00 +0000", "timeEpoch": 1_704_067_200_000_i64,
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"}
        }
    })
}

/// Status and JSON body of an answer to a request.
pub(crate) fn read(answer: Value) -> (u64, Value) {
    let body = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or(Value::Null);
    (answer["statusCode"].as_u64().unwrap(), body)
}

/// The plain event of an EventBridge rule.
pub(crate) fn tick(detail: Value) -> Value {
    json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
        "time": "2024-01-01T00:00:00Z", "region": "eu-west-1",
        "resources": ["arn:aws:events:eu-west-1:123456789012:rule/tarn"], "detail": detail
    })
}

/// The event of records in the stream's one shard: sequence number and data of each.
pub(crate) fn kinesis(stream: &str, records: &[(&str, &str)]) -> Value {
    let record = |(sequence, data): &(&str, &str)| {
        json!({
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record", "awsRegion": "eu-west-1",
            "eventID": format!("shardId-000000000000:{sequence}"),
            "eventSourceARN": format!("arn:aws:kinesis:eu-west-1:123456789012:stream/{stream}"),
            "invokeIdentityArn": "arn:aws:iam::123456789012:role/tarn",
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "k", "sequenceNumber": sequence, "data": data,
                "approximateArrivalTimestamp": 1_704_067_200.5,
            },
        })
    };
    json!({"Records": records.iter().map(record).collect::<Vec<_>>()})
}

/// The event of objects: name of the event, bucket and key (as S3 encodes it) of each.
pub(crate) fn objects(changes: &[(&str, &str, &str)]) -> Value {
    let record = |(name, bucket, key): &(&str, &str, &str)| {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": name,
            "eventTime": "2024-01-01T00:00:00.000Z", "userIdentity": {"principalId": "AWS:A"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"}, "responseElements": {"x-amz-request-id": "r"},
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": "tarn",
                "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A"}, "arn": format!("arn:aws:s3:::{bucket}")},
                "object": {"key": key, "sequencer": "0055AED6DCD90281E5"},
            },
        })
    };
    json!({"Records": changes.iter().map(record).collect::<Vec<_>>()})
}

/// The event of messages of a queue with these bodies; their ids are `message-0`, `message-1`, …
pub(crate) fn messages(bodies: &[&str]) -> Value {
    let message = |(at, body): (usize, &&str)| {
        json!({
            "messageId": format!("message-{at}"), "receiptHandle": "AQEB", "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1704067200500", "SenderId": "AIDA",
                "ApproximateFirstReceiveTimestamp": "1704067200500"},
            "messageAttributes": {}, "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:tarn-objects", "awsRegion": "eu-west-1",
        })
    };
    json!({"Records": bodies.iter().enumerate().map(message).collect::<Vec<_>>()})
}
