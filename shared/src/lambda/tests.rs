use std::cell::Cell;

use super::*;

/// A call with `left_ms` until Lambda's deadline.
fn call(payload: Value, left_ms: i64) -> LambdaEvent<Value> {
    let mut context = Context::default();
    context.deadline = u64::try_from(SystemClock.now_ms() + left_ms).unwrap();
    LambdaEvent::new(payload, context)
}

fn request() -> Value {
    json!({"requestContext": {"http": {"method": "GET", "path": "/"}}, "rawPath": "/", "headers": {}})
}

fn tick() -> Value {
    json!({
        "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "tarn.scheduler", "account": "0",
        "time": "2026-01-01T00:00:00Z", "region": "local", "resources": [], "detail": {},
    })
}

/// The answer of a function that does `handle`.
async fn answer(
    event: LambdaEvent<Value>,
    handle: impl AsyncFn(&(), Event) -> Result<Reply>,
) -> Result<Value, Diagnostic> {
    Host::new("query", async || Ok(()), handle).answer(event).await
}

fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn an_error_is_a_response_to_a_request_and_a_diagnostic_of_its_kind_to_any_other_event() {
    let refuse = async |(): &(), _| Err(Error::invalid("expected less, found more"));
    let response = answer(call(request(), 10_000), refuse).await.unwrap();
    assert_eq!(
        (response["statusCode"].as_u64(), body(&response)["error"]["kind"].as_str()),
        (Some(400), Some("Invalid"))
    );
    let diagnostic = answer(call(tick(), 10_000), refuse).await.unwrap_err();
    assert_eq!(
        (diagnostic.error_type.as_str(), diagnostic.error_message.as_str()),
        ("Invalid", "expected less, found more")
    );
}

#[tokio::test]
async fn a_panic_tells_the_caller_nothing_of_what_it_says() {
    let breaks = async |(): &(), _| panic!("with secret-7");
    let response = answer(call(request(), 10_000), breaks).await.unwrap();
    assert_eq!(response["statusCode"], 500);
    assert!(!response.to_string().contains("secret-7"), "{response}");
    let diagnostic = answer(call(tick(), 10_000), breaks).await.unwrap_err();
    assert_eq!(diagnostic.error_type, "Bug");
    assert!(!diagnostic.error_message.contains("secret-7"), "{}", diagnostic.error_message);
}

#[tokio::test]
async fn an_overrun_is_told_before_lambda_ends_the_function() {
    let hangs = async |(): &(), _| std::future::pending().await;
    let before = std::time::Instant::now();
    let diagnostic = answer(call(tick(), 1_200), hangs).await.unwrap_err();
    assert!(before.elapsed() < Duration::from_millis(1_200), "{:?}", before.elapsed());
    assert_eq!(diagnostic.error_type, "Retry");
    assert!(diagnostic.error_message.contains("time-out"), "{}", diagnostic.error_message);
    let response = answer(call(request(), 1_200), hangs).await.unwrap();
    assert_eq!((&response["statusCode"], &body(&response)["error"]["kind"]), (&json!(504), &json!("OutcomeUnknown")));
    assert!(body(&response)["error"]["message"].as_str().unwrap().contains("`idempotency-key`"), "{response}");
}

#[tokio::test]
async fn the_work_knows_its_deadline() {
    let event = call(tick(), 60_000);
    let at = event.context.deadline;
    let tells = async |(): &(), _| Ok(json!(deadline::current()).into());
    assert_eq!(answer(event, tells).await.unwrap(), json!(at));
}

#[tokio::test]
async fn the_work_knows_its_trace() {
    let mut event = call(tick(), 60_000);
    event.context.xray_trace_id = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".into());
    let tells = async |(): &(), _| Ok(json!(telemetry::trace::current()).into());
    assert_eq!(answer(event, tells).await.unwrap(), "5759e988bd862e3fe1be46a994272793");
}

#[tokio::test]
async fn an_answer_that_lambda_can_not_carry_says_how_to_get_it() {
    let large = async |(): &(), _| Ok(Response::json(200, &"x".repeat(MAX_ANSWER))?.into());
    let response = answer(call(request(), 10_000), large).await.unwrap();
    assert_eq!(response["statusCode"], 413);
    let message = body(&response)["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("`LIMIT`") && message.contains("`into`"), "{message}");
    let noted =
        answer(call(tick(), 10_000), async |(): &(), _| Ok(json!("x".repeat(MAX_ANSWER)).into())).await.unwrap();
    assert_eq!(noted, json!({"answerBytes": MAX_ANSWER + 2}));
}

#[tokio::test]
async fn what_could_not_be_opened_is_opened_for_a_later_event() {
    let tries = Cell::new(0);
    let open = async || {
        tries.set(tries.get() + 1);
        if tries.get() == 1 { Err(Error::retry("not yet")) } else { Ok(()) }
    };
    let host = Host::new("query", open, async |(): &(), _| Ok(json!("done").into()));
    let error = host.answer(call(tick(), 10_000)).await.unwrap_err();
    assert_eq!((error.error_type.as_str(), error.error_message.as_str()), ("Retry", "not yet"));
    assert_eq!(host.answer(call(tick(), 10_000)).await.unwrap(), "done");
    assert_eq!(host.answer(call(tick(), 10_000)).await.unwrap(), "done");
    assert_eq!(tries.get(), 2);
}
