//! Mistakes of the first day: each error has a hint.

use std::path::Path;

/// Builds that fail, and a part of their message.
#[test]
fn failed_builds_have_hints() {
    let fixture = fixture!();
    for (dockerfile, expected) in [
        (
            "FROM busybox\nRUN printf '#!/bin/sh\\r\\n' > /s && chmod +x /s && /s\n",
            "/s has Windows line ends (CR LF)",
        ),
        (
            "FROM busybox\nRUN printf '#!/bin/sh\\r\\n' > /s && chmod +x /s\nRUN [\"/s\"]\n",
            "/s has Windows line ends",
        ),
        (
            "FROM busybox\nRUN printf '#!/usr/bin/python9\\n' > /bin/s && chmod +x /bin/s\nRUN s a\n",
            "s needs the interpreter /usr/bin/python9, which the image lacks",
        ),
        ("FROM busybox\nRUN nosuch\n", "a command was not found: install it"),
        ("FROM busybox\nSHELL [\"/bin/bash\", \"-c\"]\nRUN true\n", "the image has no /bin/bash"),
        ("FROM busybox\nUSER nobodyatall\nRUN true\n", "create the user in an earlier RUN"),
        ("FROM busybox\nRUN [\"echo\",]\n", "is not read as JSON"),
        ("FROM busybox\nRUN ['echo', 'a']\n", "its strings in double quotes"),
        (
            "FROM busybox\nRUN --mount=type=secret,id=tok cat /run/secrets/tok\n",
            "use --secret id=tok,src=FILE",
        ),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/c,sharing=exclusive true\n",
            "one of shared, private, locked",
        ),
        (
            "FROM busybox\nRUN apt-get install -y curl || exit 100\n",
            "write apt-get update && apt-get install -y",
        ),
        ("FROM busybox\nCOPY\n", "write COPY SOURCE… DESTINATION"),
        ("FROM busybox\nENV A\n", "write ENV NAME=VALUE"),
        ("FROM busybox\nWORKDIR\n", "write WORKDIR DIRECTORY"),
        ("FROM busybox AS builder\nFROM busybox\nCOPY --from=bulder / /x\n", "did you mean stage builder?"),
        (
            "FROM busybox AS one\nFROM busybox\nCOPY --from=somewhere / /x\n",
            "there is no stage somewhere either; the stages above are: one",
        ),
        (
            "FROM base\nFROM busybox AS base\nFROM busybox\nCOPY --from=0 / /x\n",
            "the stage base stands further down",
        ),
        ("FROM busybox:nosuchtag\n", "check the spelling of the name and the tag"),
    ] {
        let done = fixture.fails(&fixture.context("wrong", dockerfile));
        assert!(done.err.contains(expected), "{dockerfile}: no `{expected}` in\n{}", done.err);
        assert!(!done.err.contains("check the network"), "{}", done.err);
        assert!(done.err.matches("did you mean stage").count() <= 1, "{}", done.err);
    }
}

#[test]
fn arrays_that_are_no_json_are_explained() {
    let fixture = fixture!();
    fixture.write("Dockerfile", "FROM busybox:1\nCMD ['echo']\nENTRYPOINT [\"a\",]\n");
    let done = fixture.kiln(&["lint".as_ref(), fixture.path("Dockerfile").as_os_str()]);
    assert!(done.out.contains("its strings must stand in double quotes"), "{}", done.out);
    assert!(done.out.contains("there must be no comma behind the last string"), "{}", done.out);
}

#[test]
fn dockerfiles_are_found_beside_the_path_that_was_named() {
    let fixture = fixture!();
    fixture.write("ctx/sub/Dockerfile", "FROM busybox\n");
    fixture.write("other/Dockerfile.dev", "FROM busybox\n");
    let build = |directory: &str, arguments: &[&str]| {
        let words: Vec<&str> = ["build"].iter().chain(arguments).copied().collect();
        let mut command = fixture.command(&words);
        crate::fixture::Done::of(command.current_dir(fixture.path(directory)).output().unwrap())
    };
    for (directory, arguments, expected) in [
        ("", &["-f", "sub/Dockerfile", "ctx"][..], "write -f ctx/sub/Dockerfile"),
        ("ctx", &["-f", "ctx/sub/Dockerfile", "."], "write -f sub/Dockerfile"),
        ("ctx", &["-f", "sub/Dockerfil", "."], "did you mean -f sub/Dockerfile?"),
        ("", &["other"], "did you mean -f other/Dockerfile.dev?"),
        ("", &["-f", "nosuch/Dockerfile", "ctx"], "there is no directory nosuch"),
    ] {
        let done = build(directory, arguments);
        assert!(done.code == 1 && done.err.contains(expected), "{arguments:?}: {}", done.err);
    }
}

/// Every error about a name, a file or a flag ends with advice.
#[test]
fn wrong_uses_get_advice() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(fixture.words("run --name web busybox true").code, 0);
    fixture.write("text", "words");
    let text = fixture.path("text").display().to_string();
    let context = fixture.context("fine", "FROM busybox\n").display().to_string();
    let line = |words: &str| words.replace("FILE", &text).replace("CONTEXT", &context);
    for (words, expected) in [
        ("run busyboxx", "did you mean busybox?"),
        ("run --pull=never busyboxx", "did you mean busybox?"),
        ("run nosuchimage", "check the spelling of the name and the tag"),
        ("run busybox nosuchprogram", "check the name of the program"),
        ("run -w relative busybox true", "absolute path"),
        ("pull UPPER", "write [REGISTRY/]NAME[:TAG]"),
        ("pull a..b", "write [REGISTRY/]NAME[:TAG]"),
        ("pull busybox:nosuchtag", "check the spelling"),
        ("push busyboxx", "kiln images"),
        ("load -i FILE", "kiln load reads what"),
        ("load -i nosuch.tar", "name an archive that `kiln save`"),
        ("save busyboxx -o x.tar", "did you mean busybox?"),
        ("save busybox -o nosuch/x.tar", "there is no directory `nosuch`"),
        ("run -u nosuch busybox true", "name a user of the image"),
        ("tag busyboxx y", "did you mean busybox?"),
        ("tag nosuch y", "`kiln images` lists the images"),
        ("tag busybox UPPER", "write [REGISTRY/]NAME[:TAG]"),
        ("tag busybox a:b:c", "write [REGISTRY/]NAME[:TAG]"),
        ("rmi busyboxx", "did you mean busybox?"),
        ("history busyboxx", "did you mean busybox?"),
        ("inspect busyboxx", "did you mean busybox?"),
        ("inspect wbe", "did you mean web?"),
        ("rm wbe", "did you mean web?"),
        ("rm nosuchcontainer", "`kiln ps -a` lists the containers"),
        ("build -t UP:x CONTEXT", "write [REGISTRY/]NAME[:TAG]"),
        ("build -o FILE CONTEXT", "name a directory"),
        ("build --taget x CONTEXT", "did you mean --target?"),
        ("build --target x CONTEXT", "no stage of this Dockerfile has a name"),
        ("bild CONTEXT", "did you mean `kiln build`?"),
        ("cp nosuchcontainer:b c", "`kiln ps -a` lists the containers"),
        ("search web", "Docker has it, Kiln does not"),
        ("secret ls", "Docker has it, Kiln does not"),
    ] {
        let done = fixture.words(&line(words));
        assert_ne!(done.code, 0, "{words}");
        assert!(done.err.contains(expected), "kiln {words}: no `{expected}` in\n{}", done.err);
    }
    assert!(!Path::new("x.tar").exists());
}
