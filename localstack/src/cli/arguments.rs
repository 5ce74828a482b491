//! The command line as it is written.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand, ValueEnum};

mod backup;
mod errors;

pub use backup::{Backup, Restore};
pub use errors::{Discard, Erase, ErrorFilter, Errors, ErrorsCommand, Replay, Show};

const EXAMPLES: &str = "\
Examples:
  tarn demo                                  real data through everything, with a report at the end
  tarn init && tarn up                       a lakehouse of your own
  tarn put orders orders.ndjson              send records to a stream
  tarn put --file weather 2013-01.csv.gz     upload a file that the crawler will register
  tarn sql 'SELECT count(*) FROM orders'     ask
  tarn status                                what is wrong; what is buffered, crawled, run and due
  tarn backup /mnt/backups --keep 14         back the data directory up, also while `tarn up` runs

A command works through a `tarn up` that has the data directory, and on the directory itself when none runs.

Exit codes: 0 done, 1 the work failed, 2 wrong use or invalid input, 3 not found, 4 conflict (the data directory is
taken, or somebody else changed the same thing).

Environment: TARN_DATA, TARN_PROJECT, TARN_WAREHOUSE, TARN_MEMORY, TARN_SPILL, TARN_SPILL_LIMIT, TARN_LOG, TARN_LOG_FORMAT.";

/// A lakehouse on one machine: streams, files, a catalog, SQL workflows, queries, forecasts.
#[derive(Debug, Parser)]
#[command(name = "tarn", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How results are written: what rows in lines are to SQL is JSON to other commands.
    pub fn format(&self) -> Format {
        match (&self.command, self.global.output) {
            (Command::Sql(_), format) => format,
            (_, Format::Ndjson) => Format::Json,
            (_, format) => format,
        }
    }
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Data directory [default: `data`, or TARN_DATA]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Lakehouse file [default: `lakehouse.yaml` in the data directory if there is one, else in this one; or TARN_PROJECT]
    #[arg(long, global = true, value_name = "FILE")]
    pub project: Option<PathBuf>,
    /// HTTP API of a deployed lakehouse to use instead of the data directory [or TARN_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// JSON web token for that API [or TARN_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Sign requests to it (SigV4) with AWS's credentials, also where its address is not AWS's own
    #[arg(long, global = true)]
    pub sign: bool,
    /// How results are written to standard output; `parquet` and `arrow` by `tarn sql` only
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: Format,
}

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// An object a line
    Json,
    /// The same
    Ndjson,
    /// With a header; null is empty, an empty text `""`
    Csv,
    Markdown,
    Parquet,
    /// The Arrow IPC stream format
    Arrow,
}

impl Format {
    /// As the command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Markdown => "markdown",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// Whether nobody can read it as text.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Up(Up),
    Demo(Demo),
    Init(Init),
    /// Check the lakehouse file and explain what feeds what
    Validate,
    Plan(Plan),
    Put(Put),
    Sql(Sql),
    Crawl(Crawl),
    Run(Run),
    Insight(Insight),
    Status(Status),
    Logs(Logs),
    Errors(Errors),
    Erase(Erase),
    Backup(Backup),
    Restore(Restore),
}

/// Run the lakehouse until interrupted
///
/// Hosts the six functions in this process and serves them over HTTP on 127.0.0.1; delivers streams, notices files, runs what
/// is scheduled. Prints its URL when it is ready. On SIGINT or SIGTERM what is under way has a few seconds to finish; the next
/// start goes on where this one was, also after `kill -9`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn up                                    on port 4000, data in ./data
  tarn up --port 0 --output json             on a free port; prints {\"url\":…,\"pid\":…}
  curl --json '{\"sql\":\"SELECT 1\"}' http://127.0.0.1:4000/query")]
pub struct Up {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 4000)]
    pub port: u16,
    /// Largest request body; a larger one is answered with 413
    #[arg(long, default_value = "64MiB", value_name = "SIZE")]
    pub max_body: shared::project::ByteSize,
    /// Take over a lakehouse file though something would stay behind, such as the records of a stream that it no longer has
    #[arg(long)]
    pub allow: bool,
    /// Requests under way at once; more are answered with 429
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub in_flight: u16,
    /// A host name that requests may be addressed to beside `localhost` and 127.0.0.1; may be repeated
    #[arg(long, value_name = "HOST")]
    pub allow_host: Vec<String>,
    /// An origin whose pages may send requests beside this server's own, e.g. `https://lake.example`; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
}

/// Say what the lakehouse file changes over the one in force, and what would happen
///
/// Each difference is applied, needs `tarn up --allow` (something stays behind), or is impossible (and why). Changes nothing. Ends
/// with exit code 2 when something is impossible, 1 when something needs to be allowed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn plan
  tarn plan --output json
  tarn plan --url https://abc123.execute-api.eu-central-1.amazonaws.com")]
pub struct Plan {}

/// Where the demo is made unless the command line says otherwise.
pub const DEMO_DIRECTORY: &str = "data/demo";

/// Send real data through all six functions and report
///
/// Replays the flights that left New York in 2013 through the HTTP API, uploads the weather, planes, airports and airlines as
/// files, runs a workflow, asks questions, forecasts, explains what was unusual. Ends with where everything lies and an HTML
/// page of the results. A directory that an earlier demo made is emptied first; any other is refused.
///
/// With `--url` the same goes through a lakehouse that was deployed with the demo's file (`make emulator` does that) and holds
/// no flights yet; only the answers and the page are written here then.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn demo
  tarn demo --directory /tmp/demo
  tarn demo --url http://127.0.0.1:4566/_aws/execute-api/abc123/$default
  AWS_PROFILE=dev tarn demo --url https://abc123.execute-api.eu-central-1.amazonaws.com
  tarn sql --data data/demo 'SELECT carrier, count(*) FROM curated.flights GROUP BY carrier'")]
pub struct Demo {
    /// Where the demo's lakehouse is made, as `--data` says too [default: `data/demo`]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Write a commented lakehouse file and a few records to try it with
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn init
  tarn init shop && cd shop && tarn validate")]
pub struct Init {
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// Send records to a stream, or upload a file to a location
///
/// Records: NDJSON, a JSON array (`.json`) or CSV with a header (`.csv`), each also gzipped (`.gz`). Each record is checked
/// against the stream's schema; those that don't fit are reported and the others stored.
///
/// What gets no answer, because the connection broke or the runtime is starting anew, is sent again for up to a minute; nothing
/// is stored twice by that. Each call of this command stores its records anew, unless it has the `--key` of an earlier one.
#[derive(Debug, Args)]
#[command(
    override_usage = "tarn put [OPTIONS] <STREAM> <FILE|->\n       tarn put [OPTIONS] --file <LOCATION> <FILE>",
    after_help = "\
Examples:
  tarn put orders orders.ndjson
  zcat orders.gz | tarn put orders -
  tarn put orders orders.ndjson --key orders-2013-01-02   again, after it was killed: stores only what is missing
  tarn put --file weather station.csv.gz --as 2013/01/station.csv.gz"
)]
pub struct Put {
    /// A stream and a file (`-` reads records from standard input); with `--file`, only the file
    #[arg(required = true, num_args = 1..=2, value_names = ["STREAM", "FILE"])]
    pub words: Vec<String>,
    /// Upload to this location instead
    #[arg(long, value_name = "LOCATION")]
    pub file: Option<String>,
    /// Path of the upload below the location [default: the file's name]
    #[arg(long = "as", value_name = "PATH", requires = "file")]
    pub upload_as: Option<String>,
    /// How records from standard input are written: ndjson, json or csv
    #[arg(long, value_enum, conflicts_with = "file")]
    pub format: Option<RecordFormat>,
    /// Write what is refused to this file, a JSON line each with the reason and the record
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub rejects: Option<PathBuf>,
    /// Name of this delivery: the same input under the same key within 24 hours is stored once [default: a new key each time]
    #[arg(long, conflicts_with = "file", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub key: Option<String>,
    /// Write the stream's records to its table now, instead of when its buffer says so
    #[arg(long, conflicts_with = "file")]
    pub flush: bool,
}

/// Where [`Put`] sends what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    Records { stream: &'a str, file: &'a Path },
    Upload { location: &'a str, file: &'a Path },
}

impl Put {
    /// # Errors
    /// `Invalid` for a stream without a file, or a stream beside `--file`.
    pub fn target(&self) -> shared::Result<Target<'_>> {
        match (self.file.as_deref(), self.words.as_slice()) {
            (None, [stream, file]) => Ok(Target::Records { stream, file: Path::new(file) }),
            (Some(location), [file]) => Ok(Target::Upload { location, file: Path::new(file) }),
            (None, _) => Err(shared::Error::invalid("expected `put <stream> <file>`, found no file")),
            (Some(_), _) => Err(shared::Error::invalid("expected `put --file <location> <file>`, found a stream too")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    Ndjson,
    Json,
    Csv,
}

/// Ask in SQL
///
/// Without a query: reads statements and commands from standard input, as a shell with history and completion when it is a
/// terminal. A statement ends with `;`. Commands begin with a backslash; `\?` lists them. Ctrl-C stops a statement.
///
/// Answers of any size are written as they come. On a terminal the first 1000 rows are shown, through `$PAGER` (or `less`) where they
/// are higher than the screen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn sql 'SELECT origin, count(*) FROM flights GROUP BY origin'
  tarn sql --output csv 'SELECT * FROM curated.daily_delays' > delays.csv
  tarn sql --output parquet 'SELECT * FROM flights' > flights.parquet
  tarn sql \"EXPLAIN SELECT * FROM flights WHERE carrier = 'UA'\"
  tarn sql \"INSERT INTO notes VALUES (1, 'checked')\" --key notes-1   once, however often it is run
  tarn sql < questions.sql")]
pub struct Sql {
    pub query: Option<String>,
    /// Database of tables that are named without one
    #[arg(long)]
    pub database: Option<String>,
    /// Name of this change: the same statement under the same key changes a table once
    #[arg(long, requires = "query")]
    pub key: Option<String>,
    /// Rows of each answer at most; 0: all [default: 1000 of a table on a terminal, otherwise all]
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<u64>,
}

/// Look for new files and register them in the catalog
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn crawl
  tarn crawl weather")]
pub struct Crawl {
    /// Only this location
    pub location: Option<String>,
}

/// Run a workflow and wait for it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn run curate
  tarn run curate -p since=2013-07-01
  tarn run curate --dry-run                         what would be read and written
  tarn run curate --job enriched                    one job, without those that it needs
  tarn run curate --from 2026-01-01 --to 2026-01-31 a run for each day, as ${run_date}
  tarn run curate --resume 0198c0de-0000-7000-8000-000000000000")]
pub struct Run {
    pub workflow: String,
    /// A parameter of the run, `name=value`; may be repeated
    #[arg(short, long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
    /// Only this job, without those that it needs; may be repeated
    #[arg(long, value_name = "JOB")]
    pub job: Vec<String>,
    /// A run for each day from this one on, the day as the parameter `run_date`; stops at the first that fails
    #[arg(long, value_name = "DATE", requires = "to")]
    pub from: Option<NaiveDate>,
    /// The last of these days
    #[arg(long, value_name = "DATE", requires = "from")]
    pub to: Option<NaiveDate>,
    /// Say what would be read and written, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with a run that failed, from the job that failed
    #[arg(long, value_name = "RUN", conflicts_with_all = ["parameters", "job", "from", "dry_run"])]
    pub resume: Option<String>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("expected `name=value`, found `{text}`")),
    }
}

/// Show what is wrong, then what is buffered, crawled, run and due
///
/// Ends with exit code 1 when something is wrong. With `--url` it asks the functions of a deployed lakehouse.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn status
  tarn status --watch
  tarn status --output json | jq '.problems[]'")]
pub struct Status {
    /// Show it again every 2 seconds, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Show what `tarn up` has logged
///
/// As text on a terminal, as JSON lines elsewhere and with `--output json`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn logs --follow
  tarn logs --stream orders --level warn
  tarn logs --run daily-0193… --lines 1000")]
pub struct Logs {
    /// Go on with what is logged from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Lines at most, the newest ones
    #[arg(short = 'n', long, default_value_t = 200, value_name = "N")]
    pub lines: usize,
    /// Only what is about this stream
    #[arg(long)]
    pub stream: Option<String>,
    /// Only what is about this run of a workflow
    #[arg(long)]
    pub run: Option<String>,
    /// Only what is about this query
    #[arg(long, value_name = "ID")]
    pub query: Option<String>,
    /// Only what is as grave as this
    #[arg(long, value_enum)]
    pub level: Option<Level>,
}

/// How grave a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As lines name it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TRACE" | "DEBUG" => Some(Self::Debug),
            "INFO" => Some(Self::Info),
            "WARN" => Some(Self::Warn),
            "ERROR" => Some(Self::Error),
            _ => None,
        }
    }
}

/// Ask a declared insight: a forecast, anomalies or a narrative
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn insight daily_departures
  tarn insight cancellations --output json")]
pub struct Insight {
    pub name: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_holds_together_and_every_command_is_explained() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
            assert!(sub.get_about().is_some(), "`{}` has no description", sub.get_name());
        }
    }

    #[test]
    fn global_options_may_follow_the_command() {
        let cli = parse("tarn up --data d --output json --port 0").unwrap();
        assert_eq!((cli.global.data, cli.global.output), (Some("d".into()), Format::Json));
        assert!(matches!(cli.command, Command::Up(Up { port: 0, .. })));
    }

    #[test]
    fn put_takes_a_stream_and_a_file_or_an_upload() {
        let put = |line: &str| match parse(line).unwrap().command {
            Command::Put(put) => put,
            other => panic!("{other:?}"),
        };
        let file = Path::new("-");
        assert_eq!(put("tarn put orders -").target().unwrap(), Target::Records { stream: "orders", file });
        let file = Path::new("a.csv");
        assert_eq!(
            put("tarn put --file weather a.csv").target().unwrap(),
            Target::Upload { location: "weather", file }
        );
        assert_eq!(put("tarn put orders - --key k").key.as_deref(), Some("k"));
        assert!(parse("tarn put --file weather a.csv --key k").is_err(), "an upload replaces itself");
        assert!(put("tarn put orders").target().is_err());
        assert!(put("tarn put --file weather orders a.csv").target().is_err());
        assert!(parse("tarn put").is_err());
    }

    #[test]
    fn run_parameters_are_names_and_values() {
        let Command::Run(run) = parse("tarn run curate -p a=1 -p b=x=y").unwrap().command else { panic!() };
        assert_eq!(run.parameters, [("a".into(), "1".into()), ("b".into(), "x=y".into())]);
        let error = parse("tarn run curate -p nonsense").unwrap_err();
        assert!(error.to_string().contains("`nonsense`"), "{error}");
    }

    #[test]
    fn wrong_use_ends_with_exit_code_2() {
        assert_eq!(parse("tarn fly").unwrap_err().exit_code(), 2);
        assert_eq!(parse("tarn up --port 99999").unwrap_err().exit_code(), 2);
    }
}
