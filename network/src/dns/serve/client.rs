//! A client that asks by a stream. Queries may follow each other without waiting for answers (RFC 7766), within limits.

use super::QUERY_LIMIT;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::time::{Duration, Instant};

/// Most queries of a stream that wait for answers.
const PIPELINED: usize = 8;
/// Bytes of answers from which on no further query is looked at.
const BEHIND: usize = 64 << 10;
/// Time without a query or an answer after which a stream is closed.
const IDLE: Duration = Duration::from_secs(10);

/// An accepted stream, its queries and answers.
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) served: u64,
    /// Time at which it is closed.
    pub(super) deadline: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Number of queries that wait for answers.
    pending: usize,
    has_ended: bool,
    has_failed: bool,
    interest: EventFlags,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, served: u64, now: Instant) -> Client {
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        Client {
            socket,
            served,
            deadline: now + IDLE,
            input: Vec::new(),
            output: Vec::new(),
            pending: 0,
            has_ended: false,
            has_failed: false,
            interest: EventFlags::IN,
        }
    }

    /// Reads what has arrived.
    pub(super) fn read(&mut self, buffer: &mut [u8]) {
        // What is in the buffer is looked at first.
        if self.input.len() > 2 + QUERY_LIMIT {
            return;
        }
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.has_ended = true,
            Ok((length, _)) => self.input.extend_from_slice(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.has_failed = true,
        }
    }

    /// True when a query can be looked at now.
    pub(super) fn has_query(&self) -> bool {
        let is_free = self.pending < PIPELINED && self.output.len() < BEHIND && !self.has_failed;
        is_free && self.length().is_some_and(|length| length > QUERY_LIMIT || self.input.len() >= 2 + length)
    }

    /// Takes the next query. `None` when there is none, or it must wait.
    pub(super) fn next_query(&mut self, now: Instant) -> Option<Vec<u8>> {
        let length = self.length().filter(|_| self.has_query())?;
        if length > QUERY_LIMIT {
            self.has_failed = true;
            return None;
        }
        let query = self.input.drain(..2 + length).skip(2).collect();
        self.pending += 1;
        self.deadline = now + IDLE;
        Some(query)
    }

    fn length(&self) -> Option<usize> {
        self.input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)))
    }

    /// Adds an answer to one of the queries; an empty one stands for none.
    pub(super) fn add_answer(&mut self, answer: &[u8]) {
        self.pending -= 1;
        if let Ok(length) = u16::try_from(answer.len())
            && length > 0
        {
            self.output.extend(length.to_be_bytes());
            self.output.extend_from_slice(answer);
        }
    }

    /// Writes as much as the client takes.
    pub(super) fn write(&mut self) {
        while !self.output.is_empty() && !self.has_failed {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.has_failed = true,
            }
        }
    }

    /// True when the stream is to be closed.
    pub(super) fn is_over(&self) -> bool {
        self.has_failed || self.has_ended && self.pending == 0 && self.output.is_empty()
    }

    /// Watches for what the stream waits for.
    pub(super) fn renew_interest(&mut self, epoll: &OwnedFd, token: u64) -> Result<(), Errno> {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.has_ended && self.input.len() <= 2 + QUERY_LIMIT);
        interest.set(EventFlags::OUT, !self.output.is_empty());
        if interest != self.interest {
            epoll::modify(epoll, &self.socket, EventData::new_u64(token), interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
