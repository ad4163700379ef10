//! A query that other servers answer: they are asked one after the other, and each answer is passed on as it is.

use super::super::upstream::Upstreams;
use super::super::zone::{self, Transport};
use super::Sender;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::rand::GetRandomFlags;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time after which the next server is asked. Answers of earlier ones still count.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// The same for a stream, whose first packets may be lost.
const STREAM_ATTEMPT: Duration = Duration::from_secs(3);
/// Time after which no server is asked any more: clients ask again after 5 seconds, mostly.
const END: Duration = Duration::from_secs(6);
/// Number of times that a server is asked by datagrams, which may be lost.
const ROUNDS: usize = 2;
/// Most datagrams of a server that are looked at in a turn: others than the answer do not come from the server.
const AT_ONCE: usize = 16;
/// Longest message of a stream with its length in front.
const LONGEST: usize = 2 + 65_535;

/// Result of a step.
pub(super) enum Step {
    /// The query waits for events, or for its deadline.
    Wait,
    /// This is the answer, the query is over.
    Answer(Vec<u8>),
}

/// A query on its way.
pub(super) struct Query {
    pub(super) served: u64,
    pub(super) sender: Sender,
    /// Time of the next step without an event.
    pub(super) deadline: Instant,
    /// The client's message, with an id of our own.
    message: Vec<u8>,
    id: u16,
    client_id: [u8; 2],
    /// Longest answer that the client takes.
    limit: usize,
    transport: Transport,
    /// Servers that are still to be asked.
    plan: VecDeque<SocketAddr>,
    attempts: Vec<Attempt>,
    /// Answer of a server that does not know; another one may.
    refused: Option<Vec<u8>>,
    end: Instant,
}

/// A server that was asked.
struct Attempt {
    server: SocketAddr,
    socket: OwnedFd,
    asked: Instant,
    /// State of a stream; `None` for datagrams.
    stream: Option<Stream>,
}

#[derive(Default)]
struct Stream {
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
}

enum Progress {
    Nothing,
    Answer(Vec<u8>),
    Failed,
}

impl Query {
    pub(super) fn new(
        served: u64,
        sender: Sender,
        mut message: Vec<u8>,
        limit: usize,
        transport: Transport,
        servers: Vec<SocketAddr>,
        now: Instant,
    ) -> Query {
        let client_id = [message[0], message[1]];
        let mut id = [0; 2];
        // The kernel's generator is ready long before containers run.
        let _ = rustix::rand::getrandom(&mut id, GetRandomFlags::empty());
        message[..2].copy_from_slice(&id);
        let rounds = if transport == Transport::Datagram { ROUNDS } else { 1 };
        Query {
            served,
            sender,
            deadline: now,
            message,
            id: u16::from_be_bytes(id),
            client_id,
            limit,
            transport,
            plan: std::iter::repeat_n(servers, rounds).flatten().collect(),
            attempts: Vec::new(),
            refused: None,
            end: now + END,
        }
    }

    /// Notes that the last server has not answered in time.
    pub(super) fn give_up(&self, upstreams: &mut Upstreams, now: Instant) {
        if let Some(attempt) = self.attempts.last() {
            upstreams.is_silent(attempt.server, attempt.asked, now);
        }
    }

    /// Reads answers that are there; asks the next server when the last one failed or its time is over.
    pub(super) fn step(
        &mut self,
        epoll: &OwnedFd,
        token: u64,
        upstreams: &mut Upstreams,
        buffer: &mut [u8],
        now: Instant,
    ) -> Step {
        let mut is_over = self.attempts.is_empty() || now >= self.deadline;
        let mut number = 0;
        while let Some(attempt) = self.attempts.get_mut(number) {
            let server = attempt.server;
            match attempt.progress(buffer, self.id, &self.message) {
                Progress::Nothing => {
                    number += 1;
                    continue;
                }
                Progress::Answer(answer) => {
                    upstreams.has_answered(server, now);
                    if !zone::is_refusal(&answer) {
                        return self.finish(answer);
                    }
                    self.refused.get_or_insert(answer);
                }
                Progress::Failed => upstreams.is_silent(server, attempt.asked, now),
            }
            is_over |= number + 1 == self.attempts.len();
            self.attempts.remove(number);
            self.plan.retain(|other| *other != server);
        }
        if !is_over || self.ask_next(epoll, token, upstreams, now) {
            return Step::Wait;
        }
        // Servers that were asked earlier may answer until the time of the last one is over.
        if !self.attempts.is_empty() && now < self.deadline {
            return Step::Wait;
        }
        let answer = self.refused.take().unwrap_or_else(|| zone::failure(&self.message));
        self.finish(answer)
    }

    /// Asks the next server; returns false when there is none.
    fn ask_next(&mut self, epoll: &OwnedFd, token: u64, upstreams: &mut Upstreams, now: Instant) -> bool {
        if now >= self.end {
            return false;
        }
        while let Some(server) = self.plan.pop_front() {
            match Attempt::begin(server, &self.message, self.transport, now) {
                Ok(attempt) => {
                    let is_stream = attempt.stream.is_some();
                    let flags = if is_stream {
                        EventFlags::IN | EventFlags::OUT | EventFlags::ET
                    } else {
                        EventFlags::IN
                    };
                    if epoll::add(epoll, &attempt.socket, EventData::new_u64(token), flags).is_ok() {
                        self.attempts.push(attempt);
                        self.deadline = now + if is_stream { STREAM_ATTEMPT } else { ATTEMPT };
                        return true;
                    }
                }
                Err(_) => {
                    upstreams.is_silent(server, now, now);
                    self.plan.retain(|other| *other != server);
                }
            }
        }
        false
    }

    /// The answer as the client takes it.
    fn finish(&self, answer: Vec<u8>) -> Step {
        let is_short = self.transport == Transport::Stream || answer.len() <= self.limit;
        let mut answer = if is_short { answer } else { zone::truncated(&self.message, &answer) };
        if let Some(id) = answer.get_mut(..2) {
            id.copy_from_slice(&self.client_id);
        }
        Step::Answer(answer)
    }
}

impl Attempt {
    /// Sends the query, or begins to connect. Each query has a new socket, so its port is another one each time, and
    /// the kernel reports a port on which no program listens.
    fn begin(
        server: SocketAddr,
        message: &[u8],
        transport: Transport,
        asked: Instant,
    ) -> Result<Attempt, Errno> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = match transport {
            Transport::Datagram => SocketType::DGRAM,
            Transport::Stream => SocketType::STREAM,
        };
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let stream = match transport {
            Transport::Datagram => {
                rustix::net::send(&socket, message, SendFlags::NOSIGNAL)?;
                None
            }
            Transport::Stream => {
                let length = (message.len() as u16).to_be_bytes();
                Some(Stream { output: [&length, message].concat(), ..Stream::default() })
            }
        };
        Ok(Attempt { server, socket, asked, stream })
    }

    fn progress(&mut self, buffer: &mut [u8], id: u16, query: &[u8]) -> Progress {
        let Some(stream) = &mut self.stream else {
            return read_datagrams(&self.socket, buffer, id, query);
        };
        match stream.exchange(&self.socket, buffer) {
            Ok(Some(answer)) if zone::is_answer(&answer, id, query) => Progress::Answer(answer),
            Ok(None) | Err(Errno::AGAIN) => Progress::Nothing,
            Ok(Some(_)) | Err(_) => Progress::Failed,
        }
    }
}

fn read_datagrams(socket: &OwnedFd, buffer: &mut [u8], id: u16, query: &[u8]) -> Progress {
    for _ in 0..AT_ONCE {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) if zone::is_answer(&buffer[..length], id, query) => {
                return Progress::Answer(buffer[..length].to_vec());
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Progress::Nothing,
            Err(_) => return Progress::Failed,
        }
    }
    Progress::Nothing
}

impl Stream {
    /// Writes the query and reads the answer, as far as possible without blocking.
    fn exchange(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<Vec<u8>>, Errno> {
        while self.sent < self.output.len() {
            self.sent += rustix::net::send(socket, &self.output[self.sent..], SendFlags::NOSIGNAL)?;
        }
        loop {
            let (length, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
            if length == 0 || self.input.len() + length > LONGEST {
                return Err(Errno::CONNRESET);
            }
            self.input.extend_from_slice(&buffer[..length]);
            if let Some((length, rest)) = self.input.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                if rest.len() >= length {
                    return Ok(Some(rest[..length].to_vec()));
                }
            }
        }
    }
}
