//! Builds: a syntax tree becomes a step graph, the graph gets cache keys, and running it gives an image.

#![forbid(unsafe_code)]

pub mod solve;
