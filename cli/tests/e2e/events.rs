//! `kiln events`: what commands and monitors report, in which order, and how it is read.

use crate::fixture::{Done, Fixture};
use std::io::{BufRead, BufReader, Read};

/// Events until now, as `TYPE ACTION NAME`.
#[track_caller]
fn so_far(fixture: &Fixture, flags: &[&str]) -> Vec<String> {
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}";
    let mut words = vec!["events", "--since", "1h", "--until", "0s", "--format", format];
    words.extend(flags);
    let done = fixture.kiln(&words);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    done.out.lines().map(str::to_owned).collect()
}

#[track_caller]
fn attribute(fixture: &Fixture, event: &str, name: &str) -> String {
    let format = format!("{{{{index .Actor.Attributes {name:?}}}}}");
    let filter = format!("event={event}");
    let done =
        fixture.kiln(&["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", &format]);
    assert_eq!(done.code, 0, "{}", done.err);
    done.out.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn the_life_of_a_container_is_reported_in_order() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let script = "trap 'exit 3' TERM; while :; do sleep 0.02; done";
    fixture.kiln(&["run", "-d", "--name", "web", "--label", "a=b", "busybox", "sh", "-c", script]);
    fixture.ok("pause web");
    fixture.ok("unpause web");
    fixture.ok("exec web true");
    assert_eq!(fixture.words("exec web sh -c false").code, 1);
    fixture.ok("rename web new");
    fixture.ok("restart new");
    fixture.ok("kill -s USR1 new");
    fixture.ok("commit new app:1");
    fixture.ok("stop new");
    fixture.ok("rm new");
    let expected = "create web, start web, pause web, unpause web, exec_create: true web, exec_start: true web, \
                    exec_die web, exec_create: sh -c false web, exec_start: sh -c false web, exec_die web, rename new, \
                    kill new, die new, stop new, start new, restart new, kill new, pause new, unpause new, commit new";
    let seen = so_far(&fixture, &["--filter", "type=container"]);
    let wanted: Vec<String> = expected.split(", ").map(|event| format!("container {event}")).collect();
    assert_eq!(seen[..wanted.len()], wanted);
    // The program may have been ended by USR1 before `stop` came.
    assert_eq!(seen.last().map(String::as_str), Some("container destroy new"));
    assert_eq!(attribute(&fixture, "rename", "oldName"), "/web");
    assert_eq!(attribute(&fixture, "exec_die", "exitCode"), "1");
    assert_eq!(attribute(&fixture, "commit", "imageRef"), "app:1");
    assert_eq!(attribute(&fixture, "create", "a"), "b");
    let codes = fixture.kiln(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    assert_eq!(codes.out.lines().next(), Some("3"));
    // Times do not go back.
    let times = fixture.ok("events --since 1h --until 0s --format {{.TimeNano}}");
    let times: Vec<i64> = times.lines().map(|time| time.parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn containers_in_the_foreground_are_reported() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(fixture.kiln(&["run", "--rm", "--name", "one", "busybox", "sh", "-c", "exit 7"]).code, 7);
    let seen = so_far(&fixture, &["--filter", "container=one"]);
    let wanted =
        ["create", "attach", "start", "die", "destroy"].map(|action| format!("container {action} one"));
    assert_eq!(seen, wanted);
    assert_eq!(attribute(&fixture, "die", "exitCode"), "7");
    assert_eq!(attribute(&fixture, "die", "execDuration"), "0");
    fixture.words("run -d --name two busybox sleep 1000");
    fixture.ok("rm -f two");
    let seen = so_far(&fixture, &["--filter", "container=two"]);
    let wanted =
        ["create", "start", "kill", "die", "destroy"].map(|action| format!("container {action} two"));
    assert_eq!(seen, wanted);
    assert_eq!(attribute(&fixture, "kill", "signal"), "9");
}

#[test]
fn images_and_volumes_are_reported() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    fixture.ok("tag busybox:latest copy:1");
    let file = fixture.path("image.tar");
    fixture.ok(&format!("save -o {} copy:1", file.display()));
    fixture.ok("rmi copy:1");
    fixture.ok(&format!("load -i {}", file.display()));
    let context = fixture.context("app", "FROM busybox\nLABEL x=y\n");
    fixture.build("app:1", &context);
    fixture.ok("rmi app:1");
    let seen = so_far(&fixture, &["--filter", "type=image"]);
    let id = fixture.ok("inspect -f {{.Id}} busybox").trim().to_owned();
    let first = [
        "image pull busybox".to_owned(),
        "image tag copy:1".to_owned(),
        format!("image save {id}"),
        "image untag copy:1".to_owned(),
        format!("image load {id}"),
        "image tag app:1".to_owned(),
        "image untag app:1".to_owned(),
    ];
    assert_eq!(seen[..first.len()], first);
    assert!(
        seen.len() == first.len() + 1 && seen[first.len()].starts_with("image delete sha256:"),
        "{seen:?}"
    );
    fixture.ok("run --name one -v data:/data -v /anonymous busybox true");
    fixture.ok("rm -v one");
    let volumes =
        fixture.ok("events --since 1h --until 0s -f type=volume --format {{.Action}}/{{.Actor.ID}}");
    assert!(volumes.contains("create/data\n") && !volumes.contains("destroy/data"), "{volumes}");
    assert_eq!(volumes.matches("destroy/").count(), 1, "{volumes}");
}

#[test]
fn events_are_followed_as_they_happen() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let mut following = fixture.start(&[
        "events",
        "--filter",
        "container=web",
        "--filter",
        "event=start",
        "--filter",
        "event=health_status",
    ]);
    let mut all = fixture.start(&["system", "events", "--since", "1h", "--format", "json"]);
    let mut lines = BufReader::new(all.stdout.take().unwrap()).lines();
    // The event of the pull shows that it follows.
    assert!(lines.next().unwrap().unwrap().contains(r#""Action":"pull""#));
    let flags = "run -d --name web --health-interval 30ms --health-cmd true busybox sleep 1000";
    fixture.ok(flags);
    fixture.ok("wait --condition healthy web");
    let id = fixture.ok("ps -q --no-trunc").trim().to_owned();
    let line = lines.find(|line| line.as_ref().unwrap().contains(r#""Action":"start""#)).unwrap().unwrap();
    let begin = format!(
        r#"{{"status":"start","id":"{id}","from":"busybox","Type":"container","Action":"start","Actor":{{"ID":"{id}","Attributes":{{"image":"busybox","name":"web"}}}},"scope":"local","time":"#
    );
    assert!(line.starts_with(&begin), "{line}");
    lines.find(|line| line.as_ref().unwrap().contains("health_status: healthy")).unwrap().unwrap();
    all.kill().unwrap();
    all.wait().unwrap();
    let mut out = BufReader::new(following.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    if line.contains(" container start ") {
        assert!(line.ends_with(&format!(" container start {id} (image=busybox, name=web)\n")), "{line}");
        line.clear();
        out.read_line(&mut line).unwrap();
    }
    assert!(line.contains(&format!(" container health_status: healthy {id} (image=busybox")), "{line}");
    // Its reader ends, and with the next event the command.
    drop(out);
    fixture.ok("restart -t 0 web");
    assert_eq!(following.wait().unwrap().code(), Some(0));
    fixture.ok("rm -f web");
}

#[test]
fn times_and_conditions_are_checked() {
    let fixture = fixture!();
    // A time in the past ends at once, also without a store.
    assert_eq!(fixture.ok("events --until 1s"), "");
    let began = std::time::Instant::now();
    assert_eq!(fixture.ok("events --since 1s --until 0s"), "");
    assert!(began.elapsed().as_secs() < 30);
    for (flags, reason) in [
        ("--since x", "invalid value for \"since\": failed to parse value as time or duration: \"x\""),
        ("--since 1s --until 1h", "later than"),
        ("--filter foo=bar", "invalid filter 'foo'"),
        ("--until 0s --format {{.Nothing}}", "Nothing"),
    ] {
        let Done { code, err, .. } = fixture.words(&format!("events {flags}"));
        assert!(code == 1 && err.contains(reason), "{flags}: {code} {err}");
    }
    // A time that comes ends the command as well.
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300)).to_string();
    let mut child = fixture.start(&["events", "--until", &soon]);
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!((child.wait().unwrap().code(), out.as_str()), (Some(0), ""));
}

#[test]
fn events_that_cannot_be_written_fail_no_command() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    let dir = fixture.root().join("events");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "").unwrap();
    fixture.ok("run --rm busybox true");
    std::fs::remove_file(&dir).unwrap();
    fixture.ok("run --rm --name one busybox true");
    assert!(!so_far(&fixture, &["--filter", "container=one"]).is_empty());
}
