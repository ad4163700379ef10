//! The monitor's process: runs a container's program to its end, again where the restart policy requires it.

mod adopt;
mod memory;
mod network;

use super::checks::Checks;
use super::clients::{Client, Clients};
use super::streams::{self, Streams};
use super::{CONTROL, failure};
use crate::container::{Owned, Records, UNKNOWN_CODE};
use crate::error::EngineError;
use crate::log::{Logger, Stream};
use crate::record::{State, now};
use crate::restart::Backoff;
use crate::start::{Resources, Started, start_code};
use crate::wire::{self, Answer, Message, Request, StartFailure, StartRequest};
use jiff::Timestamp;
use kiln_network::Proxy;
use kiln_runtime::launch;
use kiln_runtime::op::ConsoleSize;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of one read of output, in bytes.
const BUFFER: usize = 64 << 10;
/// Most reads of one output before other events are looked at.
const READS: usize = 16;

/// Serves the socket of a command: one container, from its start to its last end.
pub(super) fn serve(socket: OwnedFd) {
    let Ok(Some(Message::Json(request, mut fds))) = wire::receive(socket.as_fd()) else { return };
    let (request, is_orphan) = match request {
        Request::Start(request) => (request, false),
        Request::Adopt(request) => (request, true),
        _ => return,
    };
    // Detected here, the facts are known in all containers, which are copies of this process.
    kiln_runtime::host::Host::get();
    let Some(lock) = fds.pop() else { return };
    let owned = match take(&request, lock) {
        Ok(owned) => owned,
        Err(error) => return refuse(&socket, failure(&error)),
    };
    // A command that has stopped in the middle must not stop the container.
    let _ = rustix::io::ioctl_fionbio(&socket, true);
    if is_orphan {
        return Serving::new(*request, owned).adopt(&socket);
    }
    let mut command = Client::new(socket);
    command.sees_output = request.attach.is_some();
    command.sees_end = request.attach.is_some();
    command.has_input = request.attach.is_some_and(|attach| attach.input);
    Serving::new(*request, owned).run(command);
}

/// The container of a request, whose lock the command has passed on.
fn take(request: &StartRequest, lock: OwnedFd) -> Result<Owned, EngineError> {
    let records = Records::open(&request.store)?;
    let container = records.read(&request.id)?;
    let container = container.ok_or_else(|| EngineError::NoSuchContainer(request.id.clone()))?;
    Ok(Owned { records, container, lock })
}

fn refuse(socket: &OwnedFd, failure: StartFailure) {
    // A command that has ended needs no answer.
    let _ = wire::send(socket.as_fd(), &wire::json(&Answer::Failed(failure)), &[]);
}

/// A container that this process looks after.
struct Serving {
    request: StartRequest,
    owned: Owned,
    clients: Clients,
    listener: Option<OwnedFd>,
    log: Option<Logger>,
    backoff: Backoff,
    /// True when the user ends the program: it is not started again.
    is_stopped: bool,
    /// State before the last attempt to start the program.
    before: State,
    buffer: Vec<u8>,
}

/// A program that runs.
struct Program {
    process: launch::Launched,
    streams: Streams,
    resources: Resources,
    started: String,
    since: Instant,
    /// Exit code, when the process has ended.
    code: Option<i32>,
    /// `None` for a container without a health check.
    checks: Option<Checks>,
    /// Start time of a process that is no child of this one, in ticks since boot; `None` for a child.
    adopted: Option<String>,
    memory: memory::MemoryWatch,
    /// Note about its end for the record; empty for none.
    note: &'static str,
}

impl Serving {
    fn new(request: StartRequest, owned: Owned) -> Serving {
        Serving {
            request,
            owned,
            clients: Clients::default(),
            listener: None,
            log: None,
            backoff: Backoff::default(),
            is_stopped: false,
            before: State::Created { error: None, code: 0 },
            buffer: vec![0; BUFFER],
        }
    }

    /// Starts the program for `command`, and serves it to its last end.
    fn run(mut self, command: Client) {
        let program = match self.prepare().and_then(|()| self.start()) {
            Ok(program) => program,
            Err(error) => {
                let failure = failure(&error);
                self.fail(&error);
                return refuse(&command.socket, failure);
            }
        };
        let answer = wire::json(&Answer::Started);
        let is_there = wire::send(command.socket.as_fd(), &answer, &[program.process.pidfd.as_fd()]).is_ok();
        if is_there {
            self.clients.add(command);
        }
        self.keep(program);
    }

    /// Serves a program to its last end.
    fn keep(mut self, mut program: Program) {
        loop {
            self.serve_program(&mut program);
            match self.end(program) {
                Some(delay) if self.waits(delay) => {
                    // The user may have changed them while it did not run.
                    self.owned.read_policy();
                    match self.start() {
                        Ok(next) => program = next,
                        Err(error) => {
                            self.fail(&error);
                            break;
                        }
                    }
                }
                _ => break,
            }
        }
        self.linger();
    }

    /// Opens the log and the socket for commands, and forgets that the user has stopped the container before.
    fn prepare(&mut self) -> Result<(), EngineError> {
        self.open()?;
        self.owned.container.restarts = 0;
        if self.owned.container.is_stopped || self.owned.container.awaits_start {
            self.owned.container.awaits_start = false;
            self.owned.records.change(&self.request.id, |record| {
                record.is_stopped = false;
                record.awaits_start = false;
            })?;
        }
        Ok(())
    }

    /// Opens the log and the socket for commands.
    fn open(&mut self) -> Result<(), EngineError> {
        let dir = self.owned.dir();
        self.log = Logger::open(&self.owned.container, &dir)?;
        self.listener = Some(listen(&dir)?);
        if self.request.attach.is_some() {
            self.event("attach", &[]);
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Program, EngineError> {
        self.before = self.owned.container.state.clone();
        let settings = &self.owned.container.settings;
        // Before the streams: an open copy of one in the process would keep its readers from seeing the end.
        let proxy = settings.publishes().then(Proxy::fork).transpose()?;
        let made = streams::make(settings.tty, settings.interactive, self.request.attach.is_some());
        let streams = |errno| EngineError::Streams(errno);
        let (theirs, mut streams_here) = made.map_err(streams)?;
        // Written before the record names a running program: no reader takes an earlier health for that of this one.
        let mut checks = Checks::of(&self.owned);
        let size = ConsoleSize { rows: self.request.size.0, columns: self.request.size.1 };
        let Started { process, console, time, resources } = self.owned.start(
            (&self.request.root, &self.request.images),
            &self.request.state,
            size,
            theirs,
            proxy,
        )?;
        if let Some(master) = console {
            streams_here.set_console(master).map_err(streams)?;
        }
        let since = Instant::now();
        checks.iter_mut().for_each(|checks| checks.begin(&self.owned, since));
        self.owned.records.volume_events(&self.owned.container, "mount");
        network::report(&self.owned, &resources.endpoints.networks(), "connect");
        self.event("start", &[]);
        Ok(Program {
            process,
            streams: streams_here,
            memory: memory::MemoryWatch::of(&resources),
            resources,
            started: time,
            since,
            code: None,
            checks,
            adopted: None,
            note: "",
        })
    }

    /// Records that the program did not start, and removes a container that is to be removed at its end.
    fn fail(&mut self, error: &EngineError) {
        let (text, code) = (error.to_string(), start_code(error));
        network::rest_all(&self.owned, &self.request.state);
        let owned = &mut self.owned;
        owned.container.endpoints.clear();
        owned.container.groups = None;
        owned.container.pipes = None;
        // The error of the start matters more than one of these writes.
        if owned.container.auto_remove {
            let _ = owned.records.erase(&owned.container.id);
            return;
        }
        let state = match self.before.clone() {
            State::Exited { started, finished, .. } | State::Restarting { started, finished, .. } => {
                State::Exited { code, started, finished, error: text, is_out_of_memory: false }
            }
            State::Created { .. } | State::Running { .. } => State::Created { error: Some(text), code },
        };
        let _ = owned.set_state(state);
    }

    /// Passes on output and input, and serves commands, until the program has ended and its output is read.
    fn serve_program(&mut self, program: &mut Program) {
        loop {
            if program.code.is_some() && !self.clients.are_behind() {
                // All writers have ended: what is there now is all.
                if !self.read_outputs(program, usize::MAX) {
                    return;
                }
            }
            let patience = program.memory.patience();
            self.turn(Some(program), patience);
            self.look_at_memory(program);
        }
    }

    /// Waits for one event, and handles it and all others that are there.
    fn turn(&mut self, program: Option<&mut Program>, patience: Option<Duration>) {
        let is_full = program.as_ref().is_some_and(|program| program.streams.is_input_full());
        let reads_output = !self.clients.are_behind();
        let mut polled = Vec::new();
        polled.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        let first_client = polled.len();
        for client in self.clients.iter() {
            let input = if client.has_input && is_full { PollFlags::empty() } else { PollFlags::IN };
            let output = if client.is_behind() { PollFlags::OUT } else { PollFlags::empty() };
            polled.push(PollFd::new(&client.socket, input | output));
        }
        let after_clients = polled.len();
        let mut names_at = None;
        if let Some(program) = &program {
            if program.code.is_none() {
                polled.push(PollFd::new(&program.process.pidfd, PollFlags::IN));
            }
            if reads_output {
                let outputs = program.streams.outputs();
                polled.extend(outputs.map(|(_, fd)| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            }
            let blocked = program.streams.blocked_input();
            polled.extend(blocked.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
            let checks = program.checks.iter().flat_map(Checks::fds);
            polled.extend(checks.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let names = program.resources.endpoints.watched_names();
            names_at = names.map(|_| polled.len());
            polled.extend(names.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            polled.extend(program.memory.polled());
        }
        let next_check = program.as_ref().and_then(|program| program.checks.as_ref()?.patience());
        let timeout = [patience, next_check].into_iter().flatten().min();
        let timeout = timeout
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        // After an interruption nothing is ready, and the caller waits again.
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return;
        }
        // A command that can take more is not one that has sent something.
        let ready: Vec<bool> = polled.iter().map(|fd| !(fd.revents() - PollFlags::OUT).is_empty()).collect();
        drop(polled);
        let mut program = program;
        for (number, is_ready) in ready[first_client..after_clients].iter().enumerate() {
            if *is_ready {
                self.hear(number, program.as_deref_mut());
            }
        }
        self.clients.flush();
        if first_client > 0 && ready[0] {
            self.accept();
        }
        if let Some(program) = program {
            program.streams.pass_input();
            self.check(program);
            if names_at.is_some_and(|at| ready[at]) {
                program.resources.endpoints.revive_names();
            }
            // Looked at before the output is read: after the end, all of the output is there.
            if program.code.is_none() && ready[after_clients..].first() == Some(&true) {
                program.reap();
                program.resources.kill_rest();
                program.checks = None;
            }
            if reads_output {
                self.read_outputs(program, READS);
            }
            program.memory.has_news |= program.memory.is_watched() && ready.last() == Some(&true);
        }
    }

    /// Goes on with the health checks.
    fn check(&self, program: &mut Program) {
        if let Some(status) = program.checks.as_mut().and_then(Checks::act) {
            self.event(&format!("health_status: {}", status.name()), &[]);
        }
    }

    /// Adds an event about the container under the name that it has now.
    fn event(&self, action: &str, more: &[(&str, String)]) {
        let Owned { records, container, .. } = &self.owned;
        let now = records.read(&container.id).ok().flatten();
        records.event(now.as_ref().unwrap_or(container), action, more);
    }

    /// Reads output that is there, at most `most` times from each stream; true when there was any.
    fn read_outputs(&mut self, program: &mut Program, most: usize) -> bool {
        let mut has_read = false;
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..most {
                if self.clients.are_behind() {
                    return true;
                }
                let Some(bytes) = program.streams.read(stream, &mut self.buffer) else { break };
                has_read = true;
                self.clients.send_output(stream, bytes);
                if let Some(log) = &mut self.log {
                    log.write(stream, bytes, Timestamp::now());
                }
            }
        }
        has_read
    }

    /// Takes a connection of a command.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let Ok(socket) = accepted else { return };
        let own = rustix::process::geteuid();
        let is_ours = rustix::net::sockopt::socket_peercred(&socket)
            .is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
        if is_ours {
            self.clients.add(Client::new(socket));
        }
    }

    /// Handles a message of a command, or its end.
    fn hear(&mut self, number: usize, program: Option<&mut Program>) {
        let client = self.clients.get(number);
        let message = wire::receive::<Request>(client.socket.as_fd());
        let stdin_once = self.owned.container.stdin_once;
        match message {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(Some(Message::Input(bytes))) if client.has_input => {
                if let Some(program) = program {
                    program.streams.add_input(&bytes);
                }
            }
            Ok(Some(Message::Json(request, _))) => self.carry_out(number, &request, program),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                let (had_input, is_attached) = (client.has_input, client.sees_output);
                client.leave();
                if is_attached && program.as_ref().is_some_and(|program| program.code.is_none()) {
                    self.event("detach", &[]);
                }
                if let Some(program) = program.filter(|_| had_input && stdin_once) {
                    program.streams.end_input();
                }
            }
        }
    }

    fn carry_out(&mut self, number: usize, request: &Request, program: Option<&mut Program>) {
        let client = self.clients.get(number);
        match request {
            Request::Attach { input } => {
                client.sees_output = true;
                client.sees_end = true;
                client.has_input = *input;
                self.event("attach", &[]);
            }
            Request::Wait => client.sees_end = true,
            Request::Stop => {
                self.is_stopped = true;
                // Only a start at boot needs this; a full disk does not keep the user from stopping.
                let _ = self.owned.records.change(&self.request.id, |record| record.is_stopped = true);
            }
            Request::CloseInput => {
                if let Some(program) = program.filter(|_| client.has_input && self.owned.container.stdin_once)
                {
                    program.streams.end_input();
                }
            }
            Request::Resize { rows, columns } => {
                self.request.size = (*rows, *columns);
                if let Some(program) = program {
                    program.streams.resize(*rows, *columns);
                }
            }
            Request::CloseOutput { stream } => {
                if let Some(program) = program.filter(|_| client.sees_output) {
                    program.streams.close_output(*stream);
                }
            }
            Request::Connect(attachment) => {
                self.change_network(number, program, |endpoints, container, pid| {
                    endpoints.connect(container, pid, attachment)
                })
            }
            Request::Disconnect { network } => {
                self.change_network(number, program, |endpoints, container, _| {
                    endpoints.disconnect(container, network)
                });
            }
            Request::Renamed => self.change_names(program),
            // Only the first message of the command that made the monitor starts a container.
            Request::Start(_) | Request::Adopt(_) => client.leave(),
        }
    }

    /// Records the end of the program and releases all that it had; returns the delay before it is started again.
    fn end(&mut self, program: Program) -> Option<Duration> {
        let Program { resources, started, since, code, note, .. } = program;
        let code = code.unwrap_or(UNKNOWN_CODE);
        if let Some(log) = &mut self.log {
            log.finish(Timestamp::now());
        }
        let is_out_of_memory = resources.was_out_of_memory();
        let networks = resources.endpoints.networks();
        // An address is free again, and the cgroup gone, before a command reports the end.
        drop(resources);
        network::report(&self.owned, &networks, "disconnect");
        let owned = &mut self.owned;
        owned.read_policy();
        let (policy, restarts) = (owned.container.restart, owned.container.restarts);
        let delay = self.backoff.next(policy, since.elapsed(), code, restarts);
        let delay = delay.filter(|_| !self.is_stopped && !owned.container.auto_remove);
        owned.container.endpoints.clear();
        owned.container.groups = None;
        owned.container.pipes = None;
        owned.container.has_lost_terminal = false;
        let finished = now();
        let died = [("exitCode", code.to_string()), ("execDuration", since.elapsed().as_secs().to_string())];
        let die = |owned: &Owned| {
            owned.records.event(&owned.container, "die", &died);
            owned.records.volume_events(&owned.container, "unmount");
        };
        if is_out_of_memory {
            owned.records.event(&owned.container, "oom", &[]);
        }
        if owned.container.auto_remove && !owned.container.awaits_start {
            die(owned);
            // What cannot be removed now is removed by the next list.
            let _ = owned.records.erase(&owned.container.id);
        } else if delay.is_some() {
            owned.container.restarts += 1;
            let _ = owned.set_state(State::Restarting { code, started, finished });
            die(owned);
        } else {
            let error = note.to_owned();
            // If this write fails (the disk is full), the next list corrects the record.
            let _ = owned.set_state(State::Exited { code, started, finished, error, is_out_of_memory });
            die(owned);
        }
        self.clients.send_end(code, is_out_of_memory);
        if delay.is_some() {
            self.clients.remove_gone();
        } else {
            network::rest(&self.owned, &networks, &self.request.state);
        }
        delay
    }

    /// Waits before a restart while it serves commands; false when the user has stopped the container meanwhile.
    fn waits(&mut self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        while !self.is_stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.turn(None, Some(left));
        }
        if let State::Restarting { code, started, finished } = self.owned.container.state.clone() {
            let (error, is_out_of_memory) = (String::new(), false);
            let _ = self.owned.set_state(State::Exited { code, started, finished, error, is_out_of_memory });
            self.clients.send_end(code, false);
        }
        false
    }

    /// Releases the container, and then waits until all commands have what they were sent. The connections of those that
    /// have are closed by the end of this process: a command that waits for that reports the end when nothing is left.
    fn linger(self) {
        let Serving { owned, listener, mut clients, log, .. } = self;
        let _ = rustix::fs::unlink(owned.dir().join(CONTROL));
        drop((owned, listener, log));
        loop {
            clients.keep_behind();
            let sockets = clients.behind();
            if sockets.is_empty() {
                return;
            }
            let mut polled: Vec<PollFd<'_>> =
                sockets.iter().map(|socket| PollFd::from_borrowed_fd(*socket, PollFlags::OUT)).collect();
            let _ = poll(&mut polled, None);
            drop(polled);
            clients.flush_all();
        }
    }
}

/// Creates the socket for commands in a container's directory. Its path can be longer than the address of a socket, so
/// it is named below a descriptor of the directory.
fn listen(dir: &Path) -> Result<OwnedFd, EngineError> {
    let failed = |errno| EngineError::Streams(errno);
    let opened = kiln_image::sys::open_dir(dir)?;
    let address = super::address(&opened).map_err(failed)?;
    let _ = rustix::fs::unlinkat(&opened, CONTROL, rustix::fs::AtFlags::empty());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, 64).map_err(failed)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_may_have_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let _listener = listen(&long).unwrap();
        let opened = kiln_image::sys::open_dir(&long).unwrap();
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = crate::monitor::address(&opened).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
    }
}
