//! Column types in the words of Glue and Athena DDL (`bigint`, `decimal(10,2)`, `array<struct<a:int>>`), and the Arrow
//! types that hold them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A column: its name, its type, whether a value must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Lowercase letters, digits and underscores.
    pub name: String,
    /// A Glue/Athena type, e.g. `bigint`, `timestamp`, `decimal(10,2)`, `array<string>`.
    #[serde(rename = "type")]
    pub ty: ColumnType,
    /// Refuse records without a value (default: false).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What the column means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Column {
    /// A column that may be null and has no comment.
    pub fn new(name: impl Into<String>, ty: ColumnType) -> Self {
        Self { name: name.into(), ty, required: false, comment: None }
    }

    /// The Arrow field that holds this column.
    pub fn to_arrow(&self) -> Field {
        Field::new(&self.name, self.ty.to_arrow(), !self.required)
    }
}

/// The Arrow schema of some columns.
pub fn arrow_schema(columns: &[Column]) -> Schema {
    Schema::new(columns.iter().map(Column::to_arrow).collect::<Vec<_>>())
}

/// The columns of an Arrow schema.
///
/// # Errors
/// `Invalid` when a field has a type that no column type stands for.
pub fn columns_of(schema: &Schema) -> Result<Vec<Column>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let ty = ColumnType::from_arrow(field.data_type())
                .map_err(|e| e.context(format!("column `{}`", field.name())))?;
            Ok(Column { name: field.name().clone(), ty, required: !field.is_nullable(), comment: None })
        })
        .collect()
}

/// A column's type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ColumnType {
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Float,
    Double,
    /// Precision 1–38, scale 0–precision.
    Decimal(u8, i8),
    String,
    Binary,
    Date,
    /// Microseconds, without a zone.
    Timestamp,
    /// Microseconds since the epoch, UTC; `timestamp with time zone` in SQL.
    TimestampTz,
    /// Nanoseconds, without a zone; only in tables of Iceberg's format v3.
    TimestampNs,
    /// Nanoseconds since the epoch, UTC; only in tables of Iceberg's format v3.
    TimestampTzNs,
    /// Microseconds since midnight.
    Time,
    /// 16 bytes.
    Uuid,
    Array(Box<ColumnType>),
    Map(Box<ColumnType>, Box<ColumnType>),
    Struct(Vec<(String, ColumnType)>),
}

impl ColumnType {
    /// The Arrow type that holds it. Everything inside a nested type may be null, map keys apart.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Self::String => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Self::TimestampTzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Array(item) => DataType::List(Arc::new(Field::new("element", item.to_arrow(), true))),
            Self::Map(key, value) => DataType::Map(map_entries(key, value), false),
            Self::Struct(fields) => DataType::Struct(
                fields.iter().map(|(name, ty)| Field::new(name, ty.to_arrow(), true)).collect::<Fields>(),
            ),
        }
    }

    /// The column type that holds values of an Arrow type; unsigned and half-width types widen. Timestamps become those that
    /// every table can have, which is microseconds.
    ///
    /// # Errors
    /// `Invalid` for types that tables can't store (intervals, unions, durations).
    pub fn from_arrow(ty: &DataType) -> Result<Self> {
        Ok(match ty {
            DataType::Boolean => Self::Boolean,
            DataType::Int8 => Self::TinyInt,
            DataType::Int16 | DataType::UInt8 => Self::SmallInt,
            DataType::Int32 | DataType::UInt16 => Self::Int,
            DataType::Int64 | DataType::UInt32 => Self::BigInt,
            DataType::UInt64 => Self::Decimal(20, 0),
            DataType::Float16 | DataType::Float32 => Self::Float,
            DataType::Float64 => Self::Double,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => Self::Decimal(*p, *s),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Self::String,
            DataType::FixedSizeBinary(16) => Self::Uuid,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary
            }
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::TimestampTz,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Dictionary(_, value) => Self::from_arrow(value)?,
            DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) => {
                Self::Array(Box::new(Self::from_arrow(f.data_type())?))
            }
            DataType::Map(entries, _) => map_from_arrow(entries)?,
            DataType::Struct(fields) => Self::Struct(
                fields
                    .iter()
                    .map(|f| Ok((f.name().clone(), Self::from_arrow(f.data_type())?)))
                    .collect::<Result<_>>()?,
            ),
            other => return Err(Error::invalid(format!("expected a type that tables can store, found `{other}`"))),
        })
    }
}

fn map_entries(key: &ColumnType, value: &ColumnType) -> FieldRef {
    let fields = vec![Field::new("key", key.to_arrow(), false), Field::new("value", value.to_arrow(), true)];
    Arc::new(Field::new("entries", DataType::Struct(fields.into()), false))
}

fn map_from_arrow(entries: &FieldRef) -> Result<ColumnType> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok(ColumnType::Map(
            Box::new(ColumnType::from_arrow(fields[0].data_type())?),
            Box::new(ColumnType::from_arrow(fields[1].data_type())?),
        )),
        other => Err(Error::invalid(format!("expected map entries of a key and a value, found `{other}`"))),
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::TinyInt => f.write_str("tinyint"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Self::String => f.write_str("string"),
            Self::Binary => f.write_str("binary"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::TimestampNs => f.write_str("timestamp_ns"),
            Self::TimestampTzNs => f.write_str("timestamptz_ns"),
            Self::Time => f.write_str("time"),
            Self::Uuid => f.write_str("uuid"),
            Self::Array(item) => write!(f, "array<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key},{value}>"),
            Self::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, (name, ty)) in fields.iter().enumerate() {
                    write!(f, "{}{}:{ty}", if i == 0 { "" } else { "," }, field_name(name))?;
                }
                f.write_str(">")
            }
        }
    }
}

/// A struct field's name as a type's text holds it: between backticks when it is more than letters, digits and underscores.
fn field_name(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.chars().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(format!("`{}`", name.replace('`', "``")))
}

/// Whether a field's name may hold the character without backticks.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl schemars::JsonSchema for ColumnType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A Glue or Athena type.",
            "pattern": "^ *(boolean|bool|tinyint|smallint|int|integer|bigint|long|float|real|double|decimal(\\(.+\\))?|string|varchar(\\(.+\\))?|char(\\(.+\\))?|binary|varbinary|date|time|timestamp|timestamptz|timestamp_ns|timestamptz_ns|uuid|array ?<.+>|map ?<.+,.+>|struct ?<.+:.+>) *$",
            "examples": ["string", "bigint", "double", "decimal(10,2)", "boolean", "date", "timestamp", "array<string>", "map<string,int>", "struct<city:string,zip:int>"],
        })
    }
}

impl From<ColumnType> for String {
    fn from(ty: ColumnType) -> Self {
        ty.to_string()
    }
}

impl TryFrom<String> for ColumnType {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for ColumnType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, rest: text };
        let ty = parser.column_type()?;
        if parser.rest.trim().is_empty() { Ok(ty) } else { Err(parser.unexpected("the end of the type")) }
    }
}

/// A recursive-descent parser of type texts.
struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn column_type(&mut self) -> Result<ColumnType> {
        let word = self.word().to_ascii_lowercase();
        Ok(match word.as_str() {
            "boolean" | "bool" => ColumnType::Boolean,
            "tinyint" => ColumnType::TinyInt,
            "smallint" => ColumnType::SmallInt,
            "int" | "integer" => ColumnType::Int,
            "bigint" | "long" => ColumnType::BigInt,
            "float" | "real" => ColumnType::Float,
            "double" => ColumnType::Double,
            "decimal" => self.decimal()?,
            "string" => ColumnType::String,
            "varchar" | "char" => self.sized_string()?,
            "binary" | "varbinary" => ColumnType::Binary,
            "date" => ColumnType::Date,
            "timestamp" => ColumnType::Timestamp,
            "timestamptz" => ColumnType::TimestampTz,
            "timestamp_ns" => ColumnType::TimestampNs,
            "timestamptz_ns" => ColumnType::TimestampTzNs,
            "time" => ColumnType::Time,
            "uuid" => ColumnType::Uuid,
            "array" => {
                self.expect("<")?;
                let item = self.column_type()?;
                self.expect(">")?;
                ColumnType::Array(Box::new(item))
            }
            "map" => {
                self.expect("<")?;
                let key = self.column_type()?;
                self.expect(",")?;
                let value = self.column_type()?;
                self.expect(">")?;
                ColumnType::Map(Box::new(key), Box::new(value))
            }
            "struct" => self.fields()?,
            _ => {
                return Err(Error::invalid(format!(
                    "expected a column type (boolean, tinyint, smallint, int, bigint, float, double, decimal(p,s), string, binary, \
                     date, time, timestamp, timestamptz, timestamp_ns, timestamptz_ns, uuid, array<…>, map<…,…>, struct<name:type,…>), found `{}`",
                    self.text
                )));
            }
        })
    }

    fn decimal(&mut self) -> Result<ColumnType> {
        if !self.eat("(") {
            return Ok(ColumnType::Decimal(10, 0));
        }
        let precision: u8 = self.number()?;
        let scale: i8 = if self.eat(",") { self.number()? } else { 0 };
        self.expect(")")?;
        if !(1..=38).contains(&precision) || !(0..=38).contains(&scale) || scale.unsigned_abs() > precision {
            return Err(Error::invalid(format!(
                "expected decimal(precision 1 to 38, scale 0 to precision), found `{}`",
                self.text
            )));
        }
        Ok(ColumnType::Decimal(precision, scale))
    }

    fn sized_string(&mut self) -> Result<ColumnType> {
        if self.eat("(") {
            let _length: u32 = self.number()?;
            self.expect(")")?;
        }
        Ok(ColumnType::String)
    }

    fn fields(&mut self) -> Result<ColumnType> {
        self.expect("<")?;
        let mut fields = Vec::new();
        // Written by others: no engine can make such a value of its own, but a table that has one can be described and dropped.
        if self.eat(">") {
            return Ok(ColumnType::Struct(fields));
        }
        loop {
            let name = self.field_name()?;
            self.expect(":")?;
            fields.push((name, self.column_type()?));
            if !self.eat(",") {
                break;
            }
        }
        self.expect(">")?;
        Ok(ColumnType::Struct(fields))
    }

    /// A name between backticks or double quotes (doubled inside), or all up to the colon, as Hive and Glue's crawlers write
    /// names that no parser of theirs takes back.
    fn field_name(&mut self) -> Result<String> {
        let start = self.rest.trim_start();
        let Some(quote) = start.chars().next().filter(|c| matches!(c, '`' | '"')) else {
            let end = start.find([':', '<', '>', ',']).unwrap_or(start.len());
            let (name, rest) = start.split_at(end);
            self.rest = rest;
            let name = name.trim_end();
            return if name.is_empty() { Err(self.unexpected("a field name")) } else { Ok(name.to_owned()) };
        };
        let mut name = String::new();
        let mut chars = start.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c != quote {
                name.push(c);
            } else if chars.next_if(|(_, next)| *next == quote).is_some() {
                name.push(quote);
            } else {
                self.rest = &start[at + quote.len_utf8()..];
                return Ok(name);
            }
        }
        self.rest = "";
        Err(self.unexpected(&format!("a closing `{quote}`")))
    }

    fn word(&mut self) -> &str {
        let start = self.rest.trim_start();
        let end = start.find(|c: char| !is_plain(c)).unwrap_or(start.len());
        let (word, rest) = start.split_at(end);
        self.rest = rest;
        word
    }

    fn number<T: FromStr>(&mut self) -> Result<T> {
        let text = self.text;
        self.word().parse().map_err(|_| Error::invalid(format!("expected a number in the type `{text}`")))
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    fn unexpected(&self, expected: &str) -> Error {
        let found = if self.rest.is_empty() { "the end" } else { self.rest };
        Error::invalid(format!("expected {expected} in the type `{}`, found `{found}`", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_text_and_arrow() {
        for text in [
            "boolean",
            "tinyint",
            "smallint",
            "int",
            "bigint",
            "float",
            "double",
            "decimal(10,2)",
            "string",
            "binary",
            "date",
            "timestamp",
            "timestamptz",
            "time",
            "uuid",
            "array<int>",
            "map<string,double>",
            "struct<a:int,b:array<struct<c:string>>>",
            "struct<`http-method`:string,`user.id`:int,``:int,`a``b:c,d>`:array<struct<`\"`:int>>>",
            "struct<年齢:int>",
            "struct<>",
        ] {
            let ty: ColumnType = text.parse().unwrap();
            assert_eq!(ty.to_string(), text);
            assert_eq!(ColumnType::from_arrow(&ty.to_arrow()).unwrap(), ty);
        }
    }

    #[test]
    fn nanoseconds_become_microseconds_where_a_table_does_not_say_otherwise() {
        for (text, becomes) in [("timestamp_ns", "timestamp"), ("timestamptz_ns", "timestamptz")] {
            let ty: ColumnType = text.parse().unwrap();
            assert_eq!(ty.to_string(), text);
            assert_eq!(ColumnType::from_arrow(&ty.to_arrow()).unwrap().to_string(), becomes);
        }
    }

    #[test]
    fn athena_spellings_are_understood() {
        assert_eq!("varchar(20)".parse::<ColumnType>().unwrap(), ColumnType::String);
        assert_eq!("INTEGER".parse::<ColumnType>().unwrap(), ColumnType::Int);
        assert_eq!(" array < int > ".parse::<ColumnType>().unwrap().to_string(), "array<int>");
    }

    #[test]
    fn field_names_that_hive_writes_without_quotes_are_understood() {
        for (text, name) in [
            ("struct<a-b:int>", "a-b"),
            ("struct< user.id : int>", "user.id"),
            ("struct<two words:int>", "two words"),
            ("struct<\"x-y\":int>", "x-y"),
        ] {
            let ty: ColumnType = text.parse().unwrap();
            assert_eq!(ty, ColumnType::Struct(vec![(name.to_owned(), ColumnType::Int)]), "{text}");
        }
    }

    #[test]
    fn a_type_that_is_none_is_refused_with_its_text() {
        for bad in [
            "money",
            "decimal(50,2)",
            "decimal(5,6)",
            "array<int",
            "struct<:int>",
            "struct<`a:int>",
            "struct<a>",
            "map<int>",
            "int int",
        ] {
            let error = bad.parse::<ColumnType>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }
}
