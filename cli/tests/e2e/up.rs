//! `kiln up` and `kiln down`: a project is built and run, again after an edit, and ended.

use crate::fixture::{Done, Fixture};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const LONGEST: Duration = Duration::from_secs(60);

/// A project with a web server for the files of `www`. It is stopped at once: as the first process it ignores SIGTERM.
const SERVER: &str = "FROM busybox
COPY www /www
EXPOSE 8000
STOPSIGNAL SIGKILL
CMD [\"httpd\", \"-f\", \"-p\", \"8000\", \"-h\", \"/www\"]
";

/// A `kiln up` that runs, and the lines that it has printed.
struct Up {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

fn project(fixture: &Fixture, name: &str) -> PathBuf {
    fixture.write(&format!("{name}/www/index.html"), "one\n");
    fixture.write(&format!("{name}/.dockerignore"), "**/*.md\n");
    fixture.context(name, SERVER)
}

impl Up {
    fn start(fixture: &Fixture, dir: &Path, flags: &[&str]) -> Up {
        let mut command = fixture.command(&["up"]);
        command.args(flags).arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Up { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with this text; returns it.
    #[track_caller]
    fn line(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LONGEST);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for the line with the address at which the container is reached.
    #[track_caller]
    fn address(&mut self) -> String {
        self.line(" at http://").rsplit("http://").next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns the exit code, and all lines.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().unwrap().code();
        self.seen.extend(self.lines.iter());
        (code, self.seen)
    }

    #[track_caller]
    fn interrupt(self) -> Vec<String> {
        self.signal(Signal::INT);
        let (code, lines) = self.end();
        assert_eq!(code, Some(130), "{lines:#?}");
        lines
    }
}

/// Content that a web server answers with; empty without an answer.
fn fetch(address: &str, path: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return answer };
    let _ = write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")
        .and_then(|()| stream.read_to_string(&mut answer).map(drop));
    answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// Asks until a web server answers with this content; returns how long it took.
#[track_caller]
fn served(address: &str, path: &str, content: &str) -> Duration {
    let began = Instant::now();
    loop {
        let found = fetch(address, path);
        if found == content {
            return began.elapsed();
        }
        assert!(began.elapsed() < LONGEST, "{address}/{path}: {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn up(fixture: &Fixture, dir: &Path, flags: &[&str]) -> Done {
    Done::of(fixture.command(&["up", "-d"]).args(flags).arg(dir).output().unwrap())
}

#[track_caller]
fn down(fixture: &Fixture, dir: &Path, flags: &[&str]) -> Done {
    let done = Done::of(fixture.command(&["down"]).args(flags).arg(dir).output().unwrap());
    assert_eq!(done.code, 0, "{}", done.err);
    done
}

#[test]
fn a_project_runs_until_ctrl_c() {
    let fixture = fixture!();
    let dir = project(&fixture, "My Web");
    let mut running = Up::start(&fixture, &dir, &["-v", "kept:/data", "-e", "A=b"]);
    let address = running.address();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    served(&address, "index.html", "one\n");
    let label = "{{index .Config.Labels \"io.kiln.project\"}}";
    let label = fixture.kiln(&["inspect", "-f", label, "my-web"]).out;
    assert_eq!(label.trim(), dir.canonicalize().unwrap().display().to_string());
    assert_eq!(fixture.ok("exec my-web sh -c echo${IFS}$A"), "b\n");
    running.interrupt();
    assert_eq!(fixture.ok("ps -aq"), "");
    assert_eq!(fetch(&address, "index.html"), "");
    assert_eq!(fixture.ok("images --format {{.Repository}}:{{.Tag}} my-web"), "my-web:up\n");
    let volumes = fixture.root().join("volumes/kept");
    assert!(volumes.exists(), "named volumes stay");
}

#[test]
fn a_project_in_the_background_is_replaced_and_ended() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    let first = up(&fixture, &dir, &[]);
    let (name, url) = first.out.trim().split_once('\n').unwrap();
    assert_eq!((first.code, name), (0, "web"), "{}", first.err);
    let address = url.strip_prefix("http://").unwrap().to_owned();
    served(&address, "index.html", "one\n");
    let id = fixture.ok("ps -q --no-trunc");

    // A build that fails leaves the container.
    fixture.write("web/Dockerfile", "FROM busybox\nRUN false\n");
    let failed = up(&fixture, &dir, &[]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert!(failed.err.contains(&format!("web goes on with its old image at {url}")), "{}", failed.err);
    assert_eq!(fixture.ok("ps -q --no-trunc"), id);

    // One that succeeds replaces it, on the same port.
    fixture.write("web/Dockerfile", SERVER);
    fixture.write("web/www/index.html", "two\n");
    let second = up(&fixture, &dir, &[]);
    assert_eq!((second.code, second.out.as_str()), (0, first.out.as_str()), "{}", second.err);
    served(&address, "index.html", "two\n");
    assert_ne!(fixture.ok("ps -aq --no-trunc"), id);
    assert_eq!(fixture.ok("images -aq").lines().count(), 2, "the replaced image is removed, the base stays");

    assert_eq!(down(&fixture, &dir, &["-t", "0"]).out, "web\n");
    assert_eq!(fixture.ok("ps -aq"), "");
    let again = down(&fixture, &dir, &[]);
    assert!(again.err.contains("nothing to do"), "{}", again.err);
    assert_eq!(down(&fixture, &dir, &["--rmi"]).out, "web:up\n");
    assert_eq!(fixture.ok("images -q web"), "");
}

#[test]
fn containers_of_others_are_not_replaced() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    fixture.ok("run -d --name web busybox sleep 1000");
    let refused = up(&fixture, &dir, &[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("which `kiln up` has not made"), "{}", refused.err);
    assert!(refused.err.contains("--name NAME"), "{}", refused.err);
    let other = project(&fixture, "other/web");
    assert_eq!(up(&fixture, &other, &["--name", "web2"]).code, 0);
    let refused = up(&fixture, &dir, &["--name", "web2"]);
    assert!(refused.code == 1 && refused.err.contains("which `kiln up` made of "), "{}", refused.err);
    assert!(down(&fixture, &dir, &[]).err.contains("nothing to do"));
    assert_eq!(down(&fixture, &other, &[]).out, "web2\n");
    fixture.ok("rm -f web");
}

#[test]
fn an_edit_is_served_and_an_ignored_one_does_nothing() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    let mut running = Up::start(&fixture, &dir, &["--watch", "-v", "/data"]);
    let address = running.address();
    served(&address, "index.html", "one\n");
    fixture.ok("exec web sh -c echo>/data/kept");
    // Neither is read by the build; both edits come before the one that is.
    fixture.write("web/www/notes.md.txt.md", "x");
    fixture.write("web/notes.md", "x");
    fixture.write("web/beside/file", "x");
    // As editors save: beside, and renamed.
    fixture.write("web/www/.new", "two\n");
    fs::rename(dir.join("www/.new"), dir.join("www/index.html")).unwrap();
    running.line("building again");
    let restarted = running.line("restarted in ");
    served(&address, "index.html", "two\n");
    // The server ignores SIGTERM, and would have ten seconds to end.
    let seconds = restarted.split("restarted in ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(seconds.parse::<f64>().unwrap() < 8.0, "{restarted}");
    assert_eq!(fixture.ok("exec web ls /data"), "kept\n", "anonymous volumes go over");
    // A new directory with files, and the Dockerfile.
    fixture.write("web/www/deep/er/page.html", "three\n");
    running.line("restarted in ");
    served(&address, "deep/er/page.html", "three\n");
    fixture.write("web/Dockerfile", &format!("{SERVER}ENV A=b\n"));
    let line = running.line("building again");
    assert_eq!(line, "Dockerfile has changed: building again");
    running.line("restarted in ");
    // Content that is as before is built, and restarts nothing.
    fixture.write("web/www/index.html", "two\n");
    running.line("the image has not changed");
    let lines = running.interrupt();
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("has changed: ")).collect();
    assert!(told.iter().all(|line| !line.contains(".md") && !line.contains("beside")), "{told:?}");
    assert_eq!(fixture.ok("ps -aq"), "");
    let volumes = fs::read_dir(fixture.root().join("volumes")).unwrap().flatten();
    let volumes = volumes.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(volumes.count(), 0, "anonymous volumes go with the last container");
}

#[test]
fn a_build_that_fails_leaves_the_container_until_the_next_edit() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    let mut running = Up::start(&fixture, &dir, &["--watch"]);
    let address = running.address();
    served(&address, "index.html", "one\n");
    fixture.write("web/Dockerfile", &SERVER.replace("EXPOSE", "COPY new /new\nEXPOSE"));
    running.line("web goes on with its old image; the next edit builds again");
    served(&address, "index.html", "one\n");
    // The file that was missing counts, though no build before has read it.
    fixture.write("web/new/file", "x");
    running.line("restarted in ");
    assert_eq!(fixture.ok("exec web cat /new/file"), "x");
    served(&address, "index.html", "one\n");
    running.interrupt();
}

#[test]
fn synced_files_are_copied_into_the_running_container() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    fixture.write("web/www/old.html", "old\n");
    let mut running = Up::start(&fixture, &dir, &["--watch", "--sync", "www:/www"]);
    let address = running.address();
    served(&address, "index.html", "one\n");
    let id = fixture.ok("ps -q");
    fixture.write("web/www/index.html", "two\n");
    served(&address, "index.html", "two\n");
    fixture.write("web/www/new/page.html", "three\n");
    served(&address, "new/page.html", "three\n");
    fs::remove_file(dir.join("www/old.html")).unwrap();
    running.line("/www/old.html is up to date in web");
    let listed = fixture.ok("exec web ls /www");
    assert_eq!(listed, "index.html\nnew\n");
    assert_eq!(fixture.ok("ps -q"), id, "the container is the same");
    fixture.write("web/www/ignored.md", "x");
    fixture.write("web/www/last", "x");
    running.line("/www/last is up to date");
    let lines = running.interrupt();
    assert!(!lines.iter().any(|line| line.contains("building again") || line.contains(".md")), "{lines:#?}");
}

#[test]
fn a_container_that_ends_at_once_is_reported() {
    let fixture = fixture!();
    let dir = fixture.context("web", "FROM busybox\nCMD echo out of luck; exit 3\n");
    let done = up(&fixture, &dir, &[]);
    assert_eq!((done.code, done.out.as_str()), (3, ""));
    assert!(done.err.contains("out of luck\nweb has ended with exit code 3\n"), "{}", done.err);
    down(&fixture, &dir, &[]);
    let (code, lines) = Up::start(&fixture, &dir, &[]).end();
    assert_eq!(code, Some(3), "{lines:#?}");
    assert!(lines.iter().any(|line| line == "out of luck"), "{lines:#?}");
    assert_eq!(fixture.ok("ps -aq"), "");
    // While edits are waited for, the next one starts it again.
    let mut running = Up::start(&fixture, &dir, &["--watch"]);
    running.line("web has ended with exit code 3");
    fixture.write("web/Dockerfile", "FROM busybox\nCMD echo better; exec sleep 1000\n");
    running.line("better");
    running.signal(Signal::TERM);
    running.line("stopping web");
    running.signal(Signal::TERM);
    let (code, lines) = running.end();
    assert_eq!(code, Some(143), "{lines:#?}");
    let done = up(&fixture, &fixture.context("none", "FROM busybox\nCMD [\"/none\"]\n"), &[]);
    assert!(done.code == 127 && done.err.contains("check the name of the program"), "{}", done.err);
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn health_is_told_when_it_is_known() {
    let fixture = fixture!();
    let check =
        "HEALTHCHECK --interval=1s --start-interval=100ms --start-period=60s CMD ls /www/index.html\n";
    let dir = project(&fixture, "web");
    fixture.write("web/Dockerfile", &format!("{SERVER}{check}"));
    let mut running = Up::start(&fixture, &dir, &[]);
    running.line("web is healthy");
    running.interrupt();
}

#[test]
fn a_command_that_is_killed_or_doubled_leaves_one_container() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    let mut killed = Up::start(&fixture, &dir, &[]);
    let address = killed.address();
    killed.signal(Signal::KILL);
    killed.end();
    served(&address, "index.html", "one\n");
    // The next one takes over; a third one in turn ends that.
    let mut second = Up::start(&fixture, &dir, &[]);
    assert_eq!(second.address(), address);
    let mut third = Up::start(&fixture, &dir, &[]);
    assert_eq!(third.address(), address);
    let (_, lines) = second.end();
    assert!(lines.iter().any(|line| line == "web was replaced or removed by another command"), "{lines:#?}");
    served(&address, "index.html", "one\n");
    down(&fixture, &dir, &["-t", "0"]);
    third.line("web was replaced or removed by another command");
    third.end();
    // At once.
    let both = [0, 1].map(|_| {
        fixture
            .command(&["up", "-d"])
            .arg(&dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let codes = both.map(|one| Done::of(one.wait_with_output().unwrap()));
    assert!(codes.iter().any(|done| done.code == 0), "{codes:?}");
    assert_eq!(fixture.ok("ps -aq").lines().count(), 1, "{codes:?}");
    down(&fixture, &dir, &[]);
}

#[test]
fn ctrl_c_during_the_build_ends_it_and_keeps_the_container() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    assert_eq!(up(&fixture, &dir, &[]).code, 0);
    let id = fixture.ok("ps -q");
    fixture.write("web/Dockerfile", &format!("{SERVER}RUN echo in the step; sleep 1000\n"));
    let mut running = Up::start(&fixture, &dir, &["--progress", "plain"]);
    running.line(" in the step");
    let lines = running.interrupt();
    assert!(lines.iter().any(|line| line.contains("Build cancelled")), "{lines:#?}");
    assert_eq!(fixture.ok("ps -q"), id);
    down(&fixture, &dir, &[]);
}

#[test]
fn directories_of_all_kinds_are_projects() {
    let fixture = fixture!();
    let dir = project(&fixture, "+++");
    let done = up(&fixture, &dir, &[]);
    assert_eq!((done.code, done.out.lines().next()), (0, Some("project")), "{}", done.err);
    down(&fixture, &dir, &[]);
    let dir = project(&fixture, "a b/c d");
    let mut command = fixture.command(&["up", "-d"]);
    let done = Done::of(command.current_dir(&dir).output().unwrap());
    assert_eq!((done.code, done.out.lines().next()), (0, Some("c-d")), "{}", done.err);
    // By a link it is the same project.
    std::os::unix::fs::symlink(&dir, fixture.path("link")).unwrap();
    assert_eq!(down(&fixture, &fixture.path("link"), &[]).out, "c-d\n");
    let dir = project(&fixture, "fixed");
    let flags = rustix::mount::MountFlags::RDONLY;
    rustix::mount::mount_bind(&dir, &dir).unwrap();
    rustix::mount::mount_remount(&dir, rustix::mount::MountFlags::BIND | flags, c"").unwrap();
    let done = up(&fixture, &dir, &[]);
    let ended = down(&fixture, &dir, &[]);
    rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!((done.code, ended.out.as_str()), (0, "fixed\n"), "{}", done.err);
}

#[test]
fn ports_are_as_the_user_says() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    let done = up(&fixture, &dir, &["-p", "127.0.0.1::8000", "-p", "127.0.0.1::9"]);
    assert_eq!(done.out.lines().count(), 3, "{}{}", done.out, done.err);
    let port = done.out.lines().last().unwrap().rsplit(':').next().unwrap().to_owned();
    // Without -p it keeps the port, though another number is exposed.
    let again = up(&fixture, &dir, &[]);
    assert_eq!(again.out, format!("web\nhttp://127.0.0.1:{port}\n"), "{}", again.err);
    let none = up(&fixture, &dir, &["--network", "none"]);
    assert_eq!(none.out, "web\n", "{}", none.err);
    down(&fixture, &dir, &[]);
}

#[test]
fn edits_leave_no_images_without_a_name() {
    let fixture = fixture!();
    for text in ["one", "two", "three"] {
        let dir = fixture.context("web", &format!("FROM busybox\nENV A={text}\nCMD true\n"));
        let (code, lines) = Up::start(&fixture, &dir, &[]).end();
        assert_eq!(code, Some(0), "{lines:#?}");
    }
    let images = fixture.ok("images -a --format {{.Repository}}:{{.Tag}}");
    assert_eq!(images, "busybox:latest\nweb:up\n");
}

#[test]
fn a_signal_while_the_old_container_is_stopped_starts_no_other() {
    let fixture = fixture!();
    let dir = fixture.context("web", "FROM busybox\nCMD trap '' TERM; while :; do sleep 0.1; done\n");
    assert_eq!(up(&fixture, &dir, &[]).code, 0);
    let mut running = Up::start(&fixture, &dir, &[]);
    running.line("stopping the old container web");
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    let (code, lines) = running.end();
    assert_eq!(code, Some(130), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("web runs")), "{lines:#?}");
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn input_is_refused() {
    let fixture = fixture!();
    let done = up(&fixture, &fixture.context("web", "FROM busybox\n"), &["-i"]);
    assert!(done.code == 125 && done.err.contains("kiln up has no -i: it sends no input"), "{}", done.err);
}

#[test]
fn restarts_by_the_policy_do_not_end_the_command() {
    let fixture = fixture!();
    let dir = fixture.context("web", "FROM busybox\nCMD echo once; sleep 0.2; exit 1\n");
    let mut running = Up::start(&fixture, &dir, &["--restart", "always"]);
    for _ in 0..3 {
        running.line("once");
    }
    running.signal(Signal::INT);
    running.line("stopping web");
    let (code, lines) = running.end();
    assert_eq!(code, Some(130), "{lines:#?}");
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn a_file_that_cannot_be_synced_keeps_no_other_back() {
    let fixture = fixture!();
    let dir = project(&fixture, "web");
    fixture.write("web/www/a/page.html", "below\n");
    let mut running = Up::start(&fixture, &dir, &["--watch", "--sync", "www:/www"]);
    let address = running.address();
    served(&address, "a/page.html", "below\n");
    fs::remove_dir_all(dir.join("www/a")).unwrap();
    fixture.write("web/www/a", "a file now\n");
    fixture.write("web/www/z.html", "after it\n");
    served(&address, "z.html", "after it\n");
    assert_eq!(fixture.ok("exec web cat /www/a"), "a file now\n");
    running.interrupt();
}

#[test]
fn images_of_other_directories_stay() {
    let fixture = fixture!();
    let dockerfile = "FROM busybox\nCMD sleep 1000\n";
    let (one, two) = (fixture.context("one/api", dockerfile), fixture.context("two/api", dockerfile));
    assert_eq!(up(&fixture, &one, &["-d"]).code, 0);
    let done = down(&fixture, &two, &["--rmi"]);
    assert!(done.err.contains("the image api:up stays: container api uses it"), "{done:?}");
    assert_eq!(fixture.ok("images -q api:up").lines().count(), 1);
    let done = down(&fixture, &one, &["--rmi"]);
    assert_eq!(done.out, "api\napi:up\n", "{}", done.err);
}
