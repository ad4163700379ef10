//! Loop of the process: one thread, one epoll, one list of timers.

mod client;
mod monitors;
mod query;

use super::super::{NetworkError, file};
use super::member::{Files, Stored};
use super::sockets::Sockets;
use super::upstream::Upstreams;
use super::zone::{self, Transport, Verdict, Zone};
use client::Client;
use query::{Query, Step};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest query in bytes: a header, a question, and options of EDNS with their padding.
const QUERY_LIMIT: usize = 1232;
/// Most datagrams that one container is served in a turn, so that others get theirs.
const AT_ONCE: usize = 64;
/// Most queries of one container, and of all, that wait for other servers.
const WAITING: (usize, usize) = (256, 1024);
/// Most streams of one container, and of all.
const STREAMS: (usize, usize) = (16, 128);
/// Time for which the process waits for its first member.
const GRACE: Duration = Duration::from_secs(5);
/// Pause when the host or the process has no descriptor or memory for a stream.
const EXHAUSTED: Duration = Duration::from_millis(5);
/// Token of the socket for monitors.
const MONITORS: u64 = 0;

/// State of the process.
pub(super) struct Server {
    epoll: OwnedFd,
    listener: OwnedFd,
    files: Files,
    /// All members, also those whose monitors have not passed their sockets yet.
    stored: BTreeMap<String, Stored>,
    zone: Zone,
    upstreams: Upstreams,
    served: HashMap<u64, Served>,
    sources: HashMap<u64, Source>,
    timers: BTreeSet<(Instant, u64)>,
    last_token: u64,
    monitors: usize,
    /// Queries that wait for other servers, and streams.
    waiting: usize,
    streams: usize,
    /// Counter of answers, by which addresses are rotated.
    turn: usize,
    /// Streams with new answers.
    answered: Vec<u64>,
    buffer: Vec<u8>,
}

/// A container whose sockets this process has.
struct Served {
    id: String,
    sockets: Sockets,
    /// Its monitor; `None` after that was killed.
    monitor: Option<u64>,
    waiting: usize,
    streams: usize,
}

/// Source of events of the loop.
enum Source {
    Monitor {
        socket: OwnedFd,
        served: Option<u64>,
    },
    Datagrams {
        served: u64,
    },
    Streams {
        served: u64,
    },
    /// Program of a container without a monitor, as a pidfd.
    Program {
        served: u64,
        _pidfd: OwnedFd,
    },
    Client(Box<Client>),
    Query(Box<Query>),
}

/// Sender of a query.
#[derive(Clone, Copy)]
enum Sender {
    Datagram(SocketAddr),
    Stream(u64),
}

impl Server {
    pub(super) fn new(dir: &Path, conf: &Path, listener: OwnedFd) -> Result<Server, NetworkError> {
        let failed = |errno: Errno| file("watch", dir)(errno.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        epoll::add(&epoll, &listener, EventData::new_u64(MONITORS), EventFlags::IN).map_err(failed)?;
        let files = Files::open(dir)?;
        let stored = files.all().into_iter().map(|stored| (stored.member.id.clone(), stored)).collect();
        let mut server = Server {
            epoll,
            listener,
            files,
            stored,
            zone: Zone::default(),
            upstreams: Upstreams::new(conf),
            served: HashMap::new(),
            sources: HashMap::new(),
            timers: BTreeSet::new(),
            last_token: MONITORS,
            monitors: 0,
            waiting: 0,
            streams: 0,
            turn: 0,
            answered: Vec::new(),
            buffer: vec![0; 1 << 16],
        };
        server.renew_zone();
        Ok(server)
    }

    /// Serves until the last member has left.
    pub(super) fn run(mut self) {
        let grace = Instant::now() + GRACE;
        let mut had_members = false;
        let mut events = Vec::with_capacity(64);
        loop {
            let is_empty = self.served.is_empty() && self.monitors == 0;
            had_members |= !self.served.is_empty();
            if is_empty && (had_members || Instant::now() > grace) {
                return;
            }
            let first_timer = self.timers.first().map(|(time, _)| *time);
            let until = [first_timer, is_empty.then_some(grace)].into_iter().flatten().min();
            let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                match event.data.u64() {
                    MONITORS => self.accept_monitor(),
                    token => self.handle(token, event.flags),
                }
            }
            self.end_timers();
            self.serve_answered();
        }
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Watches a descriptor. Its source is added by the caller.
    fn watch(&self, fd: impl AsFd, token: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)
    }

    fn handle(&mut self, token: u64, flags: EventFlags) {
        // Events of a source that was removed in this turn are ignored.
        let Some(source) = self.sources.remove(&token) else { return };
        match source {
            Source::Monitor { socket, served } => self.obey(token, socket, served),
            Source::Datagrams { served } => {
                self.sources.insert(token, source);
                self.read_datagrams(served);
            }
            Source::Streams { served } => {
                self.sources.insert(token, source);
                self.accept_stream(served);
            }
            Source::Program { served, .. } => self.remove(served),
            Source::Client(client) => self.serve_client(token, client, flags),
            Source::Query(query) => self.go_on(token, query),
        }
    }

    /// Handles the sources whose time has come.
    fn end_timers(&mut self) {
        let now = Instant::now();
        while let Some((time, token)) = self.timers.first().copied().filter(|(time, _)| *time <= now) {
            self.timers.remove(&(time, token));
            match self.sources.remove(&token) {
                Some(Source::Query(query)) => {
                    query.give_up(&mut self.upstreams, now);
                    self.go_on(token, query);
                }
                Some(Source::Client(client)) => self.close(&client),
                Some(other) => drop(self.sources.insert(token, other)),
                None => {}
            }
        }
    }
}

/// Queries and their answers.
impl Server {
    fn read_datagrams(&mut self, served: u64) {
        for _ in 0..AT_ONCE {
            let Some(of) = self.served.get(&served) else { return };
            let socket = &of.sockets.datagrams;
            let looked = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let (length, sender) = match rustix::net::recvfrom(socket, self.buffer.as_mut_slice(), looked) {
                Ok((length, _, sender)) => (length, sender),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            if let Some(Ok(sender)) = sender.map(SocketAddr::try_from)
                && length <= QUERY_LIMIT
            {
                let query = self.buffer[..length].to_vec();
                self.decide(served, Sender::Datagram(sender), query);
            }
            // Removed after the answer: when this process is killed before, the next one finds the query, and at worst
            // there are two answers.
            if let Some(of) = self.served.get(&served) {
                let _ = rustix::net::recv(&of.sockets.datagrams, &mut [0u8; 0][..], RecvFlags::DONTWAIT);
            }
        }
    }

    /// Answers a query, or begins to forward it.
    fn decide(&mut self, served: u64, sender: Sender, query: Vec<u8>) {
        let Some(of) = self.served.get(&served) else { return };
        let Some(stored) = self.stored.get(&of.id) else { return };
        let transport = match sender {
            Sender::Datagram(_) => Transport::Datagram,
            Sender::Stream(_) => Transport::Stream,
        };
        self.turn = self.turn.wrapping_add(1);
        match self.zone.answer(&stored.member, &query, transport, self.turn) {
            Verdict::Answer(answer) => self.reply(served, sender, &answer),
            Verdict::Ignore => self.reply(served, sender, &[]),
            Verdict::Forward { .. } if of.waiting >= WAITING.0 || self.waiting >= WAITING.1 => {
                self.reply(served, sender, &zone::failure(&query));
            }
            Verdict::Forward { limit } => {
                let now = Instant::now();
                let servers = self.upstreams.in_order(&stored.member.servers, now);
                let query = Query::new(served, sender, query, limit, transport, servers, now);
                let token = self.token();
                self.waiting += 1;
                self.served.entry(served).and_modify(|of| of.waiting += 1);
                self.go_on(token, Box::new(query));
            }
        }
    }

    /// Goes on with a query that is forwarded, which has no timer when it is not waiting.
    fn go_on(&mut self, token: u64, mut query: Box<Query>) {
        let before = query.deadline;
        let step = query.step(&self.epoll, token, &mut self.upstreams, &mut self.buffer, Instant::now());
        self.timers.remove(&(before, token));
        match step {
            Step::Wait => {
                self.timers.insert((query.deadline, token));
                self.sources.insert(token, Source::Query(query));
            }
            Step::Answer(answer) => {
                self.waiting -= 1;
                self.served.entry(query.served).and_modify(|of| of.waiting -= 1);
                self.reply(query.served, query.sender, &answer);
            }
        }
    }

    /// Sends an answer; an empty one stands for none.
    fn reply(&mut self, served: u64, sender: Sender, answer: &[u8]) {
        match sender {
            Sender::Datagram(_) if answer.is_empty() => {}
            Sender::Datagram(address) => {
                if let Some(of) = self.served.get(&served) {
                    // The client asks again when an answer is lost.
                    let _ = rustix::net::sendto(&of.sockets.datagrams, answer, SendFlags::DONTWAIT, &address);
                }
            }
            Sender::Stream(token) => {
                // A client that has closed its stream gets none.
                if let Some(Source::Client(client)) = self.sources.get_mut(&token) {
                    client.add_answer(answer);
                    self.answered.push(token);
                }
            }
        }
    }
}

/// Streams and their clients.
impl Server {
    fn accept_stream(&mut self, served: u64) {
        let Some(of) = self.served.get_mut(&served) else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&of.sockets.streams, flags) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                // The stream stays in front of the listener, which would wake this loop at once.
                return std::thread::sleep(EXHAUSTED);
            }
            Err(_) => return,
        };
        // One that is too much is closed.
        if of.streams >= STREAMS.0 || self.streams >= STREAMS.1 {
            return;
        }
        let client = Box::new(Client::new(socket, served, Instant::now()));
        let token = self.token();
        if self.watch(&client.socket, token).is_ok() {
            self.streams += 1;
            self.served.entry(served).and_modify(|of| of.streams += 1);
            self.timers.insert((client.deadline, token));
            self.sources.insert(token, Source::Client(client));
        }
    }

    /// Reads queries of a client, and writes answers to it.
    fn serve_client(&mut self, token: u64, mut client: Box<Client>, flags: EventFlags) {
        self.timers.remove(&(client.deadline, token));
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            return self.close(&client);
        }
        if flags.contains(EventFlags::IN) {
            client.read(&mut self.buffer);
        }
        while client.has_query() {
            if let Some(query) = client.next_query(Instant::now()) {
                let served = client.served;
                // An answer that is known is added to the client among the sources.
                self.sources.insert(token, Source::Client(client));
                self.decide(served, Sender::Stream(token), query);
                match self.sources.remove(&token) {
                    Some(Source::Client(back)) => client = back,
                    _ => return,
                }
            }
            client.write();
        }
        client.write();
        if client.is_over() || client.renew_interest(&self.epoll, token).is_err() {
            return self.close(&client);
        }
        self.timers.insert((client.deadline, token));
        self.sources.insert(token, Source::Client(client));
    }

    /// Writes the answers that came for clients.
    fn serve_answered(&mut self) {
        while let Some(token) = self.answered.pop() {
            if let Some(Source::Client(client)) = self.sources.remove(&token) {
                self.serve_client(token, client, EventFlags::empty());
            }
        }
    }

    /// Forgets a stream, which is closed by the caller.
    fn close(&mut self, client: &Client) {
        self.streams -= 1;
        self.served.entry(client.served).and_modify(|of| of.streams -= 1);
    }
}

fn timespec(time: Duration) -> Timespec {
    // Rounded up: an epoll that waits in milliseconds would return too early.
    let time = time + Duration::from_millis(1);
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
