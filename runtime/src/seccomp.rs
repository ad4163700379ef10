//! System call filters: from a profile to a program for the kernel.
//!
//! The kernel runs the program at every call, and at load time once for every call number, so its length matters. Calls
//! with the same outcome form ranges of numbers, and a binary search over the ranges decides in a handful of
//! instructions where a list would need hundreds.
//!
//! Where the runtime specification is silent, a profile has the same meaning as with runc and libseccomp:
//!
//! - Calls of an architecture that the profile does not name kill the calling thread. The host's own architecture is
//!   always included. Architectures that this host cannot run are left out of the program.
//! - A rule whose action is the default action is ignored. Of the other rules for a call, the first without conditions
//!   counts; if all have conditions, the first whose conditions hold.
//! - All conditions of a rule must hold; but if two of them are about the same argument, then each of the rule's
//!   conditions is a separate rule, so that any of them suffices.
//! - Arguments are compared as unsigned 64-bit numbers; on 32-bit architectures the low halves of both sides are
//!   compared.
//! - With a default action that does not let the call through, numbers above the highest that the profile names on an
//!   architecture fail with `ENOSYS`: programs then fall back to older calls.
//! - Where sockets and System V IPC are also reached by `socketcall` and `ipc`, rules for the individual calls are also
//!   rules for these, with the call's code in place of conditions on the first argument.
//! - Names that no architecture has are ignored.

mod architecture;
mod assemble;
mod compile;
mod docker;
mod numbers;
mod oci;
mod profile;
mod rule;

use crate::capability;
use architecture::Architecture;
use oci_spec::runtime::LinuxSeccomp;
use std::path::PathBuf;

pub use docker::docker_profile;

/// Failure to compile a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// An argument index above 5.
    #[error("the seccomp rule for `{name}` is about argument {index}; calls have arguments 0 to 5")]
    Argument {
        /// Name of the call.
        name: String,
        /// Index of the argument.
        index: usize,
    },
    /// An errno above the 16 bits of a return value.
    #[error("the seccomp rule for `{name}` has errnoRet {errno}, more than fits (65535)")]
    Errno {
        /// Name of the call, or `defaultAction`.
        name: String,
        /// Value of the field `errnoRet`.
        errno: u32,
    },
    /// A rule for a call with an empty name.
    #[error("a seccomp rule names a call with an empty name")]
    EmptyName,
    /// Default action `SCMP_ACT_NOTIFY`: it would also apply to the calls that pass the listener on.
    #[error("SCMP_ACT_NOTIFY cannot be the default action of a seccomp profile")]
    NotifyByDefault,
    /// `SCMP_ACT_NOTIFY` for write: the new process must write before its listener is served.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// `SCMP_ACT_NOTIFY` without a listener socket.
    #[error("a seccomp profile with SCMP_ACT_NOTIFY needs a listenerPath")]
    NoListener,
    /// Listener metadata without a listener socket.
    #[error("a seccomp profile with listenerMetadata needs a listenerPath")]
    Metadata,
    /// More instructions than the kernel accepts.
    #[error("the seccomp profile compiles to {0} instructions, more than the kernel takes (4096)")]
    TooLong(usize),
    /// An invalid profile in Docker's format.
    #[error("seccomp profile, line {line}: `{field}`: {message}")]
    Profile {
        /// Line number, counted from 1.
        line: usize,
        /// Position in the profile, such as `syscalls[2].args[0].op`.
        field: String,
        /// Description of the error.
        message: String,
    },
}

/// A compiled filter for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Instructions, each as one number: code (16 bits), two distances (8 bits each), constant (32 bits).
    pub program: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_…` bits, without [`NEW_LISTENER`].
    pub flags: u32,
    /// Listener for calls; `None` without one. The process that loads the program adds [`NEW_LISTENER`] to the flags,
    /// and passes on the file descriptor that the kernel returns.
    pub listener: Option<Listener>,
    /// Names in the profile that no architecture has, and that were ignored.
    pub unknown: Vec<String>,
}

/// Receiver of the file descriptor through which calls are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Path of a Unix socket.
    pub path: PathBuf,
    /// Metadata that is sent with the file descriptor; `None` for none.
    pub metadata: Option<String>,
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: loading the program returns a file descriptor.
pub const NEW_LISTENER: u32 = 1 << 3;
/// Flags of the default profile, and of profiles without flags: `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, the default of
/// kernels since 5.16 anyway.
pub const DEFAULT_FLAGS: u32 = 1 << 2;

/// Maximum number of instructions that the kernel accepts (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

// The default profile as programs: `PROGRAMS: &[(u16, &[u64])]`, by bits of `profile::WITH_CAPABILITY`.
include!(concat!(env!("OUT_DIR"), "/seccomp_programs.rs"));

/// Program of the default profile for a container with these capabilities (bit mask).
///
/// For the usual sets it was compiled together with this crate.
pub fn default_program(capabilities: u64) -> Vec<u64> {
    let capabilities = relevant(capabilities);
    match PROGRAMS.iter().find(|(known, _)| *known == capabilities) {
        Some((_, program)) => program.to_vec(),
        None => profile::filter(capabilities, native()).compile().instructions,
    }
}

/// Compiles a profile in the format of the OCI runtime specification.
///
/// # Errors
/// Fails for invalid profiles, and for those that compile to more instructions than the kernel accepts.
pub fn compile_profile(profile: &LinuxSeccomp) -> Result<Compiled, SeccompError> {
    oci::compile(profile, native())
}

/// Checks a profile without compiling it, in a fraction of the time: finds all errors except an excessive length.
pub(crate) fn check_profile(profile: &LinuxSeccomp) -> Result<Checked, SeccompError> {
    oci::check(profile, native())
}

/// Flags and listener of a valid profile.
pub(crate) struct Checked {
    /// Flags as in [`Compiled`].
    pub(crate) flags: u32,
    /// True when the profile has a listener for calls.
    pub(crate) listens: bool,
}

/// Capabilities that allow further calls, as bits of `profile::WITH_CAPABILITY`.
fn relevant(capabilities: u64) -> u16 {
    let bits = profile::WITH_CAPABILITY.iter().enumerate().map(|(index, (name, _))| {
        let bit = capability::bit(name).expect("the profile names capabilities that exist");
        u16::from(capabilities & (1 << bit) != 0) << index
    });
    bits.sum()
}

fn native() -> Architecture {
    Architecture::named(std::env::consts::ARCH).expect("build.rs refuses architectures without a table")
}

#[cfg(test)]
mod tests;
