//! Who may call the local server: a page of another origin, in a real browser, can do nothing; programs can.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::demo::browser;
use crate::lake::Lake;

const LAKEHOUSE: &str = "
version: 1
database: shop
streams:
  orders: {schema: [{name: id, type: bigint, required: true}], buffer: {interval: 1s}}
locations:
  customers: {}
workflows:
  daily:
    jobs:
      copy: {sql: SELECT 1 AS x, into: copied}
insights:
  forecast: {kind: forecast, sql: 'SELECT DATE ''2024-01-01'' AS d, 1.0 AS v', date: d, value: v, into: forecasts}
";

/// A page that sends to every route what a browser lets it send, in every way, and then says so in its title.
fn attack(target: &str) -> String {
    let script = r#"
    const bodies = {
      "/query": '{"sql": "DROP TABLE shop.kept"}', "/query?x=1": "DROP TABLE shop.kept",
      "/streams/orders/records": '{"id": 666}\n', "/streams/orders/flush": "{}", "/files/customers/evil.csv": "a,b\n1,2\n",
      "/uploads/customers/evil.csv": "", "/crawl": "{}", "/workflows/daily/runs": "{}", "/runs/1/resume": "{}",
      "/insight": "{}", "/insights/forecast": "{}", "/status": "", "/health": "",
    };
    const types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json", "", null];
    const form = (path, enctype, body) => new Promise(done => {
      const frame = document.createElement("iframe"), form = document.createElement("form"), field = document.createElement("input");
      frame.name = "f" + Math.random(); document.body.append(frame);
      Object.assign(form, {action: TARGET + path, method: "POST", enctype, target: frame.name});
      Object.assign(field, {name: body.slice(0, -1) + ',"y":"', value: '"}'});
      form.append(field); document.body.append(form); form.submit(); setTimeout(done, 150);
    });
    (async () => {
      let read = 0, sent = 0;
      for (const [path, body] of Object.entries(bodies)) {
        for (const mode of ["no-cors", "cors"]) for (const method of ["GET", "POST", "PUT", "DELETE"]) for (const type of types) {
          const headers = type ? {"content-type": type} : {};
          const blob = method === "GET" ? undefined : type === "" ? new Blob([body]) : body;
          sent++;
          try { const answer = await fetch(TARGET + path, {method, mode, headers, body: blob}); if (answer.type !== "opaque") read++; }
          catch {}
        }
        for (const type of types) { try { navigator.sendBeacon(TARGET + path, new Blob([body], {type: type || ""})); } catch {} }
        for (const enctype of types.slice(0, 3)) await form(path, enctype, body);
        const image = new Image(); image.src = TARGET + path;
        const script = document.createElement("script"); script.src = TARGET + path; document.body.append(script);
      }
      await new Promise(done => setTimeout(done, 1500));
      document.title = `sent=${sent} read=${read}`;
    })();"#;
    format!("<html><body><script>const TARGET = {target:?};{script}</script></body></html>")
}

/// Serves the page on a port of its own until the test ends.
fn serve(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n", page.len());
            let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{page}").as_bytes());
        }
    });
    url
}

fn open_in_browser(page: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser())
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--no-proxy-server"])
        .args(["--timeout=60000", "--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(page)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_changes_and_reads_nothing() {
    let lake = Lake::up(LAKEHOUSE);
    lake.sql("CREATE TABLE kept AS SELECT 1 AS x").await;
    let (_, before) = lake.get("/status").await;
    let page = serve(attack(&lake.url("")));
    let dom = tokio::task::spawn_blocking(move || open_in_browser(&page)).await.unwrap();
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap_or_default();
    assert!(title.contains("sent=") && !title.contains("sent=0"), "the page ran: {dom}");
    assert!(title.ends_with("read=0"), "{title}");

    assert_eq!(lake.number("SELECT x FROM kept").await, Some(1));
    lake.flush("orders").await;
    assert_eq!(lake.number("SELECT count(*) FROM orders").await, Some(0), "nothing was put");
    assert_eq!(lake.number("SELECT count(*) FROM copied").await, None, "nothing ran");
    assert_eq!(lake.number("SELECT count(*) FROM forecasts").await, None, "nothing was asked");
    assert!(!lake.data().join("objects/raw/customers").exists(), "nothing was uploaded");
    let (_, after) = lake.get("/status").await;
    for part in ["streams", "locations", "runs", "crawls"] {
        assert_eq!(before[part], after[part], "{part}");
    }
}

/// Status of a request as it is written here.
fn status_of(lake: &Lake, request: &str) -> u16 {
    let url = lake.url("");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in `{answer}`"))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_hosts_and_of_forms_are_refused_before_their_route() {
    let lake = Lake::up(LAKEHOUSE);
    let body = json!({"sql": "SELECT 1"}).to_string();
    let post = |host: &str, header: &str| {
        let length = body.len();
        format!(
            "POST /query HTTP/1.1\r\nhost: {host}\r\n{header}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    for (host, header, status) in [
        ("127.0.0.1", "content-type: application/json", 200),
        ("localhost:1", "content-type: application/json", 200),
        ("rebound.example", "content-type: application/json", 403),
        ("127.0.0.1", "content-type: text/plain", 415),
        ("127.0.0.1", "content-type: application/json\r\norigin: http://evil.example", 403),
        ("127.0.0.1", "content-type: application/x-www-form-urlencoded\r\nx-tarn-client: curl", 200),
    ] {
        assert_eq!(status_of(&lake, &post(host, header)), status, "{host} {header}");
    }
    for path in ["/health", "/status", "/streams", "/nothing"] {
        let get = format!("GET {path} HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n");
        assert_eq!(status_of(&lake, &get), 403, "{path}");
    }
}
