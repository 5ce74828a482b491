//! The function `crawl` on AWS Lambda.

use crawl::Crawl;

#[tokio::main]
async fn main() -> Result<(), shared::lambda::Failure> {
    shared::lambda::run("crawl", wiring::connect, |_, project, ports| Crawl::new(project, ports), Crawl::handle).await
}
