//! What a location's last crawls saw: the state document `crawl/{location}`.

use std::collections::BTreeMap;

use format::FileFault;
use serde::{Deserialize, Serialize};
use shared::Result;
use shared::ports::Ports;
use shared::state::{State, change_json, get_json};

use crate::select::Object;

/// One mark for each object that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// By path relative to the location.
    pub objects: BTreeMap<String, Mark>,
}

/// How an object was when it was seen, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// [`Object::mark`].
    #[serde(rename = "m")]
    pub mark: String,
    /// Name of the table it belongs to.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Why it belongs to none.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FileFault>,
}

/// What a crawl found, to be added to whatever the marks are by then.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub seen: BTreeMap<String, Mark>,
    pub gone: Vec<String>,
}

impl Marks {
    /// Whether the object is not marked as it is now.
    pub fn is_new(&self, object: &Object) -> bool {
        self.objects.get(&object.path).is_none_or(|mark| mark.mark != object.mark)
    }

    /// The paths of a table's objects.
    pub fn of_table<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a str> {
        let belongs = move |mark: &Mark| mark.table.as_deref() == Some(table);
        self.objects.iter().filter(move |(_, mark)| belongs(mark)).map(|(path, _)| path.as_str())
    }

    fn apply(&mut self, delta: &Delta) {
        for path in &delta.gone {
            self.objects.remove(path);
        }
        self.objects.extend(delta.seen.iter().map(|(path, mark)| (path.clone(), mark.clone())));
    }
}

fn key(location: &str) -> String {
    format!("crawl/{location}")
}

/// The location's marks; empty before its first crawl.
///
/// # Errors
/// As [`get_json`].
pub async fn load(state: &dyn State, location: &str) -> Result<Marks> {
    Ok(get_json(state, &key(location)).await?.map(|(marks, _)| marks).unwrap_or_default())
}

/// Adds `delta` to the marks, also when others write them at the same time; writes nothing when it changes nothing.
///
/// # Errors
/// As [`change_json`].
pub async fn add(ports: &Ports, location: &str, delta: &Delta) -> Result<()> {
    let apply = |marks: &mut Marks| {
        let before = marks.clone();
        marks.apply(delta);
        *marks != before
    };
    change_json(ports.state.as_ref(), &*ports.random, &key(location), apply).await.map(drop)
}
