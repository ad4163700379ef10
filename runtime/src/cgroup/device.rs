//! Which devices a container may open: an eBPF program on a version 2 group.
//!
//! Root in a container may make any device node; opening it is what must not work. The filter needs a group
//! of the version 2 hierarchy, but none of its controllers, so it serves version 1 and hybrid machines too.

use crate::sys::{BpfInstruction, DeviceProgram};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// Character devices that may be read and written: major and minor, `None` for every minor.
///
/// Docker's list: null, zero, full, random, urandom, tty, console, ptmx, terminals, tun.
const OPEN: [(i32, Option<i32>); 10] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
    (10, Some(200)),
];

const CHARACTER: i32 = 2;
const MAKE_NODE: i32 = 1;

/// Restricts the devices that processes of a group may open; all may be made.
pub(super) fn restrict(cgroup: BorrowedFd<'_>) -> Result<(), Errno> {
    DeviceProgram::load(&program())?.attach(cgroup)
}

/// The context is `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`; the type's low
/// half is the kind of device, its high half the access.
fn program() -> Vec<BpfInstruction> {
    let load = |register: u8, offset: i16| instruction(0x61, register | 1 << 4, offset, 0);
    let copy = |to: u8, from: u8| instruction(0xbf, to | from << 4, 0, 0);
    let and = |register: u8, mask: i32| instruction(0x57, register, 0, mask);
    let shift_right = |register: u8, bits: i32| instruction(0x77, register, 0, bits);
    let unless_equal = |register: u8, value: i32, skip: i16| instruction(0x55, register, skip, value);
    let answer = |value: i32| [instruction(0xb7, 0, 0, value), instruction(0x95, 0, 0, 0)];

    let mut program = vec![
        load(2, 0),
        load(4, 4),
        load(5, 8),
        copy(3, 2),
        and(2, 0xffff),
        shift_right(3, 16),
        unless_equal(3, MAKE_NODE, 2),
    ];
    program.extend(answer(1));
    // No rule is about block devices.
    program.push(instruction(0x15, 2, 2, CHARACTER));
    program.extend(answer(0));
    for (major, minor) in OPEN {
        let tests = 2 + i16::from(minor.is_some());
        program.push(unless_equal(4, major, tests));
        if let Some(minor) = minor {
            program.push(unless_equal(5, minor, 2));
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> BpfInstruction {
    BpfInstruction { code, registers, offset, immediate }
}
