//! `--explain`: what changed since the last build of the same Dockerfile.

use crate::fixture::Fixture;
use std::os::unix::fs::PermissionsExt;

/// The lines with reasons, each with the instruction above it.
fn causes(progress: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut causes = Vec::new();
    for line in progress.lines().filter(|line| line.starts_with('#')) {
        let Some((row, words)) = line.split_once(' ') else { continue };
        if let Some((_, text)) = words.split_once("] ").filter(|_| words.starts_with('[')) {
            steps.push((row.to_owned(), text.to_owned()));
        }
        if let Some(cause) = words.strip_prefix("why: ") {
            let step = steps.iter().rev().find(|(known, _)| known == row);
            causes.push((step.map(|(_, text)| text.clone()).unwrap_or_default(), cause.to_owned()));
        }
    }
    causes
}

/// A context that is built before and after edits.
struct Edited {
    fixture: Fixture,
    dockerfile: String,
}

const DOCKERFILE: &str = "FROM busybox\n\
    ARG LEVEL=1\n\
    ENV MODE=fast\n\
    WORKDIR /w\n\
    COPY src /src\n\
    RUN --mount=type=cache,id=c,target=/cache echo level $LEVEL mode $MODE\n\
    RUN echo last\n";

impl Edited {
    /// A context that was built once.
    fn new(fixture: Fixture) -> Edited {
        fixture.write("c/src/a.txt", "a\n");
        fixture.write("c/src/b.txt", "b\n");
        let edited = Edited { fixture, dockerfile: DOCKERFILE.to_owned() };
        let first = edited.build(&[]);
        assert!(
            first.iter().all(|(_, cause)| cause == "no earlier build of this Dockerfile is known"),
            "{first:?}"
        );
        assert!(edited.build(&[]).is_empty(), "nothing runs, so nothing is explained");
        edited
    }

    #[track_caller]
    fn build(&self, flags: &[&str]) -> Vec<(String, String)> {
        self.build_text(&self.dockerfile, flags)
    }

    #[track_caller]
    fn build_text(&self, dockerfile: &str, flags: &[&str]) -> Vec<(String, String)> {
        let context = self.fixture.context("c", dockerfile).display().to_string();
        let words: Vec<&str> =
            ["build", "--explain"].iter().chain(flags).copied().chain([&*context]).collect();
        let done = self.fixture.kiln(&words);
        assert_eq!(done.code, 0, "{}", done.err);
        causes(&done.err)
    }

    /// Builds once with another Dockerfile.
    #[track_caller]
    fn with(&self, from: &str, to: &str, flags: &[&str]) -> Vec<(String, String)> {
        assert!(self.dockerfile.contains(from));
        self.build_text(&self.dockerfile.replacen(from, to, 1), flags)
    }
}

fn texts(causes: &[(String, String)], step: &str) -> Vec<String> {
    causes.iter().filter(|(text, _)| text.contains(step)).map(|(_, cause)| cause.clone()).collect()
}

#[test]
fn edits_of_the_dockerfile_are_named() {
    let edited = Edited::new(fixture!());

    let inserted = edited.with("COPY src", "RUN true\nCOPY src", &[]);
    assert_eq!(texts(&inserted, "RUN true"), ["this step is new: the last build had none like it"]);
    assert_eq!(texts(&inserted, "COPY src"), ["`RUN true` before it is new"]);
    assert_eq!(texts(&inserted, "RUN echo last"), ["`RUN true` before it is new"], "{inserted:?}");
    // The last build had the step.
    let removed = edited.with("WORKDIR /w\n", "WORKDIR /w\nRUN : other\n", &[]);
    assert_eq!(
        texts(&removed, "RUN : other"),
        ["the command changed from `true` to `: other`"],
        "{removed:?}"
    );
    assert!(edited.build(&[]).is_empty(), "what was there before is still in the store");

    let command = edited.with("echo last", "echo the last", &[]);
    assert_eq!(command.len(), 1, "{command:?}");
    assert_eq!(
        texts(&command, "RUN echo the last"),
        ["the command changed from `echo last` to `echo the last`"]
    );
    edited.build(&[]);

    let argument = edited.with("LEVEL=1", "LEVEL=2", &[]);
    assert_eq!(texts(&argument, "echo level"), ["ARG LEVEL changed from `1` to `2`"]);
    edited.build(&[]);
    let given = edited.build(&["--build-arg=LEVEL=3"]);
    assert_eq!(texts(&given, "echo level"), ["the build argument LEVEL changed from `1` to `3`"]);
    edited.build(&[]);
    let variable = edited.with("MODE=fast", "MODE=slow", &[]);
    assert_eq!(texts(&variable, "echo level"), ["ENV MODE changed from `fast` to `slow`"]);
    edited.build(&[]);

    let mount = edited.with("id=c,", "id=d,", &[]);
    let expected = [r#"the mount /cache changed from `rw cache "c"` to `rw cache "d"`"#];
    assert_eq!(texts(&mount, "echo level"), expected, "{mount:?}");
    edited.build(&[]);
    let user = edited.with("COPY src", "USER 5\nCOPY src", &[]);
    assert_eq!(texts(&user, "echo level"), ["USER changed from `root` to `5`"], "{user:?}");
    edited.build(&[]);
    let directory = edited.with("WORKDIR /w", "WORKDIR /other", &[]);
    assert_eq!(texts(&directory, "WORKDIR"), ["the directory changed from `/w` to `/other`"]);
    let level = texts(&directory, "echo level");
    // Its own cause first, then that of the step before it.
    assert_eq!(level[0], "the working directory changed from `/w` to `/other`");
    assert_eq!(
        level[1], "`WORKDIR /other` before it: the directory changed from `/w` to `/other`",
        "{level:?}"
    );
    edited.build(&[]);

    let anew = edited.build(&["--no-cache"]);
    assert!(anew.len() == 4, "{anew:?}");
    assert!(
        anew.iter().all(|(_, cause)| cause == "results of earlier builds do not count (--no-cache)"),
        "{anew:?}"
    );

    // Several at once: up to five, and how many more.
    let many = edited.with("ENV MODE=fast", "ENV MODE=slow A=1 B=2 C=3 D=4 E=5", &["--build-arg=LEVEL=9"]);
    let level = texts(&many, "echo level");
    assert_eq!(level.len(), 6, "{level:?}");
    assert_eq!(level[5], "and 2 more");
}

#[test]
fn edits_of_files_are_named() {
    let edited = Edited::new(fixture!());
    let file = |name: &str| edited.fixture.path(&format!("c/src/{name}"));
    let copied = |causes: &[(String, String)]| texts(causes, "COPY src");

    edited.fixture.write("c/src/a.txt", "changed\n");
    let content = edited.build(&[]);
    assert_eq!(copied(&content), ["file src/a.txt changed"], "{content:?}");
    assert_eq!(texts(&content, "RUN echo last"), ["`COPY src /src` before it: file src/a.txt changed"]);

    std::fs::set_permissions(file("a.txt"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(copied(&edited.build(&[])), ["file src/a.txt: mode 644 → 600"]);

    edited.fixture.write("c/src/c.txt", "c\n");
    assert_eq!(copied(&edited.build(&[])), ["file src/c.txt is new"]);
    std::fs::rename(file("c.txt"), file("d.txt")).unwrap();
    assert_eq!(copied(&edited.build(&[])), ["file src/c.txt was renamed to src/d.txt"]);
    std::fs::remove_file(file("b.txt")).unwrap();
    assert_eq!(copied(&edited.build(&[])), ["file src/b.txt is gone"]);
    std::os::unix::fs::symlink("a.txt", file("b.txt")).unwrap();
    assert_eq!(copied(&edited.build(&[])), ["link src/b.txt is new"]);
}

#[test]
fn steps_below_and_files_of_other_stages_are_named() {
    let fixture = fixture!();
    let build = |dockerfile: &str| {
        let context = fixture.context("c", dockerfile).display().to_string();
        let done = fixture.kiln(&["build", "--explain", &context]);
        assert_eq!(done.code, 0, "{}", done.err);
        causes(&done.err)
    };
    fixture.ok(&format!(
        "build -t base:1 {}",
        fixture.context("one", "FROM busybox\nRUN echo 1 > /v\n").display()
    ));
    let text = "FROM base:1\nRUN echo x\n";
    build(text);
    fixture.ok(&format!(
        "build -t base:1 {}",
        fixture.context("two", "FROM busybox\nRUN echo 2 > /v\n").display()
    ));
    let changed = texts(&build(text), "RUN echo x");
    assert!(changed.len() == 1 && changed[0].starts_with("the base image "), "{changed:?}");
    fixture.ok("tag base:1 base:2");
    fixture.ok(&format!(
        "build -t base:2 {}",
        fixture.context("three", "FROM busybox\nRUN echo 3 > /v\n").display()
    ));
    let renamed = texts(&build(&text.replace("base:1", "base:2")), "RUN echo x");
    assert!(
        renamed.len() == 1 && renamed[0].contains("base:1 → ") && renamed[0].contains("base:2"),
        "{renamed:?}"
    );

    let stages = "FROM busybox AS made\nRUN mkdir /o && echo 1 > /o/f && echo 2 > /o/g\nFROM busybox\n\
        COPY --from=made /o /o\nRUN --mount=from=made,source=/o,target=/m ls /m\n";
    build(stages);
    let other = build(&stages.replace("echo 1", "echo 3"));
    assert_eq!(texts(&other, "COPY --from=made"), ["file o/f changed"], "{other:?}");
    let mounted = texts(&other, "RUN --mount");
    assert_eq!(mounted[0], "mounted on /m: file o/f changed", "{other:?}");
    assert_eq!(mounted[1], "`COPY --from=made /o /o` before it: file o/f changed");

    // An additional stage does not shift the others.
    let more =
        build(&format!("FROM busybox AS more\nRUN echo more\n{stages}COPY --from=more /etc/passwd /p\n"));
    assert_eq!(texts(&more, "RUN echo more"), ["this step is new: the last build had none like it"]);
    assert_eq!(texts(&more, "COPY --from=more"), ["this step is new: the last build had none like it"]);
}
