//! Start and end of a program that creates containers.

use crate::sys;

/// Does the work of the standard library at the start of a program, without its handler for stack overflows: that costs
/// a fifth of the system calls of a whole container, for a message on a terminal about a signal that the kernel reports
/// anyway.
///
/// Must be the first call in a C-style `main`.
pub fn begin() {
    sys::open_standard_streams();
    sys::ignore_broken_pipes();
}

/// Ends a program that has no buffered output: the C library's exit handlers do not run.
pub fn end(code: u8) -> ! {
    sys::exit(code.into())
}
