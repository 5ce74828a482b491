//! Cuts JSON text into its objects: one after the other, with or without white space between them, or the elements of arrays. Only
//! as much is looked at as it takes to find their ends; whether an object is right inside is its reader's to find.

use std::ops::Range;

/// What comes next in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// An object: its bytes in the buffer.
    Object(Range<usize>),
    /// The buffer ends before the next object does, or holds none.
    Ended,
}

/// What is wrong between objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stray {
    /// In the buffer.
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
    pub(crate) found: char,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Outside of arrays.
    Objects,
    /// Behind `[`.
    First,
    /// Behind an element.
    Element,
    /// Behind `,`.
    Comma,
}

/// A place in JSON text that comes piece by piece.
#[derive(Debug)]
pub(crate) struct Splitter {
    between: Between,
    /// Where the next byte to look at is, and where the object at hand begins.
    at: usize,
    object: Option<usize>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether an array was opened anywhere.
    arrays: bool,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        Self {
            between: Between::Objects,
            at: 0,
            object: None,
            depth: 0,
            in_string: false,
            escaped: false,
            arrays: false,
        }
    }

    /// The next object in `buffer`, which begins where the last [`Splitter::forget`] left it and may have grown at its end since.
    ///
    /// # Errors
    /// What stands where no object, comma or bracket may.
    pub(crate) fn next(&mut self, buffer: &[u8]) -> Result<Next, Stray> {
        while self.object.is_none() {
            let Some(&byte) = buffer.get(self.at) else { return Ok(Next::Ended) };
            self.step_between(byte, buffer)?;
        }
        let Some(start) = self.object else { return Ok(Next::Ended) };
        while let Some(&byte) = buffer.get(self.at) {
            self.at += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.object = None;
                        return Ok(Next::Object(start..self.at));
                    }
                }
                _ => {}
            }
        }
        Ok(Next::Ended)
    }

    fn step_between(&mut self, byte: u8, buffer: &[u8]) -> Result<(), Stray> {
        let stray = |expected| {
            let rest = String::from_utf8_lossy(&buffer[self.at..buffer.len().min(self.at + 4)]).into_owned();
            Err(Stray { at: self.at, expected, found: rest.chars().next().unwrap_or('\u{fffd}') })
        };
        match (byte, self.between) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => {}
            (b'{', Between::Objects | Between::First | Between::Comma) => {
                self.object = Some(self.at);
                if self.between != Between::Objects {
                    self.between = Between::Element;
                }
                return Ok(());
            }
            (b'[', Between::Objects) => {
                self.arrays = true;
                self.between = Between::First;
            }
            (b']', Between::First | Between::Element) => self.between = Between::Objects,
            (b',', Between::Element) => self.between = Between::Comma,
            (_, Between::Objects) => return stray("an object"),
            (_, Between::First | Between::Comma) => return stray("an object in the array"),
            (_, Between::Element) => return stray("`,` or `]` after an element of the array"),
        }
        self.at += 1;
        Ok(())
    }

    /// Says that the buffer begins `bytes` later now. Never more than [`Splitter::done`].
    pub(crate) fn forget(&mut self, bytes: usize) {
        self.at -= bytes;
        self.object = self.object.map(|at| at - bytes);
    }

    /// Bytes of the buffer that are no longer needed.
    pub(crate) fn done(&self) -> usize {
        self.object.unwrap_or(self.at)
    }

    /// Whether the text may end here.
    pub(crate) fn may_end(&self) -> bool {
        self.object.is_none() && self.between == Between::Objects
    }

    /// Whether the text may end here but for the bracket of an array.
    pub(crate) fn is_inside_object(&self) -> bool {
        self.object.is_some()
    }

    /// Whether there was an array.
    pub(crate) fn has_arrays(&self) -> bool {
        self.arrays
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The objects of a text that comes in pieces of `size` bytes, or where it is wrong.
    fn split(text: &str, size: usize) -> Result<Vec<String>, usize> {
        let (mut splitter, mut buffer, mut objects, mut gone) = (Splitter::new(), Vec::new(), Vec::new(), 0);
        for piece in text.as_bytes().chunks(size) {
            buffer.extend_from_slice(piece);
            while let Next::Object(range) = splitter.next(&buffer).map_err(|stray| gone + stray.at)? {
                objects.push(String::from_utf8(buffer[range].to_vec()).unwrap());
            }
            let done = splitter.done();
            buffer.drain(..done);
            splitter.forget(done);
            gone += done;
        }
        if splitter.may_end() { Ok(objects) } else { Err(text.len()) }
    }

    #[test]
    fn objects_are_cut_however_they_follow_each_other() {
        for (text, objects) in [
            ("{\"a\":1}{\"a\":2}\n {\"a\":3}", vec!["{\"a\":1}", "{\"a\":2}", "{\"a\":3}"]),
            ("{\"v\":\"a}{b\\\"\\\\\"}{}", vec!["{\"v\":\"a}{b\\\"\\\\\"}", "{}"]),
            ("[{\"a\":[{}]},\n{\"b\":2}]\n", vec!["{\"a\":[{}]}", "{\"b\":2}"]),
            ("{\n \"a\": 1\n}\n", vec!["{\n \"a\": 1\n}"]),
            ("[]", vec![]),
            ("", vec![]),
        ] {
            for size in [1, 3, 100] {
                assert_eq!(split(text, size).unwrap(), objects, "{text} in {size}");
            }
        }
    }

    #[test]
    fn what_stands_between_objects_is_found() {
        for (text, at) in [
            ("{} oops", 3),
            ("{},{}", 2),
            ("[{} {}]", 4),
            ("[,{}]", 1),
            ("[{},]", 4),
            ("[5]", 1),
            ("[{}]]", 4),
            ("{\"a\":", 5),
            ("[{}", 3),
        ] {
            assert_eq!(split(text, 2), Err(at), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_object_comes_back_whatever_it_holds(
            texts in prop::collection::vec("[a-z\"\\\\{}\\[\\],\n]{0,12}", 0..6), size in 1..9_usize,
        ) {
            let objects: Vec<String> = texts.iter().map(|text| serde_json::json!({"v": text}).to_string()).collect();
            prop_assert_eq!(split(&objects.concat(), size).unwrap(), objects.clone());
            prop_assert_eq!(split(&format!("[{}]", objects.join(", ")), size).unwrap(), objects);
        }
    }
}
