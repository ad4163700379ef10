//! Cgroups: limits, updates, pausing, statistics, out-of-memory events, removal. On a host
//! with both versions, and on a simulated one with version 2 alone.

use crate::fixture::{Bundle, Done, Fixture, new_id, read, wait_until};
use crate::mounts::{NO_UNIFIED, ONLY_UNIFIED};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROOT: &str = "/sys/fs/cgroup";

/// Reason why limits cannot be tested here, if there is one.
fn no_version_1() -> Option<&'static str> {
    let there =
        ["memory", "pids", "cpu", "cpuset", "freezer"].iter().all(|name| Path::new(ROOT).join(name).is_dir());
    (!there).then_some("version 1 controllers are not mounted")
}

/// The cgroup of a process in the hierarchy of a version 1 controller, as a directory.
fn group(pid: i64, controller: &str) -> PathBuf {
    let text = read(format!("/proc/{pid}/cgroup"));
    let path = text.lines().find_map(|line| line.split_once(&format!(":{controller}:"))).unwrap().1;
    Path::new(ROOT).join(controller).join(path.trim_start_matches('/'))
}

fn value(pid: i64, controller: &str, file: &str) -> String {
    read(group(pid, controller).join(file))
}

#[test]
fn limits_are_set() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|c| {
        c["linux"]["resources"]["memory"] =
            json!({"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20, "swappiness": 10});
        c["linux"]["resources"]["pids"] = json!({"limit": 77});
        c["linux"]["resources"]["cpu"] =
            json!({"shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0", "mems": "0"});
    });
    let pid = fixture.pid(&id);
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", (64 << 20).to_string()),
        ("memory", "memory.soft_limit_in_bytes", (32 << 20).to_string()),
        ("memory", "memory.memsw.limit_in_bytes", (128 << 20).to_string()),
        ("memory", "memory.swappiness", "10".to_owned()),
        ("pids", "pids.max", "77".to_owned()),
        ("cpu", "cpu.shares", "512".to_owned()),
        ("cpu", "cpu.cfs_quota_us", "50000".to_owned()),
        ("cpu", "cpu.cfs_period_us", "200000".to_owned()),
        ("cpuset", "cpuset.cpus", "0".to_owned()),
        ("cpuset", "cpuset.mems", "0".to_owned()),
    ] {
        assert_eq!(value(pid, controller, file), expected, "{file}");
    }
    let done = fixture.exec(&id, "grep Cpus_allowed_list /proc/self/status");
    assert_eq!(done.out, "Cpus_allowed_list:\t0\n", "further programs are in the groups too");
}

#[test]
fn limits_are_changed() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|_| {});
    let pid = fixture.pid(&id);
    let check = |expected: &[(&str, &str, &str)]| {
        for (controller, file, expected) in expected {
            assert_eq!(value(pid, controller, file), *expected, "{file}");
        }
    };
    let update = |words: &[&str]| {
        let done = fixture.oci(&[&["update"], words, &[&id]].concat());
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{words:?}");
    };
    update(&["--memory", "64m", "--pids-limit", "50", "--cpu-share", "300"]);
    check(&[
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("pids", "pids.max", "50"),
        ("cpu", "cpu.shares", "300"),
    ]);
    update(&["--cpu-quota", "20000", "--cpu-period", "100000", "--cpuset-cpus", "0"]);
    check(&[
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "50"),
    ]);
    // More memory than memory and swap together were allowed: in the order in which it works.
    update(&["--memory", "128m", "--memory-swap", "256m"]);
    update(&["--memory", "512m", "--memory-swap", "1g", "--memory-reservation", "100m"]);
    check(&[
        ("memory", "memory.limit_in_bytes", "536870912"),
        ("memory", "memory.memsw.limit_in_bytes", "1073741824"),
    ]);
    update(&["--memory", "128m", "--memory-swap", "256m"]);
    check(&[("memory", "memory.memsw.limit_in_bytes", "268435456")]);
    update(&["--memory", "-1", "--pids-limit", "-1"]);
    check(&[("pids", "pids.max", "max"), ("memory", "memory.limit_in_bytes", "9223372036854771712")]);

    // As JSON, from a file and from standard input.
    let file = fixture.path().join("resources.json");
    fs::write(&file, json!({"pids": {"limit": 40}, "cpu": {"shares": 100}}).to_string()).unwrap();
    update(&["--resources", file.to_str().unwrap()]);
    check(&[("pids", "pids.max", "40"), ("cpu", "cpu.shares", "100")]);
    let mut command = fixture.command(&["update", "-r", "-", &id]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"pids": {"limit": 30}}"#).unwrap();
    assert!(child.wait().unwrap().success());
    check(&[("pids", "pids.max", "30"), ("cpu", "cpu.shares", "100")]);
}

#[test]
fn limits_below_the_usage_can_be_refused() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|c| c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20}));
    let update = |memory: Value| {
        let file = fixture.path().join("resources.json");
        fs::write(&file, json!({"memory": memory}).to_string()).unwrap();
        fixture.oci(&["update", "--resources", file.to_str().unwrap(), &id])
    };
    let done = update(json!({"limit": 4096, "checkBeforeUpdate": true}));
    assert_eq!((done.code, done.out.as_str()), (1, ""), "{done:?}");
    assert!(done.err.contains("cannot limit memory to 4096 bytes: "), "{done:?}");
    assert_eq!(value(fixture.pid(&id), "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(update(json!({"limit": 32 << 20, "checkBeforeUpdate": true})).code, 0);
    assert_eq!(value(fixture.pid(&id), "memory", "memory.limit_in_bytes"), (32 << 20).to_string());
}

/// Limits that Linux no longer has lead to warnings, unless warnings are off.
#[test]
fn limits_without_effect_lead_to_warnings() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("true");
    bundle.config["linux"]["resources"]["memory"] = json!({"kernel": 1 << 20});
    let run = |level: &[&str]| {
        fixture.oci(&[level, &["run", "--bundle", bundle.write(), &new_id("kernel")]].concat())
    };
    let warning = "kiln oci: warning: the kernel memory limit is ignored: Linux has no such limit any more\n";
    let done = run(&[]);
    assert_eq!((done.code, done.err.as_str()), (0, warning), "{done:?}");
    let done = run(&["--log-level", "error"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
}

/// A container that was created without cgroups of version 1, as it sees none, gets them when it is limited.
#[test]
fn limits_come_later() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        c["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    });
    let pid = fixture.pid(&id);
    assert!(
        !read(format!("/proc/{pid}/cgroup"))
            .lines()
            .any(|line| line.contains(":pids:") && line.ends_with(&id))
    );
    assert_eq!(fixture.oci(&["update", "--pids-limit", "20", &id]).code, 0);
    assert_eq!(value(pid, "pids", "pids.max"), "20");
    let done = fixture.exec(&id, "for n in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0; do sleep 5 & done; wait");
    assert!(done.err.contains("can't fork"), "{done:?}");
}

#[test]
fn cgroups_have_the_configured_path() {
    let fixture = fixture!();
    let name = new_id("place");
    let own = read("/proc/self/cgroup");
    for (path, absolute) in [
        (format!("/{name}/deep"), true),
        (format!("{name}/deep"), false),
        (format!("/{name}/../../{name}/deep"), true),
    ] {
        let id = fixture.idle(|c| c["linux"]["cgroupsPath"] = json!(path));
        let pid = fixture.pid(&id);
        let groups = read(format!("/proc/{pid}/cgroup"));
        for (line, own) in groups.lines().zip(own.lines()) {
            let end = format!("/{name}/deep");
            let above = own.rsplit(':').next().unwrap().trim_end_matches('/');
            let expected = if absolute { end } else { format!("{above}{end}") };
            assert_eq!(line.rsplit(':').next().unwrap(), expected, "{path}: {line}");
        }
        assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
        let left = Command::new("find").args([ROOT, "-name", &name]).output().unwrap();
        assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    }
}

#[test]
fn nested_cgroups_are_removed() {
    let fixture = fixture!();
    let id = fixture.idle(|c| c["linux"]["cgroupsPath"] = json!(format!("/{}", new_id("deep"))));
    let pid = fixture.pid(&id);
    let mut made = Vec::new();
    for line in read(format!("/proc/{pid}/cgroup")).lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        let mount = match controllers.trim_start_matches("name=") {
            "" if Path::new(ROOT).join("cgroup.procs").exists() => PathBuf::from(ROOT),
            "" => Path::new(ROOT).join("unified"),
            name => Path::new(ROOT).join(name),
        };
        let dir = mount.join(path.trim_start_matches('/')).join("a/b");
        if fs::create_dir_all(&dir).is_ok() {
            made.push(dir);
        }
    }
    assert!(!made.is_empty());
    // One of its programs lives below.
    fs::write(made[0].join("cgroup.procs"), pid.to_string()).unwrap();
    let done = fixture.oci(&["delete", "--force", &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for dir in made {
        assert!(!dir.parent().unwrap().parent().unwrap().exists(), "{}", dir.display());
    }
}

#[test]
fn the_view_of_a_namespace_begins_at_the_group() {
    let fixture = fixture!();
    let look = "cat /proc/self/cgroup; cat /proc/self/mountinfo | grep ' /sys/fs/cgroup'; touch /sys/fs/cgroup/x 2>&1";
    let done = fixture
        .sh(look, |c| c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"})));
    let own: Vec<&str> = done.out.lines().filter(|line| line.starts_with("0::")).collect();
    assert_eq!(own, ["0::/"], "{done:?}");
    assert!(done.out.contains("Read-only file system"), "{done:?}");
    // Without one the container sees its own cgroups and no others.
    let id = fixture.idle(|_| {});
    let shown = fixture.exec(&id, "cat /proc/self/mountinfo").out;
    let roots: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert!(!roots.is_empty() && roots.iter().all(|root| root.ends_with(&id)), "{roots:?}");
}

/// With a namespace and without one, and without a configured cgroup path.
#[test]
fn cgroups_of_other_containers_are_hidden() {
    let fixture = fixture!();
    let name = format!("telling-{}", std::process::id());
    let places = fs::read_dir(ROOT).unwrap().flatten().map(|entry| entry.path());
    let places: Vec<PathBuf> =
        places.filter(|path| path.join("tasks").exists()).map(|it| it.join(&name)).collect();
    if places.is_empty() {
        skip!("no hierarchies of version 1");
    }
    places.iter().for_each(|path| fs::create_dir(path).unwrap());
    let look = "find /sys/fs/cgroup; cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs";
    let shown = [true, false].map(|own| {
        fixture.sh(look, |c| {
            if own {
                c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
            }
        })
    });
    places.iter().for_each(|path| fs::remove_dir(path).unwrap());
    for done in &shown {
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        assert!(!done.out.contains(&name), "{done:?}");
        assert!(done.out.contains("/sys/fs/cgroup/pids/pids.current\n"), "{done:?}");
    }
    assert!(
        shown[0].out.lines().filter(|line| line.contains(':')).all(|line| line.ends_with(":/")),
        "{shown:?}"
    );
}

fn lives(fixture: &Fixture, id: &str) -> Vec<i64> {
    let done = fixture.oci(&["ps", "--format", "json", id]);
    assert_eq!(done.code, 0, "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

#[test]
fn all_stop_and_go_on() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("(while :; do echo x >> /tmp/beat; sleep 0.01; done) & while :; do echo x >> /tmp/beat; sleep 0.01; done");
    bundle.config["hostname"] = json!("stops");
    let id = fixture.up(&bundle);
    let beat = bundle.rootfs().join("tmp/beat");
    let length = || fs::metadata(&beat).map_or(0, |metadata| metadata.len());
    wait_until("it beats", || length() > 10);
    assert_eq!(fixture.oci(&["pause", &id]).code, 0);
    assert_eq!(fixture.state(&id)["status"], "paused");
    let stopped = length();
    for pid in lives(&fixture, &id) {
        // Stopped processes are asleep for the kernel, and stay so.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!stat.contains(") R "), "{stat}");
    }
    // A process that enters nevertheless runs when all are resumed.
    let mut later = fixture.command(&["exec", "--ignore-paused", &id, "true"]).spawn().unwrap();
    assert_eq!(length(), stopped);
    assert!(later.try_wait().unwrap().is_none());
    assert_eq!(fixture.oci(&["resume", &id]).code, 0);
    assert_eq!(fixture.state(&id)["status"], "running");
    wait_until("it beats again", || length() > stopped + 10);
    assert!(later.wait().unwrap().success());
}

#[test]
fn all_are_listed_and_signalled() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("for n in 1 2 3; do (trap 'echo x >> /tmp/told' USR1; while :; do sleep 0.02; done) & done; trap 'echo x >> /tmp/told' USR1; touch /tmp/ready; while :; do sleep 0.02; done");
    bundle.config["hostname"] = json!("all");
    let id = fixture.up(&bundle);
    wait_until("it is ready", || bundle.rootfs().join("tmp/ready").exists());
    let all = lives(&fixture, &id);
    assert!(all.len() >= 4 && all.contains(&fixture.pid(&id)), "{all:?}");
    let table = fixture.oci(&["ps", &id]).out;
    assert!(table.lines().next().unwrap().contains("PID") && table.lines().count() >= 5, "{table}");
    assert!(table.contains(&fixture.pid(&id).to_string()), "{table}");
    let told = || fs::read_to_string(bundle.rootfs().join("tmp/told")).unwrap_or_default().lines().count();
    // A shell that waits in `sleep` receives it afterwards; those three may have been set up a moment later than the first.
    assert_eq!(fixture.oci(&["kill", &id, "USR1"]).code, 0);
    wait_until("the first is told", || told() == 1);
    assert_eq!(fixture.oci(&["kill", "--all", &id, "KILL"]).code, 0);
    wait_until("all are gone", || lives(&fixture, &id).is_empty());
    assert_eq!(fixture.oci(&["delete", &id]).code, 0);
}

/// Without a pid namespace processes outlive the init process; they are killed with the container.
#[test]
fn containers_without_a_pid_namespace_end_with_all_processes() {
    let fixture = fixture!();
    let mark = new_id("mark");
    let mut bundle = fixture.bundle(&format!("sleep 1000 & exec sleep 1001; : {mark}"));
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    let id = fixture.up(&bundle);
    wait_until("two run", || lives(&fixture, &id).len() == 2);
    let all = lives(&fixture, &id);
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    for pid in all {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[test]
fn usage_is_reported() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|c| {
        c["linux"]["resources"]["memory"] = json!({"limit": 64 << 20});
        c["linux"]["resources"]["pids"] = json!({"limit": 50});
    });
    let done = fixture.oci(&["events", "--stats", &id]);
    let event: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)));
    let data = &event["data"];
    // runc's types/events, which engines read.
    for path in [
        "/cpu/usage/total",
        "/cpu/usage/kernel",
        "/cpu/usage/user",
        "/cpu/throttling/periods",
        "/memory/usage/usage",
        "/memory/usage/max",
        "/memory/usage/failcnt",
        "/memory/cache",
        "/memory/raw",
        "/pids/current",
        "/blkio",
    ] {
        assert!(data.pointer(path).is_some(), "{path}: {data}");
    }
    assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20));
    assert_eq!(data["pids"]["limit"], json!(50));
    assert!(
        data["pids"]["current"].as_u64().unwrap() >= 1 && data["cpu"]["usage"]["total"].as_u64().unwrap() > 0
    );

    // Without `--stats` it is reported at intervals, until the container ends.
    let mut command = fixture.command(&["events", "--interval", "20ms", &id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    assert_eq!(fixture.oci(&["kill", &id, "KILL"]).code, 0);
    for line in lines {
        drop(line);
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn out_of_memory_is_reported() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let mut bundle = fixture.bundle("while [ ! -e /tmp/go ]; do sleep 0.02; done; head -c 200m /dev/zero | tail; echo survived; sleep 1000");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 16 << 20, "swap": 16 << 20});
    let id = fixture.up(&bundle);
    let mut command = fixture.command(&["events", "--interval", "1h", &id]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"stats\""));
    fs::write(bundle.rootfs().join("tmp/go"), "").unwrap();
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(event, json!({"type": "oom", "id": id}));
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    assert!(child.wait().unwrap().success());
}

/// A command in a mount namespace that has version 2 cgroups alone.
fn unified(fixture: &Fixture, words: &[&str]) -> Done {
    elsewhere(fixture, ONLY_UNIFIED, words)
}

/// A command in a mount namespace with other cgroup hierarchies.
fn elsewhere(fixture: &Fixture, change: &str, words: &[&str]) -> Done {
    let err = fixture.path().join(new_id("err"));
    let out = fixture.path().join(new_id("out"));
    let mut command = Command::new("unshare");
    let script = format!("{change} && exec \"$@\"");
    command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "oci", "--root"]);
    command.arg(fixture.root()).args(words).stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    let code = command.status().unwrap().code().unwrap_or(-1);
    Done { code, out: fs::read_to_string(out).unwrap(), err: fs::read_to_string(err).unwrap() }
}

#[test]
fn version_2_alone() {
    let fixture = fixture!();
    if !Path::new(ROOT).join("unified").is_dir() {
        skip!("this host has one layout only");
    }
    let bundle: Bundle = {
        let mut bundle = fixture.bundle("sleep 1000 & while :; do sleep 0.05; done");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        bundle
    };
    let id = new_id("unified");
    let done = unified(&fixture, &["run", "--detach", "--bundle", bundle.write(), &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let pid = fixture.pid(&id);
    let own = read(format!("/proc/{pid}/cgroup"));
    assert!(own.lines().any(|line| line.starts_with("0::/") && line.ends_with(&id)), "{own}");
    let listed = || -> Vec<i64> {
        serde_json::from_str(&unified(&fixture, &["ps", "--format", "json", &id]).out).unwrap()
    };
    wait_until("two are there", || listed().len() >= 2);
    let done = unified(
        &fixture,
        &["exec", &id, "sh", "-c", "cat /proc/self/cgroup | tail -1; ls /sys/fs/cgroup/cgroup.procs"],
    );
    assert_eq!(done.out, "0::/\n/sys/fs/cgroup/cgroup.procs\n", "{done:?}");
    assert_eq!(unified(&fixture, &["pause", &id]).code, 0);
    assert!(unified(&fixture, &["state", &id]).out.contains("\"paused\""));
    let done = unified(&fixture, &["exec", &id, "true"]);
    assert!(done.err.contains("cannot exec in a paused container"), "{done:?}");
    assert_eq!(unified(&fixture, &["resume", &id]).code, 0);
    assert!(unified(&fixture, &["state", &id]).out.contains("\"running\""));
    let done = unified(&fixture, &["events", "--stats", &id]);
    assert!(done.out.contains("\"type\":\"stats\""), "{done:?}");
    // Limits without a controller are refused by name.
    let done = unified(&fixture, &["update", "--pids-limit", "10", &id]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.err.contains("needs the cgroup controller `pids`, which this host does not have"),
        "{done:?}"
    );
    assert_eq!(unified(&fixture, &["kill", "--all", &id, "KILL"]).code, 0);
    wait_until("all are gone", || listed().is_empty());
    let done = unified(&fixture, &["delete", &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(!Path::new(ROOT).join("unified").join(&id).exists());
}

#[test]
fn version_1_alone() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    if !Path::new(ROOT).join("unified").is_dir() {
        skip!("this host has one layout only");
    }
    let legacy = |words: &[&str]| elsewhere(&fixture, NO_UNIFIED, words);
    for limited in [false, true] {
        let mut bundle = fixture.bundle("sleep 1000 & while :; do sleep 0.05; done");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        if limited {
            bundle.config["linux"]["resources"]["pids"] = json!({"limit": 50});
        }
        let id = new_id("legacy");
        let done = legacy(&["run", "--detach", "--bundle", bundle.write(), &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let listed =
            || -> Vec<i64> { serde_json::from_str(&legacy(&["ps", "--format", "json", &id]).out).unwrap() };
        wait_until("two are there", || listed().len() >= 2);
        assert_eq!(legacy(&["exec", &id, "sh", "-c", "exit 4"]).code, 4);
        // Cgroups are created when they are needed.
        for (verb, status) in [("pause", "paused"), ("resume", "running")] {
            let done = legacy(&[verb, &id]);
            assert_eq!((done.code, done.err.as_str()), (0, ""), "{verb}");
            assert!(legacy(&["state", &id]).out.contains(&format!("\"{status}\"")), "{verb}");
        }
        assert_eq!(legacy(&["update", "--pids-limit", "40", &id]).code, 0);
        assert_eq!(value(fixture.pid(&id), "pids", "pids.max"), "40");
        assert_eq!(legacy(&["kill", "--all", &id, "KILL"]).code, 0);
        wait_until("all are gone", || listed().is_empty());
        let done = legacy(&["delete", &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let left = Command::new("find").args([ROOT, "-name", &id]).output().unwrap();
        assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
    }
}

/// `exec` may enter a cgroup below the container's.
#[test]
fn exec_enters_nested_cgroups() {
    let fixture = fixture!();
    if let Some(reason) = no_version_1() {
        skip!("{reason}");
    }
    let id = fixture.idle(|_| {});
    let pid = fixture.pid(&id);
    for name in ["pids", "memory", "cpu"] {
        fs::create_dir(group(pid, name).join("sub")).unwrap();
    }
    let groups = |flags: &[&str]| {
        let done = fixture.oci(&[&["exec"], flags, &[&id, "cat", "/proc/self/cgroup"]].concat());
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{flags:?}");
        let below = |name: &str| {
            done.out.lines().any(|line| line.contains(&format!(":{name}:")) && line.ends_with("/sub"))
        };
        ["pids", "memory", "cpu"].map(below)
    };
    assert_eq!(groups(&[]), [false, false, false]);
    assert_eq!(groups(&["--cgroup", "pids:sub"]), [true, false, false]);
    assert_eq!(groups(&["--cgroup", "pids,memory:/sub", "--cgroup", "cpu:sub"]), [true, true, true]);
}

#[test]
fn containers_run_without_cgroups() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("cat /proc/self/cgroup");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    let id = new_id("none");
    let done = Done::of(
        &Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(["oci", "--cgroup-manager", "disabled", "--root"])
            .arg(fixture.root())
            .args(["run", "--bundle", bundle.write(), &id])
            .output()
            .unwrap(),
    );
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(done.out, fs::read_to_string("/proc/self/cgroup").unwrap());
}

/// As in a tree into which a host's directories are mounted again: each hierarchy is shown once.
#[test]
fn hierarchies_that_are_mounted_twice_are_shown_once() {
    let fixture = fixture!();
    if !Path::new("/sys/fs/cgroup/pids").exists() {
        skip!("no controllers of version 1");
    }
    let bundle = fixture.bundle("ls /sys/fs/cgroup; grep -c ' - cgroup ' /proc/self/mountinfo");
    let once = fixture.run(&bundle);
    assert_eq!((once.code, once.err.as_str()), (0, ""));
    let inner = fixture.command(&["run", "--bundle", bundle.write(), &new_id("twice")]);
    let again = fixture.path().join("again");
    fs::create_dir(&again).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --rbind /sys/fs/cgroup \"$0\" && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&again);
    let twice = Done::of(&command.arg(inner.get_program()).args(inner.get_args()).output().unwrap());
    assert_eq!((twice.code, twice.out, twice.err.as_str()), (0, once.out, ""));
}

/// Limits of version 2 on a live controller, where no hierarchy of version 1 uses it: with both versions mounted, and
/// with version 2 alone.
#[test]
fn limits_of_version_2_are_set() {
    let fixture = fixture!();
    let mount = Path::new(ROOT).join("unified");
    let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    if !offered.split_whitespace().any(|controller| controller == "hugetlb") {
        skip!("version 2 does not offer the controller of huge pages beside version 1");
    }
    for change in ["true", ONLY_UNIFIED] {
        let mut bundle = fixture.bundle("while :; do sleep 0.05; done");
        bundle.config["linux"]["resources"]["hugepageLimits"] =
            json!([{"pageSize": "2MB", "limit": 4 << 20}]);
        let id = new_id("huge");
        let done = elsewhere(&fixture, change, &["run", "-d", "--bundle", bundle.write(), &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{change}");
        let own = read(format!("/proc/{}/cgroup", fixture.pid(&id)));
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let limit = || read(mount.join(path).join("hugetlb.2MB.max"));
        assert_eq!(limit(), (4 << 20).to_string(), "{change}");
        let file = fixture.path().join("resources.json");
        fs::write(&file, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]}).to_string())
            .unwrap();
        let done = elsewhere(&fixture, change, &["update", "--resources", file.to_str().unwrap(), &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{change}");
        assert_eq!(limit(), (2 << 20).to_string(), "{change}");
        let stats = elsewhere(&fixture, change, &["events", "--stats", &id]);
        let stats: Value = serde_json::from_str(&stats.out).unwrap();
        assert_eq!(stats["data"]["hugetlb"]["2MB"]["usage"], 0, "{stats}");
        let done = elsewhere(&fixture, change, &["delete", "--force", &id]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{change}");
        assert!(!mount.join(path).exists(), "{change}");
    }
}
