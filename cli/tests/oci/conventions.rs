//! Behaviour that runc and crun share beyond the specification, on which users rely.

use crate::attacks::{Outside, add_mount};
use crate::fixture::{Bundle, Done, Fixture, new_id, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Leaves a namespace out of a configuration.
fn without(config: &mut Value, kind: &str) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
}

/// A command for a host with version 1 cgroups alone.
fn without_unified(inner: &Command) -> Command {
    let mut command = Command::new("unshare");
    let hide = "for place in $(grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5); do umount $place; done; \
                exec \"$@\"";
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.stdin(Stdio::null());
    command
}

/// Refused with one line that contains `why`.
#[track_caller]
fn refused(fixture: &Fixture, why: &str, change: impl FnOnce(&mut Value)) {
    let done = fixture.sh("echo ok", change);
    assert!(done.code == 1 && done.out.is_empty(), "{why}: {done:?}");
    assert!(done.err.contains(why) && done.err.lines().count() == 1, "{why}: {done:?}");
}

#[test]
fn changes_to_the_host_are_refused() {
    let fixture = fixture!();
    let before = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    refused(&fixture, "domainname needs a uts namespace", |c| {
        without(c, "uts");
        c.as_object_mut().unwrap().remove("hostname");
        c["domainname"] = json!("kiln.example");
    });
    assert_eq!(fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), before);
    for path in ["/", "/..", "//a/.."] {
        refused(&fixture, "`cgroupsPath` names no group", |c| c["linux"]["cgroupsPath"] = json!(path));
    }
    refused(&fixture, "the container's root is `/`", |c| c["root"]["path"] = json!("/"));
    refused(&fixture, "it is the container's root", |c| {
        add_mount(c, json!({"destination": "/x/..", "type": "bind", "source": "/tmp", "options": ["bind"]}));
    });
    for access in [json!(""), json!(null)] {
        refused(&fixture, "a rule about devices has the access \"\"", |c| {
            let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 3, "access": access});
            c["linux"]["resources"]["devices"] = json!([rule]);
        });
    }
    refused(&fixture, "`idmap=uids=0-1-2` is not supported", |c| {
        let options = ["bind", "idmap=uids=0-1-2"];
        add_mount(c, json!({"destination": "/mnt", "type": "bind", "source": "/tmp", "options": options}));
    });
    // A name that is empty is none.
    let done = fixture.sh("hostname", |c| c["hostname"] = json!(""));
    assert_eq!(done.out, fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), "{done:?}");
}

/// CVE-2019-19921: neither a link of the image nor an indirect path leads a mount over files of /proc.
#[test]
fn links_into_proc_lead_no_mount() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    for (link, destination) in [
        ("/proc", "/l/sys"),
        ("/proc", "/l/self/attr"),
        ("/proc/sys", "/l"),
        ("../proc/1", "/l/fdinfo"),
        ("/proc", "//etc/../proc//sys/"),
    ] {
        for mount in [
            json!({"type": "bind", "source": outside.path.join("directory"), "options": ["rbind"]}),
            json!({"type": "tmpfs", "source": "tmpfs"}),
            json!({"type": "bind", "source": outside.path.join("directory"), "options": ["bind", "dest-nofollow"]}),
        ] {
            let mut bundle = fixture.bundle("grep -c ' /proc' /proc/self/mountinfo");
            symlink(link, bundle.rootfs().join("l")).unwrap();
            let mut mount = mount;
            mount["destination"] = json!(destination);
            add_mount(&mut bundle.config, mount.clone());
            let done = fixture.run(&bundle);
            // A link that was to be covered itself is no directory, and leads nowhere.
            let covers = destination == "/l" && mount["options"].to_string().contains("nofollow");
            assert!(done.code == 1 && done.out.is_empty(), "{destination}, {mount}: {done:?}");
            assert!(covers || done.err.contains("/proc"), "{destination}, {mount}: {done:?}");
        }
    }
    // A bind mount of the host's /proc at another path is allowed.
    let done = fixture.sh("ls /host/proc/sys", |c| {
        add_mount(c, json!({"destination": "/host/proc", "type": "bind", "source": "/proc", "options": ["rbind", "ro"]}));
        let dir = &outside.path;
        add_mount(c, json!({"destination": "/host/proc/sys", "type": "bind", "source": dir, "options": ["bind"]}));
    });
    assert_eq!(done.out, "directory\nfile\n", "{done:?}");
    let done = fixture.sh("cat /proc/uptime /proc/sys/kernel/ns_last_pid", |c| {
        for name in ["uptime", "sys/kernel/ns_last_pid"] {
            let source = outside.file();
            let destination = format!("/proc/{name}");
            add_mount(
                c,
                json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]}),
            );
        }
    });
    assert_eq!(done.out, "outside\noutside\n", "{done:?}");
}

/// Processes in the host's pid namespace are in a cgroup, which lists them all.
#[test]
fn containers_in_the_pid_namespace_of_the_host_end_with_all_processes() {
    let fixture = fixture!();
    if !Path::new("/sys/fs/cgroup/pids").exists() {
        skip!("no control groups of version 1: containers are in a group of version 2 always");
    }
    let mark = format!("7{}", std::process::id());
    let alive = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| line == format!("sleep\0{mark}\0").as_bytes()).count()
    };
    let mut bundle = fixture.bundle(&format!("sleep {mark} & sleep {mark} & exec sleep {mark}"));
    without(&mut bundle.config, "pid");
    let id = new_id("shared");
    let mut run = without_unified(&fixture.command(&["run", "-d", "--bundle", bundle.write(), &id]));
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    wait_until("its processes", || alive() == 3);
    let ps = Done::in_time(&mut without_unified(&fixture.command(&["ps", "-f", "json", &id])));
    assert_eq!(ps.out.matches(',').count(), 2, "{ps:?}");
    let done = Done::in_time(&mut without_unified(&fixture.command(&["delete", "--force", &id])));
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    wait_until("their end", || alive() == 0);
}

#[test]
fn propagation_of_the_root_is_that_of_all() {
    let fixture = fixture!();
    let shared = "grep -c ' shared:' /proc/self/mountinfo; grep -vc ' shared:' /proc/self/mountinfo";
    let done = fixture.sh(shared, |c| c["linux"]["rootfsPropagation"] = json!("rshared"));
    assert!(done.out.ends_with("\n0\n"), "{done:?}");
    let done = fixture.sh(shared, |c| c["linux"]["rootfsPropagation"] = json!("shared"));
    assert!(done.out.starts_with("1\n"), "{done:?}");
}

/// `tmpcopyup` copies a directory's content, and its mode unless one is set; the owner is root, as of every tmpfs.
#[test]
fn copied_directories_follow_their_mount_options() {
    let fixture = fixture!();
    for (options, place, expected) in [
        (json!(["tmpcopyup"]), "/data", "751 0 0\n"),
        (json!(["tmpcopyup", "mode=0700"]), "/data", "700 0 0\n"),
        (json!(["tmpcopyup", "uid=5"]), "/data", "751 5 0\n"),
        (json!(["tmpcopyup"]), "/missing", "1777 0 0\n"),
    ] {
        let mut bundle = fixture.bundle(&format!("stat -c '%a %u %g' {place}"));
        let data = bundle.rootfs().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o751)).unwrap();
        chown(&data, Some(11), Some(12)).unwrap();
        let mount = json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options});
        add_mount(&mut bundle.config, mount);
        let done = fixture.run(&bundle);
        assert_eq!(done.out, expected, "{options} {place}: {done:?}");
    }
}

#[test]
fn further_processes_are_like_the_first() {
    let fixture = fixture!();
    let id = fixture.idle(|c| c["linux"]["personality"] = json!({"domain": "LINUX32"}));
    let first = fixture.exec(&id, "cat /proc/1/personality; cat /proc/self/personality");
    assert_eq!(first.out, "00000008\n00000008\n", "{first:?}");
    // Without capabilities in the request, those of the container apply.
    let file = fixture.path().join("process.json");
    let show = "grep Cap /proc/self/status | grep -v CapInh";
    let process =
        json!({"args": ["sh", "-c", show], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    fs::write(&file, process.to_string()).unwrap();
    let by_file = fixture.oci(&["exec", "--process", file.to_str().unwrap(), &id]);
    assert_eq!(by_file.out, fixture.exec(&id, show).out, "{by_file:?}");
    assert!(!by_file.out.contains("CapBnd:\t0000000000000000"), "{by_file:?}");
    // No descriptor of the runtime is a working directory.
    for number in 3..20 {
        let done = fixture.oci(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), &id, "true"]);
        assert!(done.code != 0 && done.err.contains("no such file"), "{number}: {done:?}");
    }
}

#[test]
fn limits_that_are_not_there_are_none() {
    let fixture = fixture!();
    if !Path::new("/sys/fs/cgroup/pids").exists() {
        skip!("no controller of processes of version 1");
    }
    let done = fixture.sh("true | true; echo fine", |c| c["linux"]["resources"]["pids"] = json!({}));
    assert_eq!(done.out, "fine\n", "{done:?}");
}

/// Capabilities that cannot be granted lead to a warning (runtime-spec, "Linux Process"), and the container runs.
#[test]
fn unavailable_capabilities_lead_to_warnings() {
    let fixture = fixture!();
    if !Path::new("/usr/bin/setpriv").exists() {
        skip!("setpriv (util-linux) is needed to give up rights");
    }
    let mut bundle: Bundle = fixture.bundle("echo fine");
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_SYS_TIME"]);
    }
    let inner = fixture.command(&["run", "--bundle", bundle.write(), &new_id("beyond")]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time"]);
    let done = Done::in_time(command.arg(inner.get_program()).args(inner.get_args()));
    assert_eq!((done.code, done.out.as_str()), (0, "fine\n"), "{done:?}");
    assert!(done.err.contains("can't grant capability CAP_SYS_TIME"), "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
}

/// A log that cannot be written is reported at once; one that can is created even without entries.
#[test]
fn logs_are_made_first() {
    let fixture = fixture!();
    let oci = |log: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["oci", "--log"]).arg(log).arg("--root").arg(fixture.root()).arg("list");
        Done::in_time(&mut command)
    };
    let done = oci(Path::new("/kiln-none/log"));
    assert!(done.code == 1 && done.err.contains("`/kiln-none/log`: "), "{done:?}");
    let log = fixture.path().join("log");
    assert_eq!(oci(&log).code, 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}

/// Version 2 by its name is version 2, beside version 1 too.
#[test]
fn the_mount_type_cgroup2_is_version_2() {
    let fixture = fixture!();
    let done = fixture.sh("stat -f -c %t /sys/fs/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs", |c| {
        let mounts = c["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        let options = ["ro", "nosuid", "noexec", "nodev"];
        add_mount(c, json!({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": options}));
    });
    assert_eq!(done.out, "63677270\n1\n", "{done:?}");
}

/// Two containers in one cgroup lead to a warning; the end of one does not end the other.
#[test]
fn containers_in_one_group_end_by_themselves() {
    let fixture = fixture!();
    let path = format!("/{}", new_id("one-group"));
    let in_group = |command: &str| {
        let mut bundle = fixture.bundle(command);
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        bundle
    };
    let first = fixture.up(&in_group("while :; do sleep 0.05; done"));
    let is_running = || fixture.state(&first)["status"] == "running";
    let bundle = in_group("echo fine");
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.out.as_str()), (0, "fine\n"), "{done:?}");
    assert!(done.err.contains("container's cgroup is not empty") && is_running(), "{done:?}");
    let second = new_id("second");
    let bundle = in_group("while :; do sleep 0.05; done");
    assert_eq!(fixture.detached(&["run", "-d", "--bundle", bundle.write(), &second]).code, 0);
    let done = fixture.oci(&["delete", "--force", &second]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(is_running());
    let done = fixture.oci(&["delete", "--force", &first]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert!(fixture.traces("one-group").is_empty(), "{:?}", fixture.traces("one-group"));
}
