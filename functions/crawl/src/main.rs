//! The function `crawl` on AWS Lambda.

use std::sync::Arc;

use crawl::Crawl;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use shared::config::{Ports, Settings};
use shared::project::Project;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    shared::telemetry::init(&|name| std::env::var(name).ok())?;
    let settings = Settings::from_env()?;
    let ports = Ports::open(&settings)?;
    let project = Arc::new(Project::load(&settings.project)?);
    let crawl = Crawl::new(project, ports)?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| {
        crawl.handle(event.payload).await.map_err(lambda_runtime::Error::from)
    }))
    .await
}
