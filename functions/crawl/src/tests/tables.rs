//! What tables the files of a location make, and how they are declared.

use format::{Compression, CsvFormat, Encoding, JsonFormat};

use super::*;

#[tokio::test]
async fn each_folder_is_a_table_of_its_format() {
    let lake = Lake::new();
    lake.put("planes/a.csv", "tailnum;seats;year\nN1;55;2004\nN2;182;NA\n").await;
    lake.put("weather/a.json", "{\"origin\":\"EWR\",\"temp\":39.0}\n").await;
    lake.put("weather/b.json.gz", gzip(b"{\"origin\":\"JFK\",\"temp\":38,\"time\":\"2013-01-01T01:00:00Z\"}\n")).await;
    lake.put("airports/all.json", "[{\"faa\":\"04G\",\"tz\":{\"name\":\"x\",\"hours\":-5}}]").await;
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), [""; 0]);
    assert_eq!(lake.columns("planes").await, "tailnum:string seats:bigint year:bigint");
    assert_eq!(lake.columns("weather").await, "origin:string temp:double time:timestamptz");
    assert_eq!(lake.columns("airports").await, "faa:string tz:struct<name:string,hours:bigint>");
    let csv = CsvFormat { delimiter: b';', nulls: vec!["NA".into()], ..CsvFormat::default() }.with_header(true);
    assert_eq!(
        lake.format("planes").await,
        FileFormat { encoding: Encoding::Csv(csv), compression: Compression::None }
    );
    assert_eq!(lake.format("airports").await.encoding, Encoding::Json(JsonFormat::Array));
    assert_eq!(lake.table("planes").await.input.storage.location, "memory:///raw/raw/planes/");
}

#[tokio::test]
async fn a_csv_table_is_declared_as_glue_does() {
    let lake = Lake::with("{table: people}");
    lake.put("a.csv.gz", gzip(b"id|name|born\n1|Anna|2001-02-03\n2|Bo|NA\n")).await;
    lake.crawl().await;
    let input = lake.table("people").await.input;
    let found = serde_json::to_value(&input).unwrap();
    let parameters = json!({
        "areColumnsQuoted": "false", "classification": "csv", "columnsOrdered": "true", "compressionType": "gzip",
        "delimiter": "|", "skip.header.line.count": "1", "tarn.columns": "header", "tarn.null": "NA", "typeOfData": "file",
    });
    let mut of_table = parameters.clone();
    of_table["EXTERNAL"] = "TRUE".into();
    of_table["UPDATED_BY_CRAWLER"] = "raw".into();
    assert_eq!(
        found,
        json!({
            "name": {"database": "nyc", "table": "people"},
            "description": null,
            "table_type": "EXTERNAL_TABLE",
            "parameters": of_table,
            "storage": {
                "columns": [
                    {"name": "id", "type": "bigint"}, {"name": "name", "type": "string"}, {"name": "born", "type": "date"},
                ],
                "location": "memory:///raw/raw/",
                "input_format": "org.apache.hadoop.mapred.TextInputFormat",
                "output_format": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                "serde_library": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "serde_parameters": {"field.delim": "|", "serialization.format": "|"},
                "compressed": true,
                "parameters": parameters,
            },
            "partition_keys": [],
        })
    );
}

#[tokio::test]
async fn json_and_quoted_csv_have_the_serdes_that_athena_expects() {
    let lake = Lake::new();
    lake.put("j/a.json", "{\"userId\":1,\"name\":\"x\"}\n").await;
    lake.put("q/a.csv", "id,text\n1,\"a, b\"\n").await;
    lake.crawl().await;
    let json = lake.table("j").await.input.storage;
    assert_eq!(json.serde_library.unwrap(), "org.openx.data.jsonserde.JsonSerDe");
    assert_eq!(json.serde_parameters["paths"], "userid,name");
    assert_eq!(json.serde_parameters["mapping.userid"], "userId");
    let quoted = lake.table("q").await.input.storage;
    assert_eq!(quoted.serde_library.unwrap(), "org.apache.hadoop.hive.serde2.OpenCSVSerde");
    assert_eq!(quoted.serde_parameters["separatorChar"], ",");
}

#[tokio::test]
async fn hive_and_dated_folders_are_partitions_of_one_table() {
    let lake = Lake::new();
    for day in 1..=3 {
        lake.put(&format!("hive/year=2013/day={day}/a.csv"), "id,x\n1,2.5\n").await;
        lake.put(&format!("dated/2013/01/0{day}/a.csv"), "id,x\n1,2\n").await;
    }
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), [""; 0], "{report}");
    assert_eq!(lake.columns("hive").await, "id:bigint x:double | year:int day:int");
    assert_eq!(lake.columns("dated").await, "id:bigint x:bigint | year:int month:int day:int");
    let partitions = lake.partitions("dated").await;
    assert_eq!(partitions[0].values, ["2013", "01", "01"]);
    assert_eq!(partitions[0].storage.location, "memory:///raw/raw/dated/2013/01/01/");
    assert_eq!(partitions[0].storage.columns, lake.table("dated").await.input.storage.columns);
    assert_eq!(partitions.len(), 3);
}

#[tokio::test]
async fn partitions_right_in_the_location_make_it_one_table() {
    let lake = Lake::new();
    lake.put("year=2013/a.csv", "id,year\n1,2013\n").await;
    lake.put("year=2014/a.csv", "id,year\n2,2014\n").await;
    lake.crawl().await;
    assert_eq!(lake.columns("raw").await, "id:bigint year_in_file:bigint | year:int");
    lake.put("year=2015/a.csv", "id,year\n3,2015\n").await;
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["partitionsAdded"], 1, "{report}");
    assert_eq!(lake.partitions("raw").await.len(), 3);
}

#[tokio::test]
async fn more_partitions_than_a_call_takes_are_added_in_batches() {
    let lake = Lake::with("{table: t}");
    for n in 0..130 {
        lake.put(&format!("n={n}/a.csv"), "id,x\n1,2\n").await;
    }
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["partitionsAdded"], 130);
    assert_eq!(lake.partitions("t").await.len(), 130);
}

#[tokio::test]
async fn a_mixed_folder_is_reported_and_makes_no_table() {
    let lake = Lake::new();
    lake.put("mixed/a.csv", "id,name\n1,x\n").await;
    lake.put("mixed/b.csv", "id,name\n2,y\n").await;
    lake.put("mixed/c.json", "{\"id\":1}\n").await;
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), ["mixed/a.csv misfit", "mixed/b.csv misfit", "mixed/c.json misfit"]);
    assert!(report["skipped"][0]["message"].as_str().unwrap().contains("`mixed/c.json`"), "{report}");
    assert!(!lake.has_table("mixed").await);
    lake.delete("mixed/c.json").await;
    lake.crawl().await;
    assert_eq!(lake.columns("mixed").await, "id:bigint name:string");
}

#[tokio::test]
async fn an_odd_file_does_not_touch_a_healthy_table() {
    let lake = Lake::new();
    lake.put("people/a.csv", "id,name\n1,x\n").await;
    lake.crawl().await;
    let before = lake.table("people").await;
    lake.put("people/b.csv", "city,zip\ny,2\n").await;
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), ["people/b.csv misfit"]);
    assert!(report["skipped"][0]["message"].as_str().unwrap().contains("expected the columns `id, name`"), "{report}");
    let mut after = lake.table("people").await.input;
    let refused = after.parameters.remove("tarn.refused").unwrap();
    assert!(refused.contains("people/b.csv") && refused.contains("expected the columns"), "{refused}");
    assert_eq!(after, before.input);
    let writes = lake.writes();
    assert_eq!(skipped(&lake.crawl().await), ["people/b.csv misfit"]);
    assert_eq!(lake.writes(), writes);
    lake.delete("people/b.csv").await;
    lake.crawl().await;
    assert_eq!(lake.table("people").await.input, before.input, "what is gone is forgotten");
}

#[tokio::test]
async fn a_folder_of_folders_that_disagree_is_a_table_each() {
    let lake = Lake::new();
    lake.put("shop/orders/a.csv", "id,total\n1,2.5\n").await;
    lake.put("shop/people/a.json", "{\"name\":\"x\"}\n").await;
    lake.crawl().await;
    assert_eq!(lake.columns("orders").await, "id:bigint total:double");
    assert_eq!(lake.columns("people").await, "name:string");
}

#[tokio::test]
async fn loose_files_are_one_table_or_one_each() {
    let alike = Lake::new();
    alike.put("a.csv", "id,x\n1,2\n").await;
    alike.put("b.csv", "id,x\n1,2.5\n").await;
    alike.crawl().await;
    assert_eq!(alike.columns("raw").await, "id:bigint x:double");
    let different = Lake::new();
    different.put("planes.csv", "id,x\n1,2\n").await;
    different.put("planes.json", "{\"a\":1}\n").await;
    different.crawl().await;
    assert_eq!(different.columns("planes").await, "id:bigint x:bigint");
    assert_eq!(different.columns("planes_json").await, "a:bigint");
    assert_eq!(different.table("planes").await.input.storage.location, "memory:///raw/raw/planes.csv");
}

#[tokio::test]
async fn headers_are_settled_among_files() {
    let lake = Lake::new();
    // Alone, the second file looks as if it had no header: its text column has values as long as the name.
    lake.put("h/a.csv", "code,n\nAA,1\n").await;
    lake.put("h/b.csv", "code,n\nabcd,x\nefgh,y\n").await;
    lake.put("none/a.csv", "Anna,Paris\nBo,Rome\n").await;
    lake.put("none/b.csv", "Cleo,Cairo\nDan,Oslo\n").await;
    lake.put("text/a.csv", "carrier,name\nUA,United\nAA,American\n").await;
    lake.put("text/b.csv", "carrier,name\nregional,four\nnational,five\n").await;
    lake.crawl().await;
    assert_eq!(lake.columns("text").await, "carrier:string name:string");
    assert_eq!(lake.columns("h").await, "code:string n:string");
    assert_eq!(lake.columns("none").await, "col0:string col1:string");
}

#[tokio::test]
async fn excluded_files_are_left_out_and_the_table_says_so() {
    let lake = Lake::with("{table: t, exclude: [\"**/*.bak\", \"old/**\"]}");
    lake.put("a.csv", "id,x\n1,2\n").await;
    lake.put("a.json.bak", "{}").await;
    lake.put("old/b.json", "{\"a\":1}").await;
    let report = lake.crawl().await;
    assert_eq!(report["files"]["ignored"], 2, "{report}");
    assert_eq!(lake.table("t").await.input.parameters["exclusions"], r#"["**/*.bak","old/**"]"#);
}

#[tokio::test]
async fn a_name_that_is_another_tables_is_never_taken() {
    let lake = Lake::new();
    lake.put("people/a.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    let mut other = lake.table("people").await.input;
    other.name = TableName::new("nyc", "planes").unwrap();
    other.storage.location = "memory:///elsewhere/".into();
    lake.ports.catalog.create_table(&other).await.unwrap();
    lake.put("planes/a.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    assert_eq!(lake.table("planes").await.input.storage.location, "memory:///elsewhere/");
    assert_eq!(lake.table("planes_csv").await.input.storage.location, "memory:///raw/raw/planes/");
    for taken in ["more", "more_csv"] {
        other.name = TableName::new("nyc", taken).unwrap();
        lake.ports.catalog.create_table(&other).await.unwrap();
    }
    lake.put("more/a.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    assert_eq!(
        lake.table("raw_more").await.input.storage.location,
        "memory:///raw/raw/more/",
        "the location's name tells it"
    );
}

#[tokio::test]
async fn a_broken_definition_is_reported_and_the_other_tables_go_on() {
    let lake = Lake::new();
    lake.put("odd/a.json", "{\"id\":1,\"headers\":{\"x-request-id\":\"a\",\"\":2}}\n").await;
    lake.put("people/a.csv", "id,name\n1,x\n").await;
    lake.crawl().await;
    assert_eq!(lake.columns("odd").await, "id:bigint headers:struct<`x-request-id`:string,``:bigint>");
    assert_eq!(lake.columns("people").await, "id:bigint name:string");
}
