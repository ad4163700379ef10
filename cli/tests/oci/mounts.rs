//! The container's file tree: root, mounts and their options, devices, masked paths.

use crate::fixture::{Fixture, new_id};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(config: &mut Value, source: &std::path::Path, options: &[&str]) {
    add(config, json!({"destination": "/m", "type": "bind", "source": source, "options": options}));
}

/// Options of the mount at a target, from `/proc/self/mountinfo` of the container.
fn options(table: &str, place: &str) -> Vec<String> {
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing at {place} in {table}"));
    line.split(' ').nth(5).unwrap().split(',').map(str::to_owned).collect()
}

const TABLE: &str = "cat /proc/self/mountinfo";

#[test]
fn the_default_tree() {
    let fixture = fixture!();
    let done = fixture.sh(TABLE, |_| {});
    let kinds: Vec<(&str, &str)> = done
        .out
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            Some((mount.split(' ').nth(4)?, filesystem.split(' ').next()?))
        })
        .collect();
    for expected in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        assert!(kinds.contains(&expected), "{expected:?}: {done:?}");
    }
    for (place, wanted, unwanted) in [
        ("/sys", &["ro", "nosuid", "nodev", "noexec"][..], &["rw"][..]),
        ("/dev", &["rw", "nosuid"], &["relatime", "noatime", "noexec"]),
        ("/dev/shm", &["rw", "nosuid", "nodev", "noexec", "relatime"], &[]),
        ("/proc/sys", &["ro"], &[]),
    ] {
        let has = options(&done.out, place);
        assert!(wanted.iter().all(|option| has.contains(&(*option).to_owned())), "{place}: {has:?}");
        assert!(!unwanted.iter().any(|option| has.contains(&(*option).to_owned())), "{place}: {has:?}");
    }
    // Nothing of the host's mounts is left, and none is a peer of one.
    assert!(!done.out.contains("shared:") && !done.out.contains("master:"), "{done:?}");
}

#[test]
fn options_of_mounts() {
    let fixture = fixture!();
    let source = fixture.path().join("source");
    fs::create_dir(&source).unwrap();
    let cases: [(&[&str], &[&str], &[&str]); 12] = [
        (&["bind"], &["rw", "relatime"], &["nosuid"]),
        (&["bind", "ro"], &["ro"], &["rw"]),
        (&["rbind", "ro", "rw"], &["rw"], &["ro"]),
        (&["bind", "nosuid", "nodev", "noexec"], &["nosuid", "nodev", "noexec"], &[]),
        (
            &["bind", "nosuid", "suid", "nodev", "dev", "noexec", "exec"],
            &["rw"],
            &["nosuid", "nodev", "noexec"],
        ),
        (&["bind", "noatime"], &["noatime"], &["relatime"]),
        (&["bind", "strictatime"], &["rw"], &["relatime", "noatime"]),
        (&["bind", "noatime", "relatime"], &["relatime"], &["noatime"]),
        (&["bind", "nodiratime"], &["nodiratime"], &[]),
        (&["bind", "nosymfollow"], &["nosymfollow"], &[]),
        (&["rbind", "rro", "rnosuid", "rnoexec", "rnodev"], &["ro", "nosuid", "noexec", "nodev"], &["rw"]),
        (&["rbind", "rstrictatime"], &["rw"], &["relatime"]),
    ];
    let mut bundle = fixture.bundle(TABLE);
    let good = bundle.config.clone();
    for (given, wanted, unwanted) in cases {
        bundle.config = good.clone();
        bind(&mut bundle.config, &source, given);
        let done = fixture.run(&bundle);
        let has = options(&done.out, "/m");
        assert!(wanted.iter().all(|option| has.contains(&(*option).to_owned())), "{given:?}: {has:?}");
        assert!(!unwanted.iter().any(|option| has.contains(&(*option).to_owned())), "{given:?}: {has:?}");
    }
}

/// Options with the prefix `r` apply to all mounts below, others to the topmost alone.
#[test]
fn options_reach_below_or_not() {
    let fixture = fixture!();
    let source = fixture.path().join("source");
    let below = source.join("below");
    fs::create_dir_all(&below).unwrap();
    let mut bundle = fixture.bundle("touch /m/a; touch /m/below/a; true");
    let good = bundle.config.clone();
    for (option, above, inside) in [("ro", false, true), ("rro", false, false), ("rw", true, true)] {
        bundle.config = good.clone();
        bind(&mut bundle.config, &source, &["rbind", option]);
        // The mounts are made in a namespace that ends with the command.
        let script = format!(
            "mount -t tmpfs tmpfs {0} && mkdir {0}/below && mount -t tmpfs tmpfs {0}/below && \"$@\"; ls {0} {0}/below",
            source.display()
        );
        let id = new_id("below");
        let words = ["run", "--bundle", bundle.write(), &id];
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "oci", "--root"]);
        let output = command.arg(fixture.root()).args(words).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let (top, deep) = out.split_once("/below:").unwrap_or_else(|| panic!("{output:?}"));
        assert_eq!((top.contains("a\n"), deep.contains('a')), (above, inside), "{option}: {output:?}");
    }
}

#[test]
fn mounts_have_the_configured_propagation() {
    let fixture = fixture!();
    let source = fixture.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let place = fixture.path().join("source");
    // The source is made a shared mount in a namespace of the test's own.
    let run = |bundle: &crate::fixture::Bundle, after: &str| {
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs {0} && mkdir {0}/sub && mount --make-shared {0} && \"$@\"; {after}",
            place.display()
        );
        let id = new_id("spread");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "oci", "--root"]);
        let output =
            command.arg(fixture.root()).args(["run", "--bundle", bundle.write(), &id]).output().unwrap();
        crate::fixture::Done::of(&output)
    };
    let mut bundle = fixture.bundle(&format!("{TABLE}; mount -t tmpfs inner /m/sub"));
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    let good = bundle.config.clone();
    let seen = format!("echo; grep -c '{}/sub' /proc/self/mountinfo", place.display());
    for (root, option, mark, spreads) in [
        ("", "private", "", false),
        ("", "rprivate", "", false),
        ("slave", "slave", "master:", false),
        ("rslave", "rslave", "master:", false),
        ("shared", "shared", "shared:", true),
        ("rshared", "rshared", "shared:", true),
    ] {
        bundle.config = good.clone();
        if !root.is_empty() {
            bundle.config["linux"]["rootfsPropagation"] = json!(root);
        }
        bind(&mut bundle.config, &source, &["rbind", option]);
        let done = run(&bundle, &seen);
        let line = done.out.lines().find(|line| line.split(' ').nth(4) == Some("/m"));
        let line = line.unwrap_or_else(|| panic!("{option}: {done:?}"));
        let fields: Vec<&str> = line.split(" - ").next().unwrap().split(' ').skip(6).collect();
        match mark {
            "" => assert!(fields.is_empty(), "{option}: {line}"),
            mark => assert!(fields.iter().any(|field| field.starts_with(mark)), "{option}: {line}"),
        }
        let count = done.out.lines().last().unwrap();
        assert_eq!(count, if spreads { "1" } else { "0" }, "{root} {option}: {done:?}");
    }
}

#[test]
fn the_roots_propagation() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle(TABLE);
    let own = |table: &str| {
        let line = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap().to_owned();
        line.split(" - ").next().unwrap().split(' ').skip(6).map(str::to_owned).collect::<Vec<_>>()
    };
    for (name, mark) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
        bundle.config["linux"]["rootfsPropagation"] = json!(name);
        let done = fixture.run(&bundle);
        assert_eq!(done.code, 0, "{name}: {done:?}");
        let fields = own(&done.out);
        match mark {
            "" => assert!(fields.is_empty(), "{name}: {fields:?}"),
            mark => assert!(fields.iter().any(|field| field.starts_with(mark)), "{name}: {fields:?}"),
        }
    }
}

#[test]
fn a_read_only_root() {
    let fixture = fixture!();
    for flags in [&[][..], &["--no-pivot"]] {
        let mut bundle = fixture.bundle("touch /x 2>/dev/null || echo no; touch /tmp/x && echo tmp; touch /dev/x && echo dev; ls -a /proc/acpi 2>/dev/null; cd /../../..; ls -d bin");
        bundle.config["root"]["readonly"] = json!(true);
        add(&mut bundle.config, json!({"destination": "/tmp", "type": "tmpfs"}));
        let id = new_id("readonly");
        let done = fixture.oci(&[&["run"], flags, &["--bundle", bundle.write(), &id]].concat());
        assert_eq!(done.out.replace(".\n..\n", ""), "no\ntmp\ndev\nbin\n", "{flags:?}: {done:?}");
        assert!(!bundle.rootfs().join("x").exists());
    }
}

#[test]
fn file_systems_of_memory() {
    let fixture = fixture!();
    // The mode is the configured one, else that of the covered directory, else that of a new tmpfs.
    let mut bundle = fixture.bundle("stat -c %a /given /covered /new; df -k /given | tail -1 | tr -s ' ' | cut -d' ' -f2; ls /copied /empty; stat -c %a:%u /copied/file; touch /ro/x 2>/dev/null || echo ro");
    let rootfs = bundle.rootfs();
    for (name, mode) in [("covered", 0o1750), ("given", 0o755), ("copied", 0o711), ("empty", 0o755)] {
        fs::create_dir(rootfs.join(name)).unwrap();
        fs::set_permissions(rootfs.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["copied/file", "empty/file"] {
        fs::write(rootfs.join(name), "x").unwrap();
        fs::set_permissions(rootfs.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    for (place, options) in [
        ("/given", json!(["mode=1700", "size=64k"])),
        ("/covered", json!(["size=64k"])),
        ("/new", json!(["size=64k"])),
        ("/copied", json!(["tmpcopyup"])),
        ("/empty", json!([])),
        ("/ro", json!(["ro"])),
    ] {
        add(
            &mut bundle.config,
            json!({"destination": place, "type": "tmpfs", "source": "tmpfs", "options": options}),
        );
    }
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "1700\n1750\n1777\n64\n/copied:\nfile\n\n/empty:\n640:0\nro\n", "{done:?}");
    // Covered files are unchanged.
    assert!(rootfs.join("empty/file").exists());
}

#[test]
fn missing_mount_targets_are_created() {
    let fixture = fixture!();
    let file = fixture.path().join("file");
    fs::write(&file, "told\n").unwrap();
    let dir = fixture.path().join("directory");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("inner"), "inner\n").unwrap();
    let mut bundle = fixture.bundle("cat /a/b/file /c/d/inner /led/inner /up/inner /dev/extra");
    // Links in the image are resolved inside the image.
    symlink("/target/deep", bundle.rootfs().join("led")).unwrap();
    symlink("../../../../../../..", bundle.rootfs().join("out")).unwrap();
    for (source, place) in
        [(&file, "/a/b/file"), (&dir, "/c/d"), (&dir, "/led"), (&dir, "/out/up"), (&file, "/dev/extra")]
    {
        add(
            &mut bundle.config,
            json!({"destination": place, "type": "bind", "source": source, "options": ["bind"]}),
        );
    }
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "told\ninner\ninner\ninner\ntold\n", "{done:?}");
    assert!(bundle.rootfs().join("target/deep").is_dir() && bundle.rootfs().join("up").is_dir());
}

#[test]
fn an_image_without_the_usual_dirs() {
    let fixture = fixture!();
    let bundle = fixture.bundle("test -c /dev/null && test -d /proc/1 && test -d /sys/kernel && echo all");
    for name in ["dev", "proc", "sys", "tmp", "etc/passwd", "etc/group"] {
        let path = bundle.rootfs().join(name);
        fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
    }
    let done = fixture.run(&bundle);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("all\n", ""));

    // Links at their paths do not redirect the set-up.
    for name in ["dev", "proc", "sys"] {
        let bundle = fixture.bundle("true");
        let path = bundle.rootfs().join(name);
        fs::remove_dir(&path).unwrap();
        symlink(fixture.path(), &path).unwrap();
        let done = fixture.run(&bundle);
        assert_eq!((done.code, done.err.lines().count()), (1, 1), "{name}: {done:?}");
        assert!(
            done.err.contains(&format!(
                "`/{name}` must be mounted on ordinary directory, and is a symbolic link"
            )),
            "{done:?}"
        );
    }
}

#[test]
fn masked_and_read_only_paths() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("cat /secret/file /plain 2>/dev/null; ls /secret; touch /secret/x 2>/dev/null || echo no; touch /fixed/x 2>/dev/null || echo no; echo x 2>/dev/null > /fixed-file || echo no; stat -c %t,%T /plain");
    let rootfs = bundle.rootfs();
    for name in ["secret", "fixed"] {
        fs::create_dir(rootfs.join(name)).unwrap();
    }
    for name in ["secret/file", "plain", "fixed-file"] {
        fs::write(rootfs.join(name), "secret\n").unwrap();
    }
    bundle.config["linux"]["maskedPaths"] = json!(["/secret", "/plain", "/not/there"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/fixed", "/fixed-file", "/not/there"]);
    let done = fixture.run(&bundle);
    assert_eq!(done.out, "no\nno\nno\n1,3\n", "{done:?}");
    // A null device of the image is not used.
    fs::remove_file(rootfs.join("dev/null")).ok();
    symlink("/plain", rootfs.join("dev/null")).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let done = fixture.run(&bundle);
    assert!(!done.out.contains("secret"), "{done:?}");
}

#[test]
fn a_read_only_dev_has_its_devices() {
    let fixture = fixture!();
    let done = fixture.sh("touch /dev/x 2>/dev/null || echo no; echo > /dev/null && head -c 2 /dev/zero | od -An -tx1; ls /dev/pts /dev/shm", |c| {
        for mount in c["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
    });
    assert!(done.out.starts_with("no\n 00 00\n"), "{done:?}");
}

#[test]
fn default_devices() {
    let fixture = fixture!();
    let done = fixture.sh("cd /dev; stat -c '%n %F %t,%T %a' null zero full random urandom tty; for link in ptmx fd stdin stdout stderr; do readlink $link; done", |_| {});
    let expected = [
        "null character special file 1,3 666",
        "zero character special file 1,5 666",
        "full character special file 1,7 666",
        "random character special file 1,8 666",
        "urandom character special file 1,9 666",
        "tty character special file 5,0 666",
        "pts/ptmx",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
    ];
    assert_eq!(done.out.lines().collect::<Vec<_>>(), expected, "{done:?}");
}

#[test]
fn listed_devices() {
    let fixture = fixture!();
    let done = fixture.sh("stat -c '%n %F %t,%T %a %u:%g' /dev/a /dev/b /deep/er/c /dev/null", |c| {
        c["linux"]["devices"] = json!([
            {"path": "/dev/a", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
            {"path": "/dev/b", "type": "b", "major": 7, "minor": 3, "fileMode": 0o600},
            {"path": "/deep/er/c", "type": "p", "major": 0, "minor": 0, "fileMode": 0o622},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o622, "gid": 7},
        ]);
    });
    let expected = [
        "/dev/a character special file a,e5 640 5:6",
        "/dev/b block special file 7,3 600 0:0",
        "/deep/er/c fifo 0,0 622 0:0",
        "/dev/null character special file 1,3 622 0:7",
    ];
    assert_eq!(done.out.lines().collect::<Vec<_>>(), expected, "{done:?}");
}

/// The host's mounts stay as they are, whatever propagation a container asks for, also where all of them are shared,
/// which is what systemd makes them.
#[test]
fn mounts_of_the_host_outlive_containers() {
    let fixture = fixture!();
    let volume = fixture.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    // A host of the test's own: shared mounts, and a volume with a mount below it.
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs tmpfs {0} && mkdir {0}/sub && mount -t tmpfs tmpfs {0}/sub && \
         touch {0}/sub/seen && mount --make-rshared / && sort /proc/self/mountinfo | cut -d' ' -f5 >{1}/before && \
         \"$@\"; sort /proc/self/mountinfo | cut -d' ' -f5 | diff {1}/before - >&2",
        volume.display(),
        fixture.path().display()
    );
    let mut bundle = fixture.bundle("ls /m/sub; (: > /m/sub/x) 2>/dev/null && echo writable; mount -t tmpfs x /m/sub 2>/dev/null; umount /m/sub 2>/dev/null; true");
    let plain = bundle.config.clone();
    for (propagation, own_users, option, writable) in [
        ("", false, "ro", true),
        ("", false, "rro", false),
        ("", false, "rshared", true),
        ("rslave", false, "rro", false),
        ("rshared", false, "rro", false),
        ("rshared", false, "rprivate", true),
        ("", true, "ro", true),
        ("", true, "rro", false),
    ] {
        let case = format!("{propagation} {own_users} {option}");
        bundle.config = plain.clone();
        bind(&mut bundle.config, &volume, &["rbind", option]);
        if !propagation.is_empty() {
            bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        }
        if own_users {
            let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
            bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            bundle.config["linux"]["uidMappings"] = map.clone();
            bundle.config["linux"]["gidMappings"] = map;
            for set in ["bounding", "effective", "permitted"] {
                bundle.config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
        }
        let id = new_id("host");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "oci", "--root"]);
        let output =
            command.arg(fixture.root()).args(["run", "--bundle", bundle.write(), &id]).output().unwrap();
        let done = crate::fixture::Done::of(&output);
        let expected = if writable { "seen\nwritable\n" } else { "seen\n" };
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, expected, ""), "{case}");
    }
}

/// Runs in a mount namespace with other cgroup hierarchies.
fn with_groups(fixture: &Fixture, bundle: &crate::fixture::Bundle, change: &str) -> crate::fixture::Done {
    let script = format!("{change} && exec \"$@\"");
    let id = new_id("devices");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_kiln"), "oci", "--root"]);
    command.arg(fixture.root()).args(["run", "--bundle", bundle.write(), &id]);
    crate::fixture::Done::of(&command.output().unwrap())
}

pub const ONLY_UNIFIED: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup";
pub const NO_UNIFIED: &str = "umount /sys/fs/cgroup/unified";

/// Devices are limited by rules, for all versions of cgroups.
#[test]
fn devices_are_guarded_by_rules() {
    let fixture = fixture!();
    // The memory device and the kernel's log; creating nodes needs CAP_MKNOD.
    let mut bundle = fixture.bundle(
        "mknod /tmp/kmsg c 1 11; mknod /tmp/mem c 1 1; mknod /tmp/null c 1 3; \
         for node in kmsg mem null; do if (: < /tmp/$node) 2>/dev/null; then echo $node opens; else echo $node; fi; done; \
         (: >> /tmp/kmsg) 2>/dev/null && echo written; \
         head -c 1 /dev/zero | wc -c; echo > /dev/null && echo null",
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.config["process"]["capabilities"][set] =
            json!(["CAP_MKNOD", "CAP_SYS_RAWIO", "CAP_SYSLOG", "CAP_SYS_ADMIN"]);
    }
    let deny = json!({"allow": false, "access": "rwm"});
    let all = json!({"allow": true, "access": "rwm"});
    let read = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let hybrid = fs::metadata("/sys/fs/cgroup/unified").is_ok();
    let mut places = vec![("as it is", "true")];
    if hybrid {
        places.extend([("version 1", NO_UNIFIED), ("version 2", ONLY_UNIFIED)]);
    } else {
        eprintln!("SKIPPED: other layouts of groups: this host has one only");
    }
    for (name, change) in places {
        for (rules, kmsg, written) in [
            (json!([deny]), false, false),
            (json!([deny, read]), true, false),
            (json!([deny, all]), true, true),
            (
                json!([all, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rw"}]),
                false,
                false,
            ),
        ] {
            bundle.config["linux"]["resources"] = json!({"devices": rules});
            let done = with_groups(&fixture, &bundle, change);
            let has = |line: &str| done.out.lines().any(|other| other == line);
            assert_eq!(done.code, 0, "{name}: {rules}: {done:?}");
            assert_eq!(has("kmsg opens"), kmsg, "{name}: {rules}: {done:?}");
            assert_eq!(has("written"), written, "{name}: {rules}: {done:?}");
            assert!(has("1") && has("null") && has("null opens"), "{name}: {rules}: {done:?}");
        }
    }
}

/// A node that the specification lists works only with a rule for it.
#[test]
fn listed_devices_need_rules() {
    let fixture = fixture!();
    // FUSE, which may be missing from the kernel; then it is another error.
    let mut bundle = fixture.bundle("(: < /dev/extra)");
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/extra", "type": "c", "major": 10, "minor": 229}]);
    let done = fixture.run(&bundle);
    assert!(done.err.contains("Operation not permitted"), "{done:?}");
    bundle.config["linux"]["resources"]["devices"] = json!([
        {"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]);
    let done = fixture.run(&bundle);
    assert!(!done.err.contains("Operation not permitted"), "{done:?}");
}

/// Options of crun: links at the ends of a bind mount's paths.
#[test]
fn links_are_mounted_and_copied_themselves() {
    let fixture = fixture!();
    let (file, link) = (fixture.path().join("file"), fixture.path().join("link"));
    fs::write(&file, "the file").unwrap();
    symlink(&file, &link).unwrap();
    let nowhere = fixture.path().join("nowhere");
    symlink("to/nothing", &nowhere).unwrap();
    let show = |command: &str, source: &Path, target: &str, options: Value| {
        let mut bundle = fixture.bundle(command);
        symlink("points/nowhere", bundle.rootfs().join("there")).unwrap();
        let mount = json!({"destination": target, "type": "bind", "source": source, "options": options});
        bundle.config["mounts"].as_array_mut().unwrap().push(mount);
        let done = fixture.run(&bundle);
        let entry = bundle.rootfs().join("there").read_link().unwrap();
        assert_eq!(entry, Path::new("points/nowhere"), "the image was changed");
        done
    };
    let done = show("cat /there", &link, "/there", json!(["bind", "dest-nofollow"]));
    assert_eq!((done.out.as_str(), done.err.as_str()), ("the file", ""));
    let done = show("readlink /there", &link, "/there", json!(["bind", "dest-nofollow", "src-nofollow"]));
    assert_eq!(done.out, format!("{}\n", file.display()), "{done:?}");
    let done = show("readlink /new/a/link", &nowhere, "/new/a/link", json!(["rbind", "copy-symlink"]));
    assert_eq!((done.out.as_str(), done.err.as_str()), ("to/nothing\n", ""));
    // Another source is mounted as ever.
    let done = show("cat /new/file", &file, "/new/file", json!(["rbind", "copy-symlink"]));
    assert_eq!((done.out.as_str(), done.err.as_str()), ("the file", ""));
}

/// `rbind` takes precedence over `bind`, in any order.
#[test]
fn a_recursive_bind_mount_stays_one() {
    let fixture = fixture!();
    for options in [json!(["rbind"]), json!(["bind", "rbind"]), json!(["rbind", "bind"])] {
        let done = fixture.sh("grep -c ' /sees/' /proc/self/mountinfo", |c| {
            let mount = json!({"destination": "/sees", "type": "bind", "source": "/sys", "options": options});
            c["mounts"].as_array_mut().unwrap().push(mount);
        });
        assert!(done.out.trim().parse::<u32>().unwrap() > 0, "{options}: {done:?}");
    }
}
