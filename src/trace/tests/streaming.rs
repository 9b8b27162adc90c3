//! A trace read piece by piece against the same trace read whole, and lines across the ends of blocks.

#[path = "../../../examples/samples/azure_week.rs"]
mod azure_week;

use std::io::BufReader;

use super::*;

/// Streams `bytes` as if from a file named t: the rows, the error that ended them, and what was met.
fn streamed(bytes: &[u8]) -> (Vec<TraceRow>, Option<String>, Notes) {
    let plain = crate::compression::open(Cursor::new(bytes.to_vec())).unwrap();
    let rows = match rows_of("t".to_owned(), plain, &ReadOptions::default()) {
        Ok(rows) => rows,
        Err(error) => return (Vec::new(), Some(error.to_string()), Notes::default()),
    };
    let mut stream = TraceStream::new(rows);
    let (mut all, mut chunk) = (Vec::new(), Vec::new());
    let error = loop {
        let more = stream.next_chunk(&mut chunk);
        assert!(chunk.len() <= 4_096);
        all.append(&mut chunk);
        match more {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(!stream.next_chunk(&mut chunk).unwrap() && chunk.is_empty(), "the end stays the end");
    (all, error, stream.notes())
}

#[test]
fn a_stream_gives_what_reading_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for name in [
        "azure-2023-sample.csv",
        "azure-2024-sample.csv",
        "mooncake-sample.jsonl",
        "plain-sample.csv",
        "plain-sample.jsonl",
    ] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let whole = read_bytes(&bytes, None).unwrap();
        assert_eq!(streamed(&bytes), (whole.rows, None, whole.notes), "{name}");
    }
}

#[test]
fn a_row_before_an_earlier_one_ends_a_stream() {
    let (rows, error, _) = streamed(plain("5,1,1\n7,2,0\n6,3,1\n\n5.9,4,1\n8,5,1").as_bytes());
    assert_eq!(rows.iter().map(|row| row.prompt_tokens).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        error.unwrap(),
        "t:6: this row came before an earlier one, and a trace that is streamed cannot be sorted; sort the file \
         by time, or leave out `streamed`"
    );
    // A row that is left out cannot be out of order.
    assert_eq!(streamed(plain("5,1,1\n4,2,0\n").as_bytes()).1, None);
}

#[test]
fn errors_of_a_stream_are_those_of_reading() {
    let far = "2023-01-01 00:00:00,1,1\n2024-01-01 00:00:00,1,1";
    for text in ["", AZURE, &plain("1,1,0"), &plain("1,1,1\n2,x,1"), &plain("1,1\n"), &azure(far), "a,b\n"] {
        assert_eq!(streamed(text.as_bytes()).1.unwrap(), error(text));
    }
}

#[test]
fn a_stream_stops_where_it_is_told_to() {
    let rows = rows_of(
        "t".to_owned(),
        Box::new(Cursor::new(plain("1,1,1\n2,2,0\n3,3,1\n4,x,1"))),
        &ReadOptions::default(),
    )
    .unwrap();
    let (mut stream, mut chunk) = (TraceStream::new(rows).first(2), Vec::new());
    assert!(stream.next_chunk(&mut chunk).unwrap());
    assert_eq!((chunk.len(), stream.format(), stream.notes().rows_read), (2, "tailcast-csv", 3));
    assert!(!stream.next_chunk(&mut chunk).unwrap());
}

/// Lines of all lengths, so that ends of blocks fall everywhere: within a line, a letter, CR LF.
#[test]
fn lines_are_whole_across_the_ends_of_blocks() {
    let mut text = String::from("\u{feff}one\r\n");
    let mut expected = vec![(1, "one".to_owned())];
    for number in 2..4_000u64 {
        let line = if number % 7 == 0 {
            " \t".to_owned()
        } else {
            format!("é{}", "\u{1f980}".repeat(number as usize % 300))
        };
        text.push_str(&line);
        text.push_str(if number % 2 == 0 { "\r\n" } else { "\n" });
        if number % 7 != 0 {
            expected.push((number, line));
        }
    }
    text.push_str("last");
    expected.push((4_000, "last".to_owned()));
    assert!(text.len() > 2_000_000, "{}", text.len());
    for piece in [1, 100, 1 << 20] {
        let source = BufReader::with_capacity(piece, Cursor::new(text.clone().into_bytes()));
        let mut lines = Lines::new("t".to_owned(), Box::new(source));
        for (number, line) in &expected {
            assert!(lines.advance().unwrap());
            let place = lines.problem(String::new()).to_string();
            assert_eq!((lines.text(), place), (line.as_str(), format!("t:{number}: ")));
        }
        assert!(!lines.advance().unwrap() && !lines.advance().unwrap());
    }
}

#[test]
fn the_last_good_line_before_a_bad_one_is_read() {
    let mut text = plain(&"1,1,1\n".repeat(100_000)).into_bytes();
    text.extend(b"2,\xff,1\n3,1,1\n");
    let (rows, error, _) = streamed(&text);
    assert_eq!((rows.len(), error.unwrap().as_str()), (100_000, "t:100002: this line is not UTF-8 text"));
    let mut long = plain("1,1,1\n").into_bytes();
    long.extend(vec![b' '; (16 << 20) - 1]);
    long.push(b'\n');
    assert_eq!(streamed(&long).1.unwrap(), "t:3: this line is longer than 16777216 bytes");
    // One byte less is a blank line.
    long.remove(100);
    assert_eq!(streamed(&long).1, None);
    let broken = gzip(&plain(&(0..200_000).map(|row| format!("{row},1,1\n")).collect::<String>()));
    let (rows, error, _) = streamed(&broken[..broken.len() / 2]);
    let line = rows.len() + 2;
    assert!(rows.len() > 10_000);
    assert_eq!(error.unwrap(), format!("t:{line}: the compressed data break off here; is the file whole?"));
}

#[test]
fn days_and_odd_dates_of_azure() {
    let said = |time: &str| streamed(azure(&format!("2024-05-10 00:00:00,1,1\n{time},1,1\n")).as_bytes());
    assert_eq!(said("2024-05-11 00:00:00").0[1].arrived.as_s(), 86_400.0);
    let nul = "\0".repeat(10);
    for time in
        [format!("{nul} 00:00:00"), "2024-05-10 00:00:0é".to_owned(), "2024-13-01 00:00:00".to_owned()]
    {
        assert!(said(&time).1.unwrap().starts_with("t:3: column TIMESTAMP: expected a time such as"));
    }
}

#[test]
fn a_made_up_week_is_what_it_says() {
    let mut bytes = Vec::new();
    azure_week::write(40_000, &mut bytes).unwrap();
    let (rows, error, notes) = streamed(&bytes);
    assert_eq!((rows.len(), error, notes.rows_read), (40_000, None, 40_000));
    assert_eq!(read_bytes(&bytes, None).unwrap().format, "azure-2024");
    let mean = |tokens: fn(&TraceRow) -> u32| {
        rows.iter().map(|row| f64::from(tokens(row))).sum::<f64>() / rows.len() as f64
    };
    let (prompt, output) = (mean(|row| row.prompt_tokens), mean(|row| row.output_tokens));
    assert!(
        (prompt / 1_480.0 - 1.0).abs() < 0.03 && (output / 109.0 - 1.0).abs() < 0.03,
        "{prompt} {output}"
    );
    // The week begins at its calmest, half the mean of 72.75 requests a second.
    let rate = 40_000.0 / rows[39_999].arrived.as_s();
    assert!((rate / 36.4 - 1.0).abs() < 0.05, "{rate}");
    let mut again = Vec::new();
    azure_week::write(1_000, &mut again).unwrap();
    assert!(bytes.starts_with(&again));
}
