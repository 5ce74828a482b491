//! The function `query` on AWS Lambda.

use query::Query;
use shared::engine::Engine;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run(
        "query",
        |settings, project, ports| Query::new(project, ports.clone(), Engine::open(settings, &ports)?),
        Query::handle,
    )
    .await
}
