//! A person at a terminal: lines with history and completion, and Ctrl-C, which stops a statement and keeps the shell.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::{History as _, MemHistory};
use rustyline::{CompletionType, Config, Editor};
use shared::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::catalog::Catalog;
use super::complete::SqlHelper;
use super::history::History;
use super::{Flow, Shell, Source, input};

const PROMPT: &str = "tarn> ";
/// Entries of the history that a session has.
const ENTRIES: usize = 10_000;
/// How long a statement that writes may take to come to its end after Ctrl-C, where this process runs it: it may be at its commit.
const LAST_MOMENT: Duration = Duration::from_secs(1);

fn failed(error: ReadlineError) -> Error {
    Error::retry("the terminal can't be read").with_source(error)
}

impl Shell {
    /// Reads statements from the terminal until the end of input; errors are shown and the shell goes on.
    ///
    /// # Errors
    /// `Retry` when the terminal can't be read.
    pub(in crate::cli) async fn interact(&mut self) -> Result<()> {
        (self.is_interactive, self.keeps_caller, self.display.timing) = (true, false, true);
        let catalog = Catalog::new(self.lakehouse.clone(), self.database.clone());
        let mut editor = editor(catalog.clone())?;
        let mut history = History::new(self.history_path());
        match history.load() {
            Ok(entries) => {
                for entry in entries {
                    editor.add_history_entry(entry).map_err(failed)?;
                }
            }
            Err(error) => self.out.error(&error),
        }
        self.out.note("Statements end with `;`, \\? helps, \\q leaves.");
        loop {
            let text = match tokio::task::block_in_place(|| editor.readline(PROMPT)) {
                Ok(text) => text,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            if text.trim().is_empty() {
                continue;
            }
            editor.add_history_entry(text.trim()).map_err(failed)?;
            let added = history.add(text.trim());
            let flow = self.typed(&text).await?;
            if let Err(error) = added.and_then(|()| history.catch_up()) {
                self.out.error(&error);
            }
            if std::mem::take(&mut self.has_defined) {
                catalog.forget();
            }
            if flow == Flow::Quit {
                return Ok(());
            }
        }
    }

    /// Runs what was typed, until Ctrl-C.
    async fn typed(&mut self, text: &str) -> Result<Flow> {
        let items = super::whole(input::parse(text));
        // Anew for each: one that came while a pager ran meant the pager.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let done = tokio::select! {
            biased;
            _ = interrupt.recv() => None,
            done = self.run(items, Source::Typed, 0) => Some(done),
        };
        let flow = match done {
            None => {
                self.stopped().await;
                Flow::GoOn
            }
            Some(Ok(flow)) => flow,
            Some(Err(error)) => {
                self.out.error(&error);
                Flow::GoOn
            }
        };
        // The data directory is others' while the next one is typed.
        self.caller = None;
        Ok(flow)
    }

    /// Says what became of the statement that was stopped.
    async fn stopped(&mut self) {
        match self.is_reading.take() {
            None | Some(true) => self.out.note("stopped"),
            Some(false) => {
                if self.caller.as_ref().is_some_and(|caller| caller.is_local()) {
                    tokio::time::sleep(LAST_MOMENT).await;
                }
                self.out.note("stopped: nothing was changed, unless the statement was at its commit already");
            }
        }
    }

    /// The history of a data directory lies in it; that of a lakehouse elsewhere with the person.
    fn history_path(&self) -> PathBuf {
        let data = &self.lakehouse.settings.data;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        match home {
            Some(home) if self.lakehouse.api.is_some() && !data.is_dir() => home.join(".tarn_sql_history"),
            _ => data.join("sql_history"),
        }
    }
}

fn editor(catalog: Catalog) -> Result<Editor<SqlHelper, MemHistory>> {
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut history = MemHistory::with_config(&config);
    history.set_max_len(ENTRIES).map_err(failed)?;
    let mut editor = Editor::with_history(config, history).map_err(failed)?;
    editor.set_max_history_size(ENTRIES).map_err(failed)?;
    let has_colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    editor.set_helper(Some(SqlHelper::new(catalog, has_colours)));
    Ok(editor)
}
