//! Real containers: plans carried out by the helper on this host's kernel.
//!
//! Has its own `main`, because the helper must be forked before the test harness starts threads.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use kiln_network::{Bridge, Connection};
use kiln_runtime::cgroup::{self, Cgroup, Layout};
use kiln_runtime::container::{
    CallerError, Cgroups, DeviceNodes, Filter, Handed, Identity, ParentWork, Request, Steps, Terminal,
};
use kiln_runtime::op::{ConsoleSize, FdSlot, Point, Stage};
use kiln_runtime::plan::plan;
use kiln_runtime::{Process, SpawnError, SpawnRequest, Spawner, launch, spec};
use oci_spec::runtime::{LinuxResources, Mount, Spec};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

type Test = fn(&Bed);

const TESTS: &[(&str, Test)] = &[
    ("a_program_runs_and_its_exit_code_is_known", exit_codes),
    ("a_container_sees_only_itself", isolation),
    ("devices_work_and_foreign_ones_do_not", devices),
    ("hidden_paths_are_hidden", hidden_paths),
    ("capabilities_and_filter_are_in_force", confinement),
    ("users_come_from_the_image", users),
    ("missing_programs_and_dirs_are_told_apart", failures),
    ("a_terminal_has_its_size_from_the_start", terminal),
    ("links_in_the_image_do_not_lead_out", hostile_links),
    ("fenced_dirs_lead_nowhere", fenced_dirs),
    ("limits_hold", limits),
    ("the_overlay_takes_the_changes", overlay),
    ("signals_end_it", signals),
    ("many_at_once", many),
    ("containers_reach_each_other_and_the_machine", network),
    ("nothing_is_left_behind", nothing_left),
];

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: all {} container tests need root", TESTS.len());
        return;
    }
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
    else {
        println!("SKIPPED: all {} container tests need busybox (static) on this host", TESTS.len());
        return;
    };
    // Bridge and rules are created in a separate network namespace of the tests.
    if std::env::var_os("KILN_TEST_NETNS").is_none() {
        let status = std::process::Command::new("unshare")
            .arg("--net")
            .args(std::env::args_os())
            .env("KILN_TEST_NETNS", "1")
            .status();
        match status {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(error) => println!("SKIPPED a network namespace for the tests: {error}"),
        }
    }
    let spawner = Spawner::start().expect("the helper starts");
    let bed = Bed::new(spawner, Path::new(busybox));
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, test) in TESTS {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        print!("test {name} ... ");
        test(&bed);
        println!("ok");
    }
}

/// Fixture of the tests: a helper and an image.
struct Bed {
    spawner: Spawner,
    dir: tempfile::TempDir,
}

/// Exit code and output of a run.
struct Outcome {
    code: i32,
    output: String,
}

impl Bed {
    fn new(spawner: Spawner, busybox: &Path) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        for name in ["bin", "etc", "root", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(image.join(name)).unwrap();
        }
        fs::copy(busybox, image.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "echo", "ls", "id", "mount", "mknod", "sleep", "stty", "ps", "true", "kill", "dd",
            "head", "hostname", "chroot", "grep", "wc", "tail", "ip",
        ] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        fs::write(
            image.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\nstaff:x:50:app\napp:x:1001:\n").unwrap();
        fs::write(image.join("etc/plain"), "not a program").unwrap();
        Bed { spawner, dir }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Creates a new root above the image: mount point, upper and work directory.
    fn root(&self) -> (tempfile::TempDir, Mount) {
        let root = tempfile::tempdir_in(self.dir.path()).unwrap();
        for name in ["root", "upper", "work"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let path = |name: &str| root.path().join(name).display().to_string();
        let options = [
            format!("lowerdir+={}", self.image().display()),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mount = spec::mount("overlay", "/", "overlay", &options);
        (root, mount)
    }

    fn spec(&self, root: &Path, arguments: &[&str]) -> Spec {
        let mut spec = spec::default(root.join("root"));
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(arguments.iter().map(|a| (*a).to_owned()).collect()));
        process.set_env(Some(vec!["PATH=/bin".to_owned()]));
        spec
    }

    fn start(
        &self,
        spec: &Spec,
        options: &Request<'_>,
        slots: &[&OwnedFd],
        output: &OwnedFd,
    ) -> Result<Process, SpawnError> {
        let mut handed = Handed::default();
        for slot in slots {
            handed.lend(slot.as_fd());
        }
        let plan = plan(spec, options).unwrap();
        let null = File::open("/dev/null").unwrap();
        self.spawner.spawn(&SpawnRequest {
            plan: &plan,
            handed: &handed,
            stdin: null.as_fd(),
            stdout: output.as_fd(),
            stderr: output.as_fd(),
        })
    }

    /// Runs a shell command in a default container with changes.
    fn run(&self, command: &str, change: impl FnOnce(&mut Spec)) -> Outcome {
        self.run_as(command, None, change)
    }

    fn run_as(&self, command: &str, user: Option<&str>, change: impl FnOnce(&mut Spec)) -> Outcome {
        let (root, mount) = self.root();
        let mut spec = self.spec(root.path(), &["/bin/sh", "-c", command]);
        change(&mut spec);
        let layout = Layout::detect();
        let options = Request {
            root: Some(&mount),
            identity: Identity { user, filter: Filter::Default, ..Identity::default() },
            cgroups: Cgroups { layout: Some(&layout), ..Cgroups::default() },
            ..Request::default()
        };
        let (reader, writer) = pipe();
        let started = self.start(&spec, &options, &[], &writer);
        drop(writer);
        match started {
            Ok(process) => finish(process, reader),
            Err(error) => Outcome { code: -1, output: error.to_string() },
        }
    }

    fn sh(&self, command: &str) -> String {
        let outcome = self.run(command, |_| {});
        assert_eq!(outcome.code, 0, "`{command}`: {}", outcome.output);
        outcome.output
    }
}

/// Moves the process into its cgroups before any other operation.
struct Attaching<'a>(&'a Cgroup);

impl Steps for Attaching<'_> {
    fn reached(&mut self, _: Point, pid: i32) -> Result<Vec<u8>, CallerError> {
        assert_eq!(launch::has_executed(pid), Some(false), "it sets itself up");
        self.0.attach(pid)?;
        Ok(Vec::new())
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn finish(mut process: Process, reader: OwnedFd) -> Outcome {
    let mut output = String::new();
    File::from(reader).read_to_string(&mut output).unwrap();
    Outcome { code: process.wait().unwrap(), output }
}

fn exit_codes(bed: &Bed) {
    assert_eq!(bed.run("exit 0", |_| {}).code, 0);
    assert_eq!(bed.run("exit 3", |_| {}).code, 3);
    assert_eq!(bed.run("kill -9 $$; kill -TERM $$; exit 7", |_| {}).code, 7, "pid 1 cannot kill itself");
    assert_eq!(bed.sh("echo hello; echo again >&2"), "hello\nagain\n");
}

fn isolation(bed: &Bed) {
    assert_eq!(bed.sh("echo $$; ps | grep -c sh").lines().next(), Some("1"));
    let outcome = bed.run("hostname; cat /proc/self/cgroup | head -1; ls /sys/class/net", |spec| {
        spec.set_hostname(Some("kiln".into()));
    });
    assert!(outcome.output.starts_with("kiln\n"), "{}", outcome.output);
    assert!(outcome.output.contains(":/\n"), "the cgroup is the root: {}", outcome.output);
    assert!(outcome.output.trim().ends_with("lo"), "only loopback: {}", outcome.output);
    let mounts = bed.sh("cat /proc/self/mountinfo");
    assert!(!mounts.contains("/store"), "{mounts}");
    assert_eq!(mounts.lines().filter(|line| line.contains(" / / ")).count(), 1, "{mounts}");
    assert_eq!(bed.sh("ls /proc/self/fd | wc -l").trim(), "4", "three streams, and the directory ls reads");
    assert_eq!(
        bed.sh("cat /proc/self/status | grep -E 'Shd|SigIgn|SigBlk' | grep -c 0000000000000000").trim(),
        "2"
    );
}

fn devices(bed: &Bed) {
    assert_eq!(
        bed.sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c; ls -l /dev/ptmx /dev/fd | wc -l"),
        "3\n2\n"
    );
    let refused = bed.run("mknod /tmp/d b 8 0 && echo made; head -c 1 /tmp/d", |_| {});
    let layout = Layout::detect();
    let group = Cgroup::create(&layout, &cgroup::own_name("kiln-test"), None, true);
    let group = match group {
        Ok(group) => group,
        Err(error) => {
            println!("SKIPPED the device filter: {error}");
            return;
        }
    };
    drop(refused);
    let (root, mount) = bed.root();
    let command =
        "mknod /tmp/n c 1 3 && echo x > /tmp/n && mknod /tmp/d c 1 1 && echo made; head -c 1 /tmp/d 2>&1";
    let spec = bed.spec(root.path(), &["/bin/sh", "-c", command]);
    let options = Request {
        root: Some(&mount),
        cgroups: Cgroups { born_in: Some(FdSlot(0)), ..Cgroups::default() },
        ..Request::default()
    };
    let dir = group.dir().unwrap().try_clone_to_owned().unwrap();
    let (reader, writer) = pipe();
    let process = bed.start(&spec, &options, &[&dir], &writer).unwrap();
    drop(writer);
    let outcome = finish(process, reader);
    assert!(outcome.output.starts_with("made\n"), "{}", outcome.output);
    assert!(outcome.output.contains("Operation not permitted"), "{}", outcome.output);

    // Without a filter, no device node created by a container can be opened.
    let (root, mount) = bed.root();
    let command = "echo x > /dev/null && mknod /dev/n c 1 3; mknod /tmp/n c 1 3; (echo x > /tmp/n; echo x > /dev/n) 2>&1";
    let spec = bed.spec(root.path(), &["/bin/sh", "-c", command]);
    let mut mount = mount;
    let mut options_list = mount.options().clone().unwrap();
    options_list.push("nodev".into());
    mount.set_options(Some(options_list));
    let options = Request { root: Some(&mount), devices: DeviceNodes::Exclusive, ..Request::default() };
    let (reader, writer) = pipe();
    let process = bed.start(&spec, &options, &[], &writer).unwrap();
    drop(writer);
    let outcome = finish(process, reader);
    assert_eq!(outcome.output.matches("Permission denied").count(), 2, "{}", outcome.output);
}

fn hidden_paths(bed: &Bed) {
    assert_eq!(bed.sh("cat /proc/interrupts | wc -c; ls /sys/firmware | wc -l"), "0\n0\n");
    let outcome = bed.run("echo 1 > /proc/sys/kernel/printk", |_| {});
    assert!(outcome.output.contains("Read-only file system"), "{}", outcome.output);
    let outcome = bed.run("echo 1 > /sys/kernel/profiling; echo x > /sys/firmware/y", |_| {});
    assert_eq!(outcome.output.matches("Read-only").count(), 2, "{}", outcome.output);
    let outcome = bed.run("echo x > /f", |spec| {
        spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    });
    assert!(outcome.output.contains("Read-only file system"), "{}", outcome.output);
}

fn confinement(bed: &Bed) {
    let status = bed.sh("cat /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("CapBnd:"), "00000000a80425fb", "Docker's fourteen");
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "0"));
    let outcome = bed.run("mount -t tmpfs x /tmp", |_| {});
    assert_ne!(outcome.code, 0);
    let outcome = bed.run("cat /proc/self/status | grep NoNew", |spec| {
        spec.process_mut().as_mut().unwrap().set_no_new_privileges(Some(true));
    });
    assert_eq!(outcome.output.trim(), "NoNewPrivs:\t1");
    let outcome = bed.run_as("cat /proc/self/status | grep -E 'Cap(Eff|Prm|Bnd)'", Some("app"), |_| {});
    let lines: Vec<&str> = outcome.output.split_whitespace().collect();
    assert_eq!((lines[1], lines[3], lines[5]), ("0000000000000000", "0000000000000000", "00000000a80425fb"));
}

fn users(bed: &Bed) {
    let id = |user: &str| bed.run_as("id; echo $HOME", Some(user), |_| {}).output;
    assert_eq!(id("app"), "uid=1000(app) gid=1001(app) groups=50(staff),1001(app)\n/home/app\n");
    assert_eq!(id("1000:50"), "uid=1000(app) gid=50(staff) groups=50(staff)\n/home/app\n");
    assert!(id("4000").starts_with("uid=4000 gid=0(root)"), "{}", id("4000"));
    assert_eq!(id("ghost"), "unable to find user ghost: no matching entries in passwd file");
    // Writing to a stream that root opened, by its path.
    let outcome = bed.run_as("echo x > /dev/stdout", Some("app"), |_| {});
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "x\n"));
    assert_eq!(bed.run_as("echo x > /tmp/f 2>/dev/null; umask", Some("0"), |_| {}).output, "0022\n");
}

fn failures(bed: &Bed) {
    let error = |arguments: &[&str], cwd: &str| {
        let (root, mount) = bed.root();
        let mut spec = bed.spec(root.path(), arguments);
        spec.process_mut().as_mut().unwrap().set_cwd(cwd.into());
        let options = Request { root: Some(&mount), ..Request::default() };
        let (_reader, writer) = pipe();
        match bed.start(&spec, &options, &[], &writer) {
            Err(SpawnError::Setup(error)) => (error.stage, error.errno),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error(&["nothing"], "/"), (Stage::Exec, libc_errno("ENOENT")));
    assert_eq!(error(&["/no/such"], "/"), (Stage::Exec, libc_errno("ENOENT")));
    assert_eq!(error(&["/etc/plain"], "/"), (Stage::Exec, libc_errno("EACCES")));
    assert_eq!(error(&["/etc"], "/"), (Stage::Exec, libc_errno("EACCES")));
    assert_eq!(error(&["/bin/true"], "/etc/plain/x").0, Stage::WorkingDir);
    assert_eq!(
        bed.run("pwd", |spec| {
            spec.process_mut().as_mut().unwrap().set_cwd("/new/directory".into());
        })
        .output,
        "/new/directory\n"
    );
    let outcome = bed.run("true", |spec| {
        spec.process_mut().as_mut().unwrap().set_cwd("/proc/self/fd/7".into());
    });
    assert_ne!(outcome.code, 0, "a working directory outside of the root");
}

fn libc_errno(name: &str) -> i32 {
    match name {
        "ENOENT" => 2,
        _ => 13,
    }
}

fn terminal(bed: &Bed) {
    let (root, mount) = bed.root();
    let mut spec = bed
        .spec(root.path(), &["/bin/sh", "-c", "stty size; test -t 0 && echo tty; ls /dev/console /dev/pts"]);
    spec.process_mut().as_mut().unwrap().set_terminal(Some(true));
    let console = ConsoleSize { rows: 33, columns: 111 };
    let options = Request {
        root: Some(&mount),
        terminal: Terminal { size: console, ..Terminal::default() },
        ..Request::default()
    };
    let (_reader, writer) = pipe();
    let mut process = bed.start(&spec, &options, &[], &writer).unwrap();
    let master = File::from(process.console.take().expect("a terminal"));
    let mut output = Vec::new();
    let mut buffer = [0u8; 256];
    // The kernel returns EIO when the last user of the other end has closed it.
    while let Ok(length @ 1..) = (&master).read(&mut buffer) {
        output.extend_from_slice(&buffer[..length]);
    }
    let output = String::from_utf8(output).unwrap();
    assert_eq!(process.wait().unwrap(), 0, "{output}");
    assert!(output.starts_with("33 111\r\ntty\r\n"), "{output:?}");
    assert!(output.contains("/dev/console"), "{output:?}");
}

fn hostile_links(bed: &Bed) {
    let outside = tempfile::tempdir().unwrap();
    let try_with = |prepare: &dyn Fn(&Path), change: &dyn Fn(&mut Spec)| {
        let (root, mount) = bed.root();
        prepare(&root.path().join("upper"));
        let mut spec = bed.spec(root.path(), &["/bin/true"]);
        change(&mut spec);
        let options = Request { root: Some(&mount), ..Request::default() };
        let (_reader, writer) = pipe();
        bed.start(&spec, &options, &[], &writer).map(|mut process| process.wait().unwrap())
    };
    let link = |upper: &Path, name: &str, target: &Path| {
        std::os::unix::fs::symlink(target, upper.join(name)).unwrap();
    };
    // overlayfs: a link in the upper directory replaces the directory of the image.
    for name in ["proc", "dev", "sys"] {
        let result = try_with(&|upper| link(upper, name, outside.path()), &|_| {});
        assert!(matches!(result, Err(SpawnError::Setup(_))), "/{name} as a link: {result:?}");
    }
    // A mount at another target follows links, but inside of the root.
    let data = outside.path().to_owned();
    let result = try_with(&|upper| link(upper, "data", outside.path()), &|spec| {
        let mut mounts = spec.mounts().clone().unwrap();
        mounts.push(spec::bind(data.clone(), "/data/x", &[]));
        spec.set_mounts(Some(mounts));
    });
    assert_eq!(result.ok(), Some(0));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was made outside");
    // A user database that blocks or leads out of the root.
    let (root, mount) = bed.root();
    fs::create_dir(root.path().join("upper/etc")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        root.path().join("upper/etc/passwd"),
        rustix::fs::Mode::from_raw_mode(0o644),
    )
    .unwrap();
    let spec = bed.spec(root.path(), &["/bin/true"]);
    let options = Request {
        root: Some(&mount),
        identity: Identity { user: Some("app"), ..Identity::default() },
        ..Request::default()
    };
    let (_reader, writer) = pipe();
    let result = bed.start(&spec, &options, &[], &writer);
    let Err(SpawnError::Setup(error)) = result else { panic!("{result:?}") };
    assert_eq!((error.stage, error.to_string().contains("not a regular file")), (Stage::User, true));
}

fn fenced_dirs(_: &Bed) {
    use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat};
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let open_confined = kiln_runtime::view::open_confined(&inner).unwrap();
    assert_eq!(mkdirat(&open_confined, "x", Mode::RWXU), Err(rustix::io::Errno::ROFS));
    let inode = |fd: &OwnedFd| statat(fd, "", AtFlags::EMPTY_PATH).unwrap().st_ino;
    let above = openat(&open_confined, "..", OFlags::PATH, Mode::empty()).unwrap();
    assert_eq!(inode(&above), inode(&open_confined));
}

fn limits(bed: &Bed) {
    let layout = Layout::detect();
    let resources: LinuxResources =
        serde_json::from_str(r#"{"pids":{"limit":3},"memory":{"limit":67108864}}"#).unwrap();
    let name = cgroup::own_name("kiln-test");
    let group = match Cgroup::create(&layout, &name, Some(&resources), false) {
        Ok(group) => group,
        Err(error) => {
            println!("SKIPPED limits: {error}");
            return;
        }
    };
    let (root, mount) = bed.root();
    let command = "for i in 1 2 3 4 5; do sleep 5 & done; echo end";
    let spec = bed.spec(root.path(), &["/bin/sh", "-c", command]);
    let mut handed = Handed::default();
    let cgroups = Cgroups { born_in: group.dir().map(|dir| handed.lend(dir)), ..Cgroups::default() };
    let options = Request { root: Some(&mount), cgroups, parent: ParentWork::START, ..Request::default() };
    let plan = plan(&spec, &options).unwrap();
    let null = File::open("/dev/null").unwrap();
    let (reader, writer) = pipe();
    let process = bed
        .spawner
        .spawn_with(
            &SpawnRequest {
                plan: &plan,
                handed: &handed,
                stdin: null.as_fd(),
                stdout: writer.as_fd(),
                stderr: writer.as_fd(),
            },
            &mut Attaching(&group),
        )
        .unwrap();
    assert_ne!(launch::has_executed(process.pid()), Some(false), "its program runs");
    drop(writer);
    let outcome = finish(process, reader);
    assert!(outcome.output.contains("can't fork"), "{}", outcome.output);
    let paths: Vec<PathBuf> = group.paths().into_iter().map(Path::to_owned).collect();
    assert!(!paths.is_empty());
    drop(group);
    for path in paths {
        assert!(!path.exists(), "{} is left", path.display());
    }
}

fn overlay(bed: &Bed) {
    let (root, mount) = bed.root();
    let spec = bed.spec(root.path(), &["/bin/sh", "-c", "echo hi > /tmp/new; ls /etc/plain"]);
    let options = Request { root: Some(&mount), ..Request::default() };
    let (reader, writer) = pipe();
    let process = bed.start(&spec, &options, &[], &writer).unwrap();
    drop(writer);
    assert_eq!(finish(process, reader).output, "/etc/plain\n");
    assert_eq!(fs::read_to_string(root.path().join("upper/tmp/new")).unwrap(), "hi\n");
    let stray: Vec<_> =
        fs::read_dir(root.path().join("upper")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(stray, ["tmp"], "setting up leaves no trace in the image");
    assert_eq!(fs::read_dir(root.path().join("root")).unwrap().count(), 0, "mounted only in there");
}

fn signals(bed: &Bed) {
    let (root, mount) = bed.root();
    let spec = bed.spec(
        root.path(),
        &["/bin/sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 1; done"],
    );
    let options = Request { root: Some(&mount), ..Request::default() };
    let (reader, writer) = pipe();
    let mut process = bed.start(&spec, &options, &[], &writer).unwrap();
    drop(writer);
    let mut reader = File::from(reader);
    let mut ready = [0u8; 6];
    reader.read_exact(&mut ready).unwrap();
    process.signal(rustix::process::Signal::TERM).unwrap();
    assert_eq!(process.wait().unwrap(), 9);
    process.signal(rustix::process::Signal::TERM).expect("a signal to one that has ended is fine");

    let spec = bed.spec(root.path(), &["/bin/sleep", "1000"]);
    let (_reader, writer) = pipe();
    let mut process = bed.start(&spec, &options, &[], &writer).unwrap();
    process.signal(rustix::process::Signal::KILL).unwrap();
    assert_eq!(process.wait().unwrap(), 137);
}

fn many(bed: &Bed) {
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..20).map(|n| scope.spawn(move || bed.run(&format!("echo {n}; exit {n}"), |_| {}))).collect();
        for (n, run) in runs.into_iter().enumerate() {
            let outcome = run.join().unwrap();
            assert_eq!((outcome.code, outcome.output), (n as i32, format!("{n}\n")));
        }
    });
}

fn network(bed: &Bed) {
    if std::env::var_os("KILN_TEST_NETNS").is_none() {
        println!("SKIPPED: no network namespace for the test");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let bridge = Bridge::open(state.path()).unwrap();
    let again = Bridge::open(state.path()).unwrap();
    let (first, second) = (bridge.connect(&bed.spawner).unwrap(), again.connect(&bed.spawner).unwrap());
    assert_ne!(first.address, second.address);
    assert_eq!(first.gateway, second.gateway);

    let run_in = |connection: &Connection, command: &str| {
        let (root, mount) = bed.root();
        let spec = bed.spec(root.path(), &["/bin/sh", "-c", command]);
        let options = Request { root: Some(&mount), network: Some(FdSlot(0)), ..Request::default() };
        let namespace = connection.namespace().try_clone_to_owned().unwrap();
        let (reader, writer) = pipe();
        let process = bed.start(&spec, &options, &[&namespace], &writer).unwrap();
        drop(writer);
        (process, reader, root)
    };
    // Its input never ends: a client that saw an end there would exit before it has sent anything.
    let listen = "busybox mkfifo /input; echo ready; exec busybox nc -l -p 4000 <> /input";
    let (listening, listened, _root) = run_in(&first, listen);
    let mut listened = File::from(listened);
    let mut ready = [0u8; 6];
    listened.read_exact(&mut ready).unwrap();
    let (client, output, _root) = run_in(
        &second,
        &format!("busybox ip route; until echo hello | busybox nc {} 4000; do :; done", first.address),
    );
    let outcome = finish(client, output);
    assert!(
        outcome.output.contains(&format!("default via {} dev eth0", first.gateway)),
        "{}",
        outcome.output
    );
    let outcome = finish(listening, listened.into());
    assert_eq!((outcome.code, outcome.output.as_str()), (0, "hello\n"));

    // The host can reach a container as well, and a container without network only its loopback.
    let server = std::net::TcpListener::bind((first.gateway, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let (client, output, _root) = run_in(&first, &format!("busybox nc {} {port} < /dev/null", first.gateway));
    let (_, peer) = server.accept().unwrap();
    assert_eq!(peer.ip(), std::net::IpAddr::V4(first.address));
    finish(client, output);
    let alone = kiln_network::isolated(&bed.spawner).unwrap();
    let (root, mount) = bed.root();
    let spec = bed.spec(
        root.path(),
        &["/bin/sh", "-c", "busybox ip -o link | wc -l; busybox ip -o addr show lo | grep -c 127.0.0.1"],
    );
    let options = Request { root: Some(&mount), network: Some(FdSlot(0)), ..Request::default() };
    let (reader, writer) = pipe();
    let process = bed.start(&spec, &options, &[&alone], &writer).unwrap();
    drop(writer);
    assert_eq!(finish(process, reader).output, "1\n1\n");

    // An address is free again when its connection is closed.
    let address = first.address;
    drop(first);
    assert_eq!(bridge.connect(&bed.spawner).unwrap().address, address);
}

fn nothing_left(bed: &Bed) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bed.dir.path().to_str().unwrap()), "{mounts}");
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    for _ in 0..10 {
        bed.sh("true");
    }
    assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), open, "descriptors leak");
}
