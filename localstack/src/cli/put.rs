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
        caller.json("POST", "/crawl", Some(&json!({"location": location}))).await?;
    }
    out.document(&answer, |answer| Rows::of_objects(&json!([answer]), &["url", "size", "etag"]))
}

/// What became of all records that were sent.
#[derive(Debug, Default)]
struct Tally {
    stored: u64,
    rejected: u64,
    /// Neither stored nor rejected, or nobody knows: to be sent again.
    unsure: u64,
    /// Of the stored ones, those that an earlier request had stored.
    repeated: u64,
    /// The first of the rejected ones: place in the input, reason.
    shown: Vec<(u64, String)>,
}

/// Sends records in requests of whole records. Without a runtime that would write them, the stream is flushed at once.
async fn records(caller: &Caller, stream: &str, file: &Path, put: &Put, out: &Out) -> Result<()> {
    let format = put.format.map_or_else(|| format_of(file), Ok)?;
    let delivery = Delivery::new(put.key.as_deref());
    let mut chunks = Chunks { input: open(file)?, format, header: None, quoted: false };
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
        let sent = sent.inspect_err(|error| {
            if error.kind() == ErrorKind::Retry {
                advise(&delivery, file, out);
            }
        })?;
        if let (Some(file), Some(request)) = (&mut rejects, as_sent) {
            file.add(stream, &request, &sent.answer)?;
        }
        tally.add(&sent);
        spinner.set_message(format!("{} stored, {} rejected", tally.stored, tally.rejected));
    }
    if caller.is_local() && tally.stored > 0 {
        caller.json("POST", &format!("/streams/{stream}/flush"), None).await?;
    }
    spinner.finish_and_clear();
    let rejected = tally.shown.iter().map(|(at, reason)| json!({"record": at, "reason": reason})).collect::<Vec<_>>();
    let document = json!({"stream": stream, "stored": tally.stored, "rejected": tally.rejected, "examples": rejected});
    out.document(&document, |document| Rows::of_objects(&json!([document]), &["stream", "stored", "rejected"]))?;
    for (at, reason) in &tally.shown {
        out.note(&format!("record {at}: {reason}"));
    }
    if let (Some(path), true) = (&put.rejects, tally.rejected > 0) {
        out.note(&format!("the {} records that were refused are in `{}`", tally.rejected, path.display()));
    }
    if put.key.is_some() && tally.repeated > 0 {
        out.note(&format!("{} of them were sent under this key before and not stored again", tally.repeated));
    }
    if tally.unsure > 0 {
        advise(&delivery, file, out);
    }
    tally.judge()
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
        let before = self.stored + self.rejected + self.unsure;
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

    /// Whether all records are stored.
    ///
    /// # Errors
    /// `Invalid` when some were rejected, `Retry` when some are to be sent again.
    fn judge(&self) -> Result<()> {
        let all = self.stored + self.rejected + self.unsure;
        match (self.rejected, self.unsure) {
            (0, 0) => Ok(()),
            (_, 0) => Err(Error::invalid(format!("{} of {all} records were rejected", self.rejected))),
            _ => Err(Error::retry(format!("{} of {all} records are to be sent again", self.unsure))),
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

/// Cuts the input into bodies of whole records; a CSV header is repeated in each.
struct Chunks {
    input: Box<dyn BufRead>,
    format: RecordFormat,
    header: Option<Vec<u8>>,
    /// Whether the input stands within quotes of CSV.
    quoted: bool,
}

impl Chunks {
    fn next(&mut self) -> Result<Option<Bytes>> {
        let mut chunk = Vec::new();
        if self.format == RecordFormat::Json {
            self.input.read_to_end(&mut chunk).context(|| "reading records".into())?;
            return Ok((!chunk.is_empty()).then(|| chunk.into()));
        }
        if let Some(header) = &self.header {
            chunk.extend_from_slice(header);
        }
        let begin = chunk.len();
        let mut lines = 0;
        while (chunk.len() < CHUNK && lines < CHUNK_LINES) || self.quoted {
            let line = chunk.len();
            lines += 1;
            if self.input.read_until(b'\n', &mut chunk).context(|| "reading records".into())? == 0 {
                break;
            }
            if self.format == RecordFormat::Csv {
                self.quoted ^= chunk[line..].iter().filter(|b| **b == b'"').count() % 2 == 1;
                if self.header.is_none() && !self.quoted {
                    self.header = Some(chunk.clone());
                }
            }
        }
        Ok((chunk.len() > begin).then(|| chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str, format: RecordFormat) -> Vec<String> {
        let input = Box::new(std::io::Cursor::new(text.to_owned().into_bytes()));
        let mut chunks = Chunks { input, format, header: None, quoted: false };
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
        let parts = chunks(&"1\n".repeat(CHUNK_LINES + 1), RecordFormat::Csv);
        assert_eq!(parts.iter().map(|part| part.lines().count()).collect::<Vec<_>>(), [CHUNK_LINES, 2]);
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
    fn a_name_tells_its_format() {
        assert_eq!(format_of(Path::new("a.csv.gz")).unwrap(), RecordFormat::Csv);
        assert_eq!(format_of(Path::new("-")).unwrap(), RecordFormat::Ndjson);
        assert!(format_of(Path::new("a.parquet")).unwrap_err().to_string().contains("a.parquet"));
    }
}
