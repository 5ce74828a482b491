//! The arguments of `tarn backup` and `tarn restore`.

use std::path::PathBuf;

use clap::Args;

/// Back the data directory up, also while `tarn up` runs on it
///
/// What is in a backup belongs to one moment: streams, catalog, state, tables and files. A directory takes many backups of one
/// lakehouse; each adds only what is new. Writers wait for a moment while it begins. One that is broken off leaves the earlier ones
/// as they are, and can be run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn backup /mnt/backups
  tarn backup /mnt/backups --keep 14
  tarn backup /mnt/backups --list
  tarn backup /mnt/backups --verify")]
pub struct Backup {
    /// Directory of backups, outside the data directory, best on another disk; made when it is absent
    pub dir: PathBuf,
    /// Afterwards remove all backups but the newest N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Only list the backups
    #[arg(long, conflicts_with = "keep")]
    pub list: bool,
    /// Only list the backups, and read all that they hold: what is not as it was written is told
    #[arg(long, conflicts_with_all = ["keep", "list"])]
    pub verify: bool,
}

/// Restore a backup into a new or empty data directory (`--data`)
///
/// Everything is compared with its checksum. The lakehouse file that was in force becomes `lakehouse.yaml` of the directory. A
/// restore that is broken off leaves a directory that nothing opens; the same command begins anew.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tarn restore /mnt/backups --data /srv/lake
  tarn restore /mnt/backups --at 2026-01-31T06-00-00Z --data /srv/lake")]
pub struct Restore {
    /// Directory of backups
    pub dir: PathBuf,
    /// Name of the backup [default: the newest]
    #[arg(long, value_name = "NAME")]
    pub at: Option<String>,
    /// Rewrite the URLs of files in the catalog and in Iceberg metadata, so that other engines find the tables in the new place
    #[arg(long)]
    pub relocate: bool,
}
