//! What users put into files, and what queries must show of it: every value in its own column and as it was written, or an error.

use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch};
use parquet::arrow::ArrowWriter;
use shared::Error;

use super::queried::{answer, ask};
use super::*;

async fn refused(lake: &Lake, sql: &str, words: &[&str]) -> Error {
    match answer(lake, sql).await {
        Ok(rows) => panic!("{sql} answered {rows}"),
        Err(error) => {
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "expected {words:?} in: {text}");
            error
        }
    }
}

/// A lakehouse with these files, each the table `t` of its own folder.
async fn of(files: &[(&str, &str)]) -> Lake {
    let lake = Lake::new();
    for (path, text) in files {
        lake.put(path, (*text).to_owned()).await;
    }
    lake
}

#[tokio::test]
async fn a_quoted_field_may_hold_line_breaks_in_all_files_or_behind_what_was_read() {
    let mail = |id: usize| format!("{id},\"Dear customer,\n\nIt will, hopefully, arrive.\n\",e{id}\n");
    let few: String = (0..3).map(mail).collect();
    let plain: String = (0..60_000).map(|id| format!("{id},nothing,e{id}\n")).collect();
    let lake = of(&[
        ("t/a.csv", &format!("id,t,u\n{few}")),
        ("late/a.csv", &format!("id,t,u\n{plain}{}", (60_000..60_100).map(mail).collect::<String>())),
    ])
    .await;
    assert_eq!(ask(&lake, "SELECT count(*), max(u) FROM t").await, "3,e2");
    assert_eq!(ask(&lake, "SELECT count(*), sum(id), count(t) FROM late").await, "60100,1805974950,60100");
}

#[tokio::test]
async fn columns_of_csv_files_go_by_their_names_whenever_the_files_come() {
    let lake = of(&[("t/a.csv", "id,name\n1,Ann\n2,Bob\n")]).await;
    lake.crawl().await;
    lake.put("t/b.csv", "name,id\nCarl,3\n").await;
    assert_eq!(
        answer(&lake, "SELECT id, name FROM t ORDER BY id").await.unwrap(),
        "1,Ann;2,Bob;3,Carl",
        "not crawled yet"
    );
    lake.put("t/c.csv", "id,age,name\n4,40,Dora\n").await;
    assert_eq!(ask(&lake, "SELECT id, name, age FROM t ORDER BY id").await, "1,Ann,;2,Bob,;3,Carl,;4,Dora,40");
    assert!(lake.table("t").await.input.parameters["tarn.athena"].contains("different orders"));
}

#[tokio::test]
async fn a_file_that_a_crawl_left_out_or_did_not_see_is_never_read_as_something_else() {
    for (file, text, words) in [
        ("t/b.csv", "id;name\n3;Carl\n4;Dora\n", vec!["t/b.csv", "id;name"]),
        ("t/b.csv", "3,Carl\n4,Dora\n", vec!["t/b.csv", "3, Carl"]),
        ("t/b.json", "{\"id\":2,\"name\":\"Bob\"}\n", vec!["t/b.json"]),
        ("t/b.csv", "city,zip\nRome,1\n", vec!["t/b.csv", "city"]),
    ] {
        let lake = of(&[("t/a.csv", "id,name\n1,Ann\n2,Bob\n")]).await;
        lake.crawl().await;
        lake.put(file, text).await;
        refused(&lake, "SELECT id, name FROM t", &words).await;
        let report = lake.crawl().await;
        assert_eq!(skipped(&report).len(), 1, "{report}");
        let error = refused(&lake, "SELECT count(*) FROM t", &[file, "exclude"]).await;
        assert_eq!(error.kind(), ErrorKind::Invalid);
        lake.delete(file).await;
        assert_eq!(answer(&lake, "SELECT count(*) FROM t").await.unwrap(), "2", "it is gone");
    }
    let plain = of(&[("t/a.csv", "1,Ann,x\n2,Bob,y\n")]).await;
    plain.crawl().await;
    plain.put("t/b.csv", "3;Carl;z\n").await;
    refused(&plain, "SELECT * FROM t", &["t/b.csv", "3;Carl"]).await;
}

#[tokio::test]
async fn excluded_files_are_read_by_nobody_wherever_the_table_lies() {
    let lake = Lake::with("{exclude: [\"*/old/**\"]}");
    for path in ["t/k=1/a.csv", "t/k=2/a.csv", "t/old/k=1/a.csv"] {
        lake.put(path, "id,v\n1,2\n").await;
    }
    assert_eq!(ask(&lake, "SELECT count(*) FROM t").await, "2");
    lake.put("s/a.csv", "id,v\n1,2\n").await;
    lake.put("s/old/a.csv", "id,v\n3,4\n").await;
    assert_eq!(ask(&lake, "SELECT sum(id) FROM s").await, "1");
}

#[tokio::test]
async fn a_delta_or_hudi_table_is_no_plain_parquet() {
    for (log, kind) in [("_delta_log/00000.json", "Delta Lake"), (".hoodie/hoodie.properties", "Hudi")] {
        let lake = of(&[("good/a.csv", "id,v\n1,2\n"), ("lake/a.csv", "id,v\n1,2\n")]).await;
        lake.crawl().await;
        lake.put(&format!("lake/{log}"), "{}").await;
        refused(&lake, "SELECT * FROM lake", &[kind]).await;
        let report = lake.crawl().await;
        assert_eq!(skipped(&report), ["lake/ unsupported"], "{report}");
        assert_eq!(answer(&lake, "SELECT id FROM good").await.unwrap(), "1");
        let event = lake.event("ObjectCreated:Put", "lake/a.csv").await;
        assert_eq!(event["tables"], json!([]), "a file of it that comes later makes no table: {event}");
    }
}

#[tokio::test]
async fn what_means_nothing_in_one_column_is_a_value_in_another() {
    let lake = of(&[
        ("c/a.csv", "id,country,v\n1,NA,1\n2,DE,NA\n3,None,2\n"),
        ("p/a.csv", "phone,n\n+491701234567,1\n+441234567890,2\n"),
        ("b/a.csv", "v\n1\n\n3\n"),
    ])
    .await;
    assert_eq!(ask(&lake, "SELECT country, v FROM c ORDER BY id").await, "NA,1;DE,;None,2");
    assert_eq!(ask(&lake, "SELECT phone FROM p ORDER BY n").await, "+491701234567;+441234567890");
    assert_eq!(ask(&lake, "SELECT count(*), count(v), sum(v) FROM b").await, "3,2,4");
}

#[tokio::test]
async fn what_comes_late_in_a_file_is_seen() {
    let rows = |row: &str, last: &str| format!("{}{last}", format!("{row}\n").repeat(30_000));
    let lake = of(&[
        ("extra/a.csv", &format!("id,v\n{}", rows("0,0", "120001,1,EXTRA\n120002\n"))),
        ("time/a.csv", &format!("id,d\n{}", rows("0,2024-01-01", "1,2024-01-01 10:30:00\n"))),
        ("none/a.csv", &format!("id,v\n{}", rows("0,0", "1,NA\n2,\n"))),
        ("field/a.json", &rows("{\"a\":0}", "{\"a\":1,\"b\":\"late field\"}\n")),
        ("part/a.json", &rows("{\"a\":0}", "{\"a\":5.7}\n{\"a\":\"42\"}\n")),
    ])
    .await;
    assert_eq!(ask(&lake, "SELECT col2 FROM extra WHERE id = 120001").await, "EXTRA");
    assert_eq!(ask(&lake, "SELECT d FROM time WHERE id = 1").await, "2024-01-01T10:30:00");
    assert_eq!(ask(&lake, "SELECT count(*), count(v) FROM none").await, "30002,30000");
    assert_eq!(ask(&lake, "SELECT b FROM field WHERE a = 1").await, "late field");
    assert_eq!(ask(&lake, "SELECT max(a) FROM part WHERE a < 42").await, "5.7");
}

#[tokio::test]
async fn what_comes_behind_all_that_a_crawl_reads_is_widened_or_refused_with_its_place() {
    let line = format!("1,2,{}\n", "x".repeat(90));
    let many = line.repeat((9 << 20) / line.len());
    let lines = many.lines().count() + 1;
    let lake = of(&[("t/a.csv", &format!("id,v,text\n{many}5.7,2,y\n1,2,z,EXTRA\n"))]).await;
    lake.crawl().await;
    let place = format!("line {}", lines + 1);
    refused(&lake, "SELECT sum(id) FROM t", &["t/a.csv", "column `id`", &place, "`5.7`"]).await;
    refused(&lake, "SELECT sum(v) FROM t", &["t/a.csv", &format!("line {}", lines + 2), "`EXTRA`"]).await;
    assert_eq!(answer(&lake, "SELECT id FROM t LIMIT 1").await.unwrap(), "1");
    lake.put("t/b.csv", "id,v,text,\n0.5,1,z,more\n").await;
    let sum = ask(&lake, "SELECT count(*) FROM t WHERE id = 5.7").await;
    assert_eq!(sum, "1", "after a file that shows both, all is read");
}

#[tokio::test]
async fn json_values_of_any_shape_can_be_read() {
    let lake = of(&[
        ("dash/f.json", "{\"id\":1,\"h\":{\"content-type\":\"x\",\"a.b\":2}}\n"),
        ("empty/f.json", "{\"id\":1,\"tags\":{}}\n{\"id\":2,\"tags\":{}}\n"),
        ("mixed/f.json", "{\"id\":1,\"v\":1}\n{\"id\":2,\"v\":{\"b\":2}}\n"),
        ("bom/f.json", "\u{feff}{\"id\":1}\n{\"id\":2}\n"),
        ("glued/f.json", "{\"id\":1}{\"id\":2} {\"id\":3}"),
        ("cjk/a.json", "{\"名字\":\"x\",\"年龄\":5,\"城市\":\"B\"}\n"),
        ("same/a.json", "{\"a.b\":1,\"a_b\":2,\"ID\":3,\"id\":4}\n"),
        ("big/a.json", "{\"id\":123456789012345678901234567890,\"u\":18446744073709551615}\n"),
    ])
    .await;
    assert_eq!(ask(&lake, "SELECT h['content-type'], h['a.b'] FROM dash").await, "x,2");
    assert_eq!(ask(&lake, "SELECT tags FROM empty ORDER BY id").await, "{};{}");
    assert_eq!(ask(&lake, "SELECT v FROM mixed ORDER BY id").await, "1;{\"b\":2}");
    assert_eq!(ask(&lake, "SELECT (SELECT sum(id) FROM bom), (SELECT sum(id) FROM glued)").await, "3,6");
    assert_eq!(ask(&lake, "SELECT \"名字\", \"年龄\", \"城市\" FROM cjk").await, "x,5,B");
    assert_eq!(ask(&lake, "SELECT a_b, a_b_2, id, id_2 FROM same").await, "2,1,4,3");
    assert_eq!(ask(&lake, "SELECT id, u FROM big").await, "123456789012345678901234567890,18446744073709551615");
}

#[tokio::test]
async fn a_file_in_another_layout_that_comes_later_is_read_whole() {
    let lake = of(&[("t/a.json", "{\"id\":0}\n{\"id\":1}\n")]).await;
    lake.crawl().await;
    lake.put("t/b.json", "{\"id\":2}{\"id\":3}").await;
    lake.put("t/c.json", "[{\"id\":4},\n{\"id\":5}]").await;
    assert_eq!(answer(&lake, "SELECT sum(id) FROM t").await.unwrap(), "15");
}

#[tokio::test]
async fn records_that_are_too_large_or_too_deep_are_told_as_that() {
    let wide = format!("{{\"id\":1,\"v\":\"{}\"}}\n", "x".repeat(2 << 20));
    let deep = format!("{{\"id\":1,\"v\":{}1{}}}\n", "[".repeat(200), "]".repeat(200));
    let huge = format!("{{\"id\":1,\"v\":\"{}\"}}\n", "x".repeat(9 << 20));
    let lake = of(&[("wide/a.json", &wide), ("deep/a.json", &deep), ("huge/a.json", &huge)]).await;
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), ["deep/a.json too_large", "huge/a.json too_large"], "{report}");
    assert!(report["skipped"][0]["message"].as_str().unwrap().contains("128 levels"), "{report}");
    assert_eq!(answer(&lake, "SELECT length(v) FROM wide").await.unwrap(), (2 << 20).to_string());
}

#[tokio::test]
async fn a_value_that_would_take_all_memory_is_a_limit() {
    let bomb = gzip(format!("{{\"id\":1}}\n{{\"id\":2,\"v\":\"{}\"}}\n", "x".repeat(100 << 20)).as_bytes());
    let cells = gzip(format!("id,v\n1,a\n2,{}\n", "x".repeat(100 << 20)).as_bytes());
    let lake = Lake::new();
    lake.put("j/a.json", "{\"id\":1,\"v\":\"x\"}\n").await;
    lake.put("c/a.csv", "id,v\n1,a\n").await;
    lake.crawl().await;
    lake.put("j/b.json.gz", bomb).await;
    lake.put("c/b.csv.gz", cells).await;
    for table in ["j", "c"] {
        let error = refused(&lake, &format!("SELECT max(v) FROM {table}"), &["b."]).await;
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    }
}

/// Crawls one Parquet file, and reads it whether or not the crawl would: the rows, or the error.
async fn parquet(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    let lake = Lake::new();
    lake.put(&format!("t/{name}.parquet"), bytes.clone()).await;
    let report = lake.crawl().await;
    if lake.has_table("t").await {
        return answer(&lake, "SELECT * FROM t").await;
    }
    assert_eq!(skipped(&report).len(), 1, "{report}");
    Err(Error::invalid(format!("`{name}`: {}", report["skipped"][0]["message"])))
}

/// A broken file is the file's fault, named, and nothing that passes by itself or that this program did.
fn check(name: &str, outcome: Result<String, Error>) {
    let Err(error) = outcome else { return };
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Limit), "{name}: {} {error}", error.kind());
    assert!(error.to_string().contains(name), "{name}: {error}");
}

#[tokio::test]
async fn a_broken_or_huge_parquet_file_is_named_with_its_fault() {
    for (name, bytes) in [
        ("fuzz-1", include_bytes!("files/fuzz-1.parquet").to_vec()),
        ("fuzz-2", include_bytes!("files/fuzz-2.parquet").to_vec()),
        ("fuzz-3", include_bytes!("files/fuzz-3.parquet").to_vec()),
        ("dict", include_bytes!("files/ARROW-RS-GH-6229-DICTHEADER.parquet").to_vec()),
    ] {
        let outcome = parquet(name, bytes).await;
        assert!(outcome.is_err(), "{name}");
        check(name, outcome);
    }
    let error = parquet("counts", include_bytes!("files/repeated_no_annotation.parquet").to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("counts 0 rows, its row groups hold 6"), "{error}");
    let error = parquet("large", include_bytes!("files/large_string_map.brotli.parquet").to_vec()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Limit | ErrorKind::Invalid), "{error}");
}

#[tokio::test]
async fn a_parquet_file_that_breaks_after_its_crawl_is_named() {
    let lake = Lake::new();
    let good = parquet_of(&[1, 2, 3]);
    lake.put("t/a.parquet", good.clone()).await;
    lake.crawl().await;
    let mut broken = good.clone();
    broken[4..40].fill(0xff);
    lake.put("t/b.parquet", broken).await;
    let error = refused(&lake, "SELECT sum(a) FROM t", &["t/b.parquet"]).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    lake.put("t/b.parquet", good[..good.len() / 2].to_vec()).await;
    let error = refused(&lake, "SELECT sum(a) FROM t", &["t/b.parquet"]).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn parquet_files_that_spell_a_column_otherwise_are_read_all() {
    let lake = Lake::new();
    lake.put("t/a.parquet", named_parquet("TailNum", &[1])).await;
    lake.put("t/b.parquet", named_parquet("tailnum", &[2])).await;
    lake.put("t/c.parquet", named_parquet("TAILNUM", &[4])).await;
    assert_eq!(ask(&lake, "SELECT sum(tailnum), count(*) FROM t").await, "7,3");
    assert_eq!(ask(&lake, "SELECT count(*) FROM t WHERE tailnum = 2").await, "1");
}

fn parquet_of(values: &[i64]) -> Vec<u8> {
    named_parquet("a", values)
}

fn named_parquet(name: &str, values: &[i64]) -> Vec<u8> {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let batch = RecordBatch::try_from_iter([(name, column)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Files of a folder beside the project, if it is there.
fn beside(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no folder {}", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_stem()?.to_string_lossy().into_owned();
            Some((name, std::fs::read(path).ok()?))
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn every_parquet_file_of_the_public_collection_is_read_or_refused_by_name() {
    for folder in ["parquet/data", "parquet/bad_data", "parquet/data/geospatial"] {
        for (name, bytes) in beside(folder) {
            check(&name, parquet(&name, bytes).await);
        }
    }
}

#[tokio::test]
async fn the_public_json_cases_are_taken_or_refused_as_files_too() {
    for (name, bytes) in beside("json-parsing") {
        let lake = Lake::new();
        lake.put(&format!("t/{name}.json"), bytes).await;
        let report = lake.crawl().await;
        if name.starts_with("n_") {
            assert_eq!(skipped(&report).len(), 1, "{name}: {report}");
        }
        if lake.has_table("t").await {
            check(&name, answer(&lake, "SELECT * FROM t").await);
        }
    }
}

#[tokio::test]
async fn a_parquet_column_without_a_type_takes_that_of_other_files() {
    let file = |values: ArrayRef| {
        let batch = RecordBatch::try_from_iter_with_nullable([("v", values, true)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    };
    let (none, numbers): (ArrayRef, ArrayRef) = (Arc::new(NullArray::new(2)), Arc::new(Int64Array::from(vec![1, 20])));
    for names in [["a", "b"], ["b", "a"]] {
        let lake = Lake::with("{table: t}");
        lake.put(&format!("{}.parquet", names[0]), file(Arc::clone(&none))).await;
        lake.put(&format!("{}.parquet", names[1]), file(Arc::clone(&numbers))).await;
        assert_eq!(ask(&lake, "SELECT count(*), count(v), sum(v) FROM t").await, "4,2,21");
        assert_eq!(lake.columns("t").await, "v:bigint");
    }
}

#[tokio::test]
async fn names_of_a_csv_header_that_differ_in_case_only_are_told() {
    let lake = Lake::with("{table: t}");
    lake.put("a.csv", "a,A\n1,2\n").await;
    let report = lake.crawl().await;
    assert_eq!(lake.columns("t").await, "a:bigint a_2:bigint");
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("`A` is called `a_2`"), "{note}");
}
