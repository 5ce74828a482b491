//! Backups and restores that are killed, two at once, a full disk, damaged contents.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Backups, SHOP, content, err, filled, send};
use crate::bad_input::SmallDisk;
use crate::flow::walk;
use crate::lake::Lake;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_the_earlier_ones_and_is_run_again() {
    let lake = filled().await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let mut next = 200;
    for after_ms in [1, 5, 10, 20, 40, 60, 80, 120] {
        send(&lake, next..next + 10).await;
        lake.sql(&format!("INSERT INTO notes VALUES ({next}, 'b')")).await;
        next += 10;
        let finished = backups.names();
        let mut child = backups.command(&lake).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        let names = backups.names();
        assert!(names == finished || names.len() == finished.len() + 1, "{names:?}");
        assert!(ended.success() <= (names.len() > finished.len()), "one that says it is done is there");
        assert!(backups.verify().status.success(), "after {after_ms} ms");
    }
    backups.take(&lake, &["--keep", "1"]);
    assert!(backups.verify().status.success());
    assert!(walk(&backups.path().join("drafts")).is_empty(), "what was half written is gone");
    lake.flush("orders").await;
    let restored = backups.up(&[]);
    restored.flush("orders").await;
    assert_eq!(restored.rows("orders").await, lake.rows("orders").await);
    assert_eq!(restored.rows("notes").await, lake.rows("notes").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_holds_is_let_go_by_the_next_start() {
    let mut lake = filled().await;
    lake.stop();
    let backups = Backups::new();
    let pinned = lake.data().join("pinned");
    let mut child = backups.command(&lake).spawn().unwrap();
    let began = Instant::now();
    while walk(&pinned).len() < 2 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    lake.start();
    assert!(walk(&pinned).len() <= 1, "{:?}", walk(&pinned));
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_is_no_data_directory_and_is_run_again() {
    let lake = filled().await;
    for n in 0..300 {
        std::fs::write(lake.data().join(format!("objects/raw/{n}.txt")), n.to_string()).unwrap();
    }
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let target = Lake::new(SHOP);
    let mut refused = 0;
    for after_ms in [1, 5, 10, 15, 20, 30, 45, 60, 90] {
        let mut restore = target.tarn("restore");
        let mut child = restore
            .arg(backups.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        if target.data().join(".restoring").exists() {
            assert!(!ended.success());
            for command in [&["sql", "SELECT 1"][..], &["status"], &["up"]] {
                let output = target.run(command[0], &command[1..]);
                assert_eq!(output.status.code(), Some(4), "{command:?}: {}", err(&output));
                assert!(err(&output).contains("tarn restore"), "{}", err(&output));
            }
            refused += 1;
        } else if target.data().join("catalog.db").exists() {
            // It had come to its end.
            std::fs::remove_dir_all(target.data()).unwrap();
        }
    }
    assert!(refused > 0, "some were killed half-way");
    let _ = std::fs::remove_dir_all(target.data());
    let mut child = target.tarn("restore").arg(backups.path()).stdout(Stdio::null()).spawn().unwrap();
    while !target.data().join(".restoring").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let again = target.run("restore", &[&backups.text()]);
    assert!(again.status.success(), "{}", err(&again));
    let mut target = target;
    target.start();
    assert_eq!(content(&target).await, content(&lake).await);
}

/// Stops a process (without ending it) as soon as `is_at_work`; `None` when it was done before.
fn stopped(mut child: Child, is_at_work: impl Fn() -> bool) -> Option<Child> {
    while !is_at_work() {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    signal(&child, "STOP");
    std::thread::sleep(Duration::from_millis(20));
    if child.try_wait().unwrap().is_some() { None } else { Some(child) }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success() || name == "STOP");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_the_second_is_refused_by_name() {
    let mut lake = filled().await;
    lake.stop();
    for n in 0..500 {
        std::fs::write(lake.data().join(format!("objects/raw/{n}.txt")), n.to_string()).unwrap();
    }
    let (backups, others) = (Backups::new(), Backups::new());
    let lock = backups.path().join("lock");
    let holds = |child: &Child| {
        let pid = child.id().to_string();
        let lock = lock.clone();
        move || std::fs::read_to_string(&lock).is_ok_and(|text| text.trim() == pid)
    };
    let child = backups.command(&lake).spawn().unwrap();
    let is_at_work = holds(&child);
    let pinned = lake.data().join("pinned");
    let mut child = stopped(child, || is_at_work() && walk(&pinned).len() > 3).expect("it is stopped in its work");
    let pid = child.id().to_string();
    for second in [backups.try_take(&lake, &[]), others.try_take(&lake, &[]), backups.verify()] {
        assert_eq!(second.status.code(), Some(4), "{}", err(&second));
        assert!(err(&second).contains(&pid), "{}", err(&second));
    }
    let restore = Lake::new(SHOP).run("restore", &[&backups.text()]);
    assert_eq!(restore.status.code(), Some(4), "{}", err(&restore));
    signal(&child, "CONT");
    assert!(child.wait().unwrap().success());
    assert_eq!(backups.names().len(), 1);

    let target = Lake::new(SHOP);
    let restore = target.tarn("restore").arg(backups.path()).stdout(Stdio::null()).spawn().unwrap();
    let draft = target.data().join(".restoring");
    let mut restore = stopped(restore, || draft.exists()).expect("it is stopped in its work");
    let second = target.run("restore", &[&backups.text()]);
    assert_eq!(second.status.code(), Some(4), "{}", err(&second));
    assert!(err(&second).contains(&restore.id().to_string()), "{}", err(&second));
    let elsewhere = Lake::new(SHOP).run("restore", &[&backups.text()]);
    assert!(elsewhere.status.success(), "two may read: {}", err(&elsewhere));
    signal(&restore, "CONT");
    assert!(restore.wait().unwrap().success());
    let mut target = target;
    target.start();
    assert_eq!(target.number("SELECT count(*) FROM orders").await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_earlier_backups_stay_and_the_error_says_so() {
    let disk = match SmallDisk::mount("12m") {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("not run on a full disk: {why}");
            return;
        }
    };
    let lake = filled().await;
    let target = disk.path().join("backups").display().to_string();
    let first = lake.run("backup", &[&target]);
    assert!(first.status.success(), "{}", err(&first));
    let blob: Vec<u8> = (0..16_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    std::fs::write(lake.data().join("objects/raw/large.bin"), &blob).unwrap();
    for _ in 0..2 {
        let full = lake.run("backup", &[&target]);
        assert_eq!(full.status.code(), Some(1), "{}", err(&full));
        assert!(
            err(&full).contains("the earlier ones are whole") && err(&full).contains("No space left"),
            "{}",
            err(&full)
        );
    }
    let verified = lake.run("backup", &[&target, "--verify"]);
    assert!(verified.status.success(), "{}", err(&verified));
    let padding = disk.path().join("padding");
    std::fs::write(&padding, &blob[..4_000_000]).expect("what was of no use is gone from the disk");

    // A restore to a full disk, then to one with room.
    let place = disk.path().join("lake");
    std::fs::write(disk.path().join("more"), &blob[..3_000_000]).unwrap();
    let _ = std::fs::write(disk.path().join("most"), &blob[..8_000_000]);
    let full = restore_with(&target, &place);
    assert_eq!(full.status.code(), Some(1), "{}", err(&full));
    std::fs::remove_file(&padding).unwrap();
    std::fs::remove_file(disk.path().join("more")).unwrap();
    std::fs::remove_file(disk.path().join("most")).unwrap();
    let again = restore_with(&target, &place);
    assert!(again.status.success(), "{}", err(&again));
    std::fs::remove_file(lake.data().join("objects/raw/large.bin")).unwrap();
    let output = Command::new(crate::lake::program("tarn"))
        .args(["sql", "--output", "json", "SELECT count(*) AS n FROM orders", "--data"])
        .arg(&place)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("200"), "{output:?}");
}

fn restore_with(from: &str, data: &Path) -> Output {
    Command::new(crate::lake::program("tarn")).args(["restore", from, "--data"]).arg(data).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_told_and_not_restored() {
    let lake = filled().await;
    let backups = Backups::new();
    backups.take(&lake, &[]);
    let mut contents = walk(&backups.path().join("contents"));
    contents.sort_by_key(|path| path.metadata().unwrap().len());
    let content = contents.last().unwrap();
    let sound = std::fs::read(content).unwrap();
    let name = content.file_name().unwrap().to_str().unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    for damage in [&flipped[..], &sound[..sound.len() - 1], b""] {
        std::fs::write(content, damage).unwrap();
        let verified = backups.verify();
        assert_eq!(verified.status.code(), Some(1), "{}", err(&verified));
        assert!(err(&verified).contains(name), "{}", err(&verified));
        let target = Lake::new(SHOP);
        let refused = target.run("restore", &[&backups.text()]);
        assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
        assert!(err(&refused).contains(name), "{}", err(&refused));
        assert_eq!(target.run("sql", &["SELECT 1"]).status.code(), Some(4), "it is no data directory");
    }
    std::fs::remove_file(content).unwrap();
    assert_eq!(backups.verify().status.code(), Some(1));
    // The next one has what is missing again, for all.
    backups.take(&lake, &[]);
    assert!(backups.verify().status.success());

    let list = backups.path().join("backups").join(format!("{}.ndjson", backups.names()[0]));
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, &text[..text.len() / 2]).unwrap();
    let refused = Lake::new(SHOP).run("restore", &[&backups.text(), "--at", &backups.names_with_damage()[0]]);
    assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
    let pruned = backups.try_take(&lake, &["--keep", "3"]);
    assert_eq!(pruned.status.code(), Some(1), "what one has is not known, so nothing may go: {}", err(&pruned));
}

impl Backups {
    fn names_with_damage(&self) -> Vec<String> {
        let listed = Lake::new(SHOP).run("backup", &[&self.text(), "--list", "--output", "json"]);
        assert_eq!(listed.status.code(), Some(1), "{}", err(&listed));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let damaged = listed["backups"].as_array().unwrap().iter().filter(|backup| backup["damage"].is_string());
        damaged.map(|backup| backup["name"].as_str().unwrap().to_owned()).collect()
    }
}
