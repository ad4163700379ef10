//! `kill -9` at any moment.

use crate::fixture::Fixture;
use kiln_image::digest::Hasher;
use kiln_image::store::Store;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest time until a command ends whose process was killed, on a busy host.
const LONGEST: Duration = Duration::from_secs(60);

/// Moments of a kill, spread over the duration of a command; the subject of the test, not a wait for an event.
/// `make test-long` wants more.
fn moments() -> u64 {
    std::env::var("KILN_KILL_MOMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn killed_builds_leave_a_sound_store() {
    let fixture = fixture!();
    let steps: String =
        (0..6).map(|n| format!("RUN dd if=/dev/urandom of=/f{n} bs=64k count=8 2>/dev/null\n")).collect();
    let context = fixture.context("c", &format!("FROM busybox\nCOPY data /data\n{steps}"));
    fixture.write("c/data/file", &"content ".repeat(100_000));
    let arguments =
        ["build".as_ref(), "--no-cache".as_ref(), "-t".as_ref(), "c".as_ref(), context.as_os_str()];
    let begun = std::time::Instant::now();
    assert_eq!(fixture.kiln(&arguments).code, 0);
    let whole = begun.elapsed();
    for moment in 0..moments() {
        let mut child = fixture.start(&arguments);
        std::thread::sleep(whole.mul_f64((moment as f64 + 0.5) / moments() as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        check_blobs(&fixture.root());
        fixture.build("c", &context);
    }
    let out = fixture.kiln(&["run", "--rm", "c", "sh", "-c", "ls / | grep -c ^f && wc -c < /data/file"]).out;
    assert_eq!(out, "6\n800000\n");
    wait_until_clean(&fixture);
}

/// Kills one of a command's processes after `pause`: the command itself, or a process that it started. The command must
/// end.
fn kill_one_of(fixture: &Fixture, words: &[&str], pause: Duration, choice: usize) {
    let mut command = fixture.command(words);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(pause);
    let mut processes = vec![child.id().to_string()];
    let mut index = 0;
    while let Some(process) = processes.get(index) {
        let path = format!("/proc/{process}/task/{process}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        processes.extend(children.split_whitespace().map(str::to_owned));
        index += 1;
    }
    let process = processes[choice % processes.len()].parse().unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    // It may have ended.
    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < LONGEST, "{words:?} hangs after {process:?} of {processes:?} was killed");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Tests that after a kill of any process of any command the store has what it had, and all that is listed works.
#[test]
fn killed_commands_of_all_kinds_leave_a_sound_store() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("tag busybox stays:1");
    let [saved, other] = ["saved.tar", "other.tar"].map(|name| fixture.path(name).display().to_string());
    fixture.ok(&format!("save -o {saved} busybox"));
    let context = fixture.context("c", "FROM busybox\nCOPY Dockerfile /\nRUN echo a >/a\nRUN echo b >/b\n");
    let lines = [
        format!("build -q --no-cache -t built:1 {}", context.display()),
        "run --name kept busybox true".to_owned(),
        format!("save -o {other} built:1"),
        "tag built:1 named:1".to_owned(),
        "rmi -f built:1".to_owned(),
        "run --rm --network none busybox true".to_owned(),
        "rm -f kept".to_owned(),
        format!("build -q -t built:2 {}", context.display()),
        "rmi -f named:1 built:2".to_owned(),
        format!("load -q -i {saved}"),
        "builder prune -af".to_owned(),
        "image prune -f".to_owned(),
        "system check --repair".to_owned(),
    ];
    let lasting = lines.clone().map(|line| {
        let begun = Instant::now();
        fixture.ok(&line);
        begun.elapsed()
    });
    for number in 0..moments() as usize * 3 {
        let at = number % lines.len();
        let words: Vec<&str> = lines[at].split(' ').collect();
        // Every command meets many moments, and each of its processes is killed at some.
        let part = (number / lines.len() * 7 + at * 3) % 20;
        kill_one_of(&fixture, &words, lasting[at].mul_f64(part as f64 / 20.0), number / 3);
        fixture.ok("ps -a");
        fixture.ok("run --rm --network none stays:1 true");
        if number % 5 == 0 {
            fixture.ok("system check");
            for name in fixture.ok("images -q").lines() {
                fixture.ok(&format!("save -o {other} {name}"));
            }
        }
        // What the next command needs, whether this one was done or not.
        if matches!(at, 0 | 7) {
            fixture.ok(&lines[at]);
        }
    }
    fixture.words("rm -f kept");
    for container in fixture.ok("ps -aq").lines() {
        fixture.ok(&format!("rm -f {container}"));
    }
    for image in fixture.ok("images -q").lines() {
        fixture.words(&format!("rmi -f {image}"));
    }
    fixture.ok("builder prune -af");
    for directory in ["containers/names", "containers", "pins", "layers", "work"] {
        let entries = std::fs::read_dir(fixture.root().join(directory)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let left: Vec<String> = names.filter(|name| name != "names" && name != ".empty").collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    wait_until_clean(&fixture);
}

/// A layer with members out of order, which our packer does not reproduce.
fn foreign_layer(number: u8) -> Vec<u8> {
    use kiln_image::tar::{Entry, EntryKind, Writer};
    let mut writer = Writer::new(Vec::new());
    for at in (0..150u32).rev() {
        let name = format!("d{number}/{}/f{at}", at % 7);
        let content = vec![number ^ at as u8; 9000];
        let size = content.len() as u64;
        writer.begin(&Entry { size, mode: 0o644, ..Entry::new(EntryKind::File, name.as_str()) }).unwrap();
        writer.content(&content).unwrap();
    }
    writer.finish().unwrap()
}

/// The image `name` can be run, saved, loaded elsewhere, pushed and pulled.
#[track_caller]
fn assert_whole(fixture: &Fixture, name: &str, look: &[&str], expected: &str) {
    let done = fixture.kiln(&[&["run", "--rm", name], look].concat());
    assert_eq!((done.code, done.out.as_str()), (0, expected), "{}", done.err);
    let saved = fixture.path("saved.tar").display().to_string();
    let _ = std::fs::remove_file(&saved);
    fixture.ok(&format!("save -o {saved} {name}"));
    let (server, _) = crate::flags::registry();
    let pushed = format!("{}/pushed:1", server.address);
    fixture.ok(&format!("tag {name} {pushed}"));
    fixture.ok(&format!("push {pushed}"));
    fixture.ok(&format!("rmi {pushed}"));
    for get in [format!("load -q -i {saved}"), format!("pull -q {pushed}")] {
        let other = Fixture::new().unwrap();
        other.ok(&get);
        let done = other
            .kiln(&[&["run", "--rm", if get.starts_with("load") { name } else { &pushed }], look].concat());
        assert_eq!((done.code, done.out.as_str()), (0, expected), "{get}: {}", done.err);
    }
}

/// Kills `command` at many moments; its leftovers must not break the next one.
#[track_caller]
fn kill_and_repeat(fixture: &Fixture, command: &str, name: &str, look: &[&str], expected: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let begun = std::time::Instant::now();
    fixture.ok(command);
    let whole = begun.elapsed();
    for moment in 0..moments() {
        fixture.words(&format!("rmi -f {name}"));
        let mut child = fixture.start(&words);
        std::thread::sleep(whole.mul_f64((moment as f64 + 0.5) / moments() as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        // Killed again, it finds the leftovers of the first.
        let mut child = fixture.start(&words);
        std::thread::sleep(whole.mul_f64((moment as f64 + 1.0) / moments() as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        check_blobs(&fixture.root());
        fixture.ok(command);
        if moment % 3 == 0 {
            assert_whole(fixture, name, look, expected);
        } else {
            let saved = fixture.path("saved.tar").display().to_string();
            fixture.ok(&format!("save -o {saved} {name}"));
            let (server, _) = crate::flags::registry();
            fixture.ok(&format!("tag {name} {}/pushed:1", server.address));
            fixture.ok(&format!("push {}/pushed:1", server.address));
        }
    }
    fixture.ok("system check");
    wait_until_clean(fixture);
}

#[test]
fn killed_loads_leave_nothing_that_cannot_be_saved() {
    let fixture = fixture!();
    let layers = [crate::layers::busybox(&fixture), foreign_layer(1), foreign_layer(2)];
    let path = fixture.path("image.tar");
    crate::layers::archive(&path, "foreign:1", &layers);
    let look = ["sh", "-c", "cat /d1/*/* /d2/*/* | wc -c"];
    kill_and_repeat(&fixture, &format!("load -q -i {}", path.display()), "foreign:1", &look, "2700000\n");
}

#[test]
fn killed_pulls_leave_nothing_that_cannot_be_pushed() {
    let fixture = fixture!();
    // Compressed in another way than its tar would be here, and not packed by this program.
    let (server, _) = crate::flags::registry();
    let path = fixture.path("image.tar");
    let layers = [crate::layers::busybox(&fixture), foreign_layer(3), foreign_layer(4)];
    let name = format!("{}/foreign:1", server.address);
    crate::layers::archive(&path, &name, &layers);
    let other = Fixture::new().unwrap();
    other.ok(&format!("load -q -i {}", path.display()));
    other.ok(&format!("push {name}"));
    let look = ["sh", "-c", "cat /d3/*/* /d4/*/* | wc -c"];
    kill_and_repeat(&fixture, &format!("pull -q {name}"), &name, &look, "2700000\n");
}

/// Files below `directory` that hold `text`.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&entry.path(), text));
        } else if std::fs::read(entry.path()).is_ok_and(|bytes| bytes == text.as_bytes()) {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn secrets_of_killed_builds_are_removed() {
    let fixture = fixture!();
    let secrets = Path::new("/run/kiln/secrets");
    let text = format!("secret of {} {:?}", std::process::id(), std::thread::current().id());
    fixture.write("secret", &text);
    let context = fixture.context("c", "FROM busybox\nRUN --mount=type=secret,id=s sleep 1000\n");
    let flag = format!("id=s,src={}", fixture.path("secret").display());
    let mut killed = fixture.start(&["build", "--no-cache", "--secret", &flag, context.to_str().unwrap()]);
    while files_with(secrets, &text).is_empty() {
        assert!(killed.try_wait().unwrap().is_none(), "the build ended before its step began");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Files of a running build are not touched.
    fixture.build("other", &fixture.context("other", "FROM scratch\nCOPY Dockerfile /\n"));
    assert_eq!(files_with(secrets, &text).len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    fixture.build("other", &fixture.context("other", "FROM scratch\nCOPY Dockerfile /\n"));
    assert_eq!(files_with(secrets, &text), Vec::<PathBuf>::new());
    wait_until_clean(&fixture);
}

/// A stage that an image takes files of holds a secret in a layer: it is not there any more once the next command ran.
#[test]
fn private_layers_of_killed_builds_are_removed() {
    let fixture = fixture!();
    let text = format!("private of {} {:?}", std::process::id(), std::thread::current().id());
    fixture.write("secret", &text);
    let context = fixture.context(
        "c",
        "FROM busybox AS inner\nRUN --mount=type=secret,id=s cat /run/secrets/s >/leaked\nRUN touch /begun && sleep 1000\n\
         FROM busybox\nCOPY --from=inner /begun /\n",
    );
    let flag = format!("id=s,src={}", fixture.path("secret").display());
    let arguments = ["build", "--progress=plain", "--secret", &flag, context.to_str().unwrap()];
    let mut killed = fixture.start(&arguments);
    let layers = fixture.root().join("layers");
    let begun = || {
        let work = std::fs::read_dir(fixture.root().join("work")).into_iter().flatten().flatten();
        work.into_iter().any(|scratch| scratch.path().join("fs/begun").exists())
    };
    while !begun() {
        assert!(killed.try_wait().unwrap().is_none(), "the build ended before its last step began");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(files_with(&layers, &text).len(), 1);
    // Another command does not touch files of a running build.
    fixture.ok("images");
    assert_eq!(files_with(&layers, &text).len(), 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    fixture.ok("images");
    assert_eq!(files_with(&fixture.root(), &text), Vec::<PathBuf>::new());
    fixture.ok("system check");
    wait_until_clean(&fixture);
}

/// Children of a killed program exit a moment later by themselves.
fn wait_until_clean(fixture: &Fixture) {
    for _ in 0..100 {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fixture.assert_clean())).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fixture.assert_clean();
}

fn check_blobs(root: &Path) {
    let store = Store::open(root).unwrap();
    for digest in store.blobs().list().unwrap() {
        let bytes = std::fs::read(store.blobs().path(&digest)).unwrap();
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        assert_eq!(hasher.finish(), digest);
    }
}
