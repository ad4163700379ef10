//! Dockerfile text to syntax tree, diagnostics and ignore patterns.
//!
//! This crate performs no I/O: bytes go in, values come out. It never fails on input; errors in a file are part of the
//! result. It does not know environments or the effect of instructions: [`expand`] and [`mount`] are pure functions to
//! which callers pass an environment.
//!
//! Invariant: every byte of a file belongs to the tree or to trivia between its instructions, and every span in the
//! tree can be shown as file, line and column.

#![forbid(unsafe_code)]

pub mod ast;
pub mod diagnostic;
pub mod expand;
pub mod format;
pub mod git;
mod grammar;
pub mod ignore;
mod lines;
pub mod lint;
pub mod mount;
pub mod outline;
pub mod port;
mod source;
pub mod span;
mod stages;
pub mod suggest;
mod text;

pub use grammar::{Parse, parse, parse_trigger};
pub use source::Source;
pub use text::{Text, TextBuilder};
