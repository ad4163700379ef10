//! Mounts and volumes of containers: `-v`, `--mount`, `--tmpfs`, `--volumes-from`.

use crate::fixture::{Done, Fixture};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Runs a script in a new container of busybox; the flags are words.
pub fn sh(fixture: &Fixture, flags: &str, script: &str) -> Done {
    let mut arguments: Vec<&str> = vec!["run", "--rm", "--network", "none"];
    arguments.extend(flags.split_whitespace());
    arguments.extend(["busybox", "sh", "-c", script]);
    fixture.kiln(&arguments)
}

/// Output of a script that must succeed.
#[track_caller]
pub fn out(fixture: &Fixture, flags: &str, script: &str) -> String {
    let done = sh(fixture, flags, script);
    assert_eq!(done.code, 0, "{flags}: {}{}", done.out, done.err);
    done.out
}

#[track_caller]
fn refused(fixture: &Fixture, flags: &str, reason: &str) {
    let done = sh(fixture, flags, "echo ran");
    assert_eq!((done.code, done.out.as_str()), (125, ""), "{flags}: {}", done.err);
    assert!(done.err.contains(reason), "{flags}: {}", done.err);
}

fn volumes(fixture: &Fixture) -> Vec<String> {
    let entries = fs::read_dir(fixture.root().join("volumes")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn data(fixture: &Fixture, volume: &str) -> PathBuf {
    fixture.root().join("volumes").join(volume).join("_data")
}

#[test]
fn host_directories_are_mounted() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("host/file", "from the host\n");
    let host = fixture.path("host").display().to_string();
    assert_eq!(out(&fixture, &format!("-v {host}:/m"), "cat /m/file; echo new > /m/new"), "from the host\n");
    assert_eq!(fs::read_to_string(fixture.path("host/new")).unwrap(), "new\n");
    let script = "cat /m/file; touch /m/x 2>&1";
    for flags in [format!("-v {host}:/m:ro"), format!("--mount type=bind,src={host},dst=/m,readonly")] {
        let done = sh(&fixture, &flags, script);
        assert!(done.code == 1 && done.out.contains("Read-only file system"), "{flags}: {}", done.out);
    }
    // A file, over one of the image and over one of the container's own.
    assert_eq!(
        out(
            &fixture,
            &format!("-v {host}/file:/etc/hosts -v {host}/file:/etc/group"),
            "cat /etc/hosts /etc/group"
        ),
        "from the host\nfrom the host\n"
    );
    // Relative to the working directory of the command.
    let mut command = fixture.command(&["run", "--rm", "-v", "./host:/m", "busybox", "cat", "/m/file"]);
    assert_eq!(Done::of(command.current_dir(fixture.path(".")).output().unwrap()).out, "from the host\n");
    // A deeper mount is made after the one above it, in any order of the flags.
    fixture.write("below/inner", "inner\n");
    let below = fixture.path("below").display().to_string();
    assert_eq!(
        out(&fixture, &format!("-v {below}:/m/deep/er -v {host}:/m"), "cat /m/deep/er/inner /m/file"),
        "inner\nfrom the host\n"
    );
}

#[test]
fn missing_sources_are_created_or_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let missing = fixture.path("not/there").display().to_string();
    refused(
        &fixture,
        &format!("--mount type=bind,src={missing},dst=/m"),
        &format!("invalid mount config for type \"bind\": bind source path does not exist: {missing}"),
    );
    assert!(!Path::new(&missing).exists());
    assert_eq!(out(&fixture, &format!("-v {missing}:/m"), "ls -a /m"), ".\n..\n");
    assert!(Path::new(&missing).is_dir());
    let created = fixture.path("created").display().to_string();
    out(&fixture, &format!("--mount type=bind,src={created},dst=/m,bind-create-src"), "true");
    assert!(Path::new(&created).is_dir());
}

#[test]
fn wrong_mounts_are_refused_before_anything_is_created() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for (flags, reason) in [
        ("-v /a:/b:zz", "invalid mode: zz"),
        ("-v a:b", "mount path must be absolute"),
        ("-v /a:/", "destination can't be '/'"),
        ("-v ../x/y:/m:ro:x", "too many colons"),
        ("-v a+b:/m", "includes invalid characters for a local volume name"),
        ("-v vol:/m:rshared", "invalid mode: rshared"),
        ("--mount type=bind,src=/tmp", "target is required"),
        ("--mount type=nope,dst=/m", "mount type unknown"),
        ("--mount nope=1,dst=/m", "unknown option 'nope'"),
        ("--mount type=volume,src=v1,dst=/m,volume-driver=nfs", "not supported"),
        ("--volume-driver nfs -v v1:/m", "not supported"),
        ("--tmpfs /m:what", "invalid tmpfs option"),
        ("-v v1:/m -v v2:/m", "Duplicate mount point: /m"),
        ("--volumes-from nosuch", "No such container: nosuch"),
        ("--mount type=image,src=nosuch,dst=/m", "nosuch"),
        ("-v v1:/proc/sys", "`/proc/sys` cannot be mounted on: it is part of /proc"),
        ("-v /tmp:/proc", "what is mounted on `/proc` is not a proc file system"),
    ] {
        refused(&fixture, flags, reason);
    }
    assert_eq!(fixture.ok("ps -aq"), "");
}

#[test]
fn volumes_outlive_containers_and_begin_with_the_images_files() {
    let fixture = fixture!();
    fixture.build(
        "seeded",
        &fixture.context(
            "c",
            "FROM busybox\nRUN mkdir -p /seed/sub && echo image > /seed/file && ln -s file /seed/link \
         && chown -R 7:8 /seed && chmod 711 /seed && ln /seed/file /seed/hard\nVOLUME /seed",
        ),
    );
    let run = |flags: &str, script: &str| {
        let mut arguments: Vec<&str> = vec!["run", "--rm"];
        arguments.extend(flags.split_whitespace());
        arguments.extend(["seeded", "sh", "-c", script]);
        let done = fixture.kiln(&arguments);
        assert_eq!(done.code, 0, "{flags}: {}", done.err);
        done.out
    };
    let shown =
        run("-v data:/seed", "cat /seed/link; stat -c '%a %u %g' /seed; echo more > /seed/more; ls /seed");
    assert_eq!(shown, "image\n711 7 8\nfile\nhard\nlink\nmore\nsub\n");
    assert_eq!(run("-v data:/other:ro", "cat /other/more"), "more\n");
    assert_eq!(fs::metadata(data(&fixture, "data").join("hard")).unwrap().nlink(), 2);
    // What a volume has is kept, and an empty one is filled at its first use, unless that is not wanted.
    assert_eq!(run("-v other:/nothing", "ls /nothing"), "");
    assert_eq!(run("-v other:/seed:nocopy", "ls /seed"), "");
    assert_eq!(run("--mount src=other,dst=/seed", "cat /seed/file"), "image\n");
    assert_eq!(volumes(&fixture), ["data", "other"]);
    let done = fixture.kiln(&["run", "--rm", "-v", "x1:/seed/file", "seeded", "true"]);
    assert!(done.code == 125 && done.err.contains("cannot mount volume over existing file"), "{}", done.err);
    assert_eq!(volumes(&fixture), ["data", "other"]);
    // Part of a volume.
    assert_eq!(run("--mount src=data,dst=/m,volume-subpath=sub", "touch /m/made; ls /m"), "made\n");
    assert!(data(&fixture, "data").join("sub/made").exists());
    std::os::unix::fs::symlink("/etc", data(&fixture, "data").join("out")).unwrap();
    let done =
        fixture.kiln(&["run", "--rm", "--mount", "src=data,dst=/m,volume-subpath=out", "busybox", "true"]);
    assert!(done.code == 125 && done.err.contains("cannot access path out of data"), "{}", done.err);
}

#[test]
fn volumes_without_a_name_are_removed_with_their_container() {
    let fixture = fixture!();
    fixture.build("with-volume", &fixture.context("c", "FROM busybox\nVOLUME /one /two"));
    assert_eq!(fixture.ok("run --rm -v /three with-volume ls -d /one /two /three"), "/one\n/three\n/two\n");
    assert_eq!(volumes(&fixture), Vec::<String>::new(), "--rm removes them");
    assert_eq!(fixture.kiln(&["run", "--rm", "with-volume", "/nosuch"]).code, 127);
    assert_eq!(volumes(&fixture), Vec::<String>::new(), "also after a failed start");
    assert_eq!(fixture.kiln(&["run", "--name", "!", "with-volume", "true"]).code, 125);
    assert_eq!(volumes(&fixture), Vec::<String>::new(), "and after a failed creation");

    fixture.ok("run --name kept -v named:/named with-volume true");
    let shown = volumes(&fixture);
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown.iter().filter(|name| name.len() == 64).count() == 2, "{shown:?}");
    // The user's mount replaces the image's volume.
    fixture.ok("run --rm --tmpfs /one -v named:/two with-volume true");
    assert_eq!(volumes(&fixture).len(), 3);
    fixture.ok("run --name second --volumes-from kept:ro busybox ls /one /named");
    assert_eq!(fixture.ok("rm -v kept"), "kept\n");
    assert_eq!(volumes(&fixture).len(), 3, "another container uses them");
    fixture.ok("rm -v second");
    assert_eq!(volumes(&fixture), ["named"]);
    fixture.ok("run --name third with-volume true");
    fixture.ok("rm third");
    assert_eq!(volumes(&fixture).len(), 3, "without -v they stay");
}

#[test]
fn volumes_come_from_other_containers() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("host/file", "host\n");
    let host = fixture.path("host").display().to_string();
    fixture.ok(&format!("run --name first -v {host}:/h -v shared:/s --tmpfs /t busybox touch /s/made"));
    let script = "cat /h/file; ls /s; grep -c ' /t ' /proc/self/mounts";
    assert_eq!(
        sh(&fixture, "--volumes-from first", script).out,
        "host\nmade\n0\n",
        "no file systems in memory"
    );
    let done = sh(&fixture, "--volumes-from first:ro", "touch /s/x 2>&1");
    assert!(done.code == 1 && done.out.contains("Read-only"), "{}", done.out);
    assert_eq!(out(&fixture, "--volumes-from first -v other:/s", "ls /s; cat /h/file"), "host\n");
    refused(&fixture, "--volumes-from first:zz", "invalid volumes-from specification");
    fixture.ok("rm first");
}

#[test]
fn file_systems_in_memory() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let table = out(
        &fixture,
        "--tmpfs /t --tmpfs /u:size=1m,exec,mode=1770 --mount type=tmpfs,dst=/v,tmpfs-size=2m,ro",
        "grep -E ' /[tuv] ' /proc/self/mounts; stat -c %a /u",
    );
    let line =
        |path: &str| table.lines().find(|line| line.contains(path)).unwrap_or_else(|| panic!("{table}"));
    assert!(line(" /t ").contains("rw,nosuid,nodev,noexec"), "{table}");
    assert!(line(" /u ").contains("size=1024k") && !line(" /u ").contains("noexec"), "{table}");
    assert!(line(" /v ").contains(" ro,") && line(" /v ").contains("size=2048k"), "{table}");
    assert!(table.ends_with("1770\n"), "{table}");
    // Over a default mount of the container.
    let shm = out(
        &fixture,
        "--tmpfs /dev/shm:size=1m",
        "grep -c ' /dev/shm ' /proc/self/mounts; df -k /dev/shm | tail -1",
    );
    assert!(shm.starts_with("1\n") && shm.contains(" 1024 "), "{shm}");
}

#[test]
fn files_of_an_image_are_mounted() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.build("data", &fixture.context("c", "FROM scratch\nCOPY Dockerfile /sub/file\n"));
    let script = "cat /i/sub/file | head -1; touch /i/x 2>&1; true";
    let shown = out(&fixture, "--mount type=image,src=data,dst=/i", script);
    assert!(shown.starts_with("FROM scratch\n") && shown.contains("Read-only"), "{shown}");
    // The container keeps the image's layers.
    fixture.ok("run --name keeps --mount type=image,src=data,dst=/i busybox true");
    fixture.ok("rmi -f data");
    fixture.ok("builder prune -af");
    fixture.ok("rm keeps");
}

#[test]
fn owners_are_changed_on_request() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("host/dir/file", "x");
    std::os::unix::fs::symlink("/etc/hostname", fixture.path("host/link")).unwrap();
    let host = fixture.path("host").display().to_string();
    assert_eq!(
        out(
            &fixture,
            &format!("-u nobody -v {host}:/m:U"),
            "echo y > /m/dir/file; stat -c %u /m /m/dir/file"
        ),
        "65534\n65534\n"
    );
    assert_eq!(fs::metadata("/etc/hostname").map(|metadata| metadata.uid()).unwrap_or(0), 0);
}

/// A mount below a host directory is read-only with it, and propagates only on request.
#[test]
fn mounts_below_host_directories() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let host = fixture.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new("mount").args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    let (top, sub) = (host.display().to_string(), host.join("sub").display().to_string());
    if !mount(&["-t", "tmpfs", "top", &top]) {
        skip!("cannot mount here");
    }
    fs::create_dir_all(&sub).unwrap();
    assert!(mount(&["--make-rprivate", &top]) && mount(&["-t", "tmpfs", "sub", &sub]));
    fs::write(host.join("sub/file"), "below\n").unwrap();
    let _unmount = Unmount(vec![sub.clone(), top.clone()]);
    assert_eq!(out(&fixture, &format!("-v {top}:/m"), "cat /m/sub/file"), "below\n");
    let bind = |options: &str| format!("--mount type=bind,src={top},dst=/m,{options}");
    assert_eq!(out(&fixture, &bind("bind-recursive=disabled"), "ls /m/sub"), "");
    let touch = |flags: &str| sh(&fixture, flags, "touch /m/sub/x 2>/dev/null && echo written").out;
    assert_eq!(touch(&bind("readonly")), "", "read-only with the mounts below");
    assert_eq!(touch(&bind("readonly,bind-recursive=writable")), "written\n");
    refused(&fixture, &format!("-v {top}:/m:rshared"), "but it is not a shared mount");
    refused(&fixture, &format!("-v {top}:/m:rslave"), "but it is not a shared or slave mount");
    assert!(mount(&["--make-shared", &top]));
    let fields = out(&fixture, &format!("-v {top}:/m:rslave"), "grep ' /m ' /proc/self/mountinfo");
    assert!(fields.contains("master:"), "{fields}");
    let fields = out(&fixture, &format!("-v {top}:/m:rshared"), "grep ' /m ' /proc/self/mountinfo");
    assert!(fields.contains("shared:"), "{fields}");
}

struct Unmount(Vec<String>);

impl Drop for Unmount {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::process::Command::new("umount").args(["-l", path]).status();
        }
    }
}
