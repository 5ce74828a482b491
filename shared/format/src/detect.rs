//! From a file's first bytes to its format and schema, and how many bytes are read for it.

use std::io::Read;

use bytes::{Buf, Bytes};

use super::{Compression, FileFault, Sample, csv, json, parquet};

/// Bytes of a large file that a crawl reads.
pub const HEAD_BYTES: u64 = 1 << 20;

/// Bytes up to which a file is read whole, so that nothing of it comes as a surprise to a query; and of uncompressed text that is
/// sampled. Of a larger file whose first record does not end in its head as much is read too.
pub const WHOLE_BYTES: u64 = 8 << 20;

/// The bytes to read of a file of `size` bytes at first.
pub fn head_bytes(size: u64) -> u64 {
    if size <= WHOLE_BYTES { size } else { HEAD_BYTES }
}

/// Uncompressed bytes up to which a file that was read whole is checked to its end.
const CHECKED_BYTES: u64 = 256 << 20;

/// What the first bytes call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    /// Its footer must be read: [`parquet::footer`].
    Parquet,
    /// Its text can be sampled: [`sample_text`].
    Text,
}

/// Tells formats with a footer from text.
///
/// # Errors
/// `Empty`; `Unsupported` for formats that are known but not read.
pub fn magic(head: &[u8]) -> Result<Magic, FileFault> {
    let unsupported = |format: &str| Err(FileFault::Unsupported { format: format.into() });
    match head {
        [] => Err(FileFault::Empty),
        [b'P', b'A', b'R', b'1', ..] => Ok(Magic::Parquet),
        [b'P', b'A', b'R', b'E', ..] => unsupported("encrypted Parquet"),
        [b'O', b'R', b'C', ..] => unsupported("ORC"),
        [b'O', b'b', b'j', 1, ..] => unsupported("Avro"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => unsupported("a ZIP archive"),
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => unsupported("Arrow IPC"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => unsupported("UTF-16 text"),
        [b'%', b'P', b'D', b'F', ..] => unsupported("PDF"),
        _ => Ok(Magic::Text),
    }
}

/// Format and schema of text, compressed or not. `head` is the first bytes of the file `name`; `whole` says that there are no more.
///
/// # Errors
/// What is wrong with the file, as far as the bytes show it.
pub fn sample_text(name: &str, head: Bytes, whole: bool) -> Result<Sample, FileFault> {
    let compression = Compression::of_bytes(&head);
    if let Some(named) = Compression::of_name(name)
        && named != compression
    {
        return Err(FileFault::Corrupt {
            found: format!("expected {named} as the name says, found compression {compression}"),
        });
    }
    let (bytes, complete) = match compression {
        Compression::None => (head, whole),
        _ => inflate(compression, head, whole)?,
    };
    if compression != Compression::None && magic(&bytes)? == Magic::Parquet {
        return Err(FileFault::Unsupported { format: format!("Parquet inside {compression}") });
    }
    let text = text_of(&bytes, complete)?;
    if text.trim().is_empty() {
        return Err(FileFault::Empty);
    }
    let mut sample = sample_plain(name, text, complete)?;
    sample.format.compression = compression;
    Ok(sample)
}

fn sample_plain(name: &str, text: &str, complete: bool) -> Result<Sample, FileFault> {
    match text.trim_start().as_bytes().first() {
        Some(b'{' | b'[') => {
            if let Some(sample) = json::sample(text, complete) {
                return sample;
            }
            if is_named_json(name) {
                return Err(FileFault::Corrupt {
                    found: "expected JSON as the name says, found text that is none".into(),
                });
            }
        }
        Some(b'<') => return Err(FileFault::Unrecognized { found: "XML or HTML".into() }),
        _ => {}
    }
    csv::sample(text.as_bytes(), complete, name)
}

/// Whether the name, a compression's extension apart, says that the file is JSON.
fn is_named_json(name: &str) -> bool {
    let stem = match Compression::of_name(name) {
        Some(Compression::None) | None => name,
        Some(_) => name.rsplit_once('.').map_or(name, |(stem, _)| stem),
    };
    let extension = stem.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(extension.as_deref(), Some("json" | "ndjson" | "jsonl"))
}

/// The first bytes that `head` holds compressed, and whether they are all. A file that was read whole is read to its end, so that
/// a cut shows.
fn inflate(compression: Compression, head: Bytes, whole: bool) -> Result<(Bytes, bool), FileFault> {
    let corrupt = |found: String| FileFault::Corrupt { found };
    let mut reader = compression.reader(head.reader()).map_err(|error| corrupt(error.to_string()))?;
    let mut bytes = Vec::new();
    let outcome =
        reader.by_ref().take(WHOLE_BYTES).read_to_end(&mut bytes).and_then(|_| {
            if whole { std::io::copy(&mut reader.take(CHECKED_BYTES), &mut std::io::sink()) } else { Ok(0) }
        });
    match outcome {
        Ok(beyond) => {
            let complete = whole && beyond == 0;
            Ok((bytes.into(), complete))
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            if whole {
                return Err(FileFault::Truncated { found: format!("{compression} data ends too early") });
            }
            Ok((bytes.into(), false))
        }
        Err(error) => Err(corrupt(format!("{compression} data can't be read: {error}"))),
    }
}

/// The text without its byte order mark; a character that `complete` text would go on with is left out.
fn text_of(bytes: &[u8], complete: bool) -> Result<&str, FileFault> {
    let (bytes, skipped) = bytes.strip_prefix(b"\xef\xbb\xbf").map_or((bytes, 0), |rest| (rest, 3));
    if bytes.contains(&0) {
        return Err(FileFault::Unrecognized { found: "binary data".into() });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.error_len().is_none() && !complete => {
            Ok(std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default())
        }
        Err(error) => Err(FileFault::InvalidUtf8 { offset: (skipped + error.valid_up_to()) as u64 }),
    }
}

/// The bytes at the end of a Parquet file of `size` bytes to ask for first.
pub fn footer_range(size: u64) -> std::ops::Range<u64> {
    size.saturating_sub(parquet::FOOTER_BYTES)..size
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Encoding, JsonFormat};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn sample(name: &str, bytes: impl Into<Bytes>) -> Result<Sample, FileFault> {
        sample_text(name, bytes.into(), true)
    }

    #[test]
    fn text_is_told_by_its_content_whatever_its_name() {
        let json = sample("data", "{\"a\":1}\n").unwrap();
        assert_eq!(json.format.encoding, Encoding::Json(JsonFormat::Lines));
        assert!(matches!(sample("x.json", "a,b\n1,2\n").unwrap().format.encoding, Encoding::Csv(_)));
        let zipped = sample("a.csv.gz", gzip(b"a,b\n1,2\n")).unwrap();
        assert_eq!(zipped.format.compression, Compression::Gzip);
    }

    #[test]
    fn a_gzip_that_is_cut_anywhere_is_truncated() {
        let text = (0..2000).map(|i| format!("{i},{}\n", i * 7919 % 1000)).collect::<String>();
        let whole = gzip(format!("a,b\n{text}").as_bytes());
        for length in [12, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            let cut = whole[..length].to_vec();
            assert!(matches!(sample("a.csv.gz", cut), Err(FileFault::Truncated { .. })), "cut at {length}");
        }
        let head = Bytes::from(whole[..whole.len() / 2].to_vec());
        assert!(sample_text("a.csv.gz", head, false).is_ok());
    }

    #[test]
    fn invalid_utf8_is_reported_with_its_place() {
        assert_eq!(sample("a.csv", &b"a,b\n1,caf\xe9\n"[..]).unwrap_err(), FileFault::InvalidUtf8 { offset: 9 });
        let cut_character = Bytes::from_static(b"a,b\n1,x\n2,\xc3");
        assert!(sample_text("a.csv", cut_character, false).is_ok());
    }

    #[test]
    fn files_that_are_no_tables_say_what_they_are() {
        assert_eq!(sample("a.csv", "").unwrap_err(), FileFault::Empty);
        assert_eq!(sample("a.csv", " \n\n").unwrap_err(), FileFault::Empty);
        assert_eq!(sample("a.csv.gz", gzip(b"")).unwrap_err(), FileFault::Empty);
        assert!(matches!(sample("a.gz", "a,b\n1,2\n"), Err(FileFault::Corrupt { .. })));
        assert!(matches!(sample("a", &b"\x01\x00\x02"[..]), Err(FileFault::Unrecognized { .. })));
        assert!(matches!(sample("a.html", "<html></html>"), Err(FileFault::Unrecognized { .. })));
        let prose = "Dear reader,\nthis is a text, with commas, here and there.\nNothing more\nand, so, on, it, goes\n";
        assert!(matches!(sample("README", prose), Err(FileFault::Unrecognized { .. })));
        assert!(matches!(magic(b"ORC"), Err(FileFault::Unsupported { .. })));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        let sample = sample("a.csv", &b"\xef\xbb\xbfid,name\n1,x\n"[..]).unwrap();
        assert_eq!(sample.columns[0].name, "id");
    }
}
