use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use super::*;
use shared::model::types::arrow_schema;

fn table(columns: &str, format: CsvFormat) -> Arc<CsvTable> {
    let column = |text: &str| {
        let (name, ty) = text.split_once(':').unwrap();
        Column::new(name, ty.parse().unwrap())
    };
    Arc::new(CsvTable { format, columns: columns.split(' ').map(column).collect(), keys: vec!["day".into()] })
}

fn crawled() -> CsvFormat {
    CsvFormat::default().with_header(true)
}

/// Rows as texts joined by `|`, nulls as `-`, of a text that comes in pieces of `size` bytes.
fn decoded(table: &Arc<CsvTable>, text: &[u8], size: usize, span: Span) -> Result<Vec<String>> {
    let schema = Arc::new(arrow_schema(&table.columns));
    let asked = (0..table.columns.len()).collect();
    let mut decoder = CsvDecoder::new(Arc::clone(table), asked, schema, 3, span)?;
    let mut rows = Vec::new();
    let mut drain = |decoder: &mut CsvDecoder| -> Result<()> {
        while let Some(batch) = decoder.next()? {
            let options = FormatOptions::new().with_null("-");
            for row in 0..batch.num_rows() {
                let cell = |column: &arrow::array::ArrayRef| {
                    ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string()
                };
                rows.push(batch.columns().iter().map(cell).collect::<Vec<_>>().join("|"));
            }
        }
        Ok(())
    };
    for piece in text.chunks(size.max(1)) {
        decoder.feed(Bytes::copy_from_slice(piece));
        drain(&mut decoder)?;
    }
    decoder.end();
    drain(&mut decoder)?;
    Ok(rows)
}

fn read(table: &Arc<CsvTable>, text: &str) -> Vec<String> {
    let whole = decoded(table, text.as_bytes(), text.len(), Span::whole()).unwrap();
    for size in [1, 2, 7] {
        assert_eq!(decoded(table, text.as_bytes(), size, Span::whole()).unwrap(), whole, "in pieces of {size}");
    }
    whole
}

fn refused(table: &Arc<CsvTable>, text: &str) -> String {
    decoded(table, text.as_bytes(), text.len(), Span::whole()).unwrap_err().to_string()
}

#[test]
fn a_quote_that_never_closes_is_refused() {
    let table = table("a:int b:string", crawled());
    let found = |text: &str| decoded(&table, text.as_bytes(), 7, Span::whole());
    let error = found("a,b\n1,x\n2,\"open\n3,y\n4,z\n").unwrap_err();
    assert!(error.message().contains("line 3"), "{error}");
    assert_eq!(found("a,b\n1,\"two\nlines\"").unwrap(), ["1|two\nlines"]);
    assert_eq!(found("a,b\n1,5\" pipe").unwrap(), ["1|5\" pipe"]);
}

#[test]
fn columns_are_found_by_the_names_in_the_header() {
    let table = table("id:bigint name:string age:int", crawled());
    assert_eq!(read(&table, "id,name,age\n1,Ann,40\n"), ["1|Ann|40"]);
    assert_eq!(read(&table, "name,id\r\nBob,2\r\n"), ["2|Bob|-"]);
    assert_eq!(read(&table, "id,more,Age,NAME\n3,x,50,Carl"), ["3|Carl|50"]);
    for (text, found) in
        [("3,Carl\n4,Dora\n", "`3, Carl`"), ("id;name\n3;Carl\n", "`id;name`"), ("x,id\n1,2\n", "`x, id`")]
    {
        let error = refused(&table, text);
        assert!(error.contains("`id, name, age`") && error.contains(found), "{error}");
    }
}

#[test]
fn a_definition_of_others_goes_by_position_unless_the_names_are_the_same_in_another_order() {
    let table = table("id:bigint name:string", CsvFormat { header: true, ..CsvFormat::default() });
    assert_eq!(read(&table, "number,label\n1,Ann\n"), ["1|Ann"]);
    assert_eq!(read(&table, "name,id\nAnn,1\n"), ["1|Ann"]);
}

#[test]
fn a_key_of_the_partitions_in_the_file_is_a_column_of_its_own() {
    let table = table("id:bigint day_in_file:string v:int", crawled());
    assert_eq!(read(&table, "v,day,id\n5,mon,1\n"), ["1|mon|5"]);
}

#[test]
fn texts_that_mean_nothing_are_null_where_they_can_be_no_value() {
    let table = table("code:string n:bigint d:date", crawled());
    assert_eq!(
        read(&table, "code,n,d\nNA,NA,None\nNull,NULL,\n,7,2024-01-02\n"),
        ["NA|-|-", "Null|-|-", "-|7|2024-01-02"]
    );
    let everywhere = CsvFormat { null_text: Some("\\N".into()), ..CsvFormat::default() };
    let listed = CsvFormat { nulls: vec!["NA".into()], ..CsvFormat::default() };
    assert_eq!(read(&self::table("a:string b:bigint", listed), "NA,NA\n"), ["-|-"]);
    assert_eq!(read(&self::table("a:string b:string", everywhere), "\\N,NA\n"), ["-|NA"]);
}

#[test]
fn a_value_that_its_column_cannot_hold_is_an_error_with_line_and_column() {
    let table = table("id:bigint d:date x:double", crawled());
    for (row, column) in [
        ("5.7,,", "id"),
        ("99999999999999999999,,", "id"),
        ("007,,", "id"),
        ("+5,,", "id"),
        (",2024-01-01 10:30:00,", "d"),
        (",,11.0.1", "x"),
        (",,1e999", "x"),
    ] {
        let error = refused(&table, &format!("id,d,x\n1,2024-01-01,1\n\"1\",\n{row}\n"));
        assert!(error.contains(&format!("column `{column}` at line 4")), "{row}: {error}");
    }
    let error = decoded(&table, b"id,d,x\n1,\xff,\n", 99, Span::whole()).unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn what_a_row_has_beyond_the_columns_is_passed_over_only_where_the_definition_is_not_a_crawl_s() {
    let columns = "a:bigint b:bigint";
    let declared = CsvFormat { header: true, ..CsvFormat::default() };
    let text = "a,b\n1\n2,3,4,5\n\n6,7,\n";
    assert_eq!(read(&table(columns, declared.clone()), text), ["1|-", "2|3", "6|7"]);
    let error = refused(&table(columns, crawled()), text);
    assert!(error.contains("line 3") && error.contains("`4`"), "{error}");
    let strict = table(columns, CsvFormat { ragged: false, ..declared });
    assert!(refused(&strict, text).contains("expected 2 fields at line 2, found 1"));
    assert_eq!(read(&table("a:bigint b:bigint col2:bigint", crawled()), "a,b\n1\n2,3,4\n"), ["1|-|-", "2|3|4"]);
}

#[test]
fn a_blank_line_is_a_row_of_one_column_and_none_of_several() {
    assert_eq!(read(&table("v:bigint", crawled()), "v\n1\n\n3\n"), ["1", "-", "3"]);
    assert_eq!(read(&table("v:bigint", crawled()), "\u{feff}v\r\n\r\n1\r\n\r\n"), ["-", "1", "-"]);
    assert_eq!(read(&table("a:bigint b:bigint", crawled()), "a,b\r\n\r\n1,2\r\n\r\n"), ["1|2"]);
}

#[test]
fn a_row_that_is_too_large_is_a_limit() {
    let table = table("a:string", CsvFormat::default());
    let error = decoded(&table, &vec![b'x'; MAX_ROW_BYTES + 2], 1 << 20, Span::whole()).unwrap_err();
    assert_eq!(error.kind(), shared::ErrorKind::Limit);
}

#[test]
fn a_value_larger_than_a_batch_is_whole() {
    let table = table("a:bigint b:string", CsvFormat::default());
    let large = "x".repeat(2 * BATCH_BYTES + 7);
    let rows = decoded(&table, format!("1,a\n2,{large}\n3,c\n").as_bytes(), 1 << 20, Span::whole()).unwrap();
    assert_eq!(rows, ["1|a".to_owned(), format!("2|{large}"), "3|c".to_owned()]);
}

proptest! {
    /// A file in parts has the rows of the whole, wherever it is cut.
    #[test]
    fn parts_of_a_file_hold_each_row_once(text in "[ab,\"\n\r]{0,50}", cut in 0..50_usize, size in 1..9_usize, columns in 1..3_usize) {
        let columns = ["a:string b:string c:string", "a:string"][columns - 1];
        let table = table(columns, CsvFormat::default());
        let whole = decoded(&table, text.as_bytes(), 99, Span::whole());
        // A quote is open at the end.
        prop_assume!(whole.is_ok());
        let whole = whole.unwrap();
        let cut = cut.min(text.len());
        let mut place = crate::csv::cursor::Cursor::start(&table.format);
        place.skip(&text.as_bytes()[..cut]);
        let first = Span { end: cut as u64, ..Span::whole() };
        let mut parts = decoded(&table, text.as_bytes(), size, first).unwrap();
        if cut == 0 {
            parts.clear();
        }
        if let Some(more) = place.row_start(&text.as_bytes()[cut..]) {
            let at = cut + more;
            let span = Span { start: at as u64, end: u64::MAX, line: None };
            let rest = if at == 0 { Span::whole() } else { span };
            parts.extend(decoded(&table, &text.as_bytes()[at..], size, rest).unwrap());
        }
        prop_assert_eq!(parts, whole);
    }

    /// What is sniffed and what is read are the same rows and fields.
    #[test]
    fn rows_are_those_that_the_crawl_sees(text in "[ab,\"\n\r]{0,40}") {
        let marks = crate::csv::rows::Marks { delimiter: b',', quote: Some(b'"'), escape: None };
        let seen = crate::csv::rows::Rows::cut(text.as_bytes(), marks, true, usize::MAX);
        let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() };
        let expected: Vec<String> = (0..seen.len())
            .map(|row| {
                let mut cells: Vec<String> = seen.row(row).map(|(text, _)| shown(text)).collect();
                cells.resize(9, "-".into());
                cells.join("|")
            })
            .collect();
        let columns: Vec<String> = (0..9).map(|at| format!("c{at}:string")).collect();
        let wide: Vec<String> = expected.iter().filter(|row| row.split('|').count() > 9).cloned().collect();
        prop_assume!(wide.is_empty());
        let table = table(&columns.join(" "), CsvFormat::default());
        match decoded(&table, text.as_bytes(), 5, Span::whole()) {
            Ok(found) => prop_assert_eq!(found, expected),
            Err(error) => prop_assert!(seen.open_quote && error.message().contains("quote"), "{error}"),
        }
    }
}
