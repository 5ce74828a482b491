//! The function `ingest` on AWS Lambda.

use ingest::Ingest;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run("ingest", wiring::connect, |_, project, ports| Ingest::new(project, ports), Ingest::handle)
        .await
}
