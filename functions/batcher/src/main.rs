//! The function `batcher` on AWS Lambda.

use batcher::Batcher;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run("batcher", wiring::connect, |_, project, ports| Batcher::new(project, ports), Batcher::handle)
        .await
}
