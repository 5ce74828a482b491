//! The function `insight` on AWS Lambda.

use engine::Engine;
use insight::Insight;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "insight",
        wiring::connect,
        |settings, project, ports| Insight::new(project, ports.clone(), Engine::open(settings, &ports)?),
        Insight::handle,
    )
    .await
}
