//! Images and contexts at the limits of the kernel: depth, layers, open files, sizes of attributes.

use crate::fixture::{Done, Fixture};
use crate::layers::{archive, busybox, dir, file, load, loaded, tar};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Runs a command with a hard limit of `handles` open files.
fn with_handles(fixture: &Fixture, handles: u32, line: &str) -> Done {
    let inner = fixture.command(&line.split_whitespace().collect::<Vec<_>>());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {handles}; exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Done::of(command.output().unwrap())
}

#[track_caller]
fn ok_with_handles(fixture: &Fixture, handles: u32, line: &str) -> String {
    let done = with_handles(fixture, handles, line);
    assert_eq!(done.code, 0, "kiln {line}: {}{}", done.out, done.err);
    done.out
}

#[test]
fn deep_and_wide_trees_take_few_handles() {
    const HANDLES: u32 = 200;
    let fixture = fixture!();
    let deep = "d/".repeat(1900);
    let members = [dir(&deep), file(&format!("{deep}f"), "deep"), file("x", "")];
    // Of a whiteout of something that is there: the walk that keeps the layer's own alone.
    let upper = [file(&format!("{deep}g"), "more"), file(".wh.d", ""), file("y", "")];
    let path = fixture.path("deep.tar");
    archive(&path, "deep", &[busybox(&fixture), tar(&members), tar(&upper)]);
    ok_with_handles(&fixture, HANDLES, &format!("load -q -i {}", path.display()));
    ok_with_handles(&fixture, HANDLES, &format!("save -o {} deep", fixture.path("saved.tar").display()));
    assert_eq!(ok_with_handles(&fixture, HANDLES, "run --rm deep ls / -1").matches("d\n").count(), 1);
    // A step that makes such a tree, with a secret to look for, and a context with many directories.
    let make = "mkdir -p $(printf 'd/%.0s' $(seq 900)) && echo x >$(printf 'd/%.0s' $(seq 900))f";
    let context =
        fixture.context("c", &format!("FROM busybox\nWORKDIR /deep\nRUN {make}\nCOPY many /many\n"));
    for number in 0..2 * HANDLES {
        fixture.write(&format!("c/many/{number}/f"), "");
    }
    fixture.write("secret", "a secret that is nowhere");
    let secret = format!("--secret id=s,src={}", fixture.path("secret").display());
    ok_with_handles(&fixture, HANDLES, &format!("build -q -t built {secret} {}", context.display()));
    assert_eq!(
        ok_with_handles(&fixture, HANDLES, "run --rm built sh -c ls${IFS}/many|wc${IFS}-l").trim(),
        "400"
    );
    ok_with_handles(&fixture, HANDLES, "system check");
    for name in ["deep", "built", "busybox"] {
        ok_with_handles(&fixture, HANDLES, &format!("rmi {name}"));
    }
    ok_with_handles(&fixture, HANDLES, "builder prune -f");
    let left = |name: &str| {
        let entries = fs::read_dir(fixture.root().join(name)).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect()
    };
    let (layers, work): (Vec<PathBuf>, Vec<PathBuf>) = (left("layers"), left("work"));
    assert!(layers.is_empty() && work.is_empty(), "{layers:?} {work:?}");
}

#[test]
fn images_have_as_many_layers_as_can_be_mounted() {
    let fixture = fixture!();
    let small = |number: usize| tar(&[file(&format!("f{number}"), "x")]);
    let mut layers = vec![busybox(&fixture)];
    layers.extend((1..498).map(small));
    loaded(&fixture, "most", &layers);
    assert_eq!(fixture.kiln(&["run", "--rm", "most", "sh", "-c", "ls / | grep -c ^f"]).out, "497\n");
    let context =
        fixture.context("c", "FROM most\nRUN --mount=type=tmpfs,target=/new ls /f497 && ls / | grep -c ^f\n");
    // What a step adds to it is too much; the step itself runs.
    let done = fixture.kiln(&["build".as_ref(), "--progress=plain".as_ref(), context.as_os_str()]);
    assert!(done.err.contains(" 497\n"), "{}", done.err);
    layers.push(small(498));
    let told = "the image has 499 layers with files, and Linux stacks 498 of them at most";
    let done = load(&fixture, "more", &layers);
    assert!(done.code == 1 && done.err.contains(told), "{}", done.err);
    let context = fixture.context("more", "FROM most\nCOPY Dockerfile /more\n");
    let done = fixture.fails(&context);
    assert!(done.err.contains(told), "{}", done.err);
    // Layers without files are not mounted.
    layers.pop();
    layers.extend(vec![tar(&[]); 9]);
    loaded(&fixture, "empty", &layers);
    assert_eq!(fixture.kiln(&["run", "--rm", "empty", "cat", "/f497"]).out, "x");
}

#[test]
fn attributes_that_do_not_fit_are_named() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    for size in [60_000, 70_000] {
        let mut large = file("f", "");
        large.0.xattrs.insert(b"user.large".to_vec(), vec![b'x'; size]);
        let done = load(&fixture, &format!("large:{size}"), &[base.clone(), tar(&[large])]);
        // File systems with room for it take the smaller one.
        let told = format!("extended attribute `user.large` ({size} bytes) of `f`");
        assert!(done.code == 0 && size < 65_536 || done.err.contains(&told), "{size}: {}", done.err);
        assert!(!done.err.contains("No space") && !done.err.contains("prune"), "{size}: {}", done.err);
    }
}

#[test]
fn endless_paths_are_refused_and_their_scratch_is_removed() {
    let fixture = fixture!();
    let base = busybox(&fixture);
    let done = load(&fixture, "endless", &[base, tar(&[dir(&"d/".repeat(100_000))])]);
    assert!(done.code == 1 && done.err.contains("File name too long"), "{}", done.err);
    // A step is not limited by that: its result is refused and removed.
    let make = "cd /tmp && P=$(printf 'd/%.0s' $(seq 1500)) && mkdir -p a/$P b/$P && mv a b/$P";
    let context = fixture.context("c", &format!("FROM busybox\nRUN {make}\n"));
    let done = fixture.fails(&context);
    assert!(done.err.contains("File name too long"), "{}", done.err);
    assert_eq!(fs::read_dir(fixture.root().join("work")).unwrap().count(), 0);
}

/// No thread's stack is as deep as a tree may be.
#[test]
fn trees_as_deep_as_paths_are_long_are_read_and_copied() {
    let fixture = fixture!();
    let make = "P=$(printf 'd/%.0s' $(seq 2030)) && mkdir -p $P && echo deep >${P}f";
    fixture.write("secret", "a secret that is nowhere");
    let secret = format!("id=s,src={}", fixture.path("secret").display());
    for (name, dockerfile) in [
        ("deep", format!("FROM busybox\nRUN {make}\n")),
        ("copied", "FROM busybox\nCOPY --from=deep /d /d\n".to_owned()),
    ] {
        let context = fixture.context(name, &dockerfile);
        let done = fixture.kiln(&["build", "-q", "--secret", &secret, "-t", name, context.to_str().unwrap()]);
        assert_eq!(done.code, 0, "{name}: {}", done.err);
    }
    let saved = fixture.path("saved.tar").display().to_string();
    fixture.ok(&format!("save -o {saved} copied"));
    let other = Fixture::new().unwrap();
    other.ok(&format!("load -q -i {saved}"));
    let look = "cat $(printf 'd/%.0s' $(seq 2030))f";
    assert_eq!(other.kiln(&["run", "--rm", "copied", "sh", "-c", look]).out, "deep\n");
    other.ok("system check");
}
