//! `RUN --mount`, and ADD of archives.

use std::process::Command;

/// Output of a step in plain progress, without its times.
#[track_caller]
fn output(progress: &str) -> Vec<&str> {
    let lines = progress.lines().filter_map(|line| line.strip_prefix('#')?.split_once(' '));
    let lines = lines.filter_map(|(_, rest)| rest.split_once(' '));
    lines.filter(|(time, _)| time.parse::<f64>().is_ok()).map(|(_, text)| text).collect()
}

#[test]
fn mounted_files_are_visible_and_leave_no_trace() {
    let fixture = fixture!();
    let context = fixture.context(
        "c",
        "FROM busybox AS made\nRUN mkdir /out && echo made > /out/x && chown 3:4 /out/x\nFROM busybox\n\
         RUN --mount=type=bind,source=dir,target=/ctx cat /ctx/f && ls /ctx && ! touch /ctx/new 2>/dev/null\n\
         RUN --mount=type=bind,source=dir/f,target=/one/file cat /one/file\n\
         RUN --mount=from=made,source=/out,target=/o,rw echo more >> /o/x && stat -c %u:%g /o/x && cat /o/x\n\
         RUN --mount=from=made,target=/all cat /all/out/x\n\
         RUN --mount=type=tmpfs,target=/mem,size=1m echo x > /mem/x\n\
         RUN ls -d /ctx /one /o /all /mem 2>/dev/null || echo nothing\n",
    );
    fixture.write("c/dir/f", "file\n");
    fixture.write("c/dir/hidden", "");
    fixture.write("c/.dockerignore", "dir/hidden\n");
    let progress = fixture.build("shown", &context);
    let expected = ["file", "f", "file", "3:4", "made", "more", "made", "nothing"];
    assert_eq!(output(&progress), expected, "{progress}");

    // Only mounted files enter the key.
    fixture.write("c/other", "");
    assert!(
        output(&fixture.build("shown", &context)).is_empty(),
        "an edit of a file that is not mounted runs no step"
    );
    fixture.write("c/dir/f", "changed\n");
    let progress = fixture.build("shown", &context);
    assert_eq!(output(&progress)[0], "changed", "{progress}");
}

#[test]
fn caches_outlive_builds() {
    let fixture = fixture!();
    let text = |n: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,mode=0700,uid=5 echo {n} >> /c/x && cat /c/x && stat -c %a:%u /c\n"
        )
    };
    assert_eq!(output(&fixture.build("a", &fixture.context("a", &text("1")))), ["1", "700:5"]);
    assert_eq!(output(&fixture.build("b", &fixture.context("b", &text("2")))), ["1", "2", "700:5"]);
    let context = fixture.context("b", &text("2"));
    let again = fixture.kiln(&["build".as_ref(), "--no-cache".as_ref(), context.as_os_str()]);
    assert_eq!(output(&again.err), ["2", "700:5"], "--no-cache empties caches");
    assert!(
        !fixture.ok("run --rm a ls /").lines().any(|name| name == "c"),
        "the mount point is in the image"
    );
    fixture.ok("builder prune -f");
    assert_eq!(output(&fixture.build("c", &fixture.context("c", &text("3")))), ["3", "700:5"]);
}

/// As in the reference: owner, mode and seed distinguish caches of one id, the sharing mode does not.
#[test]
fn owner_mode_and_seed_distinguish_caches() {
    let fixture = fixture!();
    let mounts = [
        "",
        "uid=0,",
        "mode=0755,",
        "uid=10,",
        "gid=10,",
        "mode=0700,",
        "from=s,source=/seed,",
        "from=s,source=/other,",
        "from=s,source=/seed,uid=10,",
        "sharing=locked,",
    ];
    let mut text =
        "FROM busybox AS s\nRUN mkdir /seed /other && touch /seed/a /other/b\nFROM busybox\n".to_owned();
    for (number, mount) in mounts.iter().enumerate() {
        text += &format!("RUN --mount=type=cache,id=k,{mount}target=/c touch /c/{number}\n");
    }
    for mount in mounts {
        text += &format!("RUN --mount=type=cache,id=k,{mount}target=/c echo $(ls /c)\n");
    }
    let expected = ["0 9", "1 2", "1 2", "3", "4", "5", "6 8 a", "7 b", "6 8 a", "0 9"];
    assert_eq!(output(&fixture.build("caches", &fixture.context("c", &text))), expected);
}

/// Like the reference, the name of a step shows neither the value of ENV, which the program does not see, nor the secret's.
#[test]
fn names_of_steps_show_no_variable_hidden_by_a_secret() {
    let fixture = fixture!();
    fixture.write("secret", "s3cret-value");
    let flag = format!("--secret=id=s,src={}", fixture.path("secret").display());
    let text = "FROM busybox\nENV TOKEN=placeholder OTHER=shown\n\
        RUN --mount=type=secret,id=s,env=TOKEN test \"$TOKEN\" != placeholder && echo $OTHER\n";
    let context = fixture.context("c", text);
    let done = fixture.kiln(&["build".as_ref(), flag.as_ref(), context.as_os_str()]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("test \"****\" != placeholder && echo shown"), "{}", done.err);
}

#[test]
fn locked_caches_are_used_by_one_after_the_other() {
    let fixture = fixture!();
    let step = "--mount=type=cache,target=/c,sharing=locked test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy";
    let text = format!(
        "FROM busybox AS a\nRUN {step} && true\nFROM busybox AS b\nRUN {step} && echo\nFROM scratch\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
    );
    fixture.build("locked", &fixture.context("c", &text));
}

#[test]
fn secrets_are_visible_to_their_step_only() {
    let fixture = fixture!();
    fixture.write("secret", "s3cret-value");
    let context = fixture.context(
        "c",
        "FROM busybox\n\
         RUN --mount=type=secret,id=tok stat -c %a /run/secrets/tok && wc -c < /run/secrets/tok\n\
         RUN --mount=type=secret,id=tok,env=TOKEN,target=/etc/tok,mode=0444,uid=9 echo ${#TOKEN} && stat -c %a:%u /etc/tok\n\
         RUN --mount=type=secret,id=other ls /run/secrets 2>/dev/null || echo none\n\
         RUN ls /run/secrets /etc/tok 2>/dev/null || echo gone\n",
    );
    let flag = format!("--secret=id=tok,src={}", fixture.path("secret").display());
    let done = fixture.kiln(&[
        "build".as_ref(),
        "-t".as_ref(),
        "secret".as_ref(),
        flag.as_ref(),
        context.as_os_str(),
    ]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(output(&done.err), ["400", "12", "12", "444:9", "none", "gone"]);
    let found = Command::new("grep").args(["-rlaF", "s3cret-value"]).arg(fixture.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret is in the store");

    let required = fixture.context("r", "FROM busybox\nRUN --mount=type=secret,id=tok,required true\n");
    let done = fixture.fails(&required);
    assert!(done.err.contains("secret tok: not found"), "{}", done.err);
    assert!(done.err.contains("hint: pass it with --secret id=tok,src=FILE"), "{}", done.err);
    let wrong = fixture.kiln(&["build".as_ref(), "--secret=tok".as_ref(), context.as_os_str()]);
    assert_eq!(wrong.code, 1, "{}", wrong.err);
}

#[test]
fn archives_are_unpacked() {
    let fixture = fixture!();
    fixture.write("c/in/d/f", "content\n");
    let pack = |flag: &str, name: &str| {
        let mut tar = Command::new("tar");
        tar.arg(flag)
            .arg(fixture.path("c").join(name))
            .args(["--owner=7", "--group=8", "-C"])
            .arg(fixture.path("c/in"));
        assert!(tar.arg("d/f").status().unwrap().success());
    };
    pack("-cf", "plain");
    pack("-czf", "gzip");
    pack("-cjf", "bzip2");
    pack("-cJf", "xz");
    let text = "FROM busybox\nADD plain /plain\nADD gzip /gzip/\nADD bzip2 /bzip2\nADD --chown=5:6 xz /xz\nADD --unpack=false gzip /packed/\nADD in/d/f /file\nRUN stat -c %u:%g /plain/d/f /gzip/d/f /bzip2/d/f /xz/d/f /packed/gzip /file\n";
    let context = fixture.context("c", text);
    let progress = fixture.build("unpacked", &context);
    assert_eq!(output(&progress), ["7:8", "7:8", "7:8", "5:6", "0:0", "0:0"], "{progress}");
}

#[test]
fn hostile_archives_stay_inside() {
    let fixture = fixture!();
    let outside = fixture.path("outside");
    std::fs::create_dir(&outside).unwrap();
    fixture.write("c/in/f", "x");
    let link = fixture.path("c/in/link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    std::os::unix::fs::symlink("../../../../../../../..", fixture.path("c/in/up")).unwrap();
    let tar = |arguments: &[&str]| {
        let done = Command::new("tar").current_dir(fixture.path("c/in")).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    tar(&["-cPf", "../dots.tar", "--transform=s,^f,../../../f,", "f"]);
    // Links out, and a file behind each.
    tar(&["-cPf", "../up.tar", "--transform=s,^f,up/tmp/f,", "up", "f"]);
    tar(&["-cPf", "../through.tar", "--transform=s,^f,link/f,", "link", "f"]);
    let context = fixture.context("c", "FROM busybox\nADD dots.tar /x\n");
    let done = fixture.fails(&context);
    assert!(done.err.contains("outside"), "{}", done.err);
    let done = fixture.fails(&fixture.context("c", "FROM busybox\nADD up.tar /x\n"));
    assert!(done.err.contains("outside"), "{}", done.err);
    // As in the reference, the root of an archive is where it is unpacked.
    fixture.build("through", &fixture.context("c", "FROM busybox\nADD through.tar /x\n"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was written outside");
}

/// GNU tar's labels and lists of directory members are no files; a member without a name is skipped, as in the reference.
#[test]
fn archives_of_all_kinds_are_unpacked() {
    let fixture = fixture!();
    fixture.write("in/d/e/a", "1\n");
    fixture.write("in/d/b", "2\n");
    let tar = |name: &str, flags: &[String]| {
        let made = Command::new("tar")
            .arg("-cf")
            .arg(fixture.path(&format!("c/{name}")))
            .args(flags)
            .arg("-C")
            .arg(fixture.path("in"))
            .arg("d")
            .status()
            .unwrap();
        assert!(made.success());
    };
    let text = "FROM busybox\nADD label.tar /l/\nADD list.tar /i/\nADD nameless.tar /n/\n\
        RUN cd / && find l i n -type f | sort | xargs grep -H .\n";
    let context = fixture.context("c", text);
    tar("label.tar", &["--label=the-label".to_owned()]);
    tar("list.tar", &[format!("--listed-incremental={}", fixture.path("snapshot").display())]);
    // A header without a name, for an empty file, before an ordinary archive.
    tar("plain.tar", &[]);
    let mut header = vec![0u8; 512];
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000000");
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend(std::fs::read(fixture.path("c/plain.tar")).unwrap());
    std::fs::write(fixture.path("c/nameless.tar"), header).unwrap();
    let files = |dir: &str| [format!("{dir}/d/b:2"), format!("{dir}/d/e/a:1")];
    let expected = ["i", "l", "n"].map(files).concat();
    assert_eq!(output(&fixture.build("unpacked", &context)), expected);
}
