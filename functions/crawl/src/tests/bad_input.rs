//! Files that are wrong: each is reported with its reason, and the others become tables all the same.

use serde_json::json;
use shared::project::Project;

use super::*;

const GOOD: &str = "id,name\n1,Anna\n2,Bo\n";

#[tokio::test]
async fn every_faulty_file_is_reported_and_the_sound_ones_make_their_table() {
    let lake = Lake::with("{table: people}");
    lake.put("good.csv", GOOD).await;
    lake.put("empty.csv", "").await;
    let zipped = gzip(GOOD.repeat(50).as_bytes());
    lake.put("cut.csv.gz", zipped[..zipped.len() - 6].to_vec()).await;
    lake.put("latin.csv", &b"id,name\n1,Ren\xe9\n"[..]).await;
    lake.put("cut.parquet", &b"PAR1\x15\x04\x15\x10"[..]).await;
    lake.put("page.html", "<html></html>").await;
    lake.put("table.orc", "ORC....").await;
    lake.put("_SUCCESS", "").await;
    lake.put(".hidden.csv", "x").await;
    let report = lake.crawl().await;
    assert_eq!(
        skipped(&report),
        [
            "cut.csv.gz truncated",
            "cut.parquet truncated",
            "empty.csv empty",
            "latin.csv invalid_utf8",
            "page.html unrecognized",
            "table.orc unsupported",
        ]
    );
    assert_eq!(report["files"]["ignored"], 2);
    assert_eq!(lake.columns("people").await, "id:bigint name:string");
}

#[tokio::test]
async fn a_file_that_vanishes_after_it_was_listed_is_reported_and_read_when_it_comes_back() {
    let lake = Lake::with("{table: people}");
    lake.put("a.csv", GOOD).await;
    let gone = crate::select::Object { path: "b.csv".into(), url: lake.url("b.csv"), size: 10, mark: "m".into() };
    let files = crate::read::read_all(&lake.ports, vec![gone]).await.unwrap();
    assert_eq!(files[0].sample, Err(format::FileFault::Vanished));
    let report = lake.event("ObjectCreated:Put", "never.csv").await;
    assert_eq!(report["files"]["read"], 0);
    lake.crawl().await;
    lake.put("b.csv", GOOD).await;
    assert_eq!(lake.crawl().await["files"]["read"], 1);
}

#[tokio::test]
async fn ragged_rows_are_noted_file_by_file() {
    let lake = Lake::with("{table: t}");
    lake.put("a.csv", "a,b,c\n1,2,3\n4,5\n6,7,8\n").await;
    lake.put("b.csv", "a,b,c\n1,2,3\n4,5,6\n6,7,8,9\n1\n").await;
    let report = lake.crawl().await;
    let notes = report["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().contains("`a.csv`: 1 of 4 rows"), "{report}");
    assert!(notes[1].as_str().unwrap().contains("`b.csv`: 2 of 5 rows"), "{report}");
}

#[tokio::test]
async fn a_json_file_that_breaks_in_the_middle_is_reported_with_the_line() {
    let lake = Lake::with("{table: t}");
    lake.put("good.json", "{\"a\":1}\n").await;
    lake.put("bad.json", "{\"a\":1}\n{\"a\":oops}\n").await;
    let report = lake.crawl().await;
    assert_eq!(skipped(&report), ["bad.json corrupt"]);
    assert!(report["skipped"][0]["message"].as_str().unwrap().contains("line 2"), "{report}");
    assert_eq!(lake.columns("t").await, "a:bigint");
}

#[tokio::test]
async fn an_unknown_location_and_an_unknown_route_are_answered_with_their_status() {
    let lake = Lake::new();
    let answer = lake.call(request("POST", "/crawl", r#"{"location":"nope"}"#)).await.unwrap();
    assert_eq!(answer["statusCode"], 404);
    assert!(answer["body"].as_str().unwrap().contains("`nope`"));
    assert_eq!(lake.call(request("POST", "/crawl", r#"{"place":1}"#)).await.unwrap()["statusCode"], 400);
    assert_eq!(lake.call(request("GET", "/nope", "")).await.unwrap()["statusCode"], 404);
    assert!(lake.call(json!({"x": 1})).await.is_err());
}

#[tokio::test]
async fn a_location_outside_the_warehouse_is_denied() {
    let text = "version: 1\ndatabase: nyc\nlocations:\n  raw: {path: \"file:///etc/\"}\n";
    let Ok(project) = Project::parse(text, "lakehouse.yaml") else { return };
    let ports = adapters_embedded::in_memory(Arc::new(ManualClock::at(0))).unwrap();
    let crawl = Crawl::new(Arc::new(project), ports).unwrap();
    let answer = testing::invoke(request("POST", "/crawl", "{}"), |event| crawl.handle(event)).await.unwrap();
    assert_eq!(answer["statusCode"], 403, "{answer}");
}

#[tokio::test]
async fn a_refused_file_of_a_new_partition_is_an_error_unless_a_filter_leaves_it_out() {
    let odd = [
        ("k=2/b.csv.gz", b"\x1f\x8b\x08\x00broken".to_vec()),
        ("k=2/b.json", b"{\"v\":1}\n{\"v\":2}\n".to_vec()),
        ("k=2/b.parquet", b"PAR1 no footer".to_vec()),
        ("k=2/x=2/b.csv", b"v\n2\n".to_vec()),
        ("b.csv", b"v\n2\n".to_vec()),
    ];
    for (path, bytes) in odd {
        let lake = Lake::with("{table: t}");
        lake.put("k=1/a.csv", "v\n1\n").await;
        lake.crawl().await;
        lake.put(path, bytes).await;
        let report = lake.crawl().await;
        assert_eq!(skipped(&report).len(), 1, "{path}: {report}");
        let error = queried::answer(&lake, "SELECT v FROM t").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(path), "{path}: {error}");
        let of_one = queried::answer(&lake, "SELECT v FROM t WHERE k = 1").await;
        match path.starts_with("k=2/") {
            true => assert_eq!(of_one.unwrap(), "1", "{path}"),
            // Nobody can say which partition it would be in.
            false => assert!(of_one.unwrap_err().to_string().contains(path)),
        }
        lake.delete(path).await;
        assert_eq!(queried::answer(&lake, "SELECT v FROM t").await.unwrap(), "1", "{path} is gone");
    }
}

#[tokio::test]
async fn more_refused_files_than_a_definition_remembers_refuse_a_query_of_their_folder() {
    let lake = Lake::with("{table: t}");
    lake.put("k=a/0.csv", "x,1\ny,2\n").await;
    lake.put("k=z/0.csv", "z,3\nw,4\n").await;
    lake.crawl().await;
    for n in 0..101 {
        lake.put(&format!("k=a/b{n}.csv.gz"), b"\x1f\x8bbroken".to_vec()).await;
    }
    lake.put("k=z/2.json", "{\"v\":7}\n{\"v\":8}\n").await;
    lake.crawl().await;
    let error = queried::answer(&lake, "SELECT * FROM t WHERE k = 'z'").await.unwrap_err().to_string();
    assert!(error.contains("files, the first of them"), "{error}");
    lake.put("k=new/2.json", "{\"v\":7}\n{\"v\":8}\n").await;
    lake.crawl().await;
    let error = queried::answer(&lake, "SELECT * FROM t WHERE k = 'new'").await.unwrap_err().to_string();
    assert!(error.contains("files, the first of them"), "{error}");
}

#[tokio::test]
async fn a_quote_that_is_never_closed_is_told_by_the_crawl() {
    let lake = Lake::with("{table: t}");
    lake.put("a.csv", "a,b\n1,2\n3,4\n").await;
    lake.crawl().await;
    lake.put("q.csv", "a,b\n\"1,2\n3,4\n5,6\n").await;
    let report = lake.crawl().await;
    assert!(skipped(&report).iter().any(|s| s.starts_with("q.csv") && s.contains("misfit")), "{report}");
    assert!(queried::answer(&lake, "SELECT * FROM t").await.unwrap_err().to_string().contains("`q.csv`"));
}
