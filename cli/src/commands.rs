//! The commands, one file each: arguments, a call, an answer.

pub mod build;
pub mod builder_prune;
pub mod fmt;
pub mod history;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lint;
pub mod load;
pub mod oci;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod system_check;
pub mod tag;
pub mod verify;
pub mod version;

use crate::arguments::Globals;
use crate::error::CliError;
use std::ffi::OsString;

/// A command.
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Left out of the overview.
    pub hidden: bool,
    /// Carries it out; gives the exit code.
    pub run: fn(&Globals, Vec<OsString>) -> Result<u8, CliError>,
}

const fn command(
    name: &'static str,
    about: &'static str,
    run: fn(&Globals, Vec<OsString>) -> Result<u8, CliError>,
) -> Command {
    Command { name, about, hidden: false, run }
}

/// All commands.
pub static ALL: [Command; 21] = [
    command("build", "Build an image from a Dockerfile", build::run),
    command("lint", "Say what Dockerfiles can say better", lint::run),
    command("fmt", "Lay out Dockerfiles in the canonical way", fmt::run),
    command("run", "Run a program in a new container", run::run),
    command("images", "List images", images::run),
    command("ps", "List containers", ps::run),
    command("inspect", "Show all that is known of images and containers", inspect::run),
    command("history", "Show what an image was made of", history::run),
    command("pull", "Get an image from a registry", pull::run),
    command("push", "Upload an image to a registry", push::run),
    command("save", "Write an image to a file or folder", save::run),
    command("load", "Read images from a file", load::run),
    command("tag", "Give an image another name", tag::run),
    command("rm", "Remove containers", rm::run),
    command("rmi", "Remove images", rmi::run),
    Command { name: "builder-prune", about: "Remove build cache", hidden: true, run: builder_prune::run },
    Command { name: "system-check", about: "Verify the store", hidden: true, run: system_check::run },
    command("verify", "Build an image again and compare", verify::run),
    command("oci", "Be the OCI runtime of another engine", oci::run),
    command("info", "Show what was found on this host", info::run),
    command("version", "Show the version", version::run),
];

/// Groups, their members, and the commands that these are other names of.
pub static GROUPS: [(&str, &str, &str); 23] = [
    ("image", "ls", "images"),
    ("image", "list", "images"),
    ("image", "build", "build"),
    ("image", "rm", "rmi"),
    ("image", "remove", "rmi"),
    ("image", "pull", "pull"),
    ("image", "push", "push"),
    ("image", "save", "save"),
    ("image", "load", "load"),
    ("image", "tag", "tag"),
    ("image", "history", "history"),
    ("image", "inspect", "inspect"),
    ("container", "run", "run"),
    ("container", "ls", "ps"),
    ("container", "list", "ps"),
    ("container", "ps", "ps"),
    ("container", "rm", "rm"),
    ("container", "inspect", "inspect"),
    ("builder", "build", "build"),
    ("builder", "prune", "builder-prune"),
    ("buildx", "build", "build"),
    ("system", "info", "info"),
    ("system", "check", "system-check"),
];
