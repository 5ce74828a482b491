//! Directories of older formats, as releases wrote them, and of newer ones.

use std::process::Command;

use serde_json::{Value, json};

use super::{Backups, err, filled, run_daily};
use crate::flow::walk;
use crate::lake::Lake;

/// A directory as a release wrote it, unpacked.
fn released(format: u32) -> Lake {
    let lake = Lake::new(RELEASED);
    let packed = crate::clients::root().join(format!("tests/e2e/fixtures/format-{format}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(lake.data().parent().unwrap()).status();
    assert!(unpacked.unwrap().success());
    lake
}

/// The lakehouse file of the fixtures.
const RELEASED: &str = include_str!("../fixtures/lakehouse.yaml");

fn format_of(lake: &Lake) -> Value {
    serde_json::from_str(&std::fs::read_to_string(lake.data().join("format.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_of_all_released_formats_are_upgraded_and_read() {
    for format in 1..=adapters_embedded::format::CURRENT {
        let mut lake = released(format);
        assert_eq!(lake.data().join("format.json").exists(), format > 1);
        lake.start();
        assert_eq!(format_of(&lake)["format"], adapters_embedded::format::CURRENT, "it is upgraded");
        // Three orders in the table, two in the stream; a file that was crawled, and one that was not.
        lake.flush("orders").await;
        assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(5));
        lake.until("SELECT count(*) FROM customers", 3).await;
        assert_eq!(lake.rows("notes").await, ["[Number(1), String(\"kept\")]"]);
        assert_eq!(lake.number("SELECT count(*) FROM mart.seen").await, Some(2));
        let (_, errors) = lake.get("/streams/orders/errors").await;
        assert_eq!(errors["errors"].as_array().unwrap().len(), 1, "{errors:#}");
        run_daily(&lake).await;
        assert_eq!(lake.number("SELECT count(*) FROM mart.seen").await, Some(3), "a file is read once");
        let backups = Backups::new();
        backups.take(&lake, &[]);
        let restored = Lake::new(RELEASED);
        let output = restored.run("restore", &[&backups.text()]);
        assert!(output.status.success(), "{}", err(&output));
        assert_eq!(restored.run("sql", &["SELECT * FROM orders"]).status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_format_is_refused_by_name_by_every_command() {
    let mut lake = filled().await;
    lake.stop();
    let newer = adapters_embedded::format::CURRENT + 1;
    let text = json!({"format": newer, "version": "99.1.0"}).to_string();
    std::fs::write(lake.data().join("format.json"), &text).unwrap();
    let before = walk(&lake.data()).len();
    let backups = Backups::new();
    let orders = lake.data().with_file_name("orders.ndjson");
    std::fs::write(&orders, "{\"id\": 1}\n").unwrap();
    let target = backups.text();
    for command in [
        &["sql", "SELECT 1"][..],
        &["status"],
        &["up"],
        &["put", "orders", orders.to_str().unwrap()],
        &["backup", &target],
    ] {
        let output = lake.run(command[0], &command[1..]);
        let told = err(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(told.contains("99.1.0") && told.contains(&format!("format {newer}")), "{command:?}: {told}");
    }
    assert_eq!(std::fs::read_to_string(lake.data().join("format.json")).unwrap(), text);
    assert_eq!(walk(&lake.data()).len(), before, "nothing was written");
}
