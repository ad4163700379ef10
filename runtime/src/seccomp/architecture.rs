//! Architectures, and the numbers of calls on each.

use super::numbers::NUMBERS;

/// An architecture with a table of calls, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    X86,
    X32,
    Arm64,
    Arm,
    Riscv64,
    Loongarch64,
    Ppc64le,
    S390x,
    S390,
}

impl Architecture {
    /// Architecture by its name in Rust; `None` for those without a table.
    pub(super) fn named(name: &str) -> Option<Architecture> {
        Some(match name {
            "x86_64" => Architecture::X86_64,
            "x86" => Architecture::X86,
            "aarch64" => Architecture::Arm64,
            "arm" => Architecture::Arm,
            "riscv64" => Architecture::Riscv64,
            "loongarch64" => Architecture::Loongarch64,
            "powerpc64" => Architecture::Ppc64le,
            "s390x" => Architecture::S390x,
            _ => return None,
        })
    }

    /// Architectures whose calls a host of this architecture accepts besides its own.
    pub(super) fn secondary(self) -> &'static [Architecture] {
        match self {
            Architecture::X86_64 => &[Architecture::X86, Architecture::X32],
            Architecture::Arm64 => &[Architecture::Arm],
            Architecture::S390x => &[Architecture::S390],
            _ => &[],
        }
    }

    /// `AUDIT_ARCH_…` constant; x32 has that of x86-64.
    pub(super) fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 | Architecture::X32 => 0xc000_003e,
            Architecture::X86 => 0x4000_0003,
            Architecture::Arm64 => 0xc000_00b7,
            Architecture::Arm => 0x4000_0028,
            Architecture::Riscv64 => 0xc000_00f3,
            Architecture::Loongarch64 => 0xc000_0102,
            Architecture::Ppc64le => 0xc000_0015,
            Architecture::S390x => 0x8000_0016,
            Architecture::S390 => 0x0000_0016,
        }
    }

    /// True when arguments have 64 bits.
    pub(super) fn is_wide(self) -> bool {
        !matches!(self, Architecture::X86 | Architecture::X32 | Architecture::Arm | Architecture::S390)
    }

    pub(super) fn is_big_endian(self) -> bool {
        matches!(self, Architecture::S390x | Architecture::S390)
    }

    /// True when socket and System V calls can also be made through `socketcall` and `ipc`.
    pub(super) fn is_multiplexed(self) -> bool {
        use Architecture::{Ppc64le, S390, S390x, X86};
        matches!(self, X86 | Ppc64le | S390x | S390)
    }

    /// Number of a call by its index in the table, for x32 without its bit; `None` when the architecture lacks the
    /// call.
    pub(super) fn number(self, call: usize) -> Option<u32> {
        u32::try_from(NUMBERS[call].1[self as usize]).ok()
    }
}

/// Index of a call in the table; `None` for unknown names.
pub(super) fn call(name: &str) -> Option<usize> {
    NUMBERS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()
}

/// Calls that `socketcall` multiplexes, by its first argument (`SYS_…` of `linux/net.h`).
pub(super) const SOCKET_CALLS: [(&str, u32); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// Calls that `ipc` multiplexes, by its first argument (`linux/ipc.h`).
pub(super) const IPC_CALLS: [(&str, u32); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];
