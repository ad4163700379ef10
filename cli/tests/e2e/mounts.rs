//! `RUN --mount`, and ADD of archives.

use std::process::Command;

/// What a step of a plain build wrote, without its times.
#[track_caller]
fn output(progress: &str) -> Vec<&str> {
    let lines = progress.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
    let lines = lines.filter_map(|(_, rest)| rest.split_once(' '));
    lines.filter(|(time, _)| time.parse::<f64>().is_ok()).map(|(_, text)| text).collect()
}

#[test]
fn files_are_shown_and_leave_no_trace() {
    let bed = bed!();
    let context = bed.context(
        "c",
        "FROM busybox AS made\nRUN mkdir /out && echo made > /out/x && chown 3:4 /out/x\nFROM busybox\n\
         RUN --mount=type=bind,source=dir,target=/ctx cat /ctx/f && ls /ctx && ! touch /ctx/new 2>/dev/null\n\
         RUN --mount=type=bind,source=dir/f,target=/one/file cat /one/file\n\
         RUN --mount=from=made,source=/out,target=/o,rw echo more >> /o/x && stat -c %u:%g /o/x && cat /o/x\n\
         RUN --mount=from=made,target=/all cat /all/out/x\n\
         RUN --mount=type=tmpfs,target=/mem,size=1m echo x > /mem/x\n\
         RUN ls -d /ctx /one /o /all /mem 2>/dev/null || echo nothing\n",
    );
    bed.write("c/dir/f", "file\n");
    bed.write("c/dir/hidden", "");
    bed.write("c/.dockerignore", "dir/hidden\n");
    let progress = bed.build("shown", &context);
    let expected = ["file", "f", "file", "3:4", "made", "more", "made", "nothing"];
    assert_eq!(output(&progress), expected, "{progress}");

    // Only what is mounted counts.
    bed.write("c/other", "");
    assert!(output(&bed.build("shown", &context)).is_empty(), "a file that nobody mounts changes nothing");
    bed.write("c/dir/f", "changed\n");
    let progress = bed.build("shown", &context);
    assert_eq!(output(&progress)[0], "changed", "{progress}");
}

#[test]
fn caches_outlive_builds() {
    let bed = bed!();
    let text = |n: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,mode=0700,uid=5 echo {n} >> /c/x && cat /c/x && stat -c %a:%u /c\n"
        )
    };
    assert_eq!(output(&bed.build("a", &bed.context("a", &text("1")))), ["1", "700:5"]);
    assert_eq!(output(&bed.build("b", &bed.context("b", &text("2")))), ["1", "2", "700:5"]);
    let context = bed.context("b", &text("2"));
    let again = bed.kiln(&["build".as_ref(), "--no-cache".as_ref(), context.as_os_str()]);
    assert_eq!(output(&again.err), ["2", "700:5"], "--no-cache empties caches");
    assert!(!bed.ok("run --rm a ls /").lines().any(|name| name == "c"), "the mount point is in the image");
    bed.ok("builder prune -f");
    assert_eq!(output(&bed.build("c", &bed.context("c", &text("3")))), ["3", "700:5"]);
}

#[test]
fn locked_caches_are_used_by_one_after_the_other() {
    let bed = bed!();
    let step = "--mount=type=cache,target=/c,sharing=locked test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy";
    let text = format!(
        "FROM busybox AS a\nRUN {step} && true\nFROM busybox AS b\nRUN {step} && echo\nFROM scratch\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
    );
    bed.build("locked", &bed.context("c", &text));
}

#[test]
fn secrets_are_shown_to_their_step_alone() {
    let bed = bed!();
    bed.write("secret", "s3cret-value");
    let context = bed.context(
        "c",
        "FROM busybox\n\
         RUN --mount=type=secret,id=tok stat -c %a /run/secrets/tok && wc -c < /run/secrets/tok\n\
         RUN --mount=type=secret,id=tok,env=TOKEN,target=/etc/tok,mode=0444,uid=9 echo ${#TOKEN} && stat -c %a:%u /etc/tok\n\
         RUN --mount=type=secret,id=other ls /run/secrets 2>/dev/null || echo none\n\
         RUN ls /run/secrets /etc/tok 2>/dev/null || echo gone\n",
    );
    let flag = format!("--secret=id=tok,src={}", bed.path("secret").display());
    let done =
        bed.kiln(&["build".as_ref(), "-t".as_ref(), "secret".as_ref(), flag.as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(output(&done.err), ["400", "12", "12", "444:9", "none", "gone"]);
    let found = Command::new("grep").args(["-rlaF", "s3cret-value"]).arg(bed.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret is in the store");

    let required = bed.context("r", "FROM busybox\nRUN --mount=type=secret,id=tok,required true\n");
    let done = bed.fails(&required);
    assert!(done.err.contains("secret tok: not found"), "{}", done.err);
    assert!(done.err.contains("hint: pass it with --secret id=tok,src=FILE"), "{}", done.err);
    let wrong = bed.kiln(&["build".as_ref(), "--secret=tok".as_ref(), context.as_os_str()]);
    assert_eq!(wrong.code, 1, "{}", wrong.err);
}

#[test]
fn archives_are_unpacked() {
    let bed = bed!();
    bed.write("c/in/d/f", "content\n");
    let pack = |flag: &str, name: &str| {
        let mut tar = Command::new("tar");
        tar.arg(flag)
            .arg(bed.path("c").join(name))
            .args(["--owner=7", "--group=8", "-C"])
            .arg(bed.path("c/in"));
        assert!(tar.arg("d/f").status().unwrap().success());
    };
    pack("-cf", "plain");
    pack("-czf", "gzip");
    pack("-cjf", "bzip2");
    pack("-cJf", "xz");
    let text = "FROM busybox\nADD plain /plain\nADD gzip /gzip/\nADD bzip2 /bzip2\nADD --chown=5:6 xz /xz\nADD --unpack=false gzip /packed/\nADD in/d/f /file\nRUN stat -c %u:%g /plain/d/f /gzip/d/f /bzip2/d/f /xz/d/f /packed/gzip /file\n";
    let context = bed.context("c", text);
    let progress = bed.build("unpacked", &context);
    assert_eq!(output(&progress), ["7:8", "7:8", "7:8", "5:6", "0:0", "0:0"], "{progress}");
}

#[test]
fn hostile_archives_stay_inside() {
    let bed = bed!();
    let outside = bed.path("outside");
    std::fs::create_dir(&outside).unwrap();
    bed.write("c/in/f", "x");
    let link = bed.path("c/in/link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    std::os::unix::fs::symlink("../../../../../../../..", bed.path("c/in/up")).unwrap();
    let tar = |arguments: &[&str]| {
        let done = Command::new("tar").current_dir(bed.path("c/in")).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    tar(&["-cPf", "../dots.tar", "--transform=s,^f,../../../f,", "f"]);
    // Links out, and a file behind each.
    tar(&["-cPf", "../up.tar", "--transform=s,^f,up/tmp/f,", "up", "f"]);
    tar(&["-cPf", "../through.tar", "--transform=s,^f,link/f,", "link", "f"]);
    let context = bed.context("c", "FROM busybox\nADD dots.tar /x\n");
    let done = bed.fails(&context);
    assert!(done.err.contains("outside"), "{}", done.err);
    let done = bed.fails(&bed.context("c", "FROM busybox\nADD up.tar /x\n"));
    assert!(done.err.contains("outside"), "{}", done.err);
    // As in the reference, the root of an archive is where it is unpacked.
    bed.build("through", &bed.context("c", "FROM busybox\nADD through.tar /x\n"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was written outside");
}
