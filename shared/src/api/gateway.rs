//! HTTP as Lambda's events carry it: API Gateway's payload version 2.0.

use aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Request, Response};
use crate::{Error, Principal, Result};

/// The request in an event. API Gateway has let in whoever sent it.
///
/// # Errors
/// `Invalid` for an event with parts of other types.
pub fn request(event: Value) -> Result<Request> {
    // What serde found may be the value of a header.
    let event: ApiGatewayV2httpRequest = serde_json::from_value(event).map_err(|_| {
        Error::invalid(
            "expected an API Gateway HTTP request (payload version 2.0), found one with parts of other types",
        )
    })?;
    let body = match event.body {
        Some(text) if event.is_base64_encoded => STANDARD
            .decode(text)
            .map_err(|e| Error::invalid("expected a base64 body as the event says").with_source(e))?
            .into(),
        Some(text) => text.into(),
        None => Bytes::new(),
    };
    let headers = event
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let query = event.query_string_parameters.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Ok(Request {
        method: event.request_context.http.method.to_string(),
        path: event.raw_path.unwrap_or_else(|| "/".into()),
        query,
        headers,
        body,
        request_id: event.request_context.request_id.unwrap_or_default(),
        principal: Principal::Owner,
        streams: false,
    })
}

/// What Lambda gives back to API Gateway: text as it is, other bytes in base64.
pub fn answer(response: Response) -> Value {
    let (body, is_base64_encoded) = match String::from_utf8(response.body.into()) {
        Ok(text) => (text, false),
        Err(binary) => (STANDARD.encode(binary.as_bytes()), true),
    };
    json!({
        "statusCode": response.status,
        "headers": response.headers,
        "body": body,
        "isBase64Encoded": is_base64_encoded,
        "cookies": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &Value, is_base64_encoded: bool) -> Value {
        json!({
            "version": "2.0", "routeKey": "$default", "rawPath": "/streams/flights/records", "rawQueryString": "a+b=1%262",
            "headers": {"content-type": "application/x-ndjson"}, "queryStringParameters": {"a b": "1&2"},
            "requestContext": {
                "accountId": "0", "apiId": "a", "requestId": "r-1", "stage": "$default", "time": "", "timeEpoch": 0,
                "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "", "userAgent": ""},
            },
            "body": body, "isBase64Encoded": is_base64_encoded,
        })
    }

    #[test]
    fn a_request_has_all_that_its_event_says() {
        let read = request(event(&json!("{\"a\": 1}\n"), false)).unwrap();
        let expected = Request {
            query: [("a b".into(), "1&2".into())].into(),
            headers: [("content-type".into(), "application/x-ndjson".into())].into(),
            body: "{\"a\": 1}\n".into(),
            ..Request::new("POST", "/streams/flights/records", "r-1")
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn bytes_that_are_no_text_come_and_go_in_base64() {
        let bytes = [0x1f, 0x8b, 0xff, 0x00];
        let read = request(event(&json!(STANDARD.encode(bytes)), true)).unwrap();
        assert_eq!(read.body, bytes[..]);
        let given = answer(Response::new(200, "application/gzip", bytes.to_vec()));
        assert_eq!((&given["body"], &given["isBase64Encoded"]), (&json!(STANDARD.encode(bytes)), &json!(true)));
        assert!(request(event(&json!("not base64!"), true)).is_err());
    }
}
