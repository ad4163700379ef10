//! Monitors: which containers are served, and for how long.

use super::super::sockets::Sockets;
use super::super::zone::Zone;
use super::super::{Order, Reply};
use super::{EXHAUSTED, Served, Server, Source};
use kiln_runtime::message;
use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;

impl Server {
    pub(super) fn accept_monitor(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                return std::thread::sleep(EXHAUSTED);
            }
            Err(_) => return,
        };
        let own = rustix::process::geteuid();
        if !sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root()) {
            return;
        }
        let token = self.token();
        if self.watch(&socket, token).is_ok() {
            self.monitors += 1;
            self.sources.insert(token, Source::Monitor { socket, served: None });
        }
    }

    /// Carries out an order of a monitor, or notices its end.
    pub(super) fn obey(&mut self, token: u64, socket: OwnedFd, mut served: Option<u64>) {
        match message::receive::<Order>(socket.as_fd()) {
            Ok(Some((order, fds))) => {
                let (reply, returned) = self.carry_out(token, order, fds, &mut served);
                let own = returned.and_then(|served| self.served.get(&served));
                let lent = own.map(|served| served.sockets.lend());
                let fds: &[BorrowedFd<'_>] = lent.as_ref().map_or(&[], |fds| fds);
                // A monitor that has ended needs no reply.
                let _ = message::send(socket.as_fd(), &reply, fds);
                self.sources.insert(token, Source::Monitor { socket, served });
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                self.sources.insert(token, Source::Monitor { socket, served });
            }
            Ok(None) | Err(_) => {
                self.monitors -= 1;
                if let Some(served) = served {
                    self.lose_monitor(token, served);
                }
            }
        }
    }

    /// Carries out an order; returns the reply, and the container whose sockets it contains.
    fn carry_out(
        &mut self,
        token: u64,
        order: Order,
        fds: Vec<OwnedFd>,
        served: &mut Option<u64>,
    ) -> (Reply, Option<u64>) {
        match order {
            Order::Join { id } => {
                let joined = Sockets::of(fds).and_then(|sockets| self.join(token, id, sockets));
                *served = joined.or(*served);
                (if joined.is_some() { Reply::Done } else { Reply::Absent }, None)
            }
            Order::Take { id } => {
                let found = self.served.iter_mut().find(|(_, served)| served.id == id);
                let Some((number, of)) = found else { return (Reply::Absent, None) };
                of.monitor = Some(token);
                let number = *number;
                *served = Some(number);
                self.read_member(&id);
                (Reply::Done, *served)
            }
            Order::Update => {
                let id = served.and_then(|served| self.served.get(&served)).map(|served| served.id.clone());
                if let Some(id) = id {
                    self.read_member(&id);
                }
                (Reply::Done, None)
            }
            Order::Leave => {
                if let Some(served) = served.take().filter(|served| self.is_of(*served, token)) {
                    self.remove(served);
                }
                (Reply::Done, None)
            }
        }
    }

    /// True when a container is served for this monitor, and for no later one.
    fn is_of(&self, served: u64, monitor: u64) -> bool {
        self.served.get(&served).is_some_and(|served| served.monitor == Some(monitor))
    }

    /// Serves a container. `None` when it has no readable file, or its sockets cannot be watched.
    fn join(&mut self, monitor: u64, id: String, sockets: Sockets) -> Option<u64> {
        let before: Vec<u64> =
            self.served.iter().filter(|(_, served)| served.id == id).map(|(number, _)| *number).collect();
        // The monitor passes its sockets again.
        before.into_iter().for_each(|served| self.drop_sockets(served));
        self.files.read(&id)?;
        let number = self.token();
        let (datagrams, streams) = (self.token(), self.token());
        self.watch(&sockets.datagrams, datagrams).ok()?;
        self.watch(&sockets.streams, streams).ok()?;
        self.sources.insert(datagrams, Source::Datagrams { served: number });
        self.sources.insert(streams, Source::Streams { served: number });
        let served = Served { id: id.clone(), sockets, monitor: Some(monitor), waiting: 0, streams: 0 };
        self.served.insert(number, served);
        self.read_member(&id);
        Some(number)
    }

    /// Goes on without the monitor while the container's program runs.
    fn lose_monitor(&mut self, monitor: u64, served: u64) {
        if !self.is_of(served, monitor) {
            return;
        }
        let Some(of) = self.served.get_mut(&served) else { return };
        of.monitor = None;
        let user = self.files.read(&of.id).map(|stored| stored.user);
        let pidfd = user.as_ref().and_then(|user| Pid::from_raw(user.pid)).and_then(|pid| {
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // The pidfd may be that of a later process.
            user.as_ref().is_some_and(|user| user.is_running()).then_some(pidfd)
        });
        let token = self.token();
        match pidfd.filter(|pidfd| self.watch(pidfd, token).is_ok()) {
            Some(pidfd) => drop(self.sources.insert(token, Source::Program { served, _pidfd: pidfd })),
            None => self.remove(served),
        }
    }

    /// Forgets a container, and closes its sockets.
    pub(super) fn remove(&mut self, served: u64) {
        if let Some(id) = self.served.get(&served).map(|served| served.id.clone()) {
            self.drop_sockets(served);
            self.files.remove(&id);
            self.stored.remove(&id);
            self.renew_zone();
        }
    }

    fn drop_sockets(&mut self, number: u64) {
        let Some(served) = self.served.remove(&number) else { return };
        // The monitor has them as well: closing them here alone would not end their events.
        let _ = epoll::delete(&self.epoll, &served.sockets.datagrams);
        let _ = epoll::delete(&self.epoll, &served.sockets.streams);
        let (timers, waiting, streams) = (&mut self.timers, &mut self.waiting, &mut self.streams);
        self.sources.retain(|token, source| match source {
            Source::Datagrams { served } | Source::Streams { served } | Source::Program { served, .. } => {
                *served != number
            }
            Source::Client(client) if client.served == number => {
                *streams -= 1;
                timers.remove(&(client.deadline, *token));
                false
            }
            Source::Query(query) if query.served == number => {
                *waiting -= 1;
                timers.remove(&(query.deadline, *token));
                false
            }
            _ => true,
        });
    }

    /// Reads the file of a member, as it is now.
    fn read_member(&mut self, id: &str) {
        match self.files.read(id) {
            Some(stored) => drop(self.stored.insert(id.to_owned(), stored)),
            None => drop(self.stored.remove(id)),
        }
        self.renew_zone();
    }

    pub(super) fn renew_zone(&mut self) {
        let served: BTreeSet<&str> = self.served.values().map(|served| served.id.as_str()).collect();
        self.stored.retain(|id, stored| served.contains(id.as_str()) || stored.user.is_running());
        self.zone = Zone::new(self.stored.values().map(|stored| &stored.member));
    }
}
