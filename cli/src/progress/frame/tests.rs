use super::*;

fn at(tenths: u64) -> Duration {
    Duration::from_millis(tenths * 100)
}

fn started(row: usize, name: &str) -> Event {
    Event::Started { row: Row(row), name: name.to_owned() }
}

fn cached(row: usize, name: &str) -> Event {
    Event::Cached { row: Row(row), name: name.to_owned() }
}

fn output(row: usize, text: &str) -> Event {
    Event::Output { row: Row(row), bytes: text.as_bytes().to_vec() }
}

fn done(row: usize) -> Event {
    Event::Done { row: Row(row) }
}

/// A board after events, each with its time in tenths of seconds.
fn board(events: &[(u64, Event)]) -> Board {
    let mut board = Board::default();
    events.iter().for_each(|(tenths, event)| board.apply(event, at(*tenths)));
    board
}

#[track_caller]
fn check(board: &Board, columns: usize, rows: usize, tenths: u64, expected: &str) {
    let lines = board.frame(Size { columns, rows }, at(tenths), false);
    assert_eq!(lines.join("\n"), expected.trim_matches('\n'), "{columns} by {rows}");
    assert!(lines.len() < rows.max(2), "the cursor needs a row");
    assert!(lines.iter().all(|line| line.width() <= columns), "{lines:?}");
}

fn two_stages() -> Board {
    board(&[
        (0, started(0, "[internal] load build definition from Dockerfile")),
        (1, done(0)),
        (1, Event::Planned { rows: 6 }),
        (1, cached(1, "[a 1/3] FROM busybox")),
        (1, cached(2, "[a 2/3] COPY . /src")),
        (2, started(3, "[a 3/3] RUN make")),
        (4, started(4, "[b 2/2] RUN npm install && \\\n npm run build")),
        (5, output(3, "one\ntwo\nthree\nfour\nfive\nsix\nsev")),
        (6, output(3, "en\n")),
        (7, output(4, "10%\r20%\r")),
    ])
}

#[test]
fn steps_that_run_show_their_time_and_their_last_lines() {
    let expected = "
[+] Building 12.3s (3/7)
 => [internal] load build definition from Dockerfile    0.1s
 => CACHED 2 steps
 => [a 3/3] RUN make                                   12.1s
 => => # two
 => => # three
 => => # four
 => => # five
 => => # six
 => => # seven
 => [b 2/2] RUN npm install && \\  npm run build        11.9s
 => => # 20%
";
    check(&two_stages(), 60, 24, 123, expected);
}

#[test]
fn rows_are_cut_to_the_width() {
    let expected = "
[+] Building 12.3s (3/7)
 => [internal] load bui… 0.1s
 => CACHED 2 steps
 => [a 3/3] RUN make    12.1s
 => => # seven
 => [b 2/2] RUN npm in… 11.9s
 => => # 20%
";
    check(&two_stages(), 29, 9, 123, &expected.replace(" => => # seven", " => => # six\n => => # seven"));
    let wide = board(&[(0, started(0, "[1/1] RUN echo 日本語日本語日本語"))]);
    check(&wide, 30, 24, 0, "[+] Building 0.0s (0/1)\n => [1/1] RUN echo 日本…  0.0s");
    for columns in 0..40 {
        let lines = two_stages().frame(Size { columns, rows: 24 }, at(123), false);
        assert!(lines.iter().all(|line| line.width() <= columns), "{columns}: {lines:?}");
    }
}

#[test]
fn low_terminals_leave_out_what_is_finished() {
    let expected = "
[+] Building 1.0s (3/7)
 => [a 3/3] RUN make     0.8s
 => [b 2/2] RUN npm ins… 0.6s
";
    check(&two_stages(), 29, 4, 10, expected);
    check(&two_stages(), 29, 3, 10, "[+] Building 1.0s (3/7)\n => [a 3/3] RUN make     0.8s");
    check(&two_stages(), 29, 1, 10, "[+] Building 1.0s (3/7)");
}

#[test]
fn steps_in_the_cache_share_a_row() {
    let mut events = vec![(0, started(0, "[internal] load")), (0, done(0))];
    events.extend((1..=30).map(|row| (1, cached(row, &format!("[{row}/30] RUN true")))));
    events.extend([(2, started(31, "exporting to image")), (3, done(31))]);
    let lines = board(&events).last(Size { columns: 40, rows: 24 }, at(3), false, Ended::Well);
    let expected = [
        "[+] Building 0.3s (32/32) FINISHED",
        " => [internal] load                 0.0s",
        " => CACHED 30 steps",
        " => exporting to image              0.1s",
    ];
    assert_eq!(lines, expected);
    let one = board(&[(0, cached(0, "[1/2] FROM busybox"))]);
    check(&one, 40, 24, 0, "[+] Building 0.0s (1/1)\n => CACHED [1/2] FROM busybox");
}

#[test]
fn the_last_frame_has_everything() {
    let mut board = two_stages();
    let failed = |row, message: &str| Event::Failed { row: Row(row), message: message.to_owned() };
    board.apply(&output(3, &format!("a long line of output {}\nend", "x".repeat(40))), at(20));
    board.apply(&failed(3, "process \"make\" did not complete successfully: exit code: 2"), at(21));
    board.apply(&failed(4, "canceled"), at(22));
    let lines = board.last(Size { columns: 40, rows: 5 }, at(22), false, Ended::Badly);
    let expected = format!(
        "[+] Building 2.2s (3/7) FAILED
 => [internal] load build definiti… 0.1s
 => CACHED 2 steps
 => ERROR [a 3/3] RUN make          1.9s
one\ntwo\nthree\nfour\nfive\nsix\nseven\na long line of output {}\nend
 => CANCELED [b 2/2] RUN npm insta… 1.8s",
        "x".repeat(40)
    );
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn downloads_and_notes_are_shown_below_their_row() {
    let part =
        |part: &str, current, total| Event::Progress { row: Row(0), part: part.to_owned(), current, total };
    let board = board(&[
        (0, started(0, "[internal] load metadata for x")),
        (1, part("a", 1000, 4000)),
        (1, part("b", 500, 1000)),
        (1, part("a", 2000, 4000)),
        (2, started(1, "exporting to image")),
        (2, Event::Note { row: Row(1), text: "writing image sha256:1 done".to_owned() }),
    ]);
    let expected = "
[+] Building 0.5s (0/2)
 => [internal] load metadata for x  0.5s
 => => 2.5kB / 5kB
 => exporting to image              0.3s
 => => writing image sha256:1 done
";
    check(&board, 40, 24, 5, expected);
}

#[test]
fn colors_are_one_to_a_line_and_nothing_of_a_program_steers() {
    let board =
        board(&[(0, started(0, "RUN \x1b[31mx")), (0, output(0, "\x1b[31mred\x1b]0;t\x07\n")), (1, done(0))]);
    let lines = board.last(Size { columns: 20, rows: 24 }, at(1), true, Ended::Well);
    assert_eq!(lines[1], "\x1b[34m => RUN x       0.1s\x1b[0m");
    let mut running = Board::default();
    running.apply(&started(0, "RUN x"), at(0));
    running.apply(&output(0, "\x1b[31mred\x1b]0;t\x07\n"), at(0));
    let lines = running.frame(Size { columns: 40, rows: 24 }, at(1), true);
    assert_eq!(lines[2], "\x1b[2m => => # red^[]0;t^G\x1b[0m");
}

#[test]
fn what_was_interrupted_says_so() {
    let mut board = two_stages();
    board.interrupt();
    let lines = board.last(Size { columns: 80, rows: 24 }, at(10), false, Ended::Badly);
    assert_eq!(lines[0], "[+] Building 1.0s (3/7) CANCELED");
}
