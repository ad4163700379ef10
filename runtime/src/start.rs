//! The start of a program that makes containers.

use crate::sys;

/// What the standard library does at the start of a program, without its handler for overflows of the stack: that one
/// takes a fifth of the system calls of a whole container, to say on a terminal what the kernel says by its signal.
///
/// For programs that have a `main` of C's; the first thing there.
pub fn begin() {
    sys::open_standard_streams();
    sys::ignore_broken_pipes();
}

/// The end of a program that holds nothing back: what the C library would do besides is for those that do.
pub fn end(code: u8) -> ! {
    sys::exit(code.into())
}
