//! Proxy for published ports: passes on connections from this host to its own loopback addresses, which packet rules
//! cannot redirect because such packets may not leave the host. One thread serves all of them, in this process or in
//! another.
//!
//! A stream is passed on by `splice`, so its bytes stay in the kernel; datagrams are copied. The container sees the
//! network's gateway as the peer.
//!
//! Very large port ranges have no socket for each port: packet rules redirect their connections to one listener, and
//! the kernel returns the original port of each.

mod datagram;
mod process;
mod stream;

use datagram::Relay;
use kiln_runtime::SpawnError;
use process::Process;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use stream::{Pair, Turn};

pub(super) use stream::{bind, listen};

/// Thread that serves loopback connections to published ports. It is started when first needed.
///
/// Cheap to clone; ends with the last clone and the last [`super::Published`] that uses it.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    handle: Arc<Handle>,
}

#[derive(Debug, Default)]
struct Handle {
    thread: Mutex<Option<Arc<Inner>>>,
    next: AtomicU64,
    /// Process that serves instead of a thread.
    process: Option<Process>,
}

#[derive(Debug)]
struct Inner {
    wake: OwnedFd,
    orders: Mutex<Vec<Order>>,
}

/// Orders to the thread.
#[derive(Debug)]
enum Order {
    Serve {
        group: u64,
        fronts: Vec<Front>,
    },
    Redirect {
        group: u64,
        routes: Vec<Route>,
    },
    /// Closes all sockets of a group, then replies on `done`.
    Stop {
        group: u64,
        done: mpsc::Sender<()>,
    },
    End,
}

/// Socket bound to a published port, and its targets: the first that accepts a connection gets it.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) socket: FrontSocket,
    pub(super) targets: Vec<SocketAddr>,
}

/// Kind of a published port's socket.
#[derive(Debug)]
pub(super) enum FrontSocket {
    /// Listening socket for streams.
    Stream(OwnedFd),
    Datagram(OwnedFd),
}

/// Targets of redirected connections to an address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Route {
    /// Original destination; the unspecified address stands for all of its IP version.
    pub(super) meant_for: SocketAddr,
    pub(super) targets: Vec<SocketAddr>,
}

/// Group of served sockets. Dropping it closes them all, and waits for that.
#[derive(Debug)]
pub(super) struct Serving {
    /// Group and thread; `None` for a process, which serves until its last user is dropped.
    thread: Option<(u64, Arc<Inner>)>,
    _handle: Arc<Handle>,
}

impl Proxy {
    /// Proxy without a thread, which serves nothing yet.
    pub fn new() -> Proxy {
        Proxy::default()
    }

    /// Proxy in a separate process, for a caller that keeps to one thread. Panics when the caller has a second thread.
    ///
    /// # Errors
    /// Fails when the process cannot be created.
    pub fn fork() -> Result<Proxy, SpawnError> {
        let process = Some(Process::fork()?);
        let (thread, next) = (Mutex::default(), AtomicU64::default());
        Ok(Proxy { handle: Arc::new(Handle { thread, next, process }) })
    }

    /// Serves sockets, which must be non-blocking.
    pub(super) fn serve(&self, fronts: Vec<Front>) -> Result<Serving, Errno> {
        if let Some(process) = &self.handle.process {
            process.serve(fronts)?;
            return Ok(Serving { thread: None, _handle: self.handle.clone() });
        }
        self.order(|group| Order::Serve { group, fronts })
    }

    /// Adds targets of redirected connections, for listeners that are served already.
    fn add_routes(&self, routes: Vec<Route>) -> Result<Serving, Errno> {
        if let Some(process) = &self.handle.process {
            process.redirect(&routes)?;
            return Ok(Serving { thread: None, _handle: self.handle.clone() });
        }
        self.order(|group| Order::Redirect { group, routes })
    }

    /// Serves connections that packet rules redirect, to the targets in the routes; returns the listeners' addresses.
    pub(super) fn redirect(&self, routes: Vec<Route>) -> Result<(Vec<Serving>, Vec<SocketAddr>), Errno> {
        let has = |is: fn(&SocketAddr) -> bool| routes.iter().any(|route| is(&route.meant_for));
        let mut wanted: Vec<IpAddr> = Vec::new();
        wanted.extend(has(SocketAddr::is_ipv4).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        wanted.extend(has(SocketAddr::is_ipv6).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        let mut fronts = Vec::new();
        let mut addresses = Vec::new();
        for address in wanted {
            let socket = stream::listen(SocketAddr::new(address, 0))?;
            addresses.push(SocketAddr::try_from(rustix::net::getsockname(&socket)?)?);
            // The listener's own port has no targets.
            fronts.push(Front { socket: FrontSocket::Stream(socket), targets: Vec::new() });
        }
        Ok((vec![self.serve(fronts)?, self.add_routes(routes)?], addresses))
    }

    fn order(&self, order: impl FnOnce(u64) -> Order) -> Result<Serving, Errno> {
        let mut thread = lock(&self.handle.thread);
        let inner = match &*thread {
            Some(inner) => inner.clone(),
            None => {
                let inner = start()?;
                *thread = Some(inner.clone());
                inner
            }
        };
        let group = self.handle.next.fetch_add(1, Ordering::Relaxed);
        inner.send(order(group));
        Ok(Serving { thread: Some((group, inner)), _handle: self.handle.clone() })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let Some((group, inner)) = self.thread.take() else { return };
        let (done, closed) = mpsc::channel();
        inner.send(Order::Stop { group, done });
        // An error means that the thread has ended, and closed its sockets.
        let _ = closed.recv();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let thread = lock(&self.thread).take();
        if let Some(inner) = thread {
            inner.send(Order::End);
        }
    }
}

impl Inner {
    fn send(&self, order: Order) {
        lock(&self.orders).push(order);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Result<Arc<Inner>, Errno> {
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
    let inner = Arc::new(Inner { wake, orders: Mutex::default() });
    let turns = Turns {
        epoll,
        inner: inner.clone(),
        sources: HashMap::new(),
        routes: Vec::new(),
        next: WAKE + 1,
        again: VecDeque::new(),
        paused: Vec::new(),
        swept: Instant::now(),
    };
    let thread = std::thread::Builder::new().name("kiln-proxy".to_owned());
    thread.spawn(move || turns.run()).map_err(|_| Errno::AGAIN)?;
    Ok(inner)
}

/// Token of the descriptor that signals orders.
const WAKE: u64 = 0;
/// Time after which an idle sender is forgotten: as long as the kernel tracks an answered one; a shorter time would
/// break protocols that rely on that.
const IDLE: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(15);

/// State of the thread.
struct Turns {
    epoll: OwnedFd,
    inner: Arc<Inner>,
    sources: HashMap<u64, Source>,
    routes: Vec<(u64, HashMap<SocketAddr, Vec<SocketAddr>>)>,
    next: u64,
    /// Streams that reached their share of one turn and have more data.
    again: VecDeque<u64>,
    /// Listeners that wait for free file descriptors.
    paused: Vec<u64>,
    swept: Instant,
}

struct Source {
    group: u64,
    kind: Kind,
}

enum Kind {
    Listener {
        socket: OwnedFd,
        targets: Vec<SocketAddr>,
    },
    Pair(Box<Pair>),
    Relay(Relay),
    /// Socket towards the container for the datagrams of one sender.
    Back {
        relay: u64,
        sender: SocketAddr,
        socket: OwnedFd,
        used: Instant,
    },
}

impl Turns {
    fn run(mut self) {
        let mut buffer = Vec::with_capacity(256);
        loop {
            buffer.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut buffer),
                self.timeout().as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let busy: Vec<u64> = self.again.drain(..).collect();
            for event in &buffer {
                match event.data.u64() {
                    WAKE if !self.obey() => return,
                    WAKE => {}
                    token => self.handle(token),
                }
            }
            for token in busy {
                self.handle(token);
            }
            self.sweep();
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let seconds = |tv_sec| Some(Timespec { tv_sec, tv_nsec: 0 });
        let has_senders = || self.sources.values().any(|source| matches!(source.kind, Kind::Back { .. }));
        if !self.again.is_empty() {
            seconds(0)
        } else if !self.paused.is_empty() {
            seconds(1)
        } else if has_senders() {
            seconds(SWEEP.as_secs() as i64)
        } else {
            None
        }
    }

    /// Carries out orders; returns false when the thread is to end.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&self.inner.wake, &mut [0u8; 8]);
        let orders = std::mem::take(&mut *lock(&self.inner.orders));
        for order in orders {
            match order {
                Order::Serve { group, fronts } => {
                    fronts.into_iter().for_each(|front| self.front(group, front))
                }
                Order::Redirect { group, routes } => {
                    let routes = routes.into_iter().map(|route| (route.meant_for, route.targets));
                    self.routes.push((group, routes.collect()));
                }
                Order::Stop { group, done } => {
                    self.sources.retain(|_, source| source.group != group);
                    self.routes.retain(|(other, _)| *other != group);
                    let _ = done.send(());
                }
                Order::End => return false,
            }
        }
        true
    }

    fn front(&mut self, group: u64, front: Front) {
        let kind = match front.socket {
            FrontSocket::Stream(socket) => Kind::Listener { socket, targets: front.targets },
            FrontSocket::Datagram(socket) => Kind::Relay(Relay::new(socket, front.targets)),
        };
        let token = self.token();
        let socket = match &kind {
            Kind::Listener { socket, .. } => socket,
            Kind::Relay(relay) => relay.socket(),
            _ => return,
        };
        if epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN).is_ok() {
            self.sources.insert(token, Source { group, kind });
        }
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn handle(&mut self, token: u64) {
        // Events of a source that was closed in this turn are ignored.
        let Some(mut source) = self.sources.remove(&token) else { return };
        let keep = match &mut source.kind {
            Kind::Listener { socket, targets } => {
                self.accept(token, source.group, socket, targets);
                true
            }
            Kind::Pair(pair) => self.pass_on(token, pair),
            Kind::Relay(relay) => {
                self.receive(token, source.group, relay);
                true
            }
            Kind::Back { relay, sender, socket, used } => {
                *used = Instant::now();
                let front = self.sources.get(relay).map(|source| &source.kind);
                matches!(front, Some(Kind::Relay(relay)) if relay.answer(socket, *sender).is_ok())
            }
        };
        if keep {
            self.sources.insert(token, source);
        } else {
            self.gone(&source.kind);
        }
    }

    /// Accepts all waiting connections of a listener.
    fn accept(&mut self, token: u64, group: u64, listener: &OwnedFd, targets: &[SocketAddr]) {
        loop {
            match stream::accept(listener) {
                Ok(front) => {
                    let meant_for = targets.is_empty().then(|| self.meant_for(&front)).flatten();
                    let pair = Pair::new(front, meant_for.unwrap_or_else(|| targets.to_vec()));
                    self.add_pair(group, pair);
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    let _ = epoll::delete(&self.epoll, listener);
                    self.paused.push(token);
                    return;
                }
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Targets for the original destination of a redirected connection. `None` without a route.
    fn meant_for(&self, front: &OwnedFd) -> Option<Vec<SocketAddr>> {
        let local = SocketAddr::try_from(rustix::net::getsockname(front).ok()?).ok()?;
        let meant: SocketAddr = match local {
            SocketAddr::V4(_) => sockopt::ip_original_dst(front).ok()?.into(),
            SocketAddr::V6(_) => sockopt::ipv6_original_dst(front).ok()?.into(),
        };
        let meant = SocketAddr::new(meant.ip(), meant.port());
        let anywhere = match meant {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let anywhere = SocketAddr::new(anywhere, meant.port());
        let routes = || self.routes.iter().map(|(_, routes)| routes);
        routes().find_map(|routes| routes.get(&meant).or_else(|| routes.get(&anywhere))).cloned()
    }

    fn add_pair(&mut self, group: u64, mut pair: Pair) {
        let token = self.token();
        if pair.connect_next(&self.epoll, token) {
            self.sources.insert(token, Source { group, kind: Kind::Pair(Box::new(pair)) });
        }
    }

    /// Passes on data of a stream; returns false when it has ended.
    fn pass_on(&mut self, token: u64, pair: &mut Pair) -> bool {
        match pair.turn(&self.epoll, token) {
            Turn::Blocked => true,
            Turn::More => {
                self.again.push_back(token);
                true
            }
            Turn::Over => {
                self.resume();
                false
            }
        }
    }

    /// Resumes accepting at paused listeners.
    fn resume(&mut self) {
        for token in std::mem::take(&mut self.paused) {
            if let Some(Source { kind: Kind::Listener { socket, .. }, .. }) = self.sources.get(&token) {
                let _ = epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN);
            }
        }
    }

    /// Passes on the datagrams that have arrived.
    fn receive(&mut self, token: u64, group: u64, relay: &mut Relay) {
        for _ in 0..datagram::AT_ONCE {
            let Ok((length, sender)) = relay.receive() else { return };
            let back = match relay.back(sender) {
                Some(back) => back,
                None => match self.new_back(token, group, relay, sender) {
                    Ok(back) => back,
                    Err(_) => continue,
                },
            };
            if let Some(Source { kind: Kind::Back { socket, used, .. }, .. }) = self.sources.get_mut(&back) {
                *used = Instant::now();
                relay.pass_on(length, socket);
            }
        }
    }

    fn new_back(
        &mut self,
        relay_token: u64,
        group: u64,
        relay: &mut Relay,
        sender: SocketAddr,
    ) -> Result<u64, Errno> {
        let token = self.token();
        let socket = relay.connect()?;
        epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(token), EventFlags::IN)?;
        relay.remember(sender, token);
        let kind = Kind::Back { relay: relay_token, sender, socket, used: Instant::now() };
        self.sources.insert(token, Source { group, kind });
        Ok(token)
    }

    /// Closes sockets of senders that have been idle for long, and resumes paused listeners.
    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP.min(Duration::from_secs(1)) {
            return;
        }
        self.swept = Instant::now();
        self.resume();
        let silent =
            |source: &Source| matches!(source.kind, Kind::Back { used, .. } if used.elapsed() > IDLE);
        let tokens: Vec<u64> =
            self.sources.iter().filter(|(_, source)| silent(source)).map(|(token, _)| *token).collect();
        for token in tokens {
            if let Some(source) = self.sources.remove(&token) {
                self.gone(&source.kind);
            }
        }
    }

    fn gone(&mut self, kind: &Kind) {
        if let Kind::Back { relay, sender, .. } = kind
            && let Some(Source { kind: Kind::Relay(relay), .. }) = self.sources.get_mut(relay)
        {
            relay.forget(*sender);
        }
    }
}
