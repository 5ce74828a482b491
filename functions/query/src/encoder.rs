//! An answer in its format, batch by batch. How values are written is in [`crate::encode`].

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use shared::{Error, Result};

use crate::encode::{columns, csv_field, csv_row, json_rows};
use crate::event::Format;
use crate::frames::{self, Kind};

/// Bytes of a row group of Parquet that are held before they are written.
const ROW_GROUP: usize = 32 << 20;

/// Writes the rows of one answer.
pub enum Encoder {
    Json {
        rows: u64,
    },
    Csv {
        /// What ends a line.
        end: &'static str,
    },
    Ndjson {
        /// The columns' names as JSON.
        names: Vec<String>,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
    Frames(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    /// Begins an answer in `out`: the columns of JSON, the header of CSV, the schema of Arrow.
    ///
    /// # Errors
    /// `Invalid` when the format has no place for a column's type.
    pub fn begin(format: Format, id: &str, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<Self> {
        match format {
            Format::Json => {
                let head = format!("{{\"queryId\":{},\"columns\":{},\"rows\":[", json!(id), columns(schema));
                out.extend(head.into_bytes());
                Ok(Self::Json { rows: 0 })
            }
            Format::Csv => Ok(Self::csv("\r\n", schema, out)),
            Format::Ndjson => {
                Ok(Self::Ndjson { names: schema.fields().iter().map(|f| json!(f.name()).to_string()).collect() })
            }
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
                out.append(writer.get_mut());
                Ok(Self::Arrow(Box::new(writer)))
            }
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(refused)?;
                Ok(Self::Parquet(Box::new(writer)))
            }
            Format::Frames => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
                frames::write(Kind::Arrow, writer.get_ref(), out);
                writer.get_mut().clear();
                Ok(Self::Frames(Box::new(writer)))
            }
        }
    }

    /// Begins CSV whose lines end with `end`.
    pub fn csv(end: &'static str, schema: &SchemaRef, out: &mut Vec<u8>) -> Self {
        let names: Vec<_> = schema.fields().iter().map(|f| csv_field(f.name())).collect();
        out.extend(names.join(",").into_bytes());
        out.extend(end.as_bytes());
        Self::Csv { end }
    }

    /// Adds the rows of `batch` to `out`.
    ///
    /// # Errors
    /// `Invalid` for a value of a type that has no text.
    pub fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Json { rows } => {
                for row in json_rows(batch)? {
                    if *rows > 0 {
                        out.push(b',');
                    }
                    *rows += 1;
                    json_text(&row, out)?;
                }
            }
            Self::Csv { end } => {
                for row in json_rows(batch)? {
                    csv_row(row.as_array().map(Vec::as_slice).unwrap_or_default(), out);
                    out.extend(end.as_bytes());
                }
            }
            Self::Ndjson { names } => {
                for row in json_rows(batch)? {
                    object(names, row.as_array().map(Vec::as_slice).unwrap_or_default(), out)?;
                }
            }
            Self::Arrow(writer) => {
                writer.write(batch)?;
                out.append(writer.get_mut());
            }
            Self::Parquet(writer) => parquet_rows(writer, batch, out)?,
            Self::Frames(writer) => {
                writer.write(batch)?;
                frames::write(Kind::Arrow, writer.get_ref(), out);
                writer.get_mut().clear();
            }
        }
        Ok(())
    }

    /// Ends the answer; JSON and frames end with what `tail` says of it.
    ///
    /// # Errors
    /// `Bug` when the end can't be written.
    pub fn end(self, tail: &Value, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Json { .. } => {
                out.push(b']');
                for (name, value) in tail.as_object().into_iter().flatten() {
                    out.extend(format!(",{}:{value}", json!(name)).into_bytes());
                }
                out.push(b'}');
            }
            Self::Csv { .. } | Self::Ndjson { .. } => {}
            Self::Arrow(mut writer) => {
                writer.finish()?;
                out.append(writer.get_mut());
            }
            Self::Parquet(writer) => out.append(&mut writer.into_inner().map_err(refused)?),
            Self::Frames(mut writer) => {
                writer.finish()?;
                frames::write(Kind::Arrow, writer.get_ref(), out);
                frames::write(Kind::End, tail.to_string().as_bytes(), out);
            }
        }
        Ok(())
    }

    /// Ends an answer that failed on its way, where the format can say so.
    ///
    /// # Errors
    /// The failure, where it can't.
    pub fn fail(self, error: Error, out: &mut Vec<u8>) -> Result<()> {
        let told = json!({"kind": error.kind().as_str(), "message": error.to_string()});
        match self {
            Self::Json { .. } => self.end(&json!({"error": told}), out),
            Self::Frames(_) => {
                frames::write(Kind::Error, told.to_string().as_bytes(), out);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// A row as a JSON object in a line of its own. Columns of one name are all there.
fn object(names: &[String], row: &[Value], out: &mut Vec<u8>) -> Result<()> {
    out.push(b'{');
    for (i, (name, value)) in names.iter().zip(row).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend(name.as_bytes());
        out.push(b':');
        json_text(value, out)?;
    }
    out.extend(b"}\n");
    Ok(())
}

fn json_text(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, value).map_err(|e| Error::bug("row has no JSON form").with_source(e))
}

/// A row group is written once it is large: its size bounds what is held of an answer.
fn parquet_rows(writer: &mut ArrowWriter<Vec<u8>>, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
    writer.write(batch).map_err(refused)?;
    if writer.memory_size() > ROW_GROUP {
        writer.flush().map_err(refused)?;
        writer.sync()?;
        out.append(writer.inner_mut());
    }
    Ok(())
}

fn refused(error: ParquetError) -> Error {
    Error::invalid("expected columns that Parquet has types for").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn csv_tells_null_from_empty_and_quotes_what_needs_it() {
        let text = StringArray::from(vec![Some("a,b"), Some("say \"x\""), Some(""), None, Some("plain")]);
        let batch = RecordBatch::try_from_iter([("t", Arc::new(text) as ArrayRef)]).unwrap();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Csv, "q", &batch.schema(), &mut out).unwrap();
        encoder.rows(&batch, &mut out).unwrap();
        encoder.end(&json!({}), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "t\r\n\"a,b\"\r\n\"say \"\"x\"\"\"\r\n\"\"\r\n\r\nplain\r\n");
    }

    #[test]
    fn an_arrow_answer_reads_back() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Arrow, "q", &batch.schema(), &mut out).unwrap();
        encoder.rows(&batch, &mut out).unwrap();
        encoder.rows(&batch, &mut out).unwrap();
        encoder.end(&json!({}), &mut out).unwrap();
        let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(batches, [batch.clone(), batch]);
    }

    #[test]
    fn a_json_answer_is_one_document() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Json, "q", &batch.schema(), &mut out).unwrap();
        encoder.rows(&batch, &mut out).unwrap();
        encoder.end(&json!({"truncated": false}), &mut out).unwrap();
        let expected = json!({
            "queryId": "q", "columns": [{"name": "n", "type": "bigint"}], "rows": [[1], [2]], "truncated": false
        });
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }

    #[test]
    fn ndjson_is_an_object_a_line_with_every_column() {
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![
            arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true),
            arrow::datatypes::Field::new("a", arrow::datatypes::DataType::Int64, true),
        ]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![Some(1), None])), Arc::new(Int64Array::from(vec![2, 3]))];
        let batch = RecordBatch::try_new(schema, columns).unwrap();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Ndjson, "q", &batch.schema(), &mut out).unwrap();
        encoder.rows(&batch, &mut out).unwrap();
        encoder.end(&json!({}), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\":1,\"a\":2}\n{\"a\":null,\"a\":3}\n");
    }

    #[test]
    fn a_parquet_answer_of_many_row_groups_reads_back() {
        let text: StringArray =
            (0..40_000_u32).map(|n| Some(format!("{:0>1000}", n.wrapping_mul(2_654_435_761)))).collect();
        let batch = RecordBatch::try_from_iter([("t", Arc::new(text) as ArrayRef)]).unwrap();
        let mut out = Vec::new();
        let mut encoder = Encoder::begin(Format::Parquet, "q", &batch.schema(), &mut out).unwrap();
        for _ in 0..2 {
            for from in (0..batch.num_rows()).step_by(1_000) {
                encoder.rows(&batch.slice(from, 1_000), &mut out).unwrap();
            }
        }
        encoder.end(&json!({}), &mut out).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out)).unwrap();
        let reader = reader.with_batch_size(80_000).build().unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 80_000);
        assert_eq!(read[0].column(0).slice(40_000, 40_000).to_data(), batch.column(0).to_data());
    }

    #[test]
    fn frames_end_with_what_is_known_of_the_answer_or_why_it_failed() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let kinds = |out: &[u8]| {
            let mut frames = frames::Frames::default();
            frames.feed(out);
            let mut all = Vec::new();
            while let Some((kind, payload)) = frames.next().unwrap() {
                all.push((kind, payload));
            }
            all
        };
        let begin = || {
            let mut out = Vec::new();
            let mut encoder = Encoder::begin(Format::Frames, "q", &batch.schema(), &mut out).unwrap();
            encoder.rows(&batch, &mut out).unwrap();
            (encoder, out)
        };
        let (encoder, mut out) = begin();
        encoder.end(&json!({"truncated": false}), &mut out).unwrap();
        let all = kinds(&out);
        assert_eq!(all.last().unwrap(), &(Kind::End, Bytes::from_static(b"{\"truncated\":false}")));
        let arrow: Vec<u8> = all.iter().filter(|f| f.0 == Kind::Arrow).flat_map(|f| f.1.to_vec()).collect();
        let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), std::slice::from_ref(&batch));

        let (encoder, mut out) = begin();
        encoder.fail(Error::limit("too much"), &mut out).unwrap();
        let expected = Bytes::from_static(b"{\"kind\":\"Limit\",\"message\":\"too much\"}");
        assert_eq!(kinds(&out).last().unwrap(), &(Kind::Error, expected));
    }
}
