//! A lakehouse of a test's own: a temporary directory, the program `tarn` on it, an HTTP client.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program `name` of this build.
pub(crate) fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "`{}` is not built: run `cargo build --workspace --bins` or `make test`", path.display());
    path
}

/// A directory with a lakehouse file, and `tarn up` when it was started.
pub(crate) struct Lake {
    /// Kept so that the directory lives as long as the lake; `None` when the test owns it.
    _own: Option<TempDir>,
    dir: PathBuf,
    running: Option<Running>,
    /// The HTTP API of a lakehouse that runs elsewhere.
    deployed: Option<String>,
    client: reqwest::Client,
}

struct Running {
    child: Child,
    url: String,
}

impl Lake {
    /// A lakehouse that nothing runs on yet.
    pub(crate) fn new(lakehouse: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut lake = Self::at(own.path(), lakehouse);
        lake._own = Some(own);
        lake
    }

    /// A lakehouse in a directory of the test's.
    pub(crate) fn at(dir: &Path, lakehouse: &str) -> Self {
        std::fs::write(dir.join("lakehouse.yaml"), lakehouse).unwrap();
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { _own: None, dir: dir.into(), running: None, deployed: None, client }
    }

    /// A lakehouse with `tarn up` on it.
    pub(crate) fn up(lakehouse: &str) -> Self {
        let mut lake = Self::new(lakehouse);
        lake.start();
        lake
    }

    /// A lakehouse that answers at `url`.
    pub(crate) fn deployed(lakehouse: &str, url: &str) -> Self {
        let mut lake = Self::new(lakehouse);
        lake.deployed = Some(url.into());
        lake
    }

    pub(crate) fn lakehouse(&self) -> PathBuf {
        self.dir.join("lakehouse.yaml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// `tarn` on this lakehouse, arguments to follow.
    pub(crate) fn tarn(&self, command: &str) -> Command {
        let mut tarn = Command::new(program("tarn"));
        tarn.arg(command).arg("--data").arg(self.data()).arg("--project").arg(self.dir.join("lakehouse.yaml"));
        for variable in shared::config::VARIABLES {
            tarn.env_remove(variable.name);
        }
        tarn
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Output {
        self.tarn(command).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts `tarn up` and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.start_as(self.tarn("up"));
    }

    /// As [`Lake::start`], though something of an edited lakehouse file stays behind.
    pub(crate) fn start_allowing(&mut self) {
        let mut tarn = self.tarn("up");
        tarn.arg("--allow");
        self.start_as(tarn);
    }

    /// As [`Lake::start`] with a setting.
    pub(crate) fn start_with(&mut self, variable: &str, value: &str) {
        let mut tarn = self.tarn("up");
        tarn.env(variable, value);
        self.start_as(tarn);
    }

    /// Starts `tarn up` where no file may become larger than so many bytes: the next byte gets `EFBIG`.
    pub(crate) fn start_with_files_up_to(&mut self, bytes: u64) {
        let tarn = self.tarn("up");
        let mut limited = Command::new("bash");
        // Without the trap the kernel would end the process at once. Bash counts KiB.
        limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 1024)]);
        limited.arg(tarn.get_program()).args(tarn.get_args());
        for (name, _) in tarn.get_envs() {
            limited.env_remove(name);
        }
        self.start_as(limited);
    }

    fn start_as(&mut self, mut up: Command) {
        assert!(self.running.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        up.args(["--port", "0", "--output", "json"]);
        let mut child =
            ending_with_the_tests(&up).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("expected a JSON line when ready, found `{line}`: {e}\n{}", self.log()));
        self.running = Some(Running { child, url: ready["url"].as_str().unwrap().into() });
    }

    /// Ends the process without warning.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        running.child.kill().unwrap();
        running.child.wait().unwrap();
    }

    /// Asks the process to stop, and gives its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut running = self.running.take().unwrap();
        let asked = Command::new("kill").arg(running.child.id().to_string()).status().unwrap();
        assert!(asked.success());
        running.child.wait().unwrap().code()
    }

    /// Ends the process without warning in a while; what waits for the result knows that it is gone.
    pub(crate) fn kill_in(&self, milliseconds: u64) -> tokio::task::JoinHandle<()> {
        let pid = self.pid().to_string();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            assert!(tokio::process::Command::new("kill").args(["-9", &pid]).status().await.unwrap().success());
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().child.id()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let own = || self.running.as_ref().expect("it is not up").url.as_str();
        let url = self.deployed.as_deref().unwrap_or_else(own);
        format!("{}{path}", url.trim_end_matches('/'))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A POST; status and JSON body.
    pub(crate) async fn post(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        let request = self.client.post(self.url(path)).header("content-type", content_type).body(body.into());
        answer(request).await.unwrap_or_else(|e| panic!("POST {path}: {e:?}\n{}", self.log()))
    }

    /// A POST that may find nobody there.
    pub(crate) async fn try_post(
        &self,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Value), reqwest::Error> {
        self.try_send("POST", path, &[("content-type", content_type)], body).await
    }

    /// A request that may find nobody there.
    pub(crate) async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let request = self.client.request(method.parse().unwrap(), self.url(path)).body(body);
        answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    /// A POST with more headers.
    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Value) {
        let request = headers.iter().fold(self.client.post(self.url(path)), |r, (name, value)| r.header(*name, *value));
        answer(request.body(body)).await.unwrap()
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        answer(self.client.put(self.url(path)).body(body.into())).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(self.url(path))).await.unwrap()
    }

    /// The rows of a query that must succeed.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        let (status, body) = self.query(sql).await;
        assert_eq!(status, 200, "{sql}\n{body:#}\n{}", self.log());
        serde_json::from_value(body["rows"].clone()).unwrap()
    }

    /// Every row of a table as text, in order.
    pub(crate) async fn rows(&self, table: &str) -> Vec<String> {
        let mut rows: Vec<_> =
            self.sql(&format!("SELECT * FROM {table}")).await.iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        rows
    }

    /// Status and answer of a query.
    pub(crate) async fn query(&self, sql: &str) -> (u16, Value) {
        self.post("/query", "application/json", json!({ "sql": sql }).to_string()).await
    }

    /// The one number that a query gives; `None` while its table does not exist.
    pub(crate) async fn number(&self, sql: &str) -> Option<i64> {
        let (status, body) = self.query(sql).await;
        match status {
            200 => Some(as_i64(&body["rows"][0][0])),
            404 => None,
            _ => panic!("{sql}\n{body:#}\n{}", self.log()),
        }
    }

    /// Has the batcher write all that a stream holds.
    pub(crate) async fn flush(&self, stream: &str) -> Value {
        let (status, body) = self.post(&format!("/streams/{stream}/flush"), "application/json", "{}").await;
        assert_eq!(status, 200, "{body:#}\n{}", self.log());
        body
    }

    /// Waits until a query gives `expected`.
    pub(crate) async fn until(&self, sql: &str, expected: i64) {
        let started = Instant::now();
        let mut found = None;
        while started.elapsed() < PATIENCE {
            found = self.number(sql).await;
            if found == Some(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("expected {expected} from `{sql}` within {PATIENCE:?}, found {found:?}\n{}", self.log());
    }
}

impl Drop for Lake {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// The command as a process that the kernel ends when the thread of the test ends, also when the tests are killed.
fn ending_with_the_tests(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

/// A JSON number, also one that is written as text because it may be past 2^53.
pub(crate) fn as_i64(value: &Value) -> i64 {
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_else(|| panic!("expected an integer, found {value}"))
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(u16, Value), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body = response.bytes().await?;
    let value = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    Ok((status, value))
}

/// Compresses as `Content-Encoding: gzip` does.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
