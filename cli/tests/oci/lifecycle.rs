//! From `create` to `delete`.

use crate::fixture::{Done, new_id, wait_until};
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_container_is_made_started_and_removed() {
    let fixture = fixture!();
    let bundle = fixture.bundle("trap 'exit 7' TERM; echo up > /root/up; while :; do sleep 0.05; done");
    let id = new_id("life");
    assert_eq!(fixture.oci(&["state", &id]).code, 1);
    let done = fixture.detached(&["create", "--bundle", bundle.write(), &id]);
    assert_eq!(done.code, 0, "{}", done.err);
    let state = fixture.state(&id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(bundle.dir));
    assert!(!bundle.rootfs().join("root/up").exists(), "the program runs before it is started");
    assert!(fixture.oci(&["create", "--bundle", bundle.write(), &id]).err.contains("already exists"));

    assert_eq!(fixture.oci(&["start", &id]).code, 0);
    assert_eq!(fixture.state(&id)["status"], "running");
    assert!(fixture.oci(&["start", &id]).err.contains("already running"));
    let refused = fixture.oci(&["delete", &id]);
    assert!(refused.code != 0 && refused.err.contains("not stopped: running"), "{refused:?}");

    assert_eq!(fixture.oci(&["pause", &id]).code, 0);
    assert_eq!(fixture.state(&id)["status"], "paused");
    assert_eq!(fixture.oci(&["resume", &id]).code, 0);
    assert_eq!(fixture.oci(&["kill", &id, "KILL"]).code, 0);
    // Only its parent is notified of its exit: `delete` waits.
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    assert!(fixture.oci(&["state", &id]).err.contains("does not exist"));
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    assert_eq!(fixture.oci(&["delete", &id]).code, 1);
}

/// A configuration needs no process before `start`.
#[test]
fn without_a_process_nothing_is_started() {
    let fixture = fixture!();
    let mut bundle = fixture.bundle("");
    bundle.config.as_object_mut().unwrap().remove("process");
    fs::remove_dir_all(bundle.rootfs().join("bin")).unwrap();
    let id = new_id("nothing");
    let done = fixture.detached(&["create", "--bundle", bundle.write(), &id]);
    assert_eq!(done.code, 0, "{}", done.err);
    let done = fixture.oci(&["start", &id]);
    assert!(done.code == 1 && done.err.contains("its configuration has no `process`"), "{done:?}");
    assert_eq!(fixture.state(&id)["status"], "created");
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
}

#[test]
fn run_passes_output_and_code_on() {
    let fixture = fixture!();
    let done = fixture.sh("echo out; echo err >&2; exit 7", |_| {});
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (7, "out\n", "err\n"));
    let done = fixture.sh("kill -9 $$", |_| {});
    assert_eq!(done.code, 0, "process 1 does not kill itself: {done:?}");
    let missing = fixture.sh("", |config| config["process"]["args"] = json!(["/no/such"]));
    assert_eq!(missing.code, 127, "{missing:?}");
    let dir = fixture.sh("", |config| config["process"]["args"] = json!(["/etc"]));
    assert_eq!(dir.code, 126, "{dir:?}");
}

#[test]
fn hooks_leave_the_program_its_dir() {
    let fixture = fixture!();
    let done = fixture.sh("pwd", |config| {
        config["process"]["cwd"] = json!("/tmp");
        config["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
    });
    assert_eq!((done.out.as_str(), done.err.as_str()), ("/tmp\n", ""));
}

#[test]
fn further_programs_run_in_it() {
    let fixture = fixture!();
    let bundle = fixture.bundle("while :; do sleep 0.05; done");
    let id = new_id("exec");
    assert_eq!(fixture.detached(&["run", "-d", "--bundle", bundle.write(), &id]).code, 0);
    let done = fixture.oci(&["exec", &id, "sh", "-c", "echo $$; exit 9"]);
    assert_eq!(done.code, 9, "{done:?}");
    assert!(done.out.trim().parse::<u32>().unwrap() > 1, "{done:?}");
    let done = fixture.oci(&[
        "exec",
        "--user",
        "1000:1001",
        "--cwd",
        "/tmp",
        "--env",
        "A=1",
        &id,
        "sh",
        "-c",
        "id -u; pwd; echo $A",
    ]);
    assert_eq!(done.out, "1000\n/tmp\n1\n", "{done:?}");
    assert_eq!(fixture.oci(&["exec", &id, "no-such"]).code, 255);
    let ps = fixture.oci(&["ps", "--format", "json", &id]);
    let pids: Vec<i32> = serde_json::from_str(&ps.out).unwrap();
    assert!(!pids.is_empty(), "{ps:?}");
}

/// `NOTIFY_SOCKET`: a service manager is notified of readiness, and of nothing else (sd_notify(3)).
#[test]
fn the_service_manager_is_notified_of_readiness() {
    let fixture = fixture!();
    let path = fixture.path().join("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let command = "test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET > /root/new && mv /root/new /root/socket; while ! test -e /root/end; do sleep 0.02; done";
    for words in [&["run"][..], &["run", "--detach"], &["create"]] {
        let bundle = fixture.bundle(command);
        let id = new_id("ready");
        let call = |words: &[&str]| {
            let mut command = fixture.command(words);
            command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let words = [words, &["--bundle", bundle.write(), &id]].concat();
        let mut caller = call(&words).spawn().unwrap();
        if words[0] == "create" {
            assert_eq!(caller.wait().unwrap().code(), Some(0));
            caller = call(&["start", &id]).spawn().unwrap();
        }
        let told = bundle.rootfs().join("root/socket");
        wait_until("the program runs", || told.exists());
        assert_eq!(fs::read_to_string(&told).unwrap().trim(), path.join("notify").to_str().unwrap());
        assert!(caller.try_wait().unwrap().is_none(), "{words:?} waits until the program is ready");
        let inside = format!("/proc/{}/root{}", fixture.pid(&id), path.display());
        let dir = fs::File::open(inside).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        let socket = format!("/proc/self/fd/{}/notify", dir.as_raw_fd());
        program.send_to(b"STATUS=soon", &socket).unwrap();
        program.send_to(b"MAINPID=1\nREADY=1\n", &socket).unwrap();
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(&message[..length], b"READY=1");
        if words[..2] != ["run", "--bundle"] {
            assert_eq!(caller.wait().unwrap().code(), Some(0), "{words:?}");
        }
        fs::write(bundle.rootfs().join("root/end"), "").unwrap();
        assert_eq!(caller.wait().unwrap().code(), Some(0), "{words:?}");
        assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
    }
    // A program that exits without a notification delays nothing.
    let bundle = fixture.bundle("exit 3");
    let id = new_id("silent");
    let mut command = fixture.command(&["run", "--detach", "--bundle", bundle.write(), &id]);
    let done = Done::in_time(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(fixture.oci(&["delete", "--force", &id]).code, 0);
}

/// Without a pid namespace the exit of the init process does not end the others: the cgroup lists them.
#[test]
fn killing_ends_processes_that_the_init_process_left() {
    let fixture = fixture!();
    for first_is_gone in [false, true] {
        let mut bundle = fixture.bundle("exec sleep 1000");
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "pid");
        bundle.config["linux"]["cgroupsPath"] = json!(format!("/{}", new_id("numbers")));
        let id = fixture.up(&bundle);
        assert_eq!(fixture.detached(&["exec", "--detach", &id, "sleep", "1000"]).code, 0);
        let list = || fixture.oci(&["ps", "--format", "json", &id]).out;
        wait_until("there are two", || list().matches(',').count() == 1);
        let first = fixture.pid(&id);
        if first_is_gone {
            let first = rustix::process::Pid::from_raw(first as i32).unwrap();
            rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
            wait_until("it ends", || fixture.state(&id)["status"] == "stopped");
        }
        let done = fixture.oci(&["kill", &id, "KILL"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{first_is_gone}");
        wait_until("all end", || fixture.state(&id)["status"] == "stopped");
        assert_eq!(fixture.oci(&["delete", &id]).code, 0);
    }
    assert!(fixture.traces("numbers").is_empty());
}
