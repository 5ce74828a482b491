use std::sync::Arc;

use super::*;
use crate::rows::{RowDecoder, Span};
use shared::model::types::arrow_schema;

fn found(text: &str) -> Sample {
    sample(text.as_bytes(), true, "a.csv").unwrap()
}

fn format(sample: &Sample) -> CsvFormat {
    match &sample.format.encoding {
        Encoding::Csv(format) => format.clone(),
        other => panic!("expected CSV, found {other:?}"),
    }
}

fn types(sample: &Sample) -> Vec<String> {
    sample.columns.iter().map(|c| format!("{}:{}", c.name, c.shape.column_type())).collect()
}

#[test]
fn each_delimiter_is_found_with_its_header_and_types() {
    for delimiter in [",", ";", "\t", "|", "\u{1}"] {
        let text = "id,name,price,day\n1,Anna,2.5,2013-01-02\n2,Bo,3,2013-01-03\n".replace(',', delimiter);
        let sample = found(&text);
        assert_eq!(format(&sample).delimiter, delimiter.as_bytes()[0]);
        assert!(format(&sample).header);
        assert_eq!(types(&sample), ["id:bigint", "name:string", "price:double", "day:date"]);
    }
}

#[test]
fn decimal_commas_do_not_hide_a_semicolon() {
    let sample = found("produkt;preis;menge\nA;1,50;2\nB;2,75;3\nC;0,99;10\n");
    assert_eq!(format(&sample).delimiter, b';');
    assert_eq!(types(&sample), ["produkt:string", "preis:string", "menge:bigint"]);
}

#[test]
fn delimiters_and_line_breaks_in_quotes_do_not_cut() {
    let sample = found("id,address\n1,\"1 Main St, Springfield; IL\"\n2,\"PO Box 7\nShelbyville, IL\"\n");
    let format = format(&sample);
    assert_eq!((format.delimiter, format.quote, format.quoted, format.multiline), (b',', Some(b'"'), true, true));
    assert_eq!(types(&sample), ["id:bigint", "address:string"]);
}

#[test]
fn single_quotes_and_escapes_are_found() {
    let single = found("id,name\n1,'Doe, John'\n2,'Roe, Jane'\n3,'Poe, Edgar'\n");
    assert_eq!(format(&single).quote, Some(b'\''));
    let escaped = found("id,text\n1,\"say \\\"hi, there\\\" now\"\n2,\"a \\\"b, c\\\" d\"\n");
    assert_eq!(format(&escaped).escape, Some(b'\\'));
    assert_eq!(types(&escaped), ["id:bigint", "text:string"]);
}

#[test]
fn a_quote_inside_a_field_means_nothing() {
    let sample = found("id,size\n1,5\" pipe\n2,6\" pipe\n");
    assert_eq!(types(&sample), ["id:bigint", "size:string"]);
    assert!(!format(&sample).quoted);
}

#[test]
fn na_among_numbers_is_null_and_na_among_texts_is_text() {
    let numbers = found("carrier,delay\nUA,5\nAA,NA\nB6,12\n");
    assert_eq!(format(&numbers).nulls, ["NA"]);
    assert_eq!(types(&numbers), ["carrier:string", "delay:bigint"]);
    let texts = found("continent,code\nAfrica,AF\nNorth America,NA\nAsia,AS\nEurope,EU\n");
    assert!(format(&texts).nulls.is_empty());
}

#[test]
fn a_column_without_values_has_no_type_yet() {
    let sample = found("id,gust,note\n1,NA,\n2,NA,\n");
    assert_eq!(sample.columns[1].shape, Shape::Unknown);
    assert_eq!(sample.columns[2].shape, Shape::Unknown);
    assert!(format(&sample).nulls.is_empty(), "what a column means that has no type yet is not known");
}

#[test]
fn headers_are_told_from_data() {
    for (text, header) in [
        ("carrier,name\n9E,Endeavor Air Inc.\nAA,American Airlines Inc.\nUA,United\n", true),
        ("faa,tz\nJFK,America/New_York\nLGA,America/New_York\nEWR,America/New_York\n", true),
        ("name,city\nAnna,Paris\nBo,Rome\n", true),
        ("1,2\n3,4\n", false),
        ("Anna,1,true\nBo,2,false\n", false),
        ("2013-01-01,a\n2013-01-02,b\n", false),
        ("UA,EWR\nAA,JFK\nUA,LGA\nUA,EWR\n", false),
        ("country,2019,2020\nFrance,1.5,2.5\nItaly,3.5,4.5\n", true),
        ("a,b,c\n", true),
        ("1,b\n", false),
        (",x,y\n1,a,2\n2,b,3\n", true),
        ("src,dst\nJFK,LAX\nLAX,SFO\nEWR,ORD\n", true),
        ("id,to\nde,fr\nen,es\nit,nl\n", true),
        ("continent\nAfrica\nAsia\nEurope\n", true),
        ("gender,member\nfemale,yes\nmale,no\nfemale,yes\nmale,yes\n", true),
        ("city,note\n", true),
        ("JFK,LAX\nSFO,ORD\nEWR,MIA\n", false),
        ("N14228,N24211\nN39463,N29129\nN53441,N10156\n", false),
    ] {
        assert_eq!(format(&found(text)).header, header, "{text}");
    }
}

#[test]
fn names_are_made_unique_and_made_up_where_missing() {
    let sample = found("id,,Dep Time,dep_time\n1,2,3,4\n");
    assert_eq!(types(&sample), ["id:bigint", "col1:bigint", "dep_time:bigint", "dep_time_2:bigint"]);
    let none = found("1,a\n2,b\n");
    assert_eq!(types(&none), ["col0:bigint", "col1:string"]);
}

#[test]
fn ragged_rows_are_noted_and_nothing_of_them_is_lost() {
    let sample = found("a,b,c\n1,2,3\n4,5\n6,7,8,9\n1,2,3\n1,2,3\n");
    assert_eq!(types(&sample), ["a:bigint", "b:bigint", "c:bigint", "col3:bigint"]);
    assert!(sample.notes[0].contains("2 of 6 rows") && sample.notes[0].contains("row 3"), "{:?}", sample.notes);
}

#[test]
fn one_column_is_a_table_when_the_name_says_so() {
    assert_eq!(types(&found("id\n1\n2\n")), ["id:bigint"]);
    assert!(matches!(sample(b"id\n1\n2\n", true, "notes.txt"), Err(FileFault::Unrecognized { .. })));
}

#[test]
fn a_quote_that_never_closes_is_a_cut_file() {
    let text = "id,text\n1,\"a\"\n2,\"b\"\n3,\"c, d\n";
    assert!(matches!(sample(text.as_bytes(), true, "a.csv"), Err(FileFault::Truncated { .. })));
    assert!(sample(text.as_bytes(), false, "a.csv").is_ok());
}

#[test]
fn old_mac_and_windows_line_ends_are_line_ends() {
    for end in ["\r", "\r\n", "\n"] {
        let sample = found(&["id,name", "1,a", "2,b", ""].join(end));
        assert_eq!(types(&sample), ["id:bigint", "name:string"]);
    }
}

#[test]
fn a_number_that_overflows_widens() {
    assert_eq!(types(&found("n,x\n1,a\n99999999999999999999,b\n"))[0], "n:decimal(38,0)");
    assert_eq!(types(&found("n,x\n1.5,a\n99999999999999999999,b\n"))[0], "n:double");
}

/// What was inferred must be readable: every sample's own text is read back with the declared dialect.
#[test]
fn a_query_reads_what_was_inferred() {
    for text in [
        "id,name,price,day,at,seen,ok\n1,Anna,2.5,2013-01-02,2013-01-02 03:04:05,2013-01-02T03:04:05Z,true\n2,,NA,NA,NA,NA,NA\n",
        "a;b\n\"x;y\";1\n\"line\nbreak\";2\n",
        "a,b,c\n1,2,3\n4,5\n6,7,8,9\n",
        "n,m\n1,+5\n99999999999999999999,-inf\n",
        "d,t\n2013-01-02,2013-01-02\n2013-01-03,2013-01-03T04:05:06.789\n",
        "id\tsize\n1\t5\" pipe\n2\t\"6\"\n",
        "x,y\n1e5,-.5\nNaN,+1.5\n",
    ] {
        let sample = found(text);
        let columns = super::super::declared_columns(&sample.columns);
        let schema = Arc::new(arrow_schema(&columns));
        let asked = (0..columns.len()).collect();
        let table = Arc::new(decode::CsvTable { format: format(&sample), columns, keys: Vec::new() });
        let mut decoder = decode::CsvDecoder::new(table, asked, schema, 100, Span::whole()).unwrap();
        decoder.feed(bytes::Bytes::copy_from_slice(text.as_bytes()));
        decoder.end();
        let batch = decoder.next().unwrap_or_else(|error| panic!("{text}: {error}")).unwrap();
        assert!(batch.num_rows() > 1, "{text}");
    }
}

#[test]
fn the_whole_text_counts_not_only_its_beginning() {
    let many = |row: &str, last: &str| found(&format!("id,v\n{}{last}\n", format!("{row}\n").repeat(30_000)));
    assert_eq!(types(&many("1,2", "1,5.7"))[1], "v:double");
    assert_eq!(types(&many("1,2024-01-01", "1,2024-01-01 10:30:00"))[1], "v:timestamp");
    assert_eq!(types(&many("1,2", "1,2,EXTRA"))[2], "col2:string");
    let late = many("1,2", "1,NA");
    assert_eq!((types(&late)[1].as_str(), format(&late).nulls.as_slice()), ("v:bigint", ["NA".to_owned()].as_slice()));
    assert!(format(&many("1,2", "1,\"a\nb\"")).multiline);
}

#[test]
fn a_null_text_of_one_column_is_a_value_of_another() {
    let sample = found("id,country,v\n1,NA,1\n2,DE,NA\n3,None,2\n");
    assert_eq!(types(&sample), ["id:bigint", "country:string", "v:bigint"]);
    assert_eq!(format(&sample).nulls, ["NA"]);
}

#[test]
fn a_telephone_number_is_text() {
    assert_eq!(types(&found("phone,n\n+491701234567,1\n+441234567890,2\n")), ["phone:string", "n:bigint"]);
}

#[test]
fn a_row_that_does_not_end_in_what_was_read_is_too_large() {
    assert!(matches!(sample(b"a,\"bcd", false, "a.csv"), Err(FileFault::TooLarge { .. })));
}
