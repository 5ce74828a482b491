//! The six programs as Lambda runs them: each asks the runtime API for an event and answers it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::flow::{SHOP, orders};
use crate::lake::program;

/// The runtime API of Lambda for one function: hands out events, takes answers.
struct RuntimeApi {
    port: u16,
    events: mpsc::Sender<Value>,
    answers: mpsc::Receiver<Result<Value, Value>>,
}

#[derive(Clone)]
struct Shared {
    events: Arc<tokio::sync::Mutex<mpsc::Receiver<Value>>>,
    answers: mpsc::Sender<Result<Value, Value>>,
    count: Arc<Mutex<u32>>,
}

impl RuntimeApi {
    async fn start() -> Self {
        let (events, receive) = mpsc::channel(8);
        let (send, answers) = mpsc::channel(8);
        let shared = Shared {
            events: Arc::new(tokio::sync::Mutex::new(receive)),
            answers: send,
            count: Arc::new(Mutex::new(0)),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(serve).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, events, answers }
    }

    /// Gives the function an event and waits for what it makes of it.
    async fn invoke(&mut self, event: Value) -> Result<Value, Value> {
        self.events.send(event).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), self.answers.recv()).await.expect("an answer in time").unwrap()
    }
}

async fn serve(State(shared): State<Shared>, request: Request<axum::body::Body>) -> (StatusCode, HeaderMap, String) {
    let path = request.uri().path().to_owned();
    if path.ends_with("/invocation/next") {
        let Some(event) = shared.events.lock().await.recv().await else {
            return (StatusCode::GONE, HeaderMap::new(), String::new());
        };
        let number = {
            let mut count = shared.count.lock().unwrap();
            *count += 1;
            *count
        };
        let headers = [
            ("lambda-runtime-aws-request-id", format!("request-{number}")),
            ("lambda-runtime-deadline-ms", "4102444800000".into()),
            ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:tarn".into()),
        ];
        let headers = headers
            .into_iter()
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
struct Function {
    child: Child,
    api: RuntimeApi,
}

impl Function {
    async fn start(name: &str, dir: &Path) -> Self {
        let api = RuntimeApi::start().await;
        let mut environment = BTreeMap::from([
            ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{}", api.port)),
            ("AWS_LAMBDA_FUNCTION_NAME", name.into()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769".into()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "tarn".into()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "test".into()),
        ]);
        environment.insert("TARN_DATA", dir.join("data").display().to_string());
        environment.insert("TARN_PROJECT", dir.join("lakehouse.yaml").display().to_string());
        let child = Command::new(program(name)).envs(environment).stdin(Stdio::null()).spawn().unwrap();
        Self { child, api }
    }

    /// An HTTP request through API Gateway; status and JSON body.
    async fn http(&mut self, method: &str, path: &str, body: &str) -> (u64, Value) {
        let event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
            "headers": {"content-type": "application/json"}, "body": body, "isBase64Encoded": false,
            "requestContext": {
                "accountId": "123456789012", "apiId": "api", "stage": "$default", "requestId": "r", "routeKey": "$default",
                "time": "01/Jan/2024:00:00:00 +0000", "timeEpoch": 1_704_067_200_000_i64,
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test"}
            }
        });
        let answer = self.api.invoke(event).await.unwrap_or_else(|e| panic!("{method} {path} failed: {e:#}"));
        let body = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or(Value::Null);
        (answer["statusCode"].as_u64().unwrap(), body)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tick(function: &str, detail: Value) -> Value {
    json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "tarn.scheduler", "account": "123456789012",
        "time": "2024-01-01T00:00:00Z", "region": "eu-west-1", "resources": [format!("arn:aws:events:eu-west-1:123456789012:rule/{function}")],
        "detail": detail
    })
}

#[tokio::test]
async fn six_programs_do_the_main_job_between_them_as_lambda_functions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();

    let mut ingest = Function::start("ingest", dir.path()).await;
    let (status, put) = ingest.http("POST", "/streams/orders/records", &orders(0, 60)).await;
    assert_eq!(status, 200, "{put:#}");
    let (status, put) =
        ingest.http("PUT", "/files/customers/customers.csv", "id,name\n1,Ada\n2,Grace\n3,Edsger\n").await;
    assert_eq!(status, 201, "{put:#}");
    drop(ingest);

    let mut batcher = Function::start("batcher", dir.path()).await;
    let report = batcher.api.invoke(tick("batcher", json!({"function": "batcher", "flush": true}))).await.unwrap();
    assert!(report.to_string().contains("60"), "{report:#}");
    drop(batcher);

    let mut crawl = Function::start("crawl", dir.path()).await;
    let (status, report) = crawl.http("POST", "/crawl", "{}").await;
    assert_eq!(status, 200, "{report:#}");
    drop(crawl);

    let mut transform = Function::start("transform", dir.path()).await;
    let (status, run) = transform.http("POST", "/workflows/daily/runs", "{}").await;
    assert_eq!((status, run["status"].as_str()), (200, Some("succeeded")), "{run:#}");
    drop(transform);

    let mut query = Function::start("query", dir.path()).await;
    let (status, answer) = query
        .http("POST", "/query", r#"{"sql": "SELECT count(*) AS n FROM mart.orders WHERE customer = 'Ada'"}"#)
        .await;
    assert_eq!(status, 200, "{answer:#}");
    assert_eq!(crate::lake::as_i64(&answer["rows"][0][0]), 20);
    drop(query);

    let mut insight = Function::start("insight", dir.path()).await;
    let (status, forecast) = insight.http("POST", "/insights/orders_a_day", "{}").await;
    assert_eq!(status, 200, "{forecast:#}");
}

#[tokio::test]
async fn every_function_refuses_an_event_that_is_not_for_it() {
    for name in ["ingest", "batcher", "crawl", "transform", "query", "insight"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lakehouse.yaml"), SHOP).unwrap();
        let mut function = Function::start(name, dir.path()).await;
        let error = function.api.invoke(json!({"hello": "world"})).await.unwrap_err();
        assert!(error["errorMessage"].as_str().is_some_and(|m| m.contains("expected an event")), "{name}: {error:#}");
    }
}
