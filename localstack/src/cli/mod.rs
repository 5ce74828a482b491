//! The command line: [`arguments`] says what is written, one file a command what is done, [`output`] how it is shown.

pub mod arguments;
pub(crate) mod caller;
pub(crate) mod delivery;
mod init;
mod insight;
pub mod output;
mod put;
pub(crate) mod sql;
mod status;
mod up;
mod validate;
pub(crate) mod work;

use std::process::ExitCode;

use clap::Parser;
use shared::config::Settings;
use shared::{Error, ErrorKind, Result};

use arguments::{Cli, Command, Global};
use output::Out;

/// Parses the command line, does what it says, gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Out::new(cli.global.output);
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(run(cli, &out)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

async fn run(cli: Cli, out: &Out) -> Result<()> {
    start_logging(&cli.command)?;
    if let Command::Demo(demo) = &cli.command {
        return crate::demo::run(&demo.directory, demo.url.as_deref(), out).await;
    }
    if let Command::Init(init) = &cli.command {
        return init::run(&init.dir, out);
    }
    let settings = settings(&cli.global, &|name| std::env::var(name).ok())?;
    match cli.command {
        Command::Up(up) => up::run(&settings, &up, out).await,
        Command::Validate => validate::run(&settings, out),
        Command::Put(put) => put::run(&settings, &put, out).await,
        Command::Sql(sql) => sql::run(&settings, &sql, out).await,
        Command::Crawl(crawl) => work::crawl(&settings, crawl.location.as_deref(), out).await,
        Command::Run(run) => work::run(&settings, &run, out).await,
        Command::Insight(insight) => insight::run(&settings, &insight.name, out).await,
        Command::Status => status::run(&settings, out).await,
        Command::Demo(_) | Command::Init(_) => Ok(()),
    }
}

/// `tarn up` logs as the functions do; commands only what went wrong, as text; unless the environment says otherwise.
fn start_logging(command: &Command) -> Result<()> {
    let quiet = !matches!(command, Command::Up(_));
    shared::telemetry::init(&|name| match (std::env::var(name).ok().filter(|v| !v.is_empty()), name) {
        (None, "TARN_LOG") if quiet => Some("warn".into()),
        (None, "TARN_LOG_FORMAT") if quiet => Some("text".into()),
        (value, _) => value,
    })
}

/// What the caller of the program should make of an error.
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Conflict => 4,
        _ => 1,
    }
}

/// The environment's settings under those of the command line.
fn settings(global: &Global, environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
    let text = |path: &std::path::Path| path.display().to_string();
    let lookup = |name: &str| match name {
        "TARN_DATA" => global.data.as_deref().map(text).or_else(|| environment(name)),
        "TARN_PROJECT" => global.project.as_deref().map(text).or_else(|| environment(name)),
        _ => environment(name),
    };
    let mut settings = Settings::from_lookup(&lookup)?;
    let own = settings.data.join("lakehouse.yaml");
    if lookup("TARN_PROJECT").is_none_or(|v| v.is_empty()) && own.is_file() {
        settings.project = own;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_comes_before_the_environment() {
        let global = Global { data: Some("/a".into()), project: None, output: arguments::Format::Json };
        let environment = |name: &str| match name {
            "TARN_DATA" => Some("/b".to_owned()),
            "TARN_PROJECT" => Some("/c/lake.yaml".to_owned()),
            _ => None,
        };
        let settings = settings(&global, &environment).unwrap();
        assert_eq!(settings.data, std::path::Path::new("/a"));
        assert_eq!(settings.project, std::path::Path::new("/c/lake.yaml"));
    }

    #[test]
    fn a_lakehouse_file_in_the_data_directory_is_taken_when_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { data: Some(dir.path().into()), project: None, output: arguments::Format::Json };
        assert_ne!(settings(&global, &|_| None).unwrap().project, dir.path().join("lakehouse.yaml"));
        std::fs::write(dir.path().join("lakehouse.yaml"), "").unwrap();
        assert_eq!(settings(&global, &|_| None).unwrap().project, dir.path().join("lakehouse.yaml"));
    }
}
