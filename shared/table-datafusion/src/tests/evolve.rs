use arrow::array::{Decimal128Array, Float32Array, Int32Array};
use iceberg::spec::{NestedField, Schema, TableMetadataBuilder};

use super::*;
use shared::ErrorKind;

async fn ensure(ports: &Ports, columns: &[(&str, &str)]) -> Result<Table> {
    let columns: Vec<_> = columns.iter().map(|(name, ty)| Column::new(*name, ty.parse().unwrap())).collect();
    Tables::new(ports.clone()).ensure(&name(), &columns, &[]).await
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn columns_are_added_and_widened_and_old_rows_stay() {
    let ports = ports();
    let table = ensure(&ports, &[("a", "int"), ("b", "float"), ("c", "decimal(5,2)")]).await.unwrap();
    let old = batch(vec![
        ("a", Arc::new(Int32Array::from(vec![1]))),
        ("b", Arc::new(Float32Array::from(vec![0.5]))),
        ("c", Arc::new(Decimal128Array::from(vec![123]).with_precision_and_scale(5, 2).unwrap())),
    ]);
    append(&table, old).await;
    let wide = [("c", "decimal(9,2)"), ("b", "double"), ("a", "bigint"), ("d", "struct<x:int>")];
    let table = ensure(&ports, &wide).await.unwrap();
    let types: Vec<_> = table.columns().iter().map(|c| format!("{}:{}", c.name, c.ty)).collect();
    assert_eq!(types, ["a:bigint", "b:double", "c:decimal(9,2)", "d:struct<x:int>"]);
    append(&table, batch(vec![("a", Arc::new(Int64Array::from(vec![1_i64 << 40])))])).await;
    assert_eq!(
        sql(&table, Read::Current, "SELECT a, b, c, d FROM t ORDER BY a").await,
        ["1 0.5 1.23 ", "1099511627776   "]
    );
    assert_eq!(sql(&table, Read::Current, "SELECT a FROM t WHERE a < 5 AND d IS NULL").await, ["1"]);
    assert_eq!(sql(&table, Read::Current, "SELECT count(*) FROM t WHERE b IS NULL").await, ["1"]);
    // The narrower declaration that older code still holds changes nothing.
    let again = ensure(&ports, &[("a", "int"), ("b", "float")]).await.unwrap();
    assert_eq!(again.columns(), table.columns());
    assert_eq!(again.metadata_location(), table.reload().await.unwrap().metadata_location());
}

#[tokio::test]
async fn a_type_that_can_not_widen_is_refused_by_name() {
    let ports = ports();
    ensure(&ports, &[("a", "int"), ("s", "struct<x:int>"), ("d", "decimal(5,2)")]).await.unwrap();
    for (column, ty) in [("a", "string"), ("a", "double"), ("s", "struct<x:string>"), ("d", "decimal(9,3)")] {
        let error = ensure(&ports, &[(column, ty)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&format!("`{column}`")), "{error}");
    }
    let twice = ensure(&ports, &[("e", "int"), ("e", "int")]).await.unwrap_err();
    assert!(twice.to_string().contains("`e`"), "{twice}");
}

#[tokio::test]
async fn nested_columns_grow_and_are_read_from_old_files() {
    let ports = ports();
    let table = ensure(&ports, &[("s", "struct<x:int>"), ("l", "array<int>"), ("m", "map<string,int>")]).await.unwrap();
    let context = SessionContext::new();
    let values = "SELECT named_struct('x', 7) AS s, make_array(1, 2) AS l, map(['k'], [3]) AS m";
    let rows = context.sql(values).await.unwrap().execute_stream().await.unwrap();
    table.commit(Change::Append, rows, None).await.unwrap();
    let table = ensure(&ports, &[("s", "struct<x:bigint,y:string>"), ("l", "array<bigint>")]).await.unwrap();
    assert_eq!(sql(&table, Read::Current, "SELECT s['x'], s['y'], l[2], map_values(m)[1] FROM t").await, ["7  2 3"]);
}

#[tokio::test]
async fn columns_are_found_by_field_id_after_a_rename() {
    let ports = ports();
    let table = ensure(&ports, &[("a", "int"), ("b", "int")]).await.unwrap();
    append(&table, batch(vec![("a", Arc::new(Int32Array::from(vec![1]))), ("b", Arc::new(Int32Array::from(vec![2])))]))
        .await;
    // Another engine renames a → z, drops b, and adds a new column that is called b.
    let table = table.reload().await.unwrap();
    let fields = table.metadata().current_schema().as_struct().fields();
    let renamed = NestedField::optional(fields[0].id, "z", fields[0].field_type.as_ref().clone());
    let new = NestedField::optional(9, "b", fields[1].field_type.as_ref().clone());
    let schema = Schema::builder().with_fields([Arc::new(renamed), Arc::new(new)]).build().unwrap();
    let builder = table.metadata().as_ref().clone().into_builder(Some(table.metadata_location().to_owned()));
    let built = builder.add_current_schema(schema).and_then(TableMetadataBuilder::build).unwrap();
    let (metadata, location) = (Arc::new(built.metadata), table.next_location());
    table.io().put_metadata(&location, &metadata).await.unwrap();
    let table = table.swap(&metadata, location).await.unwrap();
    append(&table, batch(vec![("z", Arc::new(Int32Array::from(vec![3]))), ("b", Arc::new(Int32Array::from(vec![4])))]))
        .await;
    assert_eq!(sql(&table, Read::Current, "SELECT z, b FROM t ORDER BY z").await, ["1 ", "3 4"]);
    assert_eq!(sql(&table, Read::Current, "SELECT z FROM t WHERE b IS NULL").await, ["1"]);
    assert_eq!(sql(&table, Read::Current, "SELECT b + z AS x FROM t WHERE z > 2").await, ["7"]);
}

#[tokio::test]
async fn values_are_cast_only_where_nothing_is_lost() {
    let table = ensure(&ports(), &[("a", "int"), ("b", "double")]).await.unwrap();
    append(&table, batch(vec![("a", Arc::new(Int64Array::from(vec![5]))), ("b", Arc::new(Int64Array::from(vec![6])))]))
        .await;
    assert_eq!(sql(&table, Read::Current, "SELECT a, b FROM t").await, ["5 6.0"]);
    for (name, lossy) in [("a", 1_i64 << 40), ("b", (1 << 53) + 1)] {
        let rows = batch(vec![(name, Arc::new(Int64Array::from(vec![lossy])))]);
        let error = table.commit(Change::Append, stream(rows), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
}
