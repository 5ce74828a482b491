//! A stream that goes on under another name: what the batcher keeps of it is named by the stream, and gets the new name. For a host
//! that knows that nothing else works on the streams meanwhile.
//!
//! First what an earlier stream of the new name left is removed ([`Batcher::make_way`]), then everything is carried over
//! ([`Batcher::carry_over`]). Each may be done again from its start after a kill, as long as the first is not done after the second began.

use shared::model::{Positions, TableName};
use shared::project::changes::Rename;
use shared::state::{Expect, rename};
use shared::{Error, ErrorKind, Result};
use table::{RowStream, Token};

use crate::Batcher;
use crate::flush::{plan_key, token_key};
use crate::pending;

/// The state documents about a stream, in their order here for each name.
fn documents(stream: &str) -> [String; 3] {
    [pending::key(stream), plan_key(stream), format!("replays/{}", errors_name(stream))]
}

/// How replays call the folder of a stream's error objects.
fn errors_name(stream: &str) -> String {
    format!("errors/{stream}")
}

impl Batcher {
    /// Removes what an earlier stream of this name left and nobody waits for.
    ///
    /// # Errors
    /// `Conflict` when records of it lie below `errors/`; what state and storage answer.
    pub async fn make_way(&self, stream: &str) -> Result<()> {
        let waiting = self.replays(stream).waiting().await?.len();
        if waiting > 0 {
            return Err(Error::conflict(format!(
                "expected nothing below `errors/{stream}/` of an earlier stream, found {waiting} objects"
            )));
        }
        for object in self.ports.storage.list(&self.ports.keys.errors(stream)).await? {
            self.ports.storage.delete(&object.url).await?;
        }
        for document in documents(stream) {
            if self.ports.state.get(&document).await?.is_some() {
                self.ports.state.delete(&document, Expect::Anything).await?;
            }
        }
        Ok(())
    }

    /// Gives the new name to error objects, to what was agreed on and counted, and, in a table that both write to, to the stream's
    /// position.
    ///
    /// # Errors
    /// What state, storage and table answer.
    pub async fn carry_over(&self, Rename { from, to }: &Rename, table: Option<&TableName>) -> Result<()> {
        if let Some(table) = table {
            self.carry_position(from, to, table).await?;
        }
        let (old, new) = (self.ports.keys.errors(from), self.ports.keys.errors(to));
        for object in self.ports.storage.list(&old).await? {
            let Some(name) = object.url.as_str().strip_prefix(old.as_str()) else { continue };
            let moved =
                new.join(name).map_err(|e| Error::bug(format!("`{name}` is no object's name")).with_source(e))?;
            self.ports.storage.put(&moved, self.ports.storage.get(&object.url).await?).await?;
            self.ports.storage.delete(&object.url).await?;
        }
        for (from, to) in documents(from).iter().zip(&documents(to)) {
            rename(self.ports.state.as_ref(), from, to).await?;
        }
        Ok(())
    }

    /// The table's tokens of the stream under the new name, whatever an earlier stream of that name left there.
    async fn carry_position(&self, from: &str, to: &str, name: &TableName) -> Result<()> {
        let nothing = serde_json::to_string(&Positions::default())
            .map_err(|e| Error::bug("stream positions have no JSON form").with_source(e))?;
        let replay = |stream: &str| format!("replay.{}", errors_name(stream));
        for (from, to, default) in [(token_key(from), token_key(to), Some(nothing)), (replay(from), replay(to), None)] {
            let table = match self.tables.load(name).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let expected = table.token(&to);
            let value = table.token(&from).or_else(|| expected.as_ref().and(default));
            let Some(value) = value.filter(|value| expected.as_ref() != Some(value)) else { continue };
            let nothing = RowStream::of_batches(table.arrow_schema().clone(), Vec::new());
            table.append(nothing, Some(Token { key: to, expected, value })).await?;
        }
        Ok(())
    }
}
