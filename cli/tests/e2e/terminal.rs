//! The program on a new terminal, and its screen.

use crate::fixture::Fixture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time until an event on a busy host.
const LONGEST: Duration = Duration::from_secs(120);

/// A terminal with the program, and its screen.
struct Terminal {
    master: Option<OwnedFd>,
    child: Child,
    screen: Screen,
}

/// What a terminal without an end shows of text and of the few sequences that the program uses.
#[derive(Default)]
struct Screen {
    lines: Vec<String>,
    row: usize,
    /// A sequence that has begun.
    sequence: Option<String>,
}

impl Terminal {
    /// Starts a command on a terminal that it controls, so that Ctrl-C and changes of the size reach it.
    fn start<A: AsRef<OsStr>>(fixture: &Fixture, arguments: &[A], columns: u16) -> Terminal {
        Terminal::of(&fixture.command(arguments), columns)
    }

    fn of(kiln: &Command, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            let file = File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
            Stdio::from(file)
        };
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(kiln.get_program()).args(kiln.get_args()).env_clear();
        command.envs(kiln.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let terminal = Terminal { master: Some(master), child, screen: Screen::default() };
        terminal.resize(columns);
        terminal
    }

    fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_ref().unwrap(), size).unwrap();
    }

    fn press(&self, keys: &[u8]) {
        rustix::io::write(self.master.as_ref().unwrap(), keys).unwrap();
    }

    /// Reads once; false at the end.
    fn read(&mut self) -> bool {
        let master = self.master.as_ref().unwrap().as_fd();
        let mut polled = [PollFd::from_borrowed_fd(master, PollFlags::IN)];
        let time = Timespec { tv_sec: LONGEST.as_secs() as i64, tv_nsec: 0 };
        assert_ne!(poll(&mut polled, Some(&time)), Ok(0), "nothing comes: {}", self.screen.text());
        let mut buffer = [0; 4096];
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.screen.write(&String::from_utf8_lossy(&buffer[..length]));
                true
            }
        }
    }

    /// Reads until the screen is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, is_there: impl Fn(&Screen) -> bool) {
        let begun = Instant::now();
        while !is_there(&self.screen) {
            assert!(begun.elapsed() < LONGEST && self.read(), "no {what}: {}", self.screen.text());
        }
    }

    /// Reads to the end; returns the exit code and the screen.
    fn finish(mut self) -> (i32, String) {
        while self.read() {}
        let status = self.child.wait().unwrap();
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), self.screen.text())
    }
}

impl Screen {
    fn write(&mut self, text: &str) {
        for character in text.chars() {
            if let Some(mut sequence) = self.sequence.take() {
                sequence.push(character);
                match character {
                    'a'..='z' | 'A'..='Z' => self.obey(&sequence),
                    _ => self.sequence = Some(sequence),
                }
                continue;
            }
            match character {
                '\x1b' => self.sequence = Some(String::new()),
                '\n' => self.row += 1,
                // All lines are redrawn.
                '\r' => {}
                other => self.line().push(other),
            }
        }
    }

    fn line(&mut self) -> &mut String {
        self.lines.resize(self.lines.len().max(self.row + 1), String::new());
        &mut self.lines[self.row]
    }

    fn obey(&mut self, sequence: &str) {
        let rows = |to: char| sequence.strip_prefix('[')?.strip_suffix(to)?.parse::<usize>().ok();
        match sequence {
            _ if rows('A').is_some() => self.row = self.row.saturating_sub(rows('A').unwrap_or(0)),
            _ if rows('B').is_some() => self.row += rows('B').unwrap_or(0),
            "[J" => self.lines.truncate(self.row),
            "[2K" => self.line().clear(),
            _ => assert!(sequence.ends_with('m'), "{sequence:?} is not expected"),
        }
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }

    fn has(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    fn widest(&self) -> usize {
        self.lines.iter().map(|line| line.chars().count()).max().unwrap_or(0)
    }
}

fn build<'a>(context: &'a OsStr, more: &[&'a str]) -> Vec<&'a OsStr> {
    let words = ["build", "-t", "shown"].into_iter().chain(more.iter().copied()).map(OsStr::new);
    words.chain([context]).collect()
}

#[test]
fn a_build_has_one_row_a_step() {
    let fixture = fixture!();
    let long = "x".repeat(200);
    let text = format!("FROM busybox\nRUN echo {long} && echo two\nRUN true\nRUN : {long}\n");
    let context = fixture.context("c", &text);
    let (code, screen) = Terminal::start(&fixture, &build(context.as_os_str(), &[]), 60).finish();
    assert_eq!(code, 0, "{screen}");
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("[+] Building ") && lines[0].ends_with(" FINISHED"), "{screen}");
    for step in ["[2/4]", "[3/4]", "[4/4]"] {
        let rows: Vec<&&str> = lines.iter().filter(|line| line.contains(step)).collect();
        assert_eq!(rows.len(), 1, "{step}: {screen}");
        assert!(rows[0].ends_with('s') && rows[0].chars().count() == 60, "{step}: {screen}");
    }
    let is_row = |line: &&&str| line.starts_with(" =>");
    assert!(lines.iter().filter(is_row).all(|line| line.chars().count() <= 60), "{screen}");

    let (code, screen) = Terminal::start(&fixture, &build(context.as_os_str(), &[]), 60).finish();
    assert_eq!(code, 0, "{screen}");
    assert_eq!(screen.matches("CACHED").count(), 1, "{screen}");
    assert!(screen.contains("CACHED 4 steps") && !screen.contains("[3/4]"), "{screen}");
}

#[test]
fn a_failure_shows_the_command_once() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\n\nRUN echo cause; exit 3\n");
    let (code, screen) = Terminal::start(&fixture, &build(context.as_os_str(), &[]), 80).finish();
    assert_eq!(code, 1, "{screen}");
    assert_eq!(screen.matches("exit 3").count(), 1, "{screen}");
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].ends_with(" FAILED"), "{screen}");
    assert!(lines.contains(&"cause"), "{screen}");
    assert_eq!(lines.last(), Some(&"ERROR: step 2/2 (Dockerfile:3) failed: exit code 3"), "{screen}");

    let plain = fixture.kiln(&[OsStr::new("build"), context.as_os_str()]);
    assert!(plain.err.contains("did not complete successfully: exit code: 3"), "{}", plain.err);
}

#[test]
fn steps_that_run_show_their_last_lines_in_any_width() {
    let fixture = fixture!();
    fixture.write("gate/.keep", "");
    let wait = "RUN for i in 1 2 3 4 5 6 7 8; do echo line-$i-of-the-output; done; until [ -e /gate/go ]; do sleep 0.1; done\n";
    let context = fixture.context("c", &format!("FROM busybox\n{wait}"));
    let gate = format!("--volume={}:/gate", fixture.path("gate").display());
    let mut terminal = Terminal::start(&fixture, &build(context.as_os_str(), &[&gate]), 70);
    terminal.until("output", |screen| screen.has("# line-8-of-the-output"));
    assert!(
        terminal.screen.has("# line-3-of") && !terminal.screen.has("# line-2-of"),
        "{}",
        terminal.screen.text()
    );
    terminal.resize(30);
    terminal.until("narrow frame", |screen| screen.widest() == 30);
    assert_eq!(terminal.screen.lines.iter().filter(|line| line.starts_with("[+]")).count(), 1);
    terminal.resize(90);
    terminal.until("wide frame", |screen| screen.widest() == 90);
    fs::write(fixture.path("gate/go"), "").unwrap();
    let (code, screen) = terminal.finish();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("FINISHED") && !screen.contains("line-8"), "{screen}");
}

#[test]
fn ctrl_c_ends_a_build_in_order() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nRUN echo ready; sleep 1000\n");
    let mut terminal = Terminal::start(&fixture, &build(context.as_os_str(), &[]), 80);
    terminal.until("output", |screen| screen.has("# ready"));
    terminal.press(b"\x03");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 130, "{screen}");
    let lines: Vec<&str> = screen.lines().map(|line| line.trim_start_matches("^C")).collect();
    assert_eq!(lines.last(), Some(&"Build cancelled."), "{screen}");
    assert!(lines.iter().any(|line| line.starts_with("[+]") && line.ends_with(" CANCELED")), "{screen}");
    assert!(lines.iter().any(|line| line.starts_with(" => CANCELED [2/2] RUN echo ready")), "{screen}");
    assert!(!lines.iter().any(|line| line.contains("# ready")), "nothing moves any more: {screen}");
}

#[test]
fn colors_are_chosen() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM nosuch:\n");
    let colored = |arguments: &[&str], variable: Option<&str>| {
        let mut command = fixture.command(arguments);
        command.envs(variable.map(|value| ("NO_COLOR", value)));
        let done = command.arg(context.as_os_str()).output().unwrap();
        String::from_utf8_lossy(&done.stderr).contains("\x1b[")
    };
    assert!(!colored(&["build"], None), "no terminal");
    assert!(colored(&["build", "--color=always"], None));
    assert!(colored(&["--color", "always", "build"], Some("1")));
    assert!(!colored(&["build", "--color", "never"], None));
    assert_eq!(fixture.words("build --color=pink .").code, 125);
    assert_eq!(fixture.words("--color").code, 125);
}

#[test]
fn a_closed_terminal_ends_its_container() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for program in ["echo up; exec sleep 1000", "trap '' HUP; echo up; while :; do sleep 1; done"] {
        let arguments = ["run", "--rm", "-it", "busybox", "sh", "-c", program];
        let mut terminal = Terminal::start(&fixture, &arguments, 80);
        terminal.until("output", |screen| screen.has("up"));
        drop(terminal.master.take());
        let begun = Instant::now();
        while terminal.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < LONGEST, "{program}: it goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        while !fixture.ok("ps -aq").is_empty() {
            assert!(begun.elapsed() < LONGEST, "{program}: the container is left");
        }
    }
}

#[test]
fn exec_gives_a_program_a_terminal() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut running = fixture.start(&["run", "--name", "web", "busybox", "sleep", "1000"]);
    while !fixture.ok("ps --format {{.Names}}").contains("web") {}
    let script = "test -t 0 && test -t 1 && stty size; read word; echo heard $word; exit 6";
    let mut terminal = Terminal::start(&fixture, &["exec", "-it", "web", "sh", "-c", script], 77);
    terminal.until("the size", |screen| screen.has(" 77"));
    terminal.press(b"hello\r");
    terminal.until("the answer", |screen| screen.has("heard hello"));
    let (code, _) = terminal.finish();
    assert_eq!(code, 6);
    fixture.ok("kill web");
    running.wait().unwrap();
}

#[test]
fn keys_leave_a_program_that_exec_started() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let program = "mkfifo /go /done; exec sleep 1000";
    assert_eq!(fixture.kiln(&["run", "-d", "--name", "web", "busybox", "sh", "-c", program]).code, 0);
    // Its terminal is read on: what it prints afterwards is more than one holds.
    let script = "echo up; read x </go; seq 1 50000; test -t 0 && echo $x >/done";
    for (flags, keys) in [(&[][..], b"\x10\x11".as_slice()), (&["--detach-keys", "ctrl-x,q"], b"\x18q")] {
        let arguments = [&["exec", "-it"], flags, &["web", "sh", "-c", script]].concat();
        let mut terminal = Terminal::start(&fixture, &arguments, 80);
        terminal.until("output", |screen| screen.has("up"));
        terminal.press(keys);
        let (code, screen) = terminal.finish();
        assert_eq!(code, 0, "{screen}");
        let heard = fixture.kiln(&["exec", "web", "sh", "-c", "echo heard >/go; cat /done"]);
        assert_eq!(heard.out, "heard\n", "{}", heard.err);
    }
    fixture.ok("rm -f web");
}

#[test]
fn ends_without_an_explanation_get_a_hint_on_a_terminal() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("closed/file", "x");
    let closed = fixture.path("closed").display().to_string();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mount = format!("{closed}:/data");
    let hog = "head -c 100m /dev/zero | tail -c 100m >/dev/null";
    let cases: [(&[&str], &str, i32, &str); 3] = [
        (&["-m", "16m", "--memory-swap", "16m"], hog, 137, "its memory limit of 16MiB is reached (--memory)"),
        (&[], "sh -c 'kill -9 $$'; exit $?", 137, "killed (SIGKILL), and not for lack of memory"),
        (&["-u", "7:8", "-v", &mount], "ls /data", 1, "ran as 7:8, which may not read /data"),
    ];
    for (flags, script, expected, hint) in cases {
        let arguments =
            [&["run", "--rm", "--network", "none"], flags, &["busybox", "sh", "-c", script]].concat();
        let (code, screen) = Terminal::start(&fixture, &arguments, 200).finish();
        assert_eq!(code, expected, "{screen}");
        assert!(screen.contains(hint), "{screen}");
        // Programs that read the output see what the reference prints.
        let plain = fixture.kiln(&arguments);
        assert!(plain.code == expected && !plain.err.contains("hint: "), "{}", plain.err);
    }
    let words = ["run", "--name", "hog", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", hog];
    assert_eq!(fixture.kiln(&words).code, 137);
    assert!(fixture.ok("ps -a").contains("(out of memory)"));
    fixture.ok("rm hog");
}

#[test]
fn login_asks_for_user_and_password() {
    let fixture = fixture!();
    let server = crate::web_server::Server::start(|request| match request.header("authorization") {
        "Basic dXNlcjpwYXNz" => crate::web_server::Response::new(200, "{}"),
        _ => crate::web_server::Response::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let config = fixture.path("auth.json");
    let mut command = fixture.command(&["login", &server.address]);
    command.env("REGISTRY_AUTH_FILE", &config);
    let mut terminal = Terminal::of(&command, 80);
    terminal.until("a question", |screen| screen.has("Username:"));
    terminal.press(b"user\r");
    terminal.until("a question", |screen| screen.has("Password:"));
    terminal.press(b"pass\r");
    let (code, text) = terminal.finish();
    assert!(code == 0 && text.contains("Username: user\n") && text.contains("Login Succeeded"), "{text}");
    assert!(text.contains("Password: \n"), "nothing is shown of it: {text}");
    assert!(fs::read_to_string(&config).unwrap().contains("dXNlcjpwYXNz"));
    let mut terminal = Terminal::start(&fixture, &["login", "-u", "user", &server.address], 80);
    terminal.until("a question", |screen| screen.has("Password:"));
    terminal.press(b"\x03");
    assert_eq!(terminal.finish().0, 130);
}

#[test]
fn ports_that_others_reach_are_shown_on_a_terminal() {
    let fixture = fixture!();
    // The address by which this host would reach another one; nothing is sent.
    let own = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let Ok(own) = own else { skip!("needs a route to other hosts") };
    fixture.ok("pull -q busybox");
    let words = ["run", "-d", "--name", "web", "-p", "80", "busybox", "sleep", "1000"];
    let (code, text) = Terminal::start(&fixture, &words, 200).finish();
    let port = fixture.ok("port web 80").lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
    let shown = format!("reachable from other hosts at {}:{port}", own.ip());
    assert!(code == 0 && text.contains(&shown), "{shown}: {text}");
    fixture.ok("rm -f web");
    let words = ["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sleep", "1000"];
    let (code, text) = Terminal::start(&fixture, &words, 200).finish();
    assert!(code == 0 && !text.contains("reachable from other hosts"), "{text}");
    fixture.ok("rm -f web");
}
