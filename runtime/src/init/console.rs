//! A terminal inside the container.

use super::path::open_as;
use super::{Done, Init, Named, Status};
use crate::op::{Bytes, ConsoleSize};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes};

impl Init {
    /// Opens a terminal of the container's own devpts, sends its master to the parent and makes its other end the
    /// standard input, output and error, and the controlling terminal.
    ///
    /// The other end comes from the master itself (`TIOCGPTPEER`): a path below /dev/pts could be swapped.
    pub(super) fn console(&mut self, size: ConsoleSize, bind: bool, plain: bool) -> Done {
        let root = self.root()?;
        let master = open_as(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, false);
        let master = master.call("open", "/dev/pts/ptmx")?;
        rustix::pty::unlockpt(&master).call("unlockpt", "/dev/pts/ptmx")?;
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, peer).call("ioctl", "/dev/pts/ptmx")?;
        if size.rows != 0 || size.columns != 0 {
            let window = rustix::termios::Winsize {
                ws_row: size.rows,
                ws_col: size.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(&terminal, window).call("ioctl", "terminal")?;
        }

        if plain && let Ok(mut modes) = rustix::termios::tcgetattr(&terminal) {
            modes.output_modes -= OutputModes::ONLCR;
            rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes).call("ioctl", "terminal")?;
        }
        if bind {
            self.bind_console(terminal.as_fd())?;
        }
        rustix::process::setsid().call("setsid", "")?;
        rustix::process::ioctl_tiocsctty(&terminal).call("ioctl", "terminal")?;
        rustix::stdio::dup2_stdin(&terminal).call("dup", "stdin")?;
        rustix::stdio::dup2_stdout(&terminal).call("dup", "stdout")?;
        rustix::stdio::dup2_stderr(&terminal).call("dup", "stderr")?;
        self.send(&Status::Console, Some(master.as_fd()));
        self.has_terminal = true;
        Ok(())
    }

    /// Binds the terminal on /dev/console as well (CVE-2025-52565: never by its path, which may have been replaced).
    fn bind_console(&mut self, terminal: BorrowedFd<'_>) -> Done {
        let copy =
            crate::detached::copy(terminal, &Bytes::from(""), false).call("open_tree", "/dev/console")?;
        let target = self.target(&Bytes::from("/dev/console"), super::path::Target::File, false)?;
        let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
            | rustix::mount::MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        rustix::mount::move_mount(&copy, c"", &target, c"", flags).call("move_mount", "/dev/console")
    }
}
