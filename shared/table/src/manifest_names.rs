//! Names of partition fields in manifests.
//!
//! The Avro schema of a manifest names the partition's fields, and Avro names are ASCII letters, digits and `_`. Writers put
//! `a_x20b` for a field `a b` there, and the field's id beside it; the spec in the manifest's header keeps `a b`. The `iceberg`
//! crate matches both by name, so that values of such a field come out null: it is given manifests in which both are Avro's, and
//! specs to write whose names are Avro's. Names as users see them come from the table's metadata.

use bytes::Bytes;
use iceberg::spec::PartitionSpec;
use serde_json::Value;

use shared::{Error, Result};

const MAGIC: &[u8] = b"Obj\x01";
/// Bytes of the marker that ends the header.
const SYNC: usize = 16;
const SCHEMA: &str = "avro.schema";
const SPEC: &str = "partition-spec";

/// The spec under names that Avro takes.
///
/// # Errors
/// `Bug` when the spec has no JSON.
pub(super) fn spec_with_avro_names(spec: PartitionSpec) -> Result<PartitionSpec> {
    if spec.fields().iter().all(|field| is_avro_name(&field.name)) {
        return Ok(spec);
    }
    let renamed = || {
        let mut json = serde_json::to_value(&spec)?;
        rename(json.get_mut("fields"), avro_name);
        serde_json::from_value(json)
    };
    renamed().map_err(|e: serde_json::Error| Error::bug("expected the JSON of a partition spec").with_source(e))
}

/// The manifest with names for its partition fields that Avro takes, and that are the spec's.
///
/// # Errors
/// `Bug` when the file does not begin as the Avro file of a manifest does.
pub(super) fn with_avro_names(manifest: Bytes) -> Result<Bytes> {
    let mut header = Header::parse(&manifest).ok_or_else(|| Error::bug("expected the header of an Avro file"))?;
    let mut spec = header.json(SPEC)?;
    let mut names = spec.as_array().into_iter().flatten().filter_map(|field| field["name"].as_str());
    if names.all(is_avro_name) {
        return Ok(manifest);
    }
    let mut schema = header.json(SCHEMA)?;
    rename(Some(&mut spec), avro_name);
    rename_partition(&mut schema, &spec);
    header.set(SPEC, &spec);
    header.set(SCHEMA, &schema);
    let mut bytes = header.to_bytes();
    bytes.extend_from_slice(&manifest[header.length..]);
    Ok(bytes.into())
}

/// Gives the fields of the partition in an Avro schema the names of the spec's, by their ids.
fn rename_partition(schema: &mut Value, spec: &Value) {
    let name_of =
        |id: &Value| spec.as_array()?.iter().find(|field| field["field-id"] == *id).map(|field| &field["name"]);
    let partition = field_of(Some(schema), "data_file").and_then(|file| field_of(Some(file), "partition"));
    for field in partition.and_then(|partition| partition["fields"].as_array_mut()).into_iter().flatten() {
        if let Some(name) = name_of(&field["field-id"]) {
            field["name"] = name.clone();
        }
    }
}

/// The type of a record's field.
fn field_of<'a>(record: Option<&'a mut Value>, name: &str) -> Option<&'a mut Value> {
    let fields = record?.get_mut("fields")?.as_array_mut()?;
    fields.iter_mut().find(|field| field["name"] == name)?.get_mut("type")
}

fn rename(fields: Option<&mut Value>, to: impl Fn(&str) -> String) {
    for field in fields.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = field["name"].as_str().map(&to) {
            field["name"] = name.into();
        }
    }
}

fn is_avro_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name as Iceberg's writers spell it in Avro: `_x` and the hexadecimal code for what Avro does not take, `_` before a digit
/// that would be first.
fn avro_name(name: &str) -> String {
    let spelt = |(at, c): (usize, char)| match c {
        '_' => "_".to_owned(),
        c if c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()) => c.to_string(),
        c if c.is_ascii_digit() => format!("_{c}"),
        c => format!("_x{:X}", u32::from(c)),
    };
    name.chars().enumerate().map(spelt).collect()
}

/// The header of an Avro file.
struct Header {
    metadata: Vec<(String, Vec<u8>)>,
    sync: [u8; SYNC],
    /// Bytes of the header in the file that it was read from.
    length: usize,
}

impl Header {
    fn parse(file: &[u8]) -> Option<Self> {
        let mut rest = file.strip_prefix(MAGIC)?;
        let mut metadata = Vec::new();
        loop {
            let count = long(&mut rest)?;
            if count == 0 {
                break;
            }
            if count < 0 {
                long(&mut rest)?;
            }
            for _ in 0..count.unsigned_abs() {
                let key = String::from_utf8(block(&mut rest)?.to_vec()).ok()?;
                metadata.push((key, block(&mut rest)?.to_vec()));
            }
        }
        let sync = take(&mut rest, SYNC)?.try_into().ok()?;
        Some(Self { metadata, sync, length: file.len() - rest.len() })
    }

    /// # Errors
    /// `Bug` when there is no such JSON.
    fn json(&self, key: &str) -> Result<Value> {
        let value = self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice());
        serde_json::from_slice(value.unwrap_or_default())
            .map_err(|e| Error::bug(format!("expected JSON as `{key}` of an Avro file")).with_source(e))
    }

    fn set(&mut self, key: &str, value: &Value) {
        for (_, old) in self.metadata.iter_mut().filter(|(known, _)| known == key) {
            *old = value.to_string().into_bytes();
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        put_long(&mut bytes, self.metadata.len());
        for (key, value) in &self.metadata {
            for part in [key.as_bytes(), value] {
                put_long(&mut bytes, part.len());
                bytes.extend_from_slice(part);
            }
        }
        put_long(&mut bytes, 0);
        bytes.extend_from_slice(&self.sync);
        bytes
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

fn block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = usize::try_from(long(rest)?).ok()?;
    take(rest, bytes)
}

/// A number of Avro's: seven bits a byte, the lowest first, zigzag.
fn long(rest: &mut &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    None
}

fn put_long(bytes: &mut Vec<u8>, value: usize) {
    let mut value = (value as u64) << 1;
    loop {
        let [low, ..] = (value & 0x7f).to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_as_other_writers_spell_them() {
        let spelt = [("a b", "a_x20b"), ("a.b", "a_x2Eb"), ("1a", "_1a"), ("ü", "_xFC"), ("a_1", "a_1"), ("_", "_")];
        for (name, expected) in spelt {
            assert_eq!(avro_name(name), expected);
            assert!(is_avro_name(expected) && is_avro_name(name) == (name == expected), "{name}");
        }
    }

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        let metadata = vec![("k".to_owned(), vec![7; 300]), (SPEC.to_owned(), b"[]".to_vec())];
        let header = Header { metadata: metadata.clone(), sync: [9; SYNC], length: 0 };
        let mut file = header.to_bytes();
        let length = file.len();
        file.extend_from_slice(b"rows");
        let read = Header::parse(&file).unwrap();
        assert_eq!((read.metadata, read.length), (metadata, length));
        for cut in 0..length {
            assert!(Header::parse(&file[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn schema_and_spec_get_one_name_by_the_fields_id() {
        let schema = r#"{"type":"record","name":"manifest_entry","fields":[{"name":"status","type":"int"},{"name":"data_file",
            "type":{"type":"record","name":"r2","fields":[{"name":"partition","type":{"type":"record","name":"r102","fields":[
            {"name":"other","type":["null","string"],"field-id":1000}]}}]}}]}"#;
        let spec = r#"[{"name":"a b","transform":"identity","source-id":2,"field-id":1000}]"#;
        let metadata = vec![(SCHEMA.to_owned(), schema.into()), (SPEC.to_owned(), spec.into())];
        let mut file = Header { metadata, sync: [1; SYNC], length: 0 }.to_bytes();
        file.extend_from_slice(b"rows");
        let read = with_avro_names(file.into()).unwrap();
        let header = Header::parse(&read).unwrap();
        let text = |key| header.json(key).unwrap().to_string();
        assert!(text(SCHEMA).contains(r#""name":"a_x20b""#) && !text(SCHEMA).contains("other"), "{}", text(SCHEMA));
        assert!(text(SPEC).contains(r#""name":"a_x20b""#), "{}", text(SPEC));
        assert_eq!(&read[header.length..], b"rows");
    }
}
