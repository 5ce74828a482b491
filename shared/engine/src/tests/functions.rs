//! Every function of the list does what its example says.

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;

/// The one value of a statement as text.
async fn value(lake: &Lake, sql: &str) -> Result<String> {
    let options = QueryOptions { database: "db".into(), ..QueryOptions::new(Principal::Owner) };
    let (batches, _) = lake.engine.query(sql, &options).await?.collect().await?;
    let options = FormatOptions::default().with_null("NULL");
    let text = ArrayFormatter::try_new(batches[0].column(0), &options).unwrap().value(0).to_string();
    Ok(text.replace("inf", "Infinity"))
}

#[tokio::test]
async fn every_function_gives_what_its_examples_say() {
    let lake = Lake::new().await;
    let mut wrong = Vec::new();
    for function in trino_functions::functions() {
        for (call, expected) in &function.examples {
            match value(&lake, &format!("SELECT {call}")).await {
                Ok(found) if found == *expected => {}
                Ok(found) => wrong.push(format!("{call}: expected {expected}, found {found}")),
                Err(error) => wrong.push(format!("{call}: expected {expected}, found the error {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
