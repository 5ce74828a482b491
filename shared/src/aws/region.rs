//! S3's answers to a request for a bucket of another region: `object_store` takes them for a passing fault, without a word of
//! the region.

use std::error::Error as StdError;
use std::fmt;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

/// Where S3 says in which region the bucket is.
const REGION: &str = "x-amz-bucket-region";

/// The bucket is in another region than the requests are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongRegion {
    asked: Asked,
    /// Where the bucket is, when the answer says so.
    found: Option<String>,
}

/// A bucket, and the region that requests are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) bucket: String,
    pub(super) region: String,
}

impl WrongRegion {
    /// The one at the bottom of `error`, if there is one.
    pub(crate) fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(wrong) = error.downcast_ref() {
                return Some(wrong);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for WrongRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked: Asked { bucket, region }, found } = self;
        let found = found.as_ref().map_or_else(|| "another".to_owned(), |found| format!("`{found}`"));
        write!(f, "expected bucket `{bucket}` in region `{region}`, found it in {found}")
    }
}

impl StdError for WrongRegion {}

/// Connects as `object_store` does; an answer that tells of another region is a [`WrongRegion`].
#[derive(Debug)]
pub(super) struct InRegion(pub(super) Asked);

impl HttpConnector for InRegion {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, asked: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    asked: Asked,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.inner.execute(request).await?;
        let redirects = match answer.status().as_u16() {
            301 | 302 | 307 | 308 => true,
            400 => false,
            _ => return Ok(answer),
        };
        let (head, body) = answer.into_parts();
        let body = body.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        let header = head.headers.get(REGION).and_then(|value| value.to_str().ok());
        let found = header.or_else(|| element(&text, "Region")).map(str::to_owned);
        if found.as_ref().map_or(redirects, |found| *found != self.asked.region) {
            let wrong = WrongRegion { asked: self.asked.clone(), found };
            return Err(HttpError::new(HttpErrorKind::Unknown, wrong));
        }
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// The text of the first element of this name in an error of S3, which has no attributes and nothing nested.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
