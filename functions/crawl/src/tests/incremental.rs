//! What a later crawl reads and changes.

use shared::deadline;
use shared::state::{Expect, put_json};
use testing::catalog_faults::Fault;

use super::*;

#[tokio::test]
async fn a_crawl_with_nothing_new_reads_and_writes_nothing() {
    let lake = Lake::new();
    lake.put("a/x.csv", "id,n\n1,2\n").await;
    lake.put("b/year=2013/x.csv", "id,n\n1,2\n").await;
    lake.put("b/year=2013/empty.csv", "").await;
    lake.crawl().await;
    let writes = lake.writes();
    let report = lake.crawl().await;
    assert_eq!(lake.writes(), writes);
    assert_eq!((&report["files"]["read"], &report["files"]["unchanged"]), (&json!(0), &json!(3)));
    assert_eq!(skipped(&report), ["b/year=2013/empty.csv empty"]);
    // Also when the marks are lost: everything is read again, nothing is changed.
    lake.ports.state.delete("crawl/raw", Expect::Anything).await.unwrap();
    assert_eq!(lake.crawl().await["files"]["read"], 3);
    assert_eq!(lake.writes(), writes);
}

#[tokio::test]
async fn new_columns_and_wider_types_update_the_table_and_keep_what_users_set() {
    let lake = Lake::with("{table: t}");
    lake.put("a.json", "{\"id\":1,\"n\":null}\n").await;
    lake.crawl().await;
    let mut table = lake.table("t").await;
    assert_eq!(table.input.parameters["tarn.untyped"], "n");
    table.input.parameters.insert("owner".into(), "me".into());
    table.input.storage.columns[0].comment = Some("the key".into());
    lake.ports.catalog.update_table(&table.input, &table.version).await.unwrap();
    lake.put("b.json", "{\"id\":2.5,\"n\":7,\"new\":true}\n").await;
    let report = lake.crawl().await;
    assert_eq!(report["files"]["read"], 1);
    assert_eq!(report["tables"][0]["change"], "updated");
    assert_eq!(
        report["tables"][0]["details"],
        json!([
            "column `id` changed from bigint to double",
            "column `n` changed from string to bigint",
            "column `new` added as boolean",
        ])
    );
    let after = lake.table("t").await.input;
    assert_eq!(lake.columns("t").await, "id:double n:bigint new:boolean");
    assert_eq!(after.parameters["owner"], "me");
    assert_eq!(after.storage.columns[0].comment.as_deref(), Some("the key"));
    assert!(!after.parameters.contains_key("tarn.untyped"));
}

#[tokio::test]
async fn policies_keep_changes_out() {
    for (policy, columns) in [("merge_new_columns", "id:bigint x:string"), ("log", "id:bigint")] {
        let lake = Lake::with(&format!("{{table: t, on_schema_change: {policy}}}"));
        lake.put("a.json", "{\"id\":1}\n").await;
        lake.crawl().await;
        lake.put("b.json", "{\"id\":2.5,\"x\":\"y\"}\n").await;
        let report = lake.crawl().await;
        assert_eq!(lake.columns("t").await, columns, "{report}");
        let details = report["tables"][0]["details"].as_array().unwrap();
        let kept_out: Vec<bool> = details.iter().map(|d| d.as_str().unwrap().contains("not applied")).collect();
        assert_eq!(kept_out, [true, policy == "log"], "{report}");
    }
}

#[tokio::test]
async fn a_key_that_takes_another_type_is_told() {
    let lake = Lake::with("{table: t}");
    lake.put("dt=2024-01-01/a.json", "{\"id\":1}\n").await;
    lake.crawl().await;
    lake.put("dt=unknown/a.json", "{\"id\":2}\n").await;
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["details"], json!(["partition key `dt` changed from date to string"]));
}

#[tokio::test]
async fn files_that_fit_once_another_is_gone_are_read_again_also_after_its_event() {
    for by_event in [false, true] {
        let lake = Lake::with("{table: t}");
        lake.put("a.json", "{\"id\":1}\n").await;
        lake.put("b.json", "[{\"id\":2}]").await;
        assert_eq!(skipped(&lake.crawl().await).len(), 2);
        lake.delete("b.json").await;
        if by_event {
            lake.event("ObjectRemoved:Delete", "b.json").await;
        }
        assert_eq!(skipped(&lake.crawl().await), [""; 0], "{by_event}");
        assert_eq!(queried::answer(&lake, "SELECT id FROM t").await.unwrap(), "1");
    }
}

#[tokio::test]
async fn a_new_file_re_reads_no_misfit() {
    let lake = Lake::with("{table: t}");
    lake.put("a.json", "{\"id\":1}\n").await;
    lake.crawl().await;
    lake.put("odd.json", "[{\"id\":2}]").await;
    lake.event("ObjectCreated:Put", "odd.json").await;
    lake.put("c.json", "{\"id\":3}\n").await;
    let report = lake.event("ObjectCreated:Put", "c.json").await;
    assert_eq!((&report["files"]["listed"], &report["files"]["read"]), (&json!(1), &json!(1)), "{report}");
}

#[tokio::test]
async fn partitions_get_the_tables_new_schema() {
    let lake = Lake::with("{table: t}");
    lake.put("d=1/a.json", "{\"id\":1}\n").await;
    lake.crawl().await;
    lake.put("d=2/a.json", "{\"id\":2,\"x\":1}\n").await;
    lake.crawl().await;
    for partition in lake.partitions("t").await {
        assert_eq!(partition.storage.columns.len(), 2, "{:?}", partition.values);
        assert!(partition.storage.location.ends_with(&format!("/d={}/", partition.values[0])));
    }
}

#[tokio::test]
async fn partitions_that_an_interrupted_crawl_did_not_come_to_are_mended_by_the_next() {
    let lake = Lake::with("{table: t}");
    let table = TableName::new("nyc", "t").unwrap();
    let columns = async || {
        let partitions = lake.partitions("t").await;
        partitions.iter().map(|partition| partition.storage.columns.len()).collect::<Vec<_>>()
    };
    for day in 0..120 {
        lake.put(&format!("d={day}/a.json"), "{\"id\":1}\n").await;
    }
    lake.crawl().await;
    lake.put("d=1/b.json", "{\"id\":2,\"x\":1}\n").await;
    lake.catalog.fail_partitions(&table, &[Fault::Refused(ErrorKind::Retry)]);
    let broken = lake.call(request("POST", "/crawl", "{}")).await.unwrap();
    assert_eq!(broken["statusCode"], 503, "{broken}");
    assert!(lake.catalog.is_spent());
    assert_eq!(lake.columns("t").await, "id:bigint x:bigint | d:int");
    assert_eq!(columns().await, [1; 120]);
    let writes = lake.writes();
    let report = lake.crawl().await;
    assert_eq!((&report["tables"][0]["change"], lake.writes()), (&json!("unchanged"), writes + 1), "{report}");
    assert_eq!(columns().await, [2; 120]);
    lake.put("d=1/c.json", "{\"id\":3}\n").await;
    lake.crawl().await;
    assert_eq!(lake.writes(), writes + 1, "all is well");
}

#[tokio::test]
async fn a_partition_that_is_removed_while_it_is_mended_is_made_again() {
    let lake = Lake::with("{table: t}");
    lake.put("d=1/a.json", "{\"id\":1}\n").await;
    lake.crawl().await;
    lake.put("d=1/b.json", "{\"id\":2,\"x\":1}\n").await;
    lake.catalog.remove_partitions(&TableName::new("nyc", "t").unwrap());
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["partitionsAdded"], 1, "{report}");
    let partitions = lake.partitions("t").await;
    assert_eq!((partitions.len(), partitions[0].storage.columns.len()), (1, 2));
}

#[tokio::test]
async fn an_object_event_reads_only_its_object() {
    let lake = Lake::new();
    lake.put("people/a.csv", "id,x\n1,2\n").await;
    lake.put("other/a.csv", "id,x\n1,2\n").await;
    let report = lake.event("ObjectCreated:Put", "people/a.csv").await;
    assert_eq!(report["files"]["listed"], 1);
    assert!(lake.has_table("people").await && !lake.has_table("other").await);
    lake.put("people/b c+d.csv", "id,x\n1,2.5\n").await;
    lake.event("ObjectCreated:Put", "people/b+c%2Bd.csv").await;
    assert_eq!(lake.columns("people").await, "id:bigint x:double");
}

#[tokio::test]
async fn a_table_without_files_is_deprecated_and_revived() {
    let lake = Lake::new();
    lake.put("people/a.csv", "id,x\n1,2\n").await;
    lake.put("people/b.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    lake.delete("people/a.csv").await;
    lake.event("ObjectRemoved:Delete", "people/a.csv").await;
    assert!(!lake.table("people").await.input.parameters.contains_key("DEPRECATED_BY_CRAWLER"));
    lake.delete("people/b.csv").await;
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["change"], "deprecated", "{report}");
    assert_eq!(lake.table("people").await.input.parameters["DEPRECATED_BY_CRAWLER"], "1000");
    lake.put("people/c.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    assert!(!lake.table("people").await.input.parameters.contains_key("DEPRECATED_BY_CRAWLER"));
}

#[tokio::test]
async fn a_partition_without_files_is_treated_as_the_policy_says() {
    for (policy, left) in [("deprecate", 2), ("delete", 1), ("log", 2)] {
        let lake = Lake::with(&format!("{{table: t, on_delete: {policy}}}"));
        lake.put("d=1/a.csv", "id,x\n1,2\n").await;
        lake.put("d=2/a.csv", "id,x\n1,2\n").await;
        lake.crawl().await;
        lake.delete("d=1/a.csv").await;
        let report = lake.crawl().await;
        assert_eq!(report["tables"][0]["partitionsGone"], 1, "{report}");
        let partitions = lake.partitions("t").await;
        assert_eq!(partitions.len(), left);
        let deprecated = partitions.iter().filter(|p| p.parameters.contains_key("DEPRECATED_BY_CRAWLER")).count();
        assert_eq!(deprecated, usize::from(policy == "deprecate"));
        lake.put("d=1/a.csv", "id,x\n1,2\n").await;
        lake.crawl().await;
        let partitions = lake.partitions("t").await;
        assert!(partitions.len() == 2 && partitions.iter().all(|p| p.parameters.is_empty()));
    }
}

#[tokio::test]
async fn a_folder_whose_partition_lies_elsewhere_is_named() {
    let lake = Lake::with("{table: t}");
    lake.put("d=a%20b/a.csv", "id,x\n1,2\n").await;
    lake.crawl().await;
    lake.put("d=a b/a.csv", "id,x\n3,4\n").await;
    let report = lake.crawl().await;
    assert_eq!(report["tables"][0]["partitionsAdded"], 0, "{report}");
    let detail = report["tables"][0]["details"][0].as_str().unwrap();
    assert!(detail.contains("the partition `a b` lies in"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_crawls_lose_nothing_of_each_other() {
    let lake = Arc::new(Lake::with("{table: t}"));
    let names: Vec<String> = (0..12).map(|n| format!("n={n}/a.json")).collect();
    for (n, name) in names.iter().enumerate() {
        lake.put(name, format!("{{\"id\":1,\"c{n}\":1}}\n")).await;
    }
    let crawls = names.iter().cloned().map(|name| {
        let lake = lake.clone();
        tokio::spawn(async move { lake.event("ObjectCreated:Put", &name).await })
    });
    for crawl in crawls.collect::<Vec<_>>() {
        crawl.await.unwrap();
    }
    assert_eq!(lake.table("t").await.input.storage.columns.len(), 13);
    assert_eq!(lake.partitions("t").await.len(), 12);
    assert_eq!(lake.crawl().await["files"]["read"], 0);
}

#[tokio::test]
async fn a_sample_limits_what_is_read_of_each_folder() {
    let lake = Lake::with("{table: t, sample: 2}");
    for n in 0..5 {
        lake.put(&format!("d=1/{n}.csv"), "id,x\n1,2\n").await;
    }
    let report = lake.crawl().await;
    assert_eq!((&report["files"]["read"], &report["files"]["assumed"]), (&json!(2), &json!(3)));
    assert_eq!(lake.crawl().await["files"]["unchanged"], 5);
}

#[tokio::test]
async fn the_last_reports_are_kept() {
    let lake = Lake::new();
    lake.put("a/x.csv", "id,n\n1,2\n").await;
    let report = lake.crawl().await;
    let answer = lake.call(request("GET", "/crawls", "")).await.unwrap();
    let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"crawls": [report]}));
}

#[tokio::test]
async fn marks_of_another_shape_are_a_defect_that_is_named() {
    let lake = Lake::new();
    put_json(lake.ports.state.as_ref(), "crawl/raw", &json!({"objects": 5}), Expect::Anything).await.unwrap();
    let answer = lake.call(request("POST", "/crawl", "{}")).await.unwrap();
    assert_eq!(answer["statusCode"], 500);
    assert!(answer["body"].as_str().unwrap().contains("crawl/raw"));
}

#[tokio::test]
async fn a_tick_without_a_name_crawls_what_is_due() {
    let lake = Lake::with("{schedule: rate(5m)}");
    lake.put("a.csv", "id,n\n1,2\n").await;
    let tick = || json!({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}});
    assert_eq!(lake.call(tick()).await.unwrap(), json!({"ran": [], "left": []}));
    lake.clock.advance(300_000);
    let answer = lake.call(tick()).await.unwrap();
    assert_eq!(answer["ran"][0]["answer"]["crawls"][0]["files"]["read"], 1, "{answer:#}");
    assert_eq!(lake.call(tick()).await.unwrap()["ran"], json!([]));
}

#[tokio::test]
async fn a_crawl_that_time_cuts_short_keeps_what_it_read_and_the_next_reads_the_rest() {
    let lake = Lake::with("{table: t, schedule: rate(5m)}");
    let tick = || json!({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}});
    lake.call(tick()).await.unwrap();
    lake.clock.advance(300_000);
    for n in 0..20 {
        lake.put(&format!("{n:02}.csv"), "id,n\n1,2\n").await;
    }
    let cut = deadline::until(0, lake.call(tick())).await.unwrap()["ran"][0]["answer"]["crawls"][0].clone();
    assert_eq!((&cut["unfinished"], &cut["files"]["read"]), (&json!(true), &json!(16)), "{cut:#}");
    assert!(lake.has_table("t").await);
    let rest = lake.call(tick()).await.unwrap()["ran"][0]["answer"]["crawls"][0].clone();
    assert_eq!((rest.get("unfinished"), &rest["files"]["read"]), (None, &json!(4)), "{rest:#}");
    assert_eq!(lake.call(tick()).await.unwrap()["ran"], json!([]));
    for n in 20..40 {
        lake.put(&format!("{n:02}.csv"), "id,n\n1,2\n").await;
    }
    let named = json!({"detail-type": "Scheduled Event", "source": "aws.events", "detail": {"name": "raw"}});
    let error = deadline::until(0, lake.call(named.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert_eq!(lake.call(named).await.unwrap()["crawls"][0]["files"]["read"], 4);
}
