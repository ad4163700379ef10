//! System call filters: from a profile to a program for the kernel.
//!
//! The kernel runs the program at every call, and at load time once for every call number, so its length
//! counts. Calls with the same outcome form ranges of numbers, and a binary search over the ranges decides
//! in a handful of instructions where a list would need hundreds.
//!
//! What a profile means, where the runtime specification is silent, is what it means to runc and libseccomp:
//!
//! - Calls of an architecture that the profile does not name kill the thread that makes them. The host's
//!   own is always among those named. Architectures that this host cannot run are left out of the program.
//! - A rule whose action is the default one says nothing. Of the others for a call, the first without
//!   conditions counts; if all have conditions, the first whose conditions hold.
//! - All conditions of a rule must hold; but if two of them are about the same argument, then each of the
//!   rule's conditions is a rule of its own, so that any of them suffices.
//! - Arguments are compared as unsigned numbers of 64 bits; on architectures of 32 bits the low halves of
//!   both sides are.
//! - With a default action that does not let the call through, numbers above the highest that the profile
//!   names on an architecture give `ENOSYS`: programs then fall back to older calls.
//! - Where sockets and System V IPC are also reached by `socketcall` and `ipc`, rules for the calls behind
//!   them are also rules for these, with the call's code in place of conditions on the first argument.
//! - Names that no architecture has are left out.

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

/// Why a profile cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// An argument that no call has.
    #[error("the seccomp rule for `{name}` is about argument {index}; calls have arguments 0 to 5")]
    Argument {
        /// The call.
        name: String,
        /// The argument.
        index: usize,
    },
    /// An error number that does not fit.
    #[error("the seccomp rule for `{name}` has errnoRet {errno}, more than fits (65535)")]
    Errno {
        /// The call, or `defaultAction`.
        name: String,
        /// The number.
        errno: u32,
    },
    /// A rule for a call without a name.
    #[error("a seccomp rule names a call with an empty name")]
    EmptyName,
    /// Asking about every call that is not named would ask about those that lead there.
    #[error("SCMP_ACT_NOTIFY cannot be the default action of a seccomp profile")]
    NotifyByDefault,
    /// The new process must write before anybody can answer for it.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    /// Nobody to ask.
    #[error("a seccomp profile with SCMP_ACT_NOTIFY needs a listenerPath")]
    NoListener,
    /// Data for nobody.
    #[error("a seccomp profile with listenerMetadata needs a listenerPath")]
    Metadata,
    /// More instructions than the kernel takes.
    #[error("the seccomp profile compiles to {0} instructions, more than the kernel takes (4096)")]
    TooLong(usize),
    /// A profile in Docker's form that is not what it should be.
    #[error("seccomp profile, line {line}: `{field}`: {message}")]
    Profile {
        /// Counted from 1.
        line: usize,
        /// Which part of the profile, as `syscalls[2].args[0].op`.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A filter, ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Instructions, each as one number: code (16 bits), two distances (8 bits each), constant (32 bits).
    pub program: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_…` bits, without [`NEW_LISTENER`].
    pub flags: u32,
    /// Who is to be asked about calls. Whoever loads the program adds [`NEW_LISTENER`] to the flags, and
    /// passes the descriptor on that he gets.
    pub listener: Option<Listener>,
    /// Names in the profile that no architecture knows, and that were left out.
    pub unknown: Vec<String>,
}

/// Where the descriptor goes by which calls are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A Unix socket.
    pub path: PathBuf,
    /// Passed on with the descriptor.
    pub metadata: Option<String>,
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: loading the program gives a descriptor.
pub const NEW_LISTENER: u32 = 1 << 3;
/// The flags of the default profile, and of those that do not say: `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, as
/// kernels since 5.16 have it anyway.
pub const DEFAULT_FLAGS: u32 = 1 << 2;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

// The default profile as programs: `PROGRAMS: &[(u16, &[u64])]`, by bits of `profile::WITH_CAPABILITY`.
include!(concat!(env!("OUT_DIR"), "/seccomp_programs.rs"));

/// The default profile for a container with the given capabilities (bit mask), as a program.
///
/// For the usual sets it was compiled when this crate was.
pub fn default_program(capabilities: u64) -> Vec<u64> {
    let capabilities = relevant(capabilities);
    match PROGRAMS.iter().find(|(known, _)| *known == capabilities) {
        Some((_, program)) => program.to_vec(),
        None => profile::filter(capabilities, native()).compile().instructions,
    }
}

/// Compiles a profile in the OCI runtime specification's form.
pub fn compile_profile(profile: &LinuxSeccomp) -> Result<Compiled, SeccompError> {
    oci::compile(profile, native())
}

/// What a profile asks for besides a program: all that can be wrong with it but its length is told here, in a fraction of
/// the time.
pub(crate) fn check_profile(profile: &LinuxSeccomp) -> Result<Checked, SeccompError> {
    oci::check(profile, native())
}

/// A profile that makes sense.
pub(crate) struct Checked {
    /// As in [`Compiled`].
    pub(crate) flags: u32,
    /// Somebody is asked about calls.
    pub(crate) listens: bool,
}

/// The capabilities that open calls, each with a bit as in `profile::WITH_CAPABILITY`.
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
