//! Avro as Iceberg writes it: ids are attributes of the file's schema, maps whose keys are no text are lists of pairs.
//!
//! The format is Avro's specification 1.11; ids and logical types are appendix A ("Avro") of Iceberg's.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow_avro::reader::{ReaderBuilder, read_header_info};
use serde_json::Value;

use super::fields::{Ids, MAX_DEPTH, map_of, named, unknown};
use super::{BATCH_ROWS, Rows};

/// Bytes of a block of rows as it is decoded, for each of its compressed ones.
const EXPANSION: u64 = 4;

/// # Errors
/// When the file is damaged, or holds what no Iceberg table does.
pub(super) fn open(path: &Path) -> Result<Rows, ArrowError> {
    let header = read_header_info(BufReader::new(File::open(path)?))?;
    let largest = largest_block(path, header.header_len(), header.sync())?;
    let json: Value = serde_json::from_str(&header.writer_schema()?.json_string)
        .map_err(|e| ArrowError::ParseError(format!("expected a schema in JSON: {e}")))?;
    let reader = ReaderBuilder::new().with_batch_size(BATCH_ROWS).build(BufReader::new(File::open(path)?))?;
    let mut types = Types::default();
    let ty = types.of(&json, &DataType::Struct(reader.schema().fields().clone()), None, 0)?;
    let DataType::Struct(columns) = ty else { return Err(unknown(ty)) };
    Ok(Rows {
        schema: Arc::new(Schema::new(columns)),
        has_ids: types.ids.check()?,
        memory: usize::try_from(largest.saturating_mul(EXPANSION)).unwrap_or(usize::MAX),
        batches: Box::new(reader),
    })
}

/// Bytes of the file's largest block. Walks over all of them: the reader takes the end of a file that is cut short for its end.
fn largest_block(path: &Path, start: u64, sync: [u8; 16]) -> Result<u64, ArrowError> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut file = BufReader::new(file);
    let (mut place, mut largest) = (file.seek(SeekFrom::Start(start))?, 0);
    while place < end {
        let (_, bytes) = (long(&mut file)?, long(&mut file)?);
        let bytes = u64::try_from(bytes).map_err(|_| cut_short())?;
        let behind = file.stream_position()?.checked_add(bytes).filter(|behind| *behind < end).ok_or_else(cut_short)?;
        // Relative, so that what is buffered stays.
        file.seek_relative(i64::try_from(bytes).map_err(|_| cut_short())?)?;
        let mut found = [0; 16];
        file.read_exact(&mut found)?;
        if found != sync {
            return Err(ArrowError::ParseError("expected the end of a block, found other bytes".to_owned()));
        }
        (place, largest) = (behind + 16, largest.max(bytes));
    }
    Ok(largest)
}

fn cut_short() -> ArrowError {
    ArrowError::ParseError("expected whole blocks, found a part of one".to_owned())
}

/// A variable-length integer in zigzag.
fn long(file: &mut impl Read) -> Result<i64, ArrowError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(ArrowError::ParseError("expected a variable-length integer of 64 bits, found a longer one".to_owned()))
}

/// Reads types of a schema beside those that the reader decodes to.
#[derive(Default)]
struct Types {
    ids: Ids,
    /// Definitions of named types and the namespaces they stand in, by full name.
    named: HashMap<String, (Value, Option<String>)>,
}

impl Types {
    /// The type that values are to have, of a schema and of the type that they are decoded to.
    fn of(
        &mut self,
        json: &Value,
        decoded: &DataType,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<DataType, ArrowError> {
        if depth > MAX_DEPTH {
            return Err(unknown("types that are nested too deep"));
        }
        match json {
            Value::Array(options) => self.of(only(options)?, decoded, namespace, depth + 1),
            Value::String(name) => match self.defined(name, namespace) {
                Some((json, namespace)) => self.of(&json, decoded, namespace.as_deref(), depth + 1),
                None => leaf(json, decoded),
            },
            Value::Object(_) => match &json["type"] {
                Value::String(kind) => match (kind.as_str(), decoded) {
                    ("record", DataType::Struct(fields)) => self.record(json, fields, namespace, depth),
                    ("array", DataType::List(element)) => self.list(json, element, namespace, depth),
                    ("map", DataType::Map(entries, _)) => self.map(json, entries, namespace, depth),
                    ("fixed", _) => {
                        self.define(json, namespace);
                        leaf(json, decoded)
                    }
                    _ if self.defined(kind, namespace).is_some() => {
                        self.of(&json["type"], decoded, namespace, depth + 1)
                    }
                    _ => leaf(json, decoded),
                },
                inner => self.of(inner, decoded, namespace, depth + 1),
            },
            other => Err(unknown(other)),
        }
    }

    fn record(
        &mut self,
        json: &Value,
        decoded: &Fields,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<DataType, ArrowError> {
        let namespace = self.define(json, namespace);
        let fields = json["fields"].as_array().filter(|fields| fields.len() == decoded.len());
        let fields = fields.ok_or_else(|| unknown("a record whose fields are not those of its schema"))?;
        let fields = fields.iter().zip(decoded).map(|(json, decoded)| {
            let ty = self.of(&json["type"], decoded.data_type(), namespace.as_deref(), depth + 1)?;
            let name = json["name"].as_str().unwrap_or(decoded.name());
            Ok(self.ids.field(name, ty, decoded.is_nullable(), id(json, "field-id")))
        });
        Ok(DataType::Struct(fields.collect::<Result<Fields, ArrowError>>()?))
    }

    fn list(
        &mut self,
        json: &Value,
        decoded: &FieldRef,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<DataType, ArrowError> {
        let element = self.of(&json["items"], decoded.data_type(), namespace, depth + 1)?;
        if json["logicalType"] == "map" {
            return match &element {
                DataType::Struct(pair) if pair.len() == 2 => {
                    let key = named("key", pair[0].data_type().clone(), false, field_id(&pair[0]));
                    let value = named("value", pair[1].data_type().clone(), pair[1].is_nullable(), field_id(&pair[1]));
                    Ok(map_of(key, value))
                }
                other => Err(unknown(format!("a map of {other}"))),
            };
        }
        Ok(DataType::List(named("element", element, decoded.is_nullable(), id(json, "element-id"))))
    }

    fn map(
        &mut self,
        json: &Value,
        decoded: &FieldRef,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<DataType, ArrowError> {
        let pair = match decoded.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => pair,
            other => return Err(unknown(format!("a map of {other}"))),
        };
        let value = self.of(&json["values"], pair[1].data_type(), namespace, depth + 1)?;
        let key = named("key", DataType::Utf8, false, id(json, "key-id"));
        Ok(map_of(key, named("value", value, pair[1].is_nullable(), id(json, "value-id"))))
    }

    /// Notes a named type, and gives the namespace of the names in it.
    fn define(&mut self, json: &Value, namespace: Option<&str>) -> Option<String> {
        let name = json["name"].as_str().unwrap_or_default();
        let own = match name.rsplit_once('.') {
            Some((own, _)) => Some(own.to_owned()),
            None => json["namespace"].as_str().or(namespace).filter(|own| !own.is_empty()).map(str::to_owned),
        };
        self.named.insert(full(name, own.as_deref()), (json.clone(), namespace.map(str::to_owned)));
        own
    }

    fn defined(&self, name: &str, namespace: Option<&str>) -> Option<(Value, Option<String>)> {
        self.named.get(&full(name, namespace)).or_else(|| self.named.get(name)).cloned()
    }
}

fn full(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if !name.contains('.') => format!("{namespace}.{name}"),
        _ => name.to_owned(),
    }
}

/// The type of a union that may be null besides.
fn only(options: &[Value]) -> Result<&Value, ArrowError> {
    match options {
        [only] => Ok(only),
        [null, other] | [other, null] if null == "null" => Ok(other),
        _ => Err(unknown("a union of several types")),
    }
}

/// A type without fields.
fn leaf(json: &Value, decoded: &DataType) -> Result<DataType, ArrowError> {
    use DataType as D;
    match decoded {
        // Iceberg says of a moment whether it has a zone; what Avro calls local has none.
        D::Timestamp(unit, zone) => {
            let zoned = json["adjust-to-utc"].as_bool().unwrap_or(zone.is_some());
            Ok(D::Timestamp(*unit, zoned.then(|| "UTC".into())))
        }
        D::Boolean | D::Int32 | D::Int64 | D::Float32 | D::Float64 | D::Utf8 | D::Binary | D::FixedSizeBinary(_) => {
            Ok(decoded.clone())
        }
        D::Decimal128(..) | D::Date32 | D::Time32(TimeUnit::Millisecond) | D::Time64(TimeUnit::Microsecond) => {
            Ok(decoded.clone())
        }
        _ => Err(unknown(json)),
    }
}

fn id(json: &Value, key: &str) -> Option<i32> {
    i32::try_from(json[key].as_i64()?).ok()
}

fn field_id(field: &FieldRef) -> Option<i32> {
    field.metadata().get(parquet::arrow::PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}
