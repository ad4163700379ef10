//! Paths in specifications and images that point outside of the root or of a hierarchy.

use crate::attacks::{Make, Outside, add_mount, disguise, fifo, remove, sleeper};
use crate::fixture::{Done, new_id};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Ids are never paths, for any command.
#[test]
fn container_ids_are_no_paths() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let bundle = fixture.bundle("true");
    let dir = bundle.write();
    fs::create_dir_all(fixture.root()).unwrap();
    let (long, longer) = ("a".repeat(300), "a".repeat(5000));
    let absolute = outside.path.to_str().unwrap();
    for id in
        ["..", ".", "", "a/b", "a/../../outside", "../outside", absolute, "a\nb", "a b", "ä", &long, &longer]
    {
        for words in [
            &["create", "--bundle", dir][..],
            &["run", "--bundle", dir],
            &["state"],
            &["start"],
            &["kill"],
            &["delete"],
            &["delete", "--force"],
            &["pause"],
            &["ps"],
            &["exec"],
        ] {
            let tail: &[&str] = if words[0] == "exec" { &["true"] } else { &[] };
            let words: Vec<&str> = words.iter().chain(&[id]).chain(tail).copied().collect();
            let done = fixture.oci(&words);
            // Removing an impossible id succeeds.
            let is_fine = words[0] == "delete" && words[1] == "--force" && done.code == 0;
            assert!(is_fine || done.code != 0 && done.err.contains("kiln oci: "), "{words:?}: {done:?}");
            assert!(done.err.len() < 600, "{words:?}: the error is {} long", done.err.len());
        }
    }
    outside.assert_untouched("an id");
    assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 0, "something was made");
}

/// Cgroups are created below the hierarchies, for any path and annotation.
#[test]
fn cgroup_paths_stay_below_their_hierarchy() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let below_root = outside.path.to_str().unwrap().trim_start_matches('/').to_owned();
    let name = new_id("climb");
    let find = |name: &str| {
        let found = Command::new("find").args(["/sys/fs/cgroup", "-name", name]).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    for path in [
        format!("/../../{name}"),
        format!("../../{name}"),
        format!("/{}{below_root}/{name}", "../".repeat(12)),
    ] {
        let bundle = {
            let mut bundle =
                fixture.bundle("cat /proc/self/cgroup > /tmp/groups; while :; do sleep 0.02; done");
            bundle.config["linux"]["cgroupsPath"] = json!(path);
            bundle.config["annotations"] = json!({
                "run.oci.delegate-cgroup": format!("../../{below_root}"),
                "run.oci.systemd.subgroup": format!("../../{below_root}"),
                "run.oci.hooks.stdout": outside.file(),
                "run.oci.hooks.stderr": outside.file(),
            });
            bundle
        };
        let id = new_id("climbing");
        let done = fixture.detached(&["run", "-d", "--bundle", bundle.write(), &id]);
        if done.code == 0 {
            assert!(!find(&name).is_empty(), "there is no group: this shows nothing");
            for below in ["../..", "../other", "/../..", "a/../../.."] {
                let done = fixture.oci(&["exec", "--cgroup", below, &id, "true"]);
                assert!(done.code == 255 && done.err.contains("sub cgroup path"), "{below}: {done:?}");
            }
        }
        fixture.oci(&["delete", "--force", &id]);
        outside.assert_untouched(&path);
        for above in ["/sys/fs", "/sys", "/", "/sys/fs/cgroup/.."] {
            assert!(!Path::new(above).join(&name).exists(), "{path} led to {above}");
        }
        assert_eq!(find(&name), "", "groups are left");
    }
    let done = fixture.sh("true", |config| {
        config["linux"]["resources"] = json!({ "unified": { "../../x": "1", "cgroup.procs/../../y": "1" } });
    });
    assert!(done.code != 0, "{done:?}");
}

/// Hooks need absolute paths, so that no working directory decides which program runs.
#[test]
fn hooks_are_whole_paths() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for path in ["hook", "./hook", "../hook", ""] {
            let mut bundle = fixture.bundle("true");
            for dir in [bundle.dir.clone(), bundle.rootfs()] {
                let script = format!("#!/bin/sh\necho ran > {}\n", outside.file().display());
                fs::write(dir.join("hook"), script).unwrap();
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(dir.join("hook"), PermissionsExt::from_mode(0o755)).unwrap();
            }
            bundle.config["hooks"] = json!({ kind: [{ "path": path }] });
            let mut command = fixture.command(&["run", "--bundle", bundle.write(), &new_id("hook")]);
            let done = Done::in_time(command.current_dir(&bundle.dir));
            assert!(
                done.code != 0 && done.err.contains("is not an absolute path"),
                "{kind} {path}: {done:?}"
            );
            outside.assert_untouched(kind);
        }
    }
}

/// Device nodes are created inside the root, for any path.
#[test]
fn paths_of_devices_do_not_climb() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let below_root = outside.path.to_str().unwrap().trim_start_matches('/').to_owned();
    for path in [
        format!("/dev/{}{below_root}/node", "../".repeat(12)),
        "/etc/../../../node".to_owned(),
        format!("/link{}/node", outside.path.display()),
        "/out/node".to_owned(),
        "/out/directory/node".to_owned(),
        "/out/file".to_owned(),
        "/".to_owned(),
        "/dev/..".to_owned(),
        "/proc/self/cwd/node".to_owned(),
    ] {
        for change in ["", "no groups"] {
            let mut bundle = fixture.bundle("true");
            symlink("/", bundle.rootfs().join("link")).unwrap();
            symlink(&outside.path, bundle.rootfs().join("out")).unwrap();
            bundle.config["linux"]["devices"] = json!([{ "path": path, "type": "c", "major": 1, "minor": 5, "fileMode": 438, "uid": 0, "gid": 0 }]);
            let mut command = fixture.command(&[]);
            if change == "no groups" {
                command.args(["--cgroup-manager", "disabled"]);
            }
            command.args(["run", "--bundle", bundle.write(), &new_id("device")]);
            let done = Done::in_time(&mut command);
            assert!(done.code == 0 || done.err.starts_with("kiln oci: "), "{path}: {done:?}");
            assert!(!done.err.contains("panicked"), "{path}: {done:?}");
            outside.assert_untouched(&path);
            assert!(!Path::new("/node").exists() && !fixture.path().join("node").exists(), "{path} climbed");
        }
    }
}

/// Mounts are attached inside the root, for any destination, and mount points are created there.
#[test]
fn destinations_of_mounts_do_not_climb() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.to_str().unwrap().to_owned();
    let below_root = whole.trim_start_matches('/');
    let up = "../".repeat(12);
    let given = fixture.path().join("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "given\n").unwrap();
    for destination in [
        format!("/{up}{below_root}/new"),
        format!("/root{whole}"),
        format!("/link{whole}/new/deep"),
        format!("/link{whole}"),
        "/climbing/new".to_owned(),
        "/climbing/directory".to_owned(),
        "/out".to_owned(),
        "/out/new/deep".to_owned(),
        "/out/file".to_owned(),
        "/out/directory/../../new".to_owned(),
        "/circle/new".to_owned(),
        "/proc/self/root/new".to_owned(),
        "/proc/self/cwd/new".to_owned(),
        "/proc/self/fd/3/new".to_owned(),
        "/proc/self/fd/9".to_owned(),
        "/sys/../out/new".to_owned(),
        "/..".to_owned(),
        "/".to_owned(),
    ] {
        for source in [
            json!({ "type": "tmpfs", "source": "tmpfs" }),
            json!({ "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
            json!({ "type": "bind", "source": given, "options": ["bind"] }),
            json!({ "type": "bind", "source": given.join("file"), "options": ["bind"] }),
        ] {
            let mut bundle = fixture.bundle("true");
            let rootfs = bundle.rootfs();
            symlink("/", rootfs.join("link")).unwrap();
            symlink(format!("{up}{below_root}"), rootfs.join("climbing")).unwrap();
            symlink(&outside.path, rootfs.join("out")).unwrap();
            symlink("circle", rootfs.join("circle")).unwrap();
            let mut mount = source.clone();
            mount["destination"] = json!(destination);
            add_mount(&mut bundle.config, mount);
            let done = fixture.run(&bundle);
            let what = format!("{destination} {source}");
            assert!(done.code == 0 || done.err.starts_with("kiln oci: "), "{what}: {done:?}");
            assert!(!done.err.contains("panicked"), "{what}: {done:?}");
            outside.assert_untouched(&what);
            let listing = fs::read_dir(&given).unwrap().count();
            assert_eq!(
                (listing, fs::read_to_string(given.join("file")).unwrap().as_str()),
                (1, "given\n"),
                "{what}"
            );
            fs::remove_dir_all(&bundle.dir).unwrap();
        }
    }
    // One that lies on another, through it, and in it.
    let mut bundle = fixture.bundle("cat /a/b/file; ls /a; grep -c ' /a' /proc/self/mountinfo");
    symlink("/a", bundle.rootfs().join("b")).unwrap();
    for (destination, mount) in [
        ("/a", json!({ "type": "tmpfs", "source": "tmpfs" })),
        ("/b/b", json!({ "type": "tmpfs", "source": "tmpfs" })),
        ("/a/b", json!({ "type": "bind", "source": given, "options": ["bind", "ro"] })),
    ] {
        let mut mount = mount;
        mount["destination"] = json!(destination);
        add_mount(&mut bundle.config, mount);
    }
    let done = fixture.run(&bundle);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("given\nb\n3\n", ""));
}

/// `tmpcopyup` copies links as links and does not block on pipes; targets of links are not copied.
#[test]
fn copying_up_follows_no_links() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let mut bundle = fixture.bundle("readlink /data/link; readlink /data/directory; cat /data/link /data/directory/file 2>/dev/null; test -p /data/fifo && cat /data/plain; rm -r /data/*");
    let data = bundle.rootfs().join("data");
    fs::create_dir(&data).unwrap();
    symlink(outside.file(), data.join("link")).unwrap();
    symlink(&outside.path, data.join("directory")).unwrap();
    fs::write(data.join("plain"), "plain\n").unwrap();
    fifo(&data.join("fifo"));
    add_mount(
        &mut bundle.config,
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    let done = fixture.run(&bundle);
    let expected = format!("{}\n{}\nplain\n", outside.file().display(), outside.path.display());
    assert_eq!((done.out, done.err.as_str()), (expected, ""));
    assert!(data.join("plain").exists(), "the image was changed");
    outside.assert_untouched("tmpcopyup");
}

/// A root that is a link is resolved once, and confines the container.
#[test]
fn a_root_behind_a_link_confines_containers() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let below_root = outside.file().to_str().unwrap().trim_start_matches('/').to_owned();
    let mut bundle = fixture.bundle(&format!(
        "test -e /{below_root} || test -e /{}{below_root} || echo inside",
        "../".repeat(12)
    ));
    symlink("rootfs", bundle.dir.join("link")).unwrap();
    bundle.config["root"]["path"] = json!("link");
    let done = fixture.run(&bundle);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("inside\n", ""));
    for (path, kind) in [("fifo", "fifo"), ("file", "file"), ("missing", "")] {
        if !kind.is_empty() {
            disguise(kind, &bundle.dir.join(path), &outside);
        }
        bundle.config["root"]["path"] = json!(path);
        let done = fixture.run(&bundle);
        assert!(done.code == 1 && done.err.contains(path), "{done:?}");
    }
}

/// CVE-2024-9676: a user database that is a link is looked for inside; one that is a pipe, a device, a directory or huge
/// delays no start, and fills no memory.
#[test]
fn user_databases_are_plain_files() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    fs::write(outside.path.join("directory/passwd"), "app:x:0:0::/root:/bin/sh\n").unwrap();
    let (id, bundle) = sleeper(&fixture, |_| {});
    let passwd = bundle.rootfs().join("etc/passwd");
    // Not by `id`, which reads the database itself.
    let show = "grep Uid /proc/self/status | cut -f 2; echo $HOME";
    let as_app = || fixture.oci(&["exec", "--user", "app", &id, "sh", "-c", show]);
    assert_eq!(as_app().out, "1000\n/home/app\n");
    // A link inside is fine.
    fs::rename(&passwd, bundle.rootfs().join("root/passwd")).unwrap();
    symlink("../../../root/passwd", &passwd).unwrap();
    assert_eq!(as_app().out, "1000\n/home/app\n");
    remove(&passwd);
    symlink(outside.path.join("directory/passwd"), &passwd).unwrap();
    let done = as_app();
    assert!(done.code == 255 && done.err.contains("unable to find user app"), "{done:?}");
    let refused: [(&str, Make); 5] = [
        ("a pipe", fifo),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a link to a device", |path| symlink("/dev/zero", path).unwrap()),
        ("a link to /proc", |path| symlink("/proc/kmsg", path).unwrap()),
        ("huge", |path| {
            fs::write(path, "app:x:0:0::/:\n").unwrap();
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100 << 20).unwrap();
        }),
    ];
    for (what, make) in refused {
        remove(&passwd);
        make(&passwd);
        let done = as_app();
        assert!(done.code == 255 && done.err.contains("passwd"), "{what}: {done:?}");
        // A numeric id needs no entry.
        let done = fixture.oci(&["exec", "--user", "7", &id, "sh", "-c", show]);
        assert_eq!(done.out, "7\n/\n", "{what}: {done:?}");
        let mut fresh = fixture.bundle(show);
        remove(&fresh.rootfs().join("etc/passwd"));
        make(&fresh.rootfs().join("etc/passwd"));
        fresh.config["process"]["user"] = json!({ "uid": 7, "gid": 7 });
        let done = fixture.run(&fresh);
        assert_eq!(
            done.out,
            "7
/
",
            "{what}: {done:?}"
        );
    }
    fs::remove_file(outside.path.join("directory/passwd")).unwrap();
    outside.assert_untouched("a user database");
}
