//! Samples of JSON: one object a line, objects one after the other, an array of objects.

pub mod decode;
mod shape;
pub mod split;

use std::collections::HashMap;

use self::shape::{Observer, Trouble};
use self::split::{Next, Splitter};
use super::merge::{SampledColumn, Shape};
use super::{Compression, Encoding, FileFault, FileFormat, JsonFormat, Sample};
use shared::model::name::to_column_name;

/// The layout and columns of `text`, which begins with `{` or `[`. `None` when the first value is no JSON, so that the text may be
/// something else.
///
/// # Errors
/// `Truncated` or `Corrupt` when JSON begins and then breaks; `Unrecognized` for JSON that is not made of objects; `TooLarge` when
/// the first object goes on behind the end of `text`, or is nested too deeply.
pub fn sample(text: &str, complete: bool) -> Option<Result<Sample, FileFault>> {
    let mut reading = Reading::default();
    match reading.read(text, complete) {
        Ok(()) if reading.objects == 0 && !complete => Some(Err(FileFault::TooLarge {
            found: format!("a JSON object that does not end within the first {} bytes", text.len()),
        })),
        Ok(()) if reading.objects == 0 => Some(Err(FileFault::Empty)),
        Ok(()) => {
            let mut sample = reading.sample();
            if !complete {
                let bytes = text.len();
                sample
                    .notes
                    .push(format!("the first {bytes} bytes were read: fields that only come later are no columns"));
            }
            Some(Ok(sample))
        }
        Err(None) => None,
        Err(Some(fault)) => Some(Err(fault)),
    }
}

/// What was seen of a text so far.
#[derive(Default)]
struct Reading {
    objects: usize,
    columns: Vec<SampledColumn>,
    by_key: HashMap<String, usize>,
    observer: Observer,
    /// Whether an object spans lines or shares one.
    stream: bool,
    array: bool,
}

impl Reading {
    /// Reads all objects. `None` as an error: the text is no JSON from its first value on.
    fn read(&mut self, text: &str, complete: bool) -> Result<(), Option<FileFault>> {
        let mut splitter = Splitter::new();
        let mut last = 0;
        loop {
            match splitter.next(text.as_bytes()) {
                Ok(Next::Object(range)) => {
                    let between = &text[last..range.start];
                    self.stream |=
                        text[range.clone()].contains('\n') || (self.objects > 0 && !between.contains(['\n', '\r']));
                    self.object(text, range.clone())?;
                    last = range.end;
                }
                Ok(Next::Ended) => break,
                Err(stray) => return Err(self.stray(text, &splitter, &stray)),
            }
        }
        self.array = splitter.has_arrays();
        if complete && !splitter.may_end() {
            return Err(self.cut(text, &splitter));
        }
        // What can't be the beginning of an object is something else.
        if splitter.is_inside_object() && self.objects == 0 && !shape::may_go_on(&text.as_bytes()[splitter.done()..]) {
            return Err(None);
        }
        Ok(())
    }

    fn object(&mut self, text: &str, range: std::ops::Range<usize>) -> Result<(), Option<FileFault>> {
        let (columns, by_key) = (&mut self.columns, &mut self.by_key);
        let mut find = |key: &str| match by_key.get(key) {
            Some(at) => *at,
            None => {
                let (name, source) = (to_column_name(key), key.to_owned());
                columns.push(SampledColumn { name, source, shape: Shape::Unknown });
                by_key.insert(key.to_owned(), columns.len() - 1);
                columns.len() - 1
            }
        };
        let start = range.start;
        let mut found = Vec::new();
        let read = self.observer.object(&text.as_bytes()[range], &mut |key, shape| found.push((find(key), shape)));
        match read {
            Ok(()) => {
                for (at, shape) in found {
                    let SampledColumn { shape: known, source, .. } = &mut self.columns[at];
                    self.observer.merge(known, shape, source);
                }
                self.objects += 1;
                Ok(())
            }
            Err(Trouble::TooDeep) => Err(Some(FileFault::TooLarge {
                found: format!(
                    "a value at line {} that is nested more than {} levels deep",
                    line_of(text, start),
                    shape::MAX_DEPTH
                ),
            })),
            Err(Trouble::Invalid(_)) if self.objects == 0 && !text.trim_start().starts_with('[') => Err(None),
            Err(Trouble::Invalid(found)) => Err(Some(FileFault::Corrupt {
                found: format!("{found} in the JSON object at line {}", line_of(text, start)),
            })),
        }
    }

    fn stray(&self, text: &str, splitter: &Splitter, stray: &split::Stray) -> Option<FileFault> {
        if self.objects == 0 {
            let other = "a JSON array of other things than objects";
            return splitter.has_arrays().then(|| FileFault::Unrecognized { found: other.into() });
        }
        let line = line_of(text, stray.at);
        Some(FileFault::Corrupt {
            found: format!("expected {}, found `{}` at line {line}", stray.expected, stray.found),
        })
    }

    fn cut(&self, text: &str, splitter: &Splitter) -> Option<FileFault> {
        if !splitter.is_inside_object() {
            return Some(FileFault::Truncated { found: "a JSON array is not closed".into() });
        }
        let start = splitter.done();
        if self.objects == 0 && !shape::may_go_on(&text.as_bytes()[start..]) {
            return None;
        }
        Some(FileFault::Truncated { found: format!("JSON ends inside the object at line {}", line_of(text, start)) })
    }

    fn sample(mut self) -> Sample {
        let layout = match (self.array, self.stream) {
            (true, _) => JsonFormat::Array,
            (false, true) => JsonFormat::Stream,
            (false, false) => JsonFormat::Lines,
        };
        let mut notes = std::mem::take(&mut self.observer.notes);
        let columns = super::unique_names(self.columns, &mut notes);
        let format = FileFormat { encoding: Encoding::Json(layout), compression: Compression::None };
        Sample { format, columns, first_row: None, notes }
    }
}

/// The line, from 1, of a place in the text.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Sample {
        sample(text, true).unwrap().unwrap()
    }

    fn types(sample: &Sample) -> Vec<String> {
        sample.columns.iter().map(|c| format!("{}:{}", c.name, c.shape.column_type())).collect()
    }

    #[test]
    fn nested_values_keep_their_structure() {
        let sample =
            found("{\"a\":1,\"b\":{\"c\":[1,2.5],\"d\":null}}\n{\"a\":null,\"b\":{\"c\":[],\"d\":\"x\"},\"e\":true}\n");
        assert_eq!(types(&sample), ["a:bigint", "b:struct<c:array<double>,d:string>", "e:boolean"]);
        assert_eq!(sample.format.encoding, Encoding::Json(JsonFormat::Lines));
    }

    #[test]
    fn dates_have_types_and_numbers_in_quotes_are_text() {
        let sample =
            found("{\"d\":\"2013-01-02\",\"t\":\"2013-01-02T03:04:05Z\",\"n\":\"12\",\"u\":18446744073709551615}");
        assert_eq!(types(&sample), ["d:date", "t:timestamptz", "n:string", "u:decimal(38,0)"]);
    }

    #[test]
    fn the_layout_is_told() {
        let layout = |text: &str| found(text).format.encoding;
        assert_eq!(layout("[{\"a\":1},\n {\"a\":2}]"), Encoding::Json(JsonFormat::Array));
        assert_eq!(layout("{\n \"a\": 1\n}\n{\n \"a\": 2\n}"), Encoding::Json(JsonFormat::Stream));
        assert_eq!(layout("{\"a\":1} {\"a\":2}"), Encoding::Json(JsonFormat::Stream));
        assert_eq!(layout("{\"a\":1}\r\n\r\n{\"a\":2}\r\n"), Encoding::Json(JsonFormat::Lines));
    }

    #[test]
    fn a_head_that_ends_inside_a_value_is_enough() {
        for text in ["{\"a\":1}\n{\"a\":", "[{\"a\":1},{\"a\"", "[{\"a\":1}", "[{\"a\":1},"] {
            assert_eq!(types(&sample(text, false).unwrap().unwrap()), ["a:bigint"], "{text}");
            assert!(matches!(sample(text, true).unwrap(), Err(FileFault::Truncated { .. })), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_may_be_something_else_and_what_breaks_later_is_broken() {
        assert!(sample("{name},{value}\n1,2\n", true).is_none());
        assert!(matches!(sample("{\"a\":1}\nnot json\n", true).unwrap(), Err(FileFault::Corrupt { .. })));
        assert!(sample("{name", false).is_none());
        assert!(matches!(sample("{\"a\":\"long", false).unwrap(), Err(FileFault::TooLarge { .. })));
        assert!(matches!(sample("{\"a\":1}\n5\n", true).unwrap(), Err(FileFault::Corrupt { .. })));
        assert!(matches!(sample("[1,2]", true).unwrap(), Err(FileFault::Unrecognized { .. })));
        assert!(matches!(sample("[]", true).unwrap(), Err(FileFault::Empty)));
    }

    #[test]
    fn names_become_identifiers_and_remember_where_they_came_from() {
        let sample = found("{\"Dep Time\":1,\"userId\":2,\"a\":{\"x-y\":1,\"z\":2}}");
        assert_eq!(types(&sample), ["dep_time:bigint", "userid:bigint", "a:struct<`x-y`:bigint,z:bigint>"]);
        assert_eq!(sample.columns[1].source, "userId");
        let odd = found("{\"a.b\":1,\"a-b\":2,\"a_b\":3,\"A_B\":4,\"\":5,\"年齢\":6}");
        let names: Vec<_> = odd.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a_b_2", "a_b_3", "a_b", "a_b_4", "_", "年齢"], "what would have one name is told apart");
        assert_eq!(odd.notes.len(), 3, "{:?}", odd.notes);
    }

    #[test]
    fn values_of_several_shapes_are_text_and_empty_objects_wait_for_their_fields() {
        let one = |values: &str| {
            let lines: Vec<String> = values.split(' ').map(|value| format!("{{\"v\":{value}}}")).collect();
            types(&found(&lines.join("\n"))).remove(0)
        };
        for (values, ty) in [
            ("1 {\"b\":2}", "v:string"),
            ("{} {}", "v:string"),
            ("{} {\"a\":1}", "v:struct<a:bigint>"),
            ("[] null [\"x\"]", "v:array<string>"),
            ("[1,\"a\"]", "v:array<string>"),
            ("123456789012345678901234567890", "v:decimal(38,0)"),
            ("18446744073709551615 -9223372036854775808", "v:decimal(38,0)"),
            ("1234567890123456789012345678901234567890123", "v:string"),
            ("1 5.7", "v:double"),
            ("1e400", "v:string"),
            ("\"1\" \"2.5\"", "v:string"),
            ("1 5.7 \"42\"", "v:double"),
            ("1 \"042\"", "v:string"),
            ("\"1\" \"x\" 2", "v:string"),
        ] {
            assert_eq!(one(values), ty, "{values}");
        }
    }

    #[test]
    fn an_object_with_ever_new_keys_is_text_and_the_sample_says_so() {
        let lines: Vec<String> = (0..2_000).map(|i| format!("{{\"v\":{{\"k{i}\":1}}}}")).collect();
        let sample = found(&lines.join("\n"));
        assert_eq!(types(&sample), ["v:string"]);
        assert!(sample.notes[0].contains("`v`"), "{:?}", sample.notes);
    }

    #[test]
    fn what_is_nested_too_deeply_is_told_as_that() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        let Err(FileFault::TooLarge { found }) = sample(&deep, true).unwrap() else { panic!("expected a fault") };
        assert!(found.contains("128 levels"), "{found}");
    }
}
