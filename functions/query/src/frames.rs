//! The format `frames`: an Arrow IPC stream cut into frames, with what else is known of the answer between them and behind them.
//!
//! A frame is a byte that says what it is, the number of bytes that follow (32 bits, little endian), and these:
//!
//! | byte | frame |
//! |---|---|
//! | `a` | the next bytes of the Arrow IPC stream |
//! | `p` | how far the query is, as JSON: `{"rows", "bytes_scanned", "files_scanned", "spilled_bytes", "elapsed_ms", "expected_bytes"}` |
//! | `e` | the end, as JSON: `{"truncated", "stats", "committed"?}` |
//! | `x` | the end of an answer that failed on its way, as JSON: `{"kind", "message"}` |
//!
//! An answer whose last frame is neither `e` nor `x` was broken off.

use bytes::{Buf, Bytes, BytesMut};
use shared::{Error, Result};

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Arrow,
    Progress,
    End,
    Error,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Arrow => b'a',
            Self::Progress => b'p',
            Self::End => b'e',
            Self::Error => b'x',
        }
    }

    fn of(byte: u8) -> Result<Self> {
        [Self::Arrow, Self::Progress, Self::End, Self::Error]
            .into_iter()
            .find(|kind| kind.byte() == byte)
            .ok_or_else(|| Error::bug(format!("expected a frame of kind `a`, `p`, `e` or `x`, found byte {byte}")))
    }
}

/// Bytes of a frame's head.
const HEAD: usize = 5;

/// Adds a frame to `out`; one that holds too much for its length is cut into several.
pub fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    for part in payload.chunks(1 << 30) {
        out.push(kind.byte());
        out.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(part);
    }
}

/// Finds frames in bytes that come in parts of any size.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; none while it is not here whole.
    ///
    /// # Errors
    /// `Bug` for bytes that are no frame.
    #[expect(clippy::should_implement_trait, reason = "more may come after none")]
    pub fn next(&mut self) -> Result<Option<(Kind, Bytes)>> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let kind = Kind::of(kind)?;
        let length = u32::from_le_bytes(length) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        Ok(Some((kind, self.buffer.split_to(length).freeze())))
    }

    /// Whether no part of a frame is left.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_their_bytes_come() {
        let mut bytes = Vec::new();
        write(Kind::Arrow, b"rows", &mut bytes);
        write(Kind::End, b"{}", &mut bytes);
        for size in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for part in bytes.chunks(size) {
                frames.feed(part);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            let expected = [(Kind::Arrow, Bytes::from_static(b"rows")), (Kind::End, Bytes::from_static(b"{}"))];
            assert!(frames.is_empty() && found == expected, "in parts of {size}: {found:?}");
        }
    }

    #[test]
    fn other_bytes_are_no_frames() {
        let mut frames = Frames::default();
        frames.feed(b"<html>");
        assert!(frames.next().is_err());
    }
}
