//! Short names of contents.

use sha2::{Digest, Sha256};

/// The first `bytes` bytes (32 at most) of the content's SHA-256, in hexadecimal digits.
pub fn sha256_hex(content: impl AsRef<[u8]>, bytes: usize) -> String {
    Sha256::digest(content).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The empty content's digest (FIPS 180-4).
    #[test]
    fn a_digest_begins_as_the_whole_does() {
        assert_eq!(sha256_hex("", 4), "e3b0c442");
        assert_eq!(sha256_hex("", 32).len(), 64);
    }
}
