//! Builds: a syntax tree becomes a step graph, the graph gets cache keys, and running it creates an image.
//!
//! A value goes one way, and each arrow is a function from value to value:
//!
//! ```text
//! text ──► stages ──► plan ──► graph ──► result
//! ```
//!
//! | Value | Created by | From |
//! |---|---|---|
//! | text: the Dockerfile, the ignore file, the options | [`source`], [`context`], [`front`] | the caller |
//! | stages: bases, names and triggers resolved | [`stage`], then `resolve` with the images of [`images`] | the tree of `kiln_parser` |
//! | plan: the step graph ([`graph`]), and config and history of each target | [`plan`] | stages, configs of base images, the epoch |
//! | graph with keys: steps to run, and cached results | [`solve`], with the keys of [`key`] | the plan, the cache |
//! | result: trees of layers, then images ([`outcome`]) | `step` runs steps, `export` makes images | the graph |
//!
//! [`build`] runs all of it, [`check`] stops after the plan. Planning is pure: a plan can be inspected before any step
//! has run. Network access goes through the traits [`Images`], [`Remote`](remote::Remote) and [`Push`](delivery::Push).
//!
//! Errors follow the same order. Everything up to the plan returns a [`Mistake`]: the file or an option is wrong. A
//! step returns a [`StepError`]. [`BuildError`] joins them, and only [`build`] returns it.

#![forbid(unsafe_code)]

mod annotation;
pub mod build;
mod cancel;
pub mod change;
pub mod check;
pub mod content;
pub mod context;
mod credentials;
pub mod delivery;
mod error;
pub mod event;
mod explain;
mod export;
mod facts;
pub mod front;
pub mod graph;
pub mod images;
mod inputs;
pub mod key;
mod known;
mod mistake;
pub mod mode;
pub mod outcome;
pub mod output;
mod path;
pub mod plan;
pub mod recipe;
pub mod remote;
mod resolve;
mod sandbox;
mod secret;
pub mod solve;
pub mod source;
pub mod stage;
mod step;
mod variables;
mod watch;

pub use annotation::{AnnotationError, Annotations};
pub use build::{Effects, build};
pub use cancel::Cancel;
pub use context::{ContextSource, LocalDir, NamedContext};
pub use credentials::Credentials;
pub use error::{BuildError, FailedStep};
pub use front::{BuildOptions, Squash, Target};
pub use graph::{Checkout, HostMount, RunLimits};
pub use images::{BaseImage, BlobProgress, ImageError, Images};
pub use inputs::{Inputs, Reads};
pub use mistake::{Mistake, StageNames};
pub use outcome::{BuiltImage, Outcome};
pub use plan::{Entitlements, checkout};
pub use sandbox::SandboxError;
pub use step::StepError;
pub use variables::Variables;
pub use watch::{Change, WatchError, Watcher};
