//! The command line: help, completions, notices, and exit codes of what is wrong with it.

use crate::fixture::{Done, Fixture};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs the program without a store.
fn words(fixture: &Fixture, line: &str) -> Done {
    fixture.words(line)
}

#[test]
fn every_way_to_ask_for_help_gets_it() {
    let fixture = fixture!();
    for (line, wanted) in [
        ("help", "Usage: kiln [OPTIONS] COMMAND"),
        ("--help", "Usage: kiln [OPTIONS] COMMAND"),
        ("help --help", "Usage: kiln [OPTIONS] COMMAND"),
        ("help help", "Usage: kiln [OPTIONS] COMMAND"),
        ("help build", "Usage: kiln build [OPTIONS]"),
        ("build -h", "Usage: kiln build [OPTIONS]"),
        ("build --help", "Common options:"),
        ("help run", "Usage: kiln run [OPTIONS]"),
        ("help image ls", "Usage: kiln images [OPTIONS]"),
        ("image help ls", "Usage: kiln images [OPTIONS]"),
        ("help image", "Usage: kiln image COMMAND"),
        ("image --help", "Usage: kiln image COMMAND"),
        ("image", "Usage: kiln image COMMAND"),
        ("builder -h", "Usage: kiln builder COMMAND"),
        ("system help", "Usage: kiln system COMMAND"),
        ("builder prune -h", "Usage: kiln builder prune [OPTIONS]"),
        ("image prune --help", "Usage: kiln image prune [OPTIONS]"),
    ] {
        let done = words(&fixture, line);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{line}");
        assert!(done.out.contains(wanted), "{line}: {}", done.out);
    }
    for (line, wanted) in [
        ("help biuld", "did you mean `kiln build`?"),
        ("image prun", "did you mean `kiln image prune`?"),
        ("image frobnicate", "one of: ls,"),
    ] {
        let done = words(&fixture, line);
        assert_eq!(done.code, 1, "{line}");
        assert!(done.err.starts_with("ERROR: ") && done.err.contains(wanted), "{line}: {}", done.err);
    }
}

#[test]
fn shells_complete_commands_and_flags() {
    let fixture = fixture!();
    let script = fixture.path("kiln.bash");
    std::fs::write(&script, fixture.ok("completion bash")).unwrap();
    let complete = |typed: &str, current: &str| {
        let program = format!(
            "source {}; COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kiln kiln '{current}' ''; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &program]).output();
        output.map(|output| Done::of(output).out)
    };
    let Ok(commands) = complete("kiln ima", "ima") else { skip!("needs bash") };
    assert_eq!(commands.trim(), "images image");
    assert_eq!(complete("kiln image pru", "pru").unwrap().trim(), "prune");
    assert!(complete("kiln build --no", "--no").unwrap().contains("--no-cache"));
    assert!(fixture.ok("completion zsh").starts_with("#compdef kiln"));
    assert!(fixture.ok("completion fish").contains("complete -c kiln"));
    assert_eq!(fixture.words("completion tcsh").code, 1);
}

#[test]
fn shells_complete_names_of_containers_and_images() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("tag busybox app:1.0");
    fixture.ok("tag busybox registry.test:5000/app:2");
    fixture.ok("create --name web-one busybox true");
    fixture.ok("run -d --name web-two --network none busybox sleep 1000");
    let script = fixture.path("kiln.bash");
    std::fs::write(&script, fixture.ok("completion bash")).unwrap();
    let own = fixture.command(&["version"]);
    let complete = |typed: &str| {
        let program = format!(
            "source {}; COMP_LINE='{} {typed}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=($COMP_LINE); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kiln_named \"${{COMP_WORDS[0]}}\" '' ''; echo ${{COMPREPLY[@]}}",
            script.display(),
            own.get_program().display(),
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &program]).env_clear();
        bash.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        bash.output().map(|output| Done::of(output).out.trim().to_owned())
    };
    let Ok(all) = complete("rm we") else { skip!("needs bash") };
    assert_eq!(all, "web-one web-two");
    for (typed, expected) in [
        ("start ", "web-one web-two"),
        ("exec -it we", "web-two"),
        ("container stop web-two we", "web-two"),
        ("cp web-o", "web-one:"),
        ("run -d --name x ap", "app:1.0"),
        ("rmi app:", "1.0"),
        ("rmi registry.test:50", "5000/app:2"),
        ("image inspect bu", "busybox"),
    ] {
        let found = complete(typed).unwrap();
        let found = found.strip_suffix(":latest").unwrap_or(&found);
        assert_eq!(found, expected, "{typed}");
    }
    let id = fixture.ok("ps -q");
    assert_eq!(complete(&format!("logs {}", &id[..6])).unwrap(), id.trim());
    assert!(complete("exec --det").unwrap().contains("--detach-keys"), "flags are still there");
    fixture.ok("rm -f web-one web-two");
}

#[test]
fn manual_pages_are_written() {
    let fixture = fixture!();
    assert!(fixture.ok("man").contains(".TH kiln 1"));
    let page = fixture.ok("man image prune");
    assert!(page.contains(".TH kiln-image-prune 1") && page.contains("\\-\\-force"), "{page}");
    fixture.ok(&format!("man -o {}", fixture.path("man1").display()));
    for name in ["kiln", "kiln-build", "kiln-image-prune", "kiln-version"] {
        assert!(fixture.path(&format!("man1/{name}.1")).is_file(), "{name}");
    }
    assert_eq!(fixture.words("man nosuch").code, 1);
}

#[test]
fn version_names_commit_kernel_cgroup_and_store() {
    let fixture = fixture!();
    let text = fixture.ok("version");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for wanted in [
        "Version: ",
        "Git commit: ",
        kernel.trim(),
        "Cgroup version: ",
        &fixture.root().display().to_string(),
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        fixture.ok("version --format {{.Server.Version}}-{{.Client.Os}}"),
        format!("{version}-linux\n")
    );
    let json: serde_json::Value = serde_json::from_str(&fixture.ok("version -f json")).unwrap();
    assert_eq!(json["Server"]["KernelVersion"], kernel.trim());
    let commit = json["Client"]["GitCommit"].as_str().unwrap();
    let git = |arguments: &[&str]| {
        Command::new("git").args(arguments).output().is_ok_and(|git| git.status.success())
    };
    if git(&["rev-parse", "HEAD"]) {
        // The program may be older than the last commit.
        assert!(git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]), "{commit:?} is no commit");
    }
    assert_eq!(fixture.words("version --format {{.Nope}}").code, 1);
    assert_eq!(fixture.words("version more").code, 1);
}

#[test]
fn flags_without_effect_lead_to_warnings() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM scratch\nLABEL a=b\n");
    let build = |flag: &str| fixture.kiln(&[OsStr::new("build"), flag.as_ref(), context.as_os_str()]);
    for flag in ["--rm", "--rm=false", "--force-rm", "--compress", "--layers", "--debug", "--security-opt=x"]
    {
        let done = build(flag);
        let name = flag.split('=').next().unwrap();
        assert_eq!(done.code, 0, "{flag}: {}", done.err);
        assert!(done.err.contains(&format!("warning: {name} has no effect: ")), "{flag}: {}", done.err);
    }
    assert!(build("-D").err.contains("warning: --debug has no effect"));
    let none = build("--jobs=0");
    assert_eq!(none.code, 125);
    assert!(none.err.contains("--jobs"), "{}", none.err);
}

/// As the reference: 125 where the command line cannot be read, and for all of `run`; 1 for values that it refuses.
#[test]
fn exit_codes_of_wrong_values_follow_one_rule() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM scratch\nLABEL a=b\n");
    for (flag, code) in [
        ("--nope", 125),
        ("--shm-size=abc", 125),
        ("--ulimit=foo", 125),
        ("--cpu-quota=abc", 125),
        ("--rm=maybe", 125),
        ("--jobs=x", 125),
        ("--network=foo", 1),
        ("--platform=x/y/z/w", 1),
        ("--output=type=foo", 1),
        ("--output=type=local", 1),
        ("--output=dest=x", 1),
        ("--progress=foo", 1),
        ("--progress=tty", 1),
        ("--build-arg==x", 1),
        ("--label==x", 1),
        ("-tUPPER", 1),
        ("--secret=foo", 1),
        ("--ssh==", 1),
        ("--add-host=foo", 1),
        ("--allow=foo", 1),
        ("--call=foo", 1),
        ("--call=check,foo", 1),
        ("--target=nope", 1),
        ("--build-context=foo", 1),
        ("--format=foo", 1),
        ("--volume=foo", 1),
        ("--attest=foo", 1),
    ] {
        let done = fixture.kiln(&[OsStr::new("build"), flag.as_ref(), context.as_os_str()]);
        assert_eq!(done.code, code, "{flag}: {}", done.err);
        let form = done.err.lines().any(|line| line.starts_with("ERROR: "));
        assert!(form && !done.err.contains("Error: "), "{flag}: {}", done.err);
    }
    fixture.ok("pull -q busybox");
    for (flag, code) in [
        ("--network=nope", 125),
        ("--workdir=rel", 125),
        ("--env==x", 125),
        ("--env-file=/nope", 125),
        ("--security-opt=foo", 125),
        ("--pull=foo", 125),
        ("--user=nope", 125),
        ("--name=_", 125),
        ("--nope", 125),
        ("--rm=maybe", 125),
    ] {
        let done = fixture.kiln(&["run", "--rm", flag, "busybox", "true"]);
        assert_eq!(done.code, code, "{flag}: {}", done.err);
    }
    for (line, code) in [
        ("run", 1),
        ("run UPPER", 125),
        ("images --nope", 125),
        ("images --format", 125),
        ("images --format {{", 1),
        ("images --format {{.Nope}} nosuch", 1),
        ("ps --format {{.Nope}}", 1),
        ("inspect", 1),
        ("inspect --type foo x", 1),
        ("save --format foo busybox", 1),
        ("lint --format foo x", 1),
        ("tag a", 1),
        ("version --nope", 125),
    ] {
        let done = fixture.words(line);
        assert_eq!(done.code, code, "{line}: {}", done.err);
        assert!(done.err.lines().any(|line| line.starts_with("ERROR: ")), "{line}: {}", done.err);
    }
}

#[test]
fn a_full_destination_is_named() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let context = fixture.context("c", "FROM busybox\n");
    let text = context.to_str().unwrap();
    for (arguments, name) in [
        (vec!["save", "busybox"], "standard output"),
        (vec!["save", "-o", "/dev/full", "busybox"], "`/dev/full`"),
        (vec!["build", "-o", "-", text], "standard output"),
        (vec!["build", "-o", "type=tar,dest=/dev/full", text], "`/dev/full`"),
        (vec!["build", "-o", "type=oci", text], "standard output"),
    ] {
        let done = Done::of(fixture.command(&arguments).stdout(full()).output().unwrap());
        assert_eq!(done.code, 1, "{arguments:?}: {}", done.err);
        let wanted = format!("ERROR: cannot write to {name}: No space left on device");
        assert!(done.err.contains(&wanted), "{arguments:?}: {}", done.err);
        assert!(
            !done.err.contains("builder prune"),
            "{arguments:?}: the store is not to blame: {}",
            done.err
        );
    }
}

#[test]
fn outputs_of_files_leave_no_image() {
    let fixture = fixture!();
    let context = fixture.context("c", "FROM busybox\nRUN echo made >/made\n");
    let build = |output: &str, more: &[&str]| {
        let mut command = fixture.command(&["build", "-o", output]);
        let output = command.args(more).arg(&context).output().unwrap();
        let done = Done::of(output);
        assert_eq!(done.code, 0, "{}", done.err);
        done.err
    };
    fixture.ok("pull -q busybox");
    let before = fixture.ok("images -aq --no-trunc");
    let out = fixture.path("out").display().to_string();
    let text = build(&out, &[]);
    assert_eq!(std::fs::read_to_string(fixture.path("out/made")).unwrap(), "made\n");
    assert!(text.contains("exporting files") && !text.contains("image sha256"), "{text}");
    assert!(text.contains(&format!("files written to {out}")), "{text}");
    let tar = fixture.path("out.tar").display().to_string();
    let text = build(&format!("type=tar,dest={tar}"), &[]);
    assert!(text.contains(&format!("tar of the files written to {tar}")), "{text}");
    assert!(text.contains("CACHED"), "what was built for an output is in the cache: {text}");
    build("type=cacheonly", &[]);
    assert_eq!(fixture.ok("images -aq --no-trunc"), before, "no image is left");
    build(&out, &["-t", "wanted"]);
    assert_eq!(fixture.ok("run --rm wanted cat /made"), "made\n", "an image that has a name is kept");
}

#[test]
fn images_are_filtered_and_pruned() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let build = |name: &str, text: &str, more: &[&str]| {
        let context = fixture.context(name, text);
        let done = Done::of(fixture.command(&["build", "-q"]).args(more).arg(context).output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
        done.out.trim().to_owned()
    };
    let nameless = build("a", "FROM busybox\nLABEL kind=nameless\nRUN echo 1 >/a\n", &[]);
    let named = build("b", "FROM busybox\nLABEL kind=named\nRUN echo 2 >/b\n", &["-t", "app/web:1"]);
    let ids = |filter: &str| {
        let listed = fixture.ok(&format!("images -q --no-trunc {filter}"));
        listed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids("-f dangling=true"), [nameless.as_str()]);
    assert!(!ids("--filter dangling=0").contains(&nameless));
    assert_eq!(ids("-f label=kind=named"), [named.as_str()]);
    assert_eq!(ids("-f label=kind").len(), 2);
    assert!(ids("-f label=kind=named -f dangling=true").is_empty());
    assert_eq!(ids("-f reference=app/*"), [named.as_str()]);
    assert!(ids("-f reference=*eb").is_empty());
    assert_eq!(ids("-f since=busybox").len(), 2);
    assert_eq!(ids("-f before=app/web:1").len(), 2);
    assert_eq!(ids("-f until=24h").len(), 1, "busybox is old");
    for (wrong, code) in
        [("dangling=maybe", 1), ("nosuch=1", 1), ("before=nosuch", 1), ("until=x", 1), ("dangling", 125)]
    {
        assert_eq!(fixture.kiln(&["images", "-f", wrong]).code, code, "{wrong}");
    }

    let asked = fixture.ok("image prune");
    assert!(asked.contains("WARNING! This will remove all dangling images."), "{asked}");
    assert_eq!(ids("-f dangling=true"), [nameless.as_str()], "no answer removes nothing");
    assert_eq!(fixture.ok("image prune -f --filter label=kind=named"), "Total reclaimed space: 0B\n");
    let pruned = fixture.ok("image prune -f");
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {nameless}\n")), "{pruned}");
    assert!(ids("-f dangling=true").is_empty());
    fixture.ok("run --name user busybox true");
    assert_eq!(fixture.words("image prune -f --filter dangling=false").code, 1);
    let pruned = fixture.ok("image prune -af");
    assert!(pruned.contains("untagged: app/web:1\n") && !pruned.contains("busybox"), "{pruned}");
    assert_eq!(ids(""), [fixture.ok("images -q --no-trunc busybox").trim()], "a container uses it");
    fixture.ok("rm user");
}

#[test]
fn ctrl_c_that_a_program_ignores_is_explained() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let program = "trap '' INT; echo up; while :; do sleep 1; done";
    let mut child = fixture.start(&["run", "--rm", "busybox", "sh", "-c", program]);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let line = |stream: &mut dyn BufRead| {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(&mut out), "up\n");
    let pid = rustix::process::Pid::from_child(&child);
    let interrupt = || rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    interrupt();
    assert!(line(&mut err).contains("press Ctrl-C 2 times more to kill the container"));
    interrupt();
    assert!(line(&mut err).contains("press Ctrl-C once more to kill the container"));
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}
