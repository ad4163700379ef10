//! Builds: a syntax tree becomes a step graph, the graph gets cache keys, and running it gives an image.
//!
//! Text to tree is the parser's work. From there: [`stage`] splits the file into stages, [`plan`] makes the
//! step graph ([`graph`]) and the image's config, [`key`] says what each step's result depends on,
//! [`solve`] decides what must run, and the executor runs it in containers and layers. [`build`] joins
//! them.
//!
//! Planning is pure: it can be looked at without anything having been done. Images come in through a trait,
//! so that nothing here knows a network.

#![forbid(unsafe_code)]

pub mod build;
mod cancel;
pub mod check;
pub mod content;
pub mod context;
mod epoch;
mod error;
pub mod event;
mod explain;
mod export;
pub mod graph;
pub mod key;
mod known;
pub mod mode;
pub mod output;
pub mod plan;
pub mod remote;
mod resolve;
mod sandbox;
mod secret;
pub mod solve;
pub mod stage;
mod step;
mod variables;

pub use build::{
    BuildOptions, BuiltImage, Given, Images, Machine, Outcome, Part, ResolvedImage, Squash, Target, build,
};
pub use cancel::Cancel;
pub use context::{ContextSource, LocalDir, NamedContext};
pub use error::{BuildError, FailedStep, ImageError};
pub use export::Annotations;
pub use graph::{Checkout, HostMount, RunLimits};
pub use plan::{Rights, checkout};
pub use sandbox::SandboxError;
pub use step::StepError;
pub use variables::Variables;
