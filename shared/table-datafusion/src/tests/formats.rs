//! Data and delete files in Avro and ORC: some that Spark wrote (see `files/README.md`), some made here.

use arrow::array::{BinaryArray, FixedSizeBinaryArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Fields};
use arrow_avro::compression::CompressionCodec;
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroOcfFormat;
use bytes::Bytes;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;
use iceberg::spec::{
    DEFAULT_SCHEMA_NAME_MAPPING, DataContentType, DataFile, DataFileBuilder, DataFileFormat, Schema, Struct,
};
use orc_rust::proto;
use prost::Message;
use serde_json::json;

use super::foreign::{commit, equality_deletes, location, position_deletes};
use super::rows::TestChange;
use super::*;
use shared::ErrorKind;

const SPARK: [(DataFileFormat, &[u8]); 2] = [
    (DataFileFormat::Avro, include_bytes!("files/spark.avro")),
    (DataFileFormat::Orc, include_bytes!("files/spark.orc")),
];

fn listed(table: &Table, file: &str, format: DataFileFormat, bytes: &Bytes, rows: u64) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location(table, file))
        .file_format(format)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(rows)
        .file_size_in_bytes(bytes.len() as u64)
        .build()
        .unwrap()
}

/// A table with this schema that holds one file.
async fn holding(schema: Schema, format: DataFileFormat, bytes: &Bytes, rows: u64) -> Table {
    let tables = Tables::new(ports());
    let table = tables.ensure(&name(), &[Column::new("id", ColumnType::BigInt)], &[]).await.unwrap();
    let table = super::columns::change(&table, |builder| builder.add_current_schema(schema).unwrap()).await;
    let file = listed(&table, &format!("data.{format}"), format, bytes, rows);
    commit(&table, vec![(file, bytes.clone(), None)]).await
}

fn spark_schema() -> Schema {
    serde_json::from_str(include_str!("files/spark.schema.json")).unwrap()
}

async fn spark(format: DataFileFormat, bytes: &'static [u8]) -> Table {
    holding(spark_schema(), format, &Bytes::from_static(bytes), 15).await
}

async fn error_of(table: &Table, query: &str) -> Error {
    let session = session(table, Read::Current).await;
    Error::from(session.sql(query).await.unwrap().collect().await.unwrap_err())
}

#[tokio::test]
async fn rows_that_spark_wrote_are_read_with_all_their_types() {
    for (format, bytes) in SPARK {
        let table = spark(format, bytes).await;
        let of = async |query: &str| sql(&table, Read::Current, query).await;
        let plain =
            of("SELECT id, b, i, f, d, dec9, dec38, dt, s, bin, old FROM t WHERE id IN (2, 30) ORDER BY id").await;
        let expected = [
            "2 true 2 0.5 -0.25 0.50 -2469135780246.5000000000 1969-12-22 s2 6232 20",
            "30 true 30 7.5 -3.75 7.50 -37037036703697.5000000000 1970-01-19 s30 623330 300",
        ];
        assert_eq!(plain, expected, "{format}");
        let times = of("SELECT ts, tz FROM t WHERE id < 5 ORDER BY id").await;
        let expected = [
            "1969-12-31T23:59:53.123456 1955-01-03T00:00:00.999999Z",
            "1969-12-31T23:59:56.123456 1955-01-05T00:00:00.999999Z",
        ];
        assert_eq!(times, expected, "{format}");
        let nested = of("SELECT tags, m, mi, st FROM t WHERE id IN (2, 10, 12) ORDER BY id").await;
        let expected = [
            "[x, , t2] {k: 2, n: } {2: {x: 1, y: y2}, -1: } {a: 2, inner: {z: z2, w: [{k: 7}, ]}}",
            "[x, , t10] {k: 10, n: } {10: {x: 1, y: y10}, -1: } ",
            " {k: 12, n: }  {a: 12, inner: {z: z12, w: [{k: 7}, ]}}",
        ];
        assert_eq!(nested, expected, "{format}");
        let counts = "SELECT count(*), count(tags), count(mi), count(st), sum(old), min(ts), max(f) FROM t";
        assert_eq!(of(counts).await, ["15 10 8 12 2400 1969-12-31T23:59:53.123456 7.5"], "{format}");
        assert_eq!(of("SELECT count(*) FROM t WHERE part = 'p0' AND st['inner']['z'] = 'z4'").await, ["1"], "{format}");
    }
}

#[tokio::test]
async fn columns_of_avro_and_orc_are_found_by_their_ids() {
    let renamed = include_str!("files/spark.schema.json")
        .replace(r#""name": "s","#, r#""name": "text","#)
        .replace(r#""name": "old","#, r#""name": "s","#)
        .replace(r#""name": "z","#, r#""name": "zz","#);
    let mut schema: serde_json::Value = serde_json::from_str(&renamed).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.retain(|field| field["name"] != "part");
    fields.push(json!({"id": 50, "name": "part", "required": false, "type": "int"}));
    fields.swap(2, 10);
    for field in fields {
        match field["name"].as_str().unwrap() {
            "i" => field["type"] = "long".into(),
            "f" => field["type"] = "double".into(),
            "dec9" => field["type"] = "decimal(20, 2)".into(),
            _ => {}
        }
    }
    for (format, bytes) in SPARK {
        let schema: Schema = serde_json::from_value(schema.clone()).unwrap();
        let table = holding(schema, format, &Bytes::from_static(bytes), 15).await;
        let rows = "SELECT text, s, st['inner']['zz'], part, i + 5000000000, f, dec9 FROM t WHERE id = 6";
        assert_eq!(sql(&table, Read::Current, rows).await, ["s6 60 z6  5000000006 1.5 1.50"], "{format}");
        assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE part IS NULL").await, ["15"], "{format}");
    }
}

async fn addresses(table: &Table, query: &str) -> Vec<String> {
    let session = session(table, Read::Current).await;
    session.register_table("a", table.reload().await.unwrap().addressed().await.unwrap()).unwrap();
    let batches = session.sql(query).await.unwrap().collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn deletes_of_every_kind_apply_to_avro_and_orc() {
    for (format, bytes) in SPARK {
        let table = spark(format, bytes).await;
        let before = table.current_snapshot().unwrap();
        let file = data_file(&table).await;
        let path = file.file_path().to_owned();
        let (places, place_bytes) = position_deletes(&table, "p.parquet", &file, &[(&path, 0), (&path, 14)]);
        let twelve: ArrayRef = Arc::new(Int64Array::from(vec![12, 14]));
        let (equal, equal_bytes) = equality_deletes(&table, "e.parquet", &file, vec![("id", 1, twelve)]);
        let table = commit(&table, vec![(places, place_bytes, None), (equal, equal_bytes, None)]).await;
        let left = ["4 1", "6 2", "8 3", "10 4", "16 7", "18 8", "20 9", "22 10", "24 11", "26 12", "28 13"];
        assert_eq!(addresses(&table, "SELECT id, _pos FROM a ORDER BY id").await, left, "{format}");
        let of_file = format!("SELECT count(*), min(id) FROM a WHERE _file = '{path}' AND id > 25");
        assert_eq!(addresses(&table, &of_file).await, ["2 26"], "{format}");
        assert_eq!(ids(&table, Read::Snapshot(before)).await.len(), 15, "{format}");
        // A row that goes has the others written anew, in Parquet.
        table.change_rows(&TestChange::delete("id < 20 OR old = 240"), None).await.unwrap();
        assert_eq!(ids(&table, Read::Current).await, ["20", "22", "26", "28"], "{format}");
        let file = data_file(&table.reload().await.unwrap()).await;
        assert_eq!(file.file_format(), DataFileFormat::Parquet, "{format}");
        let rows = "SELECT m, mi, tags, dec38 FROM t WHERE id = 22";
        let expected = ["{k: 22, n: } {22: {x: 1, y: y22}, -1: } [x, , t22] -27160493582711.5000000000"];
        assert_eq!(sql(&table, Read::Current, rows).await, expected, "{format}");
    }
}

async fn data_file(table: &Table) -> DataFile {
    foreign::data_files(table).await.first().unwrap().data().clone()
}

#[tokio::test]
async fn files_of_all_formats_are_read_together_and_compacted() {
    let tables = Tables::new(ports());
    let table = tables.ensure(&name(), &columns(), &[]).await.unwrap();
    let mut files = Vec::new();
    for (file, format, first) in
        [("a", DataFileFormat::Avro, 1), ("o", DataFileFormat::Orc, 11), ("p", DataFileFormat::Parquet, 21)]
    {
        let values = [(first, Some(file), 0), (first + 1, None, 1)];
        let bytes = match format {
            DataFileFormat::Avro => avro(&rows(&values), &flights_schema(), None),
            DataFileFormat::Orc => with_attributes(
                &orc(&rows(&values)),
                &[&[], &[("iceberg.id", "1")], &[("iceberg.id", "2")], &[("iceberg.id", "3")]],
            ),
            _ => foreign::parquet_with_ids(
                ["id", "carrier", "at"]
                    .iter()
                    .zip(1..)
                    .zip(rows(&values).columns())
                    .map(|((n, id), c)| (*n, id, c.clone()))
                    .collect(),
            ),
        };
        files.push((listed(&table, &format!("{file}.data"), format, &bytes, 2), bytes, None));
    }
    let table = commit(&table, files).await;
    let all = [
        "1 a 1970-01-01T01:00:00",
        "2  1970-01-02T01:00:00",
        "11 o 1970-01-01T01:00:00",
        "12  1970-01-02T01:00:00",
        "21 p 1970-01-01T01:00:00",
        "22  1970-01-02T01:00:00",
    ];
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier, at FROM t ORDER BY id").await, all);
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE carrier = 'o'").await, ["11"]);
    let done = table.rewrite(&Rewrite { min_input_files: Some(2), ..Rewrite::default() }).await.unwrap();
    assert_eq!(done.files_removed, 3, "{done:?}");
    assert_eq!(sql(&table, Read::Current, "SELECT id, carrier, at FROM t ORDER BY id").await, all);
    assert_eq!(data_file(&table.reload().await.unwrap()).await.file_format(), DataFileFormat::Parquet);
}

fn flights_schema() -> serde_json::Value {
    json!({"type": "record", "name": "table", "fields": [
        {"name": "id", "type": "long", "field-id": 1},
        {"name": "carrier", "type": ["null", "string"], "default": null, "field-id": 2},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": false}], "field-id": 3},
    ]})
}

/// An Avro file of these rows. The batch has Arrow's types for those of the schema.
fn avro(batch: &RecordBatch, schema: &serde_json::Value, codec: Option<CompressionCodec>) -> Bytes {
    let nullable = |json: &serde_json::Value| json["type"].is_array();
    let fields = batch
        .schema()
        .fields()
        .iter()
        .zip(schema["fields"].as_array().unwrap())
        .map(|(field, json)| Field::clone(field).with_nullable(nullable(json)))
        .collect::<Fields>();
    let fields: Fields = fields
        .iter()
        .map(|field| match field.data_type() {
            DataType::Timestamp(unit, _) => {
                Field::clone(field).with_data_type(DataType::Timestamp(*unit, Some("+00:00".into())))
            }
            _ => Field::clone(field),
        })
        .collect();
    let columns = batch.columns().iter().zip(&fields).map(|(c, f)| arrow::compute::cast(c, f.data_type()).unwrap());
    let arrow = Arc::new(arrow::datatypes::Schema::new(fields.clone()));
    let batch = RecordBatch::try_new(arrow.clone(), columns.collect()).unwrap();
    let builder = WriterBuilder::new(arrow.as_ref().clone()).with_compression(codec);
    let mut writer = builder.build::<_, AvroOcfFormat>(Vec::new()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    with_schema(&writer.into_inner(), schema)
}

/// A file that tells another schema: the writer leaves attributes out. Its length stands before it, in zigzag.
fn with_schema(avro: &[u8], schema: &serde_json::Value) -> Bytes {
    let key = b"avro.schema";
    let start = avro.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let digits = avro[start..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let zigzag = avro[start..start + digits].iter().rev().fold(0, |all, byte| all << 7 | usize::from(byte & 0x7f));
    let behind = start + digits + zigzag / 2;
    let schema = schema.to_string();
    let zigzag = schema.len() * 2;
    let length =
        [zigzag & 0x7f | 0x80, zigzag >> 7 & 0x7f | 0x80, zigzag >> 14].map(|byte| u8::try_from(byte).unwrap());
    [&avro[..start], &length, schema.as_bytes(), &avro[behind..]].concat().into()
}

fn orc(batch: &RecordBatch) -> Bytes {
    let mut bytes = Vec::new();
    let mut writer = orc_rust::ArrowWriterBuilder::new(&mut bytes, batch.schema()).try_build().unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// A file with another footer.
fn with_footer(orc: &Bytes, change: impl FnOnce(&mut proto::Footer)) -> Bytes {
    let end = orc.len() - 1;
    let start = end - usize::from(orc[end]);
    let mut postscript = proto::PostScript::decode(&orc[start..end]).unwrap();
    assert_eq!(postscript.compression(), proto::CompressionKind::None);
    let place = start - usize::try_from(postscript.footer_length()).unwrap();
    let mut footer = proto::Footer::decode(&orc[place..start]).unwrap();
    change(&mut footer);
    let footer = footer.encode_to_vec();
    postscript.footer_length = Some(footer.len() as u64);
    let postscript = postscript.encode_to_vec();
    [&orc[..place], &footer, &postscript, &[u8::try_from(postscript.len()).unwrap()]].concat().into()
}

/// A file whose types have these attributes.
fn with_attributes(orc: &Bytes, attributes: &[&[(&str, &str)]]) -> Bytes {
    with_footer(orc, |footer| {
        for (ty, attributes) in footer.types.iter_mut().zip(attributes) {
            let pair = |(key, value): &(&str, &str)| proto::StringPair {
                key: Some((*key).to_owned()),
                value: Some((*value).to_owned()),
            };
            ty.attributes = attributes.iter().map(pair).collect();
        }
    })
}

fn uuid() -> [u8; 16] {
    std::array::from_fn(|i| u8::try_from(i * 16).unwrap())
}

fn typed_schema() -> Schema {
    serde_json::from_value(json!({"type": "struct", "schema-id": 0, "fields": [
        {"id": 1, "name": "id", "required": true, "type": "long"},
        {"id": 2, "name": "u", "required": false, "type": "uuid"},
        {"id": 3, "name": "x", "required": false, "type": "fixed[3]"},
        {"id": 4, "name": "clock", "required": false, "type": "time"},
        {"id": 5, "name": "n", "required": false, "type": "decimal(10, 3)"},
        {"id": 6, "name": "local", "required": false, "type": "timestamp"},
        {"id": 7, "name": "zoned", "required": false, "type": "timestamptz"},
    ]}))
    .unwrap()
}

const TYPED: &str = "SELECT id, u, x, clock, n, local, zoned FROM t ORDER BY id";
const TYPED_ROWS: [&str; 2] = [
    "1 00102030405060708090a0b0c0d0e0f0 616263 00:00:01.000002 -1.234 1969-12-31T23:59:54.999999 1970-01-01T00:00:00.000001Z",
    "2      ",
];

fn typed_batch(is_orc: bool) -> RecordBatch {
    let micros = |value: i64| TimestampMicrosecondArray::from(vec![Some(value), None]);
    let binary = |value: &[u8]| -> ArrayRef {
        match is_orc {
            true => Arc::new(BinaryArray::from(vec![Some(value), None])),
            false => Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some(value), None].into_iter(),
                    i32::try_from(value.len()).unwrap(),
                )
                .unwrap(),
            ),
        }
    };
    let time = Int64Array::from(vec![Some(1_000_002), None]);
    let time: ArrayRef = match is_orc {
        true => Arc::new(time),
        false => Arc::new(time.reinterpret_cast::<arrow::datatypes::Time64MicrosecondType>()),
    };
    let decimal = arrow::array::Decimal128Array::from(vec![Some(-1234), None]).with_precision_and_scale(10, 3).unwrap();
    let number = (!is_orc).then(|| ("n", Arc::new(decimal) as ArrayRef));
    let columns = [
        ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("u", binary(&uuid())),
        ("x", binary(b"abc")),
        ("clock", time),
        ("local", Arc::new(micros(-5_000_001)) as ArrayRef),
        ("zoned", Arc::new(micros(1).with_timezone(if is_orc { "UTC" } else { "+00:00" }))),
    ];
    let (first, last) = columns.split_at(4);
    // The writer of ORC has no decimals; Spark's file has some.
    RecordBatch::try_from_iter(first.iter().cloned().chain(number).chain(last.iter().cloned())).unwrap()
}

#[tokio::test]
async fn types_that_only_attributes_tell_are_read() {
    let named =
        |name: &str, ty: serde_json::Value, id: i32| json!({"name": name, "type": ["null", ty], "field-id": id});
    let schema = json!({"type": "record", "name": "table", "namespace": "db", "fields": [
        {"name": "id", "type": "long", "field-id": 1},
        named("u", json!({"type": "fixed", "name": "uuid_fixed", "size": 16, "logicalType": "uuid"}), 2),
        named("x", json!({"type": "fixed", "name": "fixed_3", "size": 3}), 3),
        named("clock", json!({"type": "long", "logicalType": "time-micros"}), 4),
        named("n", json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 3}), 5),
        named("local", json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": false}), 6),
        named("zoned", json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": true}), 7),
    ]});
    for codec in
        [None, Some(CompressionCodec::Deflate), Some(CompressionCodec::Snappy), Some(CompressionCodec::ZStandard)]
    {
        let bytes = avro(&typed_batch(false), &schema, codec);
        let table = holding(typed_schema(), DataFileFormat::Avro, &bytes, 2).await;
        assert_eq!(sql(&table, Read::Current, TYPED).await, TYPED_ROWS, "{codec:?}");
    }
    let plain = orc(&typed_batch(true));
    let ids: Vec<String> = (1..=7).map(|id| id.to_string()).collect();
    let id = |place: usize| ("iceberg.id", ids[place].as_str());
    let attributes: [&[(&str, &str)]; 7] = [
        &[],
        &[id(0), ("iceberg.required", "true"), ("iceberg.long-type", "LONG")],
        &[id(1), ("iceberg.binary-type", "UUID")],
        &[id(2), ("iceberg.binary-type", "FIXED"), ("iceberg.length", "3")],
        &[id(3), ("iceberg.long-type", "TIME")],
        &[id(5)],
        &[id(6)],
    ];
    let table = holding(typed_schema(), DataFileFormat::Orc, &with_attributes(&plain, &attributes), 2).await;
    let expected = TYPED_ROWS.map(|row| row.replace("-1.234", ""));
    assert_eq!(sql(&table, Read::Current, TYPED).await, expected);
}

#[tokio::test]
async fn files_without_ids_are_read_by_the_name_mapping_or_refused() {
    let mut schema = flights_schema();
    schema["fields"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|field| drop(field.as_object_mut().unwrap().remove("field-id")));
    let batch = rows(&[(1, Some("UA"), 0)]);
    for (format, bytes) in [(DataFileFormat::Avro, avro(&batch, &schema, None)), (DataFileFormat::Orc, orc(&batch))] {
        let tables = Tables::new(ports());
        let table = tables.ensure(&name(), &columns(), &[]).await.unwrap();
        let table = commit(&table, vec![(listed(&table, "data", format, &bytes, 1), bytes, None)]).await;
        let error = error_of(&table, "SELECT id FROM t").await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.contains("name mapping") && text.contains(&location(&table, "data")), "{text}");
        let mapping = r#"[{"field-id": 1, "names": ["id"]}, {"field-id": 2, "names": ["carrier"]}, {"field-id": 3, "names": ["elsewhere"]}]"#;
        let properties = [(DEFAULT_SCHEMA_NAME_MAPPING.to_owned(), mapping.to_owned())];
        let table = super::columns::change(&table, |b| b.set_properties(properties.into()).unwrap()).await;
        assert_eq!(sql(&table, Read::Current, "SELECT id, carrier, at FROM t").await, ["1 UA "], "{format}");
    }
}

#[tokio::test]
async fn what_cant_be_read_is_refused_by_name() {
    let batch = rows(&[(1, Some("UA"), 0), (2, None, 1)]);
    let avro = avro(&batch, &flights_schema(), None);
    let plain = orc(&batch);
    let ids: [&[(&str, &str)]; 4] = [&[], &[("iceberg.id", "1")], &[("iceberg.id", "2")], &[("iceberg.id", "3")]];
    let orc = with_attributes(&plain, &ids);
    let mut partial = flights_schema();
    partial["fields"][1].as_object_mut().unwrap().remove("field-id");
    let mut broken = avro.to_vec();
    let places = broken.len() - 40..broken.len() - 20;
    broken[places].fill(0xff);
    let text = |bytes: &[u8], from: &str, to: &str| -> Bytes {
        let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..place], to.as_bytes(), &bytes[place + from.len()..]].concat().into()
    };
    let cases: Vec<(&str, DataFileFormat, Bytes, u64)> = vec![
        ("nothing", DataFileFormat::Avro, Bytes::new(), 2),
        ("nothing", DataFileFormat::Orc, Bytes::new(), 2),
        ("another format", DataFileFormat::Avro, orc.clone(), 2),
        ("another format", DataFileFormat::Orc, avro.clone(), 2),
        ("cut short", DataFileFormat::Avro, avro.slice(..avro.len() - 5), 2),
        ("cut before its rows", DataFileFormat::Avro, avro.slice(..avro.len() - 60), 2),
        ("cut short", DataFileFormat::Orc, orc.slice(..orc.len() - 5), 2),
        ("too few rows", DataFileFormat::Avro, avro.clone(), 3),
        ("too many rows", DataFileFormat::Avro, avro.clone(), 1),
        ("too few rows", DataFileFormat::Orc, orc.clone(), 3),
        ("too many rows", DataFileFormat::Orc, orc.clone(), 1),
        ("broken values", DataFileFormat::Avro, broken.into(), 2),
        (
            "an unknown codec",
            DataFileFormat::Avro,
            text(&self::avro(&batch, &flights_schema(), Some(CompressionCodec::Deflate)), "deflate", "deflatx"),
            2,
        ),
        ("an id missing", DataFileFormat::Avro, self::avro(&batch, &partial, None), 2),
        ("an id missing", DataFileFormat::Orc, with_attributes(&plain, &ids[..3]), 2),
        ("types in a circle", DataFileFormat::Orc, with_footer(&orc, |footer| footer.types[0].subtypes[1] = 0), 2),
        (
            "a type that is not there",
            DataFileFormat::Orc,
            with_footer(&orc, |footer| footer.types[0].subtypes[2] = 9),
            2,
        ),
        (
            "stripes elsewhere",
            DataFileFormat::Orc,
            with_footer(&orc, |footer| footer.stripes[0].offset = Some(1 << 60)),
            2,
        ),
        (
            "huge stripes",
            DataFileFormat::Orc,
            with_footer(&orc, |footer| footer.stripes[0].data_length = Some(1 << 30)),
            2,
        ),
    ];
    for (what, format, bytes, rows) in cases {
        let tables = Tables::new(ports());
        let table = tables.ensure(&name(), &columns(), &[]).await.unwrap();
        let table = commit(&table, vec![(listed(&table, "data", format, &bytes, rows), bytes, None)]).await;
        let error = error_of(&table, "SELECT * FROM t").await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what} of {format}: {error}");
        assert!(error.to_string().contains(&location(&table, "data")), "{what} of {format}: {error}");
        assert_eq!(transcode::Transcoder::of(table.io()).kept(), 0, "{what} of {format}");
    }
}

#[tokio::test]
async fn a_union_and_an_enumeration_are_refused_by_name() {
    let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let schema = |ty| json!({"type": "record", "name": "table", "fields": [{"name": "id", "type": ty, "field-id": 1}]});
    let whole = avro(&batch, &schema(json!("long")), None);
    for (ty, named) in [
        (json!(["long", "string"]), "union"),
        (json!({"type": "enum", "name": "e", "symbols": ["a", "b"]}), "enum"),
        (json!({"type": "fixed", "name": "d", "size": 12, "logicalType": "duration"}), "duration"),
    ] {
        let tables = Tables::new(ports());
        let table = tables.ensure(&name(), &[Column::new("id", ColumnType::BigInt)], &[]).await.unwrap();
        let bytes = with_schema(&whole, &schema(ty));
        let table = commit(&table, vec![(listed(&table, "data", DataFileFormat::Avro, &bytes, 1), bytes, None)]).await;
        let error = error_of(&table, "SELECT * FROM t").await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains(&location(&table, "data")), "{error}");
    }
}

#[tokio::test]
async fn delete_files_may_be_avro_or_orc_themselves() {
    let tables = Tables::new(ports());
    for format in [DataFileFormat::Avro, DataFileFormat::Orc] {
        let table = tables.ensure(&TableName::new("nyc", format.to_string()).unwrap(), &columns(), &[]).await.unwrap();
        append(&table, rows(&[(1, Some("UA"), 0), (2, None, 0), (3, Some("B6"), 0), (4, None, 0)])).await;
        let table = table.reload().await.unwrap();
        let data = data_file(&table).await;
        let path = data.file_path().to_owned();
        let places = RecordBatch::try_from_iter([
            ("file_path", Arc::new(StringArray::from(vec![path.as_str()])) as ArrayRef),
            ("pos", Arc::new(Int64Array::from(vec![1]))),
        ]);
        let equal = RecordBatch::try_from_iter([("carrier", Arc::new(StringArray::from(vec!["B6"])) as ArrayRef)]);
        let file = |name: &str, batch: RecordBatch, fields: serde_json::Value, ids: &[&str]| {
            let bytes = match format {
                DataFileFormat::Avro => {
                    avro(&batch, &json!({"type": "record", "name": "table", "fields": fields}), None)
                }
                _ => {
                    let pairs: Vec<_> = ids.iter().map(|id| [("iceberg.id", *id)]).collect();
                    let attributes: Vec<&[(&str, &str)]> =
                        std::iter::once(&[][..]).chain(pairs.iter().map(|p| &p[..])).collect();
                    with_attributes(&orc(&batch), &attributes)
                }
            };
            let mut entry = DataFileBuilder::default();
            entry
                .file_path(location(&table, name))
                .file_format(format)
                .partition(Struct::empty())
                .partition_spec_id(0)
                .record_count(batch.num_rows() as u64)
                .file_size_in_bytes(bytes.len() as u64);
            (entry, bytes)
        };
        let fields = json!([{"name": "file_path", "type": "string", "field-id": 2_147_483_546}, {"name": "pos", "type": "long", "field-id": 2_147_483_545}]);
        let (mut by_place, place_bytes) = file("p", places.unwrap(), fields, &["2147483546", "2147483545"]);
        let (mut by_value, value_bytes) =
            file("e", equal.unwrap(), json!([{"name": "carrier", "type": ["null", "string"], "field-id": 2}]), &["2"]);
        let by_place = by_place.content(DataContentType::PositionDeletes).build().unwrap();
        let by_value = by_value.content(DataContentType::EqualityDeletes).equality_ids(Some(vec![2])).build().unwrap();
        let table = commit(&table, vec![(by_place, place_bytes, None), (by_value, value_bytes, None)]).await;
        assert_eq!(ids(&table, Read::Current).await, ["1", "4"], "{format}");
    }
}

#[tokio::test]
async fn a_file_is_transcoded_once_and_within_the_memory_of_queries() {
    let (format, bytes) = SPARK[0];
    let table = spark(format, bytes).await;
    assert_eq!(ids(&table, Read::Current).await.len(), 15);
    assert_eq!(transcode::Transcoder::of(table.io()).kept(), 1);
    let file = data_file(&table).await;
    table.io().discard([file.file_path().to_owned()]).await;
    assert_eq!(ids(&table, Read::Current).await.len(), 15);
    let again = spark(format, bytes).await;
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(1 << 10))).build().unwrap();
    let session = SessionContext::new_with_config_rt(SessionConfig::new(), Arc::new(runtime));
    let root = again.ports().keys.root();
    session.register_object_store(root, again.ports().storage.resolve(root).unwrap().0);
    session.register_table("t", again.provider(Read::Current).await.unwrap()).unwrap();
    let error = session.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap_err();
    assert_eq!(Error::from(error).kind(), ErrorKind::Limit);
}
