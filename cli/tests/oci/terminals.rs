//! Terminals: sent over a socket, with their size, for containers and for `exec`.

use crate::fixture::{Done, Fixture, new_id, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use serde_json::json;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// A socket that receives a terminal.
struct Receiver {
    path: PathBuf,
    listener: UnixListener,
}

impl Receiver {
    fn new(fixture: &Fixture) -> Receiver {
        let path = fixture.path().join(new_id("console"));
        Receiver { listener: UnixListener::bind(&path).unwrap(), path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The master, and the message with it.
    fn take(&self) -> (OwnedFd, String) {
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&timeout)), Ok(1), "no terminal comes");
        let (connection, _) = self.listener.accept().unwrap();
        let mut text = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut iov = [IoSliceMut::new(&mut text)];
        let received =
            rustix::net::recvmsg(&connection, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let [master] = <[OwnedFd; 1]>::try_from(fds.collect::<Vec<_>>()).unwrap();
        (master, String::from_utf8_lossy(&text[..received.bytes]).into_owned())
    }
}

/// Reads from a terminal until the text contains `end`.
fn read_until(master: &OwnedFd, end: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0u8; 4096];
    while !all.contains(end) {
        let mut polled = [PollFd::new(master, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&timeout)), Ok(1), "{all:?} without {end:?}");
        match rustix::io::read(master, &mut buffer) {
            Ok(length @ 1..) => all.push_str(&String::from_utf8_lossy(&buffer[..length])),
            other => panic!("{other:?} after {all:?}, without {end:?}"),
        }
    }
    all
}

#[test]
fn a_container_has_a_terminal() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo three; stat -c %t,%T /dev/console; read line; echo got $line; stty size");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 99});
    for detach in [false, true] {
        let receiver = Receiver::new(&fixture);
        let id = new_id("terminal");
        let words = ["--bundle", bundle.write(), "--console-socket", receiver.path(), &id];
        let verb: &[&str] = if detach { &["run", "--detach"] } else { &["create"] };
        let done = fixture.detached(&[verb, &words].concat());
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let (master, word) = receiver.take();
        assert!(word.starts_with('/'), "{word}");
        if !detach {
            assert_eq!(fixture.oci(&["start", &id]).code, 0);
        }
        // The size is there before the program is.
        let text = read_until(&master, "\n88,");
        assert!(text.starts_with("33 99\r\n/dev/pts/0\r\nthree\r\n"), "{text:?}");
        tcsetwinsize(&master, Winsize { ws_row: 20, ws_col: 50, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        rustix::io::write(&master, b"hello\n").unwrap();
        let text = read_until(&master, "20 50");
        assert!(text.contains("got hello"), "{text:?}");
        wait_until("it ends", || fixture.state(&id)["status"] == "stopped");
        assert_eq!(fixture.oci(&["delete", &id]).code, 0);
    }
}

#[test]
fn keys_are_signals_in_it() {
    let fixture = fixture!();
    let mut bundle =
        fixture.bundle("trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done");
    bundle.config["process"]["terminal"] = json!(true);
    let receiver = Receiver::new(&fixture);
    let id = new_id("keys");
    let words = ["run", "--detach", "--bundle", bundle.write(), "--console-socket", receiver.path(), &id];
    assert_eq!(fixture.detached(&words).code, 0);
    let (master, _) = receiver.take();
    read_until(&master, "ready");
    rustix::io::write(&master, b"\x03").unwrap();
    read_until(&master, "interrupted");
}

#[test]
fn further_programs_have_their_own() {
    let fixture = fixture!();
    let id = fixture.idle(|_| {});
    // Its output comes through this program when that stays.
    let done = fixture.oci(&["exec", "--tty", &id, "sh", "-c", "tty; echo out; exit 4"]);
    assert_eq!((done.code, done.out.as_str()), (4, "/dev/pts/0\nout\n"), "{done:?}");
    // And goes to the socket when it does not.
    let receiver = Receiver::new(&fixture);
    let file = fixture.path().join("process.json");
    let process = json!({
        "terminal": true, "consoleSize": {"height": 11, "width": 22}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["/bin/sh", "-c", "stty size; read line; echo got $line"],
    });
    std::fs::write(&file, process.to_string()).unwrap();
    let pid_file = fixture.path().join("pid");
    let done = fixture.detached(&[
        "exec",
        "--detach",
        "--console-socket",
        receiver.path(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--process",
        file.to_str().unwrap(),
        &id,
    ]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let (master, _) = receiver.take();
    read_until(&master, "11 22");
    rustix::io::write(&master, b"word\n").unwrap();
    read_until(&master, "got word");
    let pid = crate::fixture::read(&pid_file);
    wait_until("the program ends", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn without_a_size_it_has_none() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("sleep 1000");
    bundle.config["process"]["terminal"] = json!(true);
    let receiver = Receiver::new(&fixture);
    let id = new_id("size");
    let words = ["run", "--detach", "--bundle", bundle.write(), "--console-socket", receiver.path(), &id];
    assert_eq!(fixture.detached(&words).code, 0);
    let (master, _) = receiver.take();
    let size = tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (0, 0));
}

/// In the foreground this program relays between the container's terminal and its own streams: lines end as the program
/// wrote them, since the reader may be no terminal.
#[test]
fn output_of_a_terminal_comes_through() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("seq 1 20000; echo end >&2; exit 6");
    bundle.config["process"]["terminal"] = json!(true);
    let done: Done = fixture.run(&bundle);
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect::<String>() + "end\n";
    assert_eq!((done.code, done.out.len()), (6, expected.len()), "{}", done.err);
    assert!(done.out == expected);
}
