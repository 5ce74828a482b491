//! The function `ingest` on AWS Lambda.

use std::sync::Arc;

use ingest::Ingest;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use shared::config::{Ports, Settings};
use shared::project::Project;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    shared::telemetry::init(&|name| std::env::var(name).ok())?;
    let settings = Settings::from_env()?;
    let ports = Ports::open(&settings)?;
    let ingest = Ingest::new(Arc::new(Project::load(&settings.project)?), ports)?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| {
        ingest.handle(event.payload).await.map_err(lambda_runtime::Error::from)
    }))
    .await
}
