//! What a deployed lakehouse asks of a request: a signature (SigV4, service `execute-api`) or a token.

use std::time::SystemTime;

use adapters_aws::Aws;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use shared::api::Request;
use shared::{Error, ErrorKind, Result};
use url::Url;

const SERVICE: &str = "execute-api";
/// What the host names of AWS's own APIs end with.
const AWS_HOSTS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

/// How requests prove who sends them.
#[derive(Debug, Clone, Default)]
pub(crate) enum Authorization {
    /// Nobody asks, as on this machine.
    #[default]
    None,
    /// A signature with the credentials of the environment or the profile.
    Signature { credentials: SharedCredentialsProvider, region: Region },
    /// `authorization: Bearer …`, for an API that takes JSON web tokens.
    Token(String),
}

impl Authorization {
    /// What an API at `url` asks for: the token if there is one; a signature if the address is AWS's own or `signed` says so.
    ///
    /// # Errors
    /// `Invalid` when a signature is wanted and no region is named, `Denied` when there are no credentials to look for.
    pub(crate) async fn of(url: &Url, token: Option<String>, signed: bool) -> Result<Self> {
        if let Some(token) = token {
            return Ok(Self::Token(token));
        }
        let region = region_of(url);
        if region.is_none() && !signed {
            return Ok(Self::None);
        }
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = region {
            loader = loader.region(region);
        }
        let aws = Aws::load_with(loader).await?;
        let config = aws.config();
        let denied = || Error::new(ErrorKind::Denied, "expected credentials of AWS to sign requests with, found none");
        let credentials = config.credentials_provider().ok_or_else(denied)?;
        let region = config.region().cloned().ok_or_else(|| Error::bug("expected a region"))?;
        Ok(Self::Signature { credentials, region })
    }

    /// The headers that a request to `url` must have besides its own.
    ///
    /// # Errors
    /// `Denied` when credentials can't be had.
    pub(crate) async fn headers(&self, url: &Url, request: &Request) -> Result<Vec<(String, String)>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Token(token) => Ok(vec![("authorization".into(), format!("Bearer {token}"))]),
            Self::Signature { credentials, region } => {
                let found = credentials.provide_credentials().await.map_err(|e| {
                    let message =
                        "expected credentials of AWS in the environment or the profile, found none that serve";
                    Error::new(ErrorKind::Denied, message).with_source(e)
                })?;
                let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
                    Error::bug("a request can't be signed").with_source(e)
                };
                let identity = found.into();
                let parameters = SigningParams::builder()
                    .identity(&identity)
                    .region(region.as_ref())
                    .name(SERVICE)
                    .time(SystemTime::now())
                    .settings(SigningSettings::default())
                    .build()
                    .map_err(|e| failed(Box::new(e)))?
                    .into();
                let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
                let own = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                let headers = own.chain([("host", host)]);
                let body = SignableBody::Bytes(&request.body);
                let signable = SignableRequest::new(&request.method, url.as_str(), headers, body);
                let signable = signable.map_err(|e| failed(Box::new(e)))?;
                let (instructions, _) = sign(signable, &parameters).map_err(|e| failed(Box::new(e)))?.into_parts();
                Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            }
        }
    }
}

/// The region of an address such as `https://abc123.execute-api.eu-central-1.amazonaws.com`.
fn region_of(url: &Url) -> Option<Region> {
    let host = url.host_str()?;
    let own = AWS_HOSTS.iter().find_map(|end| host.strip_suffix(end))?;
    let (_, region) = own.rsplit_once('.')?;
    Some(Region::new(region.to_owned()))
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;
    use crate::cli::caller::request;

    fn url(url: &str) -> Url {
        Url::parse(url).unwrap()
    }

    #[tokio::test]
    async fn only_addresses_of_aws_are_signed_unasked() {
        assert!(matches!(
            Authorization::of(&url("http://127.0.0.1:4000"), None, false).await.unwrap(),
            Authorization::None
        ));
        for address in [
            "https://abc.execute-api.eu-central-1.amazonaws.com",
            "https://x.execute-api.cn-north-1.amazonaws.com.cn/a",
        ] {
            let found = Authorization::of(&url(address), None, false).await.unwrap();
            let Authorization::Signature { region, .. } = found else { panic!("{address} takes signed requests") };
            assert!(address.contains(region.as_ref()));
            let found = Authorization::of(&url(address), Some("t".into()), false).await.unwrap();
            assert!(matches!(found, Authorization::Token(_)), "a token comes first");
        }
        assert_eq!(region_of(&url("https://amazonaws.com.example.org")), None);
    }

    #[tokio::test]
    async fn a_signature_covers_host_path_query_and_headers() {
        let credentials =
            SharedCredentialsProvider::new(Credentials::new("AKID", "secret", Some("session".into()), None, "tests"));
        let authorization = Authorization::Signature { credentials, region: Region::new("eu-central-1") };
        let mut put = request("PUT", "/files/customers/a b.csv", None);
        put.headers.insert("content-type".into(), "text/csv".into());
        let address = url("https://abc.execute-api.eu-central-1.amazonaws.com/files/customers/a%20b.csv?x=1");
        let headers = authorization.headers(&address, &put).await.unwrap();
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap();
        assert!(header("authorization").contains("/eu-central-1/execute-api/aws4_request"));
        assert!(header("authorization").contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token"));
        assert_eq!(header("x-amz-security-token"), "session");
    }
}
