//! How whole files are compressed.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use shared::{Error, Result};

/// How a whole file is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Bzip2,
    Zstd,
    Xz,
}

impl Compression {
    /// What the name's last extension says, one of plain text among them; `None` when it says nothing.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Some(Self::Gzip),
            "bz2" => Some(Self::Bzip2),
            "zst" | "zstd" => Some(Self::Zstd),
            "xz" => Some(Self::Xz),
            "csv" | "tsv" | "txt" | "json" | "ndjson" | "jsonl" | "parquet" => Some(Self::None),
            _ => None,
        }
    }

    /// What the first bytes say.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Self::Bzip2,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// A reader of what `compressed` holds.
    ///
    /// # Errors
    /// `Bug` when the codec can't be set up.
    pub fn reader(self, compressed: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::None => Box::new(compressed),
            Self::Gzip => Box::new(MultiGzDecoder::new(compressed)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(compressed)),
            Self::Zstd => Box::new(
                zstd::Decoder::new(compressed)
                    .map_err(|e| Error::bug(format!("{self} can't be read")).with_source(e))?,
            ),
            Self::Xz => Box::new(XzDecoder::new_multi_decoder(compressed)),
        })
    }
}

/// As in Glue's `compressionType`.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "none" | "uncompressed" => Ok(Self::None),
            "gzip" | "gz" => Ok(Self::Gzip),
            "bzip2" | "bz2" => Ok(Self::Bzip2),
            "zstd" | "zst" => Ok(Self::Zstd),
            "xz" => Ok(Self::Xz),
            _ => Err(Error::invalid(format!(
                "expected `compressionType` to be none, gzip, bzip2, zstd or xz, found `{text}`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_told_by_name_and_by_content() {
        assert_eq!(Compression::of_name("a/b.csv.GZ"), Some(Compression::Gzip));
        assert_eq!(Compression::of_name("b.csv"), Some(Compression::None));
        assert_eq!(Compression::of_name("b"), None);
        assert_eq!(Compression::of_bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0]), Compression::Zstd);
        assert_eq!(Compression::of_bytes(b"BZh,a,b"), Compression::None);
        assert_eq!(Compression::of_bytes(b"a,b"), Compression::None);
    }

    #[test]
    fn every_compression_survives_its_text() {
        for one in [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Zstd, Compression::Xz] {
            assert_eq!(one.to_string().parse::<Compression>().unwrap(), one);
        }
        assert!("rar".parse::<Compression>().unwrap_err().to_string().contains("`rar`"));
    }
}
