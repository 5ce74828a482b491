//! The arguments of `tarn errors` and `tarn erase`.

use clap::{Args, Subcommand};

/// Show, replay and discard records that could not be stored, and rows in quarantine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn errors list
  tarn errors show orders --code wrong_type
  tarn errors show daily --workflow --job enriched
  tarn errors replay orders --dry-run        what would be stored, after the schema was mended
  tarn errors replay orders
  tarn errors replay daily --workflow --job enriched --rule departs
  tarn errors discard orders --code invalid_json --until 2026-01-31")]
pub struct Errors {
    #[command(subcommand)]
    pub command: ErrorsCommand,
}

/// Remove everything that is kept of somebody, for good
///
/// Finds the rows of a condition in every table, deletes them, rewrites the files and removes the versions, tags and branches
/// that still hold them, raw files, refused records, quarantine and stored answers too. Repeats until nothing is found, and says what it
/// does not reach and until when. Ends with 1 while something is left: the same command goes on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn erase --where \"customer_id = 42\" --dry-run
  tarn erase --where \"customer_id IN (42, 43)\" --yes
  tarn erase --where \"id = 42\" --table mart.customers")]
pub struct Erase {
    /// Whose rows: `column = value` or `column IN (value, …)`, joined by AND; meant wherever there are such columns
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: String,
    /// Only this table, and the streams and jobs that write it; may be repeated
    #[arg(long)]
    pub table: Vec<String>,
    /// Say what would be removed, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove also refused records that can't be read and hold the values as words
    #[arg(long)]
    pub broken: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Subcommand)]
pub enum ErrorsCommand {
    /// How many there are, by stream and workflow
    List,
    Show(Show),
    Replay(Replay),
    Discard(Discard),
}

/// Which records or rows.
#[derive(Debug, Clone, Default, Args)]
pub struct ErrorFilter {
    /// The rows that quality rules of a workflow set aside, not the records of a stream
    #[arg(long)]
    pub workflow: bool,
    /// Only those of this job
    #[arg(long, requires = "workflow")]
    pub job: Option<String>,
    /// Only those that break this rule
    #[arg(long, value_name = "NAME", requires = "workflow")]
    pub rule: Option<String>,
    /// Only what arrived then or later, or rows of runs that began then, e.g. 2026-01-31T06:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what arrived before, or rows of runs that began before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only with this error code
    #[arg(long, conflicts_with = "workflow")]
    pub code: Option<String>,
}

/// Show the newest records of a stream, or rows of a workflow
#[derive(Debug, Args)]
pub struct Show {
    /// A stream, or with `--workflow` a workflow
    pub name: String,
    #[command(flatten)]
    pub filter: ErrorFilter,
    /// Records at most: up to 1000 of a stream, 100 of a workflow
    #[arg(short = 'n', long, default_value_t = 100)]
    pub limit: u16,
}

/// Store the records of a stream, or the rows of a job, that can be stored by now
///
/// Each is stored once, however often and by how many this is run. What still can't be stored stays, with the reason of now.
#[derive(Debug, Args)]
pub struct Replay {
    /// A stream, or with `--workflow` a workflow, of which `--job` names the job
    pub name: String,
    #[command(flatten)]
    pub filter: ErrorFilter,
    /// Also rows whose key the table has got a newer row of
    #[arg(long, requires = "workflow")]
    pub overwrite: bool,
    /// Say what would be stored, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Remove records of a stream, or rows of a workflow, for good
///
/// Says how many they are and asks first. What comes meanwhile stays.
#[derive(Debug, Args)]
pub struct Discard {
    /// A stream, or with `--workflow` a workflow
    pub name: String,
    #[command(flatten)]
    pub filter: ErrorFilter,
    /// Say how many would be removed, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
