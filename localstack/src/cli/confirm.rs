//! A question before something goes for good.

use std::io::{IsTerminal, Write};

use shared::error::Context;
use shared::{Error, Result};

/// Asks at the terminal.
///
/// # Errors
/// `Invalid` when the answer is not yes, or there is no terminal to ask at.
pub(super) fn confirm(question: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid("expected `--yes`, found no terminal to ask at: nothing was removed"));
    }
    let mut stderr = std::io::stderr().lock();
    let ask = write!(stderr, "{question} [y/N] ");
    ask.and_then(|()| stderr.flush()).context(|| "asking".to_owned())?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context(|| "reading the answer".to_owned())?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::invalid("nothing was removed")),
    }
}
