//! Refused records that are kept: one error object a request, where the stream says `keep_rejects`.

use format::records::Rejected;
use shared::Result;
use shared::digest::sha256_hex;
use shared::error::Context;
use shared::ports::Ports;
use url::Url;

use crate::Intake;
use crate::check::Verdict;

/// Removes what an earlier try of a request kept, of which nothing is refused any more: the schema was mended in between.
///
/// # Errors
/// What the storage answers.
pub(crate) async fn forget(ports: &Ports, intake: &Intake, at_ms: i64, identity: &str) -> Result<()> {
    match intake.declaration.keep_rejects {
        true => ports.storage.delete(&object_of(ports, intake, at_ms, identity)).await,
        false => Ok(()),
    }
}

/// Keeps what the check refused, before anything of the request is stored: a request that fails here can be sent again whole. The
/// same `identity` (and `at_ms`, when it came first, milliseconds since the epoch) writes the same object again.
///
/// # Errors
/// What the storage answers.
pub(crate) async fn keep(
    ports: &Ports,
    intake: &Intake,
    verdicts: &[Verdict],
    at_ms: i64,
    identity: &str,
) -> Result<()> {
    if !intake.declaration.keep_rejects {
        return Ok(());
    }
    let mut object = Vec::new();
    for verdict in verdicts {
        if let Verdict::Rejected { code, message, data } = verdict {
            Rejected::new(&intake.stream, None, at_ms, (code, message), data).write(&mut object)?;
        }
    }
    if object.is_empty() {
        return Ok(());
    }
    let url = object_of(ports, intake, at_ms, identity);
    ports.storage.put(&url, object).await.context(|| format!("keeping what stream `{}` refused", intake.stream))
}

fn object_of(ports: &Ports, intake: &Intake, at_ms: i64, identity: &str) -> Url {
    ports.keys.refused_object(&intake.stream, &format!("{at_ms}-{}", sha256_hex(identity, 12)))
}
