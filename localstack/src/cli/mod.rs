//! The command line: [`arguments`] says what is written, one file a command what is done, [`output`] how it is shown. Exit codes
//! are here.

pub(crate) mod answer;
pub mod arguments;
mod backup;
pub(crate) mod caller;
mod confirm;
pub(crate) mod delivery;
mod erase;
mod errors;
mod init;
mod insight;
mod logs;
pub mod output;
mod plan;
mod put;
mod shell;
mod signing;
pub(crate) mod sql;
mod status;
mod up;
mod validate;
pub(crate) mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shared::config::Settings;
use shared::telemetry::{self, file::LogFile};
use shared::{Error, ErrorKind, Result};

use arguments::{Cli, Command, Global};
use caller::{Api, Lakehouse};
use output::Out;

/// How long threads may take to end after a command.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Parses the command line, does what it says, gives the exit code.
pub fn main() -> ExitCode {
    shared::heap::watch();
    let cli = Cli::parse();
    let out = Out::new(cli.format());
    if let Err(error) = suits(&cli) {
        out.error(&error);
        return ExitCode::from(exit_code(error.kind()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::from);
    let done = runtime.and_then(|runtime| {
        let done = runtime.block_on(run(cli, &out));
        // What still reads or writes after the command's end is not waited for.
        runtime.shutdown_timeout(LAST_MOMENT);
        done
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            out.error(&error);
            ExitCode::from(exit_code(error.kind()))
        }
    }
}

async fn run(cli: Cli, out: &Out) -> Result<ExitCode> {
    let environment = |name: &str| std::env::var(name).ok();
    if let Command::Demo(demo) = &cli.command {
        start_logging(None)?;
        let directory = demo_directory(demo, &cli.global)?;
        crate::demo::run(directory, api(&cli.global, &environment).as_ref(), out).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Init(init) = &cli.command {
        init::run(&init.dir, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings(&cli.global, &environment)?;
    start_logging(matches!(cli.command, Command::Up(_)).then(|| settings.data.join("logs")))?;
    let lakehouse = Lakehouse { settings, api: api(&cli.global, &environment) };
    let done = match cli.command {
        Command::Up(up) => up::run(&lakehouse.settings, &up, out).await,
        Command::Validate => validate::run(&lakehouse.settings, out).await,
        Command::Put(put) => put::run(&lakehouse, &put, out).await,
        Command::Sql(sql) => sql::run(&lakehouse, &sql, out).await,
        Command::Crawl(crawl) => work::crawl(&lakehouse, crawl.location.as_deref(), out).await,
        Command::Run(run) => work::run(&lakehouse, &run, out).await,
        Command::Insight(insight) => insight::run(&lakehouse, &insight.name, out).await,
        Command::Plan(_) => return plan::run(&lakehouse, out).await,
        Command::Status(status) => return status::run(&lakehouse, &status, out).await,
        Command::Errors(errors) => errors::run(&lakehouse, &errors, out).await,
        Command::Erase(erase) => return erase::run(&lakehouse, &erase, out).await,
        Command::Logs(logs) => logs::run(&lakehouse, &logs, out).await,
        Command::Backup(backup) => backup::backup(&lakehouse, &backup, out).await,
        Command::Restore(restore) => backup::restore(&lakehouse, &restore, out).await,
        Command::Demo(_) | Command::Init(_) => Ok(()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Whether the command writes in the format that is asked for.
///
/// # Errors
/// `Invalid` for one that only answers of SQL are written in.
fn suits(cli: &Cli) -> Result<()> {
    let format = cli.format();
    match cli.command {
        Command::Sql(_) => Ok(()),
        _ if format.is_binary() => {
            let name = format.name();
            Err(Error::invalid(format!("expected `--output` in text, found `{name}`: `tarn sql` alone writes it")))
        }
        _ => Ok(()),
    }
}

/// Where the demo is made: it is a data directory too, so `--data` names it as well as `--directory` does.
///
/// # Errors
/// `Invalid` when both name different ones.
fn demo_directory<'a>(demo: &'a arguments::Demo, global: &'a Global) -> Result<&'a Path> {
    match (&demo.directory, &global.data) {
        (Some(directory), Some(data)) if directory != data => Err(Error::invalid(format!(
            "expected one directory for the demo, found `{}` as `--directory` and `{}` as `--data`",
            directory.display(),
            data.display()
        ))),
        (Some(directory), _) | (None, Some(directory)) => Ok(directory),
        (None, None) => Ok(Path::new(arguments::DEMO_DIRECTORY)),
    }
}

/// The deployed lakehouse that is named, if one is.
fn api(global: &Global, environment: &dyn Fn(&str) -> Option<String>) -> Option<Api> {
    let of = |given: &Option<String>, name| given.clone().or_else(|| environment(name)).filter(|v| !v.is_empty());
    let url = of(&global.url, "TARN_URL")?;
    Some(Api { url, token: of(&global.token, "TARN_TOKEN"), signed: global.sign })
}

/// `tarn up` logs as the functions do, and into files of `folder` too; commands only what went wrong, as text; unless the
/// environment says otherwise.
fn start_logging(folder: Option<PathBuf>) -> Result<()> {
    let quiet = folder.is_none();
    let lookup = |name: &str| match (std::env::var(name).ok().filter(|v| !v.is_empty()), name) {
        (None, "TARN_LOG") if quiet => Some("warn".into()),
        (None, "TARN_LOG_FORMAT") if quiet => Some("text".into()),
        (value, _) => value,
    };
    telemetry::init_with_file(&lookup, folder.map(LogFile::new))
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
    let text = |path: &Path| path.display().to_string();
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
        let global = Global { data: Some("/a".into()), output: arguments::Format::Json, ..Global::default() };
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
    fn the_directory_of_the_demo_is_its_data_directory() {
        let of = |line: &str| {
            let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
            let Command::Demo(demo) = &cli.command else { panic!("{line}") };
            demo_directory(demo, &cli.global).map(|path| path.display().to_string())
        };
        assert_eq!(of("tarn demo").unwrap(), "data/demo");
        assert_eq!(of("tarn demo --data d").unwrap(), "d");
        assert_eq!(of("tarn demo --directory d --data d").unwrap(), "d");
        assert_eq!(of("tarn demo --directory d --data e").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_deployed_lakehouse_is_named_by_an_argument_or_the_environment() {
        let none = Global::default();
        assert!(api(&none, &|_| None).is_none());
        assert!(api(&none, &|_| Some(String::new())).is_none());
        let environment = |name: &str| Some(format!("http://{}", name.to_lowercase()));
        assert_eq!(api(&none, &environment).unwrap().url, "http://tarn_url");
        let given = Global { url: Some("http://given".into()), ..none };
        assert_eq!(api(&given, &environment).unwrap().url, "http://given");
    }

    #[test]
    fn a_lakehouse_file_in_the_data_directory_is_taken_when_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { data: Some(dir.path().into()), ..Global::default() };
        assert_ne!(settings(&global, &|_| None).unwrap().project, dir.path().join("lakehouse.yaml"));
        std::fs::write(dir.path().join("lakehouse.yaml"), "").unwrap();
        assert_eq!(settings(&global, &|_| None).unwrap().project, dir.path().join("lakehouse.yaml"));
    }
}
