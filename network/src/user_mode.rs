//! Network without privileges: pasta or slirp4netns connects a network namespace through the sockets of an ordinary
//! user.
//!
//! Pasta is preferred: it is faster, and a published port's connections keep their source address. The invocation is
//! planned as data first. The program ends with its handle, and slirp4netns also when this process is killed. Pasta
//! does not notice that; from 2024 on it ends when the path of the namespace is removed, earlier versions keep the
//! namespace and go on running.

use super::config::{Binding, Protocol};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use tracing::debug;

/// Name of the interface in the namespace.
const INTERFACE: &str = "eth0";
/// MTU in bytes; the largest makes the network several times as fast.
const MTU: u32 = 65520;

/// Program that connects the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Program of the package `passt`.
    Pasta,
    /// Program of the package `slirp4netns`.
    Slirp4netns,
}

impl Program {
    /// Name of the executable.
    pub fn name(self) -> &'static str {
        match self {
            Program::Pasta => "pasta",
            Program::Slirp4netns => "slirp4netns",
        }
    }

    /// First of both programs that is installed, and its path.
    ///
    /// # Errors
    /// [`UserModeError::Missing`] when neither is installed.
    pub fn find() -> Result<(Program, PathBuf), UserModeError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        for program in [Program::Pasta, Program::Slirp4netns] {
            let place = dirs.iter().map(|dir| dir.join(program.name())).find(|path| path.is_file());
            if let Some(place) = place {
                debug!(path = %place.display(), "program for networks in user mode");
                return Ok((program, place));
            }
        }
        Err(UserModeError::Missing)
    }

    /// Address under which the namespace reaches name servers of the host.
    pub fn name_server(self) -> IpAddr {
        IpAddr::V4(match self {
            Program::Pasta => Ipv4Addr::new(169, 254, 1, 1),
            Program::Slirp4netns => Ipv4Addr::new(10, 0, 2, 3),
        })
    }
}

/// Configuration of the network. Plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserModeConfig {
    /// Path of the network namespace, as `/proc/<pid>/ns/net`.
    pub namespace: PathBuf,
    /// User namespace that owns it; `None` for this process's.
    pub user_namespace: Option<PathBuf>,
    /// Ports of the host that are mapped into the namespace.
    pub ports: Vec<Binding>,
    /// Directory below `/run` for a socket on which slirp4netns takes requests for ports: in its sandbox no other
    /// directory is writable.
    pub dir: PathBuf,
}

/// Reason why the network cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UserModeError {
    /// Neither program is installed.
    #[error(
        "a network without privileges needs pasta (package `passt`) or slirp4netns (package `slirp4netns`), and neither is installed"
    )]
    Missing,
    /// The program cannot be run.
    #[error("cannot run `{program}`", program = program.display())]
    Run {
        /// Path of the program.
        program: PathBuf,
        /// Cause of the failure.
        #[source]
        source: io::Error,
    },
    /// The program ended before it was ready.
    #[error("`{program}` cannot set up the network: {said}")]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// Last line of its error output.
        said: String,
    },
    /// A port cannot be published.
    #[error("`{program}` cannot publish port {port}/{protocol}: {source}")]
    Port {
        /// Name of the program.
        program: &'static str,
        /// Port of the host.
        port: u16,
        /// Transport protocol of the port.
        protocol: Protocol,
        /// Its error about the port.
        source: PortError,
    },
}

/// Reason why slirp4netns publishes no port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The exchange with the program failed.
    #[error("{0}")]
    Exchange(#[from] io::Error),
    /// The response is not JSON.
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
    /// The program's error message.
    #[error("{0}")]
    Refused(String),
}

/// Invocation of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Arguments of the program.
    pub arguments: Vec<OsString>,
    /// Requests to send when it is ready, each a line of JSON.
    pub requests: Vec<(Binding, String)>,
}

/// Plans the invocation of a program. The program writes to its standard output when it is ready.
pub fn plan(program: Program, config: &UserModeConfig) -> Invocation {
    match program {
        Program::Pasta => Invocation { arguments: pasta(config), requests: Vec::new() },
        Program::Slirp4netns => {
            let requests = config.ports.iter().flat_map(host_forwards).collect();
            Invocation { arguments: slirp4netns(config), requests }
        }
    }
}

fn pasta(config: &UserModeConfig) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    add(&["--config-net", "--quiet", "--foreground"]);
    // The program writes its pid when all is set up.
    add(&["--pid", "/dev/stdout"]);
    add(&["--ns-ifname", INTERFACE, "--mtu", &MTU.to_string()]);
    // The namespace does not reach the host's loopback, nor the host the namespace's.
    add(&["--no-map-gw", "--tcp-ns", "none", "--udp-ns", "none"]);
    add(&["--dns-forward", &Program::Pasta.name_server().to_string()]);
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let bindings: Vec<&Binding> =
            config.ports.iter().filter(|binding| binding.protocol == protocol).collect();
        if bindings.is_empty() {
            add(&[option, "none"]);
        }
        for binding in bindings {
            add(&[option, &port_specification(binding)]);
        }
    }
    if let Some(user) = &config.user_namespace {
        arguments.extend(["--userns".into(), user.into()]);
    }
    arguments.extend(["--netns".into(), (&config.namespace).into()]);
    arguments
}

/// Port option in the form `[address/]first[-last][:first[-last]]`.
fn port_specification(binding: &Binding) -> String {
    let range = |first: u16| match binding.count {
        0 | 1 => first.to_string(),
        count => format!("{first}-{}", first.saturating_add(count - 1)),
    };
    let address = match binding.host_address {
        address if address.is_unspecified() => String::new(),
        address => format!("{address}/"),
    };
    format!("{address}{}:{}", range(binding.host_port), range(binding.container_port))
}

fn slirp4netns(config: &UserModeConfig) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["--configure", "--enable-ipv6", "--disable-host-loopback", "--enable-seccomp"]
            .map(OsString::from)
            .to_vec();
    arguments.push(format!("--mtu={MTU}").into());
    // Standard output signals readiness, and the end of standard input stops the program.
    arguments.extend(["--ready-fd=1".into(), "--exit-fd=0".into()]);
    if !config.ports.is_empty() {
        arguments.extend(["--api-socket".into(), socket(config).into()]);
    }
    if let Some(user) = &config.user_namespace {
        let mut argument = OsString::from("--userns-path=");
        argument.push(user);
        arguments.push(argument);
    } else {
        // Its sandbox needs root's capabilities, which it has only in the user namespace of the caller.
        arguments.push("--enable-sandbox".into());
    }
    arguments.extend(["--netns-type=path".into(), (&config.namespace).into(), INTERFACE.into()]);
    arguments
}

fn socket(config: &UserModeConfig) -> PathBuf {
    config.dir.join("slirp.sock")
}

/// Requests for the ports of a binding.
fn host_forwards(binding: &Binding) -> Vec<(Binding, String)> {
    let request = |(host_port, guest_port): (u16, u16)| {
        let request = json!({
            "execute": "add_hostfwd",
            "arguments": {
                "proto": binding.protocol.to_string(),
                "host_addr": binding.host_address.to_string(),
                "host_port": host_port,
                "guest_port": guest_port,
            }
        });
        (Binding { host_port, container_port: guest_port, count: 1, ..*binding }, request.to_string())
    };
    binding.ports().map(request).collect()
}

/// Running program. It is stopped when this is dropped.
#[derive(Debug)]
pub struct UserMode {
    program: Program,
    child: Child,
}

impl UserMode {
    /// Runs the installed program, and waits until the namespace is connected.
    ///
    /// # Errors
    /// [`UserModeError::Missing`] when no program is installed, and those of [`UserMode::start_with`].
    pub fn start(config: &UserModeConfig) -> Result<UserMode, UserModeError> {
        let (program, place) = Program::find()?;
        UserMode::start_with(program, &place, config)
    }

    /// Runs the executable at `place`, and waits until the namespace is connected.
    ///
    /// # Errors
    /// [`UserModeError::Failed`] with the program's message, and [`UserModeError::Port`] when slirp4netns refuses a
    /// port.
    pub fn start_with(
        program: Program,
        place: &Path,
        config: &UserModeConfig,
    ) -> Result<UserMode, UserModeError> {
        let invocation = plan(program, config);
        let failed = |source| UserModeError::Run { program: place.to_owned(), source };
        // A file and not a pipe: no process reads it while the program runs.
        let said = rustix::fs::memfd_create("said", rustix::fs::MemfdFlags::CLOEXEC);
        let said = File::from(said.map_err(|errno: Errno| failed(errno.into()))?);
        let child = Command::new(place)
            .args(&invocation.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said.try_clone().map_err(failed)?)
            .spawn();
        let mut running = UserMode { program, child: child.map_err(failed)? };
        let ready = running.child.stdout.take();
        if !ready.is_some_and(is_ready) {
            return Err(UserModeError::Failed { program: program.name(), said: text_of(said) });
        }
        for (binding, request) in &invocation.requests {
            running.ask(&socket(config), request).map_err(|source| UserModeError::Port {
                program: program.name(),
                port: binding.host_port,
                protocol: binding.protocol,
                source,
            })?;
        }
        Ok(running)
    }

    /// Sends one request to slirp4netns, and fails when it is refused.
    fn ask(&self, socket: &Path, request: &str) -> Result<(), PortError> {
        let exchange = || -> io::Result<String> {
            let mut stream = self.reach(socket)?;
            stream.write_all(request.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer: serde_json::Value = serde_json::from_str(&exchange()?)?;
        match answer.get("error") {
            None => Ok(()),
            Some(error) => {
                let text = error.get("desc").and_then(|desc| desc.as_str()).unwrap_or("refused");
                Err(PortError::Refused(text.to_owned()))
            }
        }
    }

    /// Connects to the program's socket, which it creates only after it has reported readiness.
    fn reach(&self, socket: &Path) -> io::Result<UnixStream> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        loop {
            match UnixStream::connect(socket) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
                {
                    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
                    let pause = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                    if rustix::event::poll(&mut ended, Some(&pause)).is_ok_and(|ready| ready > 0) {
                        return Err(error);
                    }
                }
                connected => return connected,
            }
        }
    }

    /// Program that was started.
    pub fn program(&self) -> Program {
        self.program
    }
}

impl Drop for UserMode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the program writes something; returns false at the end of its output.
fn is_ready(mut output: ChildStdout) -> bool {
    loop {
        match output.read(&mut [0; 32]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read.is_ok_and(|length| length > 0),
        }
    }
}

/// Last line of the program's error output.
fn text_of(mut said: File) -> String {
    let mut text = String::new();
    let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
    let last = text.lines().rev().find(|line| !line.trim().is_empty() && !line.contains("syslog"));
    last.unwrap_or("it ended without a word").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> UserModeConfig {
        let binding = |address: &str, host_port, container_port, count, protocol| Binding {
            host_address: address.parse().unwrap(),
            host_port,
            container_port,
            count,
            protocol,
        };
        UserModeConfig {
            namespace: "/proc/7/ns/net".into(),
            user_namespace: Some("/proc/7/ns/user".into()),
            ports: vec![
                binding("0.0.0.0", 8080, 80, 1, Protocol::Tcp),
                binding("127.0.0.1", 9000, 7000, 3, Protocol::Tcp),
            ],
            dir: "/run/x".into(),
        }
    }

    fn words(program: Program) -> String {
        let words = plan(program, &config()).arguments;
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pasta_is_told_all_at_once() {
        assert_eq!(
            words(Program::Pasta),
            "--config-net --quiet --foreground --pid /dev/stdout --ns-ifname eth0 --mtu 65520 --no-map-gw \
             --tcp-ns none --udp-ns none --dns-forward 169.254.1.1 --tcp-ports 8080:80 \
             --tcp-ports 127.0.0.1/9000-9002:7000-7002 --udp-ports none --userns /proc/7/ns/user \
             --netns /proc/7/ns/net"
        );
        assert_eq!(plan(Program::Pasta, &config()).requests, []);
    }

    #[test]
    fn slirp4netns_is_asked_for_each_port() {
        assert_eq!(
            words(Program::Slirp4netns),
            "--configure --enable-ipv6 --disable-host-loopback --enable-seccomp \
             --mtu=65520 --ready-fd=1 --exit-fd=0 --api-socket /run/x/slirp.sock \
             --userns-path=/proc/7/ns/user --netns-type=path /proc/7/ns/net eth0"
        );
        let requests = plan(Program::Slirp4netns, &config()).requests;
        assert_eq!(requests.len(), 4);
        let expected = json!({
            "execute": "add_hostfwd",
            "arguments": {"proto": "tcp", "host_addr": "127.0.0.1", "host_port": 9002, "guest_port": 7002}
        });
        assert_eq!(requests[3].1, expected.to_string());
    }
}
