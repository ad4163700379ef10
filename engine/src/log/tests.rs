use super::entry::encode;
use super::{Entry, LogOptions, LogQuery, LogWriter, MAX_ENTRY, Stream, path, read};
use jiff::Timestamp;
use proptest::prelude::*;
use rustix::fd::AsFd;
use std::ops::ControlFlow;
use std::path::Path;

fn time(second: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + second, 120_000_000).unwrap()
}

fn all(dir: &Path, query: &LogQuery) -> Vec<Entry> {
    let mut found = Vec::new();
    let keep = &mut |entry: &Entry| {
        found.push(entry.clone());
        ControlFlow::Continue(())
    };
    read(dir, query, None, keep).unwrap();
    found
}

fn texts(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.text.as_str()).collect()
}

#[test]
fn entries_are_written_as_docker_writes_them() {
    let mut line = Vec::new();
    encode(&mut line, Stream::Stdout, b"a \"b\" \\ <&>\t\r\x1b \xff\xc3\xa4\n", "", time(0));
    let expected = concat!(
        r#"{"log":"a \"b\" \\ \u003c\u0026\u003e\u0009\r\u001b \ufffdä\n","stream":"stdout","#,
        r#""time":"2023-11-14T22:13:20.12Z"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
    let entry = Entry::parse(&line).unwrap();
    assert_eq!(entry.text, "a \"b\" \\ <&>\t\r\u{1b} \u{fffd}ä\n");
    assert_eq!((entry.stream, entry.time), (Stream::Stdout, time(0)));
    let mut line = Vec::new();
    encode(&mut line, Stream::Stderr, b"x", r#"{"k":"v"}"#, time(0));
    assert_eq!(Entry::parse(&line).unwrap().attributes["k"], "v");
    assert!(String::from_utf8(line).unwrap().contains(r#""stream":"stderr","attrs":{"k":"v"},"time""#));
}

#[test]
fn lines_end_where_the_program_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntw", time(0));
    writer.write(Stream::Stderr, b"error\n", time(1));
    writer.write(Stream::Stdout, b"o\nprompt> ", time(2));
    assert_eq!(texts(&all(dir.path(), &LogQuery::default())), ["one\n", "error\n", "two\n"]);
    writer.finish(time(3));
    assert_eq!(texts(&all(dir.path(), &LogQuery::default())), ["one\n", "error\n", "two\n", "prompt> "]);
}

#[test]
fn long_lines_are_several_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    let line = vec![b'x'; MAX_ENTRY * 2 + 5];
    writer.write(Stream::Stdout, &line, time(0));
    writer.write(Stream::Stdout, b"\n", time(0));
    let entries = all(dir.path(), &LogQuery::default());
    let lengths: Vec<usize> = entries.iter().map(|entry| entry.text.len()).collect();
    assert_eq!(lengths, [MAX_ENTRY, MAX_ENTRY, 6]);
}

#[test]
fn files_are_rotated_and_the_oldest_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_size: Some(1000), max_files: 3, ..LogOptions::default() };
    let mut writer = LogWriter::open(dir.path(), options).unwrap();
    for number in 0..200 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), time(number));
    }
    let sizes: Vec<u64> = (0..3).map(|age| path(dir.path(), age).metadata().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= 1000) && !path(dir.path(), 3).exists(), "{sizes:?}");
    let entries = all(dir.path(), &LogQuery::default());
    let numbers: Vec<String> = (200 - entries.len()..200).map(|number| format!("line {number}\n")).collect();
    assert_eq!(texts(&entries), numbers);
    assert!(entries.len() > 20, "{}", entries.len());
}

#[test]
fn one_file_alone_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_size: Some(300), max_files: 1, ..LogOptions::default() };
    let mut writer = LogWriter::open(dir.path(), options).unwrap();
    (0..50).for_each(|number| writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), time(number)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(all(dir.path(), &LogQuery::default()).last().unwrap().text, "49\n");
}

#[test]
fn damaged_lines_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"one\n", time(0));
    drop(writer);
    // State of the file after a power cut.
    let mut file = std::fs::OpenOptions::new().append(true).open(path(dir.path(), 0)).unwrap();
    std::io::Write::write_all(&mut file, b"{\"log\":\"half").unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"two\n", time(1));
    assert_eq!(texts(&all(dir.path(), &LogQuery::default())), ["one\n", "two\n"]);
}

#[test]
fn entries_of_a_time_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    (0..9).for_each(|number| writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), time(number)));
    let query = |since, until, tail| LogQuery { since, until, tail };
    let found = |query: LogQuery| texts(&all(dir.path(), &query)).concat().replace('\n', "");
    assert_eq!(found(query(Some(time(6)), None, None)), "678");
    assert_eq!(found(query(None, Some(time(3)), None)), "012");
    assert_eq!(found(query(Some(time(2)), Some(time(4)), None)), "23");
    // The tail is counted before the filter by time, as in the reference.
    assert_eq!(found(query(Some(time(6)), None, Some(2))), "78");
    assert_eq!(found(query(Some(time(2)), None, Some(0))), "");
    assert_eq!(found(query(None, None, Some(100))), "012345678");
    assert_eq!(all(&dir.path().join("none"), &LogQuery::default()), []);
}

#[test]
fn full_disks_cost_entries_and_the_log_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", path(dir.path(), 0)).unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntwo\n", time(0));
    writer.write(Stream::Stdout, b"three\n", time(0));
    assert_eq!(writer.lost(), 3);
    std::fs::remove_file(path(dir.path(), 0)).unwrap();
    writer.file = super::write::open(dir.path()).unwrap();
    writer.write(Stream::Stdout, b"four\n", time(1));
    assert_eq!(writer.lost(), 0);
    let entries = all(dir.path(), &LogQuery::default());
    assert!(entries[0].text.starts_with("kiln: 3 entries of this log were lost: "), "{entries:?}");
    assert_eq!((entries[0].stream, entries[1].text.as_str()), (Stream::Stderr, "four\n"));
}

/// A reader that follows meets rotations at any moment; no entry is missed, and none is passed on twice.
#[test]
fn followers_miss_nothing_and_double_nothing() {
    const LINES: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let (ended, writing) = rustix::pipe::pipe().unwrap();
    let options = LogOptions { max_size: Some(20_000), max_files: 10_000, ..LogOptions::default() };
    let mut writer = LogWriter::open(dir.path(), options).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut numbers = Vec::new();
            let keep = &mut |entry: &Entry| {
                numbers.push(entry.text.trim().parse::<usize>().unwrap());
                ControlFlow::Continue(())
            };
            read(dir.path(), &LogQuery::default(), Some(ended.as_fd()), keep).unwrap();
            numbers
        });
        for number in 0..LINES {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes(), time(0));
        }
        drop(writing);
        assert_eq!(reader.join().unwrap(), (0..LINES).collect::<Vec<_>>());
    });
}

#[test]
fn followers_end_with_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, _writing) = rustix::pipe::pipe().unwrap();
    let mut writer = LogWriter::open(dir.path(), LogOptions::default()).unwrap();
    (0..5).for_each(|number| writer.write(Stream::Stdout, b"x\n", time(number)));
    let mut count = 0;
    let query = LogQuery { until: Some(time(3)), ..LogQuery::default() };
    let keep = &mut |_: &Entry| {
        count += 1;
        ControlFlow::Continue(())
    };
    // The descriptor does not become readable here: the writer never ends.
    read(dir.path(), &query, Some(ended.as_fd()), keep).unwrap();
    assert_eq!(count, 3);
}

/// A container that is removed takes its log with it, in the middle of a read.
#[test]
fn followers_end_when_the_log_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("container");
    std::fs::create_dir(&own).unwrap();
    let (ended, writing) = rustix::pipe::pipe().unwrap();
    LogWriter::open(&own, LogOptions::default()).unwrap().write(Stream::Stdout, b"x\n", time(0));
    let (done, is_done) = std::sync::mpsc::channel();
    let (moved, path) = (dir.path().join("dead"), own.clone());
    let mut writing = Some(writing);
    std::thread::spawn(move || {
        let mut count = 0;
        let keep = &mut |_: &Entry| {
            count += 1;
            std::fs::rename(&path, &moved).unwrap();
            writing = None;
            ControlFlow::Continue(())
        };
        read(&path, &LogQuery::default(), Some(ended.as_fd()), keep).unwrap();
        done.send(count)
    });
    assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(20)), Ok(1));
}

proptest! {
    /// However output is split into writes, and however small files are: the last N entries are the last N of all.
    #[test]
    fn the_last_entries_are_the_last_of_all(
        pieces in proptest::collection::vec("[a-z\n]{0,40}", 0..40),
        tail in 0u64..60,
        max_size in 200u64..2000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { max_size: Some(max_size), max_files: 1000, ..LogOptions::default() };
        let mut writer = LogWriter::open(dir.path(), options).unwrap();
        for piece in &pieces {
            writer.write(Stream::Stdout, piece.as_bytes(), time(0));
        }
        writer.finish(time(0));
        let every = all(dir.path(), &LogQuery::default());
        prop_assert_eq!(texts(&every).concat(), pieces.concat());
        let last = all(dir.path(), &LogQuery { tail: Some(tail), ..LogQuery::default() });
        let skipped = every.len().saturating_sub(tail as usize);
        prop_assert_eq!(texts(&last), texts(&every[skipped..]));
    }
}
