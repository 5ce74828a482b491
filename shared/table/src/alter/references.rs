//! Tags and branches, and which snapshot is the current one.

use std::collections::HashMap;

use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};

use super::Keep;
use super::draft::Draft;
use crate::token::{self, BOUNDARY, KEPT_TOKEN};
use crate::{ancestors, refs};
use shared::{Error, Result};

impl Draft<'_> {
    pub(super) fn create_tag(&mut self, name: &str, snapshot: Option<i64>, keep: &Keep, replace: bool) -> Result<()> {
        if keep.max_snapshot_age_ms.is_some() || keep.min_snapshots_to_keep.is_some() {
            return Err(Error::invalid(format!(
                "expected the tag `{name}` to keep one snapshot for a time, found what a branch keeps"
            )));
        }
        self.create(name, snapshot, keep, SnapshotRetention::Tag { max_ref_age_ms: keep.max_ref_age_ms }, replace)
    }

    pub(super) fn create_branch(
        &mut self,
        name: &str,
        snapshot: Option<i64>,
        keep: &Keep,
        replace: bool,
    ) -> Result<()> {
        let Keep { max_ref_age_ms, max_snapshot_age_ms, min_snapshots_to_keep } = *keep;
        let retention = SnapshotRetention::branch(min_snapshots_to_keep, max_snapshot_age_ms, max_ref_age_ms);
        self.create(name, snapshot, keep, retention, replace)
    }

    fn create(
        &mut self,
        name: &str,
        snapshot: Option<i64>,
        keep: &Keep,
        retention: SnapshotRetention,
        replace: bool,
    ) -> Result<()> {
        let numbers = [keep.max_ref_age_ms, keep.max_snapshot_age_ms, keep.min_snapshots_to_keep.map(i64::from)];
        if let Some(wrong) = numbers.into_iter().flatten().find(|n| *n < 1) {
            return Err(Error::invalid(format!(
                "`{name}`: expected to keep for a positive time or number, found `{wrong}`"
            )));
        }
        if name.trim().is_empty() || name == MAIN_BRANCH {
            return Err(Error::invalid(format!("expected a name other than `{MAIN_BRANCH}`, found `{name}`")));
        }
        let all = refs::all(&self.metadata)?;
        match all.get(name) {
            Some(_) if !replace => {
                return Err(Error::invalid(format!("expected a name that is free, found `{name}`, which exists")));
            }
            Some(have) if have.is_branch() != matches!(retention, SnapshotRetention::Branch { .. }) => {
                let kind = if have.is_branch() { "branch" } else { "tag" };
                return Err(Error::invalid(format!("expected `{name}` to be of the same kind, found a {kind}")));
            }
            _ => {}
        }
        let snapshot = match snapshot {
            Some(id) => self.existing(id)?,
            None => self.metadata.current_snapshot_id().ok_or_else(|| {
                Error::invalid(format!("expected a table with a snapshot to name `{name}`, found one without"))
            })?,
        };
        self.set_ref(name, SnapshotReference::new(snapshot, retention))
    }

    pub(super) fn drop_ref(&mut self, name: &str) -> Result<()> {
        if name == MAIN_BRANCH {
            return Err(Error::invalid(format!(
                "expected a tag or another branch, found `{MAIN_BRANCH}`, which stays"
            )));
        }
        self.reference(name)?;
        self.edit(|builder| Ok(builder.remove_ref(name)))
    }

    pub(super) fn roll_back_to(&mut self, id: i64, replay: bool) -> Result<()> {
        self.existing(id)?;
        let current = self.metadata.current_snapshot_id();
        if !ancestors(&self.metadata, current).any(|snapshot| snapshot.snapshot_id() == id) {
            return Err(Error::invalid(format!(
                "expected an ancestor of the current snapshot, found `{id}`, which it does not come from"
            )));
        }
        self.set_current(id, replay)
    }

    pub(super) fn roll_back_to_time(&mut self, before_ms: i64, replay: bool) -> Result<()> {
        let current = self.metadata.current_snapshot_id();
        let found = ancestors(&self.metadata, current).find(|snapshot| snapshot.timestamp_ms() < before_ms);
        let id = found.map(|snapshot| snapshot.snapshot_id()).ok_or_else(|| {
            let time = chrono::DateTime::from_timestamp_millis(before_ms).map(|t| t.to_rfc3339());
            let time = time.unwrap_or_else(|| format!("{before_ms} ms"));
            Error::not_found(format!("expected a snapshot that was committed before `{time}`, found none"))
        })?;
        self.set_current(id, replay)
    }

    pub(super) fn set_current(&mut self, id: i64, replay: bool) -> Result<()> {
        self.existing(id)?;
        if self.metadata.current_snapshot_id() == Some(id) {
            return Ok(());
        }
        self.carry_tokens(id, replay)?;
        let mut main = match refs::all(&self.metadata)?.remove(MAIN_BRANCH) {
            Some(main) => main,
            None => SnapshotReference::new(id, SnapshotRetention::branch(None, None, None)),
        };
        main.snapshot_id = id;
        self.set_ref(MAIN_BRANCH, main)
    }

    /// Keeps the tokens as they are while another snapshot becomes current; with `replay` they become those that it had.
    fn carry_tokens(&mut self, current: i64, replay: bool) -> Result<()> {
        let boundary = self.metadata.properties().get(BOUNDARY).and_then(|id| id.parse::<i64>().ok());
        let since = |id: i64| ancestors(&self.metadata, Some(current)).any(|snapshot| snapshot.snapshot_id() == id);
        if replay && boundary.is_some_and(since) {
            // It came after an earlier rollback, and had what that kept.
            return Ok(());
        }
        let is_carried = |key: &&String| key.starts_with(KEPT_TOKEN) || *key == BOUNDARY;
        let earlier: Vec<String> = self.metadata.properties().keys().filter(is_carried).cloned().collect();
        let mut kept: HashMap<String, String> = HashMap::new();
        if !replay {
            let tokens = token::all(&self.metadata);
            kept.extend(tokens.into_iter().map(|(key, value)| (format!("{KEPT_TOKEN}{key}"), value)));
        }
        if !kept.is_empty() {
            kept.insert(BOUNDARY.to_owned(), current.to_string());
        }
        if earlier.is_empty() && kept.is_empty() {
            return Ok(());
        }
        let gone: Vec<String> = earlier.into_iter().filter(|key| !kept.contains_key(key)).collect();
        self.edit(|builder| builder.remove_properties(&gone)?.set_properties(kept))
    }

    pub(super) fn fast_forward(&mut self, branch: &str, to: &str) -> Result<()> {
        let target = self.reference(to)?.snapshot_id;
        let mut moved = self.reference(branch)?;
        if !moved.is_branch() {
            return Err(Error::invalid(format!("expected a branch, found the tag `{branch}`")));
        }
        let from = moved.snapshot_id;
        if !ancestors(&self.metadata, Some(target)).any(|snapshot| snapshot.snapshot_id() == from) {
            return Err(Error::invalid(format!(
                "expected `{to}` to come after the branch `{branch}`, found that the snapshot `{from}` is none of its ancestors"
            )));
        }
        if from == target {
            return Ok(());
        }
        if branch == MAIN_BRANCH && self.metadata.properties().contains_key(BOUNDARY) {
            self.carry_tokens(target, false)?;
        }
        moved.snapshot_id = target;
        self.set_ref(branch, moved)
    }

    fn set_ref(&mut self, name: &str, reference: SnapshotReference) -> Result<()> {
        self.edit(|builder| builder.set_ref(name, reference))
    }

    fn reference(&self, name: &str) -> Result<SnapshotReference> {
        let mut all = refs::all(&self.metadata)?;
        all.remove(name).ok_or_else(|| {
            let known: Vec<_> = all.keys().map(|n| format!("`{n}`")).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            Error::not_found(format!("expected one of the table's tags and branches ({known}), found `{name}`"))
        })
    }

    fn existing(&self, id: i64) -> Result<i64> {
        match self.metadata.snapshot_by_id(id) {
            Some(_) => Ok(id),
            None => {
                let known = self.metadata.snapshots().len();
                Err(Error::not_found(format!("expected one of the table's {known} snapshots, found `{id}`")))
            }
        }
    }
}
