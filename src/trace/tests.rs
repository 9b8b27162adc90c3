//! Every format on small inputs, and every way in which a file can be wrong.

use std::io::{Cursor, Write};

use super::*;
use crate::request::ContentRun;

mod formats;
mod real;
mod samples;
mod streaming;

/// Reads `bytes` as if from a file named t.
fn read_bytes(bytes: &[u8], format: Option<&str>) -> Result<Trace, TraceError> {
    read_from("t".to_owned(), Cursor::new(bytes.to_vec()), &ReadOptions::of_format(format))
}

#[track_caller]
fn ok(text: &str) -> Trace {
    read_bytes(text.as_bytes(), None).unwrap()
}

#[track_caller]
fn error(bytes: impl AsRef<[u8]>) -> String {
    read_bytes(bytes.as_ref(), None).unwrap_err().to_string()
}

fn times_ps(trace: &Trace) -> Vec<u64> {
    trace.rows.iter().map(|row| row.arrived.as_ps()).collect()
}

fn prompts(trace: &Trace) -> Vec<u32> {
    trace.rows.iter().map(|row| row.prompt_tokens).collect()
}

fn run(stream: u64, tokens: u32) -> ContentRun {
    ContentRun { stream, position: 0, tokens }
}

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
const PLAIN: &str = "arrived_s,prompt_tokens,output_tokens\n";

fn azure(rows: &str) -> String {
    format!("{AZURE}{rows}")
}

fn plain(rows: &str) -> String {
    format!("{PLAIN}{rows}")
}

#[test]
fn azure_2023() {
    let trace = ok(&azure("2023-11-16 18:15:46.6805900,374,44\r\n2023-11-17 00:00:00.0000001,0,9"));
    assert_eq!(trace.format, "azure-2023");
    // 5 h 44 min 13 s 319410100 ns.
    assert_eq!(times_ps(&trace), [0, 20_653_319_410_100_000]);
    assert_eq!((trace.rows[0].prompt_tokens, trace.rows[0].output_tokens), (374, 44));
    assert_eq!(trace.rows[1].prompt_tokens, 0);
    assert!(trace.notes.lines().is_empty());
}

#[test]
fn azure_2024() {
    let trace = ok(&azure("2024-02-29 23:59:59.999999+00:00,7,1\n2024-03-01 00:00:01+00:00,8,2\n"));
    assert_eq!((trace.format, times_ps(&trace)), ("azure-2024", vec![0, 1_000_001_000_000]));
}

#[test]
fn azure_times_that_are_none() {
    let bad = |time: &str| {
        let said = error(azure(&format!("2023-11-16 18:15:46.1,1,1\n{time},1,1")));
        let expected = "t:3: column TIMESTAMP: expected a time such as 2023-11-16 18:15:46.6805900, got ";
        assert_eq!(said, format!("{expected}{time:?}"));
    };
    bad("2023-11-31 00:00:00");
    bad("2023-02-29 00:00:00");
    bad("2023-11-16 24:00:00");
    bad("2023-11-16 18:15:60");
    bad("2023-11-16T18:15:46");
    bad("2023-11-16 18:15:46.");
    bad("2023-11-16 18:15:46.12x");
    bad("2023-11-16 18:15:46.1234567890123");
    bad("2023-11-16 18:15:46+00:00");
    bad("2023-11-16");
    bad("NaN");
    assert!(
        error(azure("2024-05-10 00:00:00+00:00,1,1\n2024-05-10 00:00:01,1,1")).starts_with(
            "t:3: column TIMESTAMP: expected a time such as 2024-05-10 00:00:00.009930+00:00, got"
        )
    );
    let eras = azure("2023-01-01 00:00:00,1,1\n2024-01-01 00:00:00,1,1");
    assert_eq!(
        error(eras),
        "t:3: this row lies more than 106 days from the first, more than can be simulated"
    );
}

#[test]
fn token_counts_that_are_none() {
    let bad = |tokens: &str, expected: &str| {
        let said = error(azure(&format!("2023-11-16 18:15:46.1,{tokens},1")));
        assert_eq!(said, format!("t:2: column ContextTokens: expected {expected}"));
    };
    bad("12.5", "a whole number of tokens, got \"12.5\"");
    bad("NaN", "a whole number of tokens, got \"NaN\"");
    bad("inf", "a whole number of tokens, got \"inf\"");
    bad("-1", "a whole number of tokens, got \"-1\"");
    bad("+1", "a whole number of tokens, got \"+1\"");
    bad("1e3", "a whole number of tokens, got \"1e3\"");
    bad("", "a whole number of tokens, got nothing");
    bad("4294967296", "at most 4294967295 tokens, got \"4294967296\"");
    let digits = "9".repeat(100);
    bad(&digits, &format!("at most 4294967295 tokens, got \"{}\"...", &digits[..60]));
}

#[test]
fn mooncake() {
    let trace = ok("{\"timestamp\": 0, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": [0, 9]}\n\
                    {\"timestamp\": 3001, \"input_length\": 0, \"output_length\": 5, \"hash_ids\": []}\n");
    assert_eq!((trace.format, times_ps(&trace)), ("mooncake", vec![0, 3_001_000_000_000]));
    assert_eq!(trace.rows[0].content.runs(), [run(0, 512), run(9, 1)]);
    assert!(trace.rows[1].content.runs().is_empty());
}

#[test]
fn mooncake_rows_that_are_wrong() {
    let bad = |row: &str, said: &str| assert_eq!(error(row), said);
    let row = |time: &str, prompt: &str, ids: &str| {
        format!("{{\"timestamp\":{time},\"input_length\":{prompt},\"output_length\":1,\"hash_ids\":{ids}}}")
    };
    bad(
        &row("0", "512", "[1,2]"),
        "t:1: column hash_ids: expected 1 ids, one for each started block of 512 of 512 tokens, got 2",
    );
    bad(
        &row("0", "5", "[18446744073709551616]"),
        "t:1: column hash_ids: expected a list of whole numbers below 2^64, got \"[1.8446744073709552e+19]\"",
    );
    bad(
        &row("0", "5", "[\"a\"]"),
        "t:1: column hash_ids: expected a list of whole numbers below 2^64, got \"[\\\"a\\\"]\"",
    );
    bad(
        &row("\"x\"", "5", "[1]"),
        "t:1: column timestamp: expected milliseconds after the trace's start, got \"\\\"x\\\"\"",
    );
    bad(
        &row("0", "\"5\"", "[1]"),
        "t:1: column input_length: expected a whole number of tokens, got \"\\\"5\\\"\"",
    );
    bad(&row("0", "[5]", "[1]"), "t:1: column input_length: expected a whole number of tokens, got \"[5]\"");
    bad(
        &row("0", "5", "[1]").replace("input_length", "input_lenght"),
        "t:1: unknown column \"input_lenght\"; did you mean input_length? Known: timestamp, input_length, \
         output_length, hash_ids",
    );
    bad(&row("0", "null", "[1]"), "t:1: column input_length is missing");
    let half = format!("{}\n\n{}", row("0", "5", "[1]"), "{\"timestamp\": 0, \"input_l");
    bad(&half, "t:3: not a whole JSON object: EOF while parsing a string at character 25");
    bad(&format!("{}\n[1]", row("0", "5", "[1]")), "t:2: expected one JSON object on each line");
    bad(&row("NaN", "5", "[1]"), "t:1: not a whole JSON object: expected value at character 14");
    let deep = format!("{}{}", row("0", "5", "[1]").trim_end_matches("[1]}"), "[".repeat(100_000));
    assert!(error(deep).starts_with("t:1: not a whole JSON object: recursion limit exceeded"));
}

#[test]
fn plain_csv() {
    let trace = ok(
        "\u{feff}output_tokens,prefix_tokens,priority,arrived_s,prefix,prompt_tokens,session,max_tokens\r\n\
                    \r\n\
                    2,64,-1,10.000000000001,7,100,18446744073709551615,9\r\n\
                    \"3\",, , 10 ,,\"50\",,",
    );
    assert_eq!((trace.format, times_ps(&trace)), ("tailcast-csv", vec![0, 1]));
    let [second, first] = &trace.rows[..] else { panic!("two rows") };
    assert_eq!((first.prompt_tokens, first.output_tokens, first.max_tokens), (100, 2, Some(9)));
    assert_eq!((first.session, first.priority), (Some(u64::MAX), -1));
    assert_eq!(first.content.runs(), [run(7, 64)]);
    assert_eq!((second.prompt_tokens, second.output_tokens, second.max_tokens), (50, 3, None));
    assert_eq!((second.session, second.priority), (None, 0));
    assert_eq!(trace.notes.out_of_order, 1);
    assert_eq!(trace.notes.lines(), ["1 of 2 rows stood below a later one; the trace was sorted by time."]);
}

#[test]
fn plain_csv_rows_that_are_wrong() {
    let bad = |row: &str, said: &str| assert_eq!(error(plain(row)), said);
    let seconds = |time: &str| {
        let expected = "t:2: column arrived_s: expected decimal seconds, such as 12.345, got";
        assert_eq!(error(plain(&format!("{time},1,1"))), format!("{expected} {time:?}"));
    };
    for time in ["-1", "NaN", "inf", "1e3", "1.", ".5", "1.5.2", "0x1", "1 0"] {
        seconds(time);
    }
    bad(
        "0.0000000000001,1,1",
        "t:2: column arrived_s: expected at most 12 digits after the point (a picosecond), got \"0.0000000000001\"",
    );
    bad("4294967296,1,1", "t:2: column arrived_s: expected at most 4294967295 seconds, got \"4294967296\"");
    bad("1,1", "t:2: expected 3 fields as in the header, got 2");
    bad("1,1,1,", "t:2: expected 3 fields as in the header, got 4");
    bad("1,\"1,1", "t:2: a quoted field does not end on its line, or text follows it");
    bad("1,\"1\"2,1", "t:2: a quoted field does not end on its line, or text follows it");
    let header = "arrived_s,prompt_tokens,output_tokens,max_tokens,session,priority,prefix,prefix_tokens\n";
    let bad =
        |row: &str, said: &str| assert_eq!(error(format!("{header}{row}")), format!("t:2: column {said}"));
    bad("0,9,1,0,,,,", "max_tokens: expected at least 1 token, got \"0\"");
    bad("0,9,1,,x,,,", "session: expected a whole number, got \"x\"");
    bad(
        "0,9,1,,18446744073709551616,,,",
        "session: expected a whole number below 2^64, got \"18446744073709551616\"",
    );
    bad(
        "0,9,1,,,2147483648,,",
        "priority: expected a whole number from -2147483648 to 2147483647, got \"2147483648\"",
    );
    bad("0,9,1,,,,5,", "prefix_tokens: expected the length of the prefix that the row names, got nothing");
    bad("0,9,1,,,,,5", "prefix: expected the id of the prefix whose length the row gives, got nothing");
    bad("0,9,1,,,,5,10", "prefix_tokens: expected at most the prompt's 9 tokens, got \"10\"");
}

#[test]
fn plain_jsonl() {
    let trace = ok("{\"arrived_s\": 0.1, \"prompt_tokens\": 40, \"output_tokens\": 2, \"session\": 3, \
                    \"blocks\": {\"tokens\": 16, \"ids\": [1, 2, 3]}, \"max_tokens\": 4, \"priority\": -2}\n\
                    {\"arrived_s\": 4000000.100000000001, \"prompt_tokens\": 40, \"output_tokens\": 2, \
                    \"prefix\": 5, \"prefix_tokens\": 40, \"session\": null}");
    assert_eq!((trace.format, times_ps(&trace)), ("tailcast-jsonl", vec![0, 4_000_000_000_000_000_001]));
    assert_eq!(trace.rows[0].content.runs(), [run(1, 16), run(2, 16), run(3, 8)]);
    assert_eq!((trace.rows[0].session, trace.rows[0].max_tokens), (Some(3), Some(4)));
    assert_eq!(trace.rows[0].priority, -2);
    assert_eq!((trace.rows[1].content.runs(), trace.rows[1].session), (&[run(5, 40)][..], None));
}

#[test]
fn plain_jsonl_rows_that_are_wrong() {
    let bad = |keys: &str, said: &str| {
        let row = format!("{{\"arrived_s\":1,\"prompt_tokens\":40,\"output_tokens\":2{keys}}}");
        assert_eq!(error(row), format!("t:1: {said}"));
    };
    bad(
        ",\"blocks\":{\"tokens\":16,\"ids\":[1,2,3,4]}",
        "column blocks: expected at most 3 ids, one for each started block of 16 of 40 tokens, got \
         \"{\\\"tokens\\\":16,\\\"ids\\\":[1,2,3,4]}\"",
    );
    for blocks in ["{\"tokens\":0,\"ids\":[]}", "{\"tokens\":16}", "[1]", "{\"tokens\":16,\"ids\":[1.5]}"] {
        bad(
            &format!(",\"blocks\":{blocks}"),
            &format!(
                "column blocks: expected {{\"tokens\": N, \"ids\": [...]}}, whole numbers, N at least 1, got {blocks:?}"
            ),
        );
    }
    bad(
        ",\"prefix\":1,\"prefix_tokens\":1,\"blocks\":[]",
        "column blocks: expected either blocks or a prefix, not both, got \"[]\"",
    );
    bad(",\"arrived_s\":true", "column arrived_s: expected decimal seconds, such as 12.345, got \"true\"");
    bad(",\"arrived_s\":-1", "column arrived_s: expected decimal seconds, such as 12.345, got \"-1\"");
    bad(",\"max_tokens\":2.5", "column max_tokens: expected a whole number of tokens, got \"2.5\"");
}

#[test]
fn rows_are_sorted_and_counted() {
    let trace = ok(&plain("3,1,1\n1,2,1\n0.5,9,0\n3,3,1\n1.0,4,1\n2,5,1\n"));
    assert_eq!(prompts(&trace), [2, 4, 5, 1, 3]);
    assert_eq!(trace.rows[0].arrived, Time::ZERO);
    let notes = Notes {
        rows_read: 6,
        output_zero_skipped: 1,
        out_of_order: 3,
        duplicate_times: 2,
        ..Notes::default()
    };
    assert_eq!(trace.notes, notes);
    assert_eq!(
        trace.notes.lines(),
        [
            "1 of 6 rows produced no token and were left out.",
            "3 of 6 rows stood below a later one; the trace was sorted by time.",
            "2 of 6 rows came at the same time as another before them.",
        ]
    );
}

#[test]
fn files_without_requests() {
    assert_eq!(error(""), "t: holds no requests: it is empty");
    assert_eq!(error("\n \r\n"), "t: holds no requests: it is empty");
    assert_eq!(error(AZURE), "t: holds no requests: there is no row below the header");
    assert_eq!(error(AZURE.trim()), "t: holds no requests: there is no row below the header");
    assert_eq!(error(plain("1,1,0")), "t: holds no requests: no row produced a token");
}

#[test]
fn headers_that_are_wrong() {
    assert_eq!(error("TIMESTAMP,ContextTokens\n"), "t:1: column GeneratedTokens is missing");
    assert_eq!(
        error("TIMESTAMP,ContextToken,GeneratedTokens\n"),
        "t:1: unknown column \"ContextToken\"; did you mean ContextTokens? Known: TIMESTAMP, ContextTokens, \
         GeneratedTokens"
    );
    assert_eq!(
        error("arrived_s,prompt_tokens,output_tokens,who\n"),
        "t:1: unknown column \"who\"; if it is a log of your own, say what is what: --columns arrived=... Known: arrived_s, \
         prompt_tokens, output_tokens, max_tokens, session, priority, prefix, prefix_tokens"
    );
    assert_eq!(error("arrived_s,arrived_s\n1,1"), "t:1: column arrived_s is there twice");
}

#[test]
fn formats_that_nobody_knows() {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    let formats = format!("the formats: {}", names.join(", "));
    assert_eq!(
        error("a,b\n1,2"),
        format!(
            "t: its first line, \"a,b\", opens no known trace format; {formats}. Any other CSV or JSON lines are read by `columns` \
             (--columns arrived=...,prompt_tokens=...,output_tokens=...)"
        )
    );
    let said = read_bytes(b"", Some("mooncacke")).unwrap_err().to_string();
    let formats = formats.replace("the", "The");
    assert_eq!(said, format!("there is no trace format \"mooncacke\"; did you mean mooncake? {formats}"));
    // A name given decides, whatever the content looks like.
    let said = read_bytes(plain("1,1,1").as_bytes(), Some("mooncake")).unwrap_err().to_string();
    assert_eq!(said, "t:1: not a whole JSON object: expected value at character 1");
}

#[test]
fn bytes_that_are_no_text() {
    let mut text = plain("1,1,1\n").into_bytes();
    text.extend(b"2,\xff,1\n");
    assert_eq!(error(text), "t:3: this line is not UTF-8 text");
    assert_eq!(error(b"\xff\xfea\0"), "t:1: this line is not UTF-8 text");
    let endless = vec![b'1'; 17 << 20];
    assert_eq!(error(endless), "t:1: this line is longer than 16777216 bytes");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files() {
    let members = [gzip(PLAIN), gzip("1,1,1\n2,"), gzip("2,2\n")].concat();
    assert_eq!(prompts(&read_bytes(&members, None).unwrap()), [1, 2]);
    let zstd = zstd::encode_all(plain("1,1,1\n2,2,2").as_bytes(), 3).unwrap();
    assert_eq!(prompts(&read_bytes(&zstd, None).unwrap()), [1, 2]);
}

#[test]
fn compressed_files_that_are_damaged() {
    // Digits that do not compress well, so that the cut falls among rows.
    let rows: String = (0..5_000u64).map(|i| format!("{i},{},1\n", i * i * 7_919 % 99_991)).collect();
    let whole = gzip(&plain(&rows));
    let said = error(&whole[..whole.len() / 2]);
    assert!(said.ends_with(": the compressed data break off here; is the file whole?"), "{said}");
    assert!(error(&whole[..whole.len() - 4]).ends_with("is the file whole?"));
    assert!(error(&whole[..3]).starts_with("t:1: "));
    let mut damaged = zstd::encode_all(plain(&rows).as_bytes(), 3).unwrap();
    let said = error(&damaged[..damaged.len() / 2]);
    assert!(said.ends_with("is the file whole?"), "{said}");
    for byte in damaged.iter_mut().skip(12) {
        *byte ^= 0x55;
    }
    assert!(error(&damaged).contains("the data cannot be read on from here"), "{}", error(&damaged));
}

#[test]
fn paths_that_are_no_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/trace");
    let said = read(&folder, &ReadOptions::default()).unwrap_err().to_string();
    assert!(
        said.contains("agentic.rs: its first line") && said.contains("opens no known trace format"),
        "{said}"
    );
    let said = read(&folder.join("none.csv"), &ReadOptions::default()).unwrap_err().to_string();
    assert!(said.contains("none.csv: cannot be opened: "), "{said}");
}

#[test]
fn statistics_of_a_small_trace() {
    let header = "arrived_s,prompt_tokens,output_tokens,prefix,prefix_tokens\n";
    let trace = ok(&format!("{header}0,10,1,1,5\n0.5,20,1,1,8\n1,30,2,,\n2,40,4,1,8\n"));
    let info = TraceInfo::of(&trace);
    assert_eq!((info.requests, info.span_s, info.mean_rate_per_s), (4, 2.0, Some(2.0)));
    assert_eq!((info.peak_1s_requests, info.peak_60s_requests, info.least_60s_requests), (2, 4, None));
    assert_eq!((info.prompt_tokens.p50, info.prompt_tokens.total, info.output_tokens.mean), (25.0, 100, 2.0));
    let reuse = info.reuse.unwrap();
    assert_eq!((reuse.block_references, reuse.distinct_blocks), (3, 1));
    // Of the second prompt 5 tokens were seen, of the last 8.
    assert_eq!(reuse.prompt_token_share, 0.13);
    assert!(info.text().contains("mean rate             2.000 requests/s\n"), "{}", info.text());
    let one = TraceInfo::of(&ok(&plain("5,1,1")));
    assert_eq!((one.span_s, one.mean_rate_per_s, one.gap_cv, one.dispersion_1s), (0.0, None, None, None));
    assert!(one.text().contains("the trace names no prefixes"));
}
