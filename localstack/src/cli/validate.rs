//! `tarn validate`: checks the lakehouse file and says what feeds what.

use serde_json::json;
use shared::config::Settings;
use shared::project::{Lineage, Project};
use shared::{Error, Result};

use super::arguments::Format;
use super::output::{Out, Rows};

/// Says it in words; as a graph of nodes and edges in JSON; as edges in CSV.
pub(super) fn run(settings: &Settings, out: &Out) -> Result<()> {
    let project = Project::load(&settings.project)?;
    if out.format() == Format::Table {
        return out.text(&format!("{}\n", project.explain()?.trim_end()));
    }
    let lineage = serde_json::to_value(Lineage::of(&project)?)
        .map_err(|e| Error::bug("what feeds what has no JSON form").with_source(e))?;
    out.document(&lineage, |lineage| {
        let edges = lineage["edges"].as_array().into_iter().flatten();
        let columns = vec!["from".to_owned(), "to".to_owned()];
        Rows { columns, rows: edges.map(|edge| vec![json!(edge[0]), json!(edge[1])]).collect() }
    })
}
