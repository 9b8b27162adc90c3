//! The formats of others on small inputs, and what each says of a file that is wrong.

use super::*;
use crate::request::Content;

#[track_caller]
fn read_as(text: &str, format: &str) -> Trace {
    let trace = ok(text);
    assert_eq!(trace.format, format);
    trace
}

#[test]
fn burstgpt_by_name() {
    let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n\
                5,ab-1,2.5,ChatGPT,472,18,490,Conversation log\r\n\
                45.5,,,GPT-4,1087,0,1087,API log\r\n\
                46,ab-1,,ChatGPT,10.0,1,11,Conversation log";
    let trace = read_as(text, "burstgpt");
    assert_eq!((times_ps(&trace), prompts(&trace)), (vec![0, 41_000_000_000_000], vec![472, 10]));
    assert_eq!((trace.rows[0].session, trace.notes.failed_skipped), (trace.rows[1].session, 1));
    assert_eq!(
        error(text.replace("45.5", "noon")),
        "t:3: column Timestamp: expected seconds from the first day's midnight, got \"noon\""
    );
    assert!(error(text.replace("Response tokens", "Answer")).starts_with("t:1: unknown column \"Answer\""));
}

#[test]
fn vidur_and_splitwise() {
    let trace =
        read_as("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,4808,10\n0.052,3180,8\n", "vidur");
    assert_eq!((times_ps(&trace), prompts(&trace)), (vec![0, 52_000_000_000], vec![4808, 3180]));
    let text = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n\
                0,2,0,1.5,1,100,7\n1,2,0,2.5,1,200,8\n";
    let trace = read_as(text, "vidur");
    assert_eq!((times_ps(&trace), prompts(&trace)), (vec![0, 1_000_000_000_000], vec![100, 200]));
    let trace = read_as(
        "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3,4,7,0.75\n5,6,11,0.8\n",
        "vidur",
    );
    assert!(trace.is_timeless());
    assert_eq!(
        error("arrived_at,num_prefill_tokens,num_decode_tokens\n-,1,1"),
        "t:2: column arrived_at: expected seconds after the trace's start, got \"-\""
    );
}

#[test]
fn bailian_chats() {
    let turn = |chat: i64, parent: i64, time: &str, input: u32, ids: &str| {
        format!(
            "{{\"chat_id\": {chat}, \"parent_chat_id\": {parent}, \"timestamp\": {time}, \"input_length\": {input}, \
             \"output_length\": 4, \"type\": \"text\", \"turn\": 1, \"hash_ids\": {ids}}}\n"
        )
    };
    let text = turn(7, -1, "0.0", 20, "[1, 2]")
        + turn(8, -1, "0.5", 16, "[3]").as_str()
        + &*turn(9, 7, "1.25", 40, "[1, 5, 6]");
    let trace = read_as(&text, "bailian");
    assert_eq!(times_ps(&trace), [0, 500_000_000_000, 1_250_000_000_000]);
    assert_eq!(
        (trace.rows[2].session, &*trace.rows[2].waits),
        (Some(7), &[Wait { row: 0, think: None }][..])
    );
    assert_eq!(trace.rows[0].content.runs(), [run(1, 16), run(2, 4)]);
    assert_eq!(
        error(turn(1, -1, "0", 40, "[1]")),
        "t:1: column hash_ids: expected 3 ids, one for each started block of 16 of 40 tokens, got 1"
    );
    assert!(
        error(text.replace("\"input_length\": 16", "\"input_length\": -16"))
            .starts_with("t:2: input_length: invalid value")
    );
    assert!(
        error(text.replace("\"timestamp\": 0.5, ", ""))
            .starts_with("t:2: not what was expected: missing field `timestamp`")
    );
}

#[test]
fn dynamo_sessions_wait_for_what_had_ended() {
    let end = |received: u64, total: u64, hash: u64| {
        format!(
            "{{\"timestamp\":1,\"event\":{{\"schema\":\"dynamo.request.trace.v1\",\"event_type\":\"request_end\",\
             \"agent_context\":{{\"session_id\":\"s\"}},\"request\":{{\"request_received_ms\":{received},\
             \"total_time_ms\":{total}.5,\"input_tokens\":20,\"output_tokens\":3,\
             \"replay\":{{\"trace_block_size\":16,\"input_length\":20,\"input_sequence_hashes\":[{hash},9]}}}}}}}}\n"
        )
    };
    let tool =
        "{\"timestamp\":1,\"event\":{\"schema\":\"dynamo.request.trace.v1\",\"event_type\":\"tool_end\"}}\n";
    // The first began last; the third was sent while the second ran.
    let text =
        [end(5_000, 100, u64::MAX), tool.to_string(), end(1_000, 999, 1), end(1_500, 10, u64::MAX)].concat();
    let trace = read_as(&text, "dynamo");
    assert_eq!(times_ps(&trace), [0, 500_000_000_000, 4_000_000_000_000]);
    assert_eq!((trace.notes.other_kinds_skipped, trace.notes.out_of_order), (1, 2));
    assert_eq!(trace.rows[1].content, trace.rows[2].content);
    assert!(trace.rows[1].waits.is_empty());
    assert!(error(end(1, 1, 1).replace(":16,", ":0,")).contains("event.request.replay: expected at most"));
}

const SESSION: &str = "{\"id\":\"a\",\"models\":[],\"block_size\":64,\"hash_id_scope\":\"local\",\"requests\":[\
    {\"t\":0.0,\"type\":\"n\",\"in\":130,\"out\":5,\"hash_ids\":[1,2],\"api_time\":2.0},\
    {\"t\":3.0,\"type\":\"subagent\",\"status\":\"completed\",\"duration_ms\":4000,\"requests\":[\
      {\"t\":0.5,\"type\":\"s\",\"in\":64,\"out\":1,\"hash_ids\":[9],\"api_time\":1.0},\
      {\"t\":2.5,\"type\":\"s\",\"in\":64,\"out\":1,\"hash_ids\":[9],\"think_time\":0.75,\"api_time\":1.0}]},\
    {\"t\":8.0,\"type\":\"s\",\"in\":200,\"out\":7,\"hash_ids\":[1,2,3],\"think_time\":6.0,\"api_time\":1.0}]}";

#[test]
fn agentic_sessions_and_their_subagents() {
    let trace = read_as(SESSION, "agentic");
    assert_eq!(times_ps(&trace), [0, 3_500_000_000_000, 5_500_000_000_000, 8_000_000_000_000]);
    let waits = |index: usize| {
        let of = |wait: &Wait| (wait.row, wait.think.unwrap().as_s());
        trace.rows[index].waits.iter().map(of).collect::<Vec<_>>()
    };
    // The subagent begins 1.5 s after the first answer; its parent goes on 1 s after it has ended and 6 s after its own.
    assert_eq!((waits(1), waits(2), waits(3)), (vec![(0, 1.5)], vec![(1, 0.75)], vec![(2, 1.0), (0, 6.0)]));
    let other = ok(&SESSION.replace("\"id\":\"a\"", "\"id\":\"b\""));
    assert_ne!(other.rows[0].content, trace.rows[0].content, "ids mean nothing outside their file");
    assert_eq!(
        error(SESSION.replace("\"in\":200", "\"in\":100")),
        "t:1: requests[2].hash_ids: expected at most 2 ids for 100 tokens in blocks of 64, got 3"
    );
    assert!(
        error(SESSION.replace("\"out\":7", "\"out\":-7")).starts_with("t:1: requests[2].out: invalid value")
    );
    assert!(error(&SESSION[..300]).contains("EOF while parsing"));
}

#[test]
fn many_files_in_one_archive() {
    let mut archive = tar::Builder::new(Vec::new());
    for id in ["b", "a"] {
        let text = SESSION.replace("\"id\":\"a\"", &format!("\"id\":\"{id}\""));
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_cksum();
        archive.append_data(&mut header, format!("{id}.json"), text.as_bytes()).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let packed = liblzma::encode_all(&bytes[..], 6).unwrap();
    for bytes in [bytes, packed] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let trace = read(file.path(), &ReadOptions::default()).unwrap();
        assert_eq!((trace.format, trace.rows.len(), trace.notes.rows_read), ("agentic", 8, 8));
        assert_eq!((trace.rows[7].waits.len(), trace.rows[7].waits[1].row), (2, 1));
        assert!(stream(file.path(), &ReadOptions::default()).is_err());
    }
}

#[test]
fn tracelab_rounds_follow_each_other() {
    let round = |from: &str, to: &str| {
        format!(
            "{{\"session_id\":\"s\",\"round_index\":0,\"input_tokens_total\":100,\"prefix_tokens\":40,\
             \"output_tokens\":9,\"timing_events\":[{{\"timestamp\":\"2026-06-01T05:40:{from}Z\"}},\
             {{\"timestamp\":\"2026-06-01T05:40:{to}Z\"}}]}}\n"
        )
    };
    let trace = read_as(&(round("20.151", "25.5") + &*round("27.0", "29.0")), "tracelab");
    assert_eq!(times_ps(&trace), [0, 6_849_000_000_000]);
    assert_eq!(&*trace.rows[1].waits, &[Wait { row: 0, think: Some(Span::from_ms(1_500)) }]);
    assert_eq!(trace.rows[0].content.tokens(), 40);
    assert!(error(round("x", "29.0")).contains("timing_events[0].timestamp"));
}

#[test]
fn llmservingsim_requests_and_sessions() {
    let text = "{\"input_toks\": 3, \"output_toks\": 2, \"arrival_time_ns\": 1000, \"input_tok_ids\": [5, 6, 7], \
                \"output_tok_ids\": [1, 2]}\n\
                {\"session_id\": \"s\", \"arrival_time_ns\": 6000, \"sub_requests\": [\
                {\"input_toks\": 3, \"output_toks\": 1, \"input_tok_ids\": [5, 6, 7], \"tool_duration_ns\": 77},\
                {\"input_toks\": 9, \"output_toks\": 1}]}\n";
    let trace = read_as(text, "llmservingsim");
    assert_eq!(times_ps(&trace), [0, 5_000_000, 5_000_000]);
    assert_eq!(&*trace.rows[2].waits, &[Wait { row: 1, think: Some(Span::from_ns(77)) }]);
    // The first one's answer is known: what follows may reuse it.
    assert_eq!((trace.rows[0].content.tokens(), trace.rows[1].content.tokens()), (5, 3));
    assert_eq!(error("{\"input_toks\": 3, \"output_toks\": 2}"), "t:1: column arrival_time_ns is missing");
}

#[test]
fn conversations_are_counted_by_their_rule() {
    let text = "[{\"id\": \"x\", \"conversations\": [{\"from\": \"human\", \"value\": \"12345\"}, \
                {\"from\": \"gpt\", \"value\": \"1234\"}, {\"from\": \"human\", \"value\": \"thanks\"}]},\n\
                {\"id\": \"y\", \"conversations\": [{\"from\": \"human\", \"value\": \"alone\"}]}]";
    let trace = read_as(text, "sharegpt");
    assert_eq!((trace.rows.len(), trace.notes.other_kinds_skipped), (1, 1));
    assert_eq!((trace.rows[0].prompt_tokens, trace.rows[0].output_tokens), (2, 1));
    let lines =
        "{\"prompt\": \"abcdefgh\", \"output_tokens\": 7}\n{\"prompt\": \"x\", \"output_tokens\": 8}\n";
    let trace = read_as(lines, "sharegpt");
    assert_eq!((prompts(&trace), trace.rows[1].output_tokens), (vec![2, 1], 8));
}

#[test]
fn results_of_benchmarks() {
    let text = "{\"num_prompts\": 3, \"request_throughput\": 1.0, \"input_lens\": [10, 20, 30], \
                \"output_lens\": [1, 2, 3], \"start_times\": [100.5, 100.0, 101.0], \"errors\": [\"\", \"\", \"boom\"]}";
    let trace = read_as(text, "vllm-bench");
    assert_eq!(
        (prompts(&trace), times_ps(&trace), trace.notes.failed_skipped),
        (vec![20, 10], vec![0, 500_000_000_000], 1)
    );
    assert!(
        error(text.replace("start_times", "starts"))
            .contains("has no start_times: run `vllm bench serve` with")
    );
    let text = "{\"benchmarks\": [{\"requests\": {\"successful\": [\
                {\"prompt_tokens\": 9, \"output_tokens\": 4, \"info\": {\"timings\": {\"request_start\": 1762.25}}},\
                {\"prompt_tokens\": 8, \"output_tokens\": 4, \"start_time\": 1763.0}], \
                \"errored\": [{\"prompt_tokens\": null}]}}]}";
    let trace = read_as(text, "guidellm");
    assert_eq!(
        (prompts(&trace), times_ps(&trace), trace.notes.failed_skipped),
        (vec![9, 8], vec![0, 750_000_000_000], 1)
    );
    assert!(
        error(text.replace("start_time\"", "begin\""))
            .contains("benchmarks[0].requests.successful[1]: has no start time")
    );
    let text = "[{\"start_time\": 5.5, \"end_time\": 6.0, \"info\": {\"input_tokens\": 7, \"output_tokens\": 2}, \"error\": null},\
                {\"start_time\": 6.0, \"end_time\": 6.1, \"info\": null, \"error\": {\"error_msg\": \"x\"}}]";
    let trace = read_as(text, "inference-perf");
    assert_eq!((prompts(&trace), trace.notes.failed_skipped), (vec![7], 1));
}

fn mapped(text: &str, columns: &[(Field, &str)], filters: &[(&str, &str)]) -> Result<Trace, String> {
    let options = ReadOptions {
        columns: columns.iter().map(|(field, name)| (*field, (*name).to_owned())).collect(),
        filters: filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..ReadOptions::default()
    };
    read_from("t".to_owned(), Cursor::new(text.as_bytes().to_vec()), &options)
        .map_err(|error| error.to_string())
}

#[test]
fn any_columns_by_name() {
    let columns = [
        (Field::Arrived, "ts"),
        (Field::PromptTokens, "in"),
        (Field::OutputTokens, "out"),
        (Field::Session, "who"),
    ];
    let text = "who,\"ts\",note,in,out,model\nanna,2026-01-31T12:00:00.25Z,\"a, b\",10,3,llama\n\
                bert,2026-01-31T13:00:01+01:00,,20.0,4,llama\nanna,2026-01-31 12:00:02,,30,5,qwen\n";
    let trace = mapped(text, &columns, &[]).unwrap();
    assert_eq!((trace.format, times_ps(&trace)), ("columns", vec![0, 750_000_000_000, 1_750_000_000_000]));
    assert_eq!(trace.rows[0].session, trace.rows[2].session);
    let trace = mapped(text, &columns, &[("model", "llama")]).unwrap();
    assert_eq!((prompts(&trace), trace.notes.filtered), (vec![10, 20], 1));
    let said = mapped(text, &[(Field::PromptTokens, "inn"), (Field::OutputTokens, "out")], &[]).unwrap_err();
    assert!(said.starts_with("t:1: there is no column \"inn\"; did you mean in?"), "{said}");
    assert_eq!(
        mapped(text, &columns[..2], &[]).unwrap_err(),
        "t: `columns` must say where output_tokens is, as output_tokens = \"...\""
    );
    let said = mapped(&text.replace(",30,", ",many,"), &columns, &[]).unwrap_err();
    assert_eq!(said, "t:4: column in: expected a whole number of tokens, got \"many\"");
}

#[test]
fn any_keys_by_path() {
    let columns = [
        (Field::Arrived, "time"),
        (Field::PromptTokens, "usage.prompt_tokens"),
        (Field::OutputTokens, "usage.completion_tokens"),
        (Field::Blocks, "blocks"),
        (Field::BlockTokens, "size"),
    ];
    let line = |time: &str, blocks: &str| {
        format!(
            "{{\"time\": {time}, \"usage\": {{\"prompt_tokens\": 20, \"completion_tokens\": 2}}, \"blocks\": {blocks}, \"size\": 16}}\n"
        )
    };
    let trace = mapped(&(line("1.5", "[1, \"x\"]") + &*line("2", "null")), &columns, &[]).unwrap();
    assert_eq!((times_ps(&trace), trace.rows[0].content.tokens()), (vec![0, 500_000_000_000], 20));
    assert!(trace.rows[1].content.runs().is_empty());
    let said = mapped(&line("1.5", "[1, 2, 3]"), &columns, &[]).unwrap_err();
    assert!(said.contains("column blocks: expected at most 2 ids"), "{said}");
    assert!(
        mapped(&line("\"soon\"", "[]"), &columns, &[])
            .unwrap_err()
            .contains("expected a number, or a date and time")
    );
}

#[test]
fn what_cannot_be_one_row_is_not_taken_apart() {
    let columns = [(Field::Arrived, "ts"), (Field::PromptTokens, "in"), (Field::OutputTokens, "out")];
    let text = "ts,in,out,note\n1,10,5,\"line one\n2,99,9,injected\"\n2,20,6,x\n";
    let said = mapped(text, &columns, &[]).unwrap_err();
    assert!(said.contains("t:2: a quoted field does not end on its line"), "{said}");
    let runs = "{\"arrived_s\": 1, \"prompt_tokens\": 20, \"output_tokens\": 5, \"runs\": [[1, 0, 26]]}";
    assert!(
        error(runs).contains("column runs: expected identities of at most the 25 tokens"),
        "{}",
        error(runs)
    );
}

#[test]
fn lenient_reading_counts_what_it_leaves_out() {
    let options = ReadOptions { lenient: true, ..ReadOptions::default() };
    let read = |text: &str| read_from("t".to_owned(), Cursor::new(text.as_bytes().to_vec()), &options);
    let trace = read(&plain("1,1,1\nx,1,1\n2,2,2\n3,-1,1\n")).unwrap();
    assert_eq!((prompts(&trace), trace.notes.unreadable_skipped), (vec![1, 2], 2));
    assert_eq!(
        trace.notes.lines(),
        [
            "2 of 4 rows could not be read and were left out; the first: t:3: column arrived_s: expected decimal seconds, \
          such as 12.345, got \"x\""
        ]
    );
    // A file that breaks off is no matter of single rows.
    let whole = gzip(&plain(&(0..50_000).map(|row| format!("{row},1,1\n")).collect::<String>()));
    let broken = read_from("t".to_owned(), Cursor::new(whole[..whole.len() / 2].to_vec()), &options);
    assert!(broken.unwrap_err().to_string().contains("is the file whole?"));
}

#[test]
fn traces_are_merged_by_date_or_from_their_starts() {
    let day =
        |seconds: &str| ok(&azure(&format!("2023-11-16 18:15:{seconds}.5,1,1\n2023-11-16 18:16:00,2,1\n")));
    let merged = merge(vec![day("50"), day("40")], Clock::Absolute);
    assert_eq!((prompts(&merged), merged.rows[1].arrived.as_s()), (vec![1, 1, 2, 2], 10.0));
    let merged = merge(vec![day("50"), day("40")], Clock::Relative);
    assert_eq!(merged.rows[1].arrived, Time::ZERO);
    // Traces without dates share one clock, as the parts of a log do, unless they are told to begin together.
    let parts = || vec![ok(&plain("5,1,1\n6,2,1\n")), ok(&plain("100,3,1\n"))];
    let merged = merge(parts(), Clock::Absolute);
    assert_eq!((prompts(&merged), merged.rows[2].arrived.as_s()), (vec![1, 2, 3], 95.0));
    assert_eq!(prompts(&merge(parts(), Clock::Relative)), [1, 3, 2]);
}

/// `trace` written as `format` and read again.
fn again(trace: &Trace, format: &str) -> Trace {
    let target = TARGETS.iter().find(|target| target.name == format).unwrap();
    let mut bytes = Vec::new();
    target.write(trace, &mut bytes).unwrap();
    let read = read_from("t".to_owned(), Cursor::new(bytes), &ReadOptions::default()).unwrap();
    assert_eq!(read.format, format);
    read
}

fn losses(trace: &Trace, format: &str) -> Vec<String> {
    TARGETS.iter().find(|target| target.name == format).unwrap().losses(trace)
}

/// Sessions, waits, limits, priorities, and identities of every kind.
fn of_all_kinds() -> Trace {
    let run = |stream, position, tokens| ContentRun { stream, position, tokens };
    let mut trace = ok(SESSION);
    trace.rows[0].max_tokens = Some(9);
    trace.rows[1].priority = -3;
    trace.rows[2].content = Content::from_runs([run(5, 7, 30), run(9, 0, 12)]);
    trace.rows[3].content = Content::from_runs((0..12).map(|block| run(70 + block, 0, 16)));
    trace.rows[3].arrived += Span::from_ps(1);
    trace
}

#[test]
fn own_formats_hold_all() {
    let trace = of_all_kinds();
    for format in ["tailcast-jsonl", "tailcast-parquet"] {
        assert!(losses(&trace, format).is_empty());
        let read = again(&trace, format);
        assert_eq!(read.rows, trace.rows, "{format}");
        // And once more, as another format's reading would.
        assert_eq!(again(&again(&read, "tailcast-jsonl"), "tailcast-parquet").rows, trace.rows);
    }
}

#[test]
fn what_others_cannot_hold_is_told() {
    let trace = of_all_kinds();
    for target in
        TARGETS.iter().filter(|target| !["tailcast-jsonl", "tailcast-parquet"].contains(&target.name))
    {
        let told = target.losses(&trace);
        assert!(told.len() >= 2, "{}: {told:?}", target.name);
        let read = again(&trace, target.name);
        assert_eq!((prompts(&read), read.rows.len()), (prompts(&trace), 4), "{}", target.name);
        // What was written once is written again without a loss.
        assert!(target.losses(&read).is_empty(), "{}: {:?}", target.name, target.losses(&read));
        assert_eq!(again(&read, target.name).rows, read.rows, "{}", target.name);
    }
    assert_eq!(losses(&trace, "azure-2023")[0], "1 of 4: times were rounded to 0.1 us.");
}

#[test]
fn blocks_written_anew_keep_who_shares_what() {
    let line = |ids: &str| {
        format!(
            "{{\"arrived_s\": 1, \"prompt_tokens\": 1200, \"output_tokens\": 1, \"blocks\": {{\"tokens\": 100, \"ids\": {ids}}}}}\n"
        )
    };
    let text = line("[1,2,3,4,5,6,7,8,9]") + &*line("[1,2,3,4,5,6,7,8,10]") + &*line("[1,2,3,4,9,9,9,8,10]");
    let read = again(&ok(&text), "mooncake");
    let ids: Vec<Vec<u64>> =
        read.rows.iter().map(|row| row.content.runs().iter().map(|run| run.stream).collect()).collect();
    // The first 512 tokens are the same for two of three, and no prompt has an identity to its end.
    assert_eq!(ids, [[0, 1, 2], [0, 3, 4], [5, 6, 7]]);
}

#[test]
fn parquet_of_another_schema_is_told() {
    let mut bytes = Vec::new();
    TARGETS
        .iter()
        .find(|target| target.name == "tailcast-parquet")
        .unwrap()
        .write(&of_all_kinds(), &mut bytes)
        .unwrap();
    assert!(error(&bytes[..bytes.len() / 2]).starts_with("t: is not a whole Parquet file"));
    while let Some(place) = bytes.windows(10).position(|window| window == b"arrived_ps") {
        bytes[place..place + 10].copy_from_slice(b"arrived_at");
    }
    assert!(error(&bytes).contains("column arrived_ps is missing"), "{}", error(&bytes));
}

#[test]
fn waits_name_rows_above() {
    let line = |waits: &str| {
        format!("{{\"arrived_s\": 1, \"prompt_tokens\": 9, \"output_tokens\": 1, \"waits\": {waits}}}\n")
    };
    let trace = ok(&(line("[]") + &*line("[[0, 5]]")));
    assert_eq!(&*trace.rows[1].waits, &[Wait { row: 0, think: Some(Span::from_ps(5)) }]);
    assert_eq!(error(line("[[0, 5]]")), "t:1: this row waits for row 0, which is not among the 0 above it");
    assert!(error(line("[[0, -5]]")).contains("column waits: expected [[row, picoseconds or null], ...]"));
}
