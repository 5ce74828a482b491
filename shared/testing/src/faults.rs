//! An object store that fails by plan: before an operation takes effect, or after it did (the lost reply).
//!
//! ```ignore
//! let plan = Plan::nth(Operation::Put, 2, Fault::LostReply);
//! let storage = ports.storage.wrapped(|store| Faulty::wrap(store, &plan));
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use shared::random;

/// What is done to the store. A whole multipart upload is one `Put`: its fault strikes when it is completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Put,
    Get,
    Delete,
    List,
    Copy,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happened; the same call may succeed later (`Retry`).
    Busy,
    /// It took effect, but the caller is told that it failed (`Retry`, as a timeout is).
    LostReply,
    /// Nothing happened, and never will (`Denied`).
    Refused,
    /// Nothing happens, and nothing ever answers: for tests that kill the caller there.
    Hang,
    /// It took effect, then nothing answers.
    HangAfter,
}

/// Which operations fail. Share one plan to count over several stores.
#[derive(Debug)]
pub struct Plan {
    rule: Rule,
    seen: AtomicU64,
    injected: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Debug)]
enum Rule {
    Nth { operation: Operation, nth: u64, fault: Fault },
    From { operation: Operation, nth: u64, fault: Fault },
    Any { nth: u64, fault: Fault },
    Random { seed: u64, per_mille: u64 },
}

impl Plan {
    /// The `nth` operation of this kind fails, counted from 1.
    pub fn nth(operation: Operation, nth: u64, fault: Fault) -> Arc<Self> {
        Self::new(Rule::Nth { operation, nth, fault })
    }

    /// The `nth` operation of whatever kind fails, counted from 1.
    pub fn nth_of_any(nth: u64, fault: Fault) -> Arc<Self> {
        Self::new(Rule::Any { nth, fault })
    }

    /// The `nth` operation of this kind and all later ones fail, counted from 1: the store is gone.
    pub fn from(operation: Operation, nth: u64, fault: Fault) -> Arc<Self> {
        Self::new(Rule::From { operation, nth, fault })
    }

    /// `per_mille` of a thousand operations fail, busy or with a lost reply; the same seed gives the same faults.
    pub fn random(seed: u64, per_mille: u64) -> Arc<Self> {
        Self::new(Rule::Random { seed, per_mille })
    }

    fn new(rule: Rule) -> Arc<Self> {
        Arc::new(Self { rule, seen: AtomicU64::new(0), injected: AtomicU64::new(0), stopped: AtomicBool::new(false) })
    }

    /// No more faults from here on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Faults so far; a test that saw none has tested nothing.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::SeqCst)
    }

    fn next(&self, operation: Operation) -> Option<Fault> {
        if self.stopped.load(Ordering::SeqCst) {
            return None;
        }
        let fault = match self.rule {
            Rule::Nth { operation: of, nth, fault } => (of == operation && self.count() == nth).then_some(fault),
            Rule::From { operation: of, nth, fault } => (of == operation && self.count() >= nth).then_some(fault),
            Rule::Any { nth, fault } => (self.count() == nth).then_some(fault),
            Rule::Random { seed, per_mille } => {
                let dice = random::mix(seed.wrapping_add(self.count()));
                let fault = if dice & 1 == 0 { Fault::Busy } else { Fault::LostReply };
                ((dice >> 8) % 1_000 < per_mille).then_some(fault)
            }
        };
        self.injected.fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        fault
    }

    fn count(&self) -> u64 {
        self.seen.fetch_add(1, Ordering::SeqCst) + 1
    }
}

impl Fault {
    fn error(self, operation: Operation, path: &Path) -> object_store::Error {
        let source = format!("injected fault {self:?} in {operation:?}").into();
        match self {
            Self::Busy | Self::LostReply | Self::Hang | Self::HangAfter => {
                object_store::Error::Generic { store: "faulty", source }
            }
            Self::Refused => object_store::Error::PermissionDenied { path: path.to_string(), source },
        }
    }
}

/// A store whose operations fail by plan.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

impl Faulty {
    /// For [`shared::storage::Storage::wrapped`].
    pub fn wrap(inner: Arc<dyn ObjectStore>, plan: &Arc<Plan>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, plan: plan.clone() })
    }

    async fn run<T>(&self, operation: Operation, path: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.plan.next(operation) {
            None => work.await,
            Some(Fault::LostReply) => work.await.and(Err(Fault::LostReply.error(operation, path))),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                work.await?;
                std::future::pending().await
            }
            Some(fault) => Err(fault.error(operation, path)),
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.run(Operation::Put, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultyUpload { inner, path: location.clone(), plan: self.plan.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.run(Operation::Get, location, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(Operation::Get, location, self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, plan) = (self.inner.clone(), self.plan.clone());
        locations
            .then(move |location| {
                let faulty = Self { inner: inner.clone(), plan: plan.clone() };
                async move {
                    let location = location?;
                    let one = futures::stream::once(futures::future::ready(Ok(location.clone()))).boxed();
                    let mut deleted = faulty.inner.delete_stream(one);
                    let work = async { deleted.next().await.unwrap_or_else(|| Ok(location.clone())) };
                    faulty.run(Operation::Delete, &location, work).await
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.plan.next(Operation::List) {
            None => self.inner.list(prefix),
            Some(Fault::Hang | Fault::HangAfter) => futures::stream::pending().boxed(),
            Some(fault) => {
                let error = fault.error(Operation::List, &prefix.cloned().unwrap_or_default());
                futures::stream::once(futures::future::ready(Err(error))).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.run(Operation::List, &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(Operation::Copy, to, self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    plan: Arc<Plan>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match self.plan.next(Operation::Put) {
            None => self.inner.complete().await,
            Some(Fault::LostReply) => {
                self.inner.complete().await.and(Err(Fault::LostReply.error(Operation::Put, &self.path)))
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfter) => {
                self.inner.complete().await?;
                std::future::pending().await
            }
            Some(fault) => Err(fault.error(Operation::Put, &self.path)),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use shared::ErrorKind;
    use shared::storage::Storage;

    fn faulty(plan: &Arc<Plan>) -> (Storage, Storage, Url) {
        let sound = Storage::in_memory();
        (sound.wrapped(|store| Faulty::wrap(store, plan)), sound, Url::parse("memory:///x").unwrap())
    }

    #[tokio::test]
    async fn a_lost_reply_leaves_its_effect() {
        let plan = Plan::nth(Operation::Put, 2, Fault::LostReply);
        let (storage, sound, url) = faulty(&plan);
        storage.put(&url, "1").await.unwrap();
        assert_eq!(storage.put(&url, "2").await.unwrap_err().kind(), ErrorKind::Retry);
        assert_eq!(sound.get(&url).await.unwrap(), "2");
        storage.put(&url, "3").await.unwrap();
        assert_eq!(plan.injected(), 1);
    }

    #[tokio::test]
    async fn a_refused_operation_has_no_effect_until_the_plan_is_stopped() {
        let plan = Plan::from(Operation::Delete, 1, Fault::Refused);
        let (storage, sound, url) = faulty(&plan);
        storage.put(&url, "1").await.unwrap();
        for _ in 0..2 {
            assert_eq!(storage.delete(&url).await.unwrap_err().kind(), ErrorKind::Denied);
        }
        assert!(sound.exists(&url).await.unwrap());
        plan.stop();
        storage.delete(&url).await.unwrap();
        assert!(!sound.exists(&url).await.unwrap());
    }

    #[tokio::test]
    async fn a_seed_gives_the_same_faults_again() {
        let outcomes = async |seed| {
            let (storage, _, url) = faulty(&Plan::random(seed, 300));
            let mut outcomes = Vec::new();
            for _ in 0..100 {
                outcomes.push(storage.put(&url, "x").await.is_ok());
            }
            outcomes
        };
        let first = outcomes(7).await;
        assert_eq!(first, outcomes(7).await);
        assert_ne!(first, outcomes(8).await);
        let failed = first.iter().filter(|ok| !**ok).count();
        assert!((10..60).contains(&failed), "{failed}");
    }
}
