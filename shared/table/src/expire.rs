//! Expiry: snapshots that nobody needs any more leave the metadata, then their files leave the store.
//!
//! What stays is what the Iceberg specification says: every tag and branch within its age, the newest snapshots of a branch by
//! number and by age, and snapshots that no branch leads to while they are young. A token whose newest value only an expired
//! snapshot holds goes into the table's properties, so a replay still finds it; that of a request for a day. Files are removed once the new metadata is
//! current for certain, and only those that no retained snapshot names.

use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use iceberg::spec::{MAIN_BRANCH, Snapshot, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder};

use super::io::IcebergContext;
use super::ownership::{Own, check_alone};
use super::reachable::{self, FileKind, Files};
use super::revise::{Revision, revise};
use super::token::{BOUNDARY, EXPIRED_TOKEN, KEPT_TOKEN, is_kept_token};
use super::{Table, ancestors, properties, refs};
use shared::error::Context;
use shared::{Error, Result};

/// How the keys of tokens begin that a request came with, which its sender may repeat for a day.
const REQUESTS: &str = "sql.";
const REQUEST_AGE_MS: i64 = 86_400_000;
/// Requests that a table's properties remember at most: the newest.
const REQUESTS_KEPT: usize = 1000;
/// Before a request's key, the property with the time of its commit, in milliseconds since the epoch.
const REQUEST_TIME: &str = "tarn.token-time.";

/// How old snapshots get unless the table says otherwise: 5 days, as Iceberg's other writers have it.
const MAX_AGE_MS: i64 = 5 * 86_400_000;

/// Which snapshots to expire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expire {
    /// Snapshots that were committed before this time may go: milliseconds since the epoch (default: as long ago as the table's
    /// `history.expire.max-snapshot-age-ms` says, or 5 days).
    pub older_than_ms: Option<i64>,
    /// Snapshots of each branch that stay however old they are (default: the table's `history.expire.min-snapshots-to-keep`,
    /// or 1).
    pub retain_last: Option<u32>,
    /// Snapshots with this sequence number or an earlier one go however young they are, unless they are among the last of a branch.
    pub through_sequence: Option<i64>,
    /// Snapshots with this sequence number or a later one stay however old they are: somebody reads on from there.
    pub from_sequence: Option<i64>,
    /// Tell what would go, change nothing.
    pub dry_run: bool,
}

/// What expiry removed, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Oldest first.
    pub snapshots: Vec<i64>,
    /// Tags and branches that were past their age.
    pub references: Vec<String>,
    /// Keys of tokens that the table's properties hold from now on.
    pub tokens: Vec<String>,
    pub files: BTreeMap<FileKind, u64>,
    /// Bytes of those files; manifest lists are not counted.
    pub bytes: u64,
    /// Files that could not be removed; the removal of orphans does so.
    pub left_behind: u64,
}

impl Table {
    /// Expires snapshots and removes the files that only they name.
    ///
    /// # Errors
    /// `Invalid` when the table's `gc.enabled` is `false` or a property holds no number; `Conflict` when another table of the
    /// catalog has a claim to the table's folder; `OutcomeUnknown` when it can't be found
    /// out whether the snapshots are gone (no file is removed then); what the store answers when it can't be read.
    pub async fn expire(&self, expire: &Expire) -> Result<Expired> {
        run(self, expire).await.context(|| format!("expiring snapshots of the table `{}`", self.name()))
    }

    /// How many snapshots, tags and branches an expiry would remove, as the metadata that was loaded tells.
    ///
    /// # Errors
    /// `Invalid` when a property holds no number.
    pub fn count_expired(&self, expire: &Expire) -> Result<usize> {
        let metadata = self.metadata.as_ref();
        let kept = Retention::new(metadata, expire, self.ports.clock.now_ms())?.kept(metadata)?;
        let gone = metadata.snapshots().filter(|s| !kept.snapshots.contains(&s.snapshot_id())).count();
        Ok(gone + kept.lost_references.len())
    }

    /// Whether files of the table may be removed: not with the property `gc.enabled` as `false`.
    pub fn is_collected(&self) -> bool {
        check_collected(&self.metadata).is_ok()
    }
}

async fn run(table: &Table, expire: &Expire) -> Result<Expired> {
    let base = table.reload().await?;
    check_collected(&base.metadata)?;
    check_alone(&base).await?;
    let mut expiry = Expiry { expire, expired: Expired::default() };
    if expire.dry_run {
        let Some(after) = expiry.revise(&base).await? else { return Ok(Expired::default()) };
        return removed_files(&base, &after).await.map(|files| told(expiry.expired, &files));
    }
    let revised = revise(base, &mut expiry).await?;
    let Some(before) = revised.before else { return Ok(Expired::default()) };
    let files = removed_files(&before, &revised.now.metadata).await.map_err(|error| {
        error.context("the snapshots are expired, but their files stay until the next removal of orphans")
    })?;
    let mut expired = told(expiry.expired, &files);
    let urls = files.keys().map(|location| table.io.url(location)).collect::<Result<Vec<_>>>()?;
    expired.left_behind = reachable::remove(&table.io, urls).await;
    let (snapshots, bytes) = (expired.snapshots.len(), expired.bytes);
    tracing::info!(table = %table.name(), snapshots, bytes, left_behind = expired.left_behind, "snapshots expired");
    Ok(expired)
}

/// # Errors
/// `Invalid` when the table forbids the removal of files, because other tables may use them.
pub(super) fn check_collected(metadata: &TableMetadata) -> Result<()> {
    match metadata.properties().get("gc.enabled").map(String::as_str) {
        Some("false") => Err(Error::invalid(
            "expected a table whose files may be removed, found the property `gc.enabled` as `false`: another table may use them",
        )),
        _ => Ok(()),
    }
}

fn told(mut expired: Expired, files: &Files) -> Expired {
    for (kind, bytes) in files.values() {
        *expired.files.entry(*kind).or_default() += 1;
        expired.bytes += bytes;
    }
    expired
}

/// The table's own files that the snapshots of `before` name which `after` lacks, and no snapshot of `after` does.
async fn removed_files(before: &Table, after: &TableMetadata) -> Result<Files> {
    let (io, metadata) = (&before.io, &before.metadata);
    let gone = |id: i64| after.snapshot_by_id(id).is_none();
    let mut removed = reachable::named(io, metadata, true, gone).await?;
    let kept = reachable::named(io, after, false, |_| true).await?;
    removed.lists.retain(|list| !kept.lists.contains(list));
    removed.manifests.retain(|location, _| !kept.manifests.contains_key(location));
    let mut files = Files::new();
    reachable::alive(io, removed.manifests.values(), true, |location, kind, size| {
        files.insert(location.to_owned(), (kind, size));
    })
    .await?;
    if !files.is_empty() {
        reachable::alive(io, kept.manifests.values(), false, |location, _, _| {
            files.remove(location);
        })
        .await?;
    }
    files.extend(removed.manifests.into_values().map(reachable::manifest));
    files.extend(removed.lists.into_iter().map(|list| (list, (FileKind::ManifestList, 0))));
    let statistics_kept = reachable::statistics(after, |_| true);
    let statistics = reachable::statistics(metadata, gone);
    files.extend(statistics.into_iter().filter(|(location, _)| !statistics_kept.contains_key(location)));
    let own = Own::of(before)?;
    files.retain(|location, _| io.url(location).is_ok_and(|url| own.holds(&url)));
    Ok(files)
}

struct Expiry<'a> {
    expire: &'a Expire,
    expired: Expired,
}

#[async_trait]
impl Revision for Expiry<'_> {
    async fn revise(&mut self, base: &Table) -> Result<Option<TableMetadata>> {
        let metadata = base.metadata.as_ref();
        let kept = Retention::new(metadata, self.expire, base.ports.clock.now_ms())?.kept(metadata)?;
        let mut gone: Vec<_> = metadata.snapshots().filter(|s| !kept.snapshots.contains(&s.snapshot_id())).collect();
        gone.sort_by_key(|snapshot| (snapshot.sequence_number(), snapshot.timestamp_ms()));
        let snapshots: Vec<i64> = gone.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        if snapshots.is_empty() && kept.lost_references.is_empty() {
            return Ok(None);
        }
        let tokens = Tokens::of(metadata, &kept.snapshots, base.ports.clock.now_ms());
        let mut builder = metadata.clone().into_builder(Some(base.location.clone()));
        for name in &kept.lost_references {
            builder = builder.remove_ref(name);
        }
        for id in &snapshots {
            builder = builder.remove_statistics(*id).remove_partition_statistics(*id);
        }
        let (specs, schemas) = unused(base, &kept.snapshots).await?;
        let built = builder
            .remove_snapshots(&snapshots)
            .remove_properties(&tokens.forgotten)
            .and_then(|builder| builder.set_properties(tokens.properties))
            .and_then(|builder| builder.remove_partition_specs(&specs))
            .and_then(|builder| builder.remove_schemas(&schemas))
            .and_then(TableMetadataBuilder::build)
            .doing(|| "removing snapshots".into())?;
        let (references, tokens) = (kept.lost_references, tokens.keys);
        self.expired = Expired { snapshots, references, tokens, ..Expired::default() };
        Ok(Some(built.metadata))
    }
}

/// Tokens that no snapshot holds any more which a look-up will reach.
#[derive(Default)]
struct Tokens {
    keys: Vec<String>,
    /// What the table remembers them by.
    properties: HashMap<String, String>,
    /// Properties of requests that nobody repeats any more.
    forgotten: Vec<String>,
}

impl Tokens {
    fn of(metadata: &TableMetadata, kept: &HashSet<i64>, now_ms: i64) -> Self {
        let mut tokens = Self::default();
        let mut requests: Vec<(i64, String)> = Vec::new();
        for Lost { key, value, committed_ms, since_rollback } in lost_tokens(metadata, kept) {
            if key.starts_with(REQUESTS) {
                requests.push((committed_ms, key.clone()));
                tokens.properties.insert(format!("{REQUEST_TIME}{key}"), committed_ms.to_string());
            }
            if since_rollback && is_kept_token(&key) {
                // What a rollback kept counts before what has expired.
                tokens.properties.insert(format!("{KEPT_TOKEN}{key}"), value.clone());
            }
            tokens.properties.insert(format!("{EXPIRED_TOKEN}{key}"), value);
            tokens.keys.push(key);
        }
        let remembered = metadata
            .properties()
            .iter()
            .filter_map(|(key, time)| Some((time.parse().unwrap_or(0), key.strip_prefix(REQUEST_TIME)?.to_owned())));
        requests.extend(remembered);
        requests.sort_unstable_by(|a, b| b.cmp(a));
        for (place, (committed_ms, key)) in requests.into_iter().enumerate() {
            if place >= REQUESTS_KEPT || committed_ms < now_ms.saturating_sub(REQUEST_AGE_MS) {
                tokens.keys.retain(|lost| *lost != key);
                for property in [format!("{EXPIRED_TOKEN}{key}"), format!("{REQUEST_TIME}{key}")] {
                    tokens.properties.remove(&property);
                    tokens.forgotten.push(property);
                }
            }
        }
        tokens.keys.sort_unstable();
        tokens
    }
}

/// The newest value of a token among the snapshots that expire.
struct Lost {
    key: String,
    value: String,
    committed_ms: i64,
    /// Whether it came after the last rollback that kept tokens.
    since_rollback: bool,
}

/// What expiring snapshots hold of each token. Also where a snapshot that stays has a newer value: the table may go back to one
/// before that.
fn lost_tokens(metadata: &TableMetadata, kept: &HashSet<i64>) -> Vec<Lost> {
    let boundary = metadata.properties().get(BOUNDARY).and_then(|id| id.parse::<i64>().ok());
    let mut since_rollback = boundary.is_some();
    let mut reachable = true;
    let mut held = HashSet::new();
    let mut lost = Vec::new();
    for snapshot in ancestors(metadata, metadata.current_snapshot_id()) {
        reachable &= kept.contains(&snapshot.snapshot_id());
        since_rollback &= boundary != Some(snapshot.snapshot_id());
        for (key, value) in &snapshot.summary().additional_properties {
            let is_token = is_kept_token(key) || key.starts_with(REQUESTS);
            if is_token && !reachable && held.insert(key.clone()) {
                let (key, value, committed_ms) = (key.clone(), value.clone(), snapshot.timestamp_ms());
                lost.push(Lost { key, value, committed_ms, since_rollback });
            }
        }
    }
    lost
}

/// The partition specs and schemas that nothing retained was written with.
async fn unused(base: &Table, kept: &HashSet<i64>) -> Result<(Vec<i32>, Vec<i32>)> {
    let metadata = &base.metadata;
    let named = reachable::named(&base.io, metadata, false, |id| kept.contains(&id)).await?;
    let mut specs: HashSet<_> = named.manifests.values().map(|manifest| manifest.partition_spec_id).collect();
    specs.insert(metadata.default_partition_spec_id());
    let snapshots = metadata.snapshots().filter(|s| kept.contains(&s.snapshot_id()));
    let mut schemas: HashSet<_> = snapshots.filter_map(|snapshot| snapshot.schema_id()).collect();
    schemas.insert(metadata.current_schema_id());
    let unused_specs = metadata.partition_specs_iter().map(|s| s.spec_id()).filter(|id| !specs.contains(id));
    let unused_schemas = metadata.schemas_iter().map(|s| s.schema_id()).filter(|id| !schemas.contains(id));
    Ok((unused_specs.collect(), unused_schemas.collect()))
}

/// How long snapshots, tags and branches stay.
struct Retention {
    now_ms: i64,
    older_than_ms: i64,
    retain_last: usize,
    through_sequence: Option<i64>,
    from_sequence: Option<i64>,
    max_reference_age_ms: i64,
}

struct Kept {
    snapshots: HashSet<i64>,
    lost_references: Vec<String>,
}

impl Retention {
    fn new(metadata: &TableMetadata, expire: &Expire, now_ms: i64) -> Result<Self> {
        let max_age_ms = number(metadata, "history.expire.max-snapshot-age-ms")?.unwrap_or(MAX_AGE_MS);
        let retain_last = match expire.retain_last {
            Some(0) => return Err(Error::invalid("expected to keep at least 1 snapshot, found 0")),
            Some(last) => i64::from(last),
            None => number(metadata, "history.expire.min-snapshots-to-keep")?.unwrap_or(1),
        };
        Ok(Self {
            now_ms,
            older_than_ms: expire.older_than_ms.unwrap_or(now_ms.saturating_sub(max_age_ms)),
            retain_last: usize::try_from(retain_last).unwrap_or(1),
            through_sequence: expire.through_sequence,
            from_sequence: expire.from_sequence,
            max_reference_age_ms: number(metadata, "history.expire.max-ref-age-ms")?.unwrap_or(i64::MAX),
        })
    }

    fn kept(&self, metadata: &TableMetadata) -> Result<Kept> {
        let (mut snapshots, mut referenced) = (HashSet::new(), HashSet::new());
        let mut lost_references = Vec::new();
        for (name, reference) in refs::all(metadata)? {
            if !self.keeps_reference(metadata, &name, &reference) {
                lost_references.push(name);
                continue;
            }
            snapshots.insert(reference.snapshot_id);
            referenced.insert(reference.snapshot_id);
            if reference.is_branch() {
                referenced.extend(ancestors(metadata, Some(reference.snapshot_id)).map(|s| s.snapshot_id()));
                snapshots.extend(self.of_branch(metadata, &reference));
            }
        }
        let young = metadata.snapshots().filter(|s| s.timestamp_ms() >= self.older_than_ms && self.may_stay(s));
        let young = young.map(|s| s.snapshot_id());
        snapshots.extend(young.filter(|id| !referenced.contains(id)));
        let needed =
            metadata.snapshots().filter(|s| self.from_sequence.is_some_and(|from| s.sequence_number() >= from));
        snapshots.extend(needed.map(|s| s.snapshot_id()));
        Ok(Kept { snapshots, lost_references })
    }

    fn keeps_reference(&self, metadata: &TableMetadata, name: &str, reference: &SnapshotReference) -> bool {
        let Some(snapshot) = metadata.snapshot_by_id(reference.snapshot_id) else { return false };
        let max_age = match reference.retention {
            SnapshotRetention::Branch { max_ref_age_ms, .. } | SnapshotRetention::Tag { max_ref_age_ms } => {
                max_ref_age_ms
            }
        };
        let age = self.now_ms.saturating_sub(snapshot.timestamp_ms());
        name == MAIN_BRANCH || age <= max_age.unwrap_or(self.max_reference_age_ms)
    }

    fn may_stay(&self, snapshot: &Snapshot) -> bool {
        self.through_sequence.is_none_or(|through| snapshot.sequence_number() > through)
    }

    /// The newest snapshots of a branch: by number, then those that are young enough.
    fn of_branch(&self, metadata: &TableMetadata, branch: &SnapshotReference) -> HashSet<i64> {
        let (mut least, mut older_than_ms) = (self.retain_last, self.older_than_ms);
        if let SnapshotRetention::Branch { min_snapshots_to_keep, max_snapshot_age_ms, .. } = branch.retention {
            least = min_snapshots_to_keep.and_then(|n| usize::try_from(n).ok()).unwrap_or(least);
            older_than_ms = max_snapshot_age_ms.map_or(older_than_ms, |age| self.now_ms.saturating_sub(age));
        }
        ancestors(metadata, Some(branch.snapshot_id))
            .enumerate()
            .take_while(|(n, s)| *n < least || (s.timestamp_ms() >= older_than_ms && self.may_stay(s)))
            .map(|(_, snapshot)| snapshot.snapshot_id())
            .collect()
    }
}

fn number(metadata: &TableMetadata, key: &str) -> Result<Option<i64>> {
    let expected = "a whole number of at least 1";
    match properties::read(metadata, key, expected)? {
        Some(number) if number < 1 => {
            Err(Error::invalid(format!("table property `{key}`: expected {expected}, found `{number}`")))
        }
        number => Ok(number),
    }
}
