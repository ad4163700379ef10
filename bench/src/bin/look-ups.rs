//! Names in networks of users: time of joining, time of an answer, answers a second, memory of the process.
//!
//! `cargo run --release -p kiln-bench --bin look-ups [CONTAINERS]`, as root. The containers are network namespaces
//! without programs; the client is in the last one, and asks for the name of the first.
#![allow(clippy::print_stdout, reason = "the result is the output")]

use domain::base::iana::Rtype;
use domain::base::{MessageBuilder, Name};
use kiln_bench::{Outcome, samples::Samples};
use kiln_network::dns::{Member, Membership, Names};
use kiln_runtime::OneThread;
use rustix::fd::{AsFd, OwnedFd};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Number of look-ups, one after the other.
const ROUNDS: u16 = 20_000;
/// Look-ups of the steady load: a second, and number of seconds.
const LOAD: (u32, u32) = (5_000, 4);

fn main() -> Outcome<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100);
    let state = tempfile::tempdir()?;
    let mut joins = Samples::default();
    let mut containers: Vec<(OwnedFd, Names)> = Vec::new();
    let mut first = 0.0;
    for number in 0..count {
        let namespace = kiln_network::isolated(&OneThread)?;
        let started = Instant::now();
        let names = Names::join(state.path(), &member(number), namespace.as_fd())?;
        let took = milliseconds(started);
        if number == 0 {
            first = took;
        } else {
            joins.push(took);
        }
        containers.push((namespace, names));
    }
    let Some((namespace, names)) = containers.last() else { return Err("needs a container".into()) };
    println!("{:<42} {first:>8.3} ms", "first container joins, starts the process");
    if count > 1 {
        println!("{:<42} {:>8.3} ms median, {:.3} p90", "next one joins", joins.median(), joins.p90());
    }
    let client = client(namespace)?;
    one_by_one(&client)?;
    steady(&client)?;
    let pid = rustix::net::sockopt::socket_peercred(names.watched())?.pid;
    println!(
        "{:<42} {:>8} kB",
        format!("memory of the process (PSS), {count} containers"),
        pss(pid.as_raw_pid())?
    );
    let started = Instant::now();
    drop(containers);
    println!("{:<42} {:>8.3} ms each", "leaving", milliseconds(started) / f64::from(count));
    Ok(())
}

fn member(number: u32) -> Member {
    let [_, _, high, low] = number.to_be_bytes();
    let network = Membership {
        network: "net".to_owned(),
        addresses: vec![[10, 89, high, low].into()],
        names: vec![format!("container{number}"), format!("{number:012x}"), "alias".to_owned()],
    };
    Member { id: number.to_string(), networks: vec![network], servers: Vec::new(), forwards: true }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Socket in a namespace that is connected with the name server.
fn client(namespace: &OwnedFd) -> Outcome<UdpSocket> {
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            UdpSocket::bind("127.0.0.1:0")
        });
        thread.join().map_err(|_| "the thread has panicked")
    });
    let socket = made??;
    socket.connect("127.0.0.11:53")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

fn query(id: u16) -> Outcome<Vec<u8>> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question
        .push((Name::<Vec<u8>>::vec_from_str("container0")?, Rtype::A))
        .map_err(|error| error.to_string())?;
    Ok(question.finish())
}

fn one_by_one(client: &UdpSocket) -> Outcome<()> {
    let mut times = Samples::default();
    let mut buffer = [0; 512];
    let started = Instant::now();
    for id in 0..ROUNDS {
        let query = query(id)?;
        let sent = Instant::now();
        client.send(&query)?;
        let length = client.recv(&mut buffer)?;
        times.push(milliseconds(sent));
        if buffer[..2] != id.to_be_bytes() || !buffer[..length].ends_with(&[10, 89, 0, 0]) {
            return Err("a wrong answer".into());
        }
    }
    let rate = f64::from(ROUNDS) / started.elapsed().as_secs_f64();
    println!(
        "{:<42} {:>8.3} ms median, {:.3} p90, {rate:.0} a second",
        "look-up, one by one",
        times.median(),
        times.p90()
    );
    Ok(())
}

/// Sends at a steady rate, and counts the answers.
fn steady(client: &UdpSocket) -> Outcome<()> {
    let total = LOAD.0 * LOAD.1;
    let interval = Duration::from_secs(1) / LOAD.0;
    client.set_nonblocking(true)?;
    let (mut answered, mut buffer) = (0, [0; 512]);
    let mut receive = |answered: &mut u32| loop {
        match client.recv(&mut buffer) {
            Ok(_) => *answered += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    };
    let started = Instant::now();
    for number in 0..total {
        while started.elapsed() < interval * number {
            receive(&mut answered)?;
            std::thread::sleep(Duration::from_micros(50));
        }
        client.send(&query(number as u16)?)?;
    }
    let sent = started.elapsed();
    while answered < total && started.elapsed() < sent + Duration::from_secs(2) {
        receive(&mut answered)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    let rate = f64::from(total) / sent.as_secs_f64();
    println!("{:<42} {:>8} lost of {total}", format!("{rate:.0} look-ups a second"), total - answered);
    Ok(())
}

/// Memory of a process in kilobytes, shared pages in parts.
fn pss(pid: i32) -> Outcome<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no PSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
