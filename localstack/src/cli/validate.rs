//! `tarn validate`: checks the lakehouse file by itself and says what feeds what.

use std::fmt::Write as _;
use std::sync::Arc;

use engine::Engine;
use serde_json::json;
use shared::clock::SystemClock;
use shared::config::Settings;
use shared::error::Context;
use shared::project::problem::{located, refusal};
use shared::project::{Lineage, Project};
use shared::{Error, Result};
use transform::check::{Findings, Unchecked, check};

use super::arguments::Format;
use super::output::{Out, Rows};

/// Says it in words; as a graph of nodes and edges in JSON; as edges in CSV.
pub(super) async fn run(settings: &Settings, out: &Out) -> Result<()> {
    let origin = settings.project.display().to_string();
    let text =
        std::fs::read_to_string(&settings.project).context(|| format!("reading the lakehouse file `{origin}`"))?;
    let project = Project::parse(&text, &origin)?;
    let engine = Engine::open(settings, &adapters_embedded::in_memory(Arc::new(SystemClock))?)?;
    let Findings { problems, unchecked } = check(&project, &engine, None).await?;
    if !problems.is_empty() {
        return Err(refusal(&origin, &located(&text, problems)?));
    }
    if out.format() == Format::Table {
        return out.text(&format!("{}\n{}", project.explain()?.trim_end(), told(&unchecked)));
    }
    let mut lineage = serde_json::to_value(Lineage::of(&project)?)
        .map_err(|e| Error::bug("what feeds what has no JSON form").with_source(e))?;
    lineage["unchecked"] = json!(unchecked);
    out.document(&lineage, |lineage| {
        let edges = lineage["edges"].as_array().into_iter().flatten();
        let columns = vec!["from".to_owned(), "to".to_owned()];
        Rows { columns, rows: edges.map(|edge| vec![json!(edge[0]), json!(edge[1])]).collect() }
    })
}

/// What was not checked, a line each.
fn told(unchecked: &[Unchecked]) -> String {
    let mut text = String::new();
    if !unchecked.is_empty() {
        text.push_str("\ncolumns that are not checked here\n");
    }
    for Unchecked { path, why } in unchecked {
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {path} {why}");
    }
    text
}
