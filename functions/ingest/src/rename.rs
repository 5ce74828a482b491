//! A stream that goes on under another name: what the door keeps of it is named by the stream.

use shared::Result;
use shared::state::rename;

use crate::{Ingest, idempotency, refusals};

impl Ingest {
    /// Gives the new name to idempotency keys and counts of refusals. It may be done again after a kill; nothing else works on the
    /// streams meanwhile.
    ///
    /// # Errors
    /// What the state answers.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (state, now_ms) = (self.ports.state.as_ref(), self.ports.clock.now_ms());
        let folders = idempotency::folders(from, now_ms).into_iter().zip(idempotency::folders(to, now_ms));
        for (from, to) in folders {
            for document in state.list(&from).await? {
                let name = document.strip_prefix(&from).unwrap_or(&document);
                rename(state, &document, &format!("{to}{name}")).await?;
            }
        }
        rename(state, &refusals::key(from), &refusals::key(to)).await
    }
}
