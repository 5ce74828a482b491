//! Bytes: encodings, checksums, hashes.

use std::io::Cursor;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use data_encoding::BASE32;
use datafusion::common::{DataFusionError, Result};
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use twox_hash::XxHash64;

use super::call::{Bigint, Binary, Compute, Double, Integer, Real, Text, invalid, one, two};
use super::{Function, scalar};
use shared::Error;

const SECTION: &str = "Binary";

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

pub(super) fn functions() -> Vec<Function> {
    let mut functions = encodings();
    functions.extend(hashes());
    functions
}

fn encodings() -> Vec<Function> {
    vec![
        scalar(SECTION, "to_hex", "the bytes as hexadecimal digits")
            .way(
                "to_hex(varbinary) -> varchar",
                one::<Binary, String, _>(|bytes: &[u8]| data_encoding::HEXUPPER.encode(bytes)),
            )
            .example("to_hex(to_utf8('az'))", "617A"),
        scalar(SECTION, "from_hex", "the bytes that hexadecimal digits stand for")
            .way(
                "from_hex(varchar) -> varbinary",
                one::<Text, Vec<u8>, _>(|text: &str| {
                    data_encoding::HEXUPPER_PERMISSIVE.decode(text.as_bytes()).map_err(|e| {
                        invalid(format!("expected pairs of hexadecimal digits, found `{text}`")).context(e.to_string())
                    })
                }),
            )
            .example("from_utf8(from_hex('617a'))", "az"),
        scalar(SECTION, "to_base64", "the bytes in base64")
            .way("to_base64(varbinary) -> varchar", one::<Binary, String, _>(|bytes: &[u8]| BASE64.encode(bytes)))
            .example("to_base64(to_utf8('a?~'))", "YT9+"),
        scalar(SECTION, "from_base64", "the bytes that base64 stands for")
            .way("from_base64(varchar) -> varbinary", one::<Text, Vec<u8>, _>(|text: &str| from_base64(&BASE64, text)))
            .example("from_utf8(from_base64('YT9+'))", "a?~"),
        scalar(SECTION, "to_base64url", "the bytes in base64 of the alphabet for URLs")
            .way(
                "to_base64url(varbinary) -> varchar",
                one::<Binary, String, _>(|bytes: &[u8]| BASE64_URL.encode(bytes)),
            )
            .example("to_base64url(to_utf8('a?~'))", "YT9-"),
        scalar(SECTION, "from_base64url", "the bytes that base64 of the alphabet for URLs stands for")
            .way(
                "from_base64url(varchar) -> varbinary",
                one::<Text, Vec<u8>, _>(|text: &str| from_base64(&BASE64_URL, text)),
            )
            .example("from_utf8(from_base64url('YT9-'))", "a?~"),
        scalar(SECTION, "to_base32", "the bytes in base32")
            .way("to_base32(varbinary) -> varchar", one::<Binary, String, _>(|bytes: &[u8]| BASE32.encode(bytes)))
            .example("to_base32(to_utf8('abc'))", "MFRGG==="),
        scalar(SECTION, "from_base32", "the bytes that base32 stands for")
            .way(
                "from_base32(varchar) -> varbinary",
                one::<Text, Vec<u8>, _>(|text: &str| {
                    BASE32
                        .decode(text.as_bytes())
                        .map_err(|e| invalid(format!("expected base32, found `{text}`")).context(e.to_string()))
                }),
            )
            .example("from_utf8(from_base32('MFRGG==='))", "abc"),
        scalar(SECTION, "to_big_endian_32", "the integer as 4 bytes, the highest first")
            .way(
                "to_big_endian_32(integer) -> varbinary",
                one::<Integer, Vec<u8>, _>(|x: i32| x.to_be_bytes().to_vec()),
            )
            .example("to_hex(to_big_endian_32(CAST(258 AS integer)))", "00000102"),
        scalar(SECTION, "from_big_endian_32", "the integer that 4 bytes are")
            .way(
                "from_big_endian_32(varbinary) -> integer",
                one::<Binary, i32, _>(|bytes: &[u8]| exact(bytes).map(i32::from_be_bytes)),
            )
            .example("from_big_endian_32(from_hex('00000102'))", "258"),
        scalar(SECTION, "to_big_endian_64", "the bigint as 8 bytes, the highest first")
            .way("to_big_endian_64(bigint) -> varbinary", one::<Bigint, Vec<u8>, _>(|x: i64| x.to_be_bytes().to_vec()))
            .example("to_hex(to_big_endian_64(258))", "0000000000000102"),
        scalar(SECTION, "from_big_endian_64", "the bigint that 8 bytes are")
            .way(
                "from_big_endian_64(varbinary) -> bigint",
                one::<Binary, i64, _>(|bytes: &[u8]| exact(bytes).map(i64::from_be_bytes)),
            )
            .example("from_big_endian_64(from_hex('0000000000000102'))", "258"),
        scalar(SECTION, "to_ieee754_32", "the real as 4 bytes of IEEE 754, the highest first")
            .way("to_ieee754_32(real) -> varbinary", one::<Real, Vec<u8>, _>(|x: f32| x.to_be_bytes().to_vec()))
            .example("to_hex(to_ieee754_32(CAST(1 AS real)))", "3F800000"),
        scalar(SECTION, "from_ieee754_32", "the real that 4 bytes of IEEE 754 are")
            .way(
                "from_ieee754_32(varbinary) -> real",
                one::<Binary, f32, _>(|bytes: &[u8]| exact(bytes).map(f32::from_be_bytes)),
            )
            .example("from_ieee754_32(from_hex('3F800000'))", "1.0"),
        scalar(SECTION, "to_ieee754_64", "the double as 8 bytes of IEEE 754, the highest first")
            .way("to_ieee754_64(double) -> varbinary", one::<Double, Vec<u8>, _>(|x: f64| x.to_be_bytes().to_vec()))
            .example("to_hex(to_ieee754_64(1))", "3FF0000000000000"),
        scalar(SECTION, "from_ieee754_64", "the double that 8 bytes of IEEE 754 are")
            .way(
                "from_ieee754_64(varbinary) -> double",
                one::<Binary, f64, _>(|bytes: &[u8]| exact(bytes).map(f64::from_be_bytes)),
            )
            .example("from_ieee754_64(from_hex('3FF0000000000000'))", "1.0"),
    ]
}

fn hashes() -> Vec<Function> {
    vec![
        scalar(SECTION, "crc32", "the CRC-32 of the bytes")
            .way("crc32(varbinary) -> bigint", one::<Binary, i64, _>(|bytes: &[u8]| i64::from(crc32fast::hash(bytes))))
            .example("crc32(to_utf8('abc'))", "891568578"),
        scalar(SECTION, "md5", "the MD5 hash of the bytes")
            .way("md5(varbinary) -> varbinary", one::<Binary, Vec<u8>, _>(|bytes: &[u8]| Md5::digest(bytes).to_vec()))
            .example("to_hex(md5(to_utf8('a')))", "0CC175B9C0F1B6A831C399E269772661"),
        scalar(SECTION, "sha1", "the SHA-1 hash of the bytes")
            .way("sha1(varbinary) -> varbinary", one::<Binary, Vec<u8>, _>(|bytes: &[u8]| Sha1::digest(bytes).to_vec()))
            .example("to_hex(sha1(to_utf8('a')))", "86F7E437FAA5A7FCE15D1DDCB9EAEAEA377667B8"),
        scalar(SECTION, "sha256", "the SHA-256 hash of the bytes")
            .way(
                "sha256(varbinary) -> varbinary",
                one::<Binary, Vec<u8>, _>(|bytes: &[u8]| Sha256::digest(bytes).to_vec()),
            )
            .example("substr(to_hex(sha256(to_utf8('a'))), 1, 8)", "CA978112"),
        scalar(SECTION, "sha512", "the SHA-512 hash of the bytes")
            .way(
                "sha512(varbinary) -> varbinary",
                one::<Binary, Vec<u8>, _>(|bytes: &[u8]| Sha512::digest(bytes).to_vec()),
            )
            .example("substr(to_hex(sha512(to_utf8('a'))), 1, 8)", "1F40FC92"),
        scalar(SECTION, "hmac_md5", "the HMAC with MD5 of the bytes, by a key")
            .way("hmac_md5(varbinary, varbinary) -> varbinary", keyed::<Hmac<Md5>>())
            .example("to_hex(hmac_md5(to_utf8('a'), to_utf8('k')))", "DDCF3D210049E7135F61AFFAE73731CD"),
        scalar(SECTION, "hmac_sha1", "the HMAC with SHA-1 of the bytes, by a key")
            .way("hmac_sha1(varbinary, varbinary) -> varbinary", keyed::<Hmac<Sha1>>())
            .example("length(hmac_sha1(to_utf8('a'), to_utf8('k')))", "20"),
        scalar(SECTION, "hmac_sha256", "the HMAC with SHA-256 of the bytes, by a key")
            .way("hmac_sha256(varbinary, varbinary) -> varbinary", keyed::<Hmac<Sha256>>())
            .example("length(hmac_sha256(to_utf8('a'), to_utf8('k')))", "32"),
        scalar(SECTION, "hmac_sha512", "the HMAC with SHA-512 of the bytes, by a key")
            .way("hmac_sha512(varbinary, varbinary) -> varbinary", keyed::<Hmac<Sha512>>())
            .example("length(hmac_sha512(to_utf8('a'), to_utf8('k')))", "64"),
        scalar(SECTION, "murmur3", "the MurmurHash3 of 128 bits of the bytes")
            .way("murmur3(varbinary) -> varbinary", one::<Binary, Vec<u8>, _>(murmur3))
            .example("to_hex(murmur3(from_base64('aaaaaa')))", "BA5855635569B42F4920372CA0E396EF"),
        scalar(SECTION, "xxhash64", "the xxHash of 64 bits of the bytes")
            .way(
                "xxhash64(varbinary) -> varbinary",
                one::<Binary, Vec<u8>, _>(|bytes: &[u8]| XxHash64::oneshot(0, bytes).to_be_bytes().to_vec()),
            )
            .example("to_hex(xxhash64(to_utf8('hashme')))", "F9D96E0E1165E892"),
    ]
}

fn from_base64(engine: &GeneralPurpose, text: &str) -> Result<Vec<u8>> {
    engine.decode(text).map_err(|e| invalid(format!("expected base64, found `{text}`")).context(e.to_string()))
}

fn exact<const BYTES: usize>(bytes: &[u8]) -> Result<[u8; BYTES]> {
    bytes.try_into().map_err(|_| invalid(format!("expected {BYTES} bytes, found {}", bytes.len())))
}

fn keyed<M: Mac + KeyInit + 'static>() -> Compute {
    two::<Binary, Binary, Vec<u8>, _>(|bytes: &[u8], key: &[u8]| {
        let mut mac = <M as KeyInit>::new_from_slice(key)
            .map_err(|e| invalid(format!("expected a key, found {} bytes: {e}", key.len())))?;
        mac.update(bytes);
        Ok::<_, DataFusionError>(mac.finalize().into_bytes().to_vec())
    })
}

fn murmur3(bytes: &[u8]) -> Result<Vec<u8>> {
    let hash = murmur3::murmur3_x64_128(&mut Cursor::new(bytes), 0)
        .map_err(|e| DataFusionError::from(Error::bug("bytes in memory can't be read").with_source(e)))?;
    Ok(hash.to_le_bytes().to_vec())
}
