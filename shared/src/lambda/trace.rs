//! The span of an invocation: which call it is, of which function, and of which trace.

use lambda_runtime::Context;
use serde_json::Value;
use tracing::Span;
use tracing::field::Empty;

/// The span around all that an invocation does. Fields without a value are left out of the log.
pub(super) fn span(
    function: &str,
    payload: &Value,
    context: &Context,
    cold_start: bool,
    trace_id: Option<&str>,
) -> Span {
    let span = tracing::info_span!(
        "invocation",
        function,
        version = context.env_config.version,
        request_id = context.request_id,
        cold_start,
        trigger = trigger(payload),
        xray_trace_id = Empty,
        trace_id,
        stream = Empty,
        shard = Empty,
    );
    if let Some(root) = xray_header(context).as_deref().and_then(xray_root) {
        span.record("xray_trace_id", root);
    }
    let first = |name: &str| payload.pointer(&format!("/Records/0/{name}")).and_then(Value::as_str);
    if let Some((_, stream)) = first("eventSourceARN").and_then(|arn| arn.split_once(":stream/")) {
        span.record("stream", stream);
        // A Kinesis event holds records of one shard.
        span.record("shard", first("eventID").and_then(|id| id.split_once(':')).map(|(shard, _)| shard));
    }
    span
}

/// The trace that an invocation belongs to: that of the request's header, otherwise X-Ray's.
pub(super) fn id(payload: &Value, context: &Context) -> Option<String> {
    traceparent(payload).or_else(|| xray_header(context).as_deref().and_then(xray_root).and_then(w3c_of_xray))
}

fn xray_header(context: &Context) -> Option<String> {
    context.xray_trace_id.clone().or_else(|| std::env::var("_X_AMZN_TRACE_ID").ok())
}

/// What kind of event it is.
fn trigger(payload: &Value) -> &'static str {
    if payload.pointer("/requestContext/http").is_some() {
        return "http";
    }
    if payload.get("detail-type").is_some() {
        return "schedule";
    }
    match payload.pointer("/Records/0/eventSource").and_then(Value::as_str) {
        Some("aws:kinesis") => "kinesis",
        Some("aws:s3") => "s3",
        Some("aws:sqs") => "sqs",
        _ => "other",
    }
}

/// The trace's id in `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=…;Sampled=1`.
fn xray_root(header: &str) -> Option<&str> {
    header.split(';').find_map(|part| part.trim().strip_prefix("Root=")).filter(|root| !root.is_empty())
}

/// The id that OpenTelemetry gives a trace of X-Ray: the same 32 digits.
fn w3c_of_xray(root: &str) -> Option<String> {
    let digits: String = root.strip_prefix("1-")?.split('-').collect();
    is_trace_id(&digits).then_some(digits)
}

/// The trace's id in the header `traceparent` of an HTTP request (W3C Trace Context): `00-{trace}-{parent}-{flags}`.
fn traceparent(payload: &Value) -> Option<String> {
    let headers = payload.pointer("/requestContext/http").and(payload.get("headers"))?.as_object()?;
    let (_, header) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("traceparent"))?;
    let parts: Vec<&str> = header.as_str()?.trim().split('-').collect();
    match parts.as_slice() {
        [version, id, parent, flags, ..] => {
            let known = version.len() == 2 && *version != "ff" && parent.len() == 16 && flags.len() == 2;
            (known && is_trace_id(id)).then(|| (*id).to_owned())
        }
        _ => None,
    }
}

/// 32 hexadecimal digits in lower case, not all of them 0.
fn is_trace_id(id: &str) -> bool {
    let digits = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits && id.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn request(traceparent: &str) -> Value {
        json!({"requestContext": {"http": {"method": "GET"}}, "headers": {"traceparent": traceparent}})
    }

    #[test]
    fn a_request_brings_its_trace_along() {
        assert_eq!(super::traceparent(&request(&format!("00-{ID}-00f067aa0ba902b7-01"))).as_deref(), Some(ID));
        for wrong in [
            "".to_owned(),
            ID.into(),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{ID}-00f0-01"),
        ] {
            assert_eq!(super::traceparent(&request(&wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_trace_of_x_ray_has_the_same_digits_in_w3c() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let root = xray_root(header).unwrap();
        assert_eq!(root, "1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(w3c_of_xray(root).unwrap(), "5759e988bd862e3fe1be46a994272793");
        assert_eq!(xray_root("Sampled=0"), None);
        assert_eq!(w3c_of_xray("1-xyz"), None);
    }

    #[test]
    fn each_kind_of_event_has_its_name() {
        for (event, name) in [
            (request(""), "http"),
            (json!({"detail-type": "Scheduled Event"}), "schedule"),
            (json!({"Records": [{"eventSource": "aws:kinesis"}]}), "kinesis"),
            (json!({"Records": [{"eventSource": "aws:s3"}]}), "s3"),
            (json!({"Records": [{"eventSource": "aws:sqs"}]}), "sqs"),
            (json!({}), "other"),
        ] {
            assert_eq!(trigger(&event), name);
        }
    }
}
