//! Objects in S3: `object_store` reads and writes them; removals, presigned addresses and the reason why a folder can't be listed are
//! the SDK's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::presigning::PresigningConfig;
use object_store::path::Path;
use shared::storage::{NativeApi, Root, Storage};
use shared::{Error, Result};
use url::Url;

use crate::client::{Aws, Call};

/// Opens the bucket of each root, an `s3://` URL; only objects below a root can be reached.
///
/// # Errors
/// `Invalid` for a URL that names no bucket.
pub fn open(aws: &Aws, roots: &[Url]) -> Result<Storage> {
    let root = |url: &Url| Ok(Root::new(url, Arc::new(aws.bucket(url)?)).with_native(Arc::new(S3Api(aws.s3()))));
    Ok(Storage::new(roots.iter().map(root).collect::<Result<_>>()?))
}

/// The SDK's client, for what `object_store` does not do, or does not tell.
#[derive(Debug)]
struct S3Api(aws_sdk_s3::Client);

#[async_trait]
impl NativeApi for S3Api {
    async fn presigned_put(&self, url: &Url, path: &Path, expires: Duration) -> Result<String> {
        let put = self.0.put_object().bucket(bucket(url)?).key(path.as_ref()).presigned(expiring(expires)?).await;
        let signed = put.map_err(|e| Call::repeatable("s3:PutObject", &format!("`{url}`")).failed(e))?;
        Ok(signed.uri().to_owned())
    }

    async fn presigned_get(&self, url: &Url, path: &Path, expires: Duration) -> Result<String> {
        let get = self.0.get_object().bucket(bucket(url)?).key(path.as_ref()).presigned(expiring(expires)?).await;
        let signed = get.map_err(|e| Call::repeatable("s3:GetObject", &format!("`{url}`")).failed(e))?;
        Ok(signed.uri().to_owned())
    }

    async fn delete(&self, url: &Url, path: &Path) -> Result<()> {
        let answer = self.0.delete_object().bucket(bucket(url)?).key(path.as_ref()).send().await;
        answer.map(drop).map_err(|e| Call::repeatable("s3:DeleteObject", &format!("`{url}`")).failed(e))
    }

    async fn can_list(&self, folder: &Url, path: &Path) -> Result<()> {
        let ask = self.0.list_objects_v2().bucket(bucket(folder)?).prefix(format!("{path}/")).max_keys(1);
        let answer = ask.send().await;
        answer.map(drop).map_err(|e| Call::repeatable("s3:ListBucket", &format!("`{folder}`")).failed(e))
    }
}

fn expiring(expires: Duration) -> Result<PresigningConfig> {
    PresigningConfig::expires_in(expires)
        .map_err(|e| Error::invalid(format!("expected at most 7 days, found {} s", expires.as_secs())).with_source(e))
}

fn bucket(url: &Url) -> Result<&str> {
    url.host_str().ok_or_else(|| Error::invalid(format!("expected a URL such as `s3://bucket/key`, found `{url}`")))
}
