//! `tarn init`: a commented lakehouse file and a few records to try it with.

use std::io::Write;
use std::path::Path;

use shared::error::Context;
use shared::{Error, Result};

use super::output::Out;

const FILES: [(&str, &str); 3] = [
    ("lakehouse.yaml", include_str!("../../init/lakehouse.yaml")),
    ("sample/orders.ndjson", include_str!("../../init/orders.ndjson")),
    ("sample/products.csv", include_str!("../../init/products.csv")),
];

/// Writes the files; none that exists is touched.
pub(super) fn run(dir: &Path, out: &Out) -> Result<()> {
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).exists()) {
        return Err(Error::conflict(format!("`{}` exists: nothing was written", dir.join(name).display())));
    }
    for (name, text) in FILES {
        write(&dir.join(name), text)?;
        out.note(&format!("wrote {}", dir.join(name).display()));
    }
    let go = if dir == Path::new(".") { String::new() } else { format!("  cd {}\n", dir.display()) };
    out.note(&format!(
        "Next:\n{go}  tarn validate\n  tarn up                                   # and in another terminal:\n  \
         tarn put orders sample/orders.ndjson --flush\n  tarn put --file products sample/products.csv\n  \
         tarn run daily\n  tarn sql 'SELECT * FROM revenue ORDER BY day'"
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing `{}`", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).context(doing)?;
    }
    std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes())).context(doing)
}

#[cfg(test)]
mod tests {
    use shared::project::Project;

    use super::*;
    use crate::cli::arguments::Format;

    #[test]
    fn what_init_writes_is_valid_and_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let out = Out::new(Format::Json);
        run(dir.path(), &out).unwrap();
        Project::load(&dir.path().join("lakehouse.yaml")).unwrap();
        assert_eq!(run(dir.path(), &out).unwrap_err().kind(), shared::ErrorKind::Conflict);
    }
}
