//! Standard streams of a container, on the monitor's side: pipes, or the master of its terminal.

use crate::log::Stream;
use crate::record::Pipes;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Most bytes of input that wait for the program.
const MAX_WAITING: usize = 64 << 10;

/// The container's ends of the streams.
pub(crate) struct Theirs {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Theirs {
    /// Inode numbers of those that are pipes.
    pub(crate) fn pipes(&self) -> Pipes {
        let inode = |fd: &OwnedFd| fstat(fd).ok().filter(is_pipe).map_or(0, |stat| stat.st_ino);
        Pipes { stdin: inode(&self.stdin), stdout: inode(&self.stdout), stderr: inode(&self.stderr) }
    }
}

fn is_pipe(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
}

/// The monitor's ends of the streams.
#[derive(Default)]
pub(crate) struct Streams {
    outputs: Vec<(Stream, OwnedFd)>,
    input: Option<OwnedFd>,
    /// Input that the program has not taken yet.
    waiting: Vec<u8>,
    /// True when the input ends after what waits.
    input_ends: bool,
    /// True for a terminal, whose master is both input and output.
    is_terminal: bool,
    /// True when the program notices that an output is closed.
    is_breakable: bool,
}

/// Makes the streams of a container: pipes for output, and for input if it stays open. A container with a terminal gets
/// /dev/null, until its terminal replaces it ([`Streams::set_console`]).
///
/// A container that was started by an attached command is ended by a closed output, as programs are, when that command's
/// output is closed ([`Streams::close_output`]).
pub(crate) fn make(
    has_terminal: bool,
    is_interactive: bool,
    is_breakable: bool,
) -> Result<(Theirs, Streams), Errno> {
    let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    if has_terminal {
        let theirs = Theirs { stdin: null()?, stdout: null()?, stderr: null()? };
        return Ok((theirs, Streams { is_terminal: true, ..Streams::default() }));
    }
    let (stdout, stdout_there) = output(is_breakable)?;
    let (stderr, stderr_there) = output(is_breakable)?;
    let mut streams = Streams {
        outputs: vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)],
        is_breakable,
        ..Streams::default()
    };
    let stdin = if is_interactive {
        let (stdin, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        streams.input = Some(ours);
        stdin
    } else {
        null()?
    };
    Ok((Theirs { stdin, stdout: stdout_there, stderr: stderr_there }, streams))
}

/// A pipe for output: this side's end, and the container's. An unbreakable one can be read by the container as well: when
/// the monitor is killed, a program that writes waits instead of being ended by SIGPIPE.
fn output(is_breakable: bool) -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    if is_breakable {
        return Ok((ours, write_end));
    }
    let path = format!("/proc/self/fd/{}", write_end.as_raw_fd());
    let theirs = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    Ok((ours, theirs.unwrap_or(write_end)))
}

/// Opens a pipe by its inode number, through a descriptor of a process that has it. The process may replace its
/// descriptors meanwhile, by devices or other pipes: they are opened only once they are known.
fn reopen(pid: i32, inode: u64, flags: OFlags) -> Option<OwnedFd> {
    let text = format!("pipe:[{inode}]");
    let (any_pipe, _end) = pipe_with(PipeFlags::CLOEXEC).ok()?;
    let device = fstat(&any_pipe).ok()?.st_dev;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().map(|entry| entry.path());
    descriptors
        .filter(|path| inode != 0 && std::fs::read_link(path).is_ok_and(|target| target == Path::new(&text)))
        .find_map(|path| {
            let handle = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let stat = fstat(&handle).ok().filter(is_pipe)?;
            let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
            let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
            ((stat.st_dev, stat.st_ino) == (device, inode)).then(|| open(path, flags, Mode::empty()).ok())?
        })
}

impl Streams {
    /// Opens pipes whose other ends the monitor had that was killed, as far as one of the processes has an end of them.
    pub(crate) fn reopen(pipes: &Pipes, pids: &[i32]) -> Streams {
        let open = |inode: u64, flags| pids.iter().find_map(|pid| reopen(*pid, inode, flags));
        let outputs = [(Stream::Stdout, pipes.stdout), (Stream::Stderr, pipes.stderr)];
        let outputs =
            outputs.into_iter().filter_map(|(stream, inode)| Some((stream, open(inode, OFlags::RDONLY)?)));
        Streams { outputs: outputs.collect(), input: open(pipes.stdin, OFlags::WRONLY), ..Streams::default() }
    }

    /// Takes the master of the container's terminal.
    pub(crate) fn set_console(&mut self, master: OwnedFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&master, true)?;
        self.input = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        self.outputs = vec![(Stream::Stdout, master)];
        Ok(())
    }

    /// Open outputs, each with its stream.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        self.outputs.iter().map(|(stream, fd)| (*stream, fd.as_fd()))
    }

    /// Reads output that is there; `None` when there is none now. An output that has ended is closed.
    pub(crate) fn read<'b>(&mut self, stream: Stream, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let at = self.outputs.iter().position(|(of, _)| *of == stream)?;
        loop {
            match rustix::io::read(&self.outputs[at].1, &mut *buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                // A terminal without processes is an input/output error.
                Ok(0) | Err(_) => {
                    self.outputs.remove(at);
                    return None;
                }
                Ok(length) => return Some(&buffer[..length]),
            }
        }
    }

    /// Closes an output: a program that writes to it fails then, or is ended by SIGPIPE. Nothing happens to the outputs of
    /// a container that was started without an attached command.
    pub(crate) fn close_output(&mut self, stream: Stream) {
        if self.is_breakable {
            self.outputs.retain(|(of, _)| *of != stream);
        }
    }

    /// Descriptor to wait for before more input can be passed on; `None` when no input waits.
    pub(crate) fn blocked_input(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().filter(|_| !self.waiting.is_empty()).map(AsFd::as_fd)
    }

    /// True when so much input waits that no more should be taken.
    pub(crate) fn is_input_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING
    }

    /// Adds input for the program; a container without standard input takes none.
    pub(crate) fn add_input(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.input_ends {
            self.waiting.extend_from_slice(bytes);
            self.pass_input();
        }
    }

    /// Ends the input after what was added. A terminal stays open.
    pub(crate) fn end_input(&mut self) {
        if !self.is_terminal {
            self.input_ends = true;
            self.pass_input();
        }
    }

    /// Passes on input as far as the program takes it.
    pub(crate) fn pass_input(&mut self) {
        let Some(input) = &self.input else { return };
        let mut passed = 0;
        while passed < self.waiting.len() {
            match rustix::io::write(input, &self.waiting[passed..]) {
                Ok(length) => passed += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The program has closed its input.
                Err(_) => {
                    self.waiting.clear();
                    self.input = None;
                    return;
                }
            }
        }
        self.waiting.drain(..passed);
        if self.waiting.is_empty() && self.input_ends {
            self.input = None;
        }
    }

    /// Sets the size of the terminal; nothing happens without one.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        if let (true, Some(master)) = (self.is_terminal, &self.input) {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_opened_again_by_their_number() {
        let (theirs, ours) = make(false, true, false).unwrap();
        let pipes = theirs.pipes();
        assert!(pipes.stdin != 0 && pipes.stdout != 0 && pipes.stderr != pipes.stdout);
        drop(ours);
        // Written while no process reads: the container's own end keeps the pipe open.
        rustix::io::write(&theirs.stdout, b"kept").unwrap();
        let own = std::process::id() as i32;
        let mut again = Streams::reopen(&pipes, &[own]);
        let mut buffer = [0; 64];
        assert_eq!(again.read(Stream::Stdout, &mut buffer), Some(&b"kept"[..]));
        assert_eq!(again.read(Stream::Stderr, &mut buffer), None);
        again.add_input(b"input");
        let length = rustix::io::read(&theirs.stdin, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"input");
        drop((theirs, again));
        let (theirs, _ours) = make(false, false, false).unwrap();
        assert_eq!(theirs.pipes().stdin, 0, "the null device is no pipe");
        assert_eq!(Streams::reopen(&pipes, &[own]).outputs().count(), 0);
    }
}
