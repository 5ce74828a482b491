//! S3's answers to a request for a bucket of another region: `object_store` takes them for a passing fault, without a word of
//! the region.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use shared::error::Impossible;

/// Where S3 says in which region the bucket is.
const REGION: &str = "x-amz-bucket-region";

/// A bucket, and the region that requests are made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BucketRegion {
    pub(super) bucket: String,
    pub(super) region: String,
}

impl BucketRegion {
    /// That the bucket is in another region, `found` when the answer says which.
    fn misplaced(&self, found: Option<&str>) -> Impossible {
        let found = found.map_or_else(|| "another".to_owned(), |found| format!("`{found}`"));
        Impossible(format!("expected bucket `{}` in region `{}`, found it in {found}", self.bucket, self.region))
    }
}

/// Connects as `object_store` does; an answer that tells of another region is an error.
#[derive(Debug)]
pub(super) struct InRegion(pub(super) BucketRegion);

impl HttpConnector for InRegion {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, asked: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    asked: BucketRegion,
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
        let found = header.or_else(|| element(&text, "Region"));
        if found.map_or(redirects, |found| found != self.asked.region) {
            return Err(HttpError::new(HttpErrorKind::Unknown, self.asked.misplaced(found)));
        }
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// The text of the first element of this name in an error of S3, which has no attributes and nothing nested.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}
