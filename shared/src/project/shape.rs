//! The shape of a lakehouse file against the JSON Schema of its types: all unknown, missing and mistyped fields at once, where
//! a deserializer stops at the first.

use serde_json::{Map, Value};

use super::problem::{Problem, near, one_of};
use super::tree::{Content, Node, Path};
use super::units::{ByteSize, Schedule, Seconds};
use crate::Result;
use crate::model::ColumnType;
use crate::model::PartitionField;

/// Checks the shape of a tree.
pub(super) struct Shape<'a> {
    schema: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> Shape<'a> {
    /// All problems of `root` against `schema`, a JSON Schema as schemars writes it.
    pub(super) fn check(schema: &'a Value, root: &Node) -> Vec<Problem> {
        let mut shape = Self { schema, problems: Vec::new() };
        shape.value(schema, root, &Path::default());
        shape.problems
    }

    fn value(&mut self, schema: &'a Value, node: &Node, path: &Path) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
            return match text_type(name) {
                Some(parse) => self.text(parse, node, path),
                None => self.value(&self.schema["$defs"][name], node, path),
            };
        }
        if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
            let is_null = |option: &&Value| option.get("type").and_then(Value::as_str) == Some("null");
            // Words beside fields: a text is held against the words.
            let is_text = matches!(node.content, Content::Scalar { .. });
            let fits = |option: &&Value| option.get("enum").is_some() == is_text;
            let mut options = options.iter().filter(|option| !is_null(option));
            if !node.is_null()
                && let Some(option) = options.clone().find(fits).or_else(|| options.next())
            {
                self.value(option, node, path);
            }
            return;
        }
        if let Some(options) = schema.get("oneOf").and_then(Value::as_array) {
            return self.one_of(options, node, path);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return self.constant(&values.iter().filter_map(word).collect::<Vec<_>>(), node, path);
        }
        let (kind, optional) = kind(schema);
        if optional && node.is_null() {
            return;
        }
        match (kind, &node.content) {
            ("object", Content::Map(_)) => self.object(schema, node, path),
            ("array", Content::List(items)) => {
                for (at, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &path.item(at));
                }
            }
            ("string", Content::Scalar { .. }) if !node.is_null() => {}
            ("integer", Content::Scalar { text, plain: true }) if text.parse::<u64>().is_ok() => {}
            ("number", Content::Scalar { text, plain: true }) if text.parse::<f64>().is_ok() => {}
            ("boolean", Content::Scalar { text, plain: true }) if text == "true" || text == "false" => {}
            _ => self.report(path, node, format!("expected {}, found {}", article(kind), found(node))),
        }
    }

    fn object(&mut self, schema: &'a Value, node: &Node, path: &Path) {
        let Content::Map(entries) = &node.content else { return };
        for (at, entry) in entries.iter().enumerate() {
            if entries[..at].iter().any(|e| e.key == entry.key) {
                let message = format!("expected each name once, found `{}` again", entry.key);
                self.problems.push(Problem { path: path.key(&entry.key), place: entry.place, message });
            }
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            for entry in entries {
                self.value(&schema["additionalProperties"], &entry.value, &path.key(&entry.key));
            }
            return;
        };
        for entry in entries {
            match properties.get(&entry.key) {
                Some(property) => self.value(property, &entry.value, &path.key(&entry.key)),
                None => {
                    let message = unknown_field(&entry.key, properties);
                    self.problems.push(Problem { path: path.key(&entry.key), place: entry.place, message });
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| !entries.iter().any(|e| e.key == *name)) {
            self.report(path, node, format!("expected the field `{name}`, found none"));
        }
    }

    /// A word out of several, or a map with one field out of several.
    fn one_of(&mut self, options: &'a [Value], node: &Node, path: &Path) {
        let mut words = Vec::new();
        for option in options {
            words.extend(option.get("const").and_then(Value::as_str));
            words.extend(option.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
        }
        if !words.is_empty() {
            return self.constant(&words, node, path);
        }
        let fields = || options.iter().filter_map(|o| o.get("properties")?.as_object()?.iter().next());
        let names: Vec<&str> = fields().map(|(name, _)| name.as_str()).collect();
        let Content::Map(entries) = &node.content else {
            return self.report(path, node, format!("expected one of {}, found {}", one_of(&names), found(node)));
        };
        let [entry] = entries.as_slice() else {
            let message = format!("expected exactly one of {}, found {} fields", one_of(&names), entries.len());
            return self.report(path, node, message);
        };
        match fields().find(|(name, _)| **name == entry.key) {
            Some((_, property)) => self.value(property, &entry.value, &path.key(&entry.key)),
            None => {
                let message =
                    format!("expected one of {}, found `{}`{}", one_of(&names), entry.key, near(&entry.key, &names));
                self.problems.push(Problem { path: path.key(&entry.key), place: entry.place, message });
            }
        }
    }

    fn constant(&mut self, words: &[&str], node: &Node, path: &Path) {
        match &node.content {
            Content::Scalar { text, .. } if words.contains(&text.as_str()) => {}
            Content::Scalar { text, .. } => {
                let message = format!("expected one of {}, found `{text}`{}", one_of(words), near(text, words));
                self.report(path, node, message);
            }
            _ => self.report(path, node, format!("expected one of {}, found {}", one_of(words), found(node))),
        }
    }

    fn text(&mut self, parse: fn(&str) -> Result<()>, node: &Node, path: &Path) {
        let text = match &node.content {
            Content::Scalar { text, .. } => text,
            _ => return self.report(path, node, format!("expected a text, found {}", found(node))),
        };
        if let Err(error) = parse(text) {
            self.report(path, node, error.to_string());
        }
    }

    fn report(&mut self, path: &Path, node: &Node, message: String) {
        self.problems.push(Problem { path: path.clone(), place: node.place, message });
    }
}

/// The text of a word that a schema allows.
fn word(value: &Value) -> Option<&str> {
    match value {
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        other => other.as_str(),
    }
}

/// How the texts of a named type are parsed.
fn text_type(name: &str) -> Option<fn(&str) -> Result<()>> {
    Some(match name {
        "ByteSize" => |text| text.parse::<ByteSize>().map(drop),
        "Seconds" => |text| text.parse::<Seconds>().map(drop),
        "Schedule" => |text| text.parse::<Schedule>().map(drop),
        "PartitionField" => |text| text.parse::<PartitionField>().map(drop),
        "ColumnType" => |text| text.parse::<ColumnType>().map(drop),
        _ => return None,
    })
}

/// The type that a schema asks for, and whether nothing will do as well.
fn kind(schema: &Value) -> (&str, bool) {
    match schema.get("type") {
        Some(Value::String(kind)) => (kind, false),
        Some(Value::Array(kinds)) => {
            let mut kinds = kinds.iter().filter_map(Value::as_str);
            (kinds.find(|kind| *kind != "null").unwrap_or("null"), true)
        }
        _ => ("object", false),
    }
}

fn unknown_field(name: &str, properties: &Map<String, Value>) -> String {
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    match near(name, &names) {
        hint if hint.is_empty() => format!("unknown field `{name}`: expected one of {}", one_of(&names)),
        hint => format!("unknown field `{name}`{hint}"),
    }
}

fn article(kind: &str) -> &str {
    match kind {
        "object" => "a map of fields",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number of 0 or more",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        other => other,
    }
}

fn found(node: &Node) -> String {
    match &node.content {
        Content::Map(_) => "a map".into(),
        Content::List(_) => "a list".into(),
        Content::Scalar { .. } if node.is_null() => "nothing".into(),
        Content::Scalar { text, plain: true } => format!("`{text}`"),
        Content::Scalar { text, .. } => format!("the text `{text}`"),
    }
}
