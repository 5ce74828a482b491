//! A YAML text as a tree that knows where each part stands, so that every problem can name its line.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use crate::{Error, Result};

/// A place in the text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// The way from the root to a value: `streams.flights.schema[3].type`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl Path {
    /// The way to a field.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.into()))
    }

    /// The way to an item of a list, counted from 0.
    #[must_use]
    pub fn item(&self, at: usize) -> Self {
        self.with(Step::Item(at))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) => write!(f, "{}{name}", if at == 0 { "" } else { "." })?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Map(Vec<Entry>),
    List(Vec<Node>),
    /// A text; plain ones may also mean a number, a truth value or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
}

/// A field of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

impl Node {
    /// Parses the first document of `text`.
    ///
    /// # Errors
    /// `Invalid`, with line and column, when it is no YAML.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut builder = Builder::default();
        for next in Parser::new_from_str(text) {
            let (event, span) = next.map_err(|e| Error::invalid(format!("expected YAML: {e}")))?;
            builder.add(event, span.start.into());
        }
        builder.root.ok_or_else(|| Error::invalid("expected a lakehouse file, found an empty text"))
    }

    /// Whether this is a plain `null`, `~` or nothing.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Where the value at `path` begins, or the nearest value around it that there is.
    pub(super) fn find(&self, path: &Path) -> Place {
        let mut node = self;
        for step in &path.0 {
            let next = match (step, &node.content) {
                (Step::Key(key), Content::Map(entries)) => entries.iter().find(|e| e.key == *key).map(|e| &e.value),
                (Step::Item(at), Content::List(items)) => items.get(*at),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }
}

/// Puts a parser's events together.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
}

/// A map or list whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Place)>,
}

impl Builder {
    fn add(&mut self, event: Event<'_>, place: Place) {
        match event {
            Event::MappingStart(_, anchor, _) => self.open(Content::Map(Vec::new()), place, anchor),
            Event::SequenceStart(_, anchor, _) => self.open(Content::List(Vec::new()), place, anchor),
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(done) = self.open.pop() {
                    self.put(done.node, done.anchor);
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                self.put(Node { place, content: Content::Scalar { text: text.into_owned(), plain } }, anchor);
            }
            Event::Alias(anchor) => {
                if let Some(node) = self.anchors.get(&anchor).cloned() {
                    self.put(Node { place, ..node }, 0);
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, content: Content, place: Place, anchor: usize) {
        self.open.push(Open { node: Node { place, content }, anchor, key: None });
    }

    fn put(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(around) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return;
        };
        match (&mut around.node.content, around.key.take()) {
            (Content::List(items), _) => items.push(node),
            (Content::Map(entries), Some((key, place))) => entries.push(Entry { key, place, value: node }),
            (Content::Map(_), None) => {
                let text = match node.content {
                    Content::Scalar { text, .. } => text,
                    _ => "?".into(),
                };
                around.key = Some((text, node.place));
            }
            (Content::Scalar { .. }, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place() {
        let root = Node::parse("a:\n  - x\n  - {b: 1, c: [2, 3]}\nd: &n text\ne: *n\n").unwrap();
        let place = |path: &Path| {
            let place = root.find(path);
            (place.line, place.column)
        };
        let item = Path::default().key("a").item(1);
        assert_eq!(item.key("c").item(1).to_string(), "a[1].c[1]");
        assert_eq!(place(&item.key("c").item(1)), (3, 19));
        assert_eq!(place(&Path::default().key("e")), (5, 4));
        assert_eq!(place(&item.key("missing")), place(&item));
    }

    #[test]
    fn a_text_that_is_no_yaml_is_refused() {
        assert!(Node::parse("a: [1").is_err());
        assert!(Node::parse("").is_err());
    }
}
