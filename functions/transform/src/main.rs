//! The function `transform` on AWS Lambda.

use shared::engine::Engine;
use transform::Transform;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "transform",
        |settings, project, ports| Transform::new(project, ports.clone(), Engine::open(settings, &ports)?),
        Transform::handle,
    )
    .await
}
