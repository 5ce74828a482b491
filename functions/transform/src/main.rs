//! The Lambda function `transform`.

use std::sync::Arc;

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use shared::config::{Ports, Settings};
use shared::engine::Engine;
use shared::project::Project;
use transform::Transform;

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    shared::telemetry::init(&|name| std::env::var(name).ok())?;
    let settings = Settings::from_env()?;
    let ports = Ports::open(&settings)?;
    let project = Arc::new(Project::load(&settings.project)?);
    let engine = Engine::open(&settings, &ports)?;
    let transform = &Transform::new(project, ports, engine)?;
    let serve = |event: LambdaEvent<Value>| async move {
        let answer = transform.handle(event.payload).await;
        answer.map_err(|e| Diagnostic { error_type: e.kind().to_string(), error_message: e.to_string() })
    };
    lambda_runtime::run(service_fn(serve)).await
}
