//! Parts of URLs, as `java.net.URI` tells them (RFC 2396), and their escapes.

use std::fmt::Write;
use std::sync::LazyLock;

use datafusion::common::Result;
use percent_encoding::percent_decode_str;
use regex::Regex;

use super::call::{Text, invalid, one, two};
use super::{Function, scalar};

const SECTION: &str = "URL";

/// RFC 2396, appendix B.
static PARTS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s)\A(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?\z").ok());

pub(super) fn functions() -> Vec<Function> {
    // A part that is not there is an empty text; what is no URL has no parts.
    let part = |name, signature, does, of: fn(&Url<'_>) -> Option<String>, call, gives| {
        let of = move |url: &str| Url::parse(url).map(|url| of(&url).unwrap_or_default());
        scalar(SECTION, name, does).way(signature, one::<Text, String, _>(of)).example(call, gives)
    };
    vec![
        part(
            "url_extract_fragment",
            "url_extract_fragment(varchar) -> varchar",
            "what follows `#`",
            |url| url.fragment.map(decoded),
            "url_extract_fragment('http://a.b/c?d=e#f')",
            "f",
        ),
        part(
            "url_extract_host",
            "url_extract_host(varchar) -> varchar",
            "the host",
            |url| url.host.map(str::to_owned),
            "url_extract_host('http://me@a.b:80/c')",
            "a.b",
        ),
        part(
            "url_extract_path",
            "url_extract_path(varchar) -> varchar",
            "the path",
            |url| Some(decoded(url.path)),
            "url_extract_path('http://a.b/c%20d?e')",
            "/c d",
        ),
        part(
            "url_extract_protocol",
            "url_extract_protocol(varchar) -> varchar",
            "the protocol",
            |url| url.protocol.map(str::to_owned),
            "url_extract_protocol('https://127.0.0.1:8080/a')",
            "https",
        ),
        part(
            "url_extract_query",
            "url_extract_query(varchar) -> varchar",
            "what follows `?`",
            |url| url.query.map(decoded),
            "url_extract_query('http://a.b/c?d=e#f')",
            "d=e",
        ),
        scalar(SECTION, "url_extract_port", "the port, null where the URL names none")
            .way(
                "url_extract_port(varchar) -> bigint",
                one::<Text, i64, _>(|url: &str| Url::parse(url).and_then(|url| url.port)),
            )
            .example("url_extract_port('http://a.b:8080/c')", "8080"),
        scalar(SECTION, "url_extract_parameter", "the value of the first parameter of that name in the query")
            .way("url_extract_parameter(varchar, varchar) -> varchar", two::<Text, Text, String, _>(parameter))
            .example("url_extract_parameter('http://a.b/c?k1=v%201&k2=v2#k', 'k1')", "v 1"),
        scalar(SECTION, "url_encode", "the text as part of a query")
            .way("url_encode(varchar) -> varchar", one::<Text, String, _>(encode))
            .example("url_encode('a b/ö')", "a+b%2F%C3%B6"),
        scalar(SECTION, "url_decode", "the text that a part of a query stands for")
            .way("url_decode(varchar) -> varchar", one::<Text, String, _>(decode))
            .example("url_decode('a+b%2F%C3%B6')", "a b/ö"),
    ]
}

/// A URL's parts as they are written.
struct Url<'a> {
    protocol: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<i64>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// None for what is no URI.
    fn parse(text: &'a str) -> Option<Self> {
        let parts = PARTS.as_ref()?.captures(text)?;
        let part = |at: usize| parts.get(at).map(|part| part.as_str());
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        };
        if part(1).is_some_and(|scheme| !is_scheme(scheme)) || !text.chars().all(is_allowed) || !has_whole_escapes(text)
        {
            return None;
        }
        let (host, port) = part(2).map_or((None, None), server);
        let is_opaque = part(1).is_some() && part(2).is_none() && !part(3)?.starts_with('/');
        let (path, query) = if is_opaque { ("", None) } else { (part(3)?, part(4)) };
        Some(Self { protocol: part(1), host, port, path, query, fragment: part(5) })
    }
}

/// What may stand in a URI as it is; other characters of Unicode too, but for spaces and control characters.
fn is_allowed(c: char) -> bool {
    match c {
        c if c.is_ascii() => c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c),
        c => !c.is_control() && !c.is_whitespace(),
    }
}

fn has_whole_escapes(text: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let mut escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.all(|(at, _)| is_hex(bytes.get(at + 1)) && is_hex(bytes.get(at + 2)))
}

/// Host and port of an authority; none of one that is no server's.
fn server(authority: &str) -> (Option<&str>, Option<i64>) {
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (address, None),
    };
    let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let is_address = host.starts_with('[') && host.ends_with(']');
    let number = port.map(str::parse::<i32>);
    match number {
        Some(Err(_)) => (None, None),
        _ if !is_name && !is_address => (None, None),
        Some(Ok(port)) => (Some(host), (port >= 0).then_some(i64::from(port))),
        None => (Some(host), None),
    }
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn parameter(url: &str, name: &str) -> Result<Option<String>> {
    let Some(query) = Url::parse(url).and_then(|url| url.query) else { return Ok(None) };
    for argument in query.split('&') {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        if key == name {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte) => encoded.push(char::from(byte)),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String> {
    if !has_whole_escapes(text) {
        return Err(invalid(format!("expected escapes such as `%2F`, found `{text}`")));
    }
    Ok(decoded(&text.replace('+', " ")))
}
