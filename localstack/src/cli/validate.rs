//! `tarn validate`: checks the lakehouse file and says what feeds what.

use shared::Result;
use shared::config::Settings;
use shared::project::Project;

use super::output::Out;

pub(super) fn run(settings: &Settings, out: &Out) -> Result<()> {
    let project = Project::load(&settings.project)?;
    out.text(&format!("{}\n", project.database()))
}
