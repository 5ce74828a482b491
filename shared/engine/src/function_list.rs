//! The functions of SQL here: those of the session's registry and those that are rewritten before planning. SHOW FUNCTIONS answers
//! from this list, and `docs/functions.md` is made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Documentation, TypeSignature};
use datafusion::sql::sqlparser::ast::ShowStatementFilter;

use super::information::{Pattern, declared};
use shared::Result;
use shared::model::ColumnType;

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed {
    /// `scalar`, `lambda`, `aggregate`, `window` or `table`.
    kind: &'static str,
    /// What it is about, e.g. `Math Functions`.
    section: String,
    name: String,
    /// How it is called; several ways are set apart by semicolons.
    call: String,
    /// The type of what it gives, as far as that is known.
    gives: String,
    does: String,
    /// Calls and the text of what they give.
    examples: Vec<(&'static str, &'static str)>,
}

const OTHER: &str = "Other Functions";

/// What the registry does not tell. A line is `call -> what it gives: what it does`, under one of `# kind: section`; or
/// `name -> what it gives`, of a function that the registry knows.
const OURS: &str = include_str!("function_list.txt");

/// The functions of [`OURS`].
fn ours() -> Vec<Listed> {
    let mut found = Vec::new();
    let (mut kind, mut section) = ("", "");
    for line in OURS.lines() {
        if let Some((of_kind, of_section)) = line.strip_prefix("# ").and_then(|line| line.split_once(": ")) {
            (kind, section) = (of_kind, of_section);
        } else if let Some((call, (gives, does))) =
            line.split_once(" -> ").and_then(|(call, rest)| Some((call, rest.split_once(": ")?)))
        {
            found.push(Listed {
                kind,
                section: section.to_owned(),
                name: name_of(call).to_owned(),
                call: call.to_owned(),
                gives: gives.to_owned(),
                does: does.to_owned(),
                examples: Vec::new(),
            });
        }
    }
    found
}

/// All functions that a statement may call, by kind, section and name.
pub(super) fn all(state: &SessionState) -> Vec<Listed> {
    let mut ours = ours();
    let of_trino = of_trino();
    ours.retain(|ours| !of_trino.iter().any(|function| function.name == ours.name));
    ours.extend(of_trino);
    let is_new = |name: &String| is_name(name) && !ours.iter().any(|ours| ours.name == *name);
    let mut all = ours.clone();
    for (name, function) in state.scalar_functions().iter().filter(|(name, _)| is_new(name)) {
        let gives = gives(&function.signature().type_signature, |types| function.return_type(types).ok());
        all.push(listed("scalar", name, function.name(), function.documentation(), gives, &ours));
    }
    for (name, function) in state.aggregate_functions().iter().filter(|(name, _)| is_new(name)) {
        let gives = gives(&function.signature().type_signature, |types| function.return_type(types).ok());
        all.push(listed("aggregate", name, function.name(), function.documentation(), gives, &ours));
    }
    let aggregates = state.aggregate_functions();
    for (name, function) in state.window_functions() {
        if is_new(name) && !aggregates.contains_key(name) {
            all.push(listed("window", name, function.name(), function.documentation(), String::new(), &ours));
        }
    }
    for name in state.table_functions().keys().filter(|name| is_new(name)) {
        all.push(listed("table", name, name, None, "rows".to_owned(), &ours));
    }
    all.sort();
    all
}

/// Functions with other names are parts of plans.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn listed(
    kind: &'static str,
    name: &str,
    is: &str,
    documentation: Option<&Documentation>,
    gives: String,
    ours: &[Listed],
) -> Listed {
    let ours = ours.iter().find(|ours| ours.name == is);
    let told = documentation.map(|d| (d.doc_section.label, calls(is, &d.syntax_example)));
    let (section, call) = match (ours, told) {
        (Some(ours), _) => (ours.section.as_str(), ours.call.clone()),
        (None, Some(told)) => told,
        (None, None) => (OTHER, format!("{is}(...)")),
    };
    let does = match documentation {
        _ if name != is => format!("as `{is}`"),
        Some(documentation) => first_sentence(&documentation.description),
        None => String::new(),
    };
    let result = OURS.lines().find_map(|line| line.strip_prefix(is)?.strip_prefix(" -> "));
    let gives = ours.map(|ours| ours.gives.clone()).or(result.map(str::to_owned)).unwrap_or(gives);
    let call = call.replace(&format!("{is}("), &format!("{name}("));
    Listed { kind, section: section.to_owned(), name: name.to_owned(), call, gives, does, examples: Vec::new() }
}

/// The functions of Trino, under all of their names.
fn of_trino() -> Vec<Listed> {
    let each = |function: trino_functions::Function| {
        let split = |signature: &'static str| signature.split_once(" -> ").unwrap_or((signature, ""));
        let (calls, gives): (Vec<&str>, Vec<&str>) = function.signatures().map(split).unzip();
        let mut distinct: Vec<&str> = Vec::new();
        gives.iter().for_each(|ty| distinct.extend((!distinct.contains(ty)).then_some(ty)));
        let first = Listed {
            kind: if function.takes_lambdas() { "lambda" } else { "scalar" },
            section: format!("{} Functions", function.section),
            name: function.name.to_owned(),
            call: calls.join("; "),
            gives: distinct.join(", "),
            does: function.does.to_owned(),
            examples: function.examples.clone(),
        };
        let alias = |name: &&str| Listed {
            name: (*name).to_owned(),
            call: first.call.replace(&format!("{}(", function.name), &format!("{name}(")),
            does: format!("as `{}`", function.name),
            examples: Vec::new(),
            ..first.clone()
        };
        let aliases: Vec<Listed> = function.aliases.iter().map(alias).collect();
        aliases.into_iter().chain([first])
    };
    trino_functions::functions().into_iter().flat_map(each).collect()
}

/// What stands before the bracket.
fn name_of(call: &str) -> &str {
    call.split('(').next().unwrap_or_default()
}

/// The ways of calling a function; some are told with another's name.
fn calls(name: &str, examples: &str) -> String {
    let lines = examples.lines().map(one_line).filter(|line| !line.is_empty());
    let call = |line: String| match line.split_once('(') {
        Some((_, arguments)) => format!("{name}({arguments}"),
        None => line,
    };
    lines.map(call).collect::<Vec<_>>().join("; ")
}

/// The type that a function gives, told from the examples of arguments that its signature has.
fn gives(signature: &TypeSignature, of: impl Fn(&[DataType]) -> Option<DataType>) -> String {
    let examples = signature.get_example_types();
    let first = |types: &[DataType]| types.first().cloned().unwrap_or(DataType::Null);
    let given: Vec<(DataType, DataType)> =
        examples.iter().filter_map(|types| Some((first(types), of(types)?))).collect();
    let name = |ty: &DataType| ColumnType::from_arrow(ty).map_or_else(|_| ty.to_string(), |ty| declared(&ty));
    let names: BTreeSet<String> = given.iter().map(|(_, ty)| name(ty)).collect();
    match names.len() {
        0 => String::new(),
        1 => names.into_iter().collect(),
        _ if given.iter().all(|(argument, ty)| argument == ty) => "type of the argument".to_owned(),
        _ => "by its arguments".to_owned(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn first_sentence(text: &str) -> String {
    let text = one_line(text.split("\n\n").next().unwrap_or_default());
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

/// The answer of SHOW FUNCTIONS.
///
/// # Errors
/// `Invalid` for a pattern that is none.
pub(super) fn show(state: &SessionState, filter: Option<&ShowStatementFilter>) -> Result<RecordBatch> {
    let wanted = Pattern::of_filter(filter)?;
    let functions: Vec<Listed> = all(state).into_iter().filter(|f| wanted.matches(&f.name)).collect();
    let column = |name: &'static str, of: &dyn Fn(&Listed) -> &str| -> (&'static str, ArrayRef) {
        (name, Arc::new(StringArray::from_iter_values(functions.iter().map(of))))
    };
    Ok(RecordBatch::try_from_iter(vec![
        column("function_name", &|f| &f.name),
        column("kind", &|f| f.kind),
        column("call", &|f| &f.call),
        column("gives", &|f| &f.gives),
        column("does", &|f| &f.does),
    ])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::TEMPLATES;
    use crate::session::Sessions;
    use shared::config::Settings;

    const HEAD: &str = "\
# Functions of SQL

What a statement may call, made of the engine's own list (`UPDATE_GOLDEN=1 cargo test --workspace --lib functions_page` writes this page
anew). `SHOW FUNCTIONS LIKE 'date%'` gives the same as rows. Types are in the words of `CREATE TABLE`; where a function gives what its
arguments are, the page says so. Operators, casts and what numbers mean: [query.md](query.md).

In the words of Trino's types a letter stands for any type, the same at each place: `I` for one of the integers, `N` for one of the
numbers, others for any. `varchar...` may come any number of times.
";

    fn state() -> (SessionState, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(&Settings::embedded(folder.path()).unwrap()).unwrap();
        (sessions.functions().clone(), folder)
    }

    fn page(functions: &[Listed]) -> String {
        let mut page = HEAD.to_owned();
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        let (mut kind, mut section) = ("", String::new());
        for function in functions {
            if function.kind != kind {
                kind = function.kind;
                section.clear();
                page += &format!("\n## {}{} functions\n", kind[..1].to_uppercase(), &kind[1..]);
            }
            if function.section != section {
                section.clone_from(&function.section);
                page += &format!("\n### {section}\n\n| call | gives | does | example |\n|---|---|---|---|\n");
            }
            let call = function.call.replace('|', "\\|").replace("; ", "`, `");
            let example =
                function.examples.first().map_or_else(String::new, |(call, gives)| format!("`{call}` → `{gives}`"));
            let (gives, does, example) = (cell(&function.gives), cell(&function.does), example.replace('|', "\\|"));
            page += &format!("| `{call}` | {gives} | {does} | {example} |\n");
        }
        page
    }

    #[test]
    fn the_functions_page_lists_what_there_is() {
        let (state, _folder) = state();
        let made = page(&all(&state));
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/functions.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == made,
            "expected docs/functions.md to list these functions (UPDATE_GOLDEN=1 writes them):\n{made}"
        );
    }

    #[test]
    fn every_function_is_told_with_what_it_does() {
        let (state, _folder) = state();
        let functions = all(&state);
        let results = OURS.lines().filter_map(|line| line.split_once(" -> ")).filter(|(_, rest)| !rest.contains(": "));
        let lines = OURS.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(ours().len() + results.clone().count(), lines);
        for (name, _) in results {
            assert!(functions.iter().any(|f| f.name == name), "{name} is no function");
        }
        let silent: Vec<&str> = functions.iter().filter(|f| f.does.is_empty()).map(|f| f.name.as_str()).collect();
        assert!(silent.is_empty(), "expected a description of each function, found none of {silent:?}");
        for (name, ..) in TEMPLATES {
            assert!(functions.iter().any(|f| f.name == *name), "{name} is not listed");
        }
    }
}
