//! `tarn logs`: what `tarn up` has logged, as text on a terminal and as JSON lines elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};
use shared::error::Context;
use shared::project::Project;
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
    let (mut last, mut streams) = (VecDeque::new(), Streams::default());
    let mut end = None;
    for path in &found {
        let mut reader = Reader::open(path)?;
        while let Some(line) = reader.next()? {
            streams.look(&line);
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
        let declared = Project::load(&lakehouse.settings.project).ok();
        return streams.check(logs.stream.as_deref(), declared.as_ref());
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

/// The streams that the log tells of.
#[derive(Debug, Default)]
struct Streams(BTreeSet<String>);

impl Streams {
    fn look(&mut self, line: &str) {
        let fields: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
        if let Some(name) = fields.get("stream").and_then(Value::as_str) {
            self.0.insert(name.to_owned());
        }
    }

    /// # Errors
    /// `NotFound` for a stream that neither the log, at any level, nor the lakehouse file has.
    fn check(&self, asked: Option<&str>, declared: Option<&Project>) -> Result<()> {
        let is_declared = |name: &str| declared.is_some_and(|project| project.stream(name).is_ok());
        let Some(name) = asked.filter(|name| !self.0.contains(*name) && !is_declared(name)) else { return Ok(()) };
        let mut known = self.0.clone();
        known.extend(declared.into_iter().flat_map(|project| project.file().streams.keys().cloned()));
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let those = if known.is_empty() { String::new() } else { format!(": there are {}", known.join(", ")) };
        Err(Error::not_found(format!("no stream `{name}` in the log, nor in the lakehouse file{those}")))
    }
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
    fn a_stream_that_there_is_not_is_told_from_one_without_lines() {
        let mut streams = Streams::default();
        streams.look(r#"{"level":"INFO","stream":"orders"}"#);
        let text = "version: 1\ndatabase: d\nstreams: {clicks: {schema: [{name: id, type: bigint}]}}\n";
        let project = Project::parse(text, "test").unwrap();
        for asked in [None, Some("orders"), Some("clicks")] {
            streams.check(asked, Some(&project)).unwrap();
        }
        let error = streams.check(Some("order"), Some(&project)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no stream `order` in the log, nor in the lakehouse file: there are `clicks`, `orders`"
        );
        assert!(streams.check(Some("clicks"), None).is_err());
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
