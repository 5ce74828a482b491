//! The stores of a simulation: one that gives objects the time of the world, and that of a process, for which calls go wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use shared::clock::Clock;

use super::{Failure, Process, World};

#[derive(Debug)]
pub(super) struct SimulatedStore {
    process: Process,
    inner: Arc<dyn ObjectStore>,
}

impl SimulatedStore {
    pub(super) fn wrap(process: &Process, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { process: process.clone(), inner })
    }
}

/// A store tells neither from the other: its caller may have to look.
fn failed<T>(failure: Failure) -> Result<T> {
    Err(object_store::Error::Generic { store: "simulated", source: format!("simulated: {failure:?}").into() })
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulated({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.process.call(&format!("put {location}"), failed, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, opts);
        let inner = self.process.call(&format!("begin {location}"), failed, begin).await?;
        Ok(Box::new(SimulatedUpload { process: self.process.clone(), path: location.clone(), inner }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.process.call(&format!("get {location}"), failed, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.process.call(&format!("get {location}"), failed, self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (process, inner) = (self.process.clone(), Arc::clone(&self.inner));
        let delete = move |location: Result<Path>| {
            let (process, inner) = (process.clone(), Arc::clone(&inner));
            async move {
                let location = location?;
                let one = futures::stream::iter([Ok(location.clone())]).boxed();
                let mut deleted = inner.delete_stream(one);
                let work = async { deleted.next().await.unwrap_or_else(|| Ok(location.clone())) };
                process.call(&format!("delete {location}"), failed, work).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (process, inner, prefix) = (self.process.clone(), Arc::clone(&self.inner), prefix.cloned());
        let list = async move {
            let what = format!("list {}", prefix.as_ref().map_or("", |path| path.as_ref()));
            let list = inner.list(prefix.as_ref()).try_collect::<Vec<ObjectMeta>>();
            let listed = match process.call(&what, failed, list).await {
                Ok(listed) => listed.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(listed)
        };
        futures::stream::once(list).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let what = format!("list {}", prefix.map_or("", |path| path.as_ref()));
        self.process.call(&what, failed, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.process.call(&format!("copy {from} to {to}"), failed, self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct SimulatedUpload {
    process: Process,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for SimulatedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.process.call(&format!("complete {}", self.path), failed, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

/// A store whose objects bear the time of the world.
#[derive(Debug)]
pub(super) struct TimedStore {
    world: Arc<World>,
    inner: Arc<dyn ObjectStore>,
}

impl TimedStore {
    pub(super) fn wrap(world: &Arc<World>, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { world: Arc::clone(world), inner })
    }

    fn written(&self, location: &Path) {
        written(&self.world.written_ms, location, self.world.now_ms());
    }
}

type WrittenMs = Arc<Mutex<BTreeMap<String, i64>>>;

fn written(written_ms: &WrittenMs, location: &Path, now_ms: i64) {
    written_ms.lock().unwrap().insert(location.to_string(), now_ms);
}

fn timed(written_ms: &WrittenMs, meta: ObjectMeta) -> ObjectMeta {
    let at_ms = written_ms.lock().unwrap().get(meta.location.as_ref()).copied();
    let last_modified = at_ms.and_then(DateTime::from_timestamp_millis).unwrap_or(meta.last_modified);
    ObjectMeta { last_modified, ..meta }
}

impl fmt::Display for TimedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timed({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TimedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.written(location);
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(TimedUpload { world: Arc::clone(&self.world), path: location.clone(), inner }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(location, options).await?;
        Ok(GetResult { meta: timed(&self.world.written_ms, got.meta.clone()), ..got })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let written_ms = Arc::clone(&self.world.written_ms);
        self.inner.list(prefix).map_ok(move |meta| timed(&written_ms, meta)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await?;
        let objects = listed.objects.into_iter().map(|meta| timed(&self.world.written_ms, meta)).collect();
        Ok(ListResult { objects, ..listed })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.written(to);
        Ok(())
    }
}

#[derive(Debug)]
struct TimedUpload {
    world: Arc<World>,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for TimedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        written(&self.world.written_ms, &self.path, self.world.now_ms());
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
