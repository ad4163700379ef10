//! Files over HTTP and git repositories: as sources of ADD, and as contexts.

use crate::fixture::{Done, Fixture};
use crate::web_server::{Request, Response, Server};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

fn build(fixture: &Fixture, flags: &[&str], context: &str) -> Done {
    let words: Vec<&str> = ["build"].iter().chain(flags).copied().chain([context]).collect();
    fixture.kiln(&words)
}

/// Output lines of RUN steps, without their times.
fn output(progress: &str) -> Vec<&str> {
    let lines = progress.lines().filter_map(|line| {
        let (_, rest) = line.strip_prefix('#')?.split_once(' ')?;
        let (time, text) = rest.split_once(' ')?;
        time.parse::<f64>().ok().map(|_| text)
    });
    lines.collect()
}

#[test]
fn files_of_the_web_are_added_and_asked_for_again() {
    let fixture = fixture!();
    let server = Server::start(|request| {
        let response = match request.header("if-none-match") {
            "\"v1\"" => Response::new(304, ""),
            _ => Response::new(200, "content\n").header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        };
        response.header("ETag", "\"v1\"")
    });
    let url = server.url("/a/file.txt?x=1");
    let text = format!(
        "FROM busybox\nADD {url} /into/\nADD {url} /as/name\nRUN stat -c '%a %u %Y %s' /into/file.txt /as/name\n"
    );
    let context = fixture.context("c", &text).display().to_string();
    let first = build(&fixture, &["-t", "web"], &context);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(output(&first.err), ["600 0 784111777 8", "600 0 784111777 8"]);
    let again = build(&fixture, &["-t", "web"], &context);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(output(&again.err).is_empty() && again.err.matches("CACHED").count() == 6, "{}", again.err);
    let revalidated = server.requests().iter().filter(|it| it.header("if-none-match") == "\"v1\"").count();
    assert!(revalidated >= 1, "the server was not asked whether the file changed");
    assert!(fixture.ok("history --no-trunc web").contains(&format!("ADD {url} /as/name # buildkit")));
}

#[test]
fn checksums_are_checked_and_archives_unpacked_when_asked_for() {
    let fixture = fixture!();
    fixture.write("in/f", "x\n");
    let tar = Command::new("tar").args(["-cz", "-C"]).arg(fixture.path("in")).arg("f").output().unwrap();
    let server = Server::start(move |_| Response::new(200, tar.stdout.clone()));
    let url = server.url("/a.tar.gz");
    let text = format!("FROM busybox\nADD {url} /p/\nADD --unpack=true {url} /u/\nRUN ls /p /u\n");
    let done = build(&fixture, &[], &fixture.context("c", &text).display().to_string());
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(output(&done.err), ["/p:", "a.tar.gz", "", "/u:", "f"]);
    let zeros = "0".repeat(64);
    let wrong = format!("FROM scratch\nADD --checksum=sha256:{zeros} {url} /p\n");
    let done = fixture.fails(&fixture.context("w", &wrong));
    assert!(done.err.contains("digest mismatch sha256:"), "{}", done.err);
    assert!(done.err.contains("Dockerfile:2"), "{}", done.err);
}

#[test]
fn broken_downloads_go_on_and_failing_servers_are_asked_again() {
    let fixture = fixture!();
    let body: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let (whole, tries) = (body.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let number = tries.fetch_add(1, Ordering::SeqCst);
        let range = request.header("range").strip_prefix("bytes=").and_then(|it| it.strip_suffix('-'));
        let from: usize = range.map_or(0, |from| from.parse().unwrap());
        let response = match number {
            0 => return Response::new(503, "busy").header("Retry-After", "0"),
            _ if from > 0 => Response::new(206, &whole[from..]),
            _ => Response { cut: Some(100_000), ..Response::new(200, whole.clone()) },
        };
        response.header("ETag", "\"v1\"")
    });
    let text = format!("FROM busybox\nADD {} /f\nRUN wc -c < /f && sha256sum < /f\n", server.url("/f"));
    let done = build(&fixture, &[], &fixture.context("c", &text).display().to_string());
    assert_eq!(done.code, 0, "{}", done.err);
    let digest = kiln_image::digest::Digest::of(&body);
    assert_eq!(output(&done.err), ["800000".to_owned(), format!("{}  -", digest.hex())]);
    assert!(server.requests().iter().any(|request| !request.header("range").is_empty()));
}

#[test]
fn missing_files_fail_at_their_line() {
    let fixture = fixture!();
    let server = Server::start(|_| Response::new(404, "no"));
    let text = format!("FROM scratch\nADD {} /f\n", server.url("/nosuch"));
    let done = fixture.fails(&fixture.context("c", &text));
    assert!(done.err.contains("invalid response status 404"), "{}", done.err);
    assert!(done.err.contains("Dockerfile:2"), "{}", done.err);
}

#[test]
fn servers_receive_only_their_own_secrets() {
    let fixture = fixture!();
    let server = Server::start(|request| match request.header("authorization") {
        "Bearer t0ken-of-mine" => Response::new(200, "ok\n"),
        _ => Response::new(401, ""),
    });
    fixture.write("token", "t0ken-of-mine\n");
    let text = format!("FROM busybox\nADD {} /f\nRUN cat /f\n", server.url("/f"));
    let context = fixture.context("c", &text);
    let secret = format!("--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", fixture.path("token").display());
    let done = build(&fixture, &[&secret], &context.display().to_string());
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(fixture.fails(&context).code, 1);
}

#[test]
fn contexts_come_from_the_web() {
    let fixture = fixture!();
    fixture.write("in/sub/Dockerfile.x", "FROM busybox\nCOPY f /f\nRUN cat /f\n");
    fixture.write("in/f", "from a tar\n");
    let tar = Command::new("tar").args(["-cz", "-C"]).arg(fixture.path("in")).arg(".").output().unwrap();
    let server = Server::start(move |request: &Request| match request.path.as_str() {
        "/Dockerfile" => Response::new(200, "FROM busybox\nRUN echo alone\n"),
        "/c.tar.gz" => Response::new(200, tar.stdout.clone()),
        "/plain" => Response::new(200, "named\n"),
        _ => Response::new(404, ""),
    });
    let done = build(&fixture, &[], &server.url("/Dockerfile"));
    assert_eq!((done.code, output(&done.err)), (0, vec!["alone"]), "{}", done.err);
    let done = build(&fixture, &["-f", "sub/Dockerfile.x"], &server.url("/c.tar.gz"));
    assert_eq!((done.code, output(&done.err)), (0, vec!["from a tar"]), "{}", done.err);
    let done = build(&fixture, &[], &server.url("/nosuch"));
    assert!(done.code == 1 && done.err.contains("404"), "{}", done.err);
    let text = "FROM busybox\nCOPY --from=a /f /f\nCOPY --from=b /context /g\nRUN cat /f /g\n";
    let context = fixture.context("c", text).display().to_string();
    let flags = [
        format!("--build-context=a={}", server.url("/c.tar.gz")),
        format!("--build-context=b={}", server.url("/plain")),
    ];
    let done = build(&fixture, &[&flags[0], &flags[1]], &context);
    assert_eq!((done.code, output(&done.err)), (0, vec!["from a tar", "named"]), "{}", done.err);
}

/// A repository that is served on the loopback interface.
struct Repository {
    daemon: Child,
    url: String,
    first: String,
    /// A daemon whose output is closed exits.
    messages: Option<std::io::BufReader<std::process::ChildStderr>>,
}

impl Drop for Repository {
    fn drop(&mut self) {
        // The listening process is a child of git.
        if let Some(group) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.daemon.wait();
    }
}

fn git(fixture: &Fixture, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.arg("-C")
        .arg(fixture.path("served/r"))
        .args(["-c", "user.name=a", "-c", "user.email=a@b"])
        .args(arguments);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "1500000000 +0000");
    let done = git.env("GIT_AUTHOR_DATE", "1500000000 +0000").output().unwrap();
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn repository(fixture: &Fixture) -> Repository {
    fixture.write("served/r/f", "first\n");
    fixture.write("served/r/sub/Dockerfile", "FROM busybox\nCOPY . /c\nRUN ls -A /c && cat /c/g\n");
    fixture.write("served/r/sub/g", "below\n");
    git(fixture, &["init", "-q", "-b", "main"]);
    git(fixture, &["add", "."]);
    git(fixture, &["commit", "-qm", "one"]);
    git(fixture, &["tag", "-am", "one", "v1"]);
    let first = git(fixture, &["rev-parse", "HEAD"]);
    fixture.write("served/r/f", "second\n");
    git(fixture, &["commit", "-qam", "two"]);
    git(fixture, &["branch", "other", "v1^{}"]);
    // A port that is free now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let daemon = Command::new("git")
        .args(["daemon", "--listen=127.0.0.1", "--reuseaddr", "--export-all", "--verbose"])
        .args([format!("--port={port}"), format!("--base-path={}", fixture.path("served").display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let url = format!("git://127.0.0.1:{port}/r");
    let mut repository = Repository { daemon, url, first, messages: None };
    // It prints a line when it is ready.
    let mut ready = String::new();
    let mut messages = std::io::BufReader::new(repository.daemon.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut messages, &mut ready).unwrap();
    assert!(ready.contains("Ready"), "{ready}");
    repository.messages = Some(messages);
    repository
}

#[test]
fn repositories_are_added() {
    let fixture = fixture!();
    let repository = repository(&fixture);
    let (url, first) = (&repository.url, &repository.first);
    let text = format!(
        "FROM busybox\nADD {url} /head\nADD {url}#v1 /tag\nADD {url}#other:sub /sub\nADD --keep-git-dir=true {url}#{first} /kept\n\
         RUN cat /head/f /tag/f /sub/g /kept/f && ls -A /head && test -d /kept/.git && stat -c '%a %u' /head/f\n"
    );
    let context = fixture.context("c", &text).display().to_string();
    let done = build(&fixture, &["-t", "git"], &context);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(output(&done.err), ["second", "first", "below", "first", "f", "sub", "644 0"], "{}", done.err);
    let again = build(&fixture, &[], &context);
    assert!(again.code == 0 && output(&again.err).is_empty(), "{}", again.err);
    // A new commit makes the steps of its branch run again, and no others.
    fixture.write("served/r/f", "third\n");
    git(&fixture, &["commit", "-qam", "three"]);
    let moved = build(&fixture, &[], &context);
    assert_eq!(output(&moved.err).first(), Some(&"third"), "{}", moved.err);

    let checked = format!("FROM scratch\nADD --checksum={} {url}#v1 /\n", &first[..12]);
    assert_eq!(build(&fixture, &[], &fixture.context("k", &checked).display().to_string()).code, 0);
    let wrong = format!("FROM scratch\nADD --checksum=0123456 {url}#v1 /\n");
    let done = fixture.fails(&fixture.context("w", &wrong));
    assert!(done.err.contains("expected checksum to match 0123456"), "{}", done.err);
    let missing = format!("FROM scratch\nADD {url}#nosuch /\n");
    let done = fixture.fails(&fixture.context("m", &missing));
    assert!(done.err.contains("repository does not contain ref nosuch"), "{}", done.err);
}

#[test]
fn contexts_come_from_repositories() {
    let fixture = fixture!();
    let repository = repository(&fixture);
    let url = format!("{}#v1:sub", repository.url);
    let done = build(&fixture, &["-t", "context"], &url);
    assert_eq!((done.code, output(&done.err)), (0, vec!["Dockerfile", "g", "below"]), "{}", done.err);
    // The time of the commit is that of the image.
    let done = build(&fixture, &["-q", "-t", "timed", "--source-date-epoch=context"], &url);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(fixture.ok("inspect timed").contains("2017-07-14T02:40:00Z"));
    let done = build(&fixture, &[], &format!("{}#v1:nosuch", repository.url));
    assert!(done.code == 1 && done.err.contains("no such directory in the repository"), "{}", done.err);
    let named =
        fixture.context("c", "FROM busybox\nCOPY --from=src /f /f\nRUN cat /f\n").display().to_string();
    let done = build(&fixture, &[&format!("--build-context=src={}#v1", repository.url)], &named);
    assert_eq!((done.code, output(&done.err)), (0, vec!["first"]), "{}", done.err);
}

#[test]
fn submodules_come_with_their_repository() {
    let fixture = fixture!();
    let repository = repository(&fixture);
    let url = &repository.url;
    // The repository as it is now is part of its next commit.
    git(&fixture, &["submodule", "add", "-q", url, "inner"]);
    fixture.write("served/r/Dockerfile", "FROM busybox\nCOPY . /c\nRUN cat /c/inner/f\n");
    git(&fixture, &["add", "."]);
    git(&fixture, &["commit", "-qm", "three"]);
    let text = format!("FROM busybox\nADD {url} /r\nRUN cat /r/inner/f\n");
    for context in [fixture.context("c", &text).display().to_string(), url.clone()] {
        let done = build(&fixture, &[], &context);
        assert_eq!((done.code, output(&done.err)), (0, vec!["second"]), "{context}: {}", done.err);
    }
}

#[test]
fn keys_are_lent_to_repositories_that_the_user_names() {
    let fixture = fixture!();
    let seen = fixture.path("seen");
    fixture.write("bin/ssh", &format!("#!/bin/sh\n{{ echo \"$@\"; env; }} >{}\nexit 1\n", seen.display()));
    let made = Command::new("chmod").arg("+x").arg(fixture.path("bin/ssh")).status().unwrap();
    assert!(made.success());
    let socket = fixture.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let path = format!("{}:{}", fixture.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |arguments: &[&str]| {
        let mut command = fixture.command(arguments);
        command.env("PATH", &path).env("SSH_AUTH_SOCK", &socket).env("AWS_SECRET_ACCESS_KEY", "hush");
        assert!(!command.env("GIT_SSH", "/nowhere").output().unwrap().status.success());
        let seen = std::fs::read_to_string(&seen).unwrap();
        assert!(!seen.contains("hush") && !seen.contains("KILN_ROOT"), "{seen}");
        let has_agent = seen.contains(&format!("SSH_AUTH_SOCK={}", socket.display()));
        (has_agent, !seen.contains("IdentityFile=none"))
    };
    let text = "FROM busybox\nADD ssh://git@127.0.0.1/x.git /x\n";
    let context = fixture.context("c", text).display().to_string();
    assert_eq!(run(&["build", &context]), (false, false), "what a Dockerfile names");
    assert_eq!(run(&["build", "--ssh=default", &context]), (true, false));
    let other = format!("--ssh=other={}", socket.display());
    assert_eq!(run(&["build", &other, &context]), (false, false));
    assert_eq!(run(&["build", "ssh://git@127.0.0.1/x.git"]), (true, true), "what the user names");
    assert_eq!(run(&["build", "git@127.0.0.1:x.git"]), (true, true));
    assert_eq!(run(&["build", "--build-context=x=ssh://git@127.0.0.1/x.git", &context]), (true, true));
    assert_eq!(run(&["build", &other, "git@127.0.0.1:x.git"]), (false, false));
}

#[test]
fn silent_repositories_time_out() {
    let fixture = fixture!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    for scheme in ["git", "http"] {
        let text = format!("FROM scratch\nADD {scheme}://{address}/x.git /x\n");
        let context = fixture.context("c", &text);
        let mut command = fixture.command(&["build".as_ref(), context.as_os_str()]);
        let begun = std::time::Instant::now();
        let done = crate::fixture::Done::of(command.env("KILN_NETWORK_TIMEOUT", "2").output().unwrap());
        assert!(done.code == 1 && begun.elapsed().as_secs() < 30, "{}", done.err);
        assert!(done.err.contains("git ls-remote failed"), "{}", done.err);
    }
}

/// Objects of a repository may be named by sha256, and servers may serve files only.
#[test]
fn repositories_of_other_kinds_are_fetched() {
    let fixture = fixture!();
    let repository = repository(&fixture);
    fixture.write("served/r2/f", "sha256\n");
    fixture.write("served/r2/Dockerfile", "FROM busybox\nCOPY f /f\nRUN cat /f\n");
    let git_in = |name: &str, arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(fixture.path(&format!("served/{name}")));
        git.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments);
        let done = git.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    git_in("r2", &["init", "-q", "-b", "main", "--object-format=sha256"]);
    git_in("r2", &["add", "."]);
    git_in("r2", &["commit", "-qm", "one"]);
    let commit = git_in("r2", &["rev-parse", "HEAD"]);
    let url = repository.url.replace("/r", "/r2");
    for url in [url.clone(), format!("{url}#main"), format!("{url}#{commit}")] {
        let done = build(&fixture, &["--no-cache"], &url);
        assert_eq!((done.code, output(&done.err)), (0, vec!["sha256"]), "{url}: {}", done.err);
    }

    // Files of two repositories, one in the other, behind a server that serves nothing but files.
    let root = fixture.path("served");
    let server = Server::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        match std::fs::read(root.join(path)) {
            Ok(bytes) => Response::new(200, bytes),
            Err(_) => Response::new(404, ""),
        }
    });
    fixture.write("served/outer/f", "outer\n");
    git_in("outer", &["init", "-q", "-b", "main"]);
    let inner = server.url("/inner.git");
    git_in("", &["clone", "-q", "--bare", "r", "inner.git"]);
    git_in("inner.git", &["update-server-info"]);
    git_in("outer", &["submodule", "add", "-q", &inner, "sub"]);
    git_in("outer", &["add", "."]);
    git_in("outer", &["commit", "-qm", "one"]);
    git_in("", &["clone", "-q", "--bare", "outer", "outer.git"]);
    git_in("outer.git", &["update-server-info"]);
    let text = format!("FROM busybox\nADD {} /o\nRUN cat /o/f /o/sub/f\n", server.url("/outer.git"));
    let done = build(&fixture, &[], &fixture.context("c", &text).display().to_string());
    assert_eq!((done.code, output(&done.err)), (0, vec!["outer", "second"]), "{}", done.err);
}

/// Redirects as servers write them, and dates in the three forms of HTTP.
#[test]
fn redirects_and_dates_have_many_forms() {
    let fixture = fixture!();
    let server = Server::start(|request| {
        let to = |target: String| Response::new(302, "").header("Location", target);
        let host = request.header("host").to_owned();
        let file = |date: &str| Response::new(200, "x").header("Last-Modified", date);
        match request.path.as_str() {
            "/a/b/up" => to("../c/./f?x=1".to_owned()),
            "/a/b/host" => to(format!("//{host}/a/c/f?x=1")),
            "/a/b/root" => to("/a/b/../c/f?x=1".to_owned()),
            "/a/c/f?x=1" => file("Sunday, 06-Nov-94 08:49:37 GMT"),
            "/asctime" => file("Sun Nov  6 08:49:37 1994"),
            _ => Response::new(404, ""),
        }
    });
    let mut text = "FROM busybox\n".to_owned();
    for path in ["/a/b/up", "/a/b/host", "/a/b/root", "/asctime"] {
        text += &format!("ADD {} /t/\n", server.url(path));
    }
    text += "RUN stat -c '%n %Y' /t/*\n";
    let done = build(&fixture, &[], &fixture.context("c", &text).display().to_string());
    let expected = ["/t/asctime 784111777", "/t/host 784111777", "/t/root 784111777", "/t/up 784111777"];
    assert_eq!((done.code, output(&done.err)), (0, expected.to_vec()), "{}", done.err);
}

/// As in the newest reference: the time of what a build makes is that of the context, of a named one, or of a stage that is
/// one remote ADD.
#[test]
fn epochs_come_from_contexts_and_stages() {
    let fixture = fixture!();
    fixture.write("in/Dockerfile", "FROM busybox\nCOPY f /f\n");
    fixture.write("in/f", "x");
    let tar = |time: &str| {
        let mut tar = Command::new("tar");
        tar.arg("-c").arg(format!("--mtime={time}")).arg("-C").arg(fixture.path("in"));
        tar.args(["Dockerfile", "f"]).output().unwrap().stdout
    };
    let plain = tar("@1500000000");
    let server = Server::start(move |request| {
        let response = Response::new(200, plain.clone());
        match request.path.as_str() {
            "/dated.tar" => response.header("Last-Modified", "Sun Nov  6 08:49:37 1994"),
            _ => response,
        }
    });
    let created = |flags: &[&str], context: &str| {
        let done = build(&fixture, &[&["-q", "-t", "timed"], flags].concat(), context);
        assert_eq!(done.code, 0, "{}", done.err);
        fixture.kiln(&["inspect", "-f", "{{.Created}}", "timed"]).out.trim().to_owned()
    };
    let (archive, web) = ("2017-07-14T02:40:00Z", "1994-11-06T08:49:37Z");
    let of_context = ["--source-date-epoch=context"];
    assert_eq!(created(&of_context, &server.url("/plain.tar")), archive, "the newest file's");
    assert_eq!(created(&of_context, &server.url("/dated.tar")), web);

    let named = fixture.context("n", "FROM busybox\nCOPY --from=src /f /f\n").display().to_string();
    for (path, expected) in [("/plain.tar", archive), ("/dated.tar", web)] {
        let flag = format!("--build-context=src={}", server.url(path));
        assert_eq!(created(&[&flag, "--build-arg=SOURCE_DATE_EPOCH=src"], &named), expected);
        let text = format!(
            "ARG SOURCE_DATE_EPOCH=fetched\nFROM scratch AS fetched\nADD {} /\nFROM busybox\nCOPY --from=fetched / /d\n",
            server.url(path)
        );
        let stage = fixture.context("s", &text).display().to_string();
        assert_eq!(created(&[], &stage), expected);
    }
    let other = "ARG SOURCE_DATE_EPOCH=made\nFROM busybox AS made\nRUN true\nFROM busybox\n";
    let done = fixture.fails(&fixture.context("o", other));
    assert!(done.err.contains("the stage made has no time of its own"), "{}", done.err);
    let done = fixture.fails(&fixture.context("w", "ARG SOURCE_DATE_EPOCH=soon\nFROM busybox\n"));
    assert!(done.err.contains("no context or stage has that name"), "{}", done.err);
}
