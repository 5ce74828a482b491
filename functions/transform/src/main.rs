//! The function `transform` on AWS Lambda.

use engine::Engine;
use transform::Transform;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "transform",
        wiring::connect,
        |settings, project, ports| {
            let engine = Engine::open(settings, &ports)?;
            Ok(Transform::new(project, ports, engine)?.within(settings))
        },
        Transform::handle,
    )
    .await
}
