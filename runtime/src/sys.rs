//! System calls without a safe wrapper in other crates. The only unsafe code of the project.
//!
//! A wrapper takes file descriptors and plain data, adds the flags that must always be set, and returns the errno.

#![allow(unsafe_code, reason = "raw system calls; each block proves its demands")]

mod bpf;
mod clone;
mod mount;
mod network;
mod process;

pub(crate) use bpf::{DeviceProgram, Instruction as BpfInstruction};
pub(crate) use clone::{Child, CloneFlags, clone, clone_sibling, fork, fork_in_container};
pub(crate) use mount::{AttributeChange, map_owners, set_attributes};
pub(crate) use network::bring_up_loopback;
pub(crate) use process::{
    SchedulerAttr, close_all_but, ended_status, exit, ignore_broken_pipes, install_seccomp,
    join_new_session_keyring, keep_only, open_standard_streams, reset_signals, set_io_priority,
    set_memory_policy, set_personality, set_scheduler, signal, signal_child, unshare, wait_pidfd,
};

use rustix::io::Errno;

/// Result of a raw call as a value or errno.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)))
}
