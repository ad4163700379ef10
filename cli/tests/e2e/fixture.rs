//! The fixture of a test: a store, a mirror, and the program.

use kiln_registry::testing::{Faults, LayoutServer};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Ends a test that the host cannot run; the test command counts these words.
macro_rules! skip {
    ($($words:tt)*) => {{
        eprintln!("SKIPPED: {}", format_args!($($words)*));
        return;
    }};
}

/// A fixture, or the end of the test where there can be none.
macro_rules! fixture {
    () => {
        match crate::fixture::Fixture::new() {
            Ok(fixture) => fixture,
            Err(reason) => skip!("{reason}"),
        }
    };
}

/// Features of the kernel that are treated as missing (`kiln_runtime::host`).
const WITHOUT: &str = "KILN_WITHOUT";

/// Time after which a command is taken to hang. The slowest one takes a tenth of it on two cores.
const LIMIT: Duration = Duration::from_secs(300);

pub struct Fixture {
    dir: tempfile::TempDir,
    mirror: String,
}

/// Result of a command.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Fixture {
    pub fn new() -> Result<Fixture, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        Ok(Fixture { dir, mirror: mirror()? })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file of a context, with the directories above it.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A context of one Dockerfile.
    pub fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        self.write(&format!("{name}/Dockerfile"), dockerfile);
        self.path(name)
    }

    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(kiln());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // The whole suite can be run as on an older kernel.
            .envs(std::env::var_os(WITHOUT).map(|without| (WITHOUT, without)))
            .env("KILN_ROOT", self.root())
            .env("KILN_REGISTRY_MIRROR", &self.mirror)
            .env("KILN_CONFIG", self.path("no-config.json"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn kiln<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Done {
        Done::of(self.start(arguments).wait_with_output().unwrap())
    }

    /// Runs words separated by blanks.
    pub fn words(&self, line: &str) -> Done {
        self.kiln(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Like [`Fixture::words`], for commands that must succeed; returns standard output.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let done = self.words(line);
        assert_eq!(done.code, 0, "kiln {line}: {}{}", done.out, done.err);
        done.out
    }

    /// Builds a context under a name; returns the plain progress.
    #[track_caller]
    pub fn build(&self, name: &str, context: &Path) -> String {
        let done = self.kiln(&[OsStr::new("build"), "-t".as_ref(), name.as_ref(), context.as_ref()]);
        assert_eq!(done.code, 0, "{}", done.err);
        done.err
    }

    /// Builds a context that must fail.
    #[track_caller]
    pub fn fails(&self, context: &Path) -> Done {
        let done = self.kiln(&[OsStr::new("build"), "-t".as_ref(), "failed".as_ref(), context.as_ref()]);
        assert_eq!(done.code, 1, "{}", done.err);
        assert_eq!(self.ok("images -q failed"), "", "a failed build tags nothing");
        done
    }

    /// Starts a command with pipes for its output.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Child {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        end_in_time(&child, words.join(" "));
        child
    }

    /// Nothing of this store is mounted, running or in a cgroup.
    #[track_caller]
    pub fn assert_clean(&self) {
        let root = self.root().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&root)).collect();
        assert!(left.is_empty(), "mounts are left: {left:#?}");
        // A monitor ends just after it has released its container.
        let began = Instant::now();
        while !processes_with(&root).is_empty() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(processes_with(&root), Vec::<String>::new(), "processes are left");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
            return;
        }
        // A failed test leaves no container running.
        let left = self.words("ps -aq").out;
        let mut words = vec!["rm", "-f"];
        words.extend(left.split_whitespace());
        self.kiln(&words);
    }
}

impl Done {
    pub fn of(output: Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Kills a command that goes on for [`LIMIT`], so that its test fails instead of the whole run.
fn end_in_time(child: &Child, words: String) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    std::thread::spawn(move || {
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        if let Ok(0) = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) {
            eprintln!("killed after {LIMIT:?}: kiln {words}");
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    });
}

pub fn kiln() -> PathBuf {
    std::env::var_os("KILN_BIN").map_or_else(|| env!("CARGO_BIN_EXE_kiln").into(), PathBuf::from)
}

pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Processes that have a text in their environment: those of this fixture.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let hit = environment.windows(text.len()).any(|window| window == text.as_bytes());
        let ended = fs::read_to_string(path.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        if hit && !ended {
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

/// One mirror for all tests.
fn mirror() -> Result<String, String> {
    static MIRROR: OnceLock<Result<LayoutServer, String>> = OnceLock::new();
    let server = MIRROR.get_or_init(|| {
        let bases = project().join("target/bases");
        let dirs: Vec<PathBuf> = ["busybox", "debian"].iter().map(|name| bases.join(name)).collect();
        if !dirs.iter().all(|dir| dir.join("index.json").exists()) {
            return Err("needs the base images: run `make bases`".to_owned());
        }
        let listen = "127.0.0.1:0".parse().expect("an address");
        LayoutServer::start(listen, dirs, Faults::default()).map_err(|error| error.to_string())
    });
    server.as_ref().map(|server| server.address().to_string()).map_err(Clone::clone)
}
