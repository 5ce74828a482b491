//! Against emulators of AWS: MiniStack; moto and kinesis-mock for what MiniStack lacks. Each runs once for all tests of this process and ends
//! with it; what it prints, the functions' logs too, goes to `out/tests/`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use adapters_aws::Aws;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;

use crate::lake::{Lake, program};

mod adapters;
mod backup;
mod bad_objects;
mod demo;
mod deployed;
mod faults;
mod poller;
mod proxy;
mod readers;
mod resharding;
mod roles;
mod statements;
mod upgrade;

/// An emulator that runs.
pub(crate) struct Emulator {
    pub(crate) endpoint: String,
    /// Whether signatures and grants are enforced.
    auth: bool,
    /// Ends when its standard input closes: with this process.
    _process: Child,
    /// One deployment at a time packs the zips.
    packing: Mutex<()>,
}

/// What `emulator.py deploy` prints.
pub(crate) struct Stack(serde_json::Value);

impl Stack {
    /// The URL of the HTTP API.
    pub(crate) fn api(&self) -> &str {
        self.0["apiUrl"].as_str().unwrap()
    }

    /// Names what was deployed: code, settings and template.
    pub(crate) fn release(&self) -> &str {
        self.0["release"].as_str().unwrap()
    }

    /// The warehouse's bucket.
    pub(crate) fn bucket(&self) -> &str {
        self.0["bucket"].as_str().unwrap()
    }

    /// What Kinesis calls a stream of the lakehouse.
    pub(crate) fn stream(&self, name: &str) -> &str {
        self.0["streams"][name].as_str().unwrap()
    }

    /// What Lambda calls one of the six functions.
    pub(crate) fn function(&self, name: &str) -> &str {
        self.0["functions"][name].as_str().unwrap()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A Python program of the emulators' environment.
fn python(script: &str) -> Command {
    let mut python = Command::new(root().join(".venv-emulator/bin/python"));
    python.arg(root().join(script)).current_dir(root());
    python
}

/// A connection to `endpoint` as the account's root.
pub(crate) async fn aws_at(endpoint: &str) -> Aws {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"));
    Aws::load_with(loader).await.unwrap()
}

impl Emulator {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let logs = root().join("out/tests");
        std::fs::create_dir_all(&logs).unwrap();
        let log = Path::new(script).with_extension("log");
        let log = std::fs::File::options().create(true).append(true).open(logs.join(log.file_name().unwrap())).unwrap();
        let mut command = python(script);
        let started = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut process = started.expect("`make setup` makes the environment of the emulators");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the emulator announces itself");
        let endpoint = ready["endpoint"].as_str().unwrap().to_owned();
        Self { endpoint, auth: false, _process: process, packing: Mutex::default() }
    }

    /// MiniStack, where every caller may do everything.
    pub(crate) fn ministack() -> &'static Self {
        static RUNNING: OnceLock<Emulator> = OnceLock::new();
        RUNNING.get_or_init(|| Self::start("localstack/emulator/emulator.py", &["up", "--with-parent"]))
    }

    /// Another MiniStack, for a test that shares no databases with others; it, too, ends with this process.
    pub(crate) fn alone() -> &'static Self {
        Box::leak(Box::new(Self::start("localstack/emulator/emulator.py", &["up", "--with-parent"])))
    }

    /// A MiniStack of its own where each function may do what its role allows.
    pub(crate) fn with_roles() -> &'static Self {
        static RUNNING: OnceLock<Emulator> = OnceLock::new();
        let start = || Self {
            auth: true,
            ..Self::start("localstack/emulator/emulator.py", &["up", "--with-parent", "--auth"])
        };
        RUNNING.get_or_init(start)
    }

    /// moto.
    pub(crate) fn moto() -> &'static Self {
        static RUNNING: OnceLock<Emulator> = OnceLock::new();
        RUNNING.get_or_init(|| Self::start("tests/e2e/emulator/run_moto.py", &[]))
    }

    /// kinesis-mock.
    pub(crate) fn kinesis_mock() -> &'static Self {
        static RUNNING: OnceLock<Emulator> = OnceLock::new();
        RUNNING.get_or_init(|| Self::start("tests/e2e/emulator/run_kinesis_mock.py", &[]))
    }

    /// A connection as the account's root.
    pub(crate) async fn aws(&self) -> Aws {
        aws_at(&self.endpoint).await
    }

    /// Packs this build's programs and deploys them as `stack`, each parameter as `NAME=VALUE`.
    pub(crate) async fn deploy(&'static self, stack: &str, lakehouse: &str, parameters: &[&str]) -> Stack {
        let lake = Lake::new(lakehouse);
        let target = program("ingest").parent().and_then(Path::parent).unwrap().to_owned();
        let mut pack = python("localstack/emulator/zips.py");
        pack.args(["--profile", "dev", "--lakehouse"]).arg(lake.lakehouse()).arg("--target").arg(target);
        let mut deploy = python("localstack/emulator/emulator.py");
        deploy.args(["deploy", "--endpoint", &self.endpoint, "--stack", stack, "--lakehouse"]).arg(lake.lakehouse());
        if self.auth {
            deploy.arg("--auth");
        }
        // The stacks of all tests share the account, where only one can make the system database: the functions make them.
        for parameter in [&["MakeDatabases=false"], parameters].concat() {
            deploy.args(["--parameter", parameter]);
        }
        let run = move || {
            {
                let _turn = self.packing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let packed = pack.output().unwrap();
                assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
                let folder = String::from_utf8(packed.stdout).unwrap().lines().last().unwrap().to_owned();
                deploy.args(["--zips", &folder]);
            }
            let deployed = deploy.stderr(Stdio::piped()).output().unwrap();
            assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
            drop(lake);
            Stack(serde_json::from_slice(&deployed.stdout).unwrap())
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}
