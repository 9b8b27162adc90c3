//! Law 9: given configuration and requests alone, every line of a recording of the real scheduler is rebuilt.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};

use flate2::read::MultiGzDecoder;
use tailcast::verify::schedule::verify;

use crate::shared::shared;

#[test]
fn every_recording_is_rebuilt_to_the_last_field() {
    let Some(folder) = shared("golden/scheduler") else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let recording = BufReader::new(MultiGzDecoder::new(File::open(&path).unwrap()));
        let verdict = verify(recording).unwrap();
        assert_eq!(verdict.differences, 0, "{}: {:?}", path.display(), verdict.first);
        assert!(verdict.steps > 0);
        files += 1;
    }
    assert!(files >= 39, "only {files} recordings were found");
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
        let verdict = verify(Cursor::new(changed.join("\n"))).unwrap();
        assert!(verdict.differences >= 1);
    }
    let mut without_a_step = lines.clone();
    without_a_step.remove(50);
    assert!(verify(Cursor::new(without_a_step.join("\n"))).unwrap().differences > 0);
    let cut_off = lines[..lines.len() - 1].join("\n");
    assert!(verify(Cursor::new(cut_off)).unwrap_err().to_string().contains("no end line"));
}
