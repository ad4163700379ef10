//! Execution of the container's program.

use super::Init;
use crate::op::{Bytes, SetupError, Stage, describe_errno};
use crate::sys;
use nix::errno::Errno;
use rustix::fd::{AsFd, IntoRawFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

/// Search path for an environment without `PATH`, as in the reference engine.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Init {
    /// Replaces this process by the program; returns only an error.
    pub(super) fn exec(&mut self) -> SetupError {
        if let Err(error) = self.prepare_exec() {
            return error;
        }
        if self.dies_with_parent {
            // A change of user has cleared this setting.
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        }
        let Some(program) = self.arguments.first() else {
            return error("exec", Bytes::from(""), Errno::ENOENT as i32);
        };
        let argv: Vec<CString> = self.arguments.iter().map(Bytes::to_c_string).collect();
        let envp: Vec<CString> = self.environment.iter().map(Bytes::to_c_string).collect();
        let mut failure = Errno::ENOENT;
        for candidate in self.candidates(program) {
            let errno = if self.by_handle {
                exec_by_handle(&candidate, &argv, &envp)
            } else {
                // Returns only on failure.
                let Err(errno) = nix::unistd::execve(&candidate, &argv, &envp);
                errno
            };
            match errno {
                Errno::ENOENT if exists(&candidate) => {
                    return no_interpreter(program, &candidate);
                }
                Errno::ENOENT | Errno::ENOTDIR => {}
                // A file on the search path without execute permission does not end the search.
                Errno::EACCES => failure = errno,
                Errno::ENOEXEC => return not_executable(program, &candidate),
                _ => return error("exec", program.clone(), errno as i32),
            }
        }
        error("exec", program.clone(), failure as i32)
    }

    /// Prepares exec as far as that needs no user: before a filter is loaded, which may forbid it.
    pub(super) fn prepare_exec(&mut self) -> Result<(), SetupError> {
        if std::mem::replace(&mut self.is_prepared, true) {
            return Ok(());
        }
        if !self.has_terminal {
            // Signals of the caller's terminal are not meant for the container.
            let _ = rustix::process::setsid();
        }
        // No later operation writes below /proc.
        self.proc = None;
        sys::reset_signals()
            .and_then(|()| self.let_go())
            .map_err(|errno| error("close_range", Bytes::from(""), errno.raw_os_error()))
    }

    /// Closes all file descriptors but those of the program, the status socket, the root, which leads no further than
    /// `/` does, and those that are still to be written to.
    ///
    /// Must precede the lookup of the program, whose path, or that of its interpreter, may lead over `/proc/self/fd`
    /// (CVE-2024-21626).
    pub(super) fn let_go(&mut self) -> Result<(), rustix::io::Errno> {
        let gate = self.gate.take();
        let covers = [&mut self.empty, &mut self.null]
            .map(|covers| std::mem::take(covers).into_handles())
            .into_iter()
            .flatten();
        let dir = self.dir.take().map(|dir| dir.handle);
        for handle in self.slots.drain(..).chain(self.left.drain(..)).chain(covers).chain(dir) {
            // Closed together by the next call.
            let _ = handle.into_raw_fd();
        }
        let kept: Vec<_> = [Some(&self.status), gate.as_ref(), self.root.as_ref(), self.proc.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect();
        sys::close_all_but(3 + self.kept_fds, &kept)?;
        self.gate = gate;
        Ok(())
    }

    /// Checks that the program exists, as seen by root.
    pub(super) fn find_program(&self) -> Result<(), SetupError> {
        let Some(program) = self.arguments.first() else {
            return Err(error("exec", Bytes::from(""), Errno::ENOENT as i32));
        };
        if program.0.contains(&b'/') && !program.0.starts_with(b"/") {
            // A path relative to the working directory, which is entered later.
            return Ok(());
        }
        let mut failure = Errno::ENOENT;
        for candidate in self.candidates(program) {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
            let Ok(file) = rustix::fs::open(&candidate, flags, rustix::fs::Mode::empty()) else { continue };
            let Ok(stat) = rustix::fs::fstat(&file) else { continue };
            let is_file =
                rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
            if is_file && stat.st_mode & 0o111 != 0 {
                return Ok(());
            }
            failure = Errno::EACCES;
        }
        Err(error("exec", program.clone(), failure as i32))
    }

    /// Files to try for `program`: the path itself when it contains a slash, otherwise one in each directory of PATH.
    fn candidates(&self, program: &Bytes) -> Vec<CString> {
        if program.0.contains(&b'/') || program.0.is_empty() {
            return vec![program.to_c_string()];
        }
        let path = self.environment.iter().rev().find_map(|entry| entry.0.strip_prefix(b"PATH="));
        let dirs = path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
        dirs.map(|dir| {
            let dir = if dir.is_empty() { b"." } else { dir };
            Bytes([dir, b"/", &program.0].concat()).to_c_string()
        })
        .collect()
    }
}

/// Maximum depth of interpreters of interpreters, as in Linux.
const MAX_INTERPRETERS: usize = 5;

/// Executes a file without another path lookup: by a file descriptor that is closed by exec, for which the kernel
/// starts no interpreter (execveat(2)). Interpreters named by the file are resolved here, and over no magic link.
///
/// Returns the errno of the failure.
fn exec_by_handle(file: &CString, argv: &[CString], envp: &[CString]) -> Errno {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    let open = |path: &CString, flags: OFlags| {
        rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    };
    let (mut file, mut argv) = (file.clone(), argv.to_vec());
    for _ in 0..MAX_INTERPRETERS {
        let handle = match open(&file, OFlags::PATH) {
            Ok(handle) => handle,
            Err(errno) => return errno,
        };
        // Returns only on failure.
        let by_handle = nix::fcntl::AtFlags::AT_EMPTY_PATH;
        let Err(errno) = nix::unistd::execveat(&handle, c"", &argv, envp, by_handle);
        if errno != Errno::ENOENT {
            return errno;
        }
        let mut head = [0u8; 256];
        let length = match open(&file, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(readable) => rustix::io::read(&readable, &mut head).unwrap_or(0),
            Err(errno) => return errno,
        };
        let Some((interpreter, argument)) = interpreter(&head[..length]) else { return errno };
        let mut words = vec![interpreter.clone()];
        words.extend(argument);
        words.push(std::mem::replace(&mut file, interpreter));
        words.extend(argv.into_iter().skip(1));
        argv = words;
    }
    Errno::ELOOP
}

/// Interpreter in a script's first line, and its one argument; `None` when the file is not a script.
fn interpreter(head: &[u8]) -> Option<(CString, Option<CString>)> {
    let line = head.strip_prefix(b"#!")?;
    let line = trim(line.split(|byte| *byte == b'\n').next()?);
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | 0)).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = trim(argument);
    let text = |bytes: &[u8]| Bytes(bytes.to_vec()).to_c_string();
    (!interpreter.is_empty()).then(|| (text(interpreter), (!argument.is_empty()).then(|| text(argument))))
}

/// Trims blanks and tabs only, as the kernel does: a carriage return is part of the name.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn exists(file: &CStr) -> bool {
    rustix::fs::stat(file).is_ok()
}

/// Error for a program that exists while exec fails with `ENOENT`: its interpreter is missing.
fn no_interpreter(program: &Bytes, file: &CStr) -> SetupError {
    const LONGEST: usize = 256;
    let mut head = [0u8; LONGEST];
    let opened = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let length = opened.and_then(|file| rustix::io::read(&file, &mut head)).unwrap_or(0);
    let line = head[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let named = line.strip_prefix(b"#!").map(|rest| String::from_utf8_lossy(rest).into_owned());
    let missing = match &named {
        Some(line) => {
            let interpreter = line.split_whitespace().next().unwrap_or_default();
            let carriage = if line.ends_with('\r') { " (the line ends with a carriage return)" } else { "" };
            format!("its interpreter {interpreter:?} does not exist{carriage}")
        }
        None => "the loader that it names (the dynamic linker) does not exist".to_owned(),
    };
    failed(program, Errno::ENOENT, &missing)
}

/// Error for a file of a format that the kernel does not execute.
fn not_executable(program: &Bytes, file: &CStr) -> SetupError {
    failed(program, Errno::ENOEXEC, &why_not_executable(OsStr::from_bytes(file.to_bytes())))
}

fn failed(program: &Bytes, errno: Errno, reason: &str) -> SetupError {
    let name = String::from_utf8_lossy(&program.0).into_owned();
    SetupError {
        stage: Stage::Exec,
        call: "exec".to_owned(),
        on: program.clone(),
        errno: errno as i32,
        message: Some(format!("exec: {name:?}: {reason}")),
    }
}

/// Message for `ENOEXEC`: the usual text that users search for, and the cause.
pub(crate) fn why_not_executable(file: &OsStr) -> String {
    const LONGEST: usize = 256;
    let mut head = [0u8; LONGEST];
    let opened = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let length = opened.and_then(|file| rustix::io::read(&file, &mut head));
    match length {
        Ok(length) => format!("exec format error: {}", nature(&head[..length])),
        Err(_) => "exec format error".to_owned(),
    }
}

/// Format of a file that the kernel does not execute, by its first bytes.
fn nature(head: &[u8]) -> String {
    match head {
        [] => "the file is empty".to_owned(),
        [0x7f, b'E', b'L', b'F', ..] => elf_nature(head),
        [b'M', b'Z', ..] => "it is a program for Windows".to_owned(),
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "it is a program for macOS".to_owned(),
        [b'#', b'!', ..] => match interpreter(head) {
            Some((interpreter, _)) => {
                format!("the interpreter {interpreter:?} of its first line cannot be executed")
            }
            None => "its first line `#!` names no interpreter".to_owned(),
        },
        [0xef, 0xbb, 0xbf, b'#', b'!', ..] => {
            "a byte order mark stands before its first line `#!`: save it without one".to_owned()
        }
        _ if head.iter().all(|byte| !matches!(byte, 0..=8 | 14..=26 | 28..=31)) => {
            "it is a text whose first line is not `#!` with an interpreter, such as #!/bin/sh".to_owned()
        }
        _ => "it is not a program".to_owned(),
    }
}

/// Machine numbers in ELF headers (elf.h), with the usual names of the architectures.
const MACHINES: [(u16, &str); 9] = [
    (3, "386"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

fn elf_nature(head: &[u8]) -> String {
    let machine = |head: &[u8]| {
        let bytes = [*head.get(18)?, *head.get(19)?];
        Some(if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let name = |machine: u16| {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        known.map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).to_owned())
    };
    let own = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => 0,
    };
    match machine(head) {
        None => "the program is cut off".to_owned(),
        Some(machine) if machine == own => "the program is damaged".to_owned(),
        Some(machine) => format!("it is a program for {}, this host is {}", name(machine), name(own)),
    }
}

/// Error with the usual text that users search for.
fn error(call: &str, on: Bytes, errno: i32) -> SetupError {
    let name = String::from_utf8_lossy(&on.0).into_owned();
    let reason = match Errno::from_raw(errno) {
        Errno::ENOENT if call == "exec" && !name.contains('/') => {
            "executable file not found in $PATH".to_owned()
        }
        Errno::ENOENT if call == "exec" => format!("stat {name}: no such file or directory"),
        _ => describe_errno(errno),
    };
    let message = (call == "exec").then(|| format!("exec: {name:?}: {reason}"));
    SetupError { stage: Stage::Exec, call: call.to_owned(), on, errno, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_run_are_named_for_what_they_are() {
        let mut elf = [0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let program = |machine: u16, big: bool| {
            let mut elf = elf;
            elf[5] = if big { 2 } else { 1 };
            let bytes = if big { machine.to_be_bytes() } else { machine.to_le_bytes() };
            elf[18..20].copy_from_slice(&bytes);
            nature(&elf)
        };
        assert!(program(183, false).contains("program for arm64") || cfg!(target_arch = "aarch64"));
        assert!(program(22, true).contains("program for s390x, this host is "));
        assert!(program(9999, false).contains("machine 9999"));
        assert_eq!(nature(b"\x7fELF\x02\x01"), "the program is cut off");
        for (head, expected) in [
            (&b""[..], "empty"),
            (b"echo hi\n", "#!/bin/sh"),
            ("écho\n".as_bytes(), "#!/bin/sh"),
            (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
            (b"#!\n", "names no interpreter"),
            (b"#!/bin/x\n", "interpreter \"/bin/x\""),
            (b"MZ\0\0", "Windows"),
            (b"\xcf\xfa\xed\xfe", "macOS"),
            (b"\x01\x02\x03", "not a program"),
        ] {
            let found = nature(head);
            assert!(found.contains(expected), "{head:?}: {found}");
        }
    }

    #[test]
    fn scripts_name_their_interpreters() {
        let check = |head: &str, expected: Option<(&str, Option<&str>)>| {
            let found = interpreter(head.as_bytes());
            let found = found.as_ref().map(|(path, argument)| {
                (path.to_str().unwrap(), argument.as_ref().map(|argument| argument.to_str().unwrap()))
            });
            assert_eq!(found, expected, "{head:?}");
        };
        check("#!/bin/sh\necho", Some(("/bin/sh", None)));
        check("#! /usr/bin/env  -S a b \n", Some(("/usr/bin/env", Some("-S a b"))));
        check("#!/bin/sh", Some(("/bin/sh", None)));
        check("#!/bin/sh\r\n", Some(("/bin/sh\r", None)));
        check("#!\n", None);
        check("#! ", None);
        check("\u{7f}ELF", None);
        check("", None);
    }
}
