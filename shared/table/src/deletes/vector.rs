//! Deletion vectors: the blob `deletion-vector-v1` of a Puffin file.
//!
//! The blob is the length of what follows but the checksum (4 bytes, big-endian), the magic `D1 D3 39 64`, a 64-bit Roaring
//! bitmap in the portable format, and a CRC-32 of magic and bitmap (4 bytes, big-endian): the Puffin specification's layout.
//! The manifest says where in the file it lies, so the file's footer is not read.

use iceberg::spec::{DataContentType, DataFile};
use roaring::RoaringTreemap;

use shared::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];

pub fn is_vector(file: &DataFile) -> bool {
    file.content_type() == DataContentType::PositionDeletes && file.content_offset().is_some()
}

/// The bytes of the file that hold the vector.
///
/// # Errors
/// `Bug` when the manifest does not say.
pub fn range(file: &DataFile) -> Result<std::ops::Range<u64>> {
    let start = file.content_offset().and_then(|offset| u64::try_from(offset).ok());
    let length = file.content_size_in_bytes().and_then(|length| u64::try_from(length).ok());
    match start.zip(length) {
        Some((start, length)) => Ok(start..start + length),
        None => Err(damaged("a place of the vector in the manifest", file.file_path())),
    }
}

/// Places of deleted rows.
///
/// # Errors
/// `Bug`, naming the file, for bytes that are no vector or not what their checksum says.
pub fn parse(blob: &[u8], path: &str) -> Result<RoaringTreemap> {
    let (Some((length, rest)), true) = (blob.split_first_chunk::<4>(), blob.len() >= 12) else {
        return Err(damaged("a vector of 12 bytes or more", path));
    };
    let (content, checksum) = rest.split_at(rest.len() - 4);
    if usize::try_from(u32::from_be_bytes(*length)).ok() != Some(content.len()) {
        return Err(damaged("a vector of the length that it says", path));
    }
    let mut crc = flate2::Crc::new();
    crc.update(content);
    if crc.sum().to_be_bytes() != checksum {
        return Err(damaged("a vector with the checksum that it says", path));
    }
    match content.strip_prefix(&MAGIC) {
        Some(bitmap) => {
            RoaringTreemap::deserialize_from(bitmap).map_err(|e| damaged("a Roaring bitmap", path).with_source(e))
        }
        None => Err(damaged("the magic number of a deletion vector", path)),
    }
}

fn damaged(expected: &str, path: &str) -> Error {
    Error::bug(format!("expected {expected} in the deletion vector of `{path}`, found none"))
}

/// The blob of some places, as [`parse`] reads it.
///
/// # Errors
/// `Limit` for a vector of 4 GiB or more.
pub fn blob(places: &RoaringTreemap) -> Result<Vec<u8>> {
    let mut content = MAGIC.to_vec();
    places.serialize_into(&mut content).map_err(|e| Error::bug("writing a deletion vector").with_source(e))?;
    let length = u32::try_from(content.len());
    let length = length.map_err(|_| Error::new(ErrorKind::Limit, "expected a deletion vector below 4 GiB"))?;
    let mut crc = flate2::Crc::new();
    crc.update(&content);
    Ok([length.to_be_bytes().as_slice(), &content, &crc.sum().to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_read_back_and_damage_is_named() {
        let places: RoaringTreemap = [0, 7, 70_000, 1 << 33].into_iter().collect();
        let blob = blob(&places).unwrap();
        assert_eq!(parse(&blob, "f").unwrap(), places);
        for place in [0, 5, 9, blob.len() - 1] {
            let mut damaged = blob.clone();
            damaged[place] ^= 1;
            let error = parse(&damaged, "f.puffin").unwrap_err();
            assert!(error.to_string().contains("`f.puffin`"), "{error}");
        }
        assert!(parse(&blob[..11], "f").is_err());
        assert!(parse(&[], "f").is_err());
    }

    #[test]
    fn the_layout_is_that_of_the_specification() {
        // One 32-bit bitmap with the key 0, of the one value 3: worked out by hand from the Roaring format.
        let bitmap =
            [1_u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3A, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 3, 0];
        let blob = blob(&[3].into_iter().collect()).unwrap();
        assert_eq!(blob[..8], [0, 0, 0, 34, 0xD1, 0xD3, 0x39, 0x64]);
        assert_eq!(blob[8..38], bitmap);
        assert_eq!(blob.len(), 42);
    }
}
