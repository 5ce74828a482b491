//! The insight function on AWS Lambda.

use std::sync::Arc;

use insight::Insight;
use lambda_runtime::{LambdaEvent, service_fn};
use shared::config::{Ports, Settings};
use shared::engine::Engine;
use shared::project::Project;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    shared::telemetry::init(&|name| std::env::var(name).ok())?;
    let settings = Settings::from_env()?;
    let ports = Ports::open(&settings)?;
    let project = Arc::new(Project::load(&settings.project)?);
    let engine = Engine::open(&settings, &ports)?;
    let insight = Insight::new(project, ports, engine)?;
    let insight = &insight;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<serde_json::Value>| {
        insight.handle(event.payload).await.map_err(lambda_runtime::Error::from)
    }))
    .await
}
