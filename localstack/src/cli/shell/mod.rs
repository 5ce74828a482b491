//! The shell of `tarn sql`: runs statements ([`input`]) and commands ([`command`]), from a terminal, a script or the command line.

mod catalog;
mod command;
mod complete;
mod display;
mod history;
mod input;
mod keywords;
mod terminal;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use shared::error::Context;
use shared::{Error, Result};

use self::command::{Command, HELP, like};
use self::display::{Display, Once, Place};
use self::input::{Input, Item};
use super::answer::progress::ProgressLine;
use super::answer::screen::Target;
use super::answer::write::{Expanded, Style, Writer};
use super::answer::{Answer, Part, Question, Summary};
use super::arguments::Format;
use super::caller::{Caller, Lakehouse};
use super::output::Out;

/// Files that include files.
const DEEPEST: usize = 16;

const TABLES: &str = "SELECT table_schema AS database, table_name AS table, table_type AS type \
    FROM information_schema.tables WHERE table_schema <> 'information_schema'";
const DATABASES: &str = "SELECT schema_name AS database FROM information_schema.schemata ORDER BY 1";

/// Whether the shell goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Quit,
}

/// Where input comes from, for errors.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// Who typed it sees where.
    Typed,
    StandardInput,
    File(&'a Path),
}

pub(super) struct Shell {
    lakehouse: Lakehouse,
    database: Option<String>,
    key: Option<String>,
    out: Out,
    display: Display,
    caller: Option<Arc<Caller>>,
    /// Whether the caller stays between statements. Between those of a person the data directory is others'.
    keeps_caller: bool,
    is_interactive: bool,
    /// The last statement, for `\watch`.
    last: Option<String>,
    /// Whether the statement that runs changes nothing; none while none does.
    is_reading: Option<bool>,
    /// Whether statements may have changed which tables there are.
    has_defined: bool,
}

impl Shell {
    pub(super) fn new(lakehouse: &Lakehouse, sql: &super::arguments::Sql, out: Out) -> Self {
        let pager = std::env::var("PAGER").ok();
        let display = Display::new(out.format(), sql.limit, pager.as_deref());
        Self {
            lakehouse: lakehouse.clone(),
            database: sql.database.clone(),
            key: sql.key.clone(),
            out,
            display,
            caller: None,
            keeps_caller: true,
            is_interactive: false,
            last: None,
            is_reading: None,
            has_defined: false,
        }
    }

    /// Runs what the command line says.
    ///
    /// # Errors
    /// The first that a statement gives; `Invalid` for a key that several share.
    pub(super) async fn once(&mut self, text: &str) -> Result<()> {
        let items = whole(input::parse(text));
        if self.key.is_some() && items.len() != 1 {
            let found = items.len();
            return Err(Error::invalid(format!("expected one statement under the key, found {found}")));
        }
        let source = if items.len() > 1 { Source::StandardInput } else { Source::Typed };
        self.run(items, source, 0).await.map(drop)
    }

    /// Runs the statements of standard input, up to the first that fails.
    ///
    /// # Errors
    /// As [`Shell::once`].
    pub(super) async fn script(&mut self) -> Result<()> {
        self.caller().await?;
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context(|| "reading standard input".to_owned())?;
        self.run(whole(input::parse(&text)), Source::StandardInput, 0).await.map(drop)
    }

    async fn caller(&mut self) -> Result<Arc<Caller>> {
        if let Some(caller) = &self.caller {
            return Ok(Arc::clone(caller));
        }
        let caller = Arc::new(Caller::connect(&self.lakehouse).await?);
        Ok(Arc::clone(self.caller.insert(caller)))
    }

    /// Runs statements and commands up to the first that fails. `depth` files include these.
    fn run<'a>(&'a mut self, items: Vec<Item>, source: Source<'a>, depth: usize) -> LocalBoxFuture<'a, Result<Flow>> {
        async move {
            for item in items {
                let (done, line) = match item {
                    Item::Statement { sql, line } => {
                        (self.statement(&sql, Once::default()).await.map(|()| Flow::GoOn), line)
                    }
                    Item::Command { text, pending, line } => (self.command(&text, pending, depth).await, line),
                };
                match done {
                    Ok(Flow::GoOn) => {}
                    Ok(Flow::Quit) => return Ok(Flow::Quit),
                    Err(error) => return Err(source.named(error, line)),
                }
            }
            Ok(Flow::GoOn)
        }
        .boxed_local()
    }

    async fn command(&mut self, text: &str, pending: Option<String>, depth: usize) -> Result<Flow> {
        let command = Command::parse(text)?;
        if pending.is_some() && !command.ends_a_statement() {
            return Err(Error::invalid(format!(
                "expected `;` at the end of the statement before `{text}`, found none"
            )));
        }
        match command {
            Command::Quit => return Ok(Flow::Quit),
            Command::Help => self.out.note(HELP),
            Command::Tables(None) => self.ask(&format!("{TABLES} ORDER BY 1, 2"), Once::default()).await?,
            Command::Tables(Some(pattern)) => {
                let like = like(&pattern.to_lowercase());
                let named = |name: &str| format!("lower({name}) LIKE '{like}' ESCAPE '\\'");
                let (near, far) = (named("table_name"), named("table_schema || '.' || table_name"));
                self.ask(&format!("{TABLES} AND ({near} OR {far}) ORDER BY 1, 2"), Once::default()).await?;
            }
            Command::Describe(table) => self.ask(&format!("DESCRIBE {table}"), Once::default()).await?,
            Command::Databases => self.ask(DATABASES, Once::default()).await?,
            Command::Output(path) => self.out.note(&self.display.redirect(path.as_deref())?),
            Command::Include(path) => return self.include(&path, depth).await,
            Command::Go(file) => self.again(pending, Once { file, ..Once::default() }).await?,
            Command::GoExpanded => self.again(pending, Once { is_expanded: true, ..Once::default() }).await?,
            Command::Watch(interval) => self.watch(pending, interval).await?,
            setting => self.out.note(&self.display.set(setting)),
        }
        Ok(Flow::GoOn)
    }

    async fn include(&mut self, path: &Path, depth: usize) -> Result<Flow> {
        if depth >= DEEPEST {
            let found = path.display();
            return Err(Error::invalid(format!(
                "expected files that include at most {DEEPEST} others, found `{found}`"
            )));
        }
        let text = std::fs::read_to_string(path).context(|| format!("reading `{}`", path.display()))?;
        self.run(whole(input::parse(&text)), Source::File(path), depth + 1).await
    }

    /// The statement before a command, or the last one.
    fn statement_before(&self, pending: Option<String>) -> Result<String> {
        pending.or_else(|| self.last.clone()).ok_or_else(|| Error::invalid("expected a statement before, found none"))
    }

    async fn again(&mut self, pending: Option<String>, once: Once) -> Result<()> {
        let sql = self.statement_before(pending)?;
        self.statement(&sql, once).await
    }

    /// Asks again and again, until an error or Ctrl-C.
    async fn watch(&mut self, pending: Option<String>, interval: Duration) -> Result<()> {
        let sql = self.statement_before(pending)?;
        loop {
            let now = Utc::now().format("%Y-%m-%d %H:%M:%S");
            self.out.note(&format!("{now} UTC, every {} s", interval.as_secs_f64()));
            self.statement(&sql, Once { runs_through: true, ..Once::default() }).await?;
            tokio::time::sleep(interval).await;
        }
    }

    /// Runs a statement that was typed or read.
    async fn statement(&mut self, sql: &str, once: Once) -> Result<()> {
        self.last = Some(sql.to_owned());
        let first = keywords::first_word(sql);
        self.has_defined |= keywords::DEFINING.contains(&first.as_str());
        self.is_reading = Some(keywords::READING.contains(&first.as_str()));
        let done = self.ask(sql, once).await;
        self.is_reading = None;
        done
    }

    /// Asks, and writes the answer as it comes.
    async fn ask(&mut self, sql: &str, once: Once) -> Result<()> {
        let Place { mut target, style, limit } = self.display.place(&once)?;
        let format = style.format;
        let caller = self.caller().await?;
        let progress = ProgressLine::start(self.out);
        let question = Question { sql, database: self.database.as_deref(), key: self.key.as_deref(), limit };
        let mut answer = Answer::ask(&caller, question).await?;
        let ended = written(&mut answer, style, &mut target, &progress).await;
        drop((progress, answer, caller));
        if !self.keeps_caller {
            self.caller = None;
        }
        match ended {
            Ok(Some(ended)) => {
                target.finish()?;
                self.tell(&ended, format);
                Ok(())
            }
            Ok(None) => Ok(()),
            // What came before the failure is shown, but a file that means nothing is not kept.
            Err(error) => match target {
                Target::File(_) => Err(error),
                shown => shown.finish().and(Err(error)),
            },
        }
    }

    /// Says what came.
    fn tell(&self, Ended { summary, is_too_wide }: &Ended, format: Format) {
        if *is_too_wide && self.display.expanded == Expanded::Off && self.is_interactive {
            self.out.note("the rows are wider than the terminal: `\\x auto` shows each column in a line of its own");
        }
        if format != Format::Table && !self.is_interactive && !summary.truncated {
            return;
        }
        let stats = &summary.stats;
        let mut line = format!("{} row{}", stats.rows, if stats.rows == 1 { "" } else { "s" });
        if summary.truncated {
            line += " shown, there are more: ";
            line += if self.is_interactive { "`\\limit 0` shows all" } else { "`--limit 0` shows all" };
        }
        if self.display.timing {
            line += &format!(", {} bytes scanned, {} ms", stats.bytes_scanned, stats.elapsed_ms);
        }
        self.out.note(&line);
    }
}

/// How an answer ended that was written whole.
struct Ended {
    summary: Summary,
    is_too_wide: bool,
}

/// Writes an answer as it comes; none when nobody reads on.
async fn written(
    answer: &mut Answer,
    style: Style,
    target: &mut Target,
    progress: &ProgressLine,
) -> Result<Option<Ended>> {
    let (mut writer, mut bytes) = (None, Vec::new());
    let summary = loop {
        let done = match (answer.next().await, &mut writer) {
            (Ok(Some(Part::Progress(figures))), _) => {
                progress.show(&figures);
                Ok(())
            }
            (Ok(Some(Part::Columns(schema))), writer) => {
                Writer::begin(style.clone(), &schema, &mut bytes).map(|begun| *writer = Some(begun))
            }
            (Ok(Some(Part::Rows(batch))), Some(writer)) => writer.rows(&batch, &mut bytes),
            (Ok(Some(Part::Rows(_))), None) => Err(Error::bug("expected columns before rows")),
            (Ok(Some(Part::End(summary))), _) => break summary,
            (Ok(None), _) => Err(Error::bug("expected the end of the answer, found nothing")),
            (Err(error), _) => Err(error),
        };
        if let Err(error) = done {
            if let Some(writer) = writer {
                writer.break_off(&mut bytes);
            }
            target.write(&mut bytes)?;
            return Err(error);
        }
        if !bytes.is_empty() && target.shows_at_once() {
            progress.clear();
        }
        if !target.write(&mut bytes)? {
            return Ok(None);
        }
    };
    let Some(mut writer) = writer else { return Err(Error::bug("expected columns before the end of the answer")) };
    writer.settle(&mut bytes);
    let is_too_wide = writer.is_too_wide;
    writer.end(&mut bytes)?;
    if !bytes.is_empty() && target.shows_at_once() {
        progress.clear();
    }
    Ok(target.write(&mut bytes)?.then_some(Ended { summary, is_too_wide }))
}

/// All of the input: what does not end with `;` is a statement, too.
fn whole(input: Input) -> Vec<Item> {
    let rest = input.rest.map(|(sql, line)| Item::Statement { sql, line });
    input.items.into_iter().chain(rest).collect()
}

impl Source<'_> {
    /// The error, with the place of what gave it.
    fn named(self, error: Error, line: usize) -> Error {
        match self {
            Self::Typed => error,
            Self::StandardInput => error.context(format!("line {line}")),
            Self::File(path) => error.context(format!("`{}`, line {line}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_needs_no_semicolon_at_its_end() {
        let items = whole(input::parse("SELECT 1;\nSELECT 2"));
        let statement = |sql: &str, line| Item::Statement { sql: sql.into(), line };
        assert_eq!(items, [statement("SELECT 1", 1), statement("SELECT 2", 2)]);
    }
}
