//! How a command reaches the lakehouse: over HTTP when it is named by its URL or a `tarn up` has the data directory, otherwise in
//! this process. A `tarn up` that is starting anew finds the directory free, or waits for the command.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, stream};
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde_json::Value;
use shared::api::{Body, Request, Response};
use shared::config::Settings;
use shared::lock::DataLock;
use shared::{Error, ErrorKind, Result};

use super::signing::Authorization;
use crate::runtime::access::CLIENT;
use crate::runtime::{OpenLakehouse, Takeover};

/// What [`CLIENT`] says.
const PROGRAM: &str = concat!("tarn/", env!("CARGO_PKG_VERSION"));

/// How long a runtime that was killed is waited for: whoever keeps it up starts it again.
const COMES_BACK: Duration = Duration::from_secs(5);
/// How often one that waits looks.
const LOOK: Duration = Duration::from_millis(50);

/// Which lakehouse a command is about.
#[derive(Debug, Clone)]
pub(crate) struct Lakehouse {
    pub(crate) settings: Settings,
    /// The HTTP API of a deployed one.
    pub(crate) api: Option<Api>,
}

/// The HTTP API of a deployed lakehouse.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    /// A JSON web token to send along.
    pub(crate) token: Option<String>,
    /// Sign requests though the address does not tell that AWS is behind it.
    pub(crate) signed: bool,
}

/// A way to the functions.
#[derive(Debug)]
pub(crate) enum Caller {
    /// A runtime in another process (or in this one, by HTTP).
    Remote(Remote),
    /// The functions in this process.
    Local(Box<OpenLakehouse>),
}

/// A runtime by its URL.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    client: reqwest::Client,
    url: String,
    /// The data directory whose lock tells the runtime's URL: a new one after each start.
    data: Option<PathBuf>,
    authorization: Authorization,
}

impl Remote {
    /// The runtime that has the data directory, if one does.
    fn of(data: &Path) -> Result<Option<Self>> {
        match DataLock::holder(data)? {
            Some(holder) if !holder.note.is_empty() => {
                Ok(Some(Self { data: Some(data.to_owned()), ..Self::new(&holder.note)? }))
            }
            _ => Ok(None),
        }
    }

    /// A runtime on this machine: `url` as `http://127.0.0.1:4000`. A proxy of the environment is passed by.
    ///
    /// # Errors
    /// `Bug` when no client can be made.
    pub(crate) fn new(url: &str) -> Result<Self> {
        Self::with(reqwest::Client::builder().no_proxy(), url)
    }

    /// A deployed lakehouse: its `url` has a path if the routes lie below one.
    ///
    /// # Errors
    /// As [`Authorization::of`]; `Invalid` when it is no URL.
    pub(crate) async fn deployed(api: &Api) -> Result<Self> {
        let url = parsed(&api.url)?;
        let authorization = Authorization::of(&url, api.token.clone(), api.signed).await?;
        let local = url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127."));
        let client = reqwest::Client::builder();
        let remote = Self::with(if local { client.no_proxy() } else { client }, &api.url)?;
        Ok(Self { authorization, ..remote })
    }

    fn with(client: reqwest::ClientBuilder, url: &str) -> Result<Self> {
        // Who is sent elsewhere for a stored answer must not send along what the API alone is to have.
        let redirects = Policy::custom(|attempt| match attempt.status() {
            StatusCode::SEE_OTHER => attempt.stop(),
            _ => Policy::default().redirect(attempt),
        });
        let client = client
            .redirect(redirects)
            .build()
            .map_err(|e| Error::bug("an HTTP client can't be made").with_source(e))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { client, url, data: None, authorization: Authorization::None })
    }

    /// Where the runtime is now: what the lock says, or the last that was known while nobody has the directory.
    fn address(&self) -> Result<String> {
        let holder = self.data.as_deref().map(DataLock::holder).transpose()?.flatten();
        Ok(holder.map(|holder| holder.note).filter(|url| !url.is_empty()).unwrap_or_else(|| self.url.clone()))
    }

    /// Sends the request and waits for its answer, however long that takes.
    ///
    /// # Errors
    /// `Retry` when nobody answers, `Denied` without credentials to sign with; the answer's own status is for the caller to judge.
    pub(crate) async fn call(&self, request: Request) -> Result<Response> {
        self.open(request).await?.whole().await
    }

    /// Sends the request and waits for the head of its answer, or of the stored answer that it names: the bytes come as they are
    /// sent.
    ///
    /// # Errors
    /// As [`Remote::call`]; `Retry` too in the bytes of an answer that breaks off.
    pub(crate) async fn open(&self, request: Request) -> Result<Response<Body>> {
        let (answer, address) = self.send(request).await?;
        let elsewhere = answer.headers().get("location").filter(|_| answer.status() == StatusCode::SEE_OTHER);
        let Some(location) = elsewhere.and_then(|l| l.to_str().ok()) else { return Ok(opened(answer, address)) };
        let location = parsed(location)?;
        let place = location.host_str().unwrap_or_default().to_owned();
        let stored = self.client.get(location).send().await.map_err(|e| {
            Error::retry(format!("the answer is stored at `{place}`, which does not answer"))
                .with_source(e.without_url())
        })?;
        match stored.status() {
            StatusCode::OK => Ok(opened(stored, place)),
            status => {
                let kind = kind_of_status(status.as_u16());
                Err(Error::new(kind, format!("the answer is stored at `{place}`, which answers {}", status.as_u16())))
            }
        }
    }

    /// The answer, and who gives it.
    async fn send(&self, request: Request) -> Result<(reqwest::Response, String)> {
        let method = request.method.parse().map_err(|e| Error::bug("expected an HTTP method").with_source(e))?;
        let address = self.address()?;
        let mut url = parsed(&address)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(request.segments());
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let proof = self.authorization.headers(&url, &request).await?;
        let mut builder = self.client.request(method, url).header(CLIENT, PROGRAM).body(request.body);
        for (name, value) in request.headers.into_iter().chain(proof) {
            builder = builder.header(name, value);
        }
        match builder.send().await {
            Ok(answer) => Ok((answer, address)),
            Err(e) if e.is_builder() => Err(Error::bug("expected a request that HTTP can carry").with_source(e)),
            Err(e) => Err(unreachable(&address, e)),
        }
    }
}

fn unreachable(address: &str, error: reqwest::Error) -> Error {
    Error::retry(format!("the runtime at `{address}` does not answer")).with_source(error)
}

/// An answer whose bytes come as `from` sends them.
fn opened(answer: reqwest::Response, from: String) -> Response<Body> {
    let status = answer.status().as_u16();
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let parts = stream::try_unfold((answer, from), |(mut answer, from)| async move {
        match answer.chunk().await {
            Ok(part) => Ok(part.map(|part| (part, (answer, from)))),
            Err(e) => Err(unreachable(&from, e.without_url())),
        }
    });
    Response { status, headers, body: Body::Parts(parts.boxed()) }
}

impl Caller {
    /// Takes the deployed lakehouse that is named, finds the runtime that has the data directory, or opens the directory: when no
    /// runtime has it, and none that was killed comes back soon. Other commands on it are waited for.
    ///
    /// # Errors
    /// `Conflict`, with the pid, when another command keeps the directory; as [`Remote::deployed`].
    pub(crate) async fn connect(lakehouse: &Lakehouse) -> Result<Self> {
        Self::connect_with(lakehouse, Takeover::Safe).await
    }

    /// As [`Caller::connect`]; `takeover` says what becomes of a lakehouse file that changed, where this process opens the
    /// directory.
    ///
    /// # Errors
    /// As [`Caller::connect`].
    pub(crate) async fn connect_with(lakehouse: &Lakehouse, takeover: Takeover) -> Result<Self> {
        if let Some(api) = &lakehouse.api {
            return Ok(Self::Remote(Remote::deployed(api).await?));
        }
        let settings = &lakehouse.settings;
        if takeover == Takeover::Never && !settings.data.is_dir() {
            let data = settings.data.display();
            return Err(Error::not_found(format!(
                "no data directory `{data}`: `tarn up` makes it, `--data` names another"
            )));
        }
        let began = Instant::now();
        loop {
            if let Some(remote) = Remote::of(&settings.data)? {
                return Ok(Self::Remote(remote));
            }
            let waited = began.elapsed();
            if waited < COMES_BACK && DataLock::left_by_a_killed(&settings.data)?.is_some() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            match OpenLakehouse::open(settings, "", takeover).await {
                // A runtime was quicker.
                Err(error) if error.kind() == ErrorKind::Conflict && waited < COMES_BACK => {
                    tokio::time::sleep(LOOK).await;
                }
                opened => return Ok(Self::Local(Box::new(opened?))),
            }
        }
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// # Errors
    /// `Retry` when nobody answers.
    pub(crate) async fn call(&self, request: Request) -> Result<Response> {
        let began = Instant::now();
        loop {
            let answer = match self {
                Self::Remote(remote) => remote.call(request.clone()).await,
                Self::Local(lakehouse) => return lakehouse.answer(request).await.whole().await,
            };
            // A runtime that takes an edited file over starts anew; what only looks can be asked again.
            match answer {
                Err(error)
                    if error.kind() == ErrorKind::Retry && request.method == "GET" && began.elapsed() < COMES_BACK =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                other => return other,
            }
        }
    }

    /// Sends a request whose answer may come bit by bit.
    ///
    /// # Errors
    /// What the answer says, under its own kind; `Retry` when nobody answers.
    pub(crate) async fn open(&self, mut request: Request) -> Result<Response<Body>> {
        let answer = match self {
            Self::Remote(remote) => remote.open(request).await?,
            Self::Local(lakehouse) => {
                request.streams = true;
                lakehouse.answer(request).await
            }
        };
        if answer.status < 400 { Ok(answer) } else { succeeded(answer.whole().await?).map(Response::from) }
    }

    /// A request whose answer must be a success.
    ///
    /// # Errors
    /// What the answer says, under its own kind.
    pub(crate) async fn ask(&self, request: Request) -> Result<Response> {
        succeeded(self.call(request).await?)
    }

    /// A JSON body out, a JSON answer in.
    ///
    /// # Errors
    /// As [`Caller::ask`].
    pub(crate) async fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        json_body(&self.ask(request(method, path, body)).await?)
    }
}

/// A request with a JSON body, if any.
pub(crate) fn request(method: &str, path: &str, body: Option<&Value>) -> Request {
    let headers = body.map(|_| ("content-type".to_owned(), "application/json".to_owned()));
    Request {
        headers: headers.into_iter().collect(),
        body: body.map_or_else(Bytes::new, |body| body.to_string().into()),
        ..Request::new(method, path, uuid::Uuid::new_v4().to_string())
    }
}

/// The answer, or the error that it carries.
///
/// # Errors
/// Of the kind and with the message that the answer names.
pub(crate) fn succeeded(response: Response) -> Result<Response> {
    if response.status < 400 {
        return Ok(response);
    }
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let text = |place: &str| body.pointer(place).and_then(Value::as_str);
    // What stands in front of the functions has a form of its own.
    let gateway = text("/message").or_else(|| text("/Message"));
    let kind = match (text("/error/kind"), gateway) {
        (Some(kind), _) => kind_of(kind),
        (None, Some(_)) => kind_of_status(response.status),
        (None, None) => ErrorKind::Bug,
    };
    let message = match (text("/error/message"), gateway) {
        (Some(message), _) => message.to_owned(),
        (None, Some(message)) => format!("the API answers {}: {message}", response.status),
        (None, None) => format!("the answer has status {} and no message", response.status),
    };
    Err(Error::new(kind, message))
}

/// The error that `{"kind", "message"}` tells.
pub(crate) fn failure(told: &Value) -> Error {
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    Error::new(kind_of(text("kind")), text("message"))
}

/// The answer's body as JSON.
///
/// # Errors
/// `Bug` when it is none.
pub(crate) fn json_body(response: &Response) -> Result<Value> {
    serde_json::from_slice(&response.body).map_err(|e| Error::bug("expected an answer in JSON").with_source(e))
}

/// What API Gateway means by a status.
fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        413 => ErrorKind::Limit,
        429 | 502..=504 => ErrorKind::Retry,
        _ => ErrorKind::Bug,
    }
}

fn parsed(url: &str) -> Result<url::Url> {
    url::Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::invalid(format!("expected a URL such as `https://host/path`, found `{url}`")))
}

fn kind_of(name: &str) -> ErrorKind {
    use ErrorKind as K;
    [K::Invalid, K::NotFound, K::Denied, K::Conflict, K::Retry, K::Limit, K::OutcomeUnknown, K::Bug]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .unwrap_or(K::Bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_over_http() {
        for kind in ["Invalid", "NotFound", "Denied", "Conflict", "Retry", "Limit", "OutcomeUnknown", "Bug"] {
            let error = succeeded(Response::error(&Error::new(kind_of(kind), "the `reason`"))).unwrap_err();
            assert_eq!((error.kind().as_str(), error.message()), (kind, "the `reason`"));
        }
    }

    #[test]
    fn the_gateway_has_errors_of_its_own() {
        for (status, body, kind) in [
            (403, r#"{"message":"Forbidden"}"#, ErrorKind::Denied),
            (404, r#"{"message":"Not Found"}"#, ErrorKind::NotFound),
            (429, r#"{"message":"Too Many Requests"}"#, ErrorKind::Retry),
            (503, r#"{"message":"Service Unavailable"}"#, ErrorKind::Retry),
            (500, r#"{"message":"Internal Server Error"}"#, ErrorKind::Bug),
        ] {
            let error = succeeded(Response::new(status, "application/json", body)).unwrap_err();
            assert!(error.kind() == kind && error.message().contains(&status.to_string()), "{error}");
        }
    }

    #[test]
    fn an_answer_that_names_no_error_is_a_defect() {
        let error = succeeded(Response::new(502, "text/plain", "oops")).unwrap_err();
        assert!(error.kind() == ErrorKind::Bug && error.message().contains("502"), "{error}");
    }
}
