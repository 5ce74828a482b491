//! README.md and the pages of `docs/` show nothing that does not work: every block of theirs is run, is read by what it is for, or says
//! in a comment above it, `<!-- not run: why -->`, why not.
//!
//! | block | what is done |
//! |---|---|
//! | `sh`, `sql`, `python` | run in the order of the page, over the lakehouse of [`PREPARED`] with the page's own YAML laid over it |
//! | `yaml` | a lakehouse file, or a part of one that [`PREPARED`] completes: validated |
//! | `json` | read; `…` may stand for what was left out |
//! | `text` | shown only; answers behind `sql` are those of `tables_page` where the page is one of its |
//!
//! What a page needs beside its YAML lies in `tests/e2e/docs/`.

mod blocks;
mod shell;

use std::path::{Path, PathBuf};

use serde_json::Value;
use shared::project::Project;

use self::blocks::{Block, blocks};
use self::shell::Page;
use crate::tables_page;

/// The lakehouse that pages are run over.
const PREPARED: &str = include_str!("lakehouse.yaml");

/// Pages are run so many at once.
const AT_ONCE: usize = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md and the pages of `docs/`.
fn pages() -> Vec<(String, Vec<Block>)> {
    let listed = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = listed.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), blocks(&name(path), &std::fs::read_to_string(path).unwrap()))).collect()
}

#[test]
fn a_block_that_is_not_run_says_why() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let target = |word: &str| makefile.lines().any(|line| line.starts_with(&format!("{word}:")));
    let mut seen = 0;
    for block in pages().into_iter().flat_map(|(_, blocks)| blocks) {
        seen += 1;
        let languages = ["sh", "yaml", "sql", "json", "python", "text"];
        assert!(languages.contains(&block.language.as_str()), "{}: a block of `{}`", block.place(), block.language);
        assert!(block.not_run.as_ref().is_none_or(|why| why.len() > 10), "{}: say why it is not run", block.place());
        for line in block.text.lines().filter_map(|line| line.strip_prefix("make ")) {
            let word = line.split_whitespace().next().unwrap();
            assert!(block.language != "sh" || target(word), "{}: no target `{word}` in the Makefile", block.place());
        }
    }
    assert!(seen > 60, "expected the blocks of all pages, found {seen}");
}

#[test]
fn yaml_blocks_are_lakehouse_files_or_parts_of_one() {
    for block in pages().into_iter().flat_map(|(_, blocks)| blocks).filter(|block| block.runs("yaml")) {
        let whole = block.text.lines().any(|line| line.starts_with("version:"));
        let text = if whole { block.text.clone() } else { completed([&block]) };
        if let Err(error) = Project::parse(&text, &block.place()) {
            panic!("{}: {error}", block.place());
        }
    }
}

#[test]
fn json_blocks_are_json() {
    let left_out = regex::Regex::new(r"…, |, …|…").unwrap();
    let quoted = regex::Regex::new(r#""[^"\n]*""#).unwrap();
    for block in pages().into_iter().flat_map(|(_, blocks)| blocks).filter(|block| block.runs("json")) {
        // What is left out stands outside of texts.
        let outside = quoted.replace_all(&block.text, |found: &regex::Captures<'_>| found[0].replace('…', "..."));
        let text = left_out.replace_all(&outside, "").into_owned();
        let read = |text: &str| serde_json::from_str::<Value>(text);
        if let Err(error) = read(&text).or_else(|error| read(&format!("{{{text}}}")).map_err(|_| error)) {
            panic!("{}: {error}\n{text}", block.place());
        }
    }
}

/// The prepared lakehouse file with these parts laid over it.
fn completed<'a>(parts: impl IntoIterator<Item = &'a Block>) -> String {
    let value = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut whole = value(PREPARED);
    for part in parts {
        lay_over(&mut whole, value(&part.text));
    }
    whole.to_string()
}

fn lay_over(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            over.into_iter().for_each(|(key, value)| lay_over(under.entry(key).or_insert(Value::Null), value));
        }
        (under, over) => *under = over,
    }
}

#[test]
fn what_pages_tell_to_run_works() {
    let pages: Vec<(String, Vec<Block>)> = pages()
        .into_iter()
        .map(|(page, blocks)| {
            let is_answered = tables_page::PAGES.contains(&page.as_str());
            let left = blocks.into_iter().filter(|block| !(is_answered && block.language == "sql")).collect();
            (page, left)
        })
        .filter(|(_, blocks): &(String, Vec<Block>)| {
            blocks.iter().any(|block| ["sh", "sql", "python"].iter().any(|language| block.runs(language)))
        })
        .collect();
    let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    assert!(["README.md", "json.md", "python.md"].iter().all(|page| names.contains(page)), "{names:?}");
    let failures: Vec<String> = std::thread::scope(|scope| {
        let shares = pages.chunks(pages.len().div_ceil(AT_ONCE));
        let running: Vec<_> = shares
            .map(|share| {
                scope.spawn(|| share.iter().filter_map(|(name, blocks)| run(name, blocks)).collect::<Vec<_>>())
            })
            .collect();
        running.into_iter().flat_map(|share| share.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Runs the blocks of a page; what fails of them.
fn run(name: &str, blocks: &[Block]) -> Option<String> {
    let parts = blocks.iter().filter(|block| block.runs("yaml"));
    let parts = parts.filter(|block| !block.text.lines().any(|line| line.starts_with("version:")));
    // README.md begins with `tarn init`.
    let lakehouse = if name == "README.md" { None } else { Some(completed(parts)) };
    let page = Page::prepare(lakehouse.as_deref());
    blocks.iter().find_map(|block| page.run(block).err())
}

#[test]
fn what_init_prints_can_be_pasted() {
    let page = Page::prepare(None);
    let (_, told) = page.sh("tarn init").unwrap();
    let (_, commands) = told.split_once("Next:\n").unwrap();
    let (answer, _) = page.sh(commands).unwrap();
    let revenue: Vec<&str> = answer.lines().filter(|line| line.contains("2026-01-0")).collect();
    assert_eq!(revenue.len(), 3, "expected a day's revenue in each of 3 lines, found:\n{answer}");
}
