//! Loading device filters into the kernel and attaching them to cgroups.

use super::check;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;

/// One eBPF instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Operation code of the instruction.
    pub(crate) code: u8,
    /// Source register in the high, destination in the low four bits.
    pub(crate) registers: u8,
    /// Offset of a jump or memory access.
    pub(crate) offset: i16,
    /// Constant operand of the operation.
    pub(crate) immediate: i32,
}

/// A loaded program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
#[derive(Debug)]
pub(crate) struct DeviceProgram(OwnedFd);

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

impl DeviceProgram {
    /// Lets the kernel check and load a program.
    pub(crate) fn load(instructions: &[Instruction]) -> Result<DeviceProgram, Errno> {
        let mut attr = LoadAttr {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_count: u32::try_from(instructions.len()).map_err(|_| Errno::INVAL)?,
            insns: instructions.as_ptr() as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..LoadAttr::default()
        };
        // SAFETY: `attr` is a live prefix of `bpf_attr` of the size given; its pointers lead to `insn_count`
        // instructions and to a C string, and both outlive the call.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                std::ptr::from_mut(&mut attr),
                std::mem::size_of::<LoadAttr>(),
            )
        })?;
        // SAFETY: the call returned a new file descriptor without another owner.
        Ok(DeviceProgram(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Attaches the program to a cgroup v2 directory.
    pub(crate) fn attach(&self, cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut attr = AttachAttr {
            target_fd: cgroup.as_raw_fd() as u32,
            attach_bpf_fd: self.0.as_raw_fd() as u32,
            attach_type: BPF_CGROUP_DEVICE,
            attach_flags: BPF_F_ALLOW_MULTI,
        };
        // SAFETY: `attr` is a live prefix of `bpf_attr` of the size given and holds no pointers.
        check(unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_ATTACH,
                std::ptr::from_mut(&mut attr),
                std::mem::size_of::<AttachAttr>(),
            )
        })
        .map(drop)
    }
}
