//! `kill -9` in the midst of writes: what was confirmed is there afterwards, and what is there is whole.
//!
//! The test runs its own binary again as the writer, which says on its standard output what it was confirmed.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::stream::{read_all, record};
use shared::config::Settings;
use shared::model::TableName;
use shared::ports::Ports;
use shared::state::Expect;
use shared::stream::StreamSpec;

const DATA: &str = "TARN_TEST_KILL_DATA";
const BATCH: usize = 50;

fn open(data: &str) -> Ports {
    adapters_embedded::open(&Settings::embedded(&PathBuf::from(data)).unwrap()).unwrap()
}

/// The child: writes without end, one line for each round that was confirmed. Without its variable it does nothing.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Ok(data) = std::env::var(DATA) else { return };
    let ports = open(&data);
    ports.stream.create(&StreamSpec { name: "s".into(), shards: 2, retention_hours: 24 }).await.unwrap();
    shared::catalog::ensure_database(&*ports.catalog, "d").await.unwrap();
    let mut table = ports.catalog.create_table(&input(0)).await.unwrap();
    for round in 1_u32.. {
        let batch = (0..BATCH).map(|i| record(format!("{i}"), format!("{round}-{i}"))).collect();
        ports.stream.put("s", batch).await.unwrap();
        ports.state.put("round", round.to_string().into(), Expect::Anything).await.unwrap();
        table = ports.catalog.update_table(&input(round), &table.version).await.unwrap();
        println!("confirmed {round}");
    }
}

fn input(round: u32) -> shared::catalog::TableInput {
    shared::catalog::TableInput {
        name: TableName::new("d", "t").unwrap(),
        description: Some(round.to_string()),
        table_type: "EXTERNAL_TABLE".into(),
        parameters: Default::default(),
        storage: Default::default(),
        partition_keys: Vec::new(),
    }
}

#[tokio::test]
async fn what_was_confirmed_survives_kill_9() {
    for rounds in [1, 7, 40] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        let confirmed = kill_after(rounds, &data);

        let ports = open(&data);
        let records: Vec<_> = read_all(&*ports.stream, "s", 1_000).await.into_values().flatten().collect();
        assert!(records.len() >= confirmed * BATCH, "{} of {}", records.len(), confirmed * BATCH);
        assert!(records.len().is_multiple_of(BATCH), "a batch is stored whole or not at all");
        let document = ports.state.get("round").await.unwrap().unwrap();
        let at: usize = std::str::from_utf8(&document.bytes).unwrap().parse().unwrap();
        assert!(at >= confirmed, "{at} of {confirmed}");
        let versions = ports.catalog.table_versions(&TableName::new("d", "t").unwrap()).await.unwrap();
        assert!(versions.len() > confirmed, "{} of {confirmed}", versions.len());
    }
}

/// Runs the child until it has confirmed `rounds`, kills it, and gives how many it confirmed in all.
fn kill_after(rounds: usize, data: &str) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::writes_until_it_is_killed", "--nocapture"])
        .env(DATA, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut confirmed = 0;
    while confirmed < rounds {
        let line = lines.next().expect("the child writes until it is killed").unwrap();
        confirmed += usize::from(line.contains("confirmed "));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    confirmed + lines.map_while(Result::ok).filter(|line| line.contains("confirmed ")).count()
}
