//! Columns of files that others wrote, or that are older than the table's schema.

use arrow::array::{BinaryArray, Int32Array, ListArray, MapArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, FormatVersion, ListType, Literal, MapType, NestedField,
    PrimitiveType, Schema, Struct, StructType, TableMetadataBuilder, Type,
};

use super::*;

fn optional(id: i32, name: &str, ty: Type) -> Arc<NestedField> {
    Arc::new(NestedField::optional(id, name, ty))
}

fn primitive(ty: PrimitiveType) -> Type {
    Type::Primitive(ty)
}

pub(super) async fn change(table: &Table, with: impl FnOnce(TableMetadataBuilder) -> TableMetadataBuilder) -> Table {
    let table = table.reload().await.unwrap();
    let built = with(table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned())))
        .build()
        .unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    table.swap(&metadata, location).await.unwrap()
}

async fn evolved(table: &Table, fields: Vec<Arc<NestedField>>) -> Table {
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    change(table, |builder| builder.add_current_schema(schema).unwrap()).await
}

#[tokio::test]
async fn nested_fields_are_found_by_id_at_any_depth() {
    let ports = ports();
    let columns: Vec<_> = [
        ("s", "struct<a:int,b:string,c:int>"),
        ("l", "array<struct<x:int,y:string>>"),
        ("m", "map<string,struct<p:int,q:int>>"),
    ]
    .map(|(name, ty)| Column::new(name, ty.parse().unwrap()))
    .into();
    let table = Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await.unwrap();
    let values = "SELECT named_struct('a', 1, 'b', 'one', 'c', 7) AS s, \
                  [named_struct('x', 2, 'y', 'two'), NULL] AS l, map(['k'], [named_struct('p', 3, 'q', 4)]) AS m \
                  UNION ALL SELECT NULL, NULL, NULL";
    let rows = SessionContext::new().sql(values).await.unwrap().execute_stream().await.unwrap();
    table.commit(Change::Append, rows, None).await.unwrap();
    let table = table.reload().await.unwrap();
    let id = |path: &str| table.metadata().current_schema().field_id_by_name(path).unwrap();
    let (int, long, text) =
        (primitive(PrimitiveType::Int), primitive(PrimitiveType::Long), primitive(PrimitiveType::String));
    // Fields are renamed, moved, widened, dropped and added inside of structs, lists and maps.
    let s = StructType::new(vec![
        optional(id("s.b"), "c", text.clone()),
        optional(50, "b", int.clone()),
        optional(id("s.a"), "a2", long.clone()),
    ]);
    let x =
        StructType::new(vec![optional(id("l.element.y"), "x", text), optional(id("l.element.x"), "z", long.clone())]);
    let p = StructType::new(vec![optional(id("m.value.q"), "p", int)]);
    let l = ListType::new(NestedField::list_element(id("l.element"), Type::Struct(x), false).into());
    let m = MapType::optional(id("m.key"), primitive(PrimitiveType::String), id("m.value"), Type::Struct(p));
    let fields = vec![
        optional(id("m"), "maps", Type::Map(m)),
        optional(id("s"), "s", Type::Struct(s)),
        optional(id("l"), "l", Type::List(l)),
    ];
    let table = evolved(&table, fields).await;
    let row =
        "SELECT s['c'], s['b'], s['a2'], l[1]['x'], l[1]['z'], l[2]['z'], map_values(maps)[1]['p'] FROM t ORDER BY 1";
    assert_eq!(sql(&table, Read::Current, row).await, ["one  1 two 2  4", "      "]);
    assert_eq!(sql(&table, Read::Current, "SELECT s FROM t WHERE s['a2'] = 1").await, ["{c: one, b: , a2: 1}"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE s IS NULL AND l IS NULL").await, ["1"]);
    let new = "SELECT named_struct('c', 'new', 'b', 9, 'a2', 1099511627776) AS s";
    let rows = SessionContext::new().sql(new).await.unwrap().execute_stream().await.unwrap();
    table.commit(Change::Append, rows, None).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT sum(s['a2']), sum(s['b']) FROM t").await, ["1099511627777 9"]);
}

#[tokio::test]
async fn files_without_ids_are_read_by_the_name_mapping() {
    let ports = ports();
    let columns: Vec<_> =
        [("id", "bigint"), ("s", "struct<a:int>"), ("l", "array<struct<x:int>>"), ("m", "map<string,int>")]
            .map(|(name, ty)| Column::new(name, ty.parse().unwrap()))
            .into();
    let table = Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await.unwrap();
    let a: Fields = vec![Field::new("old_a", DataType::Int32, true)].into();
    let x: Fields = vec![Field::new("old_x", DataType::Int32, true)].into();
    let structs = |fields: &Fields, value: i32| {
        StructArray::new(fields.clone(), vec![Arc::new(Int32Array::from(vec![value]))], None)
    };
    let item = Arc::new(Field::new("item", DataType::Struct(x.clone()), true));
    let list = ListArray::new(item, OffsetBuffer::from_lengths([1]), Arc::new(structs(&x, 3)), None);
    let pair: Fields =
        vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int32, true)].into();
    let pairs = StructArray::new(
        pair.clone(),
        vec![Arc::new(StringArray::from(vec!["k"])), Arc::new(Int32Array::from(vec![4]))],
        None,
    );
    let entries = Arc::new(Field::new("entries", DataType::Struct(pair), false));
    let map = MapArray::new(entries, OffsetBuffer::from_lengths([1]), pairs, None, false);
    let file = RecordBatch::try_from_iter([
        ("m", Arc::new(map) as ArrayRef),
        ("unrelated", Arc::new(BinaryArray::from_vec(vec![b"x"]))),
        ("Identifier", Arc::new(Int32Array::from(vec![7]))),
        ("s", Arc::new(structs(&a, 2))),
        ("l", Arc::new(list)),
    ])
    .unwrap();
    let table = foreign::add_file(&table, "hive.parquet", foreign::parquet(&file, 10)).await;
    let id = |path: &str| table.metadata().current_schema().field_id_by_name(path).unwrap();
    let mapping = serde_json::json!([
        {"field-id": id("id"), "names": ["id", "Identifier"]},
        {"field-id": id("s"), "names": ["s"], "fields": [{"field-id": id("s.a"), "names": ["a", "old_a"]}]},
        {"field-id": id("l"), "names": ["l"], "fields": [
            {"field-id": id("l.element"), "names": ["element"], "fields": [{"field-id": id("l.element.x"), "names": ["old_x"]}]}]},
        {"field-id": id("m"), "names": ["m"], "fields": [
            {"field-id": id("m.key"), "names": ["key"]}, {"field-id": id("m.value"), "names": ["value"]}]},
    ]);
    let row = "SELECT id, s['a'], l[1]['x'], map_values(m)[1] FROM t";
    // Without a mapping only equal names are found.
    assert_eq!(sql(&table, Read::Current, row).await, ["   4"]);
    let set = |json: String| [("schema.name-mapping.default".to_owned(), json)].into();
    let table = change(&table, |builder| builder.set_properties(set(mapping.to_string())).unwrap()).await;
    assert_eq!(sql(&table, Read::Current, row).await, ["7 2 3 4"]);
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE id = 7").await, ["7"]);
    let table = change(&table, |builder| builder.set_properties(set("{".into())).unwrap()).await;
    let error = table.provider(Read::Current).await.unwrap_err();
    assert!(error.to_string().contains("`schema.name-mapping.default`"), "{error}");
}

#[tokio::test]
async fn columns_that_came_later_hold_their_default_in_old_rows() {
    let table = table(&ports(), &[]).await;
    append(&table, rows(&[(1, None, 0)])).await;
    let table = change(&table.reload().await.unwrap(), |b| b.upgrade_format_version(FormatVersion::V3).unwrap()).await;
    let schema = table.metadata().current_schema().clone();
    let mut fields = schema.as_struct().fields().to_vec();
    let with_default = |id, name: &str, ty, default| {
        Arc::new(NestedField::required(id, name, Type::Primitive(ty)).with_initial_default(default))
    };
    fields.push(with_default(10, "state", PrimitiveType::String, Literal::string("new")));
    fields.push(with_default(11, "since", PrimitiveType::Date, Literal::date(3)));
    let table = evolved(&table, fields).await;
    assert_eq!(sql(&table, Read::Current, "SELECT id, state, since FROM t").await, ["1 new 1970-01-04"]);
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE state = 'new'").await, ["1"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE state IS NULL").await, ["0"]);
}

#[tokio::test]
async fn values_of_the_partition_stand_for_columns_that_files_lack() {
    let columns = [Column::new("id", ColumnType::BigInt), Column::new("region", ColumnType::String)];
    let table = Tables::new(ports()).ensure(&name(), &columns, &["region".parse().unwrap()]).await.unwrap();
    let file = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
    let bytes = foreign::parquet(&file, 10);
    let mut files = Vec::new();
    for region in [Some("eu"), Some("us"), None] {
        let path = foreign::location(&table, &format!("{region:?}.parquet"));
        let entry = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(path)
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::from_iter([region.map(Literal::string)]))
            .partition_spec_id(0)
            .record_count(2)
            .file_size_in_bytes(bytes.len() as u64)
            .build();
        files.push((entry.unwrap(), bytes.clone(), None));
    }
    let table = foreign::commit(&table, files).await;
    let all = "SELECT region, sum(id) FROM t GROUP BY region ORDER BY region NULLS LAST";
    assert_eq!(sql(&table, Read::Current, all).await, ["eu 3", "us 3", " 3"]);
    let plan = sql(&table, Read::Current, "EXPLAIN SELECT id FROM t WHERE region = 'us'").await.join("\n");
    assert!(plan.contains("files=1 of 3"), "{plan}");
    assert_eq!(sql(&table, Read::Current, "SELECT id FROM t WHERE region = 'us' AND id > 1").await, ["2"]);
    let session = session(&table, Read::Current).await;
    session.register_table("a", table.addressed().await.unwrap()).unwrap();
    let batches = session.sql("SELECT region FROM a WHERE _pos = 1 AND region = 'eu'").await.unwrap();
    assert!(pretty_format_batches(&batches.collect().await.unwrap()).unwrap().to_string().contains("| eu "));
}
