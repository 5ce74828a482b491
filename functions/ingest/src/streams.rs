//! `GET /streams`: what producers can send.

use serde_json::{Value, json};
use shared::Result;
use shared::api::Response;

use crate::{Ingest, Intake};

impl Ingest {
    /// Every declared stream with its schema, in order of name.
    pub(crate) fn streams(&self) -> Result<Response> {
        let streams = self.intakes.values().map(|intake| self.describe(intake)).collect::<Result<Vec<_>>>()?;
        Response::json(200, &json!({ "streams": streams }))
    }

    fn describe(&self, intake: &Intake) -> Result<Value> {
        let declaration = &intake.declaration;
        Ok(json!({
            "name": intake.stream,
            "description": declaration.description,
            "schema": declaration.schema,
            "table": self.project.stream_table(&intake.stream)?.to_string(),
            "shards": declaration.shards,
            "partition_key": declaration.partition_key,
            "buffer": declaration.buffer,
        }))
    }
}
