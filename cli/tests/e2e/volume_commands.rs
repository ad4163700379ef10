//! `kiln volume`: create, ls, inspect, rm, prune, export, import, and volumes that are mounts.

use crate::fixture::{Done, Fixture};
use crate::orphans::kill_monitor;
use crate::running::{end, start};
use crate::volumes::{out, sh};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn data(fixture: &Fixture, volume: &str) -> PathBuf {
    fixture.root().join("volumes").join(volume).join("_data")
}

/// Directories of volumes in the store, with those that are being made.
fn directories(fixture: &Fixture) -> Vec<String> {
    let entries = fs::read_dir(fixture.root().join("volumes")).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn fails(fixture: &Fixture, line: &str, message: &str) -> Done {
    let done = fixture.words(line);
    assert_eq!(done.code, 1, "kiln {line}: {}{}", done.out, done.err);
    assert!(done.err.starts_with(&format!("ERROR: {message}")), "kiln {line}: {}", done.err);
    done
}

#[test]
fn volumes_are_created_listed_and_inspected() {
    let fixture = fixture!();
    assert_eq!(fixture.ok("volume ls"), "DRIVER    VOLUME NAME\n");
    assert_eq!(fixture.ok("volume create web --label env=test --label empty"), "web\n");
    assert_eq!(fixture.ok("volume create db.data-1"), "db.data-1\n");
    assert_eq!(fixture.ok("volume create web"), "web\n", "it exists");
    let anonymous = fixture.ok("volume create").trim().to_owned();
    assert!(anonymous.len() == 64 && anonymous.bytes().all(|b| b.is_ascii_hexdigit()), "{anonymous}");
    let mut names = vec!["db.data-1", "web", anonymous.as_str()];
    names.sort_unstable();
    assert_eq!(fixture.ok("volume ls -q").lines().collect::<Vec<_>>(), names);
    assert_eq!(fixture.ok("volume list -qf name=web"), "web\n");
    assert_eq!(fixture.ok("volume ls -qf label=com.docker.volume.anonymous"), format!("{anonymous}\n"));
    let shown = fixture.ok("volume ls -f name=web --format json");
    let mountpoint = data(&fixture, "web").display().to_string();
    assert_eq!(
        shown,
        format!(
            "{{\"Availability\":\"N/A\",\"Driver\":\"local\",\"Group\":\"N/A\",\"Labels\":\"empty=,env=test\",\"Links\":\
             \"N/A\",\"Mountpoint\":\"{mountpoint}\",\"Name\":\"web\",\"Scope\":\"local\",\"Size\":\"N/A\",\"Status\":\"N/A\"}}\n"
        )
    );
    let done = fixture.kiln(&[
        "volume",
        "ls",
        "-f",
        "name=web",
        "--format",
        "table {{.Name}}\t{{.Label \"env\"}}\t{{.Links}}",
    ]);
    assert_eq!(
        done.out.split_whitespace().collect::<Vec<_>>(),
        "VOLUME NAME env LINKS web test N/A".split(' ').collect::<Vec<_>>()
    );
    assert!(mountpoint.contains("/volumes/web/"));
    let inspected: serde_json::Value = serde_json::from_str(&fixture.ok("volume inspect db.data-1")).unwrap();
    let created = inspected[0]["CreatedAt"].as_str().unwrap();
    assert!(created.ends_with('Z') && !created.contains('.'), "{created}");
    let expected = serde_json::json!([{
        "CreatedAt": created, "Driver": "local", "Labels": null, "Mountpoint": data(&fixture, "db.data-1"),
        "Name": "db.data-1", "Options": null, "Scope": "local",
    }]);
    assert_eq!(inspected, expected);
    assert_eq!(fixture.ok("volume inspect -f {{.Labels.env}}:{{.Driver}} web"), "test:local\n");
    assert_eq!(fixture.ok("inspect -f {{.Name}} web"), "web\n");
    let done = fixture.words("volume inspect nosuch");
    assert_eq!((done.code, done.out.as_str()), (1, "[]\n"));
    assert!(done.err.starts_with("ERROR: get nosuch: no such volume\n"), "{}", done.err);
    let done = fixture.words("volume inspect web a/b wib");
    assert!(done.code == 1 && done.out.contains("\"Name\": \"web\""), "{}", done.out);
    assert!(
        done.err.contains("get a/b: no such volume") && done.err.contains("did you mean web?"),
        "{}",
        done.err
    );
    assert_eq!(fixture.words("completion-names volume rm db").out, "db.data-1\n");
}

#[test]
fn volumes_that_cannot_be_created() {
    let fixture = fixture!();
    for (line, message) in [
        (
            "volume create -d nosuch x1",
            "create x1: error looking up volume plugin nosuch: plugin \"nosuch\" not found",
        ),
        ("volume create a/b", "create a/b: \"a/b\" includes invalid characters for a local volume name"),
        ("volume create ..", "create ..: \"..\" includes invalid characters for a local volume name"),
        ("volume create .x", "create .x: \".x\" includes invalid characters for a local volume name"),
        ("volume create a", "create a: volume name is too short, names should be at least two"),
        ("volume create -o nosuch=1 x1", "create x1: invalid option: \"nosuch\""),
        ("volume create -o type=tmpfs x1", "create x1: missing required option: \"device\""),
        (
            "volume create -o type=none -o device=/tmp x1",
            "create x1: type \"none\" is a directory of the host: it needs o=bind",
        ),
        ("volume create -o size=1g x1", "create x1: quota size requested but no quota support"),
        ("volume create -o type=sysfs -o device=x x1", "create x1: type \"sysfs\" is not supported"),
        (
            "volume create --uid 5 -o type=none -o device=/tmp -o o=bind x1",
            "create x1: an owner or mode can be set",
        ),
    ] {
        let done = fails(&fixture, line, message);
        assert_eq!(done.out, "", "{line}");
    }
    let long = "x".repeat(256);
    fails(&fixture, &format!("volume create {long}"), &format!("create {long}: volume name is longer"));
    assert_eq!(fixture.words("volume create --mode 999 x1").code, 125);
    assert_eq!(fixture.words("volume create one two").code, 1);
    assert_eq!(fixture.ok("volume ls -q"), "");
    assert_eq!(directories(&fixture), Vec::<String>::new());
    // The same name with other options.
    let memory = "volume create -o type=tmpfs -o device=tmpfs -o o=size=1m memory";
    assert_eq!(fixture.ok(memory), "memory\n");
    assert_eq!(fixture.ok(memory), "memory\n");
    fails(
        &fixture,
        "volume create -o type=tmpfs -o device=tmpfs memory",
        "create memory: a volume of this name exists with other options: device=tmpfs o=size=1m type=tmpfs",
    );
}

#[test]
fn owners_and_modes_are_chosen() {
    let fixture = fixture!();
    fixture
        .build("owned", &fixture.context("c", "FROM busybox\nRUN mkdir /d && touch /d/f && chown 7:8 /d\n"));
    fixture.ok("volume create --uid 1234 --gid 99 --mode 2770 mine");
    let stat = |volume: &str| {
        let metadata = fs::metadata(data(&fixture, volume)).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    assert_eq!(stat("mine"), (1234, 99, 0o2770));
    // The image's files come in, the owner stays.
    assert_eq!(fixture.ok("run --rm -v mine:/d owned ls /d"), "f\n");
    assert_eq!(stat("mine"), (1234, 99, 0o2770));
    fixture.ok("run --rm -v other:/d owned true");
    assert_eq!(stat("other"), (7, 8, 0o755));
    assert_eq!(fixture.ok("volume inspect -f {{.UID}}:{{.GID}}:{{.Mode}} mine"), "1234:99:2770\n");
    fails(
        &fixture,
        "volume create --uid 1 mine",
        "create mine: a volume of this name exists with other options: uid 1234",
    );
    fixture.ok("volume create -o type=tmpfs -o device=tmpfs --uid 5 --mode 700 memory");
    assert_eq!(out(&fixture, "-v memory:/m", "stat -c %u:%a /m"), "5:700\n");
}

#[test]
fn volumes_in_use_stay() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run --name old -v used:/m busybox touch /m/f");
    fixture.ok("volume create free");
    let id = fixture.ok("inspect -f {{.Id}} old").trim().to_owned();
    let done = fixture.words("volume rm used free nosuch");
    assert_eq!((done.code, done.out.as_str()), (1, "free\n"));
    assert!(done.err.contains(&format!("ERROR: remove used: volume is in use - [{id}]\n")), "{}", done.err);
    assert!(done.err.contains("ERROR: get nosuch: no such volume\n"), "{}", done.err);
    // -f is for those that do not exist, not for those in use.
    let done = fixture.words("volume rm -f used nosuch a/b ..");
    assert_eq!((done.code, done.out.as_str()), (1, "nosuch\na/b\n..\n"));
    assert!(data(&fixture, "used").join("f").exists());
    assert_eq!(fixture.ok("volume ls -qf dangling=false"), "used\n");
    let df = fixture.ok("system df -v");
    let line = df.lines().find(|line| line.starts_with("used ")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["used", "1", "0B"]);
    fixture.ok("rm old");
    assert_eq!(fixture.ok("volume rm used"), "used\n");
    assert_eq!(directories(&fixture), Vec::<String>::new());
    // The error of a container whose volume is gone has its name.
    fixture.ok("create --name late -v gone:/m busybox true");
    fs::remove_dir_all(fixture.root().join("volumes/gone")).unwrap();
    let done = fixture.words("start -a late");
    assert!(done.code != 0 && done.err.contains("get gone: no such volume"), "{}", done.err);
    fixture.ok("rm late");
}

#[test]
fn unused_volumes_are_pruned() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let anonymous = fixture.ok("volume create --label a").trim().to_owned();
    fs::write(data(&fixture, &anonymous).join("file"), [0; 5000]).unwrap();
    fixture.ok("volume create --label keep named");
    fixture.ok("run --name user -v /used busybox true");
    let done = fixture.words("volume prune");
    let question = "WARNING! This will remove anonymous local volumes not used by at least one container.";
    assert!(done.code == 0 && done.out.starts_with(question), "{}", done.out);
    assert_eq!(fixture.ok("volume ls -q").lines().count(), 3, "the end of input is no");
    assert_eq!(fixture.ok("volume prune -f --filter label=b"), "Total reclaimed space: 0B\n");
    assert_eq!(
        fixture.ok("volume prune -f"),
        format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 5kB\n")
    );
    assert_eq!(fixture.ok("volume prune -af --filter label!=keep"), "Total reclaimed space: 0B\n");
    fails(&fixture, "volume prune -a --filter all=1", "conflicting options");
    fixture.ok("volume create");
    assert!(!fixture.ok("system prune -f").contains("Deleted Volumes"));
    fails(&fixture, "system prune -f --volumes --filter until=1h", "the \"until\" filter is not supported");
    let done = fixture.words("system prune --volumes");
    assert!(
        done.out.contains("  - all anonymous volumes not used by at least one container\n"),
        "{}",
        done.out
    );
    fixture.ok("create --name user -v /used busybox true");
    fixture.ok("create --name other busybox true");
    let pruned = fixture.ok("system prune -f --volumes");
    assert!(pruned.contains("\n\nDeleted Volumes:\n"), "{pruned}");
    assert_eq!(fixture.ok("volume ls -q"), "named\n", "the pruned container's volume is unused, too");
    assert!(fixture.ok("volume prune -f --filter all=true").starts_with("Deleted Volumes:\nnamed\n"));
    let events = fixture.kiln(&["events", "--since", "1h", "--until", "0s", "-f", "event=prune"]).out;
    assert!(events.contains(" volume prune  (reclaimed=5000)"), "{events}");
}

#[test]
fn volumes_are_exported_and_imported() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "cd /m; mkdir -p dir/sub; echo text > dir/file; ln -s dir/file link; ln dir/file hard; mkfifo pipe; \
                  chmod 4711 dir/file; chown 5:6 dir /m; chmod 1750 /m";
    out(&fixture, "-v first:/m", script);
    let tar = fixture.path("v.tar").display().to_string();
    assert_eq!(fixture.ok(&format!("volume export -o {tar} first")), "");
    assert_eq!(fixture.ok("volume create second"), "second\n");
    assert_eq!(fixture.ok(&format!("volume import second {tar}")), "");
    let list = "cd /m; find . | sort; stat -c '%a %u %g' . dir dir/file; stat -c %h hard; cat link";
    let expected =
        ".\n./dir\n./dir/file\n./dir/sub\n./hard\n./link\n./pipe\n1750 5 6\n755 5 6\n4711 0 0\n2\ntext\n";
    assert_eq!(out(&fixture, "-v second:/m", list), expected);
    // Into a volume with files: those of the same names are replaced.
    out(&fixture, "-v third:/m", "cd /m; mkdir dir; echo old > dir/file; echo mine > own");
    import(&fixture, "third", &fs::read(&tar).unwrap()).succeeds();
    assert_eq!(out(&fixture, "-v third:/m", "cat /m/dir/file /m/own /m/hard"), "text\nmine\ntext\n");
    // What is in the way is found before anything is changed.
    out(&fixture, "-v blocked:/m", "mkdir -p /m/hard/dir /m/dir; echo old > /m/dir/file");
    let done = import(&fixture, "blocked", &fs::read(&tar).unwrap());
    assert_eq!(done.code, 1);
    assert!(done.err.contains("cannot overwrite directory `hard` with non-directory"), "{}", done.err);
    assert_eq!(out(&fixture, "-v blocked:/m", "cd /m; cat dir/file; ls"), "old\ndir\nhard\n");
    let gz = fixture.path("v.tar.gz").display().to_string();
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &format!("gzip < {tar} > {gz}")])
            .status()
            .unwrap()
            .success()
    );
    fixture.ok("volume create packed");
    fixture.ok(&format!("volume import packed {gz}"));
    assert!(data(&fixture, "packed").join("dir/file").exists());
    // Mistakes.
    fails(&fixture, &format!("volume import nosuch {tar}"), "get nosuch: no such volume");
    fails(&fixture, "volume import first /nosuch.tar", "cannot open `/nosuch.tar`");
    fails(&fixture, &format!("volume export -o {tar}.new nosuch"), "get nosuch: no such volume");
    assert!(!Path::new(&format!("{tar}.new")).exists());
    let bytes = fs::read(&tar).unwrap();
    fixture.ok("volume create cut");
    for stream in [&bytes[..700], b"no tar at all, and long enough to be a mistake".as_slice()] {
        let done = import(&fixture, "cut", stream);
        assert_eq!(done.code, 1, "{}", done.err);
    }
    assert_eq!(fs::read_dir(data(&fixture, "cut")).unwrap().count(), 0, "nothing half made");
    assert!(directories(&fixture).iter().all(|name| !name.starts_with('.')), "{:?}", directories(&fixture));
}

impl Done {
    #[track_caller]
    fn succeeds(self) -> Done {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }
}

/// Imports a tar from standard input.
fn import(fixture: &Fixture, volume: &str, tar: &[u8]) -> Done {
    let mut command = fixture.command(&["volume", "import", volume, "-"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(tar);
    Done::of(child.wait_with_output().unwrap())
}

/// A header of a tar, and its content.
fn entry(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0004755");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[329..336].copy_from_slice(b"0000001");
    header[337..344].copy_from_slice(b"0000003");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

#[test]
fn hostile_tars_stay_inside_the_volume() {
    let fixture = fixture!();
    fixture.write("outside/secret", "secret\n");
    let outside = fixture.path("outside").display().to_string();
    let tar = |entries: &[Vec<u8>]| [entries.concat(), vec![0; 1024]].concat();
    for (name, entries) in [
        ("up", vec![entry(b'0', "../../../up", "", b"x")]),
        ("deep-up", vec![entry(b'0', "a/../../../../up", "", b"x")]),
        ("hardlink", vec![entry(b'1', "hard", "../volume.json", b"")]),
        ("hardlink-absolute", vec![entry(b'1', "hard", &format!("{outside}/secret"), b"")]),
    ] {
        fixture.ok(&format!("volume create {name}"));
        let done = import(&fixture, name, &tar(&entries));
        assert_eq!(done.code, 1, "{name}: {}{}", done.out, done.err);
        assert_eq!(done.err.lines().filter(|line| line.starts_with("ERROR: ")).count(), 1, "{}", done.err);
        assert_eq!(fs::read_dir(data(&fixture, name)).unwrap().count(), 0, "{name}");
    }
    // Links that lead out are links; what is written through them stays inside.
    fixture.ok("volume create links");
    let entries = [
        entry(b'2', "out", &outside, b""),
        entry(b'0', "out/written", "", b"x"),
        entry(b'2', "up", "../..", b""),
        entry(b'0', "up/volume.json", "", b"x"),
    ];
    import(&fixture, "links", &tar(&entries));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fixture.ok("volume inspect -f {{.Name}} links"), "links\n");
    // Device nodes are left out; setuid files and owners are kept, as nothing on the host can reach them.
    fixture.ok("volume create devices");
    let entries =
        [entry(b'3', "dev/null", "", b""), entry(b'4', "disk", "", b""), entry(b'0', "file", "", b"x")];
    let done = import(&fixture, "devices", &tar(&entries)).succeeds();
    assert_eq!(
        done.err,
        "warning: dev/null is a device and was left out\nwarning: disk is a device and was left out\n"
    );
    let dir = data(&fixture, "devices");
    assert!(!dir.join("dev/null").exists() && !dir.join("disk").exists());
    assert_eq!(fs::metadata(dir.join("file")).unwrap().permissions().mode() & 0o7777, 0o4755);
    let store = fs::metadata(fixture.root().join("volumes")).unwrap();
    assert_eq!(store.permissions().mode() & 0o7777, 0o700);
}

#[test]
fn a_volume_in_memory_is_shared_while_containers_run() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("volume create -o type=tmpfs -o device=tmpfs -o o=size=1m,noexec memory");
    let table = out(&fixture, "-v memory:/m", "echo x > /m/file; grep ' /m ' /proc/mounts");
    assert!(table.starts_with("tmpfs /m tmpfs rw,noexec,relatime,size=1024k"), "{table}");
    assert_eq!(out(&fixture, "-v memory:/m", "ls /m"), "", "its files end with the last container");
    let error = "volume memory is in memory, and has files only while a container that uses it runs";
    fails(&fixture, "volume export memory", error);
    let first = start(&fixture, "first", &["-v", "memory:/m:ro", "-v", "memory:/rw"], "true");
    out(&fixture, "-v memory:/other", "echo first > /other/file");
    assert_eq!(out(&fixture, "-v memory:/m", "cat /m/file; echo more > /m/more"), "first\n", "writable here");
    assert_eq!(fixture.ok("exec first cat /m/more"), "more\n");
    assert!(fixture.words("exec first touch /m/x").err.contains("Read-only file system"));
    let tar = fixture.path("m.tar").display().to_string();
    fixture.ok(&format!("volume export -o {tar} memory"));
    fixture.ok("volume create copy");
    fixture.ok(&format!("volume import copy {tar}"));
    assert_eq!(fs::read_to_string(data(&fixture, "copy").join("more")).unwrap(), "more\n");
    fixture.ok("exec first rm /rw/more");
    fixture.ok(&format!("volume import memory {tar}"));
    assert_eq!(fixture.ok("exec first cat /m/more"), "more\n");
    for (flags, reason) in [
        ("--mount src=memory,dst=/m,volume-subpath=a", "all of it is mounted, without volume-subpath"),
        ("-v memory:/m:U", "its owner is set by o=uid=UID,gid=GID"),
    ] {
        let done = sh(&fixture, flags, "true");
        assert!(done.code == 125 && done.err.contains(reason), "{}", done.err);
    }
    // Nothing of it is on the host.
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("size=1024k"));
    assert_eq!(fs::read_dir(data(&fixture, "memory")).unwrap().count(), 0);
    fails(&fixture, "volume rm memory", "remove memory: volume is in use");
    end(&fixture, "first", first);
}

#[test]
fn volumes_are_directories_and_file_systems_of_the_host() {
    let fixture = fixture!();
    fixture.build("seeded", &fixture.context("c", "FROM busybox\nRUN mkdir /d && echo image > /d/file\n"));
    let host = fixture.path("host");
    let create = |name: &str, device: &str, rest: &str| {
        fixture.ok(&format!("volume create -o type=none -o device={device} -o o=bind{rest} {name}"))
    };
    create("bound", &host.display().to_string(), "");
    let done = sh(&fixture, "-v bound:/d", "true");
    let expected = format!(
        "error while mounting volume 'bound': failed to mount local volume: mount {}: No such file or directory",
        host.display()
    );
    assert!(done.code == 125 && done.err.contains(&expected), "{}", done.err);
    fs::create_dir(&host).unwrap();
    assert_eq!(fixture.ok("run --rm -v bound:/d seeded cat /d/file"), "image\n", "filled at the first use");
    assert_eq!(fs::read_to_string(host.join("file")).unwrap(), "image\n");
    create("fixed", &host.display().to_string(), ",ro,noexec");
    let done = sh(&fixture, "-v fixed:/d", "grep ' /d ' /proc/mounts; touch /d/x");
    assert!(done.code == 1 && done.err.contains("Read-only file system"), "{}", done.err);
    assert!(done.out.contains("ro,") && done.out.contains("noexec"), "{}", done.out);
    let done = sh(&fixture, "-v bound:/d:ro", "touch /d/x");
    assert!(done.code == 1 && done.err.contains("Read-only file system"), "{}", done.err);
    fs::create_dir(host.join("sub")).unwrap();
    out(&fixture, "--mount src=bound,dst=/d,volume-subpath=sub", "touch /d/inner");
    assert!(host.join("sub/inner").exists());
    // The files are the host's: they stay, and are not the store's size.
    fixture.ok("volume rm bound fixed");
    assert!(host.join("file").exists());
    // By --mount alone.
    let option =
        format!("volume-opt=type=none,volume-opt=device={},\"volume-opt=o=bind,nosuid\"", host.display());
    let flag = format!("--mount=type=volume,src=short,dst=/d,volume-label=a=b,{option}");
    assert_eq!(out(&fixture, &flag, "cat /d/file"), "image\n");
    assert_eq!(fixture.ok("volume inspect -f {{.Options.o}}:{{.Labels.a}} short"), "bind,nosuid:b\n");
    let done = sh(&fixture, "--mount=src=short,dst=/d,volume-opt=type=tmpfs,volume-opt=device=tmpfs", "true");
    assert!(done.code == 125 && done.err.contains("exists with other options"), "{}", done.err);
    // A server that nothing knows, and a file system that the kernel may lack.
    fixture.ok("volume create -o type=nfs -o device=no-such-host.invalid:/x -o o=vers=4 remote");
    let done = sh(&fixture, "-v remote:/d", "true");
    assert!(done.code == 125 && done.err.contains("error while mounting volume 'remote'"), "{}", done.err);
    assert_eq!(fixture.ok("ps -aq"), "");
    assert_eq!(fixture.ok("volume rm remote short").lines().count(), 2);
}

#[test]
fn a_full_disk_leaves_volumes_as_they_were() {
    let fixture = fixture!();
    fs::create_dir(fixture.root()).unwrap();
    let root = fixture.root().display().to_string();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "small", &root]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        skip!("cannot mount here");
    }
    let _unmount = Unmount(root);
    fixture.ok("pull -q busybox");
    out(&fixture, "-v keep:/m", "echo kept > /m/file; mkdir /m/big");
    fixture.ok("volume create old");
    let files = [entry(b'0', "big/first", "", &[7; 1 << 20]), entry(b'0', "big/second", "", &[7; 8 << 20])];
    let tar = [files.concat(), vec![0; 1024]].concat();
    // Room for the first file of the tar, not for the second one.
    let free = rustix::fs::statvfs(fixture.root().as_path()).unwrap();
    let length = free.f_bavail * free.f_frsize - (4 << 20);
    fs::write(fixture.root().join("filler"), vec![1; usize::try_from(length).unwrap()]).unwrap();
    let done = import(&fixture, "keep", &tar);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.contains("No space left on device"), "{}", done.err);
    assert_eq!(done.err.lines().filter(|line| line.starts_with("ERROR: ")).count(), 1, "{}", done.err);
    assert_eq!(fs::read_dir(data(&fixture, "keep").join("big")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(data(&fixture, "keep").join("file")).unwrap(), "kept\n");
    assert_eq!(directories(&fixture), ["keep", "old"]);
    // Not a byte is left.
    let left = [1u8; 4096];
    let mut filler = fs::File::options().append(true).open(fixture.root().join("filler")).unwrap();
    while filler.write_all(&left).is_ok() {}
    fails(&fixture, "volume create another", "");
    assert_eq!(directories(&fixture), ["keep", "old"]);
    assert_eq!(fixture.ok("volume rm old"), "old\n");
    assert_eq!(directories(&fixture), ["keep"]);
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

/// A block device is the same file system in every container, and is unmounted with the last one, also when its monitor
/// is killed.
#[test]
fn a_block_device_is_a_volume() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let Some(device) = Loop::new(&fixture) else { skip!("no loop devices or mkfs.ext4 here") };
    fixture.ok(&format!("volume create -o type=ext4 -o device={} disk", device.0));
    let script = "echo one > /m/file; while true; do sleep 0.05; done";
    fixture
        .kiln(&["run", "-d", "--name", "first", "-v", "disk:/m", "busybox", "sh", "-c", script])
        .succeeds();
    let file = ["exec", "first", "sh", "-c", "while ! [ -s /m/file ]; do sleep 0.01; done"];
    fixture.kiln(&file).succeeds();
    assert_eq!(out(&fixture, "-v disk:/m", "cat /m/file; echo two >> /m/file"), "one\n");
    let tar = fixture.path("disk.tar").display().to_string();
    fixture.ok(&format!("volume export -o {tar} disk"));
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&device.0));
    kill_monitor(&fixture);
    assert_eq!(out(&fixture, "-v disk:/m", "cat /m/file"), "one\ntwo\n");
    fixture.ok("rm -f first");
    // Free again: a mount elsewhere would keep it busy.
    let status = std::process::Command::new("mkfs.ext4").args(["-qF", &device.0]).status().unwrap();
    assert!(status.success(), "the device is still mounted somewhere");
    assert_eq!(out(&fixture, "-v disk:/m", "ls /m"), "lost+found\n");
}

struct Loop(String);

impl Loop {
    fn new(fixture: &Fixture) -> Option<Loop> {
        let image = fixture.path("disk.img").display().to_string();
        let script = format!("truncate -s 8M {image} && mkfs.ext4 -q {image} && losetup -f --show {image}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().ok()?;
        output.status.success().then(|| Loop(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn events_tell_what_happens_to_volumes() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("run --name web -v data:/m:ro busybox true");
    let id = fixture.ok("inspect -f {{.Id}} web").trim().to_owned();
    fixture.ok("rm web");
    fixture.ok("volume rm data");
    let events = fixture.kiln(&["events", "--since", "1h", "--until", "0s", "-f", "type=volume"]).out;
    let rest: Vec<&str> = events.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        rest,
        [
            "volume create data (driver=local)".to_owned(),
            format!(
                "volume mount data (container={id}, destination=/m, driver=local, propagation=, read/write=false)"
            ),
            format!("volume unmount data (container={id}, driver=local)"),
            "volume destroy data (driver=local)".to_owned(),
        ]
    );
}

#[test]
fn volumes_survive_processes_that_race_and_die() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("volume create keep");
    fs::write(data(&fixture, "keep").join("file"), "kept").unwrap();
    // Creations and removals of one name, at once.
    let racers: Vec<_> = (0..12)
        .map(|at| match at % 3 {
            0 => fixture.start(&["volume", "create", "race"]),
            1 => fixture.start(&["volume", "rm", "-f", "race"]),
            _ => fixture.start(&["run", "--rm", "--network", "none", "-v", "race:/m", "busybox", "true"]),
        })
        .collect();
    for (at, racer) in racers.into_iter().enumerate() {
        let done = Done::of(racer.wait_with_output().unwrap());
        let is_in_use = done.err.contains("volume is in use");
        assert!(done.code == 0 || at % 3 == 1 && is_in_use, "{at}: {}", done.err);
    }
    // Killed at any time: what is there is whole, what is not leaves nothing.
    for round in 0..30 {
        let mut child = match round % 2 {
            0 => fixture.command(&["volume", "create", "--label", "a=b", "killed"]),
            _ => fixture.command(&["volume", "rm", "-f", "killed"]),
        };
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(700 * (round / 2)));
        let _ = child.kill();
        child.wait().unwrap();
        if data(&fixture, "killed").exists() {
            assert_eq!(fixture.ok("volume inspect -f {{.Labels.a}} killed"), "b\n");
        }
    }
    fixture.ok("volume rm -f killed race");
    fixture.ok("volume create last");
    assert_eq!(directories(&fixture), ["keep", "last"]);
    assert_eq!(fs::read_to_string(data(&fixture, "keep").join("file")).unwrap(), "kept");
}
