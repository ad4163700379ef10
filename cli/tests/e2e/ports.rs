//! Ports of the host that are published for containers: `-p`, `-P`, `--expose`, `port`.

use crate::fixture::{Done, Fixture};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Starts a container with a web server on port 80, and waits until it listens.
#[track_caller]
fn serve(fixture: &Fixture, name: &str, flags: &str) -> Done {
    let script =
        format!("mkdir /w; echo {name} > /w/index.html; httpd -p 80 -h /w; echo up; exec sleep 1000");
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(flags.split_whitespace());
    words.extend(["busybox", "sh", "-c", &script]);
    let done = fixture.kiln(&words);
    if done.code == 0 {
        let listens = |done: &Done| done.out.contains("up");
        crate::lifecycle::until(fixture, &format!("logs {name}"), listens);
    }
    done
}

/// Content that a web server at an address answers with.
pub fn fetch(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
}

/// First address of a published port.
#[track_caller]
fn address(fixture: &Fixture, name: &str, port: &str) -> String {
    fixture.ok(&format!("port {name} {port}")).lines().next().unwrap().to_owned()
}

#[test]
fn published_ports_lead_to_the_container() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    assert_eq!(serve(&fixture, "web", "-p 127.0.0.1::80 -p 81 --expose 53/udp").code, 0);
    let local = address(&fixture, "web", "80");
    assert!(local.starts_with("127.0.0.1:"), "{local}");
    assert_eq!(fetch(&local).unwrap(), "web\n");
    // Port 81 is published on all addresses; nothing listens behind it.
    let everywhere = fixture.ok("port web 81/tcp");
    assert!(everywhere.starts_with("0.0.0.0:"), "{everywhere}");
    let number = local.rsplit(':').next().unwrap();
    let column = fixture.ok("ps --format {{.Ports}}");
    assert!(
        column.starts_with("53/udp, ") && column.contains(&format!("127.0.0.1:{number}->80/tcp")),
        "{column}"
    );
    let template = "{{json (index .NetworkSettings.Ports \"80/tcp\")}}";
    let ports = fixture.kiln(&["inspect", "-f", template, "web"]).out;
    assert_eq!(ports, format!("[{{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"{number}\"}}]\n"));
    let template = "{{json .NetworkSettings.Ports}}";
    let exposed = fixture.kiln(&["inspect", "-f", template, "web"]).out;
    assert!(exposed.contains("\"53/udp\":null"), "{exposed}");
    assert_eq!(fixture.ok("ps -q --filter publish=80").lines().count(), 1);
    assert_eq!(fixture.ok("ps -q --filter publish=8080"), "");
    assert_eq!(fixture.ok("ps -q --filter expose=53/udp").lines().count(), 1);
    let done = fixture.words("port web 99");
    assert_eq!((done.code, done.err.contains("No public port '99' published for web")), (1, true));
    // After a restart the service is there again; after the end nothing listens, and nothing is shown.
    fixture.ok("restart -t 0 web");
    crate::lifecycle::until(&fixture, "logs web", |done| done.out.matches("up").count() == 2);
    assert_eq!(fetch(&address(&fixture, "web", "80")).unwrap(), "web\n");
    let local = address(&fixture, "web", "80");
    fixture.ok("stop -t 0 web");
    assert!(fetch(&local).is_err());
    assert_eq!(fixture.ok("port web"), "");
    assert_eq!(fixture.kiln(&["inspect", "-f", template, "web"]).out, "{}\n");
    fixture.ok("rm web");
}

/// The holder of a port and a free one are named, and a range for one port is a choice.
#[test]
fn ports_in_use_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    serve(&fixture, "one", "-p 127.0.0.1::80");
    let taken = address(&fixture, "one", "80");
    let done = serve(&fixture, "two", &format!("-p {taken}:80"));
    assert_eq!(done.code, 125);
    let expected = format!("Bind for {taken} failed: port is already allocated by container `one`");
    assert!(done.err.contains(&expected), "{}", done.err);
    assert!(done.err.contains("is free (-p 127.0.0.1:"), "{}", done.err);
    assert_eq!(fixture.ok("ps -a --filter name=two --format {{.State}}"), "created\n");
    fixture.ok("rm two");
    let number: u16 = taken.rsplit(':').next().unwrap().parse().unwrap();
    let range = format!("-p 127.0.0.1:{number}-{}:80", number.saturating_add(20));
    assert_eq!(serve(&fixture, "three", &range).code, 0);
    let chosen = address(&fixture, "three", "80");
    assert_ne!(chosen, taken);
    assert_eq!(fetch(&chosen).unwrap(), "three\n");
    // A program of the host that holds a port is named as well.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let done = serve(&fixture, "four", &format!("-p {}:80", held.local_addr().unwrap()));
    assert!(done.err.contains(&format!("by process {}", std::process::id())), "{}", done.err);
    fixture.ok("rm -f one three four");
}

#[test]
fn exposed_ports_are_published_on_request() {
    let fixture = fixture!();
    let context = fixture.context("web", "FROM busybox\nEXPOSE 80 8000-8001/udp\n").display().to_string();
    fixture.ok(&format!("build -q -t exposing {context}"));
    let script = ["sh", "-c", "exec sleep 1000"];
    let run = |name: &str, flags: &[&str]| {
        let words = [&["run", "-d", "--name", name], flags, &["exposing"], &script].concat();
        assert_eq!(fixture.kiln(&words).code, 0);
    };
    run("plain", &[]);
    assert_eq!(fixture.ok("ps --format {{.Ports}}"), "80/tcp, 8000-8001/udp\n");
    assert_eq!(fixture.ok("port plain"), "");
    run("all", &["-P", "-p", "127.0.0.1::80"]);
    let lines = fixture.ok("port all");
    let inside: Vec<&str> = lines.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(inside.iter().filter(|port| **port == "80/tcp").count(), 1, "{lines}");
    assert!(inside.contains(&"8000/udp") && inside.contains(&"8001/udp"), "{lines}");
    let host = fixture.ok("inspect -f {{.HostConfig.PublishAllPorts}} all");
    assert_eq!(host, "true\n");
    fixture.ok("rm -f plain all");
}

#[test]
fn wrong_ports_are_refused() {
    let fixture = fixture!();
    fixture.ok("pull -q busybox");
    for (ports, expected) in [
        ("8080:http", "invalid containerPort: http"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("80-81:80-82", "invalid ranges specified for container and host Ports: 80-82 and 80-81"),
        ("0", "invalid containerPort: 0"),
        ("65536:80", "invalid hostPort: 65536"),
    ] {
        let done = fixture.words(&format!("run --rm -p {ports} busybox true"));
        assert!(done.code == 125 && done.err.contains(expected), "{ports}: {} {}", done.code, done.err);
    }
    let done = fixture.words("run --rm --network host -p 80:80 busybox true");
    assert_eq!((done.code, done.err.contains("Published ports are discarded")), (0, true), "{}", done.err);
    let done = fixture.words("run --rm --network container:x1 -p 80:80 busybox true");
    assert!(done.err.contains("conflicting options: port publishing"), "{}", done.err);
    assert_eq!(fixture.ok("ps -aq"), "");
}
