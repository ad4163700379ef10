//! Hooks: their time, order and input, and the outcome when they fail.

use crate::fixture::{Bundle, Fixture, new_id, read};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle whose program and hooks write their names into a file, in the directory that is both at `/tmp/names` in the
/// container and `names` outside.
fn telling(fixture: &Fixture) -> (Bundle, PathBuf) {
    let mut bundle = fixture.bundle("echo program >> /tmp/names");
    let told = bundle.rootfs().join("tmp/names");
    for kind in KINDS {
        // Those in the container see its tree, the others the host's.
        let (shell, place) = match kind {
            "startContainer" => ("/bin/sh", "/tmp/names".to_owned()),
            _ => ("/bin/sh", told.display().to_string()),
        };
        let script = format!("echo {kind}$1 >> {place}; cat > {place}.{kind}");
        let hook = |number: &str| json!({"path": shell, "args": ["sh", "-c", script, "sh", number], "env": ["PATH=/bin:/usr/bin"]});
        bundle.config["hooks"][kind] = json!([hook("1"), hook("2")]);
    }
    (bundle, told)
}

fn lines(told: &PathBuf) -> Vec<String> {
    fs::read_to_string(told).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn each_kind_of_hook_runs_at_its_time() {
    let fixture = fixture!();
    let (bundle, told) = telling(&fixture);
    let id = new_id("hooks");
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
    let created = [
        "prestart1",
        "prestart2",
        "createRuntime1",
        "createRuntime2",
        "createContainer1",
        "createContainer2",
    ];
    assert_eq!(lines(&told), created);
    let done = fixture.detached(&["start", &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    crate::fixture::wait_until("it ends", || fixture.state(&id)["status"] == "stopped");
    let mut all = lines(&told);
    assert_eq!(all[6..8], ["startContainer1", "startContainer2"]);
    // The program and poststart hooks run in parallel.
    let mut rest = all.split_off(8);
    rest.sort();
    assert_eq!(rest, ["poststart1", "poststart2", "program"]);
    assert_eq!(fixture.oci(&["delete", &id]).code, 0);
    assert_eq!(lines(&told)[11..], ["poststop1", "poststop2"]);

    for (kind, status) in
        KINDS.iter().zip(["created", "creating", "creating", "created", "running", "stopped"])
    {
        let state: Value = serde_json::from_str(&read(format!("{}.{kind}", told.display()))).unwrap();
        assert_eq!((&state["id"], &state["status"]), (&json!(id), &json!(status)), "{kind}");
        assert_eq!(state["bundle"], json!(bundle.dir), "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
        assert_eq!(state["pid"].as_i64().unwrap() > 1, *kind != "poststop", "{kind}: {state}");
    }
}

#[test]
fn a_run_has_them_all() {
    let fixture = fixture!();
    let (mut bundle, told) = telling(&fixture);
    bundle.config["annotations"] = json!({"org.example.note": "told"});
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(lines(&told).len(), 13, "{:?}", lines(&told));
    let state: Value = serde_json::from_str(&read(format!("{}.createRuntime", told.display()))).unwrap();
    assert_eq!(state["annotations"], json!({"org.example.note": "told"}));
    for (kind, status) in [("createContainer", "creating"), ("startContainer", "created")] {
        let state: Value = serde_json::from_str(&read(format!("{}.{kind}", told.display()))).unwrap();
        assert_eq!(state["status"], status, "{kind}");
    }
}

/// Annotations of engines can be long; hooks receive all of them.
#[test]
fn long_notes_reach_hooks() {
    let fixture = fixture!();
    let (mut bundle, told) = telling(&fixture);
    bundle.config["annotations"] = json!({"long": "x".repeat(1 << 20)});
    let id = new_id("long");
    let done = fixture.detached(&["create", "--bundle", bundle.write(), &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let done = fixture.detached(&["start", &id]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for kind in &KINDS[..5] {
        let state: Value = serde_json::from_str(&read(format!("{}.{kind}", told.display()))).unwrap();
        assert_eq!(state["annotations"]["long"].as_str().unwrap().len(), 1 << 20, "{kind}");
    }
}

#[test]
fn one_that_fails_stops_it_all() {
    let fixture = fixture!();
    for kind in KINDS {
        let (mut bundle, told) = telling(&fixture);
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"], "env": ["PATH=/bin:/usr/bin"]}]);
        if kind == "poststart" {
            bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
        }
        let name = format!("failing-{kind}");
        let id = new_id(&name);
        let done = fixture.oci(&["run", "--bundle", bundle.write(), &id]);
        assert_eq!(done.err.lines().count(), 1, "{kind}: {done:?}");
        let line =
            format!("error running {kind} hook #0: error running hook `/bin/sh`: exit status 3, stderr: why");
        assert!(done.err.contains(&line), "{kind}: {done:?}");
        let ran = lines(&told);
        // poststop hooks run after the removal of the container, and their failure changes nothing.
        if kind == "poststop" {
            assert_eq!(done.code, 0, "{done:?}");
            assert!(ran.contains(&"program".to_owned()));
        } else {
            assert_eq!(done.code, 1, "{kind}: {done:?}");
            assert!(!ran.contains(&"program".to_owned()), "{kind}: {ran:?}");
            assert_eq!(ran.last().map(String::as_str), Some("poststop2"), "{kind}: {ran:?}");
        }
        let at = KINDS.iter().position(|other| *other == kind).unwrap();
        for later in KINDS[at + 1..].iter().filter(|later| **later != "poststop") {
            assert!(!ran.contains(&format!("{later}1")), "{kind}: {ran:?}");
        }
        assert!(fixture.traces(&name).is_empty(), "{kind}: {:?}", fixture.traces(&name));
    }
    // In two steps: a failure of `start` leaves a stopped container.
    let (mut bundle, _) = telling(&fixture);
    bundle.config["hooks"]["startContainer"] = json!([{"path": "/bin/false"}]);
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    let id = new_id("steps");
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
    let done = fixture.detached(&["start", &id]);
    assert!(
        done.code == 1
            && done.err.contains("startContainer hook #0: error running hook `/bin/false`: exit status 1"),
        "{done:?}"
    );
    crate::fixture::wait_until("it ends", || fixture.state(&id)["status"] == "stopped");
    assert_eq!(fixture.oci(&["delete", &id]).code, 0);
}

#[test]
fn one_that_takes_too_long_is_killed() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("true");
    bundle.config["hooks"]["createRuntime"] =
        json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]);
    let started = Instant::now();
    let id = new_id("slow");
    let done = fixture.oci(&["run", "--bundle", bundle.write(), &id]);
    assert!(
        done.code == 1
            && done
                .err
                .contains("the createRuntime hook `/bin/sleep` did not end within 1 seconds and was killed"),
        "{done:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(fixture.traces("slow").is_empty());
}

#[test]
fn arguments_and_environment() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("true");
    let out = fixture.path().join("out");
    let script = format!("echo $0 $1 \"$A\" ${{HOME-none}} > {}", out.display());
    bundle.config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["name", "-c", script, "zero", "one"], "env": ["A=b c", "PATH=/bin"]}]);
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(read(&out), "zero one b c none");
}

/// Runtime specification, "Lifecycle", step 10.
#[test]
fn one_that_fails_after_the_start_ends_the_container() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("sleep 1000");
    let told = fixture.path().join("told");
    bundle.config["hooks"] = json!({
        "poststart": [{"path": "/bin/false"}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", format!("echo gone > {}", told.display())]}],
    });
    let id = new_id("after-start");
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
    let done = fixture.oci(&["start", &id]);
    assert!(
        done.code == 1
            && done.err.contains("poststart hook #0: error running hook `/bin/false`: exit status 1"),
        "{done:?}"
    );
    assert!(fixture.oci(&["state", &id]).err.contains("does not exist"));
    assert_eq!(fs::read_to_string(told).unwrap(), "gone\n");
    assert!(fixture.traces("after-start").is_empty());
}

/// Annotations of crun: the output of hooks on the host's side is appended to files.
#[test]
fn output_of_hooks_is_kept() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("true");
    let (out, err) = (fixture.path().join("out"), fixture.path().join("err"));
    bundle.config["annotations"] = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err});
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let says = format!("echo {kind}; echo {kind}-error >&2");
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", says]}]);
    }
    let done = fixture.run(&bundle);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    assert_eq!(read(&out), "prestart\ncreateRuntime\npoststart\npoststop");
    assert_eq!(read(&err).lines().nth(3), Some("poststop-error"));
}

/// While hooks of the host's side run, the init process is still in the host's root: nothing may enter it there.
#[test]
fn nothing_enters_a_container_before_it_has_its_root() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("cat /etc/seen");
    let id = new_id("early");
    let told = fixture.path().join("told");
    let (kiln, root) = (env!("CARGO_BIN_EXE_kiln"), fixture.root());
    let script = format!(
        "{kiln} oci --root {} exec {id} /bin/echo entered > {} 2>&1; true",
        root.display(),
        told.display()
    );
    bundle.config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    assert_eq!(fixture.detached(&["create", "--bundle", bundle.write(), &id]).code, 0);
    let text = read(&told);
    assert!(text.contains("still being created") && !text.contains("entered\n"), "{text}");
    // One that waits to be started has its root.
    let done = fixture.oci(&["exec", &id, "/bin/busybox", "ls", "/bin/busybox"]);
    assert_eq!((done.code, done.out.as_str()), (0, "/bin/busybox\n"), "{}", done.err);
    fixture.oci(&["delete", "--force", &id]);
}
