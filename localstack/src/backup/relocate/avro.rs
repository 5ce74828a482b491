//! Avro container files, read to values and written back under the very header that they had: schema, codec and metadata stay as
//! they are to the byte, whatever wrote them.
//!
//! The format: <https://avro.apache.org/docs/1.11.1/specification/#object-container-files>.

use std::collections::HashMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde_json::Value as Json;
use shared::{Error, Result};

const MAGIC: &[u8] = b"Obj\x01";
const SYNC_BYTES: usize = 16;
/// Levels of a schema within a schema.
const MAX_DEPTH: u32 = 64;

/// A value of any schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum {
    Null,
    Boolean(u8),
    /// An int, a long, or which symbol of an enumeration.
    Number(i64),
    Float([u8; 4]),
    Double([u8; 8]),
    Bytes(Vec<u8>),
    Text(String),
    /// The bytes of a fixed type.
    Fixed(Vec<u8>),
    /// Fields by name, in their order.
    Record(Vec<(String, Datum)>),
    Array(Vec<Datum>),
    Map(Vec<(String, Datum)>),
    /// Which branch, and its value.
    Union(i64, Box<Datum>),
}

impl Datum {
    /// The field of a record; of a union the value that it holds.
    pub(super) fn field(&self, name: &str) -> Option<&Datum> {
        match self.held() {
            Self::Record(fields) => fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.held()),
            _ => None,
        }
    }

    pub(super) fn field_mut(&mut self, name: &str) -> Option<&mut Datum> {
        match self.held_mut() {
            Self::Record(fields) => {
                fields.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value.held_mut())
            }
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self.held() {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        match self.held() {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn held(&self) -> &Datum {
        match self {
            Self::Union(_, held) => held.held(),
            other => other,
        }
    }

    pub(super) fn held_mut(&mut self) -> &mut Datum {
        match self {
            Self::Union(_, held) => held.held_mut(),
            other => other,
        }
    }
}

/// A file: its header, and the values in it.
#[derive(Debug)]
pub(super) struct Container {
    /// All bytes before the first block.
    header: Vec<u8>,
    sync: [u8; SYNC_BYTES],
    schema: Json,
    codec: Codec,
    pub(super) values: Vec<Datum>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Null,
    Deflate,
}

impl Container {
    /// # Errors
    /// `Invalid` for what is no such file, or has a codec that is not known here.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let mut input = Input(bytes);
        if input.take(MAGIC.len())? != MAGIC {
            return Err(Error::invalid("expected an Avro file, found another one"));
        }
        let Datum::Map(metadata) = input.map(|input| Ok(Datum::Bytes(input.bytes()?)))? else {
            return Err(damaged("a map"));
        };
        let of = |name: &str| {
            metadata.iter().find_map(|(key, value)| match value {
                Datum::Bytes(bytes) if key == name => Some(bytes.as_slice()),
                _ => None,
            })
        };
        let schema = serde_json::from_slice(of("avro.schema").unwrap_or_default());
        let schema: Json = schema.map_err(|e| damaged("a schema in JSON").with_source(e))?;
        let codec = match of("avro.codec").unwrap_or(b"null") {
            b"null" => Codec::Null,
            b"deflate" => Codec::Deflate,
            other => {
                let found = String::from_utf8_lossy(other).into_owned();
                return Err(Error::invalid(format!(
                    "expected an Avro file with the codec `null` or `deflate`, found `{found}`"
                )));
            }
        };
        let sync = input.fixed::<SYNC_BYTES>()?;
        let header = bytes[..bytes.len() - input.0.len()].to_vec();
        let mut names = HashMap::new();
        named_types(&schema, &mut names);
        let mut values = Vec::new();
        while !input.0.is_empty() {
            let count = input.long()?;
            let size = usize::try_from(input.long()?).map_err(|e| damaged("a block's size").with_source(e))?;
            let block = codec.decode(input.take(size)?)?;
            if input.fixed::<SYNC_BYTES>()? != sync {
                return Err(damaged("the mark at the end of a block"));
            }
            let mut block = Input(&block);
            for _ in 0..count {
                values.push(block.value(&schema, &names, 0)?);
            }
        }
        Ok(Self { header, sync, schema, codec, values })
    }

    /// The file with its values as they are now, in one block.
    ///
    /// # Errors
    /// `Bug` for values that the schema does not have.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.header.clone();
        if self.values.is_empty() {
            return Ok(bytes);
        }
        let mut names = HashMap::new();
        named_types(&self.schema, &mut names);
        let mut block = Vec::new();
        for value in &self.values {
            write(&mut block, value, &self.schema, &names)?;
        }
        let block = self.codec.encode(&block)?;
        write_long(&mut bytes, self.values.len() as i64);
        write_long(&mut bytes, block.len() as i64);
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&self.sync);
        Ok(bytes)
    }
}

impl Codec {
    fn decode(self, block: &[u8]) -> Result<Vec<u8>> {
        let mut decoded = Vec::new();
        match self {
            Self::Null => decoded.extend_from_slice(block),
            Self::Deflate => drop(DeflateDecoder::new(block).read_to_end(&mut decoded)?),
        }
        Ok(decoded)
    }

    fn encode(self, block: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Null => Ok(block.to_vec()),
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(block)?;
                Ok(encoder.finish()?)
            }
        }
    }
}

/// Types that a schema names, to be used again by their names.
type Names<'a> = HashMap<&'a str, &'a Json>;

fn named_types<'a>(schema: &'a Json, names: &mut Names<'a>) {
    match schema {
        Json::Array(branches) => branches.iter().for_each(|branch| named_types(branch, names)),
        Json::Object(parts) => {
            if let (Some("record" | "fixed" | "enum"), Some(name)) = (kind(schema), schema["name"].as_str()) {
                names.insert(name, schema);
            }
            for inner in ["type", "items", "values"].iter().filter_map(|name| parts.get(*name)) {
                named_types(inner, names);
            }
            for field in schema["fields"].as_array().into_iter().flatten() {
                named_types(&field["type"], names);
            }
        }
        _ => {}
    }
}

fn kind(schema: &Json) -> Option<&str> {
    schema.as_str().or_else(|| schema["type"].as_str())
}

/// What a type is: written in place, or named.
enum Shape<'a> {
    Primitive(&'a str),
    Record(&'a [Json]),
    Array(&'a Json),
    Map(&'a Json),
    Union(&'a [Json]),
    Fixed(usize),
    Enum,
}

fn shape<'a>(schema: &'a Json, names: &Names<'a>) -> Result<Shape<'a>> {
    if let Json::Array(branches) = schema {
        return Ok(Shape::Union(branches));
    }
    // A type within a type: `{"type": {"type": "array", …}}`.
    if let Some(inner) = schema.get("type").filter(|inner| inner.is_object() || inner.is_array()) {
        return shape(inner, names);
    }
    let unknown = || damaged("a known type");
    match kind(schema).ok_or_else(unknown)? {
        primitive @ ("null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string") => {
            Ok(Shape::Primitive(primitive))
        }
        "record" => Ok(Shape::Record(schema["fields"].as_array().ok_or_else(unknown)?)),
        "array" => Ok(Shape::Array(&schema["items"])),
        "map" => Ok(Shape::Map(&schema["values"])),
        "enum" => Ok(Shape::Enum),
        "fixed" => {
            let size = schema["size"].as_u64().and_then(|size| usize::try_from(size).ok());
            Ok(Shape::Fixed(size.ok_or_else(unknown)?))
        }
        name => shape(names.get(name).ok_or_else(unknown)?, names),
    }
}

/// What is not read yet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("more bytes"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|e| damaged("more bytes").with_source(e))
    }

    /// A number in zigzag form, seven bits a byte.
    fn long(&mut self) -> Result<i64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let [byte] = self.fixed::<1>()?;
            if shift >= 64 {
                return Err(damaged("a number of 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = usize::try_from(self.long()?).map_err(|e| damaged("a length").with_source(e))?;
        Ok(self.take(length)?.to_vec())
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|e| damaged("text in UTF-8").with_source(e))
    }

    /// Blocks of items, until an empty one.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The size of the block in bytes follows.
                self.long()?;
                count = -count;
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    fn map(&mut self, mut value: impl FnMut(&mut Self) -> Result<Datum>) -> Result<Datum> {
        let mut entries = Vec::new();
        self.blocks(|input| {
            entries.push((input.text()?, value(input)?));
            Ok(())
        })?;
        Ok(Datum::Map(entries))
    }

    fn value(&mut self, schema: &Json, names: &Names<'_>, depth: u32) -> Result<Datum> {
        if depth > MAX_DEPTH {
            return Err(damaged("a schema of fewer levels"));
        }
        match shape(schema, names)? {
            Shape::Primitive("null") => Ok(Datum::Null),
            Shape::Primitive("boolean") => Ok(Datum::Boolean(self.fixed::<1>()?[0])),
            Shape::Primitive("int" | "long") | Shape::Enum => Ok(Datum::Number(self.long()?)),
            Shape::Primitive("float") => Ok(Datum::Float(self.fixed()?)),
            Shape::Primitive("double") => Ok(Datum::Double(self.fixed()?)),
            Shape::Primitive("bytes") => Ok(Datum::Bytes(self.bytes()?)),
            Shape::Primitive(_) => Ok(Datum::Text(self.text()?)),
            Shape::Fixed(size) => Ok(Datum::Fixed(self.take(size)?.to_vec())),
            Shape::Record(fields) => {
                let mut values = Vec::with_capacity(fields.len());
                for field in fields {
                    let name = field["name"].as_str().unwrap_or_default().to_owned();
                    values.push((name, self.value(&field["type"], names, depth + 1)?));
                }
                Ok(Datum::Record(values))
            }
            Shape::Array(items) => {
                let mut values = Vec::new();
                self.blocks(|input| {
                    values.push(input.value(items, names, depth + 1)?);
                    Ok(())
                })?;
                Ok(Datum::Array(values))
            }
            Shape::Map(values) => self.map(|input| input.value(values, names, depth + 1)),
            Shape::Union(branches) => {
                let branch = self.long()?;
                let schema = usize::try_from(branch).ok().and_then(|branch| branches.get(branch));
                let schema = schema.ok_or_else(|| damaged("a branch of a union"))?;
                Ok(Datum::Union(branch, Box::new(self.value(schema, names, depth + 1)?)))
            }
        }
    }
}

fn write(out: &mut Vec<u8>, value: &Datum, schema: &Json, names: &Names<'_>) -> Result<()> {
    match (value, shape(schema, names)?) {
        (Datum::Null, _) => {}
        (Datum::Boolean(byte), _) => out.push(*byte),
        (Datum::Number(number), _) => write_long(out, *number),
        (Datum::Float(bytes), _) => out.extend_from_slice(bytes),
        (Datum::Double(bytes), _) => out.extend_from_slice(bytes),
        (Datum::Fixed(bytes), _) => out.extend_from_slice(bytes),
        (Datum::Bytes(bytes), _) => write_bytes(out, bytes),
        (Datum::Text(text), _) => write_bytes(out, text.as_bytes()),
        (Datum::Record(values), Shape::Record(fields)) => {
            for ((_, value), field) in values.iter().zip(fields) {
                write(out, value, &field["type"], names)?;
            }
        }
        (Datum::Array(values), Shape::Array(items)) => {
            write_count(out, values.len());
            for value in values {
                write(out, value, items, names)?;
            }
            write_long(out, 0);
        }
        (Datum::Map(entries), Shape::Map(values)) => {
            write_count(out, entries.len());
            for (key, value) in entries {
                write_bytes(out, key.as_bytes());
                write(out, value, values, names)?;
            }
            write_long(out, 0);
        }
        (Datum::Union(branch, value), Shape::Union(branches)) => {
            write_long(out, *branch);
            let schema = usize::try_from(*branch).ok().and_then(|branch| branches.get(branch));
            write(out, value, schema.ok_or_else(|| Error::bug("a value of no branch of its union"))?, names)?;
        }
        _ => return Err(Error::bug("expected a value of its schema, found another")),
    }
    Ok(())
}

/// How many items of an array or map follow in one block; an empty block ends it.
fn write_count(out: &mut Vec<u8>, count: usize) {
    if count > 0 {
        write_long(out, count as i64);
    }
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn write_long(out: &mut Vec<u8>, number: i64) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn damaged(expected: &str) -> Error {
    Error::invalid(format!("expected {expected} in an Avro file, found it damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, -1, 63, 64, -64, -65, 1 << 40, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            write_long(&mut bytes, number);
            assert_eq!(Input(&bytes).long().unwrap(), number);
        }
        assert!(Input(&[0xff; 11]).long().is_err());
    }

    #[test]
    fn a_file_is_the_same_after_it_was_read_and_written() {
        let schema = r#"{"type":"record","name":"r","fields":[
            {"name":"path","type":"string","field-id":100},
            {"name":"part","type":{"type":"record","name":"p","fields":[{"name":"d","type":["null","int"]}]}},
            {"name":"again","type":["null","p"]},
            {"name":"bounds","type":["null",{"type":"array","logicalType":"map","items":{"type":"record","name":"kv","fields":[
                {"name":"key","type":"int"},{"name":"value","type":"bytes"}]}}]},
            {"name":"m","type":{"type":"map","values":"long"}},
            {"name":"f","type":{"type":"fixed","name":"u","size":3}},{"name":"x","type":"double"},{"name":"b","type":"boolean"}]}"#;
        for codec in ["null", "deflate"] {
            let mut header = MAGIC.to_vec();
            write_long(&mut header, 2);
            for (key, value) in [("avro.schema", schema), ("avro.codec", codec)] {
                write_bytes(&mut header, key.as_bytes());
                write_bytes(&mut header, value.as_bytes());
            }
            write_long(&mut header, 0);
            header.extend_from_slice(&[7; SYNC_BYTES]);
            let mut file = Container::parse(&header).unwrap();
            assert!(file.values.is_empty());
            let part = |day| Datum::Record(vec![("d".into(), Datum::Union(1, Box::new(Datum::Number(day))))]);
            let bound = Datum::Record(vec![("key".into(), Datum::Number(5)), ("value".into(), Datum::Bytes(vec![1]))]);
            let value = Datum::Record(vec![
                ("path".into(), Datum::Text("file:///a/ü".into())),
                ("part".into(), part(-3)),
                ("again".into(), Datum::Union(1, Box::new(part(9)))),
                ("bounds".into(), Datum::Union(1, Box::new(Datum::Array(vec![bound.clone(), bound])))),
                ("m".into(), Datum::Map(vec![("k".into(), Datum::Number(1 << 50))])),
                ("f".into(), Datum::Fixed(vec![1, 2, 3])),
                ("x".into(), Datum::Double(1.5_f64.to_le_bytes())),
                ("b".into(), Datum::Boolean(1)),
            ]);
            file.values = vec![value.clone(), value];
            let bytes = file.to_bytes().unwrap();
            let again = Container::parse(&bytes).unwrap();
            assert_eq!(again.values, file.values);
            assert_eq!(again.to_bytes().unwrap(), bytes);
            assert_eq!(again.values[0].field("path").and_then(Datum::text), Some("file:///a/ü"));
            for end in header.len() + 1..bytes.len() {
                assert!(Container::parse(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }
}
