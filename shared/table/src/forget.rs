//! Forgetting files that have left. The manifest from which a file leaves still lists it, with the least and the greatest value of its
//! columns, and later snapshots carry that manifest on as it is.

use async_trait::async_trait;
use shared::Result;
use shared::error::Context;

use super::commit::{self, Operation};
use super::snapshot::Delta;
use super::{Committed, Table};

impl Table {
    /// Writes the manifests anew that list files which have left, as one snapshot; without any nothing is written. Older snapshots
    /// keep theirs.
    ///
    /// # Errors
    /// `Conflict` when others kept coming first; `OutcomeUnknown` when it can't be found out whether the commit happened.
    pub async fn forget_removed_files(&self) -> Result<Committed> {
        let forgotten = async { commit::run(self.reload().await?, &mut Forget, None).await };
        forgotten.await.context(|| format!("writing the manifests of the table `{}` anew", self.name()))
    }
}

struct Forget;

#[async_trait]
impl Operation for Forget {
    async fn delta(&mut self, base: &Table) -> Result<Delta> {
        let Some(snapshot) = base.metadata.current_snapshot() else { return Ok(Delta::default()) };
        let list = base.io.manifest_list(snapshot, base.metadata.format_version()).await?;
        let forgets = list.iter().any(|manifest| manifest.has_deleted_files());
        Ok(Delta { replaces: true, forgets, ..Delta::default() })
    }

    fn created(&self) -> Vec<String> {
        Vec::new()
    }
}
