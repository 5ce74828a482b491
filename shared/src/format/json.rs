//! Samples of JSON: one object a line, objects one after the other, an array of objects.

use serde_json::{Deserializer, Map, Value};

use super::infer::text_shape;
use super::merge::{SampledColumn, Shape};
use super::{Compression, Encoding, FileFormat, Flaw, JsonFormat, Sample};
use crate::model::ColumnType;
use crate::model::name::to_identifier;

/// Objects that types are inferred from.
const OBJECTS: usize = 20_000;

/// The layout and columns of `text`, which begins with `{` or `[`. `None` when the first value is no JSON, so that the text may be
/// something else.
///
/// # Errors
/// `Truncated` or `Corrupt` when JSON begins and then breaks; `Unrecognized` for JSON that is not made of objects.
pub fn sample(text: &str, complete: bool) -> Option<Result<Sample, Flaw>> {
    let trimmed = text.trim_start();
    let values = if trimmed.starts_with('[') { elements(trimmed, complete) } else { objects(text, complete) };
    match values {
        Ok(Some(values)) => Some(Ok(of_values(values))),
        Ok(None) => None,
        Err(flaw) => Some(Err(flaw)),
    }
}

struct Values {
    layout: JsonFormat,
    objects: Vec<Map<String, Value>>,
    notes: Vec<String>,
}

/// Objects one after the other. `None` when there is not even one.
fn objects(text: &str, complete: bool) -> Result<Option<Values>, Flaw> {
    let mut stream = Deserializer::from_str(text).into_iter::<Value>();
    let mut values = Values { layout: JsonFormat::Lines, objects: Vec::new(), notes: Vec::new() };
    let mut start = 0;
    while values.objects.len() < OBJECTS {
        let Some(value) = stream.next() else { break };
        let end = stream.byte_offset();
        match value {
            Ok(Value::Object(object)) => {
                let spans_lines = text[start..end].trim_start().contains('\n');
                let shares_line = start > 0 && !text[start..end].starts_with(['\n', '\r']);
                if spans_lines || shares_line {
                    values.layout = JsonFormat::Stream;
                }
                values.objects.push(object);
                start = end;
            }
            Ok(other) => return unexpected(&other, values.objects.len()),
            Err(error) if error.is_eof() && !complete => break,
            Err(_) if values.objects.is_empty() => return Ok(None),
            Err(error) if error.is_eof() => {
                return Err(Flaw::Truncated { found: format!("JSON ends inside a value at line {}", error.line()) });
            }
            Err(error) => return Err(Flaw::Corrupt { found: error.to_string() }),
        }
    }
    Ok(if values.objects.is_empty() { None } else { Some(values) })
}

fn unexpected(value: &Value, before: usize) -> Result<Option<Values>, Flaw> {
    if before == 0 {
        return Ok(None);
    }
    Err(Flaw::Corrupt { found: format!("expected JSON objects, found {} after {before} of them", word(value)) })
}

/// The elements of an array, those that lie whole in `text`.
fn elements(text: &str, complete: bool) -> Result<Option<Values>, Flaw> {
    let mut values = Values { layout: JsonFormat::Array, objects: Vec::new(), notes: Vec::new() };
    let mut rest = text[1..].trim_start();
    if rest.starts_with(']') {
        return Err(Flaw::Empty);
    }
    while values.objects.len() < OBJECTS {
        let mut stream = Deserializer::from_str(rest).into_iter::<Value>();
        match stream.next() {
            Some(Ok(Value::Object(object))) => values.objects.push(object),
            Some(Ok(_)) if values.objects.is_empty() => {
                return Err(Flaw::Unrecognized { found: "a JSON array of other things than objects".into() });
            }
            Some(Ok(other)) => return unexpected(&other, values.objects.len()),
            None if !complete => break,
            Some(Err(error)) if error.is_eof() && !complete => break,
            Some(Err(_)) if values.objects.is_empty() => return Ok(None),
            Some(Err(error)) if !error.is_eof() => return Err(Flaw::Corrupt { found: error.to_string() }),
            _ => return Err(Flaw::Truncated { found: "a JSON array is not closed".into() }),
        }
        rest = rest[stream.byte_offset()..].trim_start();
        match rest.as_bytes().first() {
            Some(b',') => rest = rest[1..].trim_start(),
            Some(b']') => break,
            None if !complete => break,
            None => return Err(Flaw::Truncated { found: "a JSON array is not closed".into() }),
            Some(_) => {
                return Err(Flaw::Corrupt { found: "expected `,` or `]` after an element of a JSON array".into() });
            }
        }
    }
    Ok(Some(values))
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn of_values(mut values: Values) -> Sample {
    let mut columns: Vec<SampledColumn> = Vec::new();
    let mut notes = std::mem::take(&mut values.notes);
    for object in &values.objects {
        for (source, value) in object {
            let shape = value_shape(value, source, &mut notes);
            match columns.iter_mut().find(|column| column.source == *source) {
                Some(column) => column.shape = std::mem::replace(&mut column.shape, Shape::Unknown).merge(shape),
                None => columns.push(SampledColumn { name: to_identifier(source), source: source.clone(), shape }),
            }
        }
    }
    let columns = super::unique_names(columns, &mut notes);
    let format = FileFormat { encoding: Encoding::Json(values.layout), compression: Compression::None };
    Sample { format, columns, first_row: None, notes }
}

/// The shape of a value; `path` names it in notes. Strings that are dates or times have their types, other strings none: a number in
/// quotes was meant as text.
fn value_shape(value: &Value, path: &str, notes: &mut Vec<String>) -> Shape {
    match value {
        Value::Null => Shape::Unknown,
        Value::Bool(_) => Shape::Scalar(ColumnType::Boolean),
        Value::Number(number) if number.is_i64() => Shape::Scalar(ColumnType::BigInt),
        Value::Number(number) if number.is_u64() => Shape::Scalar(ColumnType::Decimal(38, 0)),
        Value::Number(_) => Shape::Scalar(ColumnType::Double),
        Value::String(text) => match text_shape(text) {
            Shape::Scalar(ty @ (ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampTz)) => {
                Shape::Scalar(ty)
            }
            _ => Shape::STRING,
        },
        Value::Array(items) => {
            let item = items.iter().fold(Shape::Unknown, |shape, item| shape.merge(value_shape(item, path, notes)));
            Shape::Array(Box::new(item))
        }
        Value::Object(fields) if fields.is_empty() => Shape::Unknown,
        Value::Object(fields) => Shape::Struct(object_fields(fields, path, notes)),
    }
}

/// Fields whose names a type's text can hold; the others are left out and noted.
fn object_fields(fields: &Map<String, Value>, path: &str, notes: &mut Vec<String>) -> Vec<(String, Shape)> {
    let mut shapes = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            shapes.push((name.clone(), value_shape(value, &format!("{path}.{name}"), notes)));
            continue;
        }
        let note = format!("the field `{name}` of `{path}` is left out: expected letters, digits and underscores");
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Sample {
        sample(text, true).unwrap().unwrap()
    }

    fn types(sample: &Sample) -> Vec<String> {
        sample.columns.iter().map(|c| format!("{}:{}", c.name, c.shape.column_type())).collect()
    }

    #[test]
    fn nested_values_keep_their_structure() {
        let sample =
            found("{\"a\":1,\"b\":{\"c\":[1,2.5],\"d\":null}}\n{\"a\":null,\"b\":{\"c\":[],\"d\":\"x\"},\"e\":true}\n");
        assert_eq!(types(&sample), ["a:bigint", "b:struct<c:array<double>,d:string>", "e:boolean"]);
        assert_eq!(sample.format.encoding, Encoding::Json(JsonFormat::Lines));
    }

    #[test]
    fn dates_have_types_and_numbers_in_quotes_are_text() {
        let sample =
            found("{\"d\":\"2013-01-02\",\"t\":\"2013-01-02T03:04:05Z\",\"n\":\"12\",\"u\":18446744073709551615}");
        assert_eq!(types(&sample), ["d:date", "t:timestamptz", "n:string", "u:decimal(38,0)"]);
    }

    #[test]
    fn the_layout_is_told() {
        let layout = |text: &str| found(text).format.encoding;
        assert_eq!(layout("[{\"a\":1},\n {\"a\":2}]"), Encoding::Json(JsonFormat::Array));
        assert_eq!(layout("{\n \"a\": 1\n}\n{\n \"a\": 2\n}"), Encoding::Json(JsonFormat::Stream));
        assert_eq!(layout("{\"a\":1} {\"a\":2}"), Encoding::Json(JsonFormat::Stream));
        assert_eq!(layout("{\"a\":1}\r\n\r\n{\"a\":2}\r\n"), Encoding::Json(JsonFormat::Lines));
    }

    #[test]
    fn a_head_that_ends_inside_a_value_is_enough() {
        for text in ["{\"a\":1}\n{\"a\":", "[{\"a\":1},{\"a\"", "[{\"a\":1}", "[{\"a\":1},"] {
            assert_eq!(types(&sample(text, false).unwrap().unwrap()), ["a:bigint"], "{text}");
            assert!(matches!(sample(text, true).unwrap(), Err(Flaw::Truncated { .. })), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_may_be_something_else_and_what_breaks_later_is_broken() {
        assert!(sample("{name},{value}\n1,2\n", true).is_none());
        assert!(matches!(sample("{\"a\":1}\nnot json\n", true).unwrap(), Err(Flaw::Corrupt { .. })));
        assert!(matches!(sample("{\"a\":1}\n5\n", true).unwrap(), Err(Flaw::Corrupt { .. })));
        assert!(matches!(sample("[1,2]", true).unwrap(), Err(Flaw::Unrecognized { .. })));
        assert!(matches!(sample("[]", true).unwrap(), Err(Flaw::Empty)));
    }

    #[test]
    fn names_become_identifiers_and_remember_where_they_came_from() {
        let sample = found("{\"Dep Time\":1,\"userId\":2,\"a\":{\"x-y\":1,\"z\":2}}");
        assert_eq!(types(&sample), ["dep_time:bigint", "userid:bigint", "a:struct<z:bigint>"]);
        assert_eq!(sample.columns[1].source, "userId");
        assert_eq!(sample.notes.len(), 1);
    }
}
