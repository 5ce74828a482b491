//! The one place that knows how to reach AWS: configuration, credentials, time limits, retries, and what its errors mean.
//!
//! Configuration is `aws-config`'s: profiles, roles, regions, `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`. Credentials
//! are looked up when the first call needs them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_types::service_config::ServiceConfigKey;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::client::CredentialProvider;
use object_store::{BackoffConfig, ClientOptions, RetryConfig as StoreRetry};
use tokio::sync::Mutex;
use url::Url;

use shared::error::Context;
use shared::{Error, Result};

mod errors;
mod region;

pub(crate) use errors::{Call, kind_of_code};
use region::{BucketRegion, InRegion};

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one attempt of a call may take, and all of them together: below the shortest time-out of a function.
const ATTEMPT: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(25);
/// Attempts of one call, with exponentially growing random waits between them.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long before their end credentials are asked for anew.
const RENEWED_BEFORE: Duration = Duration::from_secs(120);

/// The account, region and endpoints that the environment names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
}

impl Aws {
    /// Reads the environment and the profile. Makes no call to AWS.
    ///
    /// # Errors
    /// `Invalid` when no region is named.
    pub async fn load() -> Result<Self> {
        Self::load_with(aws_config::defaults(BehaviorVersion::latest())).await
    }

    /// As [`Aws::load`], with what `loader` overrides.
    ///
    /// # Errors
    /// As [`Aws::load`].
    pub async fn load_with(loader: ConfigLoader) -> Result<Self> {
        let tls = Provider::Rustls(CryptoMode::Ring);
        let client = aws_smithy_http_client::Builder::new().tls_provider(tls).build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(CALL)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_WAIT)
            .with_max_backoff(LONGEST_WAIT);
        let config = loader.http_client(client).timeout_config(timeouts).retry_config(retries).load().await;
        if config.region().is_none() {
            return Err(Error::invalid(
                "expected an AWS region in AWS_REGION, AWS_DEFAULT_REGION or the profile's `region`, found none",
            ));
        }
        Ok(Self { config })
    }

    /// What the SDK's clients are made of.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// The endpoint that the environment or the profile gives for a service (`S3`, `Glue`); `None` for AWS's own.
    fn endpoint(&self, service: &str) -> Option<String> {
        let key = ServiceConfigKey::builder().service_id(service).env("AWS_ENDPOINT_URL").profile("endpoint_url");
        let own = key.build().ok().and_then(|key| self.config.service_config()?.load_config(key));
        own.or_else(|| self.config.endpoint_url().map(str::to_owned))
    }

    /// The SDK's client of S3. Emulators are addressed by path: they have no host name for each bucket.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&self.config).force_path_style(self.endpoint("S3").is_some());
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// The bucket of an `s3://` URL. It has a host name of its own on AWS, unless a dot in its name would be one too many for the
    /// certificate.
    ///
    /// # Errors
    /// `Invalid` when the URL names no bucket.
    pub(crate) fn bucket(&self, url: &Url) -> Result<AmazonS3> {
        let bucket = url.host_str().filter(|host| !host.is_empty());
        let bucket = bucket
            .ok_or_else(|| Error::invalid(format!("expected a URL such as `s3://bucket/prefix/`, found `{url}`")))?;
        let backoff = BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, ..BackoffConfig::default() };
        let region = self.config.region().map_or("us-east-1", |region| region.as_ref());
        let endpoint = self.endpoint("S3");
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(endpoint.is_none() && !bucket.contains('.'))
            .with_http_connector(InRegion(BucketRegion { bucket: bucket.to_owned(), region: region.to_owned() }))
            .with_credentials(Arc::new(Credentials::new(self.config.clone())))
            .with_client_options(ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(CALL))
            .with_retry(StoreRetry { backoff, retry_timeout: 2 * CALL, ..StoreRetry::default() });
        if let Some(endpoint) = endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        builder.build().context(|| format!("opening the bucket of `{url}`"))
    }
}

/// The SDK's credentials for `object_store`, which asks before every request. Kept until shortly before they expire: the SDK's
/// own clients do so by themselves, its provider may call STS or a sign-on service each time.
#[derive(Debug)]
struct Credentials {
    config: SdkConfig,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl Credentials {
    fn new(config: SdkConfig) -> Self {
        Self { config, kept: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let refused = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Unauthenticated {
            path: "AWS credentials".into(),
            source,
        };
        let mut kept = self.kept.lock().await;
        // Against a time that AWS gave.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        if let Some(Kept { credential, expires }) = &*kept
            && expires.is_none_or(|at| at > now + RENEWED_BEFORE)
        {
            return Ok(credential.clone());
        }
        let provider = self.config.credentials_provider().ok_or_else(|| refused("no provider is configured".into()))?;
        let found = provider.provide_credentials().await.map_err(|e| refused(Box::new(e)))?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().into(),
            secret_key: found.secret_access_key().into(),
            token: found.session_token().map(str::to_owned),
        });
        *kept = Some(Kept { credential: credential.clone(), expires: found.expiry() });
        Ok(credential)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_config::Region;
    use aws_credential_types::Credentials as Found;
    use aws_credential_types::provider::{SharedCredentialsProvider, future};
    use hyper::Method;
    use object_store::signer::Signer;

    use super::*;

    /// Gives credentials that last for some time, and counts how often.
    #[derive(Debug)]
    struct Counting(Arc<AtomicU32>, Option<Duration>);

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            let expires = self.1.map(|lasts| SystemTime::now() + lasts);
            future::ProvideCredentials::ready(Ok(Found::new(format!("key {number}"), "secret", None, expires, "test")))
        }
    }

    /// Host and path of an object's address.
    async fn address(endpoint: Option<&str>, bucket: &str) -> String {
        let credentials = SharedCredentialsProvider::new(Counting(Arc::default(), None));
        let mut config = SdkConfig::builder().region(Region::new("eu-west-1")).credentials_provider(credentials);
        config.set_endpoint_url(endpoint.map(str::to_owned));
        let store = Aws { config: config.build() }.bucket(&Url::parse(&format!("s3://{bucket}/")).unwrap()).unwrap();
        let signed = store.signed_url(Method::GET, &"a/b".into(), Duration::from_secs(60)).await.unwrap();
        format!("{}{}", signed.authority(), signed.path())
    }

    #[tokio::test]
    async fn a_bucket_has_a_host_name_of_its_own_where_aws_gives_it_one() {
        assert_eq!(address(None, "lake").await, "lake.s3.eu-west-1.amazonaws.com/a/b");
        assert_eq!(address(None, "lake.example.org").await, "s3.eu-west-1.amazonaws.com/lake.example.org/a/b");
        assert_eq!(address(Some("http://127.0.0.1:9"), "lake").await, "127.0.0.1:9/lake/a/b");
    }

    async fn keys(lasts: Option<Duration>) -> Vec<String> {
        let provider = SharedCredentialsProvider::new(Counting(Arc::default(), lasts));
        let credentials = Credentials::new(SdkConfig::builder().credentials_provider(provider).build());
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(credentials.get_credential().await.unwrap().key_id.clone());
        }
        keys
    }

    #[tokio::test]
    async fn credentials_are_asked_for_again_shortly_before_they_expire() {
        assert_eq!(keys(None).await, ["key 1"; 3]);
        assert_eq!(keys(Some(Duration::from_secs(3_600))).await, ["key 1"; 3]);
        assert_eq!(keys(Some(Duration::from_secs(60))).await, ["key 1", "key 2", "key 3"]);
    }
}
