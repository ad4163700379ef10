//! Images on disk: digests, references, manifests and configs; the content store, layers and snapshots.

#![forbid(unsafe_code)]

pub mod archive;
pub mod compression;
pub mod config;
pub mod digest;
pub mod json;
pub mod layer;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod store;
pub mod sys;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod tree;
