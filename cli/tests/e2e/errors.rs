//! Failures are reported clearly, and leave nothing behind.

use crate::fixture::{Done, kiln, project};
use crate::web_server::{Response, Server};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

#[test]
fn mistakes_in_a_dockerfile_are_shown() {
    let fixture = fixture!();
    let check = |dockerfile: &str, expected: &[&str]| {
        let context = fixture.context("wrong", dockerfile);
        let err = fixture.fails(&context).err;
        for words in expected {
            assert!(err.contains(words), "`{words}` is not in:\n{err}");
        }
    };
    check(
        "FROM busybox\nRUNN echo hi\n",
        &["Dockerfile:2:1", "RUNN echo hi\n  | ^^^^", "unknown instruction: RUNN", "did you mean RUN?"],
    );
    check("FROM busybox\nCOPY nosuch /x\n", &["Dockerfile:2:6", "COPY nosuch /x", "\"/nosuch\": not found"]);
    check(
        "FROM busybox\nRUN exit 3\n",
        &["Dockerfile:2:1", "RUN exit 3", "did not complete successfully: exit code: 3"],
    );
    check("FROM nosuchbase\n", &["Dockerfile:1:6", "nosuchbase", "not found"]);
    check("FROM busybox AS a\nCOPY --from=b / /\n", &["b"]);
    check("", &["the Dockerfile cannot be empty"]);
}

#[test]
fn finished_steps_are_cached_after_a_failure() {
    let fixture = fixture!();
    let first = "FROM busybox\nRUN echo slow > /a\n";
    fixture.fails(&fixture.context("c", &format!("{first}RUN exit 3\n")));
    let progress = fixture.build("c", &fixture.context("c", &format!("{first}RUN echo fine\n")));
    assert!(progress.contains("RUN echo slow > /a\n#4 CACHED"), "{progress}");
}

#[test]
fn an_interrupted_build_ends_at_once_and_keeps_finished_steps() {
    let fixture = fixture!();
    let dockerfile = "FROM busybox\nRUN echo first > /a\nRUN echo begun; sleep 1000\n";
    let context = fixture.context("c", dockerfile);
    let arguments = ["build".as_ref(), "-t".as_ref(), "c".as_ref(), context.as_os_str()];
    let mut child = fixture.command(&arguments).process_group(0).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" begun")), "the step began");
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:#?}");
    assert_eq!(rest.iter().filter(|line| line.starts_with("ERROR")).count(), 1, "{rest:#?}");
    assert_eq!(rest.last().map(String::as_str), Some("Build cancelled."), "{rest:#?}");
    assert_eq!(fixture.ok("images -q c"), "");
    fixture.assert_clean();
    let progress = fixture.build("c", &fixture.context("c", &dockerfile.replace("sleep 1000", "true")));
    assert!(progress.contains("RUN echo first > /a\n#4 CACHED"), "{progress}");
}

/// Longest time for a build that reads terabytes to show that it does, and to end.
const LONGEST: Duration = Duration::from_secs(60);

#[test]
fn reading_a_huge_file_is_shown_and_ends_at_the_first_signal() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nCOPY huge /\n");
    std::fs::File::create(context.join("huge")).unwrap().set_len(1 << 40).unwrap();
    let mut child = fixture.start(&["build".as_ref(), context.as_os_str()]);
    let process = rustix::process::Pid::from_child(&child);
    // Reading all of the file takes minutes to hours: a build that does is killed.
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        }
    });
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let is_shown = lines.any(|line| line.ends_with("[internal] load build context"));
    if is_shown {
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }
    let rest: Vec<String> = lines.collect();
    let status = child.wait().unwrap();
    drop(ended);
    watch.join().unwrap();
    assert!(is_shown, "a row for the work");
    assert_eq!(status.code(), Some(130), "{rest:#?}");
    assert_eq!(rest.last().map(String::as_str), Some("Build cancelled."), "{rest:#?}");
}

#[test]
fn a_full_disk_is_one_clear_error() {
    let fixture = fixture!();
    let disk = fixture.path("store");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        skip!("needs a tmpfs to fill");
    }
    let _unmount = Unmount(disk.clone());
    let dockerfile = "FROM busybox\nRUN echo small > /small\nRUN dd if=/dev/zero of=/big bs=1M count=64\n";
    let err = fixture.fails(&fixture.context("c", dockerfile)).err;
    assert!(err.contains("No space left on device"), "{err}");
    fixture.write("copied/big", &"x".repeat(32 << 20));
    fixture.write("copied/Dockerfile", "FROM busybox\nCOPY big /\n");
    let err = fixture.fails(&fixture.path("copied")).err;
    assert!(err.contains("No space left on device") && err.contains("hint: the disk is full"), "{err}");
    let fits = fixture.context("c", "FROM busybox\nRUN echo small > /small\nRUN echo fits\n");
    let progress = fixture.build("c", &fits);
    assert!(progress.contains("RUN echo small > /small\n#4 CACHED"), "{progress}");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Without root a command fails with a hint, and creates nothing.
#[test]
fn ordinary_users_get_a_hint() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() && !kiln().exists() {
        skip!("needs the program");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let readable = dir.path().join("kiln");
    std::fs::copy(kiln(), &readable).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let mut command = Command::new(&readable);
    let context = project().join("testdata/hello");
    command.args(["build", "-t", "x"]).arg(context).env("KILN_ROOT", &root).env("HOME", dir.path());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    let done = Done::of(command.output().unwrap());
    assert_eq!(done.code, 1);
    assert_eq!(
        done.err,
        "ERROR: kiln must run as root: rootless operation is not supported yet\nhint: run the same command with sudo\n"
    );
    assert!(!root.exists());
}

#[test]
fn registries_that_cannot_be_reached_are_all_named() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM nothing-here:1\n");
    let mut command = fixture.command(&["build".as_ref(), context.as_os_str()]);
    // No process listens on port 1.
    let done = Done::of(command.env("KILN_REGISTRY_MIRROR", "127.0.0.1:1").output().unwrap());
    assert_eq!(done.code, 1);
    if !done.err.contains("cannot reach") {
        skip!("needs a host that does not reach Docker Hub");
    }
    assert!(done.err.contains("http://127.0.0.1:1/v2/library/nothing-here/manifests/1"), "{}", done.err);
    assert!(done.err.contains("kiln load -i FILE"), "without a network there is another way: {}", done.err);
    let done =
        Done::of(fixture.command(&["images"]).env("KILN_REGISTRY_MIRROR", "http://[").output().unwrap());
    assert_eq!(done.code, 1);
    assert!(done.err.contains("http://["), "{}", done.err);
}

#[test]
fn dots_do_not_leave_the_context() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM scratch\nCOPY ../missing /\n");
    let done = fixture.fails(&context);
    assert!(done.err.contains("\"/missing\": not found"), "{}", done.err);
    assert!(done.err.contains("hint: `..` does not leave the build context"), "{}", done.err);
}

/// Sequences that set a title, the clipboard, clear the screen, and the same as control characters of Latin 1.
const STEERING: &str = "\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07\x1b[2J\u{9b}2J\u{9d}0;x\u{9c}";

#[track_caller]
fn steers_nothing(text: &str) {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    // Colours of steps are kept.
    let text = text.replace("\x1b[31m", "").replace("\x1b[0m", "");
    assert!(!text.contains(steers), "{text:?}");
}

#[test]
fn texts_from_outside_do_not_steer_terminals() {
    let fixture = fixture!();
    let escaped = STEERING.replace('\x1b', "\\u001b").replace('\x07', "\\u0007");
    let server = Server::start(move |request| match request.path.as_str() {
        path if path.contains("/plain/") => Response::new(400, STEERING),
        _ => Response::new(400, format!(r#"{{"errors":[{{"code":"X","message":"{escaped}"}}]}}"#)),
    });
    for name in ["plain", "list"] {
        let done = fixture.kiln(&["pull", &format!("{}/{name}/x", server.address)]);
        assert!(done.code == 1 && done.err.contains("^[]0;title^G^[]52;c;"), "{}", done.err);
        steers_nothing(&done.err);
    }

    let print = "printf '\\033[31mred \\033]52;c;ZXZpbA==\\007\\302\\2332J\\n'";
    let dockerfile = format!(
        "FROM busybox\nLABEL a=\"{STEERING}\"\nRUN {print}\nRUN {print}; : \"{STEERING}\" >&2; exit 3\n"
    );
    let context = fixture.context("c", &dockerfile);
    let done = fixture.fails(&context);
    assert!(done.err.contains(" \x1b[31mred ^[]52;c;ZXZpbA==^G\\u009b2J\x1b[0m\n"), "{:?}", done.err);
    steers_nothing(&done.err);
    let dockerfile = format!("FROM busybox\nLABEL a=\"{STEERING}\"\n");
    steers_nothing(&fixture.build("labelled", &fixture.context("l", &dockerfile)));
    let history = fixture.ok("history --no-trunc labelled");
    assert!(history.contains("^[]0;title^G"), "{history:?}");
    steers_nothing(&history);
    // Output for programs is not changed.
    let label = fixture.kiln(&["inspect", "--format", "{{index .Config.Labels \"a\"}}", "labelled"]);
    assert_eq!(label.out, format!("{STEERING}\n"));

    let broken = fixture.context("b", &format!("FROM busybox\nRUNN {STEERING}\n"));
    steers_nothing(&fixture.fails(&broken).err);
    let copied = fixture.context("d", &format!("FROM busybox\nCOPY \"no{STEERING}\" /\n"));
    steers_nothing(&fixture.fails(&copied).err);
    for words in [["rmi", STEERING], ["build", STEERING], [STEERING, ""], ["inspect", STEERING]] {
        steers_nothing(&fixture.kiln(&words).err);
    }
    let linted = fixture.kiln(&["lint".to_owned(), format!("{}/Dockerfile", broken.display())]);
    steers_nothing(&linted.out);
    let checked = fixture.kiln(&["build".as_ref(), "--check".as_ref(), broken.as_os_str()]);
    steers_nothing(&(checked.out + &checked.err));
}

/// Variables that double, written forty times, and configs too large to be read again are mistakes of the Dockerfile:
/// nothing is exhausted, and nothing is tagged.
#[test]
fn variables_and_configs_have_a_size() {
    let fixture = fixture!();
    let doubled = |line: &str| format!("{line}\n").repeat(40);
    let grown = "variables add more than 1 MiB to this value";
    let start = "FROM busybox\nENV A=xx\n";
    for (dockerfile, place, message) in [
        (format!("{start}{}", doubled("ENV A=$A$A")), "Dockerfile:22:9", grown),
        (format!("FROM busybox\nARG A=xx\n{}", doubled("ARG A=$A$A")), "Dockerfile:22:9", grown),
        (format!("ARG A=xx\n{}FROM busybox\n", doubled("ARG A=$A$A")), "Dockerfile:21:9", grown),
        (format!("{start}{}", doubled("ENV A=${A//x/xx}")), "Dockerfile:22:", grown),
        (format!("{start}{}LABEL a=$A$A$A\n", "ENV A=$A$A\n".repeat(18)), "Dockerfile:21:", grown),
        (format!("{start}{}COPY <<E /x\n$A$A$A\nE\n", "ENV A=$A$A\n".repeat(18)), "Dockerfile:21:", grown),
        (
            format!("{start}{}{}", "ENV A=$A$A\n".repeat(17), "LABEL a=$A\n".repeat(40)),
            "Dockerfile:49:1",
            "the image's config becomes larger than 8 MiB",
        ),
        (
            format!("{start}{}{}", "ENV A=$A$A\n".repeat(17), "RUN echo $A\n".repeat(400)),
            "Dockerfile:",
            "altogether",
        ),
    ] {
        let context = fixture.context("grown", &dockerfile);
        for arguments in [["build", "-t", "grown", "-q"], ["build", "--check", "--progress", "plain"]] {
            let done = fixture.kiln(
                &arguments
                    .map(std::ffi::OsStr::new)
                    .into_iter()
                    .chain([context.as_os_str()])
                    .collect::<Vec<_>>(),
            );
            assert!(done.code == 1 && done.err.contains(place) && done.err.contains(message), "{done:?}");
        }
        for words in ["lint", "build --call=outline"] {
            let mut arguments: Vec<&std::ffi::OsStr> = words.split(' ').map(std::ffi::OsStr::new).collect();
            let file = context.join("Dockerfile");
            arguments.push(if words == "lint" { file.as_os_str() } else { context.as_os_str() });
            let done = fixture.kiln(&arguments);
            assert!(done.code < 2 && done.out.len() < 3 << 20, "{words}: {}", done.code);
        }
        assert_eq!(fixture.ok("images -q grown"), "");
    }
}

/// A hint names the tree in which a path was looked for.
#[test]
fn errors_about_paths_name_the_searched_tree() {
    let fixture = fixture!();
    let cases = [
        ("COPY --from=a /d /x", "paths are looked for in the stage a"),
        ("COPY --from=a /d /x", "`/d` is a link that leads to `/nowhere`, where nothing is"),
        ("COPY --from=a /d* /x/", "`/d` is a link that leads to `/nowhere`, where nothing is"),
        ("COPY --from=0 ../nosuch /x", "`..` does not leave the stage a"),
        ("COPY --from=busybox nosuch /x", "paths are looked for in the image busybox"),
        ("COPY --from=named nosuch /x", "paths are looked for in the named context named, the directory `"),
        ("RUN --mount=from=a,source=/nosuch,target=/x true", "paths are looked for in the stage a"),
        ("COPY link /x", "`/link` is a link that leads to `/nowhere`, where nothing is"),
        ("COPY nosuch /x", "paths are looked for in the build context, the directory `"),
        ("COPY nosuch/* /x/", "paths are looked for in the build context, the directory `"),
    ];
    fixture.write("named/f", "");
    let named = format!("--build-context=named={}", fixture.path("named").display());
    for (line, hint) in cases {
        let text = format!("FROM busybox AS a\nRUN ln -s nowhere /d\nFROM busybox\n{line}\n");
        let context = fixture.context("c", &text);
        let _ = std::os::unix::fs::symlink("nowhere", context.join("link"));
        let done = fixture.kiln(&["build".as_ref(), named.as_ref(), context.as_os_str()]);
        assert_eq!(done.code, 1, "{line}: {}", done.err);
        assert!(done.err.contains(&format!("hint: {hint}")), "{line}: {}", done.err);
        assert_eq!(
            done.err.matches("build context,").count(),
            usize::from(!line.contains("from=")),
            "{line}"
        );
    }
}

/// Warnings of a step are repeated when the step is found in the cache, and at the end of the build.
#[test]
fn warnings_are_the_same_from_the_cache_and_in_one_list() {
    let fixture = fixture!();
    let text = "FROM busybox as base\nARG COLOUR\nCOPY --chown=nobdy f /f\nRUN true\n";
    let context = fixture.context("c", text);
    fixture.write("c/f", "x");
    let build = |flags: &[&str]| {
        let words: Vec<_> = ["build", "--build-arg=COLOR=red"]
            .iter()
            .chain(flags)
            .map(|word| std::ffi::OsStr::new(*word))
            .collect();
        fixture.kiln(&words.into_iter().chain([context.as_os_str()]).collect::<Vec<_>>())
    };
    let list = |done: &crate::fixture::Done| -> Vec<String> {
        let lines = done.err.lines().skip_while(|line| !line.contains("warnings found"));
        lines.map(str::to_owned).collect()
    };
    let first = build(&[]);
    assert_eq!(first.code, 0, "{}", first.err);
    let expected = list(&first);
    assert!(expected[0].contains("3 warnings found"), "{}", first.err);
    for part in ["unknown user nobdy counts as root", "[COLOR] were not consumed", "FromAsCasing"] {
        assert_eq!(first.err.matches(part).count(), 1, "{part}: {}", first.err);
        assert!(expected.iter().any(|line| line.contains(part)), "{part}: {}", first.err);
    }
    let again = build(&[]);
    assert!(again.err.contains("CACHED") && again.code == 0, "{}", again.err);
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(list(&again)), sorted(expected), "{}", again.err);
    let strict = fixture.kiln(&["build".as_ref(), "--strict".as_ref(), context.as_os_str()]);
    assert!(strict.code == 1 && strict.err.contains("unknown user nobdy"), "{}", strict.err);
}
