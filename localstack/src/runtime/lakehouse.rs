//! An opened lakehouse: the locked data directory, its ports, the six functions, and who answers which request.

use std::sync::Arc;
use std::time::Duration;

use jobs::schedule;
use shared::api::{Body, Event, Request, Response};
use shared::catalog::ensure_database;
use shared::config::{Backend, Settings};
use shared::lock::DataLock;
use shared::ports::Ports;
use shared::project::{Project, StreamDeclaration};
use shared::stream::StreamSpec;
use shared::{Error, ErrorKind, Result};

use super::functions::{Function, Functions, owner_of};
use super::status;

/// How long a command that has the data directory is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the runtime and the commands work on. One process at a time has a data directory.
#[derive(Debug)]
pub struct OpenLakehouse {
    pub project: Arc<Project>,
    pub ports: Ports,
    pub functions: Arc<Functions>,
    status: status::Source,
    _lock: DataLock,
}

impl OpenLakehouse {
    /// Locks and opens the data directory, loads the lakehouse file, makes the declared databases and streams, builds the
    /// functions. A command that has the directory is waited for.
    /// `address` is what other processes learn from the lock: the URL of the runtime, or nothing.
    ///
    /// # Errors
    /// `Conflict`, with the pid, when another process has the directory; `NotFound` or `Invalid` for the lakehouse file.
    pub async fn open(settings: &Settings, address: &str) -> Result<Self> {
        if settings.place == Backend::Aws {
            return Err(Error::invalid(
                "expected TARN_PORTS to be `embedded` for a lakehouse in this process, found `aws`: call the deployed functions through \
                 their HTTP API",
            ));
        }
        let project = Arc::new(Project::load(&settings.project)?);
        let lock = DataLock::acquire_in_turn(&settings.data, address, PATIENCE).await?;
        let ports = wiring::connect(settings).await?;
        for database in project.databases() {
            ensure_database(ports.catalog.as_ref(), database).await?;
        }
        for spec in stream_specs(&project) {
            ports.stream.create(&spec).await?;
        }
        let functions = Functions::open(settings, &project, &ports)?;
        functions.recover().await?;
        schedule::release_all(&ports, &project).await?;
        let status = status::Source {
            project: project.clone(),
            ports: ports.clone(),
            ready_ms: ports.clock.now_ms(),
            data: settings.data.clone(),
        };
        Ok(Self { project, ports, functions, status, _lock: lock })
    }

    /// The answer to a request; an error becomes an answer here.
    pub async fn answer(&self, request: Request) -> Response<Body> {
        match self.dispatch(request).await {
            Ok(response) => response,
            Err(error) => {
                if error.kind() == ErrorKind::Bug {
                    tracing::error!(%error, "request failed");
                }
                Response::error(&error).into()
            }
        }
    }

    /// Whether this process lives; nothing is asked for it.
    pub fn health(&self) -> Response {
        Response::json(200, &self.status.health()).unwrap_or_else(|error| Response::error(&error))
    }

    /// Gives the request to the function that owns the route; what only the runtime knows is answered here.
    async fn dispatch(&self, request: Request) -> Result<Response<Body>> {
        let segments = request.segments();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["health"]) => return Ok(self.health().into()),
            ("GET", ["status"]) => {
                return self.status.status(&self.functions).await.response().map(Response::from);
            }
            ("GET", ["metrics"]) => return Ok(self.status.metrics(&self.functions).await.into()),
            _ => {}
        }
        let function = owner_of(&segments)
            .ok_or_else(|| Error::not_found(format!("no route {} {}", request.method, request.path)))?;
        let stream = match (function, segments.as_slice()) {
            (Function::Batcher, ["streams", stream, ..]) => Some((*stream).to_owned()),
            _ => None,
        };
        let event = Event::Http(request);
        let reply = match stream {
            Some(stream) => self.functions.batch(&stream, event).await?,
            None => self.functions.call(function, event).await?,
        };
        reply.response()
    }
}

/// The streams that the lakehouse file declares.
fn stream_specs(project: &Project) -> Vec<StreamSpec> {
    let spec = |(name, stream): (&String, &StreamDeclaration)| StreamSpec {
        name: name.clone(),
        shards: stream.shards,
        retention_hours: u32::try_from(stream.retention.0.div_ceil(3600)).unwrap_or(u32::MAX),
    };
    project.file().streams.iter().map(spec).collect()
}
