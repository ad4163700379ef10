//! The fixture of a test: a directory for a runtime's containers, bundles with a busybox, and results of commands.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A fixture, or a loud word that there can be none here.
macro_rules! fixture {
    () => {
        match crate::fixture::Fixture::new() {
            Ok(fixture) => fixture,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return;
            }
        }
    };
}

/// A runtime with no containers; those left at the end are removed.
pub struct Fixture {
    dir: tempfile::TempDir,
}

/// Longest time of a command on a busy host.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Result of a command.
#[derive(Clone, Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A bundle, to be changed before it is used.
pub struct Bundle {
    pub dir: PathBuf,
    pub config: Value,
}

/// Reports that the rest of a test is skipped.
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("SKIPPED: {}", format!($($reason)*));
        return;
    }};
}

/// Polls until a condition holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Content of a file, without the line end.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim_end()
        .to_owned()
}

/// Unique ids among all tests and runs.
pub fn new_id(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("kt-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Fixture {
    pub fn new() -> Result<Fixture, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("containers of an OCI runtime need root here".to_owned());
        }
        if !busybox().exists() {
            return Err("busybox (static) is needed".to_owned());
        }
        Ok(Fixture { dir: tempfile::tempdir().map_err(|error| error.to_string())? })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A command of the runtime, to be changed before it is run.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("oci").arg("--root").arg(self.root()).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn oci(&self, words: &[&str]) -> Done {
        Done::in_time(&mut self.command(words))
    }

    /// Runs a command that keeps this process's streams from a container that outlives it.
    pub fn detached(&self, words: &[&str]) -> Done {
        let err = self.dir.path().join("detached.err");
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(fs::File::create(&err).unwrap());
        let code = command.status().unwrap().code().unwrap_or(-1);
        Done { code, out: String::new(), err: fs::read_to_string(&err).unwrap() }
    }

    /// A bundle whose program is a shell command.
    pub fn bundle(&self, command: &str) -> Bundle {
        let dir = self.dir.path().join(new_id("bundle"));
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy(busybox(), rootfs.join("bin/busybox")).unwrap();
        let applets = Command::new(busybox()).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            // Much cheaper to make than symbolic links.
            fs::hard_link(rootfs.join("bin/busybox"), rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nstaff:x:50:app\napp:x:1001:\n").unwrap();
        let done = Done::of(&self.command(&["spec", "--bundle", dir.to_str().unwrap()]).output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
        let mut config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", command]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"]["readonly"] = json!(false);
        Bundle { dir, config }
    }

    /// Runs a bundle in the foreground.
    pub fn run(&self, bundle: &Bundle) -> Done {
        self.oci(&["run", "--bundle", bundle.write(), &new_id("run")])
    }

    /// Runs a shell command in a changed default container.
    pub fn sh(&self, command: &str, change: impl FnOnce(&mut Value)) -> Done {
        let mut bundle = self.bundle(command);
        change(&mut bundle.config);
        self.run(&bundle)
    }

    /// Starts a container in the background; returns its id.
    pub fn up(&self, bundle: &Bundle) -> String {
        let id = new_id("up");
        let done = self.detached(&["run", "--detach", "--bundle", bundle.write(), &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        id
    }

    /// A container that does nothing, in the background.
    pub fn idle(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut bundle = self.bundle("while :; do sleep 0.1; done");
        change(&mut bundle.config);
        self.up(&bundle)
    }

    /// Runs a shell command in a container that runs.
    pub fn exec(&self, id: &str, command: &str) -> Done {
        self.oci(&["exec", id, "sh", "-c", command])
    }

    /// A container in the foreground, by a program that goes on.
    pub fn spawn(&self, bundle: &Bundle, id: &str) -> Child {
        let mut command = self.command(&["run", "--bundle", bundle.write(), id]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The pid of the container's init process, in this pid namespace.
    pub fn pid(&self, id: &str) -> i64 {
        self.state(id)["pid"].as_i64().unwrap()
    }

    /// Everything that containers whose ids end in `name` could leave on the host.
    pub fn traces(&self, name: &str) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.path().to_str().unwrap();
        traces.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
        let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(group) = open.pop() {
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let group = entry.file_name().to_string_lossy().into_owned();
                    if group.starts_with(&format!("kt-{}-", std::process::id())) && group.ends_with(name) {
                        traces.insert(format!("group {}", entry.path().display()));
                    }
                    open.push(entry.path());
                }
            }
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(dir) {
                traces.insert(format!("process {line}"));
            }
        }
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            traces.insert(format!("state {}", entry.path().display()));
        }
        traces
    }

    /// The state of a container as JSON.
    pub fn state(&self, id: &str) -> Value {
        let done = self.oci(&["state", id]);
        assert_eq!(done.code, 0, "{}", done.err);
        serde_json::from_str(&done.out).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let entries = fs::read_dir(self.root()).into_iter().flatten().flatten();
        for id in entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)) {
            let _ = self.command(&["delete", "--force", &id]).output();
        }
    }
}

impl Bundle {
    /// Writes the configuration; returns the directory.
    pub fn write(&self) -> &str {
        fs::write(self.dir.join("config.json"), self.config.to_string()).unwrap();
        self.dir.to_str().unwrap()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }
}

impl Done {
    /// Runs a command that must end by itself: one that hangs is killed, and fails the test.
    #[track_caller]
    pub fn in_time(command: &mut Command) -> Done {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let (sender, ended) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let _ = sender.send(child.wait_with_output());
        });
        if let Ok(output) = ended.recv_timeout(PATIENCE) {
            waiter.join().unwrap();
            return Done::of(&output.unwrap());
        }
        // Not reaped yet, since the thread waits for its output.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("hangs: {command:?}");
    }

    pub fn of(output: &Output) -> Done {
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
}
