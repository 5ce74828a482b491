//! The function `query` on AWS Lambda.

use engine::Engine;
use query::Query;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "query",
        wiring::connect,
        |settings, project, ports| Query::new(project, ports.clone(), Engine::open(settings, &ports)?),
        Query::handle,
    )
    .await
}
