//! `PUT /files/{location}/{path…}`: an upload into the folder of a crawled location. `POST /uploads/{location}/{path…}`: an
//! address on S3 to which a client uploads by itself.

use std::time::Duration;

use serde_json::json;
use shared::api::{Request, Response};
use shared::{Error, Result};
use url::Url;

use crate::Ingest;

/// Bytes of a path's part at most, as file systems have it.
const MAX_PART_BYTES: usize = 255;
/// Bytes of a path at most, as S3 has it.
const MAX_PATH_BYTES: usize = 1_024;
/// How long a client may take to begin an upload by itself.
const UPLOAD_EXPIRES: Duration = Duration::from_secs(3_600);

impl Ingest {
    /// Stores the body as it came and answers 201 with the object's URL, size and etag. With `x-tarn-if-absent: true` an
    /// object that exists stays, and the answer is 409.
    pub(crate) async fn file(&self, location: &str, request: &Request) -> Result<Response> {
        let folder = self.project.location_url(location, &self.ports.keys)?;
        let url = object_url(&folder, path_below("files", location, &request.path)?)?;
        if if_absent(request)? {
            self.ports.storage.put_if_absent(&url, request.body.clone()).await?;
        } else {
            self.ports.storage.put(&url, request.body.clone()).await?;
        }
        let info = self.ports.storage.head(&url).await?;
        tracing::info!(location, %url, bytes = info.size, "file stored");
        let answer = json!({"url": url.as_str(), "size": info.size, "etag": info.etag});
        Ok(Response::json(201, &answer)?.with_header("location", url.as_str()))
    }

    /// Answers 201 with `upload_url`, to which the client puts the file's bytes within `expires_in` seconds, and `url`, where the
    /// object will be. It is crawled as any other object is.
    pub(crate) async fn upload(&self, location: &str, request: &Request) -> Result<Response> {
        let folder = self.project.location_url(location, &self.ports.keys)?;
        let url = object_url(&folder, path_below("uploads", location, &request.path)?)?;
        let upload_url = self.ports.storage.presigned_put(&url, UPLOAD_EXPIRES).await?;
        tracing::info!(location, %url, "upload prepared");
        let expires_in = UPLOAD_EXPIRES.as_secs();
        let answer = json!({"url": url.as_str(), "method": "PUT", "upload_url": upload_url, "expires_in": expires_in});
        Response::json(201, &answer)
    }
}

/// What follows `/{route}/{location}/`.
fn path_below<'a>(route: &str, location: &str, path: &'a str) -> Result<&'a str> {
    let below =
        || path.strip_prefix('/')?.strip_prefix(route)?.strip_prefix('/')?.strip_prefix(location)?.strip_prefix('/');
    below().ok_or_else(|| Error::invalid(format!("expected `/{route}/{location}/{{path}}`, found `{path}`")))
}

/// The object at `path` below `folder`.
fn object_url(folder: &Url, path: &str) -> Result<Url> {
    if path.len() > MAX_PATH_BYTES {
        return Err(Error::invalid(format!("expected a path of at most {MAX_PATH_BYTES} bytes, found {}", path.len())));
    }
    let parts: Vec<_> = path.split('/').collect();
    for part in &parts {
        check_part(part, path)?;
    }
    let mut url = folder.clone();
    url.path_segments_mut()
        .map_err(|()| Error::invalid(format!("expected a folder's URL, found `{folder}`")))?
        .pop_if_empty()
        .extend(parts);
    Ok(url)
}

fn check_part(part: &str, path: &str) -> Result<()> {
    let fits = !matches!(part, "" | "." | "..") && part.len() <= MAX_PART_BYTES;
    let plain = !part.contains('\\') && !part.chars().any(char::is_control);
    if fits && plain {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "expected a relative path whose parts are names of 1 to {MAX_PART_BYTES} bytes without backslashes and control \
         characters, found `{}` in `{}`",
        part.escape_debug(),
        path.escape_debug()
    )))
}

fn if_absent(request: &Request) -> Result<bool> {
    match request.header("x-tarn-if-absent") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => {
            Err(Error::invalid(format!("expected `x-tarn-if-absent` to be `true` or `false`, found `{other}`")))
        }
    }
}
