//! `tarn put`: records to a stream, or a file to a location.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use format::records::Rejected;
use ingest::as_sent;
use serde_json::{Value, json};
use shared::api::Request;
use shared::clock::{Clock, SystemClock};
use shared::error::Context;
use shared::{Error, ErrorKind, Result};

use super::arguments::{Put, RecordFormat, Target};
use super::caller::{Caller, Lakehouse, json_body, request};
use super::delivery::{self, Delivery, Sent};
use super::output::{Out, Rows};

/// Bytes and lines of records in one request: no more than `ingest` takes.
const CHUNK: usize = 2 << 20;
const CHUNK_LINES: usize = ingest::MAX_RECORDS;
/// Records that were not stored and are shown.
const SHOWN: usize = 10;

pub(super) async fn run(lakehouse: &Lakehouse, put: &Put, out: &Out) -> Result<()> {
    let target = put.target()?;
    let caller = Caller::connect(lakehouse).await?;
    match target {
        Target::Upload { location, file } => upload(&caller, location, file, put, out).await,
        Target::Records { stream, file } => records(&caller, stream, file, put, out).await,
    }
}

/// Uploads the file's bytes as they are. Without a runtime that would notice it, the location is crawled at once.
async fn upload(caller: &Caller, location: &str, file: &Path, put: &Put, out: &Out) -> Result<()> {
    let name = match (&put.upload_as, file.file_name()) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => name.to_string_lossy().into_owned(),
        (None, None) => return Err(Error::invalid(format!("expected a file, found `{}`", file.display()))),
    };
    let bytes = std::fs::read(file).context(|| format!("reading `{}`", file.display()))?;
    let mut put_file = request("PUT", &format!("/files/{location}/{name}"), None);
    put_file.headers.insert("content-type".into(), "application/octet-stream".into());
    put_file.body = bytes.into();
    let answer = json_body(&delivery::upload(caller, put_file).await?)?;
    if caller.is_local() {
        let crawled = caller.json("POST", "/crawl", Some(&json!({"location": location}))).await;
        crawled.context(|| format!("`{name}` is stored, and its location `{location}` could not be crawled"))?;
    }
    out.document(&answer, |answer| Rows::of_objects(&json!([answer]), &["url", "size", "etag"]))
}

/// What became of all records that were sent.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    rejected: u64,
    /// Not stored, or nobody knows: to be sent again.
    unsure: u64,
    /// Of the stored ones, those that an earlier request had stored.
    repeated: u64,
    /// Whether what follows in the input was not sent.
    has_stopped: bool,
    /// The first of the rejected ones: place in the input, reason.
    shown: Vec<(u64, String)>,
}

/// Sends records in requests of whole records. Without a runtime that would write them, or when that is asked for, the stream is
/// flushed at once.
async fn records(caller: &Caller, stream: &str, file: &Path, put: &Put, out: &Out) -> Result<()> {
    let format = put.format.map_or_else(|| format_of(file), Ok)?;
    let delivery = Delivery::new(put.key.as_deref());
    let mut chunks = Chunks::new(open(file)?, format);
    let spinner = out.spinner("sending");
    let mut tally = Tally::default();
    let mut rejects = put.rejects.as_deref().map(Rejects::create).transpose()?;
    for number in 0_u64.. {
        let Some(chunk) = chunks.next()? else { break };
        let mut send = request("POST", &format!("/streams/{stream}/records"), None);
        send.headers.insert("content-type".into(), content_type(format).into());
        send.body = chunk;
        let as_sent = put.rejects.is_some().then(|| send.clone());
        let sent = delivery.send(caller, send, &number.to_string()).await;
        let sent = sent.map_err(|error| {
            if error.kind() == ErrorKind::Retry {
                advise(&delivery, file, out);
            }
            if number == 0 { error } else { error.context(tally.so_far()) }
        })?;
        if let (Some(file), Some(request)) = (&mut rejects, as_sent) {
            file.add(stream, &request, &sent.answer)?;
        }
        tally.add(&sent);
        spinner.set_message(format!("{} stored, {} rejected", tally.stored, tally.rejected));
        if sent.finds_no_room() {
            tally.has_stopped = true;
            break;
        }
    }
    let written = written(caller, stream, put, &tally, out).await;
    spinner.finish_and_clear();
    tell(stream, file, put, &tally, &delivery, out)?;
    match (written, tally.judge()) {
        (Err(error), Err(judged)) => Err(error.context(judged.to_string())),
        (written, judged) => written.and(judged),
    }
}

/// Writes what was stored to the stream's table, or says how long it waits.
///
/// # Errors
/// `NotFound` for another stream; what the flush fails with, which leaves the records in the stream.
async fn written(caller: &Caller, stream: &str, put: &Put, tally: &Tally, out: &Out) -> Result<()> {
    if put.flush || (caller.is_local() && tally.stored > 0) {
        let flushed = caller.json("POST", &format!("/streams/{stream}/flush"), None).await;
        let waiting =
            || format!("{} records are stored in the stream, and could not be written to its table", tally.stored);
        return flushed.map(|_| ()).context(waiting);
    }
    let streams = caller.json("GET", "/streams", None).await?;
    let declared = streams["streams"].as_array().into_iter().flatten().find(|declared| declared["name"] == stream);
    let declared = declared.ok_or_else(|| Error::not_found(format!("no stream `{stream}`")))?;
    if let (Some(interval), true) = (declared["buffer"]["interval"].as_str(), tally.stored > 0) {
        let table = declared["table"].as_str().unwrap_or_default();
        let stored = tally.stored;
        out.note(&format!(
            "{stored} records wait in the stream: within {interval} they are in `{table}`, with `--flush` at once"
        ));
    }
    Ok(())
}

/// Shows what became of the records.
fn tell(stream: &str, file: &Path, put: &Put, tally: &Tally, delivery: &Delivery, out: &Out) -> Result<()> {
    let rejected = tally.shown.iter().map(|(at, reason)| json!({"record": at, "reason": reason})).collect::<Vec<_>>();
    let (stored, refused, unsure) = (tally.stored, tally.rejected, tally.unsure);
    let document =
        json!({"stream": stream, "stored": stored, "rejected": refused, "not_stored": unsure, "examples": rejected});
    let columns: &[&str] =
        if unsure > 0 { &["stream", "stored", "rejected", "not_stored"] } else { &["stream", "stored", "rejected"] };
    out.document(&document, |document| Rows::of_objects(&json!([document]), columns))?;
    for (at, reason) in &tally.shown {
        out.note(&format!("record {at}: {reason}"));
    }
    if tally.all() == 0 {
        out.note(&format!("`{}` holds no records", file.display()));
    }
    if let (Some(path), true) = (&put.rejects, refused > 0) {
        out.note(&format!("the {refused} records that were refused are in `{}`", path.display()));
    }
    if put.key.is_some() && tally.repeated > 0 {
        out.note(&format!("{} of them were sent under this key before and not stored again", tally.repeated));
    }
    if unsure > 0 {
        advise(delivery, file, out);
    }
    Ok(())
}

/// How to go on after a delivery that stopped half-way.
fn advise(delivery: &Delivery, file: &Path, out: &Out) {
    if file != Path::new("-") {
        out.note(&format!("the same command with `--key {}` goes on without storing twice", delivery.key()));
    }
}

/// The file of refused records.
struct Rejects {
    file: std::fs::File,
    path: PathBuf,
}

impl Rejects {
    fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(path).context(|| format!("making `{}`", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Adds what the answer refuses of the request.
    fn add(&mut self, stream: &str, request: &Request, answer: &Value) -> Result<()> {
        let refused =
            answer["records"].as_array().into_iter().flatten().filter(|record| record["status"] == "rejected");
        let mut refused = refused.peekable();
        if refused.peek().is_none() {
            return Ok(());
        }
        let (records, now_ms, mut lines) = (as_sent(request)?, SystemClock.now_ms(), Vec::new());
        for record in refused {
            let text = |name: &str| record[name].as_str().unwrap_or_default();
            let at = record["index"].as_u64().and_then(|at| usize::try_from(at).ok());
            let data = at.and_then(|at| records.get(at)).ok_or_else(|| {
                Error::bug(format!("expected an answer about {} records, found one about {record}", records.len()))
            })?;
            Rejected::new(stream, None, now_ms, (text("code"), text("message")), data).write(&mut lines)?;
        }
        self.file.write_all(&lines).context(|| format!("writing `{}`", self.path.display()))
    }
}

impl Tally {
    /// Adds the answer to one request.
    fn add(&mut self, sent: &Sent) {
        let answer = &sent.answer;
        let before = self.all();
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        self.stored += count("stored");
        self.repeated += if sent.repeated { count("stored") } else { 0 };
        self.rejected += count("rejected");
        self.unsure += count("throttled");
        let records = answer["records"].as_array().into_iter().flatten();
        for record in records.filter(|record| record["status"] != "stored") {
            if self.shown.len() < SHOWN {
                let at = before + record["index"].as_u64().unwrap_or_default() + 1;
                self.shown.push((at, record["message"].as_str().unwrap_or_default().to_owned()));
            }
        }
    }

    fn all(&self) -> u64 {
        self.stored + self.rejected + self.unsure
    }

    /// What is known when a request after the first one fails.
    fn so_far(&self) -> String {
        let Self { stored, rejected, unsure, .. } = self;
        format!("after {stored} records were stored, {rejected} were rejected and {unsure} were not stored")
    }

    /// Whether all records are stored.
    ///
    /// # Errors
    /// `Invalid` when some were rejected, `Retry` when some are to be sent again.
    fn judge(&self) -> Result<()> {
        let all = self.all();
        match (self.rejected, self.unsure) {
            (0, 0) => Ok(()),
            (_, 0) => Err(Error::invalid(format!("{} of {all} records were rejected", self.rejected))),
            _ => {
                let rest = if self.has_stopped { "; what follows in the input was not sent" } else { "" };
                Err(Error::retry(format!(
                    "{} of {all} records were not stored and are to be sent again, {} are stored{rest}",
                    self.unsure, self.stored
                )))
            }
        }
    }
}

fn content_type(format: RecordFormat) -> &'static str {
    match format {
        RecordFormat::Ndjson => "application/x-ndjson",
        RecordFormat::Json => "application/json",
        RecordFormat::Csv => "text/csv",
    }
}

/// The format that a file's name tells; NDJSON for standard input.
fn format_of(path: &Path) -> Result<RecordFormat> {
    let name = path.to_string_lossy().to_ascii_lowercase();
    match name.trim_end_matches(".gz").rsplit('.').next().unwrap_or_default() {
        _ if name == "-" => Ok(RecordFormat::Ndjson),
        "ndjson" | "jsonl" => Ok(RecordFormat::Ndjson),
        "json" => Ok(RecordFormat::Json),
        "csv" => Ok(RecordFormat::Csv),
        _ => Err(Error::invalid(format!(
            "expected a file named `.ndjson`, `.jsonl`, `.json` or `.csv` (or with `.gz` behind), found `{}`; `--format` says which it is",
            path.display()
        ))),
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).context(|| format!("opening `{}`", path.display()))?;
    let file = BufReader::new(file);
    let gzipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    Ok(if gzipped { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// Cuts the input into bodies of whole records; a CSV header is repeated in each. Of an input without records there is none.
struct Chunks {
    input: Box<dyn BufRead>,
    format: RecordFormat,
    header: Option<Vec<u8>>,
    /// Whether the input stands within quotes of CSV.
    quoted: bool,
}

impl Chunks {
    fn new(input: Box<dyn BufRead>, format: RecordFormat) -> Self {
        Self { input, format, header: None, quoted: false }
    }

    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.format == RecordFormat::Json {
            let mut whole = Vec::new();
            self.input.read_to_end(&mut whole).context(|| "reading records".into())?;
            let is_empty = matches!(serde_json::from_slice(&whole), Ok(Value::Array(records)) if records.is_empty());
            return Ok((!is_empty && !is_blank(&whole)).then(|| whole.into()));
        }
        let mut chunk = self.header()?;
        let begin = chunk.len();
        let mut lines = 0;
        while (chunk.len() < CHUNK && lines < CHUNK_LINES) || self.quoted {
            if self.line(&mut chunk)? == 0 {
                break;
            }
            lines += 1;
        }
        Ok((!is_blank(&chunk[begin..])).then(|| chunk.into()))
    }

    /// The header of CSV, read once.
    fn header(&mut self) -> Result<Vec<u8>> {
        if self.format != RecordFormat::Csv {
            return Ok(Vec::new());
        }
        if let Some(header) = &self.header {
            return Ok(header.clone());
        }
        let mut header = Vec::new();
        while self.line(&mut header)? > 0 && self.quoted {}
        self.header = Some(header.clone());
        Ok(header)
    }

    /// Adds a line; gives its bytes, 0 at the end of the input.
    fn line(&mut self, chunk: &mut Vec<u8>) -> Result<usize> {
        let begin = chunk.len();
        let read = self.input.read_until(b'\n', chunk).context(|| "reading records".into())?;
        if self.format == RecordFormat::Csv {
            self.quoted ^= chunk[begin..].iter().filter(|b| **b == b'"').count() % 2 == 1;
        }
        Ok(read)
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str, format: RecordFormat) -> Vec<String> {
        let input = Box::new(std::io::Cursor::new(text.to_owned().into_bytes()));
        let mut chunks = Chunks::new(input, format);
        std::iter::from_fn(|| chunks.next().unwrap()).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect()
    }

    #[test]
    fn csv_is_cut_between_records_and_each_part_has_the_header() {
        let long = "x".repeat(CHUNK);
        let text = format!("a,b\n1,\"{long}\n;\"\n2,y\n");
        assert_eq!(chunks(&text, RecordFormat::Csv), [format!("a,b\n1,\"{long}\n;\"\n"), "a,b\n2,y\n".into()]);
    }

    #[test]
    fn lines_are_never_cut() {
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(CHUNK / 2));
        let parts = chunks(&line.repeat(5), RecordFormat::Ndjson);
        assert_eq!(parts.concat(), line.repeat(5));
        assert!(parts.iter().all(|p| p.ends_with('\n')));
    }

    #[test]
    fn no_part_has_more_records_than_a_request_may_have() {
        let parts = chunks(&"{}\n".repeat(2 * CHUNK_LINES + 1), RecordFormat::Ndjson);
        assert_eq!(parts.iter().map(|part| part.lines().count()).collect::<Vec<_>>(), [CHUNK_LINES, CHUNK_LINES, 1]);
        let parts = chunks(&"1\n".repeat(CHUNK_LINES + 2), RecordFormat::Csv);
        assert_eq!(parts.iter().map(|part| part.lines().count()).collect::<Vec<_>>(), [CHUNK_LINES + 1, 2]);
    }

    #[test]
    fn an_input_without_records_is_sent_nowhere() {
        for (text, format) in [
            ("", RecordFormat::Csv),
            ("a,b\n", RecordFormat::Csv),
            ("a,b\n\n\n", RecordFormat::Csv),
            ("\"a\nb\"", RecordFormat::Csv),
            ("\n \n", RecordFormat::Ndjson),
            (" [ ]\n", RecordFormat::Json),
            ("", RecordFormat::Json),
        ] {
            assert!(chunks(text, format).is_empty(), "{text:?}");
        }
        assert_eq!(chunks("a\n\n\"x\n\ny\"\n", RecordFormat::Csv), ["a\n\n\"x\n\ny\"\n"]);
    }

    #[test]
    fn a_record_that_was_not_stored_is_named_by_its_place_in_the_whole_input() {
        let mut tally = Tally::default();
        let sent = |answer| Sent { answer, repeated: false };
        tally.add(&sent(json!({"stored": 2, "rejected": 0, "throttled": 0, "records": []})));
        assert!(tally.judge().is_ok());
        tally.add(&sent(json!({"stored": 1, "rejected": 1, "throttled": 0, "records": [
            {"index": 0, "status": "stored"}, {"index": 1, "status": "rejected", "message": "why"},
        ]})));
        assert_eq!(tally.shown, [(4, "why".to_owned())]);
        assert_eq!(tally.judge().unwrap_err().kind(), shared::ErrorKind::Invalid);
    }

    #[test]
    fn a_full_disk_is_told_with_what_is_stored_and_what_is_not() {
        let answer = json!({"stored": 2, "rejected": 0, "throttled": 1, "records": [
            {"index": 0, "status": "stored"}, {"index": 1, "status": "stored"},
            {"index": 2, "status": "throttled", "code": "no_room", "message": "the disk is full"},
        ]});
        let sent = Sent { answer, repeated: false };
        assert!(sent.finds_no_room());
        let mut tally = Tally { has_stopped: true, ..Tally::default() };
        tally.add(&sent);
        let error = tally.judge().unwrap_err();
        assert!(error.to_string().starts_with("1 of 3 records were not stored"), "{error}");
        assert!(error.to_string().ends_with("2 are stored; what follows in the input was not sent"), "{error}");
    }

    #[test]
    fn a_name_tells_its_format() {
        assert_eq!(format_of(Path::new("a.csv.gz")).unwrap(), RecordFormat::Csv);
        assert_eq!(format_of(Path::new("-")).unwrap(), RecordFormat::Ndjson);
        assert!(format_of(Path::new("a.parquet")).unwrap_err().to_string().contains("a.parquet"));
    }
}
