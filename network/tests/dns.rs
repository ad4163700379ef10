//! Tests of names: members in network namespaces, the process that serves them, and servers that stand for the host's.
//!
//! The test runs in a separate network namespace, which stands for the host. It has its own `main`, and no second
//! thread while it joins, because the process is forked then.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use domain::base::iana::Rtype;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;
use kiln_network::dns::{Member, Membership, Names};
use kiln_runtime::OneThread;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use upstream::{CLOSED, SERVER, Upstream, conf};

#[path = "dns/upstream.rs"]
mod upstream;

type Test = fn(&Bed);

const TESTS: &[(&str, Test)] = &[
    ("containers_know_each_other", neighbours),
    ("one_process_serves_and_ends_with_the_last_container", one_process),
    ("other_names_are_those_of_the_host", forwarding),
    ("a_server_that_is_silent_is_asked_last", silent_server),
    ("without_servers_there_is_a_failure", no_server),
    ("wrong_answers_are_ignored", lies),
    ("long_answers_come_by_a_stream", streams),
    ("streams_have_limits", limits),
    ("malformed_messages_do_no_harm", garbage),
    ("a_killed_process_loses_no_query", killed_process),
    ("several_monitors_start_one_process", one_of_many),
    ("a_killed_monitor_leaves_the_names", killed_monitor),
    ("strangers_are_refused", strangers),
    ("bursts_are_answered", burst),
    ("a_container_may_have_a_name_server", own_server),
    ("ids_do_not_lead_elsewhere", bad_ids),
    ("nothing_is_left_behind", nothing_left),
];

/// Timeout that a passing test never reaches.
const LONG: Duration = Duration::from_secs(10);

fn main() {
    if let Some(role) = std::env::var_os("KILN_TEST_ROLE") {
        return match role.to_str().unwrap() {
            "upstream" => upstream::main(),
            "client" => client_main(),
            "stranger" => stranger_main(),
            _ => monitor_main(),
        };
    }
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: all {} tests of names need root", TESTS.len());
        return;
    }
    if std::env::var_os("KILN_TEST_NETNS").is_none() {
        let again = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
            .args(std::env::args_os())
            .env("KILN_TEST_NETNS", "1")
            .status();
        match again {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(error) => println!("SKIPPED: no network namespace for the tests: {error}"),
        }
        return;
    }
    let filter = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, test) in TESTS {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        print!("test {name} ... ");
        io::stdout().flush().unwrap();
        let bed = Bed::new();
        test(&bed);
        drop(bed);
        println!("ok");
    }
}

/// State directory and servers of a test.
struct Bed {
    dir: tempfile::TempDir,
}

/// A container: its namespace, and its membership.
struct Container {
    namespace: OwnedFd,
    names: Names,
}

impl Bed {
    fn new() -> Bed {
        let bed = Bed { dir: tempfile::tempdir().unwrap() };
        bed.servers(&[CLOSED]);
        bed
    }

    /// Replaces the servers of the host.
    fn servers(&self, servers: &[&str]) {
        let beside = self.dir.path().join("new");
        fs::write(&beside, conf(servers)).unwrap();
        fs::rename(beside, self.conf()).unwrap();
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("resolv.conf")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn join(&self, member: &Member) -> Container {
        let namespace = kiln_network::isolated(&OneThread).unwrap();
        let names = Names::join_with(&self.state(), member, namespace.as_fd(), &self.conf()).unwrap();
        Container { namespace, names }
    }

    fn members(&self) -> Vec<PathBuf> {
        let dir = fs::read_dir(self.state()).unwrap().next().unwrap().unwrap().path().join("dns/members");
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // Each test drops its members: the process ends with the last one.
        let until = Instant::now() + LONG;
        while !processes().is_empty() {
            assert!(Instant::now() < until, "processes are left: {:?}", processes());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Processes that serve names in the namespace of the test.
fn processes() -> Vec<u32> {
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = state.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z"));
        comm == "kiln-dns\n"
            && !is_zombie
            && fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|of| of == own)
    };
    pids.filter(serves).collect()
}

fn member(id: &str, address: &str, names: &[&str]) -> Member {
    let network = Membership {
        network: "net".to_owned(),
        addresses: vec![address.parse().unwrap()],
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    Member { id: id.to_owned(), networks: vec![network], servers: Vec::new(), forwards: true }
}

/// Calls a function in a namespace.
fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Bytes of a query.
fn query(name: &str, rtype: Rtype, id: u16, edns: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((Name::<Vec<u8>>::vec_from_str(name).unwrap(), rtype)).unwrap();
    let mut additional = question.additional();
    if let Some(size) = edns {
        additional
            .opt(|opt| {
                opt.set_udp_payload_size(size);
                Ok(())
            })
            .unwrap();
    }
    additional.finish()
}

/// An answer as text.
fn shown(answer: &[u8]) -> String {
    let message = Message::from_octets(answer).unwrap();
    let mut shown = vec![message.opt_rcode().to_string()];
    shown.extend(message.header().tc().then(|| "TC".to_owned()));
    for record in message.answer().unwrap() {
        let record = record.unwrap().to_record::<AllRecordData<_, _>>().unwrap().unwrap();
        shown.push(record.data().to_string());
    }
    shown.join(" ")
}

/// Clients in the container.
impl Container {
    fn socket(&self) -> UdpSocket {
        let socket = within(self.namespace.as_fd(), || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect(SERVER).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }

    fn stream(&self) -> TcpStream {
        let stream = within(self.namespace.as_fd(), || TcpStream::connect(SERVER).unwrap());
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Looks up the IPv4 addresses of a name.
    fn ask(&self, name: &str) -> String {
        let socket = self.socket();
        socket.send(&query(name, Rtype::A, 7, None)).unwrap();
        receive(&socket, 7)
    }
}

#[track_caller]
fn receive(socket: &UdpSocket, id: u16) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..2], id.to_be_bytes());
    shown(&buffer[..length])
}

fn send_framed(stream: &mut TcpStream, messages: &[Vec<u8>]) {
    let framed: Vec<u8> = messages
        .iter()
        .flat_map(|message| [&(message.len() as u16).to_be_bytes(), message.as_slice()].concat())
        .collect();
    stream.write_all(&framed).unwrap();
}

fn receive_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn neighbours(bed: &Bed) {
    let mut web = bed.join(&member("a1", "10.0.0.2", &["web", "a1"]));
    assert_eq!(web.ask("web"), "NOERROR 10.0.0.2");
    assert_eq!(web.ask("db"), "SERVFAIL");
    let db = bed.join(&member("b2", "10.0.0.3", &["db", "b2"]));
    assert_eq!(web.ask("DB.net"), "NOERROR 10.0.0.3");
    assert_eq!(db.ask("web"), "NOERROR 10.0.0.2");
    web.names.update(&member("a1", "10.0.0.2", &["web", "shop"])).unwrap();
    assert_eq!((db.ask("shop"), db.ask("a1")), ("NOERROR 10.0.0.2".to_owned(), "SERVFAIL".to_owned()));
    assert!(web.names.update(&member("b2", "10.0.0.2", &["web"])).is_err());
    let socket = db.socket();
    socket.send(&query("2.0.0.10.in-addr.arpa", Rtype::PTR, 9, None)).unwrap();
    assert_eq!(receive(&socket, 9), "NOERROR web.net.");
    drop(web);
    assert_eq!(db.ask("web"), "SERVFAIL");
    let mut internal = member("c3", "10.0.0.4", &["internal"]);
    internal.forwards = false;
    let _upstream = Upstream::start("127.0.0.5", "good");
    bed.servers(&["127.0.0.5"]);
    let internal = bed.join(&internal);
    assert_eq!(
        (internal.ask("db"), internal.ask("x.org")),
        ("NOERROR 10.0.0.3".to_owned(), "SERVFAIL".to_owned())
    );
    assert_eq!(db.ask("x.org"), "NOERROR 192.0.2.5");
}

fn one_process(bed: &Bed) {
    let containers: Vec<Container> = (1..=50)
        .map(|number| {
            bed.join(&member(&format!("c{number}"), &format!("10.0.0.{number}"), &[&format!("n{number}")]))
        })
        .collect();
    let processes = processes();
    assert_eq!(processes.len(), 1);
    for container in &containers {
        assert_eq!(container.ask("n50"), "NOERROR 10.0.0.50");
    }
    let proc = PathBuf::from(format!("/proc/{}", processes[0]));
    let memory = fs::read_to_string(proc.join("smaps_rollup")).unwrap();
    let pss = memory.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap().trim();
    print!("{pss} ... ");
    let kilobytes: u32 = pss.split(' ').next().unwrap().parse().unwrap();
    assert!(kilobytes < 3 << 10, "{pss}");
    // It holds nothing of the command that started it.
    let opened: Vec<String> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    let is_own = |target: &String| {
        target.starts_with("socket:")
            || target == "/dev/null"
            || target.ends_with("/dns/lock")
            || target == "anon_inode:[eventpoll]"
    };
    assert!(opened.iter().all(is_own), "{opened:?}");
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let session = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_owned()
    };
    assert_eq!(session(&processes[0].to_string()), processes[0].to_string());
    assert_ne!(session("self"), processes[0].to_string());
}

fn forwarding(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let mut own = member("b", "10.0.0.3", &["own"]);
    own.servers = vec!["127.0.0.6".parse().unwrap()];
    let own = bed.join(&own);
    let _good = [Upstream::start("127.0.0.5", "good"), Upstream::start("127.0.0.6", "good")];
    bed.servers(&["127.0.0.5"]);
    assert_eq!(container.ask("example.org"), "NOERROR 192.0.2.5");
    assert_eq!(own.ask("example.org"), "NOERROR 192.0.2.6");
    assert_eq!(own.ask("web"), "NOERROR 10.0.0.2");
    let socket = container.socket();
    socket.send(&query("edns", Rtype::A, 3, Some(1400))).unwrap();
    assert_eq!(receive(&socket, 3), "NOERROR 192.0.5.120");
    // A port without a listener, and a server that does not know.
    let _refusing = Upstream::start("127.0.0.7", "refusing");
    let started = Instant::now();
    bed.servers(&[CLOSED, "127.0.0.7", "127.0.0.6"]);
    assert_eq!(container.ask("example.org"), "NOERROR 192.0.2.6");
    bed.servers(&["127.0.0.7"]);
    assert_eq!(container.ask("example.org"), "REFUSED 192.0.2.7");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    if UdpSocket::bind("[::1]:0").is_err() {
        println!("SKIPPED: servers of version 6, which this host does not have");
        return;
    }
    let _six = Upstream::start("::1", "good");
    bed.servers(&["::1"]);
    assert_eq!(container.ask("example.org"), "NOERROR 192.0.2.1");
}

fn silent_server(bed: &Bed) {
    let _upstreams = [Upstream::start("127.0.0.5", "silent"), Upstream::start("127.0.0.6", "good")];
    bed.servers(&["127.0.0.5", "127.0.0.6"]);
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let ask = || {
        let started = Instant::now();
        assert_eq!(container.ask("example.org"), "NOERROR 192.0.2.6");
        started.elapsed()
    };
    let (first, second) = (ask(), ask());
    assert!(first > Duration::from_secs(1) && first < Duration::from_secs(4), "{first:?}");
    assert!(second < Duration::from_secs(1), "{second:?}");
}

fn no_server(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let started = Instant::now();
    assert_eq!(container.ask("example.org"), "SERVFAIL");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let _silent = Upstream::start("127.0.0.5", "silent");
    bed.servers(&["127.0.0.5"]);
    // Own names are answered meanwhile.
    let socket = container.socket();
    socket.send(&query("example.org", Rtype::A, 1, None)).unwrap();
    assert_eq!(container.ask("web"), "NOERROR 10.0.0.2");
    assert_eq!(receive(&socket, 1), "SERVFAIL");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    // More queries than may wait fail at once.
    for id in 0..300 {
        socket.send(&query("example.org", Rtype::A, id, None)).unwrap();
    }
    assert_eq!(receive(&socket, 256), "SERVFAIL");
    assert_eq!(container.ask("web"), "NOERROR 10.0.0.2");
}

fn lies(bed: &Bed) {
    let _lying = Upstream::start("127.0.0.5", "lying");
    bed.servers(&["127.0.0.5"]);
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    assert_eq!(container.ask("example.org"), "NOERROR 192.0.2.5");
}

fn streams(bed: &Bed) {
    let _good = Upstream::start("127.0.0.5", "good");
    bed.servers(&[CLOSED, "127.0.0.5"]);
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    assert_eq!(container.ask("many"), "NOERROR TC");
    let mut stream = container.stream();
    send_framed(&mut stream, &[query("many", Rtype::A, 1, None)]);
    let answer = receive_framed(&mut stream).unwrap();
    let text = shown(&answer);
    assert!(answer.len() > 3000 && text.ends_with("192.199.2.5"), "{text}");
    // Many at once, answered by this server and by others.
    let names = |id: u16| if id.is_multiple_of(2) { "web" } else { "example.org" };
    let queries: Vec<Vec<u8>> = (0..100).map(|id| query(names(id), Rtype::A, id, None)).collect();
    send_framed(&mut stream, &queries);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut seen = [false; 100];
    for _ in 0..100 {
        let answer = receive_framed(&mut stream).unwrap();
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        let expected = if id.is_multiple_of(2) { "NOERROR 10.0.0.2" } else { "NOERROR 192.0.2.5" };
        assert_eq!(shown(&answer), expected);
        assert!(!std::mem::replace(&mut seen[usize::from(id)], true));
    }
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

fn limits(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let web = [query("web", Rtype::A, 1, None)];
    let mut streams: Vec<TcpStream> = (0..16).map(|_| container.stream()).collect();
    for stream in &mut streams {
        send_framed(stream, &web);
        assert_eq!(shown(&receive_framed(stream).unwrap()), "NOERROR 10.0.0.2");
    }
    let mut more = container.stream();
    assert_eq!(more.read(&mut [0; 1]).unwrap_or(0), 0);
    // One with a message that is too long is closed, and makes room.
    streams[0].write_all(&[0xff; 100]).unwrap();
    assert_eq!(streams[0].read(&mut [0; 1]).unwrap_or(0), 0);
    let mut again = container.stream();
    send_framed(&mut again, &web);
    assert_eq!(shown(&receive_framed(&mut again).unwrap()), "NOERROR 10.0.0.2");
    // An idle one is closed.
    let started = Instant::now();
    streams[1].set_read_timeout(Some(2 * LONG)).unwrap();
    assert_eq!(streams[1].read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(started.elapsed() > Duration::from_secs(8), "{:?}", started.elapsed());
}

fn garbage(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let (socket, before) = (container.socket(), processes());
    let mut state = 1u32;
    for length in 0..2000 {
        let mut bytes: Vec<u8> = (0..length % 1500)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        // Half of them are queries with one question.
        if length % 2 == 0 && bytes.len() > 12 {
            bytes[2..6].copy_from_slice(&[1, 0, 0, 1]);
        }
        let _ = socket.send(&bytes);
    }
    let mut stream = container.stream();
    let _ = stream.write_all(&[0, 3, 1, 2, 3, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(receive_framed(&mut stream).unwrap().len(), 12);
    assert_eq!(container.ask("web"), "NOERROR 10.0.0.2");
    assert_eq!(processes(), before);
}

/// Waits for the end of the process, which the monitor sees.
fn wait_watched(names: &Names) {
    let time = Timespec { tv_sec: 10, tv_nsec: 0 };
    let watched = names.watched();
    assert_eq!(poll(&mut [PollFd::from_borrowed_fd(watched, PollFlags::IN)], Some(&time)).unwrap(), 1);
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Asks for a name again and again until its input is closed; prints a line after some queries, and at last how many
/// there were, and how many had no answer within 5 seconds.
fn client_main() {
    let path = std::env::args().nth(1).unwrap();
    let namespace = fs::File::open(path).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(SERVER).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut asked, mut lost, mut buffer) = (0u64, 0, [0; 512]);
    let stdin = io::stdin();
    let time = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&time)).unwrap() == 0 {
        if asked.is_multiple_of(200) {
            println!("on");
        }
        asked += 1;
        let id = asked as u16;
        socket.send(&query("web", Rtype::A, id, None)).unwrap();
        loop {
            match socket.recv(&mut buffer) {
                // The answer to the one before may come twice.
                Ok(_) if buffer[..2] == id.wrapping_sub(1).to_be_bytes() => continue,
                Ok(length) => assert_eq!(shown(&buffer[..length]), "NOERROR 10.0.0.2"),
                Err(_) => lost += 1,
            }
            break;
        }
    }
    println!("{asked} {lost}");
}

fn killed_process(bed: &Bed) {
    let mut container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let other = bed.join(&member("b", "10.0.0.3", &["other"]));
    let pid = processes()[0];
    kill(pid);
    wait_watched(&container.names);
    // Queries of the time without a process wait.
    let socket = container.socket();
    for id in 0..200 {
        socket.send(&query("web", Rtype::A, id, None)).unwrap();
    }
    let stream = other.socket();
    stream.send(&query("web", Rtype::A, 5, None)).unwrap();
    container.names.revive().unwrap();
    for id in 0..200 {
        assert_eq!(receive(&socket, id), "NOERROR 10.0.0.2");
    }
    // The name of a member that has not come back is known from its file.
    assert_eq!(container.ask("other"), "NOERROR 10.0.0.3");
    let Container { namespace, mut names } = other;
    wait_watched(&names);
    names.revive().unwrap();
    assert_eq!(receive(&stream, 5), "NOERROR 10.0.0.2");
    assert_eq!(processes().len(), 1);
    drop((namespace, names));
    // Under load, several times.
    let path = format!("/proc/{}/fd/{}", std::process::id(), container.namespace.as_raw_fd());
    let mut client = Command::new(std::env::current_exe().unwrap())
        .env("KILN_TEST_ROLE", "client")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    for _ in 0..3 {
        assert_eq!(lines.next().unwrap(), "on");
        let killed = processes()[0];
        kill(killed);
        // It was started a moment ago, so the next one is started after a pause: first a timer is watched.
        while processes().iter().all(|pid| *pid == killed) {
            wait_watched(&container.names);
            container.names.revive().unwrap();
        }
        assert_eq!(container.ask("web"), "NOERROR 10.0.0.2");
    }
    drop(client.stdin.take());
    let last = lines.find(|line| line != "on").unwrap();
    assert!(client.wait().unwrap().success());
    let (asked, lost) = last.split_once(' ').unwrap();
    print!("{asked} queries, {lost} lost in 3 kills ... ");
    assert_eq!(lost, "0");
}

/// A monitor: joins with a member, and with a process that uses the names; restores them until its input is closed.
fn monitor_main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [state, conf, id, address, user] = arguments.as_slice() else { panic!("{arguments:?}") };
    let namespace = kiln_network::isolated(&OneThread).unwrap();
    let member = member(id, address, &[&format!("n{id}")]);
    let mut names = Names::join_with(Path::new(state), &member, namespace.as_fd(), Path::new(conf)).unwrap();
    if let Ok(pid) = user.parse() {
        let ticks = kiln_runtime::cgroup::Groups::start_time(pid).unwrap();
        names.note_user(pid, &ticks).unwrap();
    }
    println!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let stdin = io::stdin();
    loop {
        let mut polled =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(names.watched(), PollFlags::IN)];
        poll(&mut polled, None).unwrap();
        let [has_ended, is_lost] = polled.map(|fd| !fd.revents().is_empty());
        if has_ended {
            return;
        }
        if is_lost {
            names.revive().unwrap();
        }
    }
}

/// A monitor in a separate process, and its container's namespace.
struct Monitor {
    child: Child,
    namespace: OwnedFd,
}

impl Monitor {
    fn spawn(bed: &Bed, id: &str, address: &str, user: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .env("KILN_TEST_ROLE", "monitor")
            .arg(bed.state())
            .arg(bed.conf())
            .args([id, address, user])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until it has joined.
    fn joined(mut child: Child) -> Monitor {
        let mut path = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut path).unwrap();
        let namespace = fs::File::open(path.trim()).unwrap().into();
        Monitor { child, namespace }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn ask(&self, name: &str) -> String {
        let socket = within(self.namespace.as_fd(), || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect(SERVER).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.send(&query(name, Rtype::A, 7, None)).unwrap();
        receive(&socket, 7)
    }
}

fn one_of_many(bed: &Bed) {
    // All begin at once, without a process.
    let started: Vec<Child> = (2..14)
        .map(|number| Monitor::spawn(bed, &number.to_string(), &format!("10.0.0.{number}"), ""))
        .collect();
    let monitors: Vec<Monitor> = started.into_iter().map(Monitor::joined).collect();
    let check = || {
        for monitor in &monitors {
            assert_eq!(monitor.ask("n2"), "NOERROR 10.0.0.2");
            assert_eq!(monitor.ask("n13"), "NOERROR 10.0.0.13");
        }
        assert_eq!(processes().len(), 1);
    };
    check();
    // All see the end at once.
    kill(processes()[0]);
    check();
    monitors.into_iter().for_each(Monitor::end);
}

fn killed_monitor(bed: &Bed) {
    let mut program = Command::new("sleep").arg("1000").spawn().unwrap();
    let other = bed.join(&member("b", "10.0.0.3", &["other"]));
    let mut monitor = Monitor::joined(Monitor::spawn(bed, "a", "10.0.0.2", &program.id().to_string()));
    monitor.child.kill().unwrap();
    monitor.child.wait().unwrap();
    assert_eq!(
        (monitor.ask("other"), other.ask("na")),
        ("NOERROR 10.0.0.3".to_owned(), "NOERROR 10.0.0.2".to_owned())
    );
    // The next monitor takes the sockets, and has them when the process is killed.
    let taken = member("a", "10.0.0.2", &["taken"]);
    let mut names = Names::join_with(&bed.state(), &taken, monitor.namespace.as_fd(), &bed.conf()).unwrap();
    let ticks = kiln_runtime::cgroup::Groups::start_time(program.id() as i32).unwrap();
    names.note_user(program.id() as i32, &ticks).unwrap();
    assert_eq!(monitor.ask("taken"), "NOERROR 10.0.0.2");
    let Container { names: mut of_other, namespace } = other;
    kill(processes()[0]);
    wait_watched(&names);
    names.revive().unwrap();
    of_other.revive().unwrap();
    assert_eq!(monitor.ask("other"), "NOERROR 10.0.0.3");
    drop((of_other, namespace));
    // When both are killed, the next monitor makes new sockets in the same namespace.
    drop(names);
    let mut both = Monitor::joined(Monitor::spawn(bed, "a", "10.0.0.2", &program.id().to_string()));
    both.child.kill().unwrap();
    both.child.wait().unwrap();
    kill(processes()[0]);
    while !processes().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let names = Names::join_with(&bed.state(), &taken, both.namespace.as_fd(), &bed.conf()).unwrap();
    assert_eq!(both.ask("taken"), "NOERROR 10.0.0.2");
    // It ends with its program when its monitor is killed.
    drop(names);
    let mut monitor = Monitor::joined(Monitor::spawn(bed, "a", "10.0.0.2", &program.id().to_string()));
    monitor.child.kill().unwrap();
    monitor.child.wait().unwrap();
    assert_eq!(monitor.ask("na"), "NOERROR 10.0.0.2");
    program.kill().unwrap();
    program.wait().unwrap();
    let until = Instant::now() + LONG;
    while !processes().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(bed.members().is_empty());
}

/// Another user: connects, and reads the end.
fn stranger_main() {
    let path = std::env::args().nth(1).unwrap();
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::SEQPACKET, None)
            .unwrap();
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
    let _ = rustix::net::send(&socket, br#""Update""#, rustix::net::SendFlags::NOSIGNAL);
    let read = rustix::net::recv(&socket, &mut [0u8; 64][..], rustix::net::RecvFlags::empty());
    assert!(!matches!(read, Ok((1.., _))), "{read:?}");
}

fn strangers(bed: &Bed) {
    use std::os::unix::fs::PermissionsExt;
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let network = fs::read_dir(bed.state()).unwrap().next().unwrap().unwrap().path();
    let dir = network.join("dns");
    for dir in [bed.dir.path(), &bed.state(), &network, &dir] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(dir.join("socket"), fs::Permissions::from_mode(0o777)).unwrap();
    let program = bed.dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for (uid, is_let_in) in [(65_534, false), (0, true)] {
        let output = Command::new(&program)
            .env("KILN_TEST_ROLE", "stranger")
            .arg(dir.join("socket"))
            .uid(uid)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), !is_let_in, "{}", String::from_utf8_lossy(&output.stderr));
    }
    drop(container);
}

fn burst(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let socket = container.socket();
    let mut times = Vec::new();
    let started = Instant::now();
    // At most 50 are on their way: no client has more.
    for round in 0..200u16 {
        let sent = Instant::now();
        for number in 0..50 {
            socket.send(&query("web", Rtype::A, round * 50 + number, None)).unwrap();
        }
        for number in 0..50 {
            assert_eq!(receive(&socket, round * 50 + number), "NOERROR 10.0.0.2");
        }
        times.push(sent.elapsed());
    }
    let rate = 10_000.0 / started.elapsed().as_secs_f64();
    print!("{rate:.0} a second ... ");
    assert!(rate > 5_000.0);
}

fn own_server(bed: &Bed) {
    let container = bed.join(&member("a", "10.0.0.2", &["web"]));
    let (datagrams, streams) = within(container.namespace.as_fd(), || {
        (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap())
    });
    assert_eq!(container.ask("web"), "NOERROR 10.0.0.2");
    let client = within(container.namespace.as_fd(), || UdpSocket::bind("127.0.0.1:0").unwrap());
    client.send_to(b"own", "127.0.0.1:53").unwrap();
    let mut buffer = [0; 16];
    datagrams.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(datagrams.recv(&mut buffer).unwrap(), 3);
    let mut stream = container.stream();
    send_framed(&mut stream, &[query("web", Rtype::A, 1, None)]);
    assert_eq!(shown(&receive_framed(&mut stream).unwrap()), "NOERROR 10.0.0.2");
    let _own = within(container.namespace.as_fd(), || TcpStream::connect("127.0.0.1:53").unwrap());
    streams.accept().unwrap();
}

fn bad_ids(bed: &Bed) {
    let namespace = kiln_network::isolated(&OneThread).unwrap();
    for id in ["../a", "", ".a", "a/b"] {
        let error =
            Names::join(&bed.state(), &member(id, "10.0.0.2", &["web"]), namespace.as_fd()).unwrap_err();
        assert_eq!(error.to_string(), format!("`{id}` cannot be the id of a container"));
    }
}

fn nothing_left(bed: &Bed) {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let first = bed.join(&member("first", "10.0.0.2", &["first"]));
    let of_process = || fs::read_dir(format!("/proc/{}/fd", processes()[0])).unwrap().count();
    let (own, theirs) = (descriptors(), of_process());
    for number in 0..20 {
        let container = bed.join(&member(&format!("c{number}"), "10.0.0.3", &["second"]));
        assert_eq!(container.ask("first"), "NOERROR 10.0.0.2");
        assert_eq!(container.ask("second"), "NOERROR 10.0.0.3");
        let mut stream = container.stream();
        send_framed(&mut stream, &[query("example.org", Rtype::A, 1, None)]);
        assert_eq!(shown(&receive_framed(&mut stream).unwrap()), "SERVFAIL");
        drop(container);
        // All sockets in the namespace are closed before the end of the membership.
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    assert_eq!(bed.members().len(), 1);
    assert_eq!(descriptors(), own);
    // Its own ends of closed connections may be there for a moment.
    let until = Instant::now() + LONG;
    while of_process() != theirs {
        assert!(Instant::now() < until, "{} {theirs}", of_process());
    }
    drop(first);
    // The process is no child of the one that started it, which could not wait for it.
    let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    assert_eq!(waitid(WaitId::All, flags).err(), Some(Errno::CHILD));
}
