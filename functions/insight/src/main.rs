//! The function `insight` on AWS Lambda.

use insight::Insight;
use shared::engine::Engine;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "insight",
        |settings, project, ports| Insight::new(project, ports.clone(), Engine::open(settings, &ports)?),
        Insight::handle,
    )
    .await
}
