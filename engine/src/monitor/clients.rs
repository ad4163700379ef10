//! Commands that are connected to a monitor, and what is still to be sent to each.

use crate::log::Stream;
use crate::wire::{self, Answer, MAX_PIECE};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::collections::VecDeque;

/// Most messages that wait for a command before the program's output is no longer read.
const MAX_QUEUED: usize = 16;

/// Command that is connected to the monitor.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// True when it gets the program's output.
    pub(crate) sees_output: bool,
    /// True when it gets the exit code.
    pub(crate) sees_end: bool,
    /// True when its input is the program's.
    pub(crate) has_input: bool,
    queue: VecDeque<Vec<u8>>,
    /// True when it is closed once it has everything.
    is_leaving: bool,
    is_gone: bool,
}

/// All commands that are connected to the monitor.
#[derive(Default)]
pub(crate) struct Clients {
    all: Vec<Client>,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd) -> Client {
        Client {
            socket,
            sees_output: false,
            sees_end: false,
            has_input: false,
            queue: VecDeque::new(),
            is_leaving: false,
            is_gone: false,
        }
    }

    /// True while the command has not taken what it was sent.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends a message, or keeps it until the command takes it.
    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        self.queue.push_back(bytes);
        self.flush();
    }

    /// Sends what waits, as far as the command takes it.
    pub(crate) fn flush(&mut self) {
        while let Some(bytes) = self.queue.front() {
            match wire::try_send(self.socket.as_fd(), bytes, &[]) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(Errno::AGAIN) => return,
                Err(_) => return self.leave(),
            }
        }
        self.is_gone |= self.is_leaving;
    }

    /// Closes the connection: the command has ended.
    pub(crate) fn leave(&mut self) {
        self.is_gone = true;
        self.queue.clear();
    }
}

impl Clients {
    pub(crate) fn add(&mut self, client: Client) {
        self.all.push(client);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.all.iter()
    }

    pub(crate) fn get(&mut self, index: usize) -> &mut Client {
        &mut self.all[index]
    }

    /// True when a command that sees the output is far behind: the program waits for it then.
    pub(crate) fn are_behind(&self) -> bool {
        self.all.iter().any(|client| client.sees_output && client.queue.len() >= MAX_QUEUED)
    }

    /// Sends output to all that see it.
    pub(crate) fn send_output(&mut self, stream: Stream, bytes: &[u8]) {
        for client in self.all.iter_mut().filter(|client| client.sees_output) {
            bytes.chunks(MAX_PIECE).for_each(|piece| client.send(wire::output(stream, piece)));
        }
    }

    /// Sends the exit code to all that wait for it, and closes their connections afterwards.
    pub(crate) fn send_end(&mut self, code: i32, is_out_of_memory: bool) {
        for client in &mut self.all {
            if client.sees_end {
                client.is_leaving = true;
                client.send(wire::json(&Answer::Exited { code, is_out_of_memory }));
            }
        }
    }

    /// Sockets of commands that have not taken everything.
    pub(crate) fn behind(&self) -> Vec<BorrowedFd<'_>> {
        self.all.iter().filter(|client| client.is_behind()).map(|client| client.socket.as_fd()).collect()
    }

    /// Sends what waits, and closes the connections of those that leave.
    pub(crate) fn flush(&mut self) {
        self.flush_all();
        self.remove_gone();
    }

    /// Sends what waits, as far as it is taken.
    pub(crate) fn flush_all(&mut self) {
        self.all.iter_mut().for_each(Client::flush);
    }

    pub(crate) fn remove_gone(&mut self) {
        self.all.retain(|client| !client.is_gone);
    }

    /// Keeps only those that have not taken everything; all, when there are none of those.
    pub(crate) fn keep_behind(&mut self) {
        if self.all.iter().any(Client::is_behind) {
            self.all.retain(Client::is_behind);
        }
    }
}
