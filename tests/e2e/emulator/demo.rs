//! `tarn demo --url`: the whole demo through a deployed lakehouse, as `make emulator-demo` runs it.

use std::process::{Command, Output};

use serde_json::Value;
use tarn::demo::data::LAKEHOUSE;

use super::Emulator;
use crate::lake::program;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_reconciles_through_a_deployed_lakehouse_which_takes_it_once() {
    // An account of its own: other tests have the demo's databases too.
    let stack = Emulator::alone().deploy("tarn-demo", LAKEHOUSE, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("demo");
    let demo = || -> Output {
        let mut tarn = Command::new(program("tarn"));
        tarn.args(["demo", "--url", stack.api(), "--directory"]).arg(&directory).output().unwrap()
    };
    let first = demo();
    assert!(first.status.success(), "{first:?}");
    let answers: Value = serde_json::from_slice(&std::fs::read(directory.join("answers.json")).unwrap()).unwrap();
    let checks = answers["reconciled"].as_array().unwrap();
    assert!(checks.len() >= 10 && checks.iter().all(|check| check["holds"] == "yes"), "{checks:#?}");
    assert!(directory.join("report.html").exists());

    let second = demo();
    assert_eq!(second.status.code(), Some(4), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("found 336776"), "{second:?}");
    assert!(directory.join("answers.json").exists(), "what the first one found stays");
}
