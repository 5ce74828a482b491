//! Texts, counted in code points.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use datafusion::common::Result;
use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

use super::call::{Bigint, Binary, Call, Text, collect, invalid, one, three, two, whole};
use super::{Function, scalar};

const SECTION: &str = "String";

pub(super) fn functions() -> Vec<Function> {
    let mut functions = parts();
    functions.extend(changes());
    functions
}

fn parts() -> Vec<Function> {
    vec![
        scalar(SECTION, "length", "the characters of a text, the bytes of a binary")
            .alias(&["char_length", "character_length"])
            .way("length(varchar) -> bigint", one::<Text, i64, _>(|text: &str| count(text.chars().count())))
            .way("length(varbinary) -> bigint", one::<Binary, i64, _>(|bytes: &[u8]| count(bytes.len())))
            .example("length('aß𝄞')", "3"),
        scalar(
            SECTION,
            "substr",
            "the part from `start` on, counted from 1, or from the end if negative; at most `length` long",
        )
        .alias(&["substring"])
        .way(
            "substr(varchar, bigint) -> varchar",
            whole(|call| {
                let (text, start) = (call.column::<Text>(0)?, call.column::<Bigint>(1)?);
                collect(call, |row| {
                    Ok(text.get(row).zip(start.get(row)).map(|(text, start)| part(text, start, i64::MAX)))
                })
            }),
        )
        .way(
            "substr(varchar, bigint, bigint) -> varchar",
            whole(|call| {
                let (text, start, length) =
                    (call.column::<Text>(0)?, call.column::<Bigint>(1)?, call.column::<Bigint>(2)?);
                collect(call, |row| match (text.get(row), start.get(row), length.get(row)) {
                    (Some(text), Some(start), Some(length)) => Ok(Some(part(text, start, length))),
                    _ => Ok(None),
                })
            }),
        )
        .way(
            "substr(varbinary, bigint) -> varbinary",
            two::<Binary, Bigint, Vec<u8>, _>(|bytes: &[u8], start| bytes_part(bytes, start, i64::MAX)),
        )
        .way(
            "substr(varbinary, bigint, bigint) -> varbinary",
            three::<Binary, Bigint, Bigint, Vec<u8>, _>(|bytes: &[u8], start, length| bytes_part(bytes, start, length)),
        )
        .example("substr('lakehouse', 5)", "house")
        .example("substr('lakehouse', -5, 2)", "ho"),
        scalar(
            SECTION,
            "strpos",
            "where the part stands for the first time, or for the nth, from the end if negative; 0 if nowhere",
        )
        .way(
            "strpos(varchar, varchar) -> bigint",
            two::<Text, Text, i64, _>(|text: &str, part: &str| position(text, part, 1)),
        )
        .way(
            "strpos(varchar, varchar, bigint) -> bigint",
            three::<Text, Text, Bigint, i64, _>(|text: &str, part: &str, nth| position(text, part, nth)),
        )
        .example("strpos('banana', 'an')", "2")
        .example("strpos('banana', 'an', -1)", "4"),
        scalar(SECTION, "chr", "the character of a code point")
            .way(
                "chr(bigint) -> varchar",
                one::<Bigint, String, _>(|point| {
                    let char = u32::try_from(point).ok().and_then(char::from_u32);
                    char.map(String::from)
                        .ok_or_else(|| invalid(format!("expected a code point of Unicode, found {point}")))
                }),
            )
            .example("chr(8364)", "€"),
        scalar(SECTION, "codepoint", "the code point of the only character")
            .way(
                "codepoint(varchar) -> integer",
                one::<Text, i32, _>(|text: &str| {
                    let mut chars = text.chars();
                    match (chars.next(), chars.next()) {
                        (Some(char), None) => Ok(u32::from(char).cast_signed()),
                        _ => Err(invalid(format!("expected one character, found `{text}`"))),
                    }
                }),
            )
            .example("codepoint('€')", "8364"),
        scalar(SECTION, "to_utf8", "the bytes of the text in UTF-8")
            .way("to_utf8(varchar) -> varbinary", one::<Text, Vec<u8>, _>(|text: &str| text.as_bytes().to_vec()))
            .example("to_hex(to_utf8('é'))", "C3A9"),
        scalar(
            SECTION,
            "from_utf8",
            "the text that bytes in UTF-8 are; what is no UTF-8 becomes `replacement` or U+FFFD",
        )
        .way(
            "from_utf8(varbinary) -> varchar",
            one::<Binary, String, _>(|bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned()),
        )
        .way("from_utf8(varbinary, varchar) -> varchar", two::<Binary, Text, String, _>(from_utf8))
        .way(
            "from_utf8(varbinary, bigint) -> varchar",
            two::<Binary, Bigint, String, _>(|bytes: &[u8], point| {
                let char = u32::try_from(point).ok().and_then(char::from_u32);
                let char = char.ok_or_else(|| invalid(format!("expected a code point of Unicode, found {point}")))?;
                from_utf8(bytes, char.encode_utf8(&mut [0; 4]))
            }),
        )
        .example("from_utf8(from_hex('61FF62'), '?')", "a?b"),
    ]
}

fn changes() -> Vec<Function> {
    vec![
        scalar(SECTION, "lower", "the text in small letters")
            .way(
                "lower(varchar) -> varchar",
                one::<Text, String, _>(|text: &str| text.chars().map(lower).collect::<String>()),
            )
            .example("lower('ÄB')", "äb"),
        scalar(SECTION, "upper", "the text in capitals, each character by itself: `ß` stays")
            .way(
                "upper(varchar) -> varchar",
                one::<Text, String, _>(|text: &str| text.chars().map(upper).collect::<String>()),
            )
            .example("upper('straße')", "STRAßE"),
        scalar(
            SECTION,
            "trim",
            "the text without white space at both ends, or without the characters named: `trim(BOTH 'x' FROM text)`",
        )
        .alias(&["btrim"])
        .way("trim(varchar) -> varchar", trimmed(true, true))
        .way("trim(varchar, varchar) -> varchar", trimmed(true, true))
        .example("trim(chr(9) || ' a ')", "a")
        .example("trim('xy', 'y')", "x"),
        scalar(SECTION, "ltrim", "the text without white space at its beginning, or without the characters named")
            .way("ltrim(varchar) -> varchar", trimmed(true, false))
            .way("ltrim(varchar, varchar) -> varchar", trimmed(true, false))
            .example("ltrim('  a ') || '|'", "a |"),
        scalar(SECTION, "rtrim", "the text without white space at its end, or without the characters named")
            .way("rtrim(varchar) -> varchar", trimmed(false, true))
            .way("rtrim(varchar, varchar) -> varchar", trimmed(false, true))
            .example("'|' || rtrim(' a  ')", "| a"),
        scalar(SECTION, "lpad", "the text filled from the left, or cut, to that many characters")
            .way(
                "lpad(varchar, bigint, varchar) -> varchar",
                three::<Text, Bigint, Text, String, _>(|text: &str, to, with: &str| padded(text, to, with, true)),
            )
            .way(
                "lpad(varbinary, bigint, varbinary) -> varbinary",
                three::<Binary, Bigint, Binary, Vec<u8>, _>(|bytes: &[u8], to, with: &[u8]| {
                    bytes_padded(bytes, to, with, true)
                }),
            )
            .example("lpad('7', 3, '0')", "007"),
        scalar(SECTION, "rpad", "the text filled from the right, or cut, to that many characters")
            .way(
                "rpad(varchar, bigint, varchar) -> varchar",
                three::<Text, Bigint, Text, String, _>(|text: &str, to, with: &str| padded(text, to, with, false)),
            )
            .way(
                "rpad(varbinary, bigint, varbinary) -> varbinary",
                three::<Binary, Bigint, Binary, Vec<u8>, _>(|bytes: &[u8], to, with: &[u8]| {
                    bytes_padded(bytes, to, with, false)
                }),
            )
            .example("rpad('abcdef', 3, '-')", "abc"),
        scalar(SECTION, "replace", "the text with each `search` as `replacement`, or without it")
            .way(
                "replace(varchar, varchar) -> varchar",
                two::<Text, Text, String, _>(|text: &str, search: &str| text.replace(search, "")),
            )
            .way(
                "replace(varchar, varchar, varchar) -> varchar",
                three::<Text, Text, Text, String, _>(|text: &str, search: &str, with: &str| text.replace(search, with)),
            )
            .example("replace('a-b-c', '-', '+')", "a+b+c"),
        scalar(SECTION, "reverse", "the characters, bytes or elements from the last to the first")
            .way(
                "reverse(varchar) -> varchar",
                one::<Text, String, _>(|text: &str| text.chars().rev().collect::<String>()),
            )
            .way(
                "reverse(varbinary) -> varbinary",
                one::<Binary, Vec<u8>, _>(|bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>()),
            )
            .way("reverse(array(T)) -> array(T)", whole(reversed))
            .example("reverse('añb')", "bña")
            .example("reverse(ARRAY[1, 2])", "[2, 1]"),
        scalar(
            SECTION,
            "translate",
            "the text with each character of `from` as that at its place in `to`, or without it",
        )
        .way("translate(varchar, varchar, varchar) -> varchar", three::<Text, Text, Text, String, _>(translate))
        .example("translate('Palhoça', 'ç', 'c')", "Palhoca"),
        scalar(SECTION, "normalize", "the text in the normal form `NFC`, `NFD`, `NFKC` or `NFKD` of Unicode")
            .way("normalize(varchar) -> varchar", one::<Text, String, _>(|text: &str| text.nfc().collect::<String>()))
            .way("normalize(varchar, varchar) -> varchar", two::<Text, Text, String, _>(normalize))
            .example("length(normalize('é', NFD))", "2"),
        scalar(SECTION, "soundex", "how the word sounds, as a letter and three digits")
            .way("soundex(varchar) -> varchar", one::<Text, String, _>(soundex))
            .example("soundex('CHYNA') = soundex('CHINA')", "true"),
        scalar(SECTION, "word_stem", "the stem of a word, in English or the language of a code such as `'de'`")
            .way("word_stem(varchar) -> varchar", one::<Text, String, _>(|word: &str| stem(word, "en")))
            .way("word_stem(varchar, varchar) -> varchar", two::<Text, Text, String, _>(stem))
            .example("word_stem('running')", "run"),
    ]
}

pub(super) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The place in bytes of a character, or the text's end.
fn byte_at(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

/// Where a part begins among `all`, and how long it is; none of what lies outside.
fn range(all: usize, start: i64, length: i64) -> Option<(usize, usize)> {
    let length = usize::try_from(length).ok().filter(|length| *length > 0)?;
    let start = match start {
        0 => return None,
        start if start > 0 => usize::try_from(start - 1).ok()?,
        start => all.checked_sub(usize::try_from(start.unsigned_abs()).ok()?)?,
    };
    (start < all).then(|| (start, length.min(all - start)))
}

fn part(text: &str, start: i64, length: i64) -> &str {
    let chars = if text.is_ascii() { text.len() } else { text.chars().count() };
    let Some((start, length)) = range(chars, start, length) else { return "" };
    if text.is_ascii() {
        return &text[start..start + length];
    }
    let rest = &text[byte_at(text, start)..];
    &rest[..byte_at(rest, length)]
}

fn bytes_part(bytes: &[u8], start: i64, length: i64) -> Vec<u8> {
    range(bytes.len(), start, length).map_or_else(Vec::new, |(start, length)| bytes[start..start + length].to_vec())
}

/// The place of the nth occurrence, of which one may overlap the next; from the end if `nth` is negative.
fn position(text: &str, part: &str, nth: i64) -> Result<i64> {
    let Some(skip) = usize::try_from(nth.unsigned_abs()).unwrap_or(usize::MAX).checked_sub(1) else {
        return Err(invalid("expected an occurrence from 1 on, or from the end from -1 on, found 0"));
    };
    if part.is_empty() {
        return Ok(1);
    }
    let at = if nth > 0 {
        let mut from = 0;
        let mut places = std::iter::from_fn(|| {
            let at = from + text.get(from..)?.find(part)?;
            from = at + text[at..].chars().next().map_or(1, char::len_utf8);
            Some(at)
        });
        places.nth(skip)
    } else {
        let mut to = text.len();
        let mut places = std::iter::from_fn(|| {
            let at = text.get(..to)?.rfind(part)?;
            // The next one may reach into this one, but for its last character.
            to = at + part.char_indices().next_back().map_or(0, |(last, _)| last);
            Some(at)
        });
        places.nth(skip)
    };
    Ok(at.map_or(0, |at| count(text[..at].chars().count()) + 1))
}

fn from_utf8(bytes: &[u8], replacement: &str) -> Result<String> {
    if replacement.chars().count() > 1 {
        return Err(invalid(format!("expected a replacement of one character at most, found `{replacement}`")));
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push_str(replacement);
        }
    }
    Ok(text)
}

/// The one small letter of a character, as `Character.toLowerCase` of Java.
fn lower(c: char) -> char {
    if c == 'İ' { 'i' } else { single(c, c.to_lowercase()) }
}

/// The one capital of a character, as `Character.toUpperCase` of Java: none for one whose capitals are several characters, but
/// for those of Greek that have one with the iota beside.
fn upper(c: char) -> char {
    match c {
        'ᾀ'..='ᾇ' | 'ᾐ'..='ᾗ' | 'ᾠ'..='ᾧ' => char::from_u32(u32::from(c) + 8).unwrap_or(c),
        'ᾳ' => 'ᾼ',
        'ῃ' => 'ῌ',
        'ῳ' => 'ῼ',
        c => single(c, c.to_uppercase()),
    }
}

fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// As `Character.isWhitespace` of Java.
fn is_white_space(c: char) -> bool {
    match c {
        '\u{1c}'..='\u{1f}' => true,
        '\u{85}' | '\u{a0}' | '\u{2007}' | '\u{202f}' => false,
        c => c.is_whitespace(),
    }
}

fn trimmed(left: bool, right: bool) -> super::Compute {
    whole(move |call| {
        let text = call.column::<Text>(0)?;
        let chars = if call.arguments.len() > 1 { Some(call.column::<Text>(1)?) } else { None };
        collect(call, |row| {
            let Some(text) = text.get(row) else { return Ok(None) };
            let chars = match &chars {
                Some(chars) => match chars.get(row) {
                    Some(chars) => Some(chars),
                    None => return Ok(None),
                },
                None => None,
            };
            let goes = |c: char| chars.map_or_else(|| is_white_space(c), |chars| chars.contains(c));
            let text = if left { text.trim_start_matches(goes) } else { text };
            Ok(Some(if right { text.trim_end_matches(goes) } else { text }))
        })
    })
}

/// The length that a text is filled to.
fn target(to: i64, is_empty: bool) -> Result<usize> {
    if is_empty {
        return Err(invalid("expected something to fill with, found an empty text"));
    }
    let length = i32::try_from(to).ok().and_then(|to| usize::try_from(to).ok());
    length.ok_or_else(|| invalid(format!("expected a length between 0 and {}, found {to}", i32::MAX)))
}

fn padded(text: &str, to: i64, with: &str, left: bool) -> Result<String> {
    let to = target(to, with.is_empty())?;
    let chars = text.chars().count();
    if chars >= to {
        return Ok(text.chars().take(to).collect());
    }
    let fill: String = with.chars().cycle().take(to - chars).collect();
    Ok(if left { fill + text } else { text.to_owned() + &fill })
}

fn bytes_padded(bytes: &[u8], to: i64, with: &[u8], left: bool) -> Result<Vec<u8>> {
    let to = target(to, with.is_empty())?;
    if bytes.len() >= to {
        return Ok(bytes[..to].to_vec());
    }
    let fill: Vec<u8> = with.iter().copied().cycle().take(to - bytes.len()).collect();
    Ok(if left { [&fill, bytes].concat() } else { [bytes, &fill].concat() })
}

fn reversed(call: &Call<'_>) -> Result<ArrayRef> {
    let arrays = call.arrays()?;
    let list = arrays[0].as_list::<i32>();
    let mut places = Vec::with_capacity(list.values().len());
    let mut lengths = Vec::with_capacity(list.len());
    for row in 0..list.len() {
        let (from, to) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
        places.extend((from..to).rev().map(i32::cast_unsigned));
        lengths.push(usize::try_from(to - from).unwrap_or_default());
    }
    let values = take(list.values(), &UInt32Array::from(places), None)?;
    let arrow::datatypes::DataType::List(field) = list.data_type() else { return Ok(Arc::clone(&arrays[0])) };
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(arrow::array::ListArray::try_new(Arc::clone(field), offsets, values, list.nulls().cloned())?))
}

fn translate(text: &str, from: &str, to: &str) -> String {
    let mut changes = BTreeMap::new();
    let mut to = to.chars();
    for c in from.chars() {
        let by = to.next();
        changes.entry(c).or_insert(by);
    }
    text.chars().filter_map(|c| changes.get(&c).copied().unwrap_or(Some(c))).collect()
}

fn normalize(text: &str, form: &str) -> Result<String> {
    Ok(match form.to_ascii_uppercase().as_str() {
        "NFC" => text.nfc().collect(),
        "NFD" => text.nfd().collect(),
        "NFKC" => text.nfkc().collect(),
        "NFKD" => text.nfkd().collect(),
        _ => return Err(invalid(format!("expected a normal form NFC, NFD, NFKC or NFKD, found `{form}`"))),
    })
}

/// American Soundex: letters with H or W between them that sound alike count once. <https://www.archives.gov/research/census/soundex>
fn soundex(word: &str) -> Result<String> {
    if let Some(other) = word.chars().find(|c| c.is_alphabetic() && !c.is_ascii_alphabetic()) {
        return Err(invalid(format!("expected letters from A to Z, found `{other}`")));
    }
    let sound = |c: char| match c {
        'B' | 'F' | 'P' | 'V' => Some('1'),
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => Some('2'),
        'D' | 'T' => Some('3'),
        'L' => Some('4'),
        'M' | 'N' => Some('5'),
        'R' => Some('6'),
        _ => None,
    };
    let mut letters = word.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase());
    let Some(first) = letters.next() else { return Ok(String::new()) };
    let (mut code, mut last) = (String::from(first), sound(first));
    for letter in letters {
        let here = sound(letter);
        if here.is_some() && here != last {
            code.extend(here);
        }
        if !matches!(letter, 'H' | 'W') {
            last = here;
        }
        if code.len() == 4 {
            break;
        }
    }
    Ok(format!("{code:0<4}"))
}

fn stem(word: &str, language: &str) -> Result<String> {
    let algorithm = match language {
        "ar" => Algorithm::Arabic,
        "da" => Algorithm::Danish,
        "de" => Algorithm::German,
        "en" => Algorithm::English,
        "es" => Algorithm::Spanish,
        "fi" => Algorithm::Finnish,
        "fr" => Algorithm::French,
        "hu" => Algorithm::Hungarian,
        "it" => Algorithm::Italian,
        "nl" => Algorithm::Dutch,
        "no" => Algorithm::Norwegian,
        "pt" => Algorithm::Portuguese,
        "ro" => Algorithm::Romanian,
        "ru" => Algorithm::Russian,
        "sv" => Algorithm::Swedish,
        "tr" => Algorithm::Turkish,
        _ => return Err(invalid(format!("expected the code of a language such as `en`, found `{language}`"))),
    };
    Ok(Stemmer::create(algorithm).stem(word).into_owned())
}
