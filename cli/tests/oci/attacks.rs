//! Attacks of containers and images on the runtime: each is carried out, and must fail.
//!
//! `Outside` is a directory of the fixture whose path every attack knows; it must not change.

use crate::fixture::{Bundle, Done, Fixture, PATIENCE, new_id};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A directory of the host, with a file and a directory, that containers must not reach.
pub struct Outside {
    pub path: PathBuf,
}

impl Outside {
    pub fn new(fixture: &Fixture) -> Outside {
        let path = fixture.path().join("outside");
        fs::create_dir_all(path.join("directory")).unwrap();
        fs::write(path.join("file"), "outside\n").unwrap();
        Outside { path }
    }

    pub fn file(&self) -> PathBuf {
        self.path.join("file")
    }

    /// Everything that an attack could change.
    pub fn listing(&self) -> Vec<(PathBuf, FileType, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let kind = FileType::from_raw_mode(rustix::fs::lstat(entry.path()).unwrap().st_mode);
                if kind == FileType::Directory {
                    open.push(entry.path());
                }
                let is_file = kind == FileType::RegularFile;
                let content = if is_file { fs::read(entry.path()).unwrap() } else { Vec::new() };
                found.push((entry.path(), kind, content));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    #[track_caller]
    pub fn assert_untouched(&self, what: &str) {
        let names: Vec<_> = self.listing().into_iter().map(|(path, _, content)| (path, content)).collect();
        let expected = vec![(self.path.join("directory"), Vec::new()), (self.file(), b"outside\n".to_vec())];
        assert_eq!(names, expected, "{what} reached the outside");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path.to_str().unwrap()), "{what} mounted outside: {mounts}");
    }
}

/// Waits for something that another process does.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Repeats `attack` in another thread during `work`.
pub fn meanwhile(attack: impl Fn() + Sync, work: impl FnOnce()) {
    /// Ends the attack, also when the work fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attack();
            }
        });
        let _stop = Stop(&stop);
        work();
    });
}

pub fn exchange(a: &Path, b: &Path) {
    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

pub fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
}

/// Makes something at a path.
pub type Make = fn(&Path);

pub fn remove(path: &Path) {
    // Neither may be there: it may be swapped right now.
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
}

pub fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Removes the mounts at and below a directory from the configuration, so that the image's own files are visible.
pub fn without_mounts_below(config: &mut Value, dir: &str) {
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !Path::new(mount["destination"].as_str().unwrap()).starts_with(dir));
}

/// A container that runs until it is removed.
pub fn sleeper(fixture: &Fixture, change: impl FnOnce(&mut Bundle)) -> (String, Bundle) {
    let mut bundle = fixture.bundle("while :; do sleep 0.02; done");
    change(&mut bundle);
    let id = new_id("attacked");
    let done = fixture.detached(&["run", "-d", "--bundle", bundle.write(), &id]);
    assert_eq!(done.code, 0, "{}", done.err);
    (id, bundle)
}

/// Kernel parameters and limits, for which handles on the host's /proc and cgroups are open.
pub fn with_handles(config: &mut Value) {
    config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "1000" });
    config["linux"]["resources"] = json!({ "pids": { "limit": 100 } });
}

/// A program of the host that prints a text; its path from the root, without the slash.
pub fn program_outside(fixture: &Fixture, bundle: &Bundle) -> String {
    let program = fixture.path().join("sh");
    fs::copy(bundle.rootfs().join("bin/busybox"), &program).unwrap();
    let up = "../".repeat(12);
    format!("{up}{}", program.to_str().unwrap().trim_start_matches('/'))
}

/// CVE-2024-21626: neither `run`, nor `create` and `start`, nor `exec` leaves descriptors of the host open, whatever
/// the caller had.
#[test]
fn descriptors_do_not_leak() {
    let fixture = fixture!();
    // Looked for one by one: listing a directory opens it.
    let list = "i=0; found=; while test $i -lt 64; do test -L /proc/$$/fd/$i && found=\"$found $i\"; i=$((i + 1)); done; echo $found";
    // The caller has a directory of the host open, without close-on-exec.
    let leaking = |words: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec 7</ 9</tmp; exec \"$0\" oci --root \"$@\""]);
        command.arg(env!("CARGO_BIN_EXE_kiln")).arg(fixture.root()).args(words).stdin(Stdio::null());
        Done::in_time(&mut command)
    };
    let mut bundle = fixture.bundle(list);
    with_handles(&mut bundle.config);
    let done = leaking(&["run", "--bundle", bundle.write(), &new_id("run")]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("0 1 2\n", ""));
    // Requested descriptors are kept.
    let done = leaking(&["run", "--preserve-fds", "5", "--bundle", bundle.write(), &new_id("run")]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("0 1 2 7\n", ""));

    let (id, _bundle) = sleeper(&fixture, |bundle| with_handles(&mut bundle.config));
    let done = leaking(&["exec", &id, "sh", "-c", list]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("0 1 2\n", ""));

    let mut bundle = fixture.bundle(&format!("({list}) > /root/list; while :; do sleep 0.02; done"));
    with_handles(&mut bundle.config);
    let id = new_id("create");
    // A file for its output: the container outlives the command.
    let mut create = Command::new("sh");
    create.args(["-c", "exec 7</ 9</tmp; exec \"$0\" oci --root \"$@\" >/dev/null 2>&1"]);
    create.arg(env!("CARGO_BIN_EXE_kiln")).arg(fixture.root()).args([
        "create",
        "--bundle",
        bundle.write(),
        &id,
    ]);
    assert_eq!(Done::in_time(&mut create).code, 0);
    assert_eq!(fixture.oci(&["start", &id]).code, 0);
    let listed = || fs::read_to_string(bundle.rootfs().join("root/list")).unwrap_or_default();
    wait_until("the list", || listed().ends_with('\n'));
    assert_eq!(listed(), "0 1 2\n");
}

/// The host's null device stays whose it is, though containers are shown it behind hidden paths and given it as standard
/// streams: root of a container may change what it has open.
#[test]
fn the_null_device_stays_as_it_is() {
    let fixture = fixture!();
    let before = NullDevice::look();
    let hidden = ["/proc/keys", "/proc/interrupts", "/proc/timer_list"];
    let names = format!("{} /proc/self/fd/0 /proc/self/fd/2 /dev/null", hidden.join(" "));
    let attack = format!(
        "for f in {names}; do chown 5:6 $f; chmod 600 $f; touch -d 1999-01-01 $f; done; \
         echo x > /dev/null && echo y > /proc/keys && cat < /proc/self/fd/0 && echo done"
    );
    let change = |bundle: &mut Bundle| bundle.config["linux"]["maskedPaths"] = json!(hidden);
    let quiet = |words: &[&str]| {
        let mut command = fixture.command(words);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Done::in_time(&mut command)
    };
    let mut bundle = fixture.bundle(&attack);
    change(&mut bundle);
    let done = quiet(&["run", "--bundle", bundle.write(), &new_id("run")]);
    before.assert_same("run");
    assert_eq!((done.code, done.out.as_str()), (0, "done\n"));

    let (id, _bundle) = sleeper(&fixture, change);
    let done = quiet(&["exec", &id, "sh", "-c", &attack]);
    before.assert_same("exec");
    assert_eq!((done.code, done.out.as_str()), (0, "done\n"));

    // Without device rules of a cgroup the nodes are the host's, mounted.
    let mut command = Command::new("unshare");
    let inner = fixture.command(&["run", "--bundle", bundle.write(), &new_id("ungrouped")]);
    command.args(["--mount", "sh", "-c", "umount -R /sys/fs/cgroup && exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null()).stderr(Stdio::null());
    let done = Done::in_time(&mut command);
    before.assert_same("run without groups");
    assert_eq!((done.code, done.out.as_str()), (0, "done\n"));
}

/// Owner and mode of the host's null device.
pub struct NullDevice(rustix::fs::Stat);

impl NullDevice {
    pub fn look() -> NullDevice {
        NullDevice(rustix::fs::stat("/dev/null").unwrap())
    }

    /// Restores the device before the assertion.
    #[track_caller]
    pub fn assert_same(&self, what: &str) {
        let tell = |stat: &rustix::fs::Stat| (stat.st_uid, stat.st_gid, stat.st_mode);
        let now = rustix::fs::stat("/dev/null").unwrap();
        if tell(&now) != tell(&self.0) {
            std::os::unix::fs::chown("/dev/null", Some(self.0.st_uid), Some(self.0.st_gid)).unwrap();
            rustix::fs::chmod("/dev/null", Mode::from_raw_mode(self.0.st_mode & 0o7777)).unwrap();
            panic!("{what} made the null device {:?}", tell(&now));
        }
    }
}

/// CVE-2024-21626, attacks 1 and 2: a working directory over a descriptor of the runtime lies inside or is refused.
#[test]
fn working_dirs_over_descriptors_stay_inside() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let below_root = outside.file().to_str().unwrap().trim_start_matches('/').to_owned();
    // From outside of the root the file would be found by climbing up.
    let look = format!("test -e {}{below_root} && echo OUT; pwd -P", "../".repeat(12));
    let (id, _bundle) = sleeper(&fixture, |bundle| with_handles(&mut bundle.config));
    let check = |done: Done, what: &str| {
        assert!(!done.out.contains("OUT"), "{what} is outside: {done:?}");
        assert!(done.code == 0 || !done.err.is_empty(), "{what}: {done:?}");
    };
    for number in 3..31 {
        for below in ["", "/..", "/../../../../.."] {
            let dir = format!("/proc/self/fd/{number}{below}");
            check(fixture.oci(&["exec", "--cwd", &dir, &id, "sh", "-c", &look]), &format!("exec {dir}"));
        }
        let dir = format!("/proc/self/fd/{number}");
        let done = fixture.sh(&look, |config| {
            with_handles(config);
            config["process"]["cwd"] = json!(dir);
        });
        check(done, &dir);
    }
    outside.assert_untouched("a working directory");
}

/// CVE-2024-21626, attack 3: a program of the host is not run by a path over a descriptor of the runtime, neither
/// as the program nor as the interpreter of a script.
#[test]
fn programs_are_not_found_over_descriptors() {
    let fixture = fixture!();
    let (id, bundle) = sleeper(&fixture, |bundle| with_handles(&mut bundle.config));
    let program = program_outside(&fixture, &bundle);
    let control = Command::new(format!("/{program}")).args(["-c", "echo OUT"]).output().unwrap();
    assert_eq!(control.stdout, b"OUT\n");
    for number in 3..31 {
        let path = format!("/proc/self/fd/{number}/{program}");
        let done = fixture.oci(&["exec", &id, &path, "-c", "echo OUT"]);
        assert!(done.code == 255 && done.out.is_empty(), "{number}: {done:?}");
        let mut fresh = fixture.bundle("");
        with_handles(&mut fresh.config);
        fresh.config["process"]["args"] = json!([path, "-c", "echo OUT"]);
        let done = fixture.run(&fresh);
        assert!(matches!(done.code, 126 | 127) && done.out.is_empty(), "{number}: {done:?}");

        use std::os::unix::fs::PermissionsExt;
        let script = bundle.rootfs().join("bin/script");
        fs::write(&script, format!("#!{path}\necho OUT\n")).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let done = fixture.oci(&["exec", &id, "/bin/script"]);
        assert!(done.code == 255 && done.out.is_empty(), "{number}: {done:?}");
    }
}

/// CVE-2019-5736: a process in a container that opens the runtime's own program cannot write to it, not even
/// when no process runs it any more, and with CAP_SYS_PTRACE.
#[test]
fn the_runtime_is_not_overwritten() {
    let fixture = fixture!();
    let own = fixture.path().join("kiln");
    fs::copy(env!("CARGO_BIN_EXE_kiln"), &own).unwrap();
    let before = fs::read(&own).unwrap();
    let kiln = |words: &[&str]| {
        let mut command = Command::new(&own);
        command.arg("oci").arg("--root").arg(fixture.root()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    let bundle = fixture.bundle("while :; do sleep 0.02; done");
    let id = new_id("exe");
    assert_eq!(kiln(&["create", "--bundle", bundle.write(), &id]), Some(0));
    // Its first process runs the runtime until it is started.
    let attack = "exec 9</proc/1/exe; readlink /proc/1/exe > /tmp/name; dd if=/proc/self/fd/9 of=/tmp/copy; \
                  : > /tmp/has; until test -e /tmp/go; do sleep 0.01; done; \
                  { echo OWNED > /proc/self/fd/9; } 2> /tmp/error; chmod 777 /proc/self/fd/9; : > /tmp/done";
    let caps = ["exec", "-d", "--cap", "CAP_SYS_PTRACE", "--cap", "CAP_DAC_OVERRIDE", "--cap", "CAP_FOWNER"];
    let words: Vec<&str> = caps.iter().copied().chain([id.as_str(), "sh", "-c", attack]).collect();
    assert_eq!(kiln(&words), Some(0));
    let inside = |name: &str| bundle.rootfs().join("tmp").join(name);
    wait_until("the handle", || inside("has").exists());
    assert!(
        fs::read(inside("copy")).unwrap() == before,
        "the attacker holds another file: this shows nothing"
    );
    assert_eq!(kiln(&["start", &id]), Some(0));
    // No process runs the file now: only the mount prevents writes.
    fs::OpenOptions::new().append(true).open(&own).expect("the file is not busy");
    fs::write(inside("go"), "").unwrap();
    wait_until("the attack", || inside("done").exists());
    let error = fs::read_to_string(inside("error")).unwrap();
    assert!(error.contains("Read-only file system"), "{error}");
    assert!(fs::read(&own).unwrap() == before, "the runtime was changed");

    // As a program, and as the interpreter of a script, it is not there.
    use std::os::unix::fs::PermissionsExt;
    let script = bundle.rootfs().join("bin/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/proc/self/exe", "/bin/script", "/proc/thread-self/exe"] {
        kiln(&["exec", &id, program, "--version"]);
        kiln(&["exec", &id, program, "oci", "list"]);
    }
    assert!(fs::read(&own).unwrap() == before, "the runtime was changed");
}

/// CVE-2016-9962: processes of a container cannot inspect one that is entering it; and with CAP_SYS_PTRACE for
/// every process they find nothing of the host in one that waits to be started.
#[test]
fn processes_cannot_inspect_one_that_enters() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let below_root = outside.file().to_str().unwrap().trim_start_matches('/').to_owned();
    let up = "../".repeat(12);
    // Links of other processes to the host: a program that is not the container's, or a way out.
    let attack = format!(
        "for p in /proc/[0-9]*; do exe=$(readlink $p/exe); \
         case $exe in ''|/bin/*) ;; *) echo $p is $exe ;; esac; \
         for f in $p/fd/* $p/cwd $p/root; do test -e $f/{up}{below_root} && echo $f leads out; done; \
         case $(tr '\\0' ' ' < $p/environ) in *SECRET*) echo $p tells ;; esac; done"
    );
    let spin = format!("while :; do {{ {attack}; }} >> /tmp/found 2>/dev/null; done");
    let (id, bundle) = sleeper(&fixture, |bundle| {
        with_handles(&mut bundle.config);
        bundle.config["process"]["args"] = json!(["/bin/sh", "-c", spin]);
    });
    wait_until("the attack", || bundle.rootfs().join("tmp/found").exists());
    for _ in 0..100 {
        let mut command = fixture.command(&["exec", &id, "true"]);
        let done = Done::in_time(command.env("SECRET", "of the caller"));
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(fs::read_to_string(bundle.rootfs().join("tmp/found")).unwrap(), "");

    let mut bundle = fixture.bundle("true");
    with_handles(&mut bundle.config);
    let id = new_id("waits");
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
    let cap = ["--cap", "CAP_SYS_PTRACE"];
    let look = |words: &[&str]| {
        let words: Vec<&str> =
            ["exec"].iter().chain(&cap).chain(&[id.as_str()]).chain(words).copied().collect();
        fixture.oci(&words)
    };
    let done = look(&["sh", "-c", "for f in /proc/1/fd/*; do readlink $f; done"]);
    assert!(done.out.contains("socket:"), "it cannot look, so this shows nothing: {done:?}");
    let fine = |line: &str| {
        ["socket:", "pipe:", "/dev/null", "anon_inode:"].iter().any(|kind| line.starts_with(kind))
    };
    let odd: Vec<&str> = done.out.lines().filter(|line| !fine(line) && *line != "/").collect();
    let streams = fixture.path().join("detached.err");
    assert!(odd.iter().all(|line| Path::new(line) == streams), "{odd:?}");
    let done = look(&[
        "sh",
        "-c",
        &format!(
            "for f in /proc/1/fd/* /proc/1/cwd /proc/1/root; do test -e $f/{up}{below_root} && echo $f; done; echo looked"
        ),
    ]);
    assert_eq!(done.out, "looked\n", "{done:?}");
}

/// CVE-2021-30465, CVE-2024-45310: a directory that is swapped for a link while containers start leads no mount, and
/// nothing that is made for one, out of the root.
#[test]
fn swapped_dirs_lead_nowhere() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let shared = fixture.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mut bundle = fixture.bundle(
        "grep -c ' /mnt/a/new/deep ' /proc/self/mountinfo; grep -c ' /vol/a/new ' /proc/self/mountinfo",
    );
    let mnt = bundle.rootfs().join("mnt");
    // One in the image, one in a volume that other containers mount, too.
    for place in [&mnt, &shared] {
        fs::create_dir_all(place.join("a")).unwrap();
        symlink(&outside.path, place.join("b")).unwrap();
    }
    fs::create_dir_all(mnt.join("b/control")).unwrap();
    assert!(outside.path.join("control").exists(), "the link leads nowhere: this shows nothing");
    fs::remove_dir(outside.path.join("control")).unwrap();
    add_mount(
        &mut bundle.config,
        json!({ "destination": "/vol", "type": "bind", "source": shared, "options": ["bind"] }),
    );
    for target in ["/mnt/a/new/deep", "/vol/a/new"] {
        add_mount(&mut bundle.config, json!({ "destination": target, "type": "tmpfs", "source": "tmpfs" }));
    }
    add_mount(
        &mut bundle.config,
        json!({ "destination": "/vol/a/new/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"] }),
    );
    let dir = bundle.write().to_owned();
    let mut went_well = 0;
    let attack = || {
        exchange(&mnt.join("a"), &mnt.join("b"));
        exchange(&shared.join("a"), &shared.join("b"));
    };
    meanwhile(attack, || {
        for _ in 0..200 {
            let done = fixture.oci(&["run", "--bundle", &dir, &new_id("race")]);
            // What was mounted may be hidden by the next swap, but is nowhere else.
            assert!(done.code <= 1, "{done:?}");
            went_well += u32::from(done.err.is_empty());
            // What was made for mounts last time.
            for place in ["a/new", "b/new"] {
                remove(&mnt.join(place));
                remove(&shared.join(place));
            }
        }
    });
    assert!(went_well > 20, "only {went_well} of 200 started: they were hardly attacked");
    outside.assert_untouched("a swapped directory");
}

/// Renames elsewhere on the host, which make the kernel abort the resolution of `..`, do not keep containers from
/// starting.
#[test]
fn renames_elsewhere_do_not_prevent_starts() {
    let fixture = fixture!();
    let mut bundle =
        fixture.bundle("echo fine > /deep/data/file && grep -c ' /var/data ' /proc/self/mountinfo");
    fs::create_dir_all(bundle.rootfs().join("var/data")).unwrap();
    fs::create_dir_all(bundle.rootfs().join("deep/er")).unwrap();
    symlink("er/../../deep/../var/data", bundle.rootfs().join("deep/data")).unwrap();
    add_mount(&mut bundle.config, json!({ "destination": "/deep/data", "type": "tmpfs", "source": "tmpfs" }));
    let dir = bundle.write().to_owned();
    let (one, other) = (fixture.path().join("one"), fixture.path().join("other"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    meanwhile(
        || exchange(&one, &other),
        || {
            for _ in 0..100 {
                let done = fixture.oci(&["run", "--bundle", &dir, &new_id("renames")]);
                assert_eq!((done.code, done.out.as_str()), (0, "1\n"), "{done:?}");
            }
        },
    );
}

/// Ways to make a path of an image something else.
pub const DISGUISES: [&str; 7] =
    ["link", "file link", "climbing link", "dangling link", "fifo", "file", "directory"];

pub fn disguise(kind: &str, path: &Path, outside: &Outside) {
    remove(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let up = "../".repeat(12);
    let climbing = format!("{up}{}", outside.path.to_str().unwrap().trim_start_matches('/'));
    match kind {
        "link" => symlink(&outside.path, path).unwrap(),
        "file link" => symlink(outside.file(), path).unwrap(),
        "climbing link" => symlink(climbing, path).unwrap(),
        "dangling link" => symlink(outside.path.join("new"), path).unwrap(),
        "fifo" => fifo(path),
        "file" => fs::write(path, "of the image\n").unwrap(),
        _ => fs::create_dir(path).unwrap(),
    }
}

/// CVE-2026-41579, CVE-2026-47766 and their kind: an image whose system directories and files are links, pipes, files or
/// directories leads nothing out of the root, and delays no start.
#[test]
fn images_in_disguise_lead_nowhere() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let paths = [
        "dev",
        "proc",
        "sys",
        "etc",
        "tmp",
        "root",
        "dev/null",
        "dev/pts",
        "dev/console",
        "dev/mqueue",
        "dev/shm",
        "dev/fd",
        "dev/ptmx",
        "dev/core",
        "sys/fs/cgroup",
        "proc/self",
        "proc/sys",
        "etc/passwd",
        "etc/group",
        "etc/hosts",
    ];
    let mut started = 0;
    for path in paths {
        let mut bundle = fixture.bundle("true");
        let original = bundle.config.clone();
        for kind in DISGUISES {
            disguise(kind, &bundle.rootfs().join(path), &outside);
            for mounts in ["all", "no /dev", "neither /dev nor /proc"] {
                bundle.config = original.clone();
                if mounts != "all" {
                    without_mounts_below(&mut bundle.config, "/dev");
                    add_mount(
                        &mut bundle.config,
                        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" }),
                    );
                }
                if mounts.starts_with("neither") {
                    without_mounts_below(&mut bundle.config, "/proc");
                }
                add_mount(
                    &mut bundle.config,
                    json!({ "destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind", "ro"] }),
                );
                bundle.config["process"]["cwd"] = json!("/root/new");
                let done = fixture.run(&bundle);
                let what = format!("{path} as {kind}, {mounts}");
                assert!(done.code == 0 || done.err.starts_with("kiln oci: "), "{what}: {done:?}");
                assert!(!done.err.contains("panicked"), "{what}: {done:?}");
                started += u32::from(done.code == 0);
                outside.assert_untouched(&what);
            }
        }
        fs::remove_dir_all(&bundle.dir).unwrap();
    }
    assert!(started > 100, "only {started} started: they were hardly attacked");
}

/// CVE-2025-31133: masked paths are covered by the host's /dev/null, not by a file of the image at its path.
#[test]
fn masked_paths_hide_the_files_of_the_image() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let command =
        "cat /secret /proc/keys 2>/dev/null; { echo written > /secret; } 2>/dev/null; ls /hidden; true";
    for kind in DISGUISES {
        let mut bundle = fixture.bundle(command);
        without_mounts_below(&mut bundle.config, "/dev");
        disguise(kind, &bundle.rootfs().join("dev/null"), &outside);
        disguise(kind, &bundle.rootfs().join("dev/zero"), &outside);
        fs::write(bundle.rootfs().join("secret"), "SECRET\n").unwrap();
        fs::create_dir(bundle.rootfs().join("hidden")).unwrap();
        fs::write(bundle.rootfs().join("hidden/SECRET"), "").unwrap();
        symlink("/secret", bundle.rootfs().join("link")).unwrap();
        bundle.config["linux"]["maskedPaths"] = json!([]);
        if kind == "link" {
            let mut open = fixture.bundle(command);
            fs::copy(bundle.rootfs().join("secret"), open.rootfs().join("secret")).unwrap();
            open.config["linux"]["maskedPaths"] = json!([]);
            assert!(
                fixture.run(&open).out.contains("SECRET"),
                "there is nothing to hide: this shows nothing"
            );
        }
        bundle.config["linux"]["maskedPaths"] = json!(["/link", "/hidden", "/proc/keys"]);
        let done = fixture.run(&bundle);
        // A node that is something else may be refused.
        assert!(done.out.is_empty(), "{kind}: {done:?}");
        assert_eq!(fs::read_to_string(bundle.rootfs().join("secret")).unwrap(), "SECRET\n", "{kind}");
        outside.assert_untouched(kind);
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881: what is set below /proc is set in the kernel, not
/// in files that an image or a volume has in its place.
#[test]
fn a_false_proc_is_not_written_to() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let links = [
        "self/attr/exec",
        "self/attr/apparmor/exec",
        "self/oom_score_adj",
        "sys/net/ipv4/ip_unprivileged_port_start",
        "sys/kernel/core_pattern",
        "sysrq-trigger",
    ];
    let falsify = |dir: &Path| {
        for link in links {
            let path = dir.join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(outside.file(), path).unwrap();
        }
    };
    let set = |config: &mut Value| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "1234" });
        config["process"]["oomScoreAdj"] = json!(77);
        config["process"]["apparmorProfile"] = json!("some");
        config["process"]["selinuxLabel"] = json!("system_u:system_r:some_t:s0");
    };
    // In the image, with nothing mounted over it.
    let mut bundle =
        fixture.bundle("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start");
    falsify(&bundle.rootfs().join("proc"));
    without_mounts_below(&mut bundle.config, "/proc");
    set(&mut bundle.config);
    let labels = ["/sys/kernel/security/apparmor", "/sys/fs/selinux/enforce"];
    let can_label = labels.iter().any(|path| Path::new(path).exists());
    let done = fixture.run(&bundle);
    assert!(can_label || done.code != 127 && !done.err.contains("kiln oci"), "{done:?}");
    outside.assert_untouched("an image's /proc");
    // With the real one mounted over it all is set.
    let mut bundle =
        fixture.bundle("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start");
    falsify(&bundle.rootfs().join("proc"));
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "1234" });
    bundle.config["process"]["oomScoreAdj"] = json!(77);
    assert_eq!(fixture.run(&bundle).out, "77\n1234\n");

    // Mounted there.
    let volume = fixture.path().join("proc");
    falsify(&volume);
    for (destination, mount) in [
        ("/proc", json!({ "type": "bind", "source": volume, "options": ["bind"] })),
        ("/proc", json!({ "type": "tmpfs", "source": "tmpfs" })),
        (
            "/proc/self/attr",
            json!({ "type": "bind", "source": volume.join("self/attr"), "options": ["bind"] }),
        ),
        ("/proc/self/attr/exec", json!({ "type": "bind", "source": outside.file(), "options": ["bind"] })),
        ("/proc/sys", json!({ "type": "bind", "source": volume.join("sys"), "options": ["bind"] })),
        ("/proc/1/../self/attr", json!({ "type": "tmpfs", "source": "tmpfs" })),
        ("/etc/../proc/self/attr", json!({ "type": "tmpfs", "source": "tmpfs" })),
        ("//proc//self/./attr", json!({ "type": "tmpfs", "source": "tmpfs" })),
        ("/link/self/attr", json!({ "type": "tmpfs", "source": "tmpfs" })),
    ] {
        let mut mount = mount.clone();
        mount["destination"] = json!(destination);
        let mut bundle =
            fixture.bundle("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start");
        symlink("proc", bundle.rootfs().join("link")).unwrap();
        set(&mut bundle.config);
        add_mount(&mut bundle.config, mount);
        let done = fixture.run(&bundle);
        // Where it is not refused, what is set is set where it should be.
        assert!(done.code != 0 || done.out == "77\n1234\n", "{destination}: {done:?}");
        outside.assert_untouched(destination);
    }
}

/// CVE-2025-52565: a terminal is shown at /dev/console by its handle; what the image has at the paths of terminals is
/// not mounted, and nothing is mounted outside.
#[test]
fn terminals_are_not_swapped() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let good = fixture.sh(
        "stat -c %t:%T /dev/console; tty; cat /proc/self/mountinfo | grep -c ' /dev/console '",
        |config| {
            config["process"]["terminal"] = json!(true);
        },
    );
    assert_eq!(good.out.replace('\r', ""), "88:0\n/dev/pts/0\n1\n", "{good:?}");
    for path in ["dev/console", "dev/pts", "dev/pts/0", "dev/pts/ptmx", "dev/ptmx"] {
        for kind in DISGUISES {
            for devpts in [true, false] {
                let mut bundle = fixture.bundle("{ echo written > /dev/console; } 2>/dev/null; true");
                without_mounts_below(&mut bundle.config, "/dev");
                bundle.config["process"]["terminal"] = json!(true);
                if devpts {
                    let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
                    add_mount(
                        &mut bundle.config,
                        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options }),
                    );
                }
                disguise(kind, &bundle.rootfs().join(path), &outside);
                let done = fixture.run(&bundle);
                assert!(!done.err.contains("panicked"), "{path} as {kind}: {done:?}");
                outside.assert_untouched(&format!("{path} as {kind}"));
                fs::remove_dir_all(&bundle.dir).unwrap();
            }
        }
    }
}

/// CVE-2022-24769, CVE-2022-27649, CVE-2022-29162: no capability is inheritable, for any user and any added capability.
#[test]
fn no_capability_is_inheritable() {
    let fixture = fixture!();
    let show = "grep -E 'CapInh|CapAmb' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    assert_eq!(fixture.sh(show, |_| {}).out, none);
    let user = fixture.sh(show, |config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(user.out, none);
    let (id, _bundle) = sleeper(&fixture, |_| {});
    for flags in [&[][..], &["--cap", "CAP_SYS_ADMIN"], &["--cap", "CAP_NET_RAW", "--user", "1000"]] {
        let words: Vec<&str> =
            ["exec"].iter().chain(flags).chain(&[id.as_str(), "sh", "-c", show]).copied().collect();
        assert_eq!(fixture.oci(&words).out, none, "{flags:?}");
    }
    let added = fixture.oci(&["exec", "--cap", "CAP_SYS_ADMIN", &id, "grep", "CapEff", "/proc/self/status"]);
    assert!(added.out.contains("200"), "nothing was added: this shows nothing: {added:?}");
}

/// CVE-2026-30892: `exec` runs as the named user or fails.
#[test]
fn users_of_exec_are_read_strictly() {
    let fixture = fixture!();
    let (id, bundle) = sleeper(&fixture, |_| {});
    let passwd =
        "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n1234:x:0:0::/:\n+5:x:0:0::/:\n";
    fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
    for (user, expected) in [
        ("0", Some("0:0")),
        ("1000", Some("1000:0")),
        ("1000:1001", Some("1000:1001")),
        ("0001000", Some("1000:0")),
        ("app", Some("1000:1001")),
        ("app:0", Some("1000:0")),
        ("app:staff", Some("1000:50")),
        // A number is an id, also when it is the name of a user.
        ("1234", Some("1234:0")),
        ("2147483647", Some("2147483647:0")),
        ("nobody", None),
        ("app:nobody", None),
        ("", None),
        (":", None),
        (":0", None),
        ("1000:", None),
        ("1000:0:0", None),
        ("-1", None),
        ("+5", None),
        (" 0", None),
        ("0 ", None),
        ("0x0", None),
        ("1e3", None),
        ("1000,0", None),
        ("2147483648", None),
        ("4294967295", None),
        ("4294967296", None),
        ("18446744073709551616", None),
        ("1000:-1", None),
        ("1000:4294967296", None),
        ("root\n", None),
        ("root:x", None),
        ("../root", None),
        ("ｒoot", None),
        ("١٠٠٠", None),
    ] {
        let done = fixture.oci(&["exec", "--user", user, &id, "sh", "-c", "echo $(id -u):$(id -g)"]);
        let found = (done.code == 0).then(|| done.out.trim().to_owned());
        assert_eq!(found.as_deref(), expected, "{user:?}: {done:?}");
        assert!(
            expected.is_some() || done.code == 255 && done.err.starts_with("kiln oci: "),
            "{user:?}: {done:?}"
        );
    }
}
