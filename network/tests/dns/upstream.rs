//! A name server that stands for those of the host, in a process: the one that joins must have one thread.

use super::LONG;
use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Ttl};
use domain::rdata::A;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

/// A server on port 53 of an address, which is killed when this is dropped.
pub(super) struct Upstream(Child);

impl Upstream {
    /// `kind` is `good`, `silent`, `refusing`, or `lying`: the answer is preceded by wrong ones.
    pub(super) fn start(address: &str, kind: &str) -> Upstream {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("KILN_TEST_ROLE", "upstream")
            .args([address, kind])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{address} {kind}");
        Upstream(child)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Serves until it is killed. The answer is an address with the last byte of the server's own; the name `many` has 200,
/// which are too many for a datagram.
pub(super) fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, kind) = (arguments[0].parse::<IpAddr>().unwrap(), arguments[1].clone());
    let datagrams = UdpSocket::bind((address, 53)).unwrap();
    let streams = TcpListener::bind((address, 53)).unwrap();
    println!("ready");
    let of_streams = kind.clone();
    std::thread::spawn(move || {
        for stream in streams.incoming() {
            serve_stream(stream.unwrap(), address, &of_streams);
        }
    });
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = datagrams.recv_from(&mut buffer).unwrap();
        for answer in answers(&buffer[..length], address, &kind, false) {
            datagrams.send_to(&answer, client).unwrap();
        }
    }
}

fn serve_stream(mut stream: TcpStream, address: IpAddr, kind: &str) {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        for answer in answers(&query, address, kind, true) {
            // In pieces, as they come from afar.
            let framed = [&(answer.len() as u16).to_be_bytes(), answer.as_slice()].concat();
            for piece in framed.chunks(1000) {
                let _ = stream.write_all(piece);
            }
        }
    }
}

fn answers(query: &[u8], address: IpAddr, kind: &str, is_stream: bool) -> Vec<Vec<u8>> {
    let good =
        answer(query, address, if kind == "refusing" { Rcode::REFUSED } else { Rcode::NOERROR }, is_stream);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    match kind {
        "silent" => Vec::new(),
        "lying" => vec![
            vec![0; 3],
            with(&|bytes| bytes[0] ^= 1),
            with(&|bytes| bytes[2] &= 0x7f),
            with(&|bytes| bytes[13] ^= 1),
            good,
        ],
        _ => vec![good],
    }
}

fn answer(query: &[u8], address: IpAddr, rcode: Rcode, is_stream: bool) -> Vec<u8> {
    let query = Message::from_octets(query).unwrap();
    let question = query.sole_question().unwrap();
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    let name = question.qname().to_string();
    let count = if name == "many" { 200 } else { 1 };
    let mut answers = MessageBuilder::new_vec().start_answer(&query, rcode).unwrap();
    answers.header_mut().set_ra(true);
    if !is_stream && count > 1 {
        answers.header_mut().set_tc(true);
        return answers.finish();
    }
    // The size of EDNS as it arrives, as an address.
    let edns = query.opt().filter(|_| name == "edns").map(|opt| opt.udp_payload_size().to_be_bytes());
    for number in 0..count {
        let [high, low] = edns.unwrap_or([2, last]);
        let record = A::new(Ipv4Addr::new(192, number, high, low));
        answers.push((question.qname(), Class::IN, Ttl::from_secs(600), record)).unwrap();
    }
    answers.finish()
}

/// Address of a server, for `resolv.conf`.
pub(super) fn conf(servers: &[&str]) -> String {
    servers.iter().map(|server| format!("nameserver {server}\n")).collect()
}

/// An address without a server, which refuses at once.
pub(super) const CLOSED: &str = "127.0.0.99";

/// The name server of a container.
pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
