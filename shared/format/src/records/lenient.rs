//! JSON objects of files to columns. What the door refuses of a producer, a file may hold: a text column takes any value as its
//! JSON, numbers and booleans may stand in quotes, keys are those that the crawl saw. What would be another value than the one
//! that is written is an error here too.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use jiter::{Jiter, Peek};

use super::ErrorCode;
use super::column::Buffer;
use super::value::{self, Fault};
use shared::Result;
use shared::model::ColumnType;
use shared::model::name::to_column_name;

/// Keys that are no column's are remembered up to this number, so that objects with ever new keys take no memory.
const MAX_KNOWN_KEYS: usize = 10_000;

/// A column of a table of JSON files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The column's name.
    pub name: String,
    /// Its key in the files, as the crawl saw it first.
    pub key: String,
    pub ty: ColumnType,
}

/// Which column a key is.
#[derive(Debug, Clone, Copy)]
struct Found {
    column: usize,
    /// Whether the key is the column's own, not only another spelling of it.
    exact: bool,
}

/// Rows of some columns, one for each object.
#[derive(Debug)]
pub struct FileDecoder {
    sources: Vec<Source>,
    /// For each column, its place among `buffers` if it is asked for.
    places: Vec<Option<usize>>,
    buffers: Vec<Buffer>,
    /// The column of each buffer.
    asked: Vec<usize>,
    known: HashMap<String, Option<Found>>,
    /// What was found of each column in the object at hand.
    filled: Vec<Option<bool>>,
    rows: usize,
}

impl FileDecoder {
    /// Decodes the columns `asked` (places in `sources`), in that order.
    pub fn new(sources: Vec<Source>, asked: Vec<usize>) -> Self {
        let mut places = vec![None; sources.len()];
        for (place, column) in asked.iter().enumerate() {
            places[*column] = Some(place);
        }
        let buffers = asked.iter().map(|column| Buffer::of_files(&sources[*column].ty)).collect();
        let filled = vec![None; sources.len()];
        Self { sources, places, buffers, asked, known: HashMap::new(), filled, rows: 0 }
    }

    /// Rows since the last [`FileDecoder::take`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the row of one JSON object.
    ///
    /// # Errors
    /// What is wrong with it, in words; the decoder is of no use then.
    pub fn push(&mut self, object: &[u8]) -> Result<(), String> {
        if let Err(error) = std::str::from_utf8(object) {
            return Err(format!("expected UTF-8, found a byte that is none at byte {}", error.valid_up_to()));
        }
        self.read(object).map_err(|fault| fault.text())?;
        self.rows += 1;
        let missing = self.buffers.iter_mut().filter(|buffer| buffer.len() < self.rows);
        missing.for_each(Buffer::push_null);
        Ok(())
    }

    fn read(&mut self, object: &[u8]) -> Result<(), Fault> {
        self.filled.fill(None);
        let mut json = Jiter::new(object);
        if json.peek()? != Peek::Object {
            return Err(Fault::new(ErrorCode::NotAnObject, "expected a JSON object, found another value".into()));
        }
        let mut hint = 0;
        let mut name = json.known_object()?;
        while let Some(key) = name {
            let found = find(&self.sources, &mut self.known, key, hint);
            match found.map(|found| (found, self.places[found.column])) {
                Some((found, Some(place))) => {
                    claim(&mut self.filled[found.column], found, key, &self.sources[found.column])?;
                    let buffer = &mut self.buffers[place];
                    buffer.truncate(self.rows);
                    let peek = json.peek()?;
                    value::value(&mut json, peek, buffer)
                        .map_err(|fault| fault.within_field(&self.sources[found.column].name))?;
                    hint = found.column + 1;
                }
                Some((found, None)) => {
                    hint = found.column + 1;
                    json.next_skip()?;
                }
                None => json.next_skip()?,
            }
            name = json.next_key()?;
        }
        json.finish()?;
        Ok(())
    }

    /// The columns' arrays, of the types `to`, and a fresh start.
    ///
    /// # Errors
    /// `Bug` when a type is not the column's.
    pub fn take(&mut self, to: &[&DataType]) -> Result<Vec<ArrayRef>> {
        let fresh = self.asked.iter().map(|column| Buffer::of_files(&self.sources[*column].ty)).collect();
        self.rows = 0;
        let full = std::mem::replace(&mut self.buffers, fresh);
        full.into_iter().zip(to).map(|(buffer, to)| buffer.finish(to)).collect()
    }
}

/// Takes note that the column got a value. Of a key that is there twice the last value holds, as for most readers; two spellings of
/// one column in one object are two fields, of which the crawl saw one.
fn claim(filled: &mut Option<bool>, found: Found, key: &str, source: &Source) -> Result<(), Fault> {
    match *filled {
        Some(before) if !(before && found.exact) => Err(Fault::new(
            ErrorCode::InvalidJson,
            format!(
                "the key `{key}` and another spelling of it are both the column `{}`: crawl the location again, which tells them apart",
                source.name
            ),
        )),
        _ => {
            *filled = Some(found.exact);
            Ok(())
        }
    }
}

/// The column of a key: the one that has it; else one whose key differs in case only; else the one of its name.
fn find(sources: &[Source], known: &mut HashMap<String, Option<Found>>, key: &str, hint: usize) -> Option<Found> {
    if sources.get(hint).is_some_and(|source| source.key == key) {
        return Some(Found { column: hint, exact: true });
    }
    if let Some(found) = known.get(key) {
        return *found;
    }
    let found = column_of(sources, key);
    if known.len() < MAX_KNOWN_KEYS {
        known.insert(key.to_owned(), found);
    }
    found
}

fn column_of(sources: &[Source], key: &str) -> Option<Found> {
    let at = |is: &dyn Fn(&Source) -> bool| sources.iter().position(is);
    if let Some(column) = at(&|source| source.key == key) {
        return Some(Found { column, exact: true });
    }
    let (lower, name) = (key.to_lowercase(), to_column_name(key));
    let column = at(&|source| source.key.to_lowercase() == lower).or_else(|| at(&|source| source.name == name))?;
    Some(Found { column, exact: false })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    fn decoder(columns: &[(&str, &str, &str)]) -> FileDecoder {
        let source = |(name, key, ty): &(&str, &str, &str)| Source {
            name: (*name).to_owned(),
            key: (*key).to_owned(),
            ty: ty.parse().unwrap(),
        };
        FileDecoder::new(columns.iter().map(source).collect(), (0..columns.len()).collect())
    }

    fn texts(decoder: &mut FileDecoder) -> Vec<Option<String>> {
        let taken = decoder.take(&[&DataType::Utf8]).unwrap();
        taken[0].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn a_text_column_takes_every_value_as_its_json() {
        let mut decoder = decoder(&[("v", "v", "string")]);
        let values = ["5", "\"five\"", "{\"n\": 5}", "[1,\"a\",null]", "true", "null", "1.50", "12345678901234567890"];
        for value in values {
            decoder.push(format!("{{\"v\":{value}}}").as_bytes()).unwrap();
        }
        let mut expected: Vec<_> = values.iter().map(|value| Some((*value).to_owned())).collect();
        (expected[1], expected[5]) = (Some("five".into()), None);
        assert_eq!(texts(&mut decoder), expected);
    }

    #[test]
    fn no_number_is_cut_to_another() {
        for (ty, bad) in
            [("bigint", "5.7"), ("bigint", "9223372036854775808"), ("int", "3000000000"), ("double", "1e400")]
        {
            let error = decoder(&[("n", "n", ty)]).push(format!("{{\"n\":{bad}}}").as_bytes()).unwrap_err();
            assert!(error.contains(bad) && error.contains("`n`"), "{error}");
        }
        let mut numbers = decoder(&[("n", "n", "bigint"), ("x", "x", "double")]);
        numbers.push(b"{\"n\":7.0,\"x\":\"42\"}").unwrap();
        let taken = numbers.take(&[&DataType::Int64, &DataType::Float64]).unwrap();
        assert_eq!(taken[0].as_primitive::<Int64Type>().value(0), 7);
        assert!((taken[1].as_primitive::<Float64Type>().value(0) - 42.0).abs() < 1e-12);
    }

    #[test]
    fn keys_are_found_exactly_then_in_another_case_then_by_their_name() {
        let mut one = decoder(&[("user_id", "user.id", "string")]);
        for key in ["user.id", "User.ID", "user-id"] {
            one.push(format!("{{\"{key}\":1}}").as_bytes()).unwrap();
        }
        assert_eq!(texts(&mut one), vec![Some("1".to_owned()); 3]);
        let mut two = decoder(&[("id", "id", "string"), ("id_2", "ID", "string")]);
        two.push(b"{\"ID\":2,\"id\":1}").unwrap();
        let taken = two.take(&[&DataType::Utf8, &DataType::Utf8]).unwrap();
        assert_eq!((taken[0].as_string::<i32>().value(0), taken[1].as_string::<i32>().value(0)), ("1", "2"));
    }

    #[test]
    fn two_spellings_of_one_column_are_refused_and_of_a_key_that_is_there_twice_the_last_holds() {
        for object in ["{\"id\":1,\"ID\":2}", "{\"ID\":2,\"id\":1}"] {
            let error = decoder(&[("id", "id", "string")]).push(object.as_bytes()).unwrap_err();
            assert!(error.contains("`id`"), "{error}");
        }
        let mut twice = decoder(&[("id", "id", "string")]);
        twice.push(b"{\"id\":1,\"id\":2}").unwrap();
        assert_eq!(texts(&mut twice), [Some("2".to_owned())]);
    }
}
