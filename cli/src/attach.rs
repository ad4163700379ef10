//! Connects the user's standard streams with a container's: inherited, copied through pipes, or through a terminal of the
//! container.
//!
//! Pipes and /dev/null are inherited. Files and terminals are not, they stay behind a pipe: a process that holds one can
//! open it again through /proc/self/fd with other access modes.

use crate::detach_keys::DetachKeys;
use crate::error::CliError;
use crate::ui;
use kiln_engine::Stdio;
use kiln_runtime::container::terminal::{self, RawOutput, RawTerminal};
use kiln_runtime::op::ConsoleSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Standard streams of a container in the foreground.
pub struct Attachment {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Pairs of file descriptors, from which and to which bytes are copied.
    relays: Vec<Relay>,
    terminal: bool,
    interactive: bool,
    restore: Option<RawTerminal>,
    outputs: Vec<JoinHandle<()>>,
    /// The container's terminal, kept for changes of its size.
    console: Option<Arc<OwnedFd>>,
    /// Keys by which the user leaves the program of a terminal.
    keys: DetachKeys,
    /// Readable when the user has pressed the keys.
    left: Option<OwnedFd>,
}

struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    /// True for output of the container, which is copied to its end.
    is_output: bool,
}

impl Attachment {
    /// Prepares the streams: with a terminal for the container or without, with its standard input open or not. The keys
    /// leave a program on a terminal.
    ///
    /// # Errors
    ///
    /// Fails when `-t` and `-i` are set and standard input is no terminal, and when descriptors run out.
    pub fn new(terminal: bool, interactive: bool, keys: DetachKeys) -> Result<Attachment, CliError> {
        if terminal && interactive && !termios::isatty(rustix::stdio::stdin()) {
            return Err(CliError::failed("the input device is not a TTY")
                .hint("leave out -t when input comes from a pipe or a file"));
        }
        let mut attachment = Attachment { interactive, keys, ..Attachment::none(terminal)? };
        if !terminal {
            attachment.stdout = attachment.output(rustix::stdio::stdout())?;
            attachment.stderr = attachment.output(rustix::stdio::stderr())?;
            if interactive {
                attachment.stdin = attachment.input()?;
            }
        }
        Ok(attachment)
    }

    /// Streams that lead nowhere, for a program that this command leaves at once.
    ///
    /// # Errors
    ///
    /// Fails when descriptors run out.
    pub fn none(terminal: bool) -> Result<Attachment, CliError> {
        Ok(Attachment {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
            relays: Vec::new(),
            terminal,
            interactive: false,
            restore: None,
            outputs: Vec::new(),
            console: None,
            keys: DetachKeys::default(),
            left: None,
        })
    }

    fn output(&mut self, own: BorrowedFd<'_>) -> Result<OwnedFd, CliError> {
        if is_harmless(own) {
            return copy_of(own);
        }
        let (from, theirs) = pipe()?;
        self.relays.push(Relay { from, to: copy_of(own)?, is_output: true });
        Ok(theirs)
    }

    fn input(&mut self) -> Result<OwnedFd, CliError> {
        let own = rustix::stdio::stdin();
        if is_harmless(own) {
            return copy_of(own);
        }
        let (theirs, to) = pipe()?;
        self.relays.push(Relay { from: copy_of(own)?, to, is_output: false });
        Ok(theirs)
    }

    /// Streams for the start of the container.
    pub fn stdio(&self) -> Stdio<'_> {
        Stdio {
            stdin: self.stdin.as_fd(),
            stdout: self.stdout.as_fd(),
            stderr: self.stderr.as_fd(),
            console: if self.terminal {
                terminal::own_size().unwrap_or_default()
            } else {
                ConsoleSize::default()
            },
        }
    }

    /// Starts copying. Closes the container's ends of the pipes, so that the copies end when the container closes its own.
    ///
    /// # Errors
    ///
    /// Fails when the user's terminal cannot be put into raw mode.
    pub fn begin(mut self, console: Option<OwnedFd>) -> Result<Attached, CliError> {
        if let Some(console) = console {
            self.begin_terminal(console)?;
        }
        for Relay { from, to, is_output } in std::mem::take(&mut self.relays) {
            let thread = thread::spawn(move || copy(from.as_fd(), to.as_fd()));
            if is_output {
                self.outputs.push(thread);
            }
        }
        let Attachment { outputs, console, left, restore, .. } = self;
        Ok(Attached { outputs, console, left, _restore: restore })
    }

    fn begin_terminal(&mut self, console: OwnedFd) -> Result<(), CliError> {
        let console = Arc::new(console);
        if self.interactive {
            self.restore = Some(make_raw()?);
            let (from, to) = (copy_of(rustix::stdio::stdin())?, Arc::clone(&console));
            let (left, leave) = pipe()?;
            self.left = Some(left);
            let keys = self.keys.clone();
            thread::spawn(move || {
                if copy_keys(from.as_fd(), to.as_fd(), keys) {
                    let _ = rustix::io::write(&leave, b"x");
                    return;
                }
                // In raw mode input ends only when the terminal was closed, and not all terminals send SIGHUP then.
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP);
            });
        }
        let (from, to) = (Arc::clone(&console), copy_of(rustix::stdio::stdout())?);
        self.outputs.push(thread::spawn(move || copy(from.as_fd(), to.as_fd())));
        self.console = Some(console);
        Ok(())
    }
}

/// Streams that are being copied.
pub struct Attached {
    outputs: Vec<JoinHandle<()>>,
    console: Option<Arc<OwnedFd>>,
    left: Option<OwnedFd>,
    _restore: Option<RawTerminal>,
}

impl Attached {
    /// The container's terminal, if it has one.
    pub fn console(&self) -> Option<Arc<OwnedFd>> {
        self.console.clone()
    }

    /// Waits until a process has ended or the user has left it; true for the latter.
    pub fn is_left(&self, process: BorrowedFd<'_>) -> bool {
        let Some(left) = &self.left else { return false };
        loop {
            let end = PollFd::from_borrowed_fd(process, PollFlags::IN);
            let mut polled = [end, PollFd::new(left, PollFlags::IN)];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) if !polled[0].revents().is_empty() => return false,
                Ok(_) if polled[1].revents().contains(PollFlags::IN) => return true,
                // Without the thread that reads the keys only the end of the process is of interest.
                Ok(_) => return false,
            }
        }
    }

    /// Waits until all output has been copied; called after the container has exited.
    pub fn finish(self) {
        for output in self.outputs {
            // Errors end a copy; the thread returns nothing.
            let _ = output.join();
        }
    }
}

fn make_raw() -> Result<RawTerminal, CliError> {
    RawTerminal::new(RawOutput::Raw)
        .map_err(|errno| CliError::failed(format!("cannot prepare the terminal: {errno}")))
}

/// True for pipes and /dev/null: opening them again grants no more access.
fn is_harmless(fd: BorrowedFd<'_>) -> bool {
    let null = rustix::fs::makedev(1, 3);
    match rustix::fs::fstat(fd) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => true,
            FileType::CharacterDevice => stat.st_rdev == null,
            _ => false,
        },
        Err(_) => false,
    }
}

fn null() -> Result<OwnedFd, CliError> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())
        .map_err(|errno| CliError::failed(format!("cannot open /dev/null: {errno}")))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), CliError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|errno| CliError::failed(format!("cannot make a pipe: {errno}")))
}

fn copy_of(fd: BorrowedFd<'_>) -> Result<OwnedFd, CliError> {
    match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
        Ok(copy) => Ok(copy),
        // The caller has closed this stream.
        Err(Errno::BADF) => null(),
        Err(errno) => Err(CliError::failed(format!("cannot duplicate a stream: {errno}"))),
    }
}

/// Copies until one side is closed, or a terminal hangs up.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let length = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                wait_for(from, PollFlags::IN);
                continue;
            }
            Err(_) => return,
        };
        if !write_all(to, &buffer[..length]) {
            return;
        }
    }
}

/// Copies what the user types until the terminal is closed; true when the keys to leave were pressed.
fn copy_keys(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut keys: DetachKeys) -> bool {
    let mut buffer = [0u8; 4096];
    loop {
        let length = match rustix::io::read(from, &mut buffer) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {
                wait_for(from, PollFlags::IN);
                continue;
            }
            Err(_) => return false,
        };
        let (passed, is_left) = keys.filter(&buffer[..length]);
        if !write_all(to, &passed) || is_left {
            return is_left;
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(to, PollFlags::OUT),
            Err(errno) => {
                if matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG) {
                    ui::lose(errno.into());
                }
                return false;
            }
        }
    }
    true
}

/// Waits for a stream that another process, which shares it, has made non-blocking.
fn wait_for(fd: BorrowedFd<'_>, event: PollFlags) {
    let mut polled = [PollFd::from_borrowed_fd(fd, event)];
    let _ = poll(&mut polled, None);
}
