//! `tarn logs`: what `tarn up` has logged, as text on a terminal and as JSON lines elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use shared::error::Context;
use shared::telemetry::file::files;
use shared::{Error, Result};

use super::arguments::{Format, Level, Logs};
use super::caller::Lakehouse;
use super::output::{Out, printable};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(lakehouse: &Lakehouse, logs: &Logs, out: &Out) -> Result<()> {
    if let Some(api) = &lakehouse.api {
        return Err(Error::invalid(format!(
            "expected a data directory, found the deployed lakehouse `{}`: its functions log to CloudWatch, in the groups `/aws/lambda/<stack>-<function>`",
            api.url
        )));
    }
    let folder = lakehouse.settings.data.join("logs");
    let as_text = out.format() == Format::Table && std::io::stdout().is_terminal();
    let write = |line: &str| out.text(&if as_text { printable(&text(line)) } else { format!("{line}\n") });
    let found = files(&folder);
    if found.is_empty() && !logs.follow {
        return Err(Error::not_found(format!("no log in `{}`: `tarn up` writes it", folder.display())));
    }
    let (mut last, mut named) = (VecDeque::new(), Named::default());
    let mut end = None;
    for path in &found {
        let mut reader = Reader::open(path)?;
        while let Some(line) = reader.next()? {
            named.look(&line, logs);
            if is_wanted(&line, logs) {
                last.push_back(line);
                if last.len() > logs.lines {
                    last.pop_front();
                }
            }
        }
        end = Some(reader);
    }
    for line in &last {
        write(line)?;
    }
    if !logs.follow {
        return if last.is_empty() { named.check(logs) } else { Ok(()) };
    }
    let current = folder.join("tarn.log");
    loop {
        match &mut end {
            Some(reader) => {
                while let Some(line) = reader.next()? {
                    if is_wanted(&line, logs) {
                        write(&line)?;
                    }
                }
                if !reader.is_still(&current) {
                    end = None;
                    continue;
                }
            }
            None if current.is_file() => {
                end = Some(Reader::open(&current)?);
                continue;
            }
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            interrupted = tokio::signal::ctrl_c() => return interrupted.map_err(Error::from),
        }
    }
}

/// What was asked for by a name, and which names of its kind the log has.
#[derive(Debug, Default)]
struct Named {
    is_found: bool,
    known: BTreeSet<String>,
}

impl Named {
    fn look(&mut self, line: &str, logs: &Logs) {
        let Some((kind, asked)) = named(logs) else { return };
        let fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
        let Some(name) = fields.get(kind).and_then(Value::as_str) else { return };
        self.is_found |= name == asked;
        // Runs and queries are many.
        if kind == "stream" {
            self.known.insert(name.to_owned());
        }
    }

    /// # Errors
    /// `NotFound` when no line, of whatever level, is about what was asked for.
    fn check(&self, logs: &Logs) -> Result<()> {
        let Some((kind, asked)) = named(logs).filter(|_| !self.is_found) else { return Ok(()) };
        let known: Vec<_> = self.known.iter().map(|name| format!("`{name}`")).collect();
        let those = if known.is_empty() { String::new() } else { format!(": it tells of {}", known.join(", ")) };
        Err(Error::not_found(format!("no line of the log is about a {kind} `{asked}`{those}")))
    }
}

/// The kind and the name of what was asked for.
fn named(logs: &Logs) -> Option<(&'static str, &str)> {
    let asked = [("stream", &logs.stream), ("run", &logs.run), ("query", &logs.query)];
    asked.into_iter().find_map(|(kind, name)| Some((kind, name.as_deref()?)))
}

/// A file of the log, read as far as it has whole lines.
struct Reader {
    input: BufReader<File>,
    inode: u64,
    at: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context(|| format!("opening `{}`", path.display()))?;
        let inode = file.metadata()?.ino();
        Ok(Self { input: BufReader::new(file), inode, at: 0 })
    }

    fn next(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = self.input.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            // The rest of it is not written yet.
            self.input.seek(std::io::SeekFrom::Start(self.at))?;
            return Ok(None);
        }
        self.at += read as u64;
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    /// Whether the file at `path` is this one: a full one gets another name.
    fn is_still(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.ino() == self.inode)
    }
}

/// Whether a line is about what was asked for. One that is no JSON has no fields.
fn is_wanted(line: &str, logs: &Logs) -> bool {
    let fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
    let is = |name: &str, wanted: &Option<String>| {
        wanted.as_deref().is_none_or(|wanted| fields.get(name).and_then(Value::as_str) == Some(wanted))
    };
    let level = fields.get("level").and_then(Value::as_str).and_then(Level::parse);
    is("stream", &logs.stream)
        && is("run", &logs.run)
        && is("query", &logs.query)
        && logs.level.is_none_or(|least| level.is_some_and(|level| level >= least))
}

/// A line for people: time, level, message, then the other fields.
fn text(line: &str) -> String {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else { return format!("{line}\n") };
    // Not `remove`, which puts the last field in the place of the one that goes.
    let mut take = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (time, level, message, _) = (take("timestamp"), take("level"), take("message"), take("target"));
    let rest = fields.iter().map(|(name, value)| match value.as_str() {
        Some(text) if !text.contains(char::is_whitespace) => format!(" {name}={text}"),
        _ => format!(" {name}={value}"),
    });
    format!("{time} {level:>5} {message}{}\n", rest.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(stream: Option<&str>, level: Option<Level>) -> Logs {
        Logs { follow: false, lines: 10, stream: stream.map(str::to_owned), run: None, query: None, level }
    }

    #[test]
    fn a_line_is_wanted_by_its_fields() {
        let line = r#"{"timestamp":"t","level":"WARN","target":"x","message":"m","stream":"orders","n":3}"#;
        assert!(is_wanted(line, &logs(None, None)));
        assert!(is_wanted(line, &logs(Some("orders"), Some(Level::Warn))));
        assert!(!is_wanted(line, &logs(Some("order"), None)));
        assert!(!is_wanted(line, &logs(None, Some(Level::Error))));
        assert!(is_wanted("thread panicked", &logs(None, None)) && !is_wanted("x", &logs(Some("orders"), None)));
    }

    #[test]
    fn a_stream_that_nothing_was_logged_of_is_told_from_one_without_lines_of_a_level() {
        let told = |asked: &str, level| {
            let (logs, mut named) = (logs(Some(asked), level), Named::default());
            named.look(r#"{"level":"INFO","stream":"orders"}"#, &logs);
            named.check(&logs).map_err(|error| error.to_string())
        };
        assert_eq!(told("orders", Some(Level::Error)), Ok(()));
        assert_eq!(
            told("order", None).unwrap_err(),
            "no line of the log is about a stream `order`: it tells of `orders`"
        );
        assert_eq!(Named::default().check(&logs(None, None)).map_err(|e| e.to_string()), Ok(()));
    }

    #[test]
    fn people_read_the_message_first() {
        let line =
            r#"{"timestamp":"t","level":"WARN","target":"x","message":"m n","stream":"orders","error":"a b","n":3}"#;
        assert_eq!(text(line), "t  WARN m n stream=orders error=\"a b\" n=3\n");
        assert_eq!(text("no json"), "no json\n");
    }

    #[test]
    fn half_a_line_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tarn.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!((reader.next().unwrap().as_deref(), reader.next().unwrap()), (Some("one"), None));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(reader.next().unwrap().as_deref(), Some("two"));
        std::fs::rename(&path, dir.path().join("tarn.1.log")).unwrap();
        assert!(!reader.is_still(&path));
    }
}
