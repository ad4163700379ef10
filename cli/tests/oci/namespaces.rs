//! Namespaces of a container, new and joined, and their content: host names, ids, clocks, keys, kernel parameters.

use crate::fixture::{Done, Fixture, new_id, read};
use kiln_runtime::host::{Feature, Host};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

const SHIFT: u32 = 100_000;

fn add(config: &mut Value, namespace: Value) {
    let kind = namespace["type"].clone();
    let list = config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|other| other["type"] != kind);
    list.push(namespace);
}

/// Joins namespaces of a process: kinds as the specification and as /proc name them.
fn join(config: &mut Value, pid: i64, kinds: &[(&str, &str)]) {
    for (kind, file) in kinds {
        add(config, json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    }
    if kinds.iter().any(|(kind, _)| *kind == "uts") {
        config.as_object_mut().unwrap().remove("hostname");
    }
}

/// A new user namespace: root is another user outside.
fn users(config: &mut Value) {
    add(config, json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": SHIFT, "size": 65536}]);
    config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 2 * SHIFT, "size": 65536}]);
}

fn open_for_others(fixture: &Fixture) {
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o711)).unwrap();
}

fn namespace(pid: &str, file: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn new_namespaces_differ_from_the_host() {
    let fixture = fixture!();
    let kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time"];
    let command = kinds.map(|kind| format!("readlink /proc/self/ns/{kind}")).join("; ");
    let done = fixture.sh(&command, |c| {
        add(c, json!({"type": "cgroup"}));
        add(c, json!({"type": "time"}));
    });
    assert_eq!(done.code, 0, "{done:?}");
    for (kind, link) in kinds.iter().zip(done.out.lines()) {
        assert_ne!(link, namespace("self", kind), "{kind}");
    }
    // And those that are not asked for are.
    let done = fixture.sh(
        "readlink /proc/self/ns/net; readlink /proc/self/ns/cgroup; readlink /proc/self/ns/user",
        |c| {
            c["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .retain(|one| one["type"] != "network" && one["type"] != "cgroup");
        },
    );
    let own = [namespace("self", "net"), namespace("self", "cgroup"), namespace("self", "user")];
    assert_eq!(done.out.lines().collect::<Vec<_>>(), own);
}

#[test]
fn each_kind_is_joined_by_path() {
    let fixture = fixture!();
    let first = fixture.idle(|c| {
        add(c, json!({"type": "cgroup"}));
        add(c, json!({"type": "time"}));
        c["hostname"] = json!("first");
    });
    let pid = fixture.pid(&first);
    for (kind, file) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
        ("pid", "pid"),
        ("time", "time"),
    ] {
        let done = fixture.sh(&format!("readlink /proc/self/ns/{file}"), |c| join(c, pid, &[(kind, file)]));
        assert_eq!(done.out.trim(), namespace(&pid.to_string(), file), "{kind}: {done:?}");
    }
    // All at once, as containers of a pod do.
    let done = fixture.sh("hostname; tr '\\0' ' ' < /proc/1/cmdline", |c| {
        join(
            c,
            pid,
            &[("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")],
        );
    });
    assert!(done.out.starts_with("first\n/bin/sh -c while"), "{done:?}");
    // The first container runs on after the second has ended.
    assert_eq!(fixture.state(&first)["status"], "running");
}

#[test]
fn another_containers_mounts_are_joined() {
    let fixture = fixture!();
    let first = fixture.idle(|_| {});
    let pid = fixture.pid(&first);
    let done = fixture.sh("true", |c| join(c, pid, &[("mount", "mnt")]));
    // The root is looked for in there, where it is not.
    assert_ne!(done.code, 0, "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
}

#[test]
fn user_namespaces_map_ids() {
    let fixture = fixture!();
    open_for_others(&fixture);
    let mut bundle = fixture.bundle("cat /proc/self/uid_map /proc/self/gid_map; id -u; echo x > /tmp/new; stat -c '%u %t,%T' /dev/null; echo > /dev/null && echo null; cat /proc/self/setgroups");
    users(&mut bundle.config);
    chown(bundle.rootfs().join("tmp"), Some(SHIFT), Some(2 * SHIFT)).unwrap();
    let done = fixture.run(&bundle);
    let words: Vec<Vec<&str>> = done.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words,
        [
            &["0", "100000", "65536"][..],
            &["0", "200000", "65536"],
            &["0"],
            &["65534", "1,3"],
            &["null"],
            &["allow"]
        ],
        "{done:?}"
    );
    let made = fs::metadata(bundle.rootfs().join("tmp/new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (SHIFT, 2 * SHIFT));

    // Root may change owners within the namespace, and processes may have several uids.
    bundle.config["process"]["args"] =
        json!(["/bin/sh", "-c", "touch /tmp/given && chown 5:6 /tmp/given && id -u && id -G"]);
    bundle.config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [7, 8]});
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
    }
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "0\n0 7 8\n", "{done:?}");
    let given = fs::metadata(bundle.rootfs().join("tmp/given")).unwrap();
    assert_eq!((given.uid(), given.gid()), (SHIFT + 5, 2 * SHIFT + 6));
}

#[test]
fn a_pod_shares_users_and_processes() {
    let fixture = fixture!();
    open_for_others(&fixture);
    let first = fixture.idle(users);
    let pid = fixture.pid(&first);
    let kinds = [("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let done = fixture
        .sh("readlink /proc/self/ns/user; readlink /proc/self/ns/pid; id -u; ls -d /proc/1", |c| {
            join(c, pid, &kinds)
        });
    let text = pid.to_string();
    assert_eq!(
        done.out,
        format!("{}\n{}\n0\n/proc/1\n", namespace(&text, "user"), namespace(&text, "pid")),
        "{done:?}"
    );
    // A user namespace alone.
    let done =
        fixture.sh("readlink /proc/self/ns/user; cat /proc/1/uid_map", |c| join(c, pid, &[("user", "user")]));
    assert!(done.out.starts_with(&namespace(&text, "user")), "{done:?}");
    // And `exec` in it.
    let done = fixture.exec(&first, "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user");
    assert!(done.out.starts_with("0\n") && done.out.contains(&namespace(&text, "user")), "{done:?}");
}

#[test]
fn clocks_go_differently() {
    let fixture = fixture!();
    let offsets = json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 7}});
    let set = |c: &mut Value| {
        add(c, json!({"type": "time"}));
        c["linux"]["timeOffsets"] = offsets.clone();
    };
    let uptime = || -> f64 { read("/proc/uptime").split(' ').next().unwrap().parse().unwrap() };
    let before = uptime();
    let done = fixture.sh("cat /proc/uptime; cat /proc/self/timens_offsets", set);
    let inside: f64 = done.out.split(' ').next().unwrap().parse().unwrap();
    assert!((1_000_000.0..1_000_060.0).contains(&(inside - before)), "{done:?}");
    let lines: Vec<Vec<&str>> =
        done.out.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["monotonic", "7", "0"], ["boottime", "1000000", "5"]]);
    // Joined, and entered later.
    let first = fixture.idle(set);
    let pid = fixture.pid(&first);
    let command = "cut -d. -f1 /proc/uptime";
    for done in [fixture.sh(command, |c| join(c, pid, &[("time", "time")])), fixture.exec(&first, command)] {
        assert!(done.out.trim().parse::<f64>().unwrap() > 1_000_000.0, "{done:?}");
    }
}

#[test]
fn names_are_the_containers_own() {
    let fixture = fixture!();
    let before = read("/proc/sys/kernel/hostname");
    let done = fixture.sh("hostname; cat /proc/sys/kernel/domainname", |c| {
        c["hostname"] = json!("box");
        c["domainname"] = json!("kiln.test");
    });
    assert_eq!(done.out, "box\nkiln.test\n", "{done:?}");
    // As a kernel parameter too, alone or with the value of the field.
    for domain in ["", "kiln.test"] {
        let done = fixture.sh("cat /proc/sys/kernel/domainname", |c| {
            c["domainname"] = json!(domain);
            c["linux"]["sysctl"] = json!({"kernel.domainname": "kiln.test"});
        });
        assert_eq!(done.out, "kiln.test\n", "{done:?}");
    }
    assert_eq!(read("/proc/sys/kernel/hostname"), before);
}

/// A new user namespace without mappings maps root to the caller, and nothing else.
#[test]
fn without_maps_there_is_one_user() {
    let fixture = fixture!();
    let done = fixture.sh("tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map; id -u", |c| {
        add(c, json!({"type": "user"}));
    });
    assert_eq!((done.out.as_str(), done.err.as_str()), (" 0 0 1\n 0 0 1\n0\n", ""));
}

#[test]
fn kernel_parameters_are_the_containers_own() {
    let fixture = fixture!();
    let names = [
        "kernel/msgmax",
        "kernel/sem",
        "fs/mqueue/msg_max",
        "net/ipv4/ip_forward",
        "net/ipv4/ping_group_range",
    ];
    let machine =
        || names.map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default());
    let before = machine();
    let done = fixture.sh("cd /proc/sys; cat kernel/msgmax kernel/sem fs/mqueue/msg_max net/ipv4/ip_forward net/ipv4/ping_group_range | tr '\\t' ' '", |c| {
        c["linux"]["sysctl"] = json!({
            "kernel.msgmax": "12345",
            "kernel.sem": "100 200 30 40",
            "fs.mqueue.msg_max": "20",
            "net.ipv4.ip_forward": "1",
            "net/ipv4/ping_group_range": "0 10",
        });
    });
    assert_eq!(done.out, "12345\n100 200 30 40\n20\n1\n0 10\n", "{done:?}");
    assert_eq!(machine(), before);
    // Each only with a namespace of its kind.
    for (name, kind) in
        [("kernel.msgmax", "ipc"), ("net.ipv4.ip_forward", "network"), ("kernel.domainname", "uts")]
    {
        let done = fixture.sh("true", |c| {
            c.as_object_mut().unwrap().remove("hostname");
            c["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != kind);
            c["linux"]["sysctl"] = json!({name: "1"});
        });
        assert!(done.err.contains(&format!("kernel parameter `{name}` is not separate")), "{done:?}");
    }
}

#[test]
fn a_new_keyring_or_the_old_one() {
    let fixture = fixture!();
    if !Path::new("/proc/keys").exists() {
        skip!("this kernel has no keyrings");
    }
    // The session's keyring is identified by its serial, the first word.
    let session = |flags: &[&str]| {
        let mut bundle = fixture.bundle("grep -c . /proc/keys; cat /proc/key-users > /dev/null");
        bundle.config["linux"]["maskedPaths"] = json!([]);
        let id = new_id("keys");
        let words = [&["run"], flags, &["--bundle", bundle.write(), &id]].concat();
        let done = fixture.oci(&words);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
    };
    session(&[]);
    session(&["--no-new-keyring"]);
}

#[test]
fn id_mapped_mounts_map_owners() {
    let fixture = fixture!();
    open_for_others(&fixture);
    let shown = fixture.path().join("shown");
    fs::create_dir(&shown).unwrap();
    fs::write(shown.join("file"), "").unwrap();
    chown(shown.join("file"), Some(7), Some(8)).unwrap();
    chown(&shown, Some(7), Some(8)).unwrap();
    let one = |inside: u32, outside: u32| json!({"containerID": inside, "hostID": outside, "size": 1});
    // On disk 7:8, in the container 1007:1008; what its user 1007 makes is 7's.
    let mount = json!({
        "destination": "/m", "type": "bind", "source": shown, "options": ["bind"],
        "uidMappings": [one(7, 1007)], "gidMappings": [one(8, 1008)],
    });
    for option in ["idmap", "ridmap"] {
        let done = fixture.sh("stat -c %u:%g /m/file; touch /m/new && stat -c %u:%g /m/new", |c| {
            let mut mount = mount.clone();
            mount["options"].as_array_mut().unwrap().push(json!(option));
            c["mounts"].as_array_mut().unwrap().push(mount);
            c["process"]["user"] = json!({"uid": 1007, "gid": 1008});
        });
        if !Host::get().has(Feature::IdmappedMounts) {
            assert!(
                done.err.contains("it needs `idmapped-mounts` of Linux 5.12, and this kernel is"),
                "{done:?}"
            );
            continue;
        }
        if done.err.contains("does not support that") {
            skip!("id-mapped mounts: {}", done.err);
        }
        assert_eq!(done.out, "1007:1008\n1007:1008\n", "{done:?}");
        let made = fs::metadata(shown.join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (7, 8));
        fs::remove_file(shown.join("new")).unwrap();
    }
    if !Host::get().has(Feature::IdmappedMounts) {
        return;
    }
    // With `idmap` alone the container's own maps apply: its root is root on disk.
    let mut bundle = fixture.bundle("stat -c %u:%g /mnt/file; touch /mnt/new && stat -c %u:%g /mnt/new");
    users(&mut bundle.config);
    fs::create_dir(bundle.rootfs().join("mnt")).unwrap();
    chown(&shown, Some(0), Some(0)).unwrap();
    bundle.config["mounts"].as_array_mut().unwrap().push(json!({
        "destination": "/mnt", "type": "bind", "source": shown, "options": ["bind", "idmap"],
    }));
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "7:8\n0:0\n", "{done:?}");
    let made = fs::metadata(shown.join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    // And those of a user namespace that it joins.
    let first = fixture.idle(users);
    let pid = fixture.pid(&first);
    let linux = bundle.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    join(&mut bundle.config, pid, &[("user", "user")]);
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "7:8\n0:0\n", "{done:?}");
}

/// Without privileges: the own id alone, as `spec --rootless` writes it.
#[test]
fn ordinary_users_run_containers() {
    let fixture = fixture!();
    if !Path::new("/usr/bin/setpriv").exists() {
        skip!("setpriv (util-linux) is needed to be an ordinary user");
    }
    // All users must be able to execute the program.
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("kiln");
    if fs::hard_link(env!("CARGO_BIN_EXE_kiln"), &program).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
    }
    let mut bundle = fixture.bundle("");
    let dir = place.path().join("bundle");
    assert!(
        Command::new("cp")
            .args(["-r".as_ref(), bundle.dir.as_os_str(), dir.as_os_str()])
            .status()
            .unwrap()
            .success()
    );
    fs::remove_file(dir.join("config.json")).unwrap();
    let runtime = place.path().join("run");
    fs::create_dir(&runtime).unwrap();
    assert!(
        Command::new("chown").args(["-R", "65534:65534"]).args([&dir, &runtime]).status().unwrap().success()
    );
    let oci = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            "-all",
            "--inh-caps",
            "-all",
        ]);
        command.arg(&program).arg("oci").args(words).current_dir(&dir);
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin").env("XDG_RUNTIME_DIR", &runtime);
        Done::of(&command.output().unwrap())
    };
    let done = oci(&["spec", "--rootless"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let config = dir.join("config.json");
    bundle.config = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let write = |config: &Value| fs::write(dir.join("config.json"), config.to_string()).unwrap();
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["process"]["env"] = json!(["PATH=/bin"]);
    bundle.config["process"]["args"] = json!([
        "/bin/sh",
        "-c",
        "id -u; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; echo $$; echo x > /tmp/new; echo > /dev/null; ls /sys > /dev/null && hostname"
    ]);
    write(&bundle.config);
    let done = oci(&["run", "rootless"]);
    if done.err.contains("namespace") && done.code != 0 {
        skip!("user namespaces for ordinary users: {}", done.err);
    }
    assert_eq!((done.out.as_str(), done.err.as_str(), done.code), ("0\n 0 65534 1\ndeny\n1\nkiln\n", "", 0));
    assert_eq!(fs::metadata(dir.join("rootfs/tmp/new")).unwrap().uid(), 65534);
    assert_eq!(
        fs::read_dir(runtime.join("kiln-oci")).unwrap().count(),
        0,
        "nothing is left in XDG_RUNTIME_DIR"
    );

    // Clocks, read-only mounts, and cgroups, as far as possible without privileges.
    let plain = bundle.config.clone();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.config["process"]["args"] = json!([
        "/bin/sh",
        "-c",
        "cat /proc/self/timens_offsets | tr -s ' '; grep -o ' /mnt r[ow]' /proc/self/mountinfo; ls /sys/fs/cgroup | grep -c ."
    ]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 70}});
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    let options = ["rbind", "rw", "rprivate"];
    mounts.push(json!({"destination": "/mnt", "type": "bind", "source": source, "options": options}));
    let options = ["ro", "nosuid", "noexec", "nodev"];
    mounts.push(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}),
    );
    write(&bundle.config);
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&source);
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    command.args(["oci", "run", "limited"]).current_dir(&dir).env("XDG_RUNTIME_DIR", &runtime);
    let done = Done::of(&command.output().unwrap());
    let (told, count) = done.out.trim_end().rsplit_once('\n').unwrap_or_default();
    assert_eq!(told, "monotonic 0 0\nboottime 70 0\n /mnt ro", "{done:?}");
    assert!(count.parse::<u32>().is_ok_and(|count| count > 0), "{done:?}");
    bundle.config = plain;

    // In steps, with `exec`.
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    write(&bundle.config);
    let detached = |words: &[&str]| {
        let script = format!("exec \"$0\" oci {} > /dev/null 2>&1 < /dev/null", words.join(" "));
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", &script])
            .arg(&program);
        command.current_dir(&dir).env("XDG_RUNTIME_DIR", &runtime).status().unwrap().code()
    };
    assert_eq!(detached(&["create", "steps"]), Some(0));
    assert_eq!(oci(&["start", "steps"]).code, 0);
    let done = oci(&["exec", "steps", "id", "-u"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("0\n", ""));
    let done = oci(&["delete", "--force", "steps"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));

    // More ids than the own one come from /etc/subuid, by `newuidmap`.
    bundle.config["linux"]["uidMappings"] = json!([
        {"containerID": 0, "hostID": 65534, "size": 1}, {"containerID": 1, "hostID": 700_000, "size": 1000},
    ]);
    bundle.config["linux"]["gidMappings"] = bundle.config["linux"]["uidMappings"].clone();
    bundle.config["process"]["args"] =
        json!(["/bin/sh", "-c", "tr -s ' ' < /proc/self/uid_map; touch /tmp/other"]);
    bundle.config["process"]["user"] = json!({"uid": 7, "gid": 8});
    fs::set_permissions(dir.join("rootfs/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    write(&bundle.config);
    // A host with these lists: the program that maps belongs to root, and needs its capabilities.
    let with_lists = |list: &str, path: &str| {
        fs::write(dir.join("list"), list).unwrap();
        let script = "for file in /etc/subuid /etc/subgid; do test -e $file || : > $file; mount --bind list $file; done; exec \"$@\"";
        let mut command = Command::new("/usr/bin/unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh", "setpriv", "--reuid", "65534", "--regid", "65534"]);
        command.arg("--clear-groups").arg(&program).args(["oci", "run", "ranges"]).current_dir(&dir);
        command.env_clear().env("PATH", path).env("XDG_RUNTIME_DIR", &runtime);
        Done::of(&command.output().unwrap())
    };
    const PATH: &str = "/usr/bin:/bin:/usr/sbin";
    if !Path::new("/usr/bin/newuidmap").exists() {
        skip!("no newuidmap: ids are not mapped by it");
    }
    let done = with_lists("nobody:700000:1000\n", PATH);
    assert_eq!((done.out.as_str(), done.err.as_str(), done.code), (" 0 65534 1\n 1 700000 1000\n", "", 0));
    let made = fs::metadata(dir.join("rootfs/tmp/other")).unwrap();
    assert_eq!((made.uid(), made.gid()), (700_006, 700_007));
    let done = with_lists("", PATH);
    let advice = "does `/etc/subuid` have a line for the user with id 65534, such as `65534:100000:65536`?";
    assert!(done.err.contains("newuidmap: ") && done.err.contains(advice), "{done:?}");
    assert_eq!((done.code, done.err.lines().count()), (1, 1), "{done:?}");
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["sh", "mount", "setpriv"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), bin.join(name)).unwrap();
    }
    let done = with_lists("", bin.to_str().unwrap());
    assert!(done.err.contains("the program `newuidmap` is not installed"), "{done:?}");
    assert_eq!(fs::read_dir(runtime.join("kiln-oci")).unwrap().count(), 0);
}

/// `netDevices`: an interface of the host becomes the container's, with another name and its addresses.
#[test]
fn network_devices_move_in() {
    let fixture = fixture!();
    let run = |change: fn(&mut Value)| {
        let mut bundle = fixture.bundle("ip addr show dev inner; ip route");
        bundle.config["linux"]["netDevices"] = json!({"kt0": {"name": "inner"}});
        change(&mut bundle.config);
        // The host is a network namespace of this test's own.
        let busybox = bundle.rootfs().join("bin/busybox");
        let script = format!(
            "ip() {{ {0} ip \"$@\"; }}; ip link add kt0 type veth && ip link set kt0 up && ip addr add 10.9.8.7/24 dev kt0 \
             && ip addr add fd00:9::7/64 dev kt0 && \"$@\" && ! ip link show kt0 2>&1",
            busybox.display()
        );
        let inner = fixture.command(&["run", "--bundle", bundle.write(), &new_id("devices")]);
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        Done::of(&command.output().unwrap())
    };
    let plain: fn(&mut Value) = |_| {};
    for change in [plain, users] {
        open_for_others(&fixture);
        let done = run(change);
        for expected in [",UP", "inet 10.9.8.7/24", "inet6 fd00:9::7/64", "10.9.8.0/24 dev inner"] {
            assert!(done.out.contains(expected), "{expected}: {done:?}");
        }
        assert!(done.code == 0 && done.out.contains("can't find device 'kt0'"), "{done:?}");
    }
    // Into an existing namespace.
    let id = fixture.idle(|_| {});
    let pid = fixture.pid(&id);
    let path = format!("/proc/{pid}/ns/net");
    let done = fixture.sh("ip link", |c| {
        join(c, pid, &[("network", "net")]);
        c["linux"]["netDevices"] = json!({"kiln-none": {}});
    });
    assert!(Path::new(&path).exists() && done.err.contains("`kiln-none`"), "{done:?}");
}
