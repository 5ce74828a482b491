//! `GET /streams`: what producers can send.

use serde_json::{Value, json};
use shared::Result;
use shared::api::Response;

use crate::{Door, Ingest};

impl Ingest {
    /// Every declared stream with its schema, in order of name.
    pub(crate) fn streams(&self) -> Result<Response> {
        let streams = self.doors.values().map(|door| self.describe(door)).collect::<Result<Vec<_>>>()?;
        Response::json(200, &json!({ "streams": streams }))
    }

    fn describe(&self, door: &Door) -> Result<Value> {
        let declaration = &door.declaration;
        Ok(json!({
            "name": door.stream,
            "description": declaration.description,
            "schema": declaration.schema,
            "table": self.project.stream_table(&door.stream)?.to_string(),
            "shards": declaration.shards,
            "partition_key": declaration.partition_key,
        }))
    }
}
