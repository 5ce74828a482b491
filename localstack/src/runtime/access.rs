//! Who may ask: programs of this machine, not pages that a browser shows.
//!
//! A browser sends what any page asks it to, from inside the machine and, for requests that HTML forms can make, without asking
//! first. Three rules, checked for every route before it is looked up, keep such requests out:
//!
//! 1. The `Host` is a name of this machine. A page whose own name was pointed at 127.0.0.1 (DNS rebinding) names another.
//! 2. A request that says which page sent it (`Origin`, `Sec-Fetch-Site`) comes from a page of this server itself.
//! 3. A POST is none that a page can send without a preflight, which nothing here answers: its `content-type` is no form's and
//!    no plain text, or it has the header [`CLIENT`]. This holds for browsers that leave out what rule 2 reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method};
use serde_json::json;
use shared::Error;
use shared::api::Response;

/// A header of any value: pages can't send it without a preflight.
pub const CLIENT: &str = "x-tarn-client";

/// The types that forms and beacons send without a preflight (the Fetch standard's "CORS-safelisted" ones).
const SIMPLE_TYPES: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names and origins that are let in beside this machine's own: of a proxy in front of it, say.
#[derive(Debug, Clone, Default)]
pub struct AccessPolicy {
    /// Host names without a port.
    pub hosts: Vec<String>,
    /// E.g. `https://lake.example`.
    pub origins: Vec<String>,
}

impl AccessPolicy {
    /// Lets the request in, or gives the answer that refuses it.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Box<Response>> {
        let authority = self.host(head)?;
        self.origin(head, &authority)?;
        content_type(head)
    }

    /// The host and port that the request names.
    fn host(&self, head: &Parts) -> Result<String, Box<Response>> {
        let mut named = head.headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or_default().to_owned());
        let first = named.next().or_else(|| head.uri.authority().map(ToString::to_string)).unwrap_or_default();
        let others = named.chain(head.uri.authority().map(ToString::to_string));
        if let Some(host) = std::iter::once(first.clone()).chain(others).find(|host| !self.knows(host)) {
            return Err(denied(format!(
                "expected the host `127.0.0.1`, `localhost` or one that `--allow-host` names, found `{host}`"
            )));
        }
        Ok(first)
    }

    fn knows(&self, authority: &str) -> bool {
        let name = without_port(authority).to_ascii_lowercase();
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_loopback = name == "localhost"
            || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
            || address.and_then(|text| text.parse().ok()).is_some_and(|ip: Ipv6Addr| ip.is_loopback());
        is_loopback || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(&name))
    }

    /// Refuses what a page of another origin sends, be it only of another port.
    fn origin(&self, head: &Parts, authority: &str) -> Result<(), Box<Response>> {
        let own = format!("http://{authority}");
        let known = |origin: &str| {
            origin.eq_ignore_ascii_case(&own) || self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
        };
        let mut origins = head.headers.get_all(ORIGIN).iter().map(|value| value.to_str().unwrap_or_default());
        if let Some(origin) = origins.find(|origin| !known(origin)) {
            return Err(denied(format!(
                "expected a request of a program, or of a page from `{own}` or an origin that `--allow-origin` names, found \
                 one of a page from `{origin}`"
            )));
        }
        let mut sites = head.headers.get_all(FETCH_SITE).iter().map(|value| value.to_str().unwrap_or_default());
        match sites.find(|site| !matches!(*site, "same-origin" | "none")) {
            Some(site) => Err(denied(format!(
                "expected a request of a program or of a page from `{own}`, found one that its browser calls `{site}`"
            ))),
            None => Ok(()),
        }
    }
}

/// Refuses a POST that any page could have made a browser send.
fn content_type(head: &Parts) -> Result<(), Box<Response>> {
    if head.method != Method::POST || head.headers.contains_key(CLIENT) {
        return Ok(());
    }
    let types: Vec<_> =
        head.headers.get_all(CONTENT_TYPE).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let found = match types.as_slice() {
        [one] if is_media_type(essence(one)) && !SIMPLE_TYPES.contains(&essence(one).to_ascii_lowercase().as_str()) => {
            return Ok(());
        }
        [] => "no `content-type`".to_owned(),
        types => format!("`{}`", types.join(", ")),
    };
    let message = format!(
        "expected a content type such as `application/json` or `application/x-ndjson`, or the header `{CLIENT}`, found {found}: a \
         page of another site could have sent this"
    );
    let body = json!({"error": {"kind": "Invalid", "message": message}});
    Err(Box::new(Response::new(415, "application/json", body.to_string())))
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether the text is `type/subtype`, both tokens of HTTP.
fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => authority,
    }
}

fn denied(message: String) -> Box<Response> {
    Box::new(Response::error(&Error::denied(message)))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn status(policy: &AccessPolicy, method: &str, headers: &[(&str, &str)]) -> u16 {
        let request =
            headers.iter().fold(Request::builder().method(method).uri("/query"), |r, (n, v)| r.header(*n, *v));
        let (head, ()) = request.body(()).unwrap().into_parts();
        policy.admit(&head).map_or_else(|refusal| refusal.status, |()| 200)
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:4000");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let policy = AccessPolicy { hosts: vec!["lake.example".into()], ..AccessPolicy::default() };
        for host in ["127.0.0.1:4000", "localhost", "LOCALHOST:1", "[::1]:4000", "127.8.9.1", "lake.example:80"] {
            assert_eq!(status(&policy, "GET", &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example:4000", "localhost.evil.example", "0.0.0.0:4000", "", "[::1"]
        {
            assert_eq!(status(&policy, "GET", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&policy, "GET", &[]), 403);
        assert_eq!(status(&policy, "GET", &[HERE, ("host", "evil.example")]), 403);
    }

    #[test]
    fn pages_of_other_origins_are_refused_whatever_they_send() {
        let policy = AccessPolicy { origins: vec!["https://lake.example".into()], ..AccessPolicy::default() };
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            for origin in ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:4000", "null", ""] {
                assert_eq!(status(&policy, method, &[HERE, JSON, ("origin", origin)]), 403, "{method} {origin}");
            }
            for site in ["cross-site", "same-site"] {
                assert_eq!(status(&policy, method, &[HERE, JSON, ("sec-fetch-site", site)]), 403, "{method} {site}");
            }
        }
        for origin in ["http://127.0.0.1:4000", "https://lake.example"] {
            assert_eq!(
                status(&policy, "POST", &[HERE, JSON, ("origin", origin), ("sec-fetch-site", "same-origin")]),
                200
            );
        }
        assert_eq!(status(&policy, "GET", &[HERE, ("sec-fetch-site", "none")]), 200, "a typed address");
    }

    #[test]
    fn a_post_is_none_that_a_form_or_a_beacon_could_send() {
        let policy = AccessPolicy::default();
        for ty in ["application/json", "application/x-ndjson", "text/csv; charset=utf-8", "application/octet-stream"] {
            assert_eq!(status(&policy, "POST", &[HERE, ("content-type", ty)]), 200, "{ty}");
        }
        for ty in [
            "text/plain",
            "Text/Plain; x=application/json",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
            "text/plain, application/json",
            "application/json, text/plain",
            "json",
            "",
        ] {
            assert_eq!(status(&policy, "POST", &[HERE, ("content-type", ty)]), 415, "{ty}");
            assert_eq!(status(&policy, "POST", &[HERE, ("content-type", ty), (CLIENT, "curl")]), 200, "{ty}");
        }
        assert_eq!(status(&policy, "POST", &[HERE]), 415);
        assert_eq!(status(&policy, "POST", &[HERE, JSON, ("content-type", "text/plain")]), 415);
    }
}
