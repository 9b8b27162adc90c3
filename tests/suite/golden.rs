//! Law 9: given configuration and requests alone, every line of a recording of the real scheduler is rebuilt.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};

use flate2::read::MultiGzDecoder;
use tailcast::replica::Path;
use tailcast::verify::schedule::verify;

use crate::shared::shared;

#[test]
fn every_recording_is_rebuilt_to_the_last_field() {
    let Some(folder) = shared("golden/scheduler") else { return };
    let (mut files, mut steps, mut literal_steps) = (0, 0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for way in [Path::Fast, Path::Literal] {
            let recording = BufReader::new(MultiGzDecoder::new(File::open(&path).unwrap()));
            let verdict = verify(recording, way).unwrap();
            assert_eq!(verdict.differences, 0, "{}, {way:?}: {:?}", path.display(), verdict.first);
            assert!(verdict.steps > 0);
            if way == Path::Fast {
                steps += verdict.steps;
                literal_steps += verdict.literal_steps;
            }
        }
        files += 1;
    }
    assert!(files >= 39, "only {files} recordings were found");
    // Recordings with drafts, loads and tight memory force the literal path; most of the others must not.
    assert!(literal_steps * 2 < steps, "{literal_steps} of {steps} steps were composed the literal way");
}

/// The comparison can fail: one changed number in any line is seen.
#[test]
fn a_changed_field_is_found() {
    let Some(folder) = shared("golden/scheduler") else { return };
    let file = File::open(folder.join("s05_preempt_cache.jsonl.gz")).unwrap();
    let lines: Vec<String> = BufReader::new(MultiGzDecoder::new(file)).lines().map(Result::unwrap).collect();
    for (line, from, to) in
        [(1, "\"free\":", "\"free\":9"), (40, "\"sch\":[", "\"sch\":[7,"), (60, "{", "{\"pre\":[1],")]
    {
        let mut changed = lines.clone();
        changed[line] = changed[line].replacen(from, to, 1);
        assert_ne!(changed[line], lines[line]);
        let verdict = verify(Cursor::new(changed.join("\n")), Path::Fast).unwrap();
        assert!(verdict.differences >= 1);
    }
    let mut without_a_step = lines.clone();
    without_a_step.remove(50);
    assert!(verify(Cursor::new(without_a_step.join("\n")), Path::Fast).unwrap().differences > 0);
    let cut_off = lines[..lines.len() - 1].join("\n");
    assert!(verify(Cursor::new(cut_off), Path::Fast).unwrap_err().to_string().contains("no end line"));
}
