use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;

use super::*;
use shared::model::ColumnType;

fn schema(columns: &[(&str, &str)]) -> RecordSchema {
    let columns: Vec<_> = columns.iter().map(|(name, ty)| Column::new(*name, ty.parse().unwrap())).collect();
    RecordSchema::new(&columns).unwrap()
}

fn refused(ty: &str, json: &str) -> RecordError {
    schema(&[("a", ty)]).check(format!(r#"{{"a":{json}}}"#).as_bytes()).unwrap_err()
}

#[test]
fn records_become_rows_in_order_whatever_the_order_of_their_fields() {
    let schema = schema(&[("id", "bigint"), ("name", "string")]);
    let records: [&[u8]; 3] =
        [br#"{"id":1,"name":"a"}"#, br#" {"name" : "b\u00e9\n", "id": 2} "#, br#"{"Name":null,"ID":3}"#];
    let decoded = schema.decode(records).unwrap();
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    assert_eq!(decoded.batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    let names = decoded.batch.column(1).as_string::<i32>();
    assert_eq!((names.value(0), names.value(1), names.is_null(2)), ("a", "bé\n", true));
}

#[test]
fn a_bad_record_leaves_no_trace_in_its_neighbours() {
    let schema = schema(&[
        ("s", "string"),
        ("l", "array<string>"),
        ("m", "map<string,int>"),
        ("t", "struct<x:int,y:array<int>>"),
        ("b", "boolean"),
        ("n", "int"),
    ]);
    let good = br#"{"s":"one","l":["a",null],"m":{"k":1},"t":{"x":1,"y":[1,2]},"b":true,"n":1}"#;
    let bad = br#"{"s":"two","l":["b","c"],"m":{"k":2,"j":3},"t":{"x":2,"y":[3,"four"]},"b":false,"n":2}"#;
    let late = br#"{"s":"two","l":["b","c"],"m":{"k":2,"j":3},"t":{"x":2,"y":[3]},"b":false,"n":"2"}"#;
    let mixed = schema.decode([&good[..], bad, late, b"{", good]).unwrap();
    let alone = schema.decode([&good[..], good]).unwrap();
    assert_eq!(mixed.batch, alone.batch);
    let places: Vec<_> = mixed.errors.iter().map(|(at, e)| (*at, e.code)).collect();
    assert_eq!(places, [(1, ErrorCode::WrongType), (2, ErrorCode::WrongType), (3, ErrorCode::InvalidJson)]);
    assert_eq!(mixed.errors[0].1.message, "column `t.y[1]`: expected int, found the string `\"four\"`");
    assert_eq!(mixed.errors[0].1.column.as_deref(), Some("t"));
}

#[test]
fn every_fault_has_its_code() {
    let mut columns = vec![Column::new("a", ColumnType::Int)];
    columns[0].required = true;
    let schema = RecordSchema::new(&columns).unwrap();
    for (record, code) in [
        (&b"{\"a\":\"\xff\"}"[..], ErrorCode::InvalidUtf8),
        (b"", ErrorCode::InvalidJson),
        (b"{\"a\":1", ErrorCode::InvalidJson),
        (b"{\"a\":1} x", ErrorCode::InvalidJson),
        (b"{\"a\":1,\"a\":2}", ErrorCode::InvalidJson),
        (b"{\"a\":01}", ErrorCode::InvalidJson),
        (b"{\"a\":nul}", ErrorCode::InvalidJson),
        (b"[1]", ErrorCode::NotAnObject),
        (b"7", ErrorCode::NotAnObject),
        (b"[1", ErrorCode::InvalidJson),
        (b"{\"a\":\"1\"}", ErrorCode::WrongType),
        (b"{\"a\":1.5}", ErrorCode::WrongType),
        (b"{\"a\":true}", ErrorCode::WrongType),
        (b"{\"a\":null}", ErrorCode::MissingRequired),
        (b"{\"b\":1}", ErrorCode::MissingRequired),
        (b"{\"a\":2147483648}", ErrorCode::Overflow),
    ] {
        let error = schema.check(record).unwrap_err();
        assert_eq!(error.code, code, "{} → {}", String::from_utf8_lossy(record), error.message);
    }
    schema.check(b"{\"a\":1}").unwrap();
}

#[test]
fn a_fault_says_what_was_expected_and_what_was_found() {
    assert_eq!(refused("int", r#""12""#).message, "column `a`: expected int, found the string `\"12\"`");
    assert_eq!(refused("tinyint", "128").message, "column `a`: expected a value in the range of tinyint, found `128`");
    assert_eq!(
        refused("timestamp", "1357020000").message,
        "column `a`: expected timestamp (such as \"2013-01-31T06:00:00Z\"), found the number `1357020000`"
    );
    assert_eq!(
        refused("decimal(5,2)", "1.005").message,
        "column `a`: expected a number that decimal(5,2) holds without loss, found `1.005`"
    );
    let long = refused("int", &format!("\"{}\"", "é".repeat(1000))).message;
    assert!(long.len() < 250 && long.ends_with("…`"), "{long}");
}

#[test]
fn numbers_outside_their_type_are_refused() {
    for (ty, json) in [
        ("float", "1e39"),
        ("double", "1e400"),
        ("bigint", "9223372036854775808"),
        ("smallint", "-32769"),
        ("decimal(4,2)", "100"),
        ("decimal(4,2)", "\"0.001\""),
    ] {
        assert_eq!(refused(ty, json).code, ErrorCode::Overflow, "{ty} {json}");
    }
}

#[test]
fn a_date_or_time_that_is_in_no_calendar_is_refused_for_the_part_that_is_wrong() {
    for (ty, json, part) in [
        ("timestamp", "\"2026-13-01\"", "month"),
        ("date", "\"2013-02-30\"", "day"),
        ("timestamp", "\"2013-02-28T25:00:00\"", "hour"),
        ("time", "\"06:60:00\"", "minute"),
        ("timestamptz", "\"2013-02-28T23:00:00+99:00\"", "zone"),
    ] {
        let error = refused(ty, json);
        assert_eq!(error.code, ErrorCode::WrongType, "{ty} {json}");
        assert!(error.message.ends_with(&format!("there is no such {part}")), "{}", error.message);
    }
}

#[test]
fn values_of_every_type_arrive() {
    let schema = schema(&[
        ("d", "decimal(20,2)"),
        ("t", "timestamp"),
        ("z", "timestamptz"),
        ("f", "double"),
        ("b", "binary"),
        ("m", "map<int,string>"),
    ]);
    let records: [&[u8]; 2] = [
        br#"{"d":"123456789012345678.90","t":"1970-01-01 00:00:01","z":"1970-01-01T02:00:01+02:00","f":3,"b":"aGk=","m":{"7":"x"}}"#,
        br#"{"d":12.5,"t":"1970-01-01","f":"NaN"}"#,
    ];
    let decoded = schema.decode(records).unwrap();
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    let batch = &decoded.batch;
    assert_eq!(batch.column(0).as_primitive::<Decimal128Type>().values(), &[12_345_678_901_234_567_890, 1250]);
    assert_eq!(batch.column(1).as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000, 0]);
    assert_eq!(batch.column(2).as_primitive::<TimestampMicrosecondType>().value(0), 1_000_000);
    assert_eq!(batch.column(3).as_primitive::<arrow::datatypes::Float64Type>().value(0), 3.0);
    assert_eq!(batch.column(4).as_binary::<i32>().value(0), b"hi");
    let keys = batch.column(5).as_map().keys().as_primitive::<Int32Type>().clone();
    assert_eq!(keys.values(), &[7]);
}

#[test]
fn unknown_fields_are_passed_over_and_counted() {
    let schema = schema(&[("a", "int")]);
    let decoded =
        schema.decode([&br#"{"b":{"c":[1]},"a":1}"#[..], br#"{"b":2,"a":2}"#, br#"{"b":2,"a":"x"}"#]).unwrap();
    assert_eq!(decoded.batch.num_rows(), 2);
    assert_eq!(decoded.ignored, BTreeMap::from([("b".to_owned(), 2)]));
}

#[test]
fn a_schema_that_json_can_not_fill_is_refused() {
    assert!(RecordSchema::new(&[]).is_err());
    let twice = [Column::new("a", ColumnType::Int), Column::new("a", ColumnType::Int)];
    assert!(RecordSchema::new(&twice).unwrap_err().to_string().contains("`a` twice"));
    let map = [Column::new("a", "map<double,int>".parse().unwrap())];
    assert!(RecordSchema::new(&map).is_err());
}

#[test]
fn csv_rows_become_records_typed_by_the_schema() {
    let schema =
        schema(&[("id", "int"), ("price", "decimal(5,2)"), ("name", "string"), ("ok", "boolean"), ("at", "timestamp")]);
    let body = b"\xef\xbb\xbfname,id,ok,price,at,extra\r\n\"a, \"\"b\"\"\",007,TRUE,+1.50,2013-01-01 05:00:00,x\r\n12,,f,.5,,\n";
    let rows = schema.csv_to_json(body, CsvOptions::default()).unwrap();
    let rows: Vec<_> = rows.into_iter().map(|r| String::from_utf8(r.unwrap()).unwrap()).collect();
    assert_eq!(
        rows,
        [
            r#"{"name":"a, \"b\"","id":7,"ok":true,"price":1.50,"at":"2013-01-01 05:00:00","extra":"x"}"#,
            r#"{"name":"12","ok":false,"price":0.5}"#
        ]
    );
    rows.iter().for_each(|r| schema.check(r.as_bytes()).unwrap());
}

#[test]
fn a_bad_csv_row_does_not_spoil_the_others() {
    let schema = schema(&[("id", "int"), ("name", "string")]);
    let rows = schema.csv_to_json(b"id,name\n1,a\n2\n3,\xff\nx,d\n", CsvOptions::default()).unwrap();
    let codes: Vec<_> = rows
        .iter()
        .map(|row| {
            row.as_ref().map_err(|bad| bad.error.clone()).and_then(|json| schema.check(json)).err().map(|e| e.code)
        })
        .collect();
    assert_eq!(codes, [None, Some(ErrorCode::RaggedRow), Some(ErrorCode::InvalidUtf8), Some(ErrorCode::WrongType)]);
}

#[test]
fn a_csv_body_without_a_useful_header_is_refused() {
    let schema = schema(&[("id", "int")]);
    for body in [&b""[..], b"1,2\n3,4\n", b"id,id\n1,2\n"] {
        assert!(schema.csv_to_json(body, CsvOptions::default()).is_err());
    }
}

proptest! {
    #[test]
    fn every_record_is_either_a_row_or_an_error(records in proptest::collection::vec(any_record(), 0..40)) {
        let schema = schema(&[("i", "int"), ("s", "string"), ("l", "array<double>"), ("t", "struct<x:date>")]);
        let decoded = schema.decode(records.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(decoded.batch.num_rows() + decoded.errors.len(), records.len());
        for (at, record) in records.iter().enumerate() {
            let error = decoded.errors.iter().find(|(place, _)| *place == at).map(|(_, e)| e.clone());
            prop_assert_eq!(schema.check(record).err(), error);
        }
        let good = records.iter().filter(|r| schema.check(r).is_ok()).map(Vec::as_slice);
        prop_assert_eq!(schema.decode(good).unwrap().batch, decoded.batch);
    }

    #[test]
    fn any_bytes_are_judged_without_a_crash(record: Vec<u8>) {
        let schema = schema(&[("i", "int"), ("s", "string")]);
        prop_assert!(schema.check(&record).is_err() || serde_json::from_slice::<serde_json::Value>(&record).is_ok());
    }
}

/// Records of which about half fit the schema of the test above, and some are cut or broken anywhere.
fn any_record() -> impl Strategy<Value = Vec<u8>> {
    let int = prop_oneof![
        "-?[1-9][0-9]{0,8}",
        Just("null".to_owned()),
        Just("99999999999".to_owned()),
        Just("\"1\"".to_owned())
    ];
    let list = proptest::collection::vec(prop_oneof![Just("1.5"), Just("null"), Just("\"NaN\""), Just("[]")], 0..4);
    let date = prop_oneof![Just("\"2013-01-31\""), Just("null"), Just("\"2013-13-31\"")];
    (int, "[a-zé\"\\\\\n]{0,6}", list, date, proptest::option::of(0usize..80)).prop_map(|(i, s, l, d, cut)| {
        let s = serde_json::Value::from(s);
        let mut record = format!(r#"{{"s":{s},"i":{i},"l":[{}],"t":{{"x":{d}}}}}"#, l.join(",")).into_bytes();
        record.truncate(cut.unwrap_or(usize::MAX));
        record
    })
}
