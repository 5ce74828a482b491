//! A lakehouse in a folder of its own, in which the commands of a page are run as a reader would.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::blocks::Block;
use super::root;
use crate::lake::program;

/// Files that pages name.
const FILES: [(&str, &str); 4] = [
    ("orders.ndjson", include_str!("orders.ndjson")),
    ("events.ndjson", include_str!("events.ndjson")),
    ("customers.csv", "id,name\n1,Ada\n2,Grace\n"),
    ("weather.csv", "hour,temp\n2013-01-01T00:00:00,1.5\n2013-01-01T01:00:00,2.5\n"),
];

/// Folders of the machine that pages name.
const FOLDERS: [&str; 2] = ["mnt", "srv"];

/// What is there before the page's first command.
const PREPARATION: &str =
    "tarn put orders orders.ndjson && tarn put flights flights.ndjson && tarn put events events.ndjson
tarn put --file weather weather.csv && tarn put --file customers customers.csv";

/// The program as a reader uses it: `up` goes on behind the other commands, what goes on for ever is ended soon, what is asked is
/// answered with yes, and what `status` and `plan` find wrong is no fault of the page.
const TARN: &str = r#"#!/usr/bin/env bash
case "$1" in
  up)
    [ -e up.json ] && exit 0
    timeout --signal KILL 300 "$TARN_PROGRAM" "$@" --port 0 --output json < /dev/null > up.json 2> up.log &
    for _ in $(seq 300); do grep -q url up.json && exit 0; sleep 0.1; done
    cat up.log >&2; exit 1 ;;
esac
case " $* " in
  " erase "*" --dry-run "*) ;;
  " erase "*) set -- "$@" --yes ;;
  *" errors discard "*) set -- "$@" --yes ;;
esac
case " $* " in
  *" --watch "* | *" --follow "*) timeout 2 "$TARN_PROGRAM" "$@"; code=$?; [ $code -eq 124 ] && exit 0; exit $code ;;
esac
"$TARN_PROGRAM" "$@" < /dev/null
code=$?
case "$1" in status | plan) [ $code -eq 1 ] && exit 0 ;; esac
exit $code
"#;

/// What DuckDB would download to its folder of extensions lies in packages of the environment.
const EXTENSIONS: &str = r#"
import glob as _glob, importlib as _importlib, os as _os, duckdb as _duckdb
_platform = _duckdb.sql("PRAGMA platform").fetchone()[0]
_folder = _os.path.expanduser(f"~/.duckdb/extensions/v{_duckdb.__version__}/{_platform}")
_os.makedirs(_folder, exist_ok=True)
for _name in ("avro", "iceberg"):
    _package = _os.path.dirname(_importlib.import_module(f"duckdb_extension_{_name}").__file__)
    (_file,) = _glob.glob(f"{_package}/**/{_name}.duckdb_extension", recursive=True)
    if not _os.path.exists(f"{_folder}/{_name}.duckdb_extension"):
        _os.symlink(_file, f"{_folder}/{_name}.duckdb_extension")
"#;

/// An answer that tells an error fails.
const CURL: &str = "#!/bin/sh\nexec /usr/bin/curl --silent --show-error --fail-with-body \"$@\"\n";

pub(super) struct Page {
    folder: TempDir,
}

impl Page {
    /// A folder with the files that pages name; with a lakehouse file also `tarn up` on it, and rows in its tables.
    pub(super) fn prepare(lakehouse: Option<&str>) -> Self {
        let page = Self { folder: tempfile::tempdir().unwrap() };
        for folder in FOLDERS.iter().chain(&["bin"]) {
            std::fs::create_dir(page.path(folder)).unwrap();
        }
        for (name, script) in [("tarn", TARN), ("curl", CURL)] {
            let path = page.path("bin").join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, content) in FILES {
            std::fs::write(page.path(name), content).unwrap();
        }
        if let Some(lakehouse) = lakehouse {
            std::fs::write(page.path("lakehouse.yaml"), lakehouse).unwrap();
            std::fs::write(page.path("flights.ndjson"), flights()).unwrap();
            page.sh(PREPARATION).unwrap();
            page.sh("tarn up").unwrap();
        }
        page
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The address of `tarn up` and its process, once it is up.
    fn up(&self) -> Option<(String, u64)> {
        let ready: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(self.path("up.json")).ok()?).ok()?;
        Some((ready["url"].as_str()?.to_owned(), ready["pid"].as_u64()?))
    }

    /// Runs a block; an error says what it answered.
    pub(super) fn run(&self, block: &Block) -> Result<(), String> {
        let ended = if block.runs("sh") {
            self.sh(&block.text)
        } else if block.runs("sql") {
            self.ended(self.command("tarn").args(["sql", &block.text]))
        } else if block.runs("python") {
            let python = root().join(".venv/bin/python");
            assert!(python.exists(), "`make setup` makes the Python environment `.venv`");
            let text = format!("{EXTENSIONS}\n{}", self.here(&block.text));
            self.ended(Command::new(python).args(["-c", &text]).env("HOME", self.folder.path()))
        } else {
            return Ok(());
        };
        ended.map(|_| ()).map_err(|error| format!("{}: {error}\n{}", block.place(), block.text))
    }

    /// Runs commands up to the first that fails; what they wrote to standard output and error.
    pub(super) fn sh(&self, commands: &str) -> Result<(String, String), String> {
        // In the background of a shell `up` would end with it.
        self.ended(self.command("bash").args(["-euo", "pipefail", "-c", &self.here(commands)]))
    }

    /// The text with the address of this `tarn up`, and with folders of the machine in this one.
    fn here(&self, text: &str) -> String {
        let text = FOLDERS.iter().fold(text.to_owned(), |text, folder| {
            text.replace(&format!(" /{folder}/"), &format!(" {}/", self.path(folder).display()))
        });
        match self.up() {
            Some((url, _)) => text.replace("http://127.0.0.1:4000", &url),
            None => text,
        }
    }

    fn command(&self, program: &str) -> Command {
        let named = self.path("bin").join(program);
        Command::new(if named.exists() { named } else { program.into() })
    }

    fn ended(&self, command: &mut Command) -> Result<(String, String), String> {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.current_dir(self.folder.path()).env("PATH", path).env("TARN_PROGRAM", program("tarn"));
        for variable in shared::config::VARIABLES {
            command.env_remove(variable.name);
        }
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        match status.success() {
            true => Ok((stdout.into_owned(), stderr.into_owned())),
            false => Err(format!("{status}\n{stdout}\n{stderr}")),
        }
    }
}

/// Flights of eight weeks, fewer on Saturdays.
fn flights() -> String {
    let first = chrono::NaiveDate::from_ymd_opt(2013, 1, 1).unwrap();
    let days = first.iter_days().take(56).zip(0..);
    let flights = days.flat_map(|(day, n)| {
        let hours = if n % 7 == 4 { 2 } else { 4 };
        (0..hours * 3).map(move |i| (day, n * 12 + i, 6 + 4 * (i / 3), ["UA", "AA", "B6"][i as usize % 3]))
    });
    let line = |(day, id, hour, carrier): (chrono::NaiveDate, i32, i32, &str)| {
        let (origin, delay) = (["EWR", "JFK"][id as usize % 2], f64::from(id % 37 - 7));
        let (day, time) = (day.to_string(), format!("{day}T{hour:02}:00:00"));
        let flight = serde_json::json!({
            "id": id, "carrier": carrier, "origin": origin, "day": day, "time_hour": time,
            "dep_time": hour * 100 + id % 60, "dep_delay": delay, "distance": 500 + id % 9 * 100,
        });
        format!("{flight}\n")
    };
    flights.map(line).collect()
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some((_, pid)) = self.up() {
            let _ = Command::new("kill").arg("-9").arg(pid.to_string()).status();
        }
    }
}
