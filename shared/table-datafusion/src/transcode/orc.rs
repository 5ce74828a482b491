//! ORC as Iceberg writes it: ids, and what ORC has no type for, are attributes of the file's types.
//!
//! The format is ORC's specification v1; ids and types are appendix A ("ORC") of Iceberg's. ORC can't hold
//! times of the last second before 1970 past its first millisecond: writers leave them a second late (ORC-763), and every reader
//! gives them so.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use orc_rust::ArrowReaderBuilder;
use orc_rust::compression::Decompressor;
use orc_rust::proto::r#type::Kind;
use orc_rust::proto::{CompressionKind, Footer, PostScript, Type};
use orc_rust::reader::ChunkReader;
use orc_rust::reader::metadata::read_metadata;
use prost::Message;

use super::fields::{Ids, MAX_DEPTH, map_of, named, unknown};
use super::{BATCH_ROWS, Rows};

/// How often the bytes of a stripe are held.
const COPIES: u64 = 2;

/// # Errors
/// When the file is damaged, or holds what no Iceberg table does.
pub(super) fn open(path: &Path) -> Result<Rows, ArrowError> {
    let file = Whole::open(path)?;
    // The reader follows the types wherever they lead, so they are checked before it sees them.
    let footer = footer(&file)?;
    let mut types = Types { types: &footer.types, next: 0, ids: Ids::default() };
    let (decoded, target) = types.of(0, 0)?;
    let has_ids = types.ids.check()?;
    let (DataType::Struct(decoded), DataType::Struct(target)) = (decoded, target) else {
        return Err(unknown("rows that are no struct"));
    };
    let end = file.bytes;
    let reader = ArrowReaderBuilder::try_new(file).map_err(damaged)?;
    let mut largest = 0;
    for stripe in reader.file_metadata().stripe_metadatas() {
        let bytes = stripe.index_length().checked_add(stripe.data_length());
        let bytes = bytes.filter(|bytes| stripe.offset().checked_add(*bytes).is_some_and(|behind| behind <= end));
        largest = bytes.ok_or_else(|| ArrowError::ParseError("expected stripes in the file".to_owned()))?.max(largest);
    }
    let reader = reader.with_batch_size(BATCH_ROWS).with_schema(Arc::new(Schema::new(decoded))).build();
    Ok(Rows {
        schema: Arc::new(Schema::new(target)),
        has_ids,
        memory: usize::try_from(largest.saturating_mul(COPIES)).unwrap_or(usize::MAX),
        batches: Box::new(reader),
    })
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

/// A file of which nothing is read past its end, whatever lengths it tells.
struct Whole {
    file: File,
    bytes: u64,
}

impl Whole {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }
}

impl ChunkReader for Whole {
    type T = BufReader<File>;

    fn len(&self) -> u64 {
        self.bytes
    }

    fn get_read(&self, start: u64) -> std::io::Result<Self::T> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(file))
    }

    fn get_bytes(&self, start: u64, length: u64) -> std::io::Result<Bytes> {
        let end = start.checked_add(length).filter(|end| *end <= self.bytes);
        if end.is_none() {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "expected more bytes in the file"));
        }
        let mut bytes = Vec::new();
        self.get_read(start)?.take(length).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// What the end of the file tells, before any of it is believed.
fn footer(file: &Whole) -> Result<Footer, ArrowError> {
    let short = || ArrowError::ParseError("expected a whole footer, found a part of one".to_owned());
    let last = file.bytes.checked_sub(1).ok_or_else(short)?;
    let length = u64::from(file.get_bytes(last, 1)?[0]);
    let start = last.checked_sub(length).ok_or_else(short)?;
    let bytes = file.get_bytes(start, length)?;
    let postscript = PostScript::decode(bytes).map_err(damaged)?;
    let length = postscript.footer_length();
    let bytes = file.get_bytes(start.checked_sub(length).ok_or_else(short)?, length)?;
    let mut footer = Vec::new();
    Decompressor::new(bytes, compression(&postscript)?, Vec::new()).read_to_end(&mut footer)?;
    let footer = Footer::decode(footer.as_slice()).map_err(damaged)?;
    match footer.encryption {
        None => Ok(footer),
        Some(_) => Err(unknown("encrypted columns")),
    }
}

/// How a file is compressed. Only the reader of a whole file tells: it is given one without rows.
fn compression(of: &PostScript) -> Result<Option<orc_rust::compression::Compression>, ArrowError> {
    let root = Type { kind: Some(Kind::Struct.into()), ..Type::default() };
    let footer = Footer { types: vec![root], ..Footer::default() }.encode_to_vec();
    // A block of these bytes as they are: its length, and that it is not compressed.
    let header = (footer.len() << 1 | 1).to_le_bytes();
    let kind = of.compression.unwrap_or_default();
    let mut bytes = match CompressionKind::try_from(kind).map_err(|_| unknown(format!("compression {kind} of ORC")))? {
        CompressionKind::None => Vec::new(),
        _ => header[..3].to_vec(),
    };
    bytes.extend(footer);
    let postscript = PostScript {
        footer_length: Some(bytes.len() as u64),
        metadata_length: Some(0),
        compression: of.compression,
        compression_block_size: of.compression_block_size,
        ..PostScript::default()
    };
    let postscript = postscript.encode_to_vec();
    bytes.extend(&postscript);
    bytes.push(u8::try_from(postscript.len()).map_err(|_| unknown("a postscript of more than 255 bytes"))?);
    Ok(read_metadata(&mut Bytes::from(bytes)).map_err(damaged)?.compression())
}

/// Reads the types of a file, which stand in the order of a walk through their tree.
struct Types<'a> {
    types: &'a [Type],
    /// The place of the type that comes next.
    next: usize,
    ids: Ids,
}

impl Types<'_> {
    /// The type that values are decoded to, and the one that they are to have.
    fn of(&mut self, place: usize, depth: usize) -> Result<(DataType, DataType), ArrowError> {
        if place != self.next || depth > MAX_DEPTH {
            return Err(unknown("types that are no tree"));
        }
        self.next += 1;
        let types = self.types;
        let ty = types.get(place).ok_or_else(|| unknown("a type that is not there"))?;
        if attribute(ty, "iceberg.struct-type").is_some() {
            return Err(unknown("variant"));
        }
        match kind(ty)? {
            Kind::Struct => self.record(ty, depth),
            Kind::List => match ty.subtypes.as_slice() {
                [element] => {
                    let id = self.id(*element);
                    let (decoded, target) = self.of(*element as usize, depth + 1)?;
                    let list = |ty, id| DataType::List(named("element", ty, true, id));
                    Ok((list(decoded, None), list(target, id)))
                }
                _ => Err(unknown("a list of no one type")),
            },
            Kind::Map => match ty.subtypes.as_slice() {
                [key, value] => {
                    let ids = (self.id(*key), self.id(*value));
                    let (key, target_key) = self.of(*key as usize, depth + 1)?;
                    let (value, target_value) = self.of(*value as usize, depth + 1)?;
                    let map = |key, value, ids: (Option<i32>, Option<i32>)| {
                        map_of(named("key", key, false, ids.0), named("value", value, true, ids.1))
                    };
                    Ok((map(key, value, (None, None)), map(target_key, target_value, ids)))
                }
                _ => Err(unknown("a map of no two types")),
            },
            _ => leaf(ty),
        }
    }

    fn record(&mut self, ty: &Type, depth: usize) -> Result<(DataType, DataType), ArrowError> {
        if ty.subtypes.len() != ty.field_names.len() {
            return Err(unknown("a struct whose fields have no names"));
        }
        let (mut decoded, mut target) = (Vec::new(), Vec::new());
        for (place, name) in ty.subtypes.iter().zip(&ty.field_names) {
            let id = self.id(*place);
            let (own, wanted) = self.of(*place as usize, depth + 1)?;
            decoded.push(named(name, own, true, None));
            target.push(self.ids.field(name, wanted, true, id));
        }
        Ok((DataType::Struct(Fields::from(decoded)), DataType::Struct(Fields::from(target))))
    }

    fn id(&self, place: u32) -> Option<i32> {
        attribute(self.types.get(place as usize)?, "iceberg.id")?.parse().ok()
    }
}

/// A type without fields.
fn leaf(ty: &Type) -> Result<(DataType, DataType), ArrowError> {
    let unit = match attribute(ty, "iceberg.timestamp-unit") {
        Some("NANOS") => TimeUnit::Nanosecond,
        _ => TimeUnit::Microsecond,
    };
    let kind = kind(ty)?;
    let decoded = match kind {
        Kind::Boolean => DataType::Boolean,
        Kind::Byte => DataType::Int8,
        Kind::Short => DataType::Int16,
        Kind::Int => DataType::Int32,
        Kind::Long => DataType::Int64,
        Kind::Float => DataType::Float32,
        Kind::Double => DataType::Float64,
        Kind::String | Kind::Varchar | Kind::Char => DataType::Utf8,
        Kind::Binary => DataType::Binary,
        Kind::Date => DataType::Date32,
        Kind::Timestamp => DataType::Timestamp(unit, None),
        Kind::TimestampInstant => DataType::Timestamp(unit, Some("UTC".into())),
        Kind::Decimal => match (u8::try_from(ty.precision()), i8::try_from(ty.scale())) {
            (Ok(precision @ 1..=38), Ok(scale)) => DataType::Decimal128(precision, scale),
            _ => return Err(unknown(format!("decimal({}, {})", ty.precision(), ty.scale()))),
        },
        other => return Err(unknown(other.as_str_name())),
    };
    let target = match (kind, attribute(ty, "iceberg.long-type"), attribute(ty, "iceberg.binary-type")) {
        (Kind::Long, Some("TIME"), _) => DataType::Time64(TimeUnit::Microsecond),
        (Kind::Binary, _, Some("UUID")) => DataType::FixedSizeBinary(16),
        (Kind::Binary, _, Some("FIXED")) => {
            let length = attribute(ty, "iceberg.length").and_then(|length| length.parse().ok());
            DataType::FixedSizeBinary(length.ok_or_else(|| unknown("fixed of no length"))?)
        }
        _ => decoded.clone(),
    };
    Ok((decoded, target))
}

/// Asked for so, as the file's own getter takes a kind that it does not know for the first.
fn kind(ty: &Type) -> Result<Kind, ArrowError> {
    let kind = ty.kind.unwrap_or_default();
    Kind::try_from(kind).map_err(|_| unknown(format!("type {kind} of ORC")))
}

fn attribute<'a>(ty: &'a Type, key: &str) -> Option<&'a str> {
    ty.attributes.iter().find(|pair| pair.key() == key).map(|pair| pair.value())
}
