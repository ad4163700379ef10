//! Attacks of Dockerfiles and images on the builder: each is carried out, and must fail.
//!
//! Archives and secrets have their own tests in `mounts`, entitlements in `flags`.

use crate::fixture::{Done, Fixture};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// A directory of the host that builds must not reach.
struct Outside {
    path: PathBuf,
}

impl Outside {
    fn new(fixture: &Fixture) -> Outside {
        fixture.write("outside/file", "SECRET\n");
        fixture.write("outside/directory/file", "SECRET\n");
        Outside { path: fixture.path("outside") }
    }

    fn listing(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.path.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let is_dir = entry.file_type().unwrap().is_dir();
                found.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
                open.extend(is_dir.then(|| entry.path()));
            }
        }
        found.sort();
        found
    }

    /// Nothing was written there, and `shown` has nothing of its content.
    #[track_caller]
    fn assert_unknown(&self, shown: &str) {
        let secret = || b"SECRET\n".to_vec();
        let path = |name: &str| self.path.join(name);
        let expected = vec![
            (path("directory"), Vec::new()),
            (path("directory/file"), secret()),
            (path("file"), secret()),
        ];
        assert_eq!(self.listing(), expected, "the outside was changed: {shown}");
        // The command of the step contains the text; its output begins after the time.
        let printed = shown.lines().any(|line| line.ends_with(" SECRET"));
        assert!(!printed, "the outside was shown: {shown}");
    }
}

/// Builds, and returns the progress whether or not the build fails.
fn attempt(fixture: &Fixture, name: &str, dockerfile: &str) -> (i32, String) {
    let context = fixture.context(name, dockerfile);
    let done = fixture.kiln(&["build".as_ref(), "--no-cache".as_ref(), context.as_os_str()]);
    assert!(!done.err.contains("panicked"), "{}", done.err);
    (done.code, done.err)
}

/// CVE-2024-1753, CVE-2024-23651: a source of a mount that is a link, or lies behind one, in an image, a stage or the
/// context, shows nothing of the host.
#[test]
fn sources_of_mounts_behind_links_stay_inside() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.display();
    fixture.write("c/f", "");
    symlink(&outside.path, fixture.path("c/link")).unwrap();
    symlink(outside.path.join("file"), fixture.path("c/file-link")).unwrap();
    symlink("../outside", fixture.path("c/climbing")).unwrap();
    let evil = format!(
        "FROM busybox AS evil\nRUN ln -s {whole} /link && ln -s / /root-link && ln -s {whole}/file /file-link && \
         ln -s ../../../../../../../..{whole} /climbing\n"
    );
    for source in [
        "link",
        "link/directory",
        "climbing",
        "climbing/directory",
        "file-link",
        "root-link",
        "../outside",
        "/../../outside",
    ] {
        for from in ["", "from=evil,"] {
            for access in ["", ",rw"] {
                let (code, progress) = attempt(
                    &fixture,
                    "c",
                    &format!(
                        "{evil}FROM busybox\nCOPY --from=evil /link /copied\n\
                         RUN --mount=type=bind,{from}source={source},target=/m{access} \
                         cat /m /m/file /m/directory/file /m{whole}/file 2>/dev/null; \
                         touch /m/new /m{whole}/new 2>/dev/null; echo x > /m; true\n"
                    ),
                );
                assert!(code <= 1, "{progress}");
                outside.assert_unknown(&progress);
            }
        }
    }
    // The root of a cache comes from an image in the same way.
    for source in ["link", "climbing", "root-link"] {
        let (_, progress) = attempt(
            &fixture,
            "c",
            &format!(
                "{evil}FROM busybox\nRUN --mount=type=cache,id={source},from=evil,source={source},target=/m \
                 cat /m/file /m{whole}/file; touch /m/new; true\n"
            ),
        );
        outside.assert_unknown(&progress);
    }
}

/// CVE-2024-9675: the id of a cache is a name, never a path.
#[test]
fn ids_of_caches_are_no_paths() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    for id in [
        "../..",
        "../../../outside",
        "/",
        ".",
        outside.path.to_str().unwrap(),
        "a/../../../outside/directory",
    ] {
        let (code, progress) = attempt(
            &fixture,
            "c",
            &format!(
                "FROM busybox\nRUN --mount=type=cache,id={id},target=/m ls -A /m && touch /m/new && echo made\n"
            ),
        );
        assert!(code == 0 && progress.contains(" made"), "{progress}");
        outside.assert_unknown(&progress);
    }
    let caches: Vec<String> = fs::read_dir(fixture.root().join("caches"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(caches.len(), 6, "{caches:?}");
    assert!(caches.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_hexdigit())), "{caches:?}");
}

/// CVE-2024-23652: mount points that were made for a step and replaced by it are cleaned up without following them.
#[test]
fn cleaning_up_mount_points_follows_no_links() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.display();
    let (code, progress) = attempt(
        &fixture,
        "c",
        &format!(
            "FROM busybox\n\
             RUN --mount=type=tmpfs,target=/stub/deep/m umount /stub/deep/m 2>/dev/null; rm -rf /stub/deep/m /stub/deep 2>/dev/null; \
             mv /stub /gone 2>/dev/null; rm -rf /stub 2>/dev/null; ln -s {whole} /stub; ln -s {whole} /stub/deep; true\n\
             RUN --mount=type=cache,target={whole}/directory touch {whole}/directory/new; rm -rf {whole}; true\n\
             RUN rm -rf {whole} && mkdir -p {whole} && rmdir {whole} && ln -s /tmp {whole}\n\
             RUN --mount=type=tmpfs,target={whole}/directory true\n\
             RUN ls -la / > /listing\n"
        ),
    );
    assert!(code <= 1, "{progress}");
    outside.assert_unknown(&progress);
}

/// CVE-2024-9407: the value of a mount option cannot contain further options.
#[test]
fn mount_options_cannot_contain_others() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    fixture.write("c/f", "");
    for option in [
        "bind-propagation=rshared:rw",
        "bind-propagation=rprivate",
        "\"bind-propagation=private,source=/\"",
        "\"size=1m,mode=7777\"",
        "size=1m:uid=0",
        "mode=0777:0",
        "uid=0:0",
        "sharing=shared:x",
        "\"id=x,source=/\"",
        "upperdir=/",
        "lowerdir=/",
        "nosuch",
    ] {
        for kind in ["bind", "tmpfs", "cache"] {
            let (code, progress) = attempt(
                &fixture,
                "c",
                &format!(
                    "FROM busybox\nRUN --mount=type={kind},target=/m,{option} cat /m{0}/file 2>/dev/null; touch /m{0}/new; grep ' /m ' /proc/self/mountinfo\n",
                    outside.path.display()
                ),
            );
            // An id is any text.
            let is_id = option.starts_with("\"id=");
            assert!(code != 0 || is_id, "{kind} {option} is taken: {progress}");
            outside.assert_unknown(&progress);
        }
    }
}

/// CVE-2024-21626: the working directory of a step is no way over a descriptor of the builder; neither are its program and
/// shell.
#[test]
fn steps_do_not_leave_over_descriptors() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.to_str().unwrap();
    let up = "../".repeat(12);
    for first in (3..30).step_by(9) {
        let mut stages = String::new();
        for number in first..first + 9 {
            let dir = format!("/proc/self/fd/{number}");
            let look = format!("cat {up}{} 2>/dev/null; cat ./file 2>/dev/null", &whole[1..]);
            stages.push_str(&format!(
                "FROM busybox AS directory{number}\nWORKDIR {dir}\nRUN {look}; cat {up}{}/file; true\n\
                 FROM busybox AS program{number}\nRUN [\"{dir}/{up}bin/sh\", \"-c\", \"cat {whole}/file\"]\n",
                &whole[1..]
            ));
        }
        fixture.context("c", &stages);
        for number in first..first + 9 {
            for kind in ["directory", "program"] {
                let target = format!("--target={kind}{number}");
                let context = fixture.path("c");
                let done = fixture.kiln(&["build".as_ref(), target.as_ref(), context.as_os_str()]);
                assert!(done.code <= 1, "{}", done.err);
                assert!(kind == "directory" || done.code == 1, "{target}: {}", done.err);
                outside.assert_unknown(&done.err);
            }
        }
    }
}

/// CVE-2024-9341: directories of the host, such as those for FIPS, are mounted into steps only on request.
#[test]
fn directories_of_the_host_are_mounted_only_on_request() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.display();
    let text = format!(
        "FROM busybox\nRUN mkdir -p /etc/system-fips /etc/crypto-policies /run && ln -s {whole} /run/secrets && \
         ln -sf {whole} /etc/crypto-policies/back-ends && ln -s {whole} /etc/pki\n\
         RUN cut -d ' ' -f 4,5 /proc/self/mountinfo | grep -vE ' /(proc|sys|dev)(/|$)' | cut -d ' ' -f 2 | sort | tr '\\n' ' '\n\
         RUN cat /etc/crypto-policies/back-ends/file /run/secrets/file; true\n"
    );
    let (code, progress) = attempt(&fixture, "c", &text);
    assert_eq!(code, 0, "{progress}");
    assert!(progress.contains(" / /etc/hosts /etc/resolv.conf"), "{progress}");
    outside.assert_unknown(&progress);
}

/// CVE-2024-24557: a step is taken from the cache only when everything that it was built from is the same, fields that
/// change no file included.
#[test]
fn every_field_of_the_image_is_in_the_key() {
    let fixture = fixture!();
    let build = |name: &str, above: &str| {
        let context = fixture.context(
            "c",
            &format!(
                "FROM busybox AS base\n{above}\nFROM base\nRUN cat /proc/sys/kernel/random/uuid > /tmp/id\n"
            ),
        );
        fixture.build(name, &context);
        fixture.ok(&format!("run --rm --user=0 --entrypoint=cat {name} /tmp/id"))
    };
    let plain = build("plain", "");
    assert_eq!(build("again", ""), plain, "nothing is taken from the cache: this shows nothing");
    for (number, above) in
        ["ENV A=1", "USER 7:7", "WORKDIR /w", "SHELL [\"/bin/sh\", \"-ec\"]", "ARG X=1\nENV X=$X"]
            .iter()
            .enumerate()
    {
        assert_ne!(build(&format!("changed{number}"), above), plain, "{above} is not in the key");
    }
    // What RUN does not see need not change it, but is in the image, and not another's.
    for (field, above) in [
        ("Healthcheck", "HEALTHCHECK CMD true"),
        ("OnBuild", "ONBUILD RUN true"),
        ("StopSignal", "STOPSIGNAL 9"),
        ("Labels", "LABEL a=b"),
        ("ExposedPorts", "EXPOSE 7"),
        ("Volumes", "VOLUME /v"),
        ("Cmd", "CMD [\"other\"]"),
        ("Entrypoint", "ENTRYPOINT [\"other\"]"),
    ] {
        let context = fixture.context("c", &format!("FROM busybox\nCOPY Dockerfile /x\n{above}\n"));
        fixture.build("field", &context);
        let with = fixture.ok("inspect field");
        fixture.build("field", &fixture.context("c", "FROM busybox\nCOPY Dockerfile /x\n"));
        let without = fixture.ok("inspect field");
        let value = |text: &str| -> serde_json::Value {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            value[0]["Config"][field].clone()
        };
        assert_ne!(value(&with), value(&without), "{field}: {with}");
    }
    // An image from nothing is not one that happens to have the same steps.
    let scratch = fixture.context("s", "FROM scratch\nCOPY Dockerfile /x\n");
    fixture.build("scratch", &scratch);
    assert_eq!(fixture.words("run --rm scratch /bin/sh -c true").code, 127);
}

/// CVE-2024-23651, CVE-2024-11218, CVE-2025-52881: two steps that share a cache, one of which swaps a directory of it for a
/// link while the other mounts on it, reach nothing outside.
#[test]
fn steps_that_share_a_cache_lead_each_other_nowhere() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    let whole = outside.path.display();
    let cache = "--mount=type=cache,id=shared,target=/c";
    let mut text = format!(
        "FROM busybox AS swaps\nRUN {cache} i=0; mkdir -p /c/there; touch /c/swapping; while test ! -e /c/stop && test $i -lt 20000; do i=$((i+1)); \
         ln -sfn {whole} /c/d; rm -f /c/d; mkdir -p /c/d/m; mv /c/d /c/there/$i; done; rm -rf /c/there; true\n"
    );
    // Waits for the attack, mounts many times, ends it.
    text.push_str(&format!("FROM busybox AS mounts\nRUN {cache} i=0; until test -e /c/swapping || test $i -gt 2000; do i=$((i+1)); usleep 10000; done\n"));
    for number in 0..30 {
        let mount = ["type=tmpfs", "type=cache,id=other", "type=bind,from=busybox,source=/bin"][number % 3];
        text.push_str(&format!("FROM mounts AS m{number}\nRUN {cache} --mount={mount},target=/c/d/m{number} echo x > /c/d/m{number}/new; cat /c/d/file; true\n"));
    }
    let targets: Vec<String> = (0..30).map(|number| format!("--target=m{number}")).collect();
    let context = fixture.context("c", &text);
    let mut swaps = fixture
        .command(&["build".as_ref(), "--target=swaps".as_ref(), context.as_os_str()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for target in &targets {
        // A step that finds a link instead of the directory may fail.
        let done = fixture.kiln(&["build".as_ref(), target.as_ref(), context.as_os_str()]);
        assert!(done.code <= 1 && !done.err.contains("panicked"), "{}", done.err);
        outside.assert_unknown(&done.err);
    }
    let stop = "FROM busybox\nRUN --mount=type=cache,id=shared,target=/c touch /c/stop\n";
    let (code, progress) = attempt_cached(&fixture, "stop", stop);
    assert_eq!(code, 0, "{progress}");
    assert!(swaps.wait().unwrap().success());
    outside.assert_unknown("");
}

/// Like [`attempt`], with the caches as they are.
fn attempt_cached(fixture: &Fixture, name: &str, dockerfile: &str) -> (i32, String) {
    let context = fixture.context(name, dockerfile);
    let done = fixture.kiln(&["build".as_ref(), context.as_os_str()]);
    (done.code, done.err)
}

/// CVE-2024-9676: a user database of an image that is a link to the host's, a pipe or huge has no users, and delays
/// no build.
#[test]
fn user_databases_of_images_are_plain_files() {
    let fixture = fixture!();
    fixture.write("outside-passwd", "outsider:x:0:0::/:\n");
    let link = format!("ln -s {} /etc/passwd", fixture.path("outside-passwd").display());
    for make in [
        link.as_str(),
        "mkfifo /etc/passwd",
        "mkdir /etc/passwd",
        "dd if=/dev/zero of=/etc/passwd bs=1M count=1 seek=99",
        "ln -s /dev/zero /etc/passwd",
    ] {
        for step in [
            "USER outsider\nRUN true",
            "COPY --chown=outsider Dockerfile /x",
            "ADD --chown=0:outsider Dockerfile /x",
        ] {
            let (code, progress) = attempt(
                &fixture,
                "c",
                &format!(
                    "FROM busybox\nRUN rm /etc/passwd /etc/group && {make} && cp -a /etc/passwd /etc/group\n{step}\n"
                ),
            );
            // COPY uses root, with a warning.
            let is_root = progress.contains("unknown user outsider counts as root")
                || progress.contains("unknown group outsider counts as root");
            assert!(code == 1 || is_root, "{make}, {step}: {progress}");
        }
    }
}

/// Owner and mode of the host's null device stay, though steps and containers see it at masked paths and have it as
/// standard streams: root of a container may change what it has open.
#[test]
fn the_null_device_stays_as_it_is() {
    let fixture = fixture!();
    let look = || {
        let stat = rustix::fs::stat("/dev/null").unwrap();
        (stat.st_uid, stat.st_gid, stat.st_mode)
    };
    let before = look();
    let names = "/proc/keys /proc/interrupts /proc/self/fd/0 /dev/null";
    let attack = format!("for f in {names}; do chown 5:6 $f; chmod 600 $f; done; cat && echo done");
    let (code, progress) = attempt(&fixture, "c", &format!("FROM busybox\nRUN {attack}\n"));
    let built = look();
    let run = fixture.kiln(&["run", "busybox", "sh", "-c", &attack]);
    let last = look();
    if last != before {
        std::os::unix::fs::chown("/dev/null", Some(before.0), Some(before.1)).unwrap();
        rustix::fs::chmod("/dev/null", rustix::fs::Mode::from_raw_mode(before.2 & 0o7777)).unwrap();
    }
    assert_eq!((built, last), (before, before), "a build, a container");
    assert!(code == 0 && progress.contains("done"), "{progress}");
    assert!(run.code == 0 && run.out.ends_with("done\n"), "{run:?}");
}

/// CVE-2021-41091: other users cannot enter the store, which contains set-user-ID programs.
#[test]
fn other_users_cannot_enter_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = fixture!();
    let plant = "cp /bin/busybox /planted && chmod 6755 /planted";
    let text = format!(
        "FROM busybox\nRUN --mount=type=cache,target=/c cp /bin/busybox /c/p && chmod 4755 /c /c/p\nCMD {plant}\n"
    );
    fixture.build("planted", &fixture.context("c", &text));
    let done = fixture.kiln(&["run", "--name", "planted", "planted"]);
    assert_eq!(done.code, 0, "{done:?}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    // Files that the OCI layout requires contain no secrets.
    let known = ["oci-layout", "index.json"];
    for entry in fs::read_dir(fixture.root()).unwrap().flatten() {
        let is_known = known.iter().any(|known| entry.file_name() == *known);
        assert!(is_known || mode(&entry.path()) == 0, "{entry:?}");
    }
    // A store of an earlier version is closed, too.
    for name in ["caches", "containers"] {
        fs::set_permissions(fixture.root().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fixture.ok("images");
    for name in ["caches", "containers"] {
        assert_eq!(mode(&fixture.root().join(name)), 0, "{name}");
    }
}

/// A Dockerfile of the context must be a regular file inside; pipes and devices do not block.
#[test]
fn dockerfiles_are_files_of_their_context() {
    let fixture = fixture!();
    let outside = Outside::new(&fixture);
    fixture.write("secret", "SECRET of the host\n");
    for (name, target) in [
        ("absolute", fixture.path("secret")),
        ("relative", "../secret".into()),
        ("proc", "/proc/self/environ".into()),
    ] {
        for file in ["Dockerfile", ".dockerignore"] {
            fixture.write(&format!("{name}-{file}/f"), "");
            let dir = fixture.path(&format!("{name}-{file}"));
            if file != "Dockerfile" {
                fixture.write(&format!("{name}-{file}/Dockerfile"), "FROM scratch\nCOPY f /\n");
            }
            symlink(&target, dir.join(file)).unwrap();
            let tar = fixture.path("context.tar");
            assert!(
                std::process::Command::new("tar")
                    .arg("-C")
                    .arg(&dir)
                    .arg("-cf")
                    .arg(&tar)
                    .arg(".")
                    .status()
                    .unwrap()
                    .success()
            );
            let mut piped = fixture.command(&["build", "-"]);
            piped.stdin(fs::File::open(&tar).unwrap());
            let piped = crate::fixture::Done::of(piped.output().unwrap());
            let plain = fixture.kiln(&["build".as_ref(), dir.as_os_str()]);
            let named = fixture.kiln(&[
                "build".as_ref(),
                "-f".as_ref(),
                dir.join("Dockerfile").as_os_str(),
                dir.as_os_str(),
            ]);
            for done in [piped, plain, named] {
                assert!(
                    !done.err.contains("SECRET") && !done.err.contains("PATH="),
                    "{name} {file}: {}",
                    done.err
                );
                assert_eq!(done.code != 0, file == "Dockerfile", "{name} {file}: {}", done.err);
            }
        }
    }
    for file in ["Dockerfile", ".dockerignore"] {
        fixture.write(&format!("pipe-{file}/f"), "");
        let dir = fixture.path(&format!("pipe-{file}"));
        if file != "Dockerfile" {
            fixture.write(&format!("pipe-{file}/Dockerfile"), "FROM scratch\nCOPY f /\n");
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join(file),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let done = fixture.kiln(&["build".as_ref(), dir.as_os_str()]);
        assert!(done.code == 1 && done.err.contains("is not a regular file"), "{file}: {}", done.err);
    }
    outside.assert_unknown("");
    // A path from the command line may be of any type.
    let pipe = fixture.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let context = fixture.context("named", "");
    let mut writer = std::process::Command::new("sh");
    let mut writer = writer
        .args(["-c", "printf 'FROM scratch\\nCOPY Dockerfile /\\n' > \"$0\""])
        .arg(&pipe)
        .spawn()
        .unwrap();
    let done = fixture.kiln(&["build".as_ref(), "-f".as_ref(), pipe.as_os_str(), context.as_os_str()]);
    let _ = writer.kill();
    writer.wait().unwrap();
    assert_eq!(done.code, 0, "{}", done.err);
}

/// CVE-2016-3697, CVE-2026-46680: a number is never taken for a user name, and one that is no id is refused.
#[test]
fn numeric_ids_are_never_user_names() {
    let fixture = fixture!();
    let wrong = ["4294967295", "4294967296", "99999999999999999999", "+1001", "-1"];
    let names = ["1001"].iter().chain(&wrong).map(|name| {
        format!("echo '{name}:x:0:0::/root:/bin/sh' >> /etc/passwd; echo '{name}:x:0:' >> /etc/group")
    });
    let start = format!(
        "FROM busybox\nRUN {}; echo 'own:x:1002:1003::/own:/bin/sh' >> /etc/passwd; echo 'more:x:1004:own' >> /etc/group\n",
        names.collect::<Vec<_>>().join("; ")
    );
    let show = "echo $(id -u) $(id -g) $(id -G) $HOME";
    fixture.build("numbers", &fixture.context("c", &format!("{start}COPY --chown=1001:1001 Dockerfile /copied\nUSER 1001:1001\nWORKDIR /made\nRUN {show} > /tmp/run\n")));
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = ["run", "--rm"].iter().chain(arguments).copied().collect();
        let done = fixture.kiln(&all);
        (done.code == 0).then(|| done.out.trim().to_owned()).ok_or(done.err)
    };
    assert_eq!(run(&["numbers", "stat", "-c", "%u:%g", "/copied", "/made"]).unwrap(), "1001:1001\n1001:1001");
    assert_eq!(run(&["-u", "0", "numbers", "cat", "/tmp/run"]).unwrap(), "1001 1001 1001 /");
    assert_eq!(run(&["numbers", "sh", "-c", show]).unwrap(), "1001 1001 1001 /");
    assert_eq!(run(&["-u", "1001", "numbers", "sh", "-c", show]).unwrap(), "1001 0 0 /");
    // The entry of a uid is the user's all the same.
    assert_eq!(run(&["-u", "1002", "numbers", "sh", "-c", show]).unwrap(), "1002 1003 1003 1004 /own");
    for id in wrong {
        for user in [id.to_owned(), format!("0:{id}"), format!("own:{id}")] {
            let error = run(&[&format!("--user={user}"), "numbers", "true"]).unwrap_err();
            assert!(error.contains(&format!("invalid id `{id}`")), "{user}: {error}");
            // Without a process the text is kept as it is written, as in the reference.
            let (code, progress) = attempt(&fixture, "c", &format!("{start}USER {user}\nRUN true\n"));
            assert!(code == 1 && progress.contains(&format!("invalid id `{id}`")), "{user}: {progress}");
        }
        // An owner that is no id is root, as in the reference, and not the user of that name.
        let chown = format!("{start}COPY --chown=5:{id} Dockerfile /x\nRUN stat -c %u:%g /x\n");
        let (code, progress) = attempt(&fixture, "c", &chown);
        assert!(code == 0 && progress.contains(" 5:5\n"), "{id}: {progress}");
        let mount = format!("{start}RUN --mount=type=cache,target=/c,uid={id} true\n");
        let (code, progress) = attempt(&fixture, "c", &mount);
        let is_refused = progress.contains(&format!("invalid value {id} for uid"));
        assert!((code == 1 && is_refused) || id == "4294967295", "{id}: {progress}");
    }
}

/// No command accepts a name for an image that looks like the digest or the id of another one.
#[test]
fn names_of_images_are_no_ids() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nRUN echo hi > /hi\n");
    fixture.build("victim", &context);
    let id = fixture.ok("inspect -f {{.Id}} victim").trim().to_owned();
    let hex = id.trim_start_matches("sha256:");
    let images = fixture.ok("images -aq");
    for name in [id.as_str(), hex, &format!("docker.io/library/{id}"), &format!("{hex}:latest"), "sha256:abc"]
    {
        for words in ["tag busybox", "pull"] {
            let done = fixture.words(&format!("{words} {name}"));
            assert!(done.code != 0 && done.err.contains("cannot"), "{words} {name}: {done:?}");
        }
        for flag in ["-t", "-o"] {
            let value = if flag == "-o" { format!("type=image,name={name}") } else { name.to_owned() };
            let arguments = ["build".as_ref(), flag.as_ref(), value.as_ref(), context.as_os_str()];
            let done = fixture.kiln(&arguments);
            assert!(done.code != 0 && !done.err.contains("naming to"), "build {flag} {name}: {done:?}");
        }
        assert_eq!(fixture.ok(&format!("run --rm {id} cat /hi")), "hi\n");
        assert_eq!(fixture.ok("images -aq"), images, "{name}");
    }
}

/// A container cannot reopen a file that is a standard stream of the caller.
#[test]
fn standard_streams_are_pipes() {
    let fixture = fixture!();
    fixture.write("in", "input\n");
    let (input, output) = (fixture.path("in"), fixture.path("out"));
    let show = "for fd in 0 1 2; do readlink /proc/self/fd/$fd | cut -d : -f 1; done; cat";
    let mut command = fixture.command(&["run", "--rm", "-i", "busybox", "sh", "-c", show]);
    command.stdin(std::fs::File::open(input).unwrap()).stdout(std::fs::File::create(&output).unwrap());
    assert!(command.stderr(std::fs::File::create(fixture.path("err")).unwrap()).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(output).unwrap(), "pipe\npipe\npipe\ninput\n");
}

/// The git that fetches a repository uses no hooks and settings of the user.
#[test]
fn git_takes_no_settings_of_users() {
    let fixture = fixture!();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.arg("-C").arg(fixture.path("served/r")).args(["-c", "user.name=n", "-c", "user.email=e"]);
        assert!(
            command.args(arguments).env("HOME", fixture.path("")).status().unwrap().success(),
            "{arguments:?}"
        );
    };
    fixture.write("served/r/Dockerfile", "FROM busybox\n");
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut daemon = std::process::Command::new("git")
        .args(["daemon", "--listen=127.0.0.1", "--reuseaddr", "--export-all", "--verbose"])
        .args([format!("--port={port}"), format!("--base-path={}", fixture.path("served").display())])
        .stderr(std::process::Stdio::piped())
        // git starts another program, which is ended with it.
        .process_group(0)
        .spawn()
        .unwrap();
    let mut messages = std::io::BufReader::new(daemon.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut messages, &mut String::new()).unwrap();
    let ran = fixture.path("ran");
    fixture.write("hooks/post-checkout", &format!("#!/bin/sh\ntouch {}\n", ran.display()));
    std::fs::set_permissions(
        fixture.path("hooks/post-checkout"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let hooks = fixture.path("hooks").display().to_string();
    fixture.write(
        ".gitconfig",
        &format!("[core]\n\thooksPath = {hooks}\n\tfsmonitor = {hooks}/post-checkout\n"),
    );
    let url = format!("git://127.0.0.1:{port}/r");
    let done = fixture.command(&["build", "-q", &url]).env("HOME", fixture.path("")).output().unwrap();
    let group = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    daemon.wait().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!ran.exists(), "a hook ran");
}

/// The header block of a file in a tar.
pub fn tar_header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.to_vec()
}

/// A tar of one file that consists of a hole.
fn hollow_tar(size: u64) -> Vec<u8> {
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|length| *length == rest.len() + length.to_string().len()).unwrap();
        format!("{length}{rest}")
    };
    let mut records = record("GNU.sparse.major", "1") + &record("GNU.sparse.minor", "0");
    records += &(record("GNU.sparse.name", "big") + &record("GNU.sparse.realsize", &size.to_string()));
    let length = records.len() as u64;
    let mut records = records.into_bytes();
    records.resize(512, 0);
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    [tar_header("pax", b'x', length), records, tar_header("s/big", b'0', 512), map, vec![0; 1024]].concat()
}

fn with_input(fixture: &Fixture, arguments: &[&str], input: &std::path::Path) -> Done {
    let input = std::fs::File::open(input).unwrap();
    Done::of(fixture.command(arguments).stdin(input).output().unwrap())
}

#[test]
fn archives_that_explode_are_refused_wherever_they_come_from() {
    let fixture = fixture!();
    // A tar of zeros: members of a gzip stream are one stream.
    let member = |bytes: &[u8]| {
        let mut child = std::process::Command::new("gzip")
            .args(["-9c"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &bytes));
        let output = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        output
    };
    let zeros = member(&vec![0; 1 << 24]).repeat(66);
    let path = fixture.path("bomb.tgz");
    std::fs::write(&path, [member(&tar_header("big", b'0', 66 << 24)), zeros].concat()).unwrap();
    let refused = [
        with_input(&fixture, &["build", "-q", "-"], &path),
        added(&fixture, "bomb.tgz"),
        with_input(&fixture, &["load"], &path),
        fixture.kiln(&["load", "-i", path.to_str().unwrap()]),
    ];
    for done in refused {
        assert!(done.code != 0 && done.err.contains("250 times"), "{}", done.err);
    }
}

/// Builds with an archive that ADD unpacks.
fn added(fixture: &Fixture, name: &str) -> Done {
    let context = fixture.context("c", &format!("FROM busybox\nADD {name} /\n"));
    std::fs::copy(fixture.path(name), context.join(name)).unwrap();
    fixture.kiln(&["build", "-q", context.to_str().unwrap()])
}

/// Holes of sparse files count with the size of the file that they are part of, before it is written.
#[test]
fn holes_of_archives_have_the_limit_of_what_they_become() {
    let fixture = fixture!();
    let path = fixture.path("hollow.tar");
    std::fs::write(&path, hollow_tar(64 << 40)).unwrap();
    let began = std::time::Instant::now();
    for done in [added(&fixture, "hollow.tar"), with_input(&fixture, &["build", "-q", "-"], &path)] {
        assert!(done.code != 0 && done.err.contains("250 times"), "{}", done.err);
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn holes_of_archives_stay_holes() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nADD hollow.tar /\nRUN stat -c '%s %b' /big >/size\n");
    std::fs::write(context.join("hollow.tar"), hollow_tar(300 << 20)).unwrap();
    fixture.build("hollow", &context);
    assert_eq!(fixture.ok("run --rm hollow cat /size").split(' ').next(), Some("314572800"));
    let blocks: u64 =
        fixture.ok("run --rm hollow cat /size").trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(blocks < 100, "{blocks}");
}
