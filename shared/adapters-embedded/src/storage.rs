//! Objects in folders of this machine, and in memory.

mod durable;
mod moved;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use shared::storage::{Root, Storage};
use shared::{Error, Result};
use url::Url;

use self::durable::DurableFiles;
use self::moved::Moved;

/// Opens a store for each root; only objects below a root can be reached.
///
/// # Errors
/// `Invalid` for a scheme other than `file` and `memory`, and for a `file` URL that is no path of this machine.
pub fn open(roots: &[Url]) -> Result<Storage> {
    let root = |url: &Url| Ok(Root::new(url, store(url)?));
    Ok(Storage::new(roots.iter().map(root).collect::<Result<_>>()?))
}

/// Opens the folder `place` of this machine, whose objects are known by the URLs that they had below `root`.
///
/// # Errors
/// `Invalid` for a root that is no folder's.
pub(crate) fn open_moved(root: &Url, place: &std::path::Path) -> Result<Storage> {
    let not_a_folder = || Error::invalid(format!("expected a folder of this machine, found `{root}`"));
    let path = |url: &Url| Path::from_url_path(url.path()).map_err(|e| not_a_folder().with_source(e));
    let place = Url::from_directory_path(place).map_err(|()| not_a_folder())?;
    let moved = Arc::new(Moved::new(store(&place)?, path(root)?, path(&place)?));
    Ok(Storage::new(vec![Root::new(root, moved).in_place(place)]))
}

fn store(url: &Url) -> Result<Arc<dyn ObjectStore>> {
    match url.scheme() {
        "memory" => Ok(Arc::new(InMemory::new())),
        "file" => {
            let folder = url.to_file_path();
            let not_here = |()| Error::invalid(format!("expected a folder of this machine, found `{url}`"));
            Ok(Arc::new(DurableFiles::new(folder.map_err(not_here)?)))
        }
        other => Err(Error::invalid(format!(
            "expected a URL with the scheme `file` or `memory`, found `{other}` in `{url}`"
        ))),
    }
}
