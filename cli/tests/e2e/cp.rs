//! `cp`.

use crate::diff::tar_names;
use crate::fixture::{Done, Fixture};
use crate::running::{end, start};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

const SCRIPT: &str = "mkdir -p /data/sub; echo one > /data/a; echo two > /data/sub/b; ln -s /data/a /data/link; \
    ln -s /data /dir; chmod 4755 /data/a; chown 12:34 /data/sub/b";

/// A stopped container and a running one with the same files.
fn both(fixture: &Fixture) -> std::process::Child {
    fixture.ok("pull -q busybox");
    assert_eq!(fixture.kiln(&["run", "--name", "stopped", "busybox", "sh", "-c", SCRIPT]).code, 0);
    start(fixture, "running", &[], SCRIPT)
}

fn with_input(fixture: &Fixture, arguments: &[&str], input: &[u8]) -> Done {
    let mut command = fixture.command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    Done::of(child.wait_with_output().unwrap())
}

#[test]
fn files_are_copied_out() {
    let fixture = fixture!();
    let running = both(&fixture);
    for name in ["stopped", "running"] {
        let out = fixture.path(name);
        fs::create_dir(&out).unwrap();
        let cp = |flags: &[&str], source: &str, target: &str| {
            let (source, target) = (format!("{name}:{source}"), out.join(target));
            let target = format!("{}{}", target.display(), if target.ends_with("slash") { "/" } else { "" });
            fixture.kiln(&[&["cp"], flags, &[source.as_str(), target.as_str()]].concat())
        };
        let read = |path: &str| fs::read_to_string(out.join(path)).unwrap_or_else(|error| error.to_string());
        assert_eq!(cp(&[], "/data/a", "").code, 0);
        assert_eq!(read("a"), "one\n");
        assert_eq!(cp(&["-q"], "data/a", "renamed").err, "");
        assert_eq!(read("renamed"), "one\n");
        // A directory that does not exist takes the name, one that exists gets it as a member.
        assert_eq!(cp(&[], "/data", "new").code, 0);
        assert_eq!((read("new/a"), read("new/sub/b")), ("one\n".into(), "two\n".into()));
        assert_eq!(cp(&[], "/data", "new").code, 0);
        assert_eq!(read("new/data/sub/b"), "two\n");
        assert_eq!(cp(&[], "/data/.", "contents").code, 0);
        assert_eq!(read("contents/a"), "one\n");
        assert_eq!(cp(&[], "/data/sub/.", "contents").code, 0);
        assert_eq!(read("contents/b"), "two\n");
        // Links: as they are, or what they lead to in the container.
        assert_eq!(cp(&[], "/data/link", "link").code, 0);
        assert_eq!(fs::read_link(out.join("link")).unwrap().to_str(), Some("/data/a"));
        assert_eq!(cp(&["-L"], "/dir/link", "followed").code, 0);
        assert_eq!(read("followed"), "one\n");
        assert_eq!(cp(&[], "/dir/sub", "through").code, 0);
        assert_eq!(read("through/b"), "two\n");
        // Owners and setuid bits only when they are asked for.
        let stat = |path: &str| fs::metadata(out.join(path)).unwrap();
        assert_eq!((stat("a").mode() & 0o7777, stat("new/sub/b").uid()), (0o755, 0));
        assert_eq!(cp(&["-a"], "/data", "owned").code, 0);
        assert_eq!(stat("owned/a").mode() & 0o7777, 0o4755);
        assert_eq!((stat("owned/sub/b").uid(), stat("owned/sub/b").gid()), (12, 34));
        for (source, target, text) in [
            ("/nosuch", "x", format!("Could not find the file /nosuch in container {name}")),
            ("/data/a/", "x", "not a directory".to_owned()),
            ("/data/a", "no/such/x", "no such directory".to_owned()),
            ("/data", "a", "cannot copy directory".to_owned()),
            ("/data/a", "slash", "no such directory".to_owned()),
        ] {
            let done = cp(&[], source, target);
            assert!(done.code == 1 && done.err.contains(&text), "{name} {source}: {}", done.err);
        }
        let output = fixture.command(&["cp", &format!("{name}:/data"), "-"]).output().unwrap();
        assert_eq!(tar_names(&output.stdout), ["data/", "data/a", "data/link", "data/sub/", "data/sub/b"]);
    }
    end(&fixture, "running", running);
}

#[test]
fn files_are_copied_in() {
    let fixture = fixture!();
    let running = both(&fixture);
    fixture.write("in/a", "new\n");
    fixture.write("in/deep/c", "three\n");
    fs::set_permissions(fixture.path("in/a"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(fixture.path("in/a"), Some(77), Some(88)).unwrap();
    symlink("a", fixture.path("in/link")).unwrap();
    let source = fixture.path("in").display().to_string();
    for name in ["stopped", "running"] {
        let cp = |flags: &[&str], from: &str, to: &str| {
            let (from, to) = (format!("{source}{from}"), format!("{name}:{to}"));
            let done = fixture.kiln(&[&["cp", "-q"], flags, &[from.as_str(), to.as_str()]].concat());
            assert_eq!((done.code, done.err.as_str()), (0, ""), "{from} {to}");
        };
        let back = |path: &str| {
            let output = fixture.command(&["cp", &format!("{name}:{path}"), "-"]).output().unwrap();
            let mut reader = kiln_image::tar::Reader::new(output.stdout.as_slice());
            let entry = reader.next_entry().unwrap().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut reader.content(), &mut text).unwrap();
            (entry.uid, entry.mode, text)
        };
        cp(&[], "/a", "/data/a");
        assert_eq!(back("/data/a"), (0, 0o640, "new\n".to_owned()));
        cp(&["-a"], "/a", "/dir/kept");
        assert_eq!(back("/data/kept"), (77, 0o640, "new\n".to_owned()));
        cp(&[], "", "/fresh");
        assert_eq!(back("/fresh/deep/c").2, "three\n");
        cp(&[], "", "/fresh/");
        assert_eq!(back("/fresh/in/deep/c").2, "three\n");
        cp(&[], "/.", "/etc");
        assert_eq!(back("/etc/deep/c").2, "three\n");
        cp(&["-L"], "/link", "/tmp/followed");
        assert_eq!(back("/tmp/followed").2, "new\n");
        let tar = fixture.command(&["cp", &format!("{name}:/fresh/deep"), "-"]).output().unwrap().stdout;
        assert_eq!(with_input(&fixture, &["cp", "-", &format!("{name}:/tmp")], &tar).code, 0);
        assert_eq!(back("/tmp/deep/c").2, "three\n");
        for (from, to, text) in [
            (format!("{source}/nosuch"), format!("{name}:/tmp"), "no such file or directory"),
            (format!("{source}/a"), format!("{name}:/no/such"), "Could not find the file /no in container"),
            (source.clone(), format!("{name}:/etc/passwd"), "cannot copy directory"),
            (source.clone(), format!("{name}:/etc/passwd/"), "not a directory"),
            (format!("{source}/deep"), format!("{name}:/data/a"), "cannot copy directory"),
            (format!("{source}/a"), format!("{name}:/newdir/"), "no such directory"),
            (source.clone(), "nosuch:/x".to_owned(), "No such container: nosuch"),
            (source.clone(), format!("{name}:"), "path in the container is empty"),
            ("stopped:/a".to_owned(), "running:/a".to_owned(), "copying between containers is not supported"),
            (source.clone(), "/tmp/x".to_owned(), "must specify at least one container"),
        ] {
            let done = fixture.kiln(&["cp", &from, &to]);
            assert!(done.code == 1 && done.err.contains(text), "{from} {to}: {} {}", done.code, done.err);
        }
        let done = with_input(&fixture, &["cp", "-", &format!("{name}:/etc/passwd")], &tar);
        assert!(done.code == 1 && done.err.contains("must be a directory"), "{}", done.err);
        let done = with_input(&fixture, &["cp", "-", &format!("{name}:/tmp")], b"this is no tar");
        assert_eq!(done.code, 1, "{}", done.err);
    }
    // What is mounted in a running container stays there.
    let (from, mounted) = (format!("{source}/a"), ["exec", "running", "cat", "/etc/hosts"]);
    let before = fixture.kiln(&mounted).out;
    let done = fixture.kiln(&["cp", &from, "running:/etc/hosts"]);
    assert!(done.code == 1 && done.err.contains("something is mounted there"), "{}", done.err);
    assert_eq!(fixture.kiln(&mounted).out, before);
    // The program of a running container sees what was copied, and the next start of a stopped one would.
    assert_eq!(fixture.kiln(&["exec", "running", "cat", "/etc/deep/c"]).out, "three\n");
    assert_eq!(fixture.words("cp x").code, 1);
    end(&fixture, "running", running);
    assert!(fixture.ok("diff stopped").contains("A /fresh/deep/c\n"));
}

/// Links of a container lead nowhere but into the container, and files of the kernel are not copied.
#[test]
fn containers_cannot_reach_files_of_the_host() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let secret = fixture.path("secret");
    fs::write(&secret, "secret\n").unwrap();
    let outside = fixture.path("outside");
    fs::create_dir(&outside).unwrap();
    let script = format!(
        "ln -s {} /file; ln -s {} /out; ln -s ../../../../../../.. /up; ln -s /proc/1/root /root1; \
         mknod /device c 1 3; mkfifo /fifo; mkdir /d; ln -s /etc /d/etc",
        secret.display(),
        outside.display()
    );
    let running = start(&fixture, "web", &[], &script);
    fixture.write("in/f", "x");
    let source = fixture.path("in/f").display().to_string();
    let target = fixture.path("got");
    fs::create_dir(&target).unwrap();
    let cp = |flags: &str, from: &str, to: &str| {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        fixture.kiln(&[&["cp", "-q"], &flags[..], &[from, to]].concat())
    };
    let got = target.display().to_string();
    assert!(cp("-L", "web:/file", &got).err.contains("Could not find the file"));
    assert!(cp("", &format!("web:/up{}", secret.display()), &got).err.contains("Could not find the file"));
    assert_eq!(cp("", &source, "web:/out/f").code, 1);
    assert_eq!(cp("", &source, &format!("web:/up{}/f", outside.display())).code, 1);
    for path in ["/proc/1/environ", "/sys/kernel"] {
        let done = cp("", &format!("web:{path}"), &got);
        assert_eq!(done.code, 1, "{path} {}", done.err);
    }
    assert!(cp("", &source, "web:/proc/sys/kernel/f").err.contains("belongs to the kernel"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    // A link of the kernel is one to a path like others.
    assert_eq!(cp("", "web:/root1/etc/passwd", &got).code, 0);
    let passwd = fs::read_to_string(target.join("passwd")).unwrap();
    assert_eq!(passwd, fixture.kiln(&["exec", "web", "cat", "/etc/passwd"]).out);
    // A pipe does not block, a device is left out.
    let done = fixture.kiln(&["cp", "web:/device", &got]);
    assert!(done.code == 0 && done.err.contains("left out"), "{}", done.err);
    assert_eq!(cp("", "web:/fifo", &got).code, 0);
    // A link that an earlier copy has brought does not lead the next one out.
    assert_eq!(cp("", "web:/d/.", &got).code, 0);
    assert_eq!(
        fixture.kiln(&["exec", "web", "sh", "-c", "rm /d/etc; mkdir /d/etc; echo x > /d/etc/evil"]).code,
        0
    );
    let done = cp("", "web:/d/.", &got);
    assert!(done.code == 1 && done.err.contains("cannot overwrite non-directory"), "{}", done.err);
    assert!(!std::path::Path::new("/etc/evil").exists());
    // A race: the container exchanges a directory for a link all the time.
    let script = "mkdir -p /r/d /r/other; echo inside > /r/d/secret; cd /r; while true; do mv d other/d; ln -s $1 d; rm d; mv other/d d; done";
    let parent = secret.parent().unwrap().display().to_string();
    let mut racer = fixture
        .command(&["exec", "web", "sh", "-c", script, "sh", &parent])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..60 {
        let _ = fs::remove_file(target.join("secret"));
        cp("-L", "web:/r/d/secret", &got);
        let text = fs::read_to_string(target.join("secret")).unwrap_or_default();
        assert!(text.is_empty() || text == "inside\n", "{text}");
        cp("", &source, "web:/r/d/written");
    }
    assert!(!fixture.path("written").exists());
    end(&fixture, "web", running);
    let _ = racer.wait();
}

#[test]
fn a_full_disk_is_named() {
    let fixture = fixture!();
    fixture.ok("run --name web busybox true");
    let small = fixture.path("small");
    fs::create_dir(&small).unwrap();
    let mount = |command: &mut std::process::Command| {
        command.arg(&small).status().is_ok_and(|status| status.success())
    };
    if !mount(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "small"])) {
        skip!("needs to mount a tmpfs");
    }
    let done = fixture.kiln(&["cp", "web:/bin/busybox", &small.display().to_string()]);
    assert!(mount(&mut std::process::Command::new("umount")));
    assert!(done.code == 1 && done.err.contains("the disk of the destination is full"), "{}", done.err);
}

/// As in Docker, the way to fill a volume, and to take its files out.
#[test]
fn volumes_of_containers_that_do_not_run_are_read_and_written() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.write("f.txt", "DATA\n");
    fixture.write("host/own", "of the host\n");
    let file = fixture.path("f.txt").display().to_string();
    let host = fixture.path("host").display().to_string();
    fixture.ok(&format!(
        "create --name box -v data:/data -v /anonymous -v {host}:/deep/host -v {host}:/closed:ro busybox true"
    ));
    for target in ["/data/f.txt", "/anonymous/f.txt", "/deep/host/f.txt"] {
        fixture.ok(&format!("cp {file} box:{target}"));
    }
    assert_eq!(fixture.ok("run --rm -v data:/p busybox cat /p/f.txt"), "DATA\n");
    assert_eq!(std::fs::read_to_string(fixture.path("host/f.txt")).unwrap(), "DATA\n");
    let closed = fixture.words(&format!("cp {file} box:/closed/no"));
    assert!(closed.code == 1 && closed.err.contains("Read-only file system"), "{}", closed.err);
    let out = fixture.path("out").display().to_string();
    fixture.ok(&format!("cp box:/deep/host {out}"));
    assert_eq!(std::fs::read_to_string(fixture.path("out/own")).unwrap(), "of the host\n");
    fixture.ok("start -a box");
    fixture.ok(&format!("cp box:/anonymous/f.txt {out}/back"));
    assert_eq!(std::fs::read_to_string(fixture.path("out/back")).unwrap(), "DATA\n");
    // A hostile container leads nowhere else: the link is followed inside.
    fixture.kiln(&["run", "--name", "link", "-v", "data:/data", "busybox", "sh", "-c", "ln -s / /data/up"]);
    let inside = fixture.words(&format!("cp link:/data/up{host}/own -"));
    assert!(inside.code == 1 && inside.err.contains("Could not find the file"), "{}", inside.err);
    fixture.ok("rm box link");
    fixture.ok("volume rm data");
}
