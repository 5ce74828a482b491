//! An opened lakehouse: the locked data directory, its ports, the six functions, and who answers which request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use batcher::Batcher;
use engine::Engine;
use jobs::schedule;
use shared::api::status::Problem;
use shared::api::{Body, Event, Request, Response};
use shared::catalog::ensure_database;
use shared::config::{Backend, Settings};
use shared::lock::DataLock;
use shared::ports::Ports;
use shared::project::changes::{self, Change, Effect};
use shared::project::{Project, StreamDeclaration};
use shared::state::Expect;
use shared::stream::StreamSpec;
use shared::{Error, ErrorKind, Result};
use transform::Transform;

use super::functions::{Function, Functions, owner_of};
use super::{renames, status};
use crate::backup;

/// How long a command that has the data directory is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The state document that holds the lakehouse file in force.
pub(crate) const IN_FORCE: &str = "project/in-force";

/// What becomes of a lakehouse file that is another than the one in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Takeover {
    /// It is taken over when nothing stays behind.
    #[default]
    Safe,
    /// It is taken over though something stays behind.
    Allowed,
    /// The one in force stays.
    Never,
}

/// What the runtime and the commands work on. One process at a time has a data directory.
#[derive(Debug)]
pub struct OpenLakehouse {
    pub project: Arc<Project>,
    pub ports: Ports,
    pub functions: Arc<Functions>,
    status: status::Source,
    /// The lakehouse file, and the text in force.
    file: PathBuf,
    text: String,
    _lock: DataLock,
}

impl OpenLakehouse {
    /// Locks and opens the data directory, loads the lakehouse file, makes the declared databases and streams, builds the
    /// functions. A command that has the directory is waited for.
    /// `address` is what other processes learn from the lock: the URL of the runtime, or nothing. A file that changed since the
    /// directory was last opened is taken over as `takeover` says.
    ///
    /// # Errors
    /// `Conflict`, with the pid, when another process has the directory; `NotFound` or `Invalid` for the lakehouse file, also when
    /// what exists can't follow it.
    pub async fn open(settings: &Settings, address: &str, takeover: Takeover) -> Result<Self> {
        if settings.place == Backend::Aws {
            return Err(Error::invalid(
                "expected TARN_PORTS to be `embedded` for a lakehouse in this process, found `aws`: call the deployed functions through \
                 their HTTP API",
            ));
        }
        let loaded = load(settings);
        // Its own mistakes are told before anything is opened.
        let loaded = if takeover == Takeover::Never { loaded } else { Ok(loaded?) };
        let lock = DataLock::acquire_in_turn(&settings.data, address, PATIENCE).await?;
        backup::forget_pins(&settings.data)?;
        let ports = wiring::connect(settings).await?;
        backup::follow_objects(&ports).await?;
        renames::finish(&ports).await?;
        let in_force = in_force(&ports).await?;
        let (text, project, is_new) = match (in_force, takeover) {
            (Some((text, Some(before))), Takeover::Never) => (text, before, false),
            (in_force, _) => {
                let (text, project) = loaded?;
                let is_new = in_force.as_ref().is_none_or(|(known, _)| *known != text);
                match in_force.and_then(|(_, before)| before).filter(|_| is_new) {
                    Some(before) => {
                        let next = followed(settings, &ports, before, (&text, project), takeover).await?;
                        (text, next, true)
                    }
                    None => (text, project, is_new),
                }
            }
        };
        let project = Arc::new(project);
        if takeover != Takeover::Never {
            for database in project.databases() {
                ensure_database(ports.catalog.as_ref(), database).await?;
            }
            for spec in stream_specs(&project) {
                ports.stream.create(&spec).await?;
            }
        }
        let functions = Functions::open(settings, &project, &ports)?;
        functions.recover().await?;
        schedule::release_all(&ports, &project).await?;
        // Last: a file that could not be opened is not in force.
        if is_new && takeover != Takeover::Never {
            ports.state.put(IN_FORCE, text.clone().into(), Expect::Anything).await?;
        }
        let status = status::Source {
            project: project.clone(),
            ports: ports.clone(),
            ready_ms: ports.clock.now_ms(),
            data: settings.data.clone(),
            file_problem: Arc::default(),
        };
        Ok(Self { project, ports, functions, status, file: settings.project.clone(), text, _lock: lock })
    }

    /// The text of the lakehouse file in force.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an edited file is known that can't be taken over.
    pub fn has_file_problem(&self) -> bool {
        self.status.has_file_problem()
    }

    /// Tells log and status why an edited file is not in force.
    pub fn tell_file_problem(&self, error: &Error) {
        let name = self.file.display().to_string();
        tracing::error!(file = name, %error, "the lakehouse file is not taken over");
        let message = format!("is not taken over: {error}");
        self.status.set_file_problem(Some(Problem::error("file", &name, message).since(self.ports.clock.now_ms())));
    }

    /// The text of the lakehouse file now; `None` when it can't be read.
    pub fn declaration(&self) -> Option<String> {
        std::fs::read_to_string(&self.file).ok()
    }

    /// Whether a lakehouse file is another one and can be taken over. When it can't, log and status say why, until another one
    /// can or this one is back.
    pub async fn judge(&self, text: &str, takeover: Takeover) -> bool {
        let name = self.file.display().to_string();
        let judged = async {
            if text == self.text {
                return Ok(false);
            }
            let next = Project::parse(text, &name)?;
            let mut changes = Batcher::new(self.project.clone(), self.ports.clone())?.plan(&next).await?;
            changes.extend(self.functions.check(text, &next).await?.changes);
            refusal(&changes, takeover).map_or(Ok(true), Err)
        };
        match judged.await {
            Ok(is_another) => {
                self.status.set_file_problem(None);
                is_another
            }
            Err(error) => {
                self.tell_file_problem(&error);
                false
            }
        }
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

/// The lakehouse file, as it is written and as it is meant.
fn load(settings: &Settings) -> Result<(String, Project)> {
    let origin = settings.project.display().to_string();
    let text = std::fs::read_to_string(&settings.project)
        .map_err(|e| Error::from(e).context(format!("reading the lakehouse file `{origin}`")))?;
    let project = Project::parse(&text, &origin)?;
    Ok((text, project))
}

/// The lakehouse file in force, as it is written and as it is meant; that is none of a file that this version can't read or serve.
async fn in_force(ports: &Ports) -> Result<Option<(String, Option<Project>)>> {
    let Some(known) = ports.state.get(IN_FORCE).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&known.bytes).into_owned();
    let project = Project::parse(&text, "the lakehouse file in force").ok();
    let project = project.filter(|project| Batcher::new(Arc::new(project.clone()), ports.clone()).is_ok());
    Ok(Some((text, project)))
}

/// The new file, if what exists can follow it.
async fn followed(
    settings: &Settings,
    ports: &Ports,
    before: Project,
    (text, next): (&str, Project),
    takeover: Takeover,
) -> Result<Project> {
    let before = Arc::new(before);
    let mut changes = Batcher::new(before.clone(), ports.clone())?.plan(&next).await?;
    let engine = Engine::open(settings, ports)?;
    changes.extend(Transform::new(before.clone(), ports.clone(), engine)?.check(text, &next).await?.changes);
    refusal(&changes, takeover).map_or(Ok(()), Err)?;
    if !changes::renames(&before, &next).is_empty() {
        // A file that can't be opened renames nothing.
        Functions::open(settings, &Arc::new(next.clone()), ports)?;
        renames::carry_out(ports, &before, &next, text).await?;
    }
    for Change { subject, name, what, then, .. } in &changes {
        tracing::info!(subject, name, what, then, "the lakehouse file changed");
    }
    Ok(next)
}

/// Why a file with these changes is not taken over, if it isn't.
fn refusal(changes: &[Change], takeover: Takeover) -> Option<Error> {
    let refused: Vec<&Change> = changes
        .iter()
        .filter(|change| match change.effect {
            Effect::Impossible => true,
            Effect::NeedsAllow => takeover != Takeover::Allowed,
            Effect::Applied => false,
        })
        .collect();
    let told: Vec<_> = refused.iter().map(|c| format!("{} `{}`, {}: {}", c.subject, c.name, c.what, c.then)).collect();
    let is_allowable = refused.iter().all(|change| change.effect == Effect::NeedsAllow);
    let hint = if is_allowable { "; `tarn up --allow` takes it over nevertheless" } else { "" };
    (!refused.is_empty()).then(|| {
        Error::invalid(format!(
            "expected a lakehouse file that what exists can follow, found: {}{hint}",
            told.join("; ")
        ))
    })
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
