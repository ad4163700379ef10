//! The commands, one file each: its arguments, a call of a library, and the output.

pub mod attach;
pub mod build;
pub mod builder_prune;
pub mod commit;
pub mod completion;
pub mod container_prune;
pub mod cp;
pub mod create;
pub mod diff;
pub mod doctor_net;
pub mod down;
mod each;
pub mod events;
pub mod exec;
pub mod export;
pub mod fmt;
pub mod history;
pub mod image_prune;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod lint;
pub mod load;
pub mod login;
pub mod logout;
pub mod logs;
pub mod man;
pub mod network_connect;
pub mod network_create;
pub mod network_disconnect;
pub mod network_ls;
pub mod network_prune;
pub mod network_rm;
pub mod oci;
pub mod pause;
pub mod port;
mod ports;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system_boot;
pub mod system_check;
pub mod system_df;
pub mod system_install_units;
pub mod system_prune;
pub mod tag;
pub mod top;
pub mod unpause;
pub mod up;
pub mod update;
pub mod verify;
pub mod version;
pub mod volume_create;
pub mod volume_export;
pub mod volume_import;
pub mod volume_ls;
pub mod volume_prune;
pub mod volume_rm;
pub mod wait;

use crate::arguments::Globals;
use crate::error::CliError;
use std::ffi::OsString;

/// A command of the program.
pub struct Command {
    /// Name on the command line.
    pub name: &'static str,
    /// Summary for the overview: a line that begins with a verb.
    pub about: &'static str,
    /// True for members of groups, which are listed by `kiln GROUP --help` only.
    pub hidden: bool,
    /// Returns the description of the arguments.
    pub describe: fn() -> clap::Command,
    /// Carries the command out and returns the exit code.
    pub run: fn(&Globals, Vec<OsString>) -> Result<u8, CliError>,
}

macro_rules! command {
    ($name:literal, $module:ident, $about:literal) => {
        command!($name, $module, $about, false)
    };
    ($name:literal, $module:ident, $about:literal, $hidden:literal) => {
        Command {
            name: $name,
            about: $about,
            hidden: $hidden,
            describe: $module::describe,
            run: $module::run,
        }
    };
}

/// All commands, in the order of the overview.
pub static ALL: &[Command] = &[
    command!("build", build, "Build an image from a Dockerfile"),
    command!("run", run, "Run a program in a new container"),
    command!("up", up, "Build the project in a directory and run it"),
    command!("down", down, "Stop and remove what `kiln up` has left"),
    command!("exec", exec, "Run a program in a running container"),
    command!("create", create, "Create a container without starting it"),
    command!("start", start, "Start containers that do not run"),
    command!("stop", stop, "Stop running containers"),
    command!("restart", restart, "Stop containers and start them again"),
    command!("kill", kill, "Send a signal to running containers"),
    command!("wait", wait, "Wait until containers have ended, and print their exit codes"),
    command!("attach", attach, "Connect to the input and output of a running container"),
    command!("logs", logs, "Show the output of a container"),
    command!("events", events, "Show what happens to containers, images, networks and volumes"),
    command!("pause", pause, "Freeze all processes of containers"),
    command!("unpause", unpause, "Let the processes of paused containers go on"),
    command!("rename", rename, "Rename a container"),
    command!("update", update, "Change limits and restart policies of containers"),
    command!("top", top, "List the processes of a container"),
    command!("stats", stats, "Show how much of the host's resources containers use"),
    command!("port", port, "List the published ports of a container"),
    command!("cp", cp, "Copy files between a container and the host"),
    command!("diff", diff, "List the files that a container has changed"),
    command!("commit", commit, "Create an image from a container's changes"),
    command!("export", export, "Write the files of a container as a tar"),
    command!("images", images, "List images"),
    command!("ps", ps, "List containers"),
    command!("inspect", inspect, "Show details of images, containers, networks and volumes as JSON"),
    command!("history", history, "Show the steps that made an image"),
    command!("login", login, "Check and keep credentials for a registry"),
    command!("logout", logout, "Forget credentials for a registry"),
    command!("pull", pull, "Download an image from a registry"),
    command!("push", push, "Upload an image to a registry"),
    command!("save", save, "Write images to a file or directory"),
    command!("load", load, "Read images from a file"),
    command!("import", import, "Create an image from a tar of files"),
    command!("tag", tag, "Add a name to an image"),
    command!("rm", rm, "Remove containers"),
    command!("rmi", rmi, "Remove images"),
    command!("image-prune", image_prune, "Remove images that are not used", true),
    command!("container-prune", container_prune, "Remove containers that do not run", true),
    command!("builder-prune", builder_prune, "Remove the build cache", true),
    command!("network-create", network_create, "Create a network for containers", true),
    command!("network-ls", network_ls, "List networks", true),
    command!("network-rm", network_rm, "Remove networks", true),
    command!("network-connect", network_connect, "Connect a container to a network", true),
    command!("network-disconnect", network_disconnect, "Disconnect a container from a network", true),
    command!("network-prune", network_prune, "Remove networks that no container uses", true),
    command!("doctor-net", doctor_net, "Check this host's settings for networks of containers", true),
    command!("system-df", system_df, "Show how much space the store uses", true),
    command!("system-prune", system_prune, "Remove what is not used", true),
    command!("system-check", system_check, "Verify every part of the store", true),
    command!("system-boot", system_boot, "Start containers that should run after a boot", true),
    command!("system-install-units", system_install_units, "Install a systemd unit for starts at boot", true),
    command!("volume-create", volume_create, "Create a volume", true),
    command!("volume-ls", volume_ls, "List volumes", true),
    command!("volume-rm", volume_rm, "Remove volumes with their files", true),
    command!("volume-prune", volume_prune, "Remove volumes that are not used", true),
    command!("volume-export", volume_export, "Write the files of a volume as a tar", true),
    command!("volume-import", volume_import, "Unpack a tar into a volume", true),
    command!("lint", lint, "Check Dockerfiles for problems"),
    command!("fmt", fmt, "Format Dockerfiles"),
    command!("verify", verify, "Build an image again and compare the results"),
    command!("oci", oci, "Run containers for another engine, as its OCI runtime"),
    command!("info", info, "Show details of this host and of the store"),
    command!("version", version, "Show the version"),
    command!("completion", completion, "Print a script that completes commands in a shell"),
    command!("man", man, "Print manual pages"),
];

/// Finds a command by name; `None` for groups and unknown names.
pub fn named(name: &str) -> Option<&'static Command> {
    ALL.iter().find(|command| command.name == name)
}

/// Groups, each with a summary.
pub static GROUP_NAMES: &[(&str, &str)] = &[
    ("image", "Manage images"),
    ("container", "Manage containers"),
    ("volume", "Manage volumes"),
    ("network", "Manage networks"),
    ("builder", "Manage builds and their cache"),
    ("buildx", "Other name of builder, for Docker's users"),
    ("system", "Manage Kiln"),
    ("doctor", "Say what is wrong with this host"),
];

/// Groups, their members, and the commands that these are other names of.
pub static GROUPS: &[(&str, &str, &str)] = &[
    ("image", "ls", "images"),
    ("image", "list", "images"),
    ("image", "build", "build"),
    ("image", "rm", "rmi"),
    ("image", "remove", "rmi"),
    ("image", "prune", "image-prune"),
    ("image", "pull", "pull"),
    ("image", "push", "push"),
    ("image", "save", "save"),
    ("image", "load", "load"),
    ("image", "import", "import"),
    ("image", "tag", "tag"),
    ("image", "history", "history"),
    ("image", "inspect", "inspect"),
    ("container", "run", "run"),
    ("container", "create", "create"),
    ("container", "start", "start"),
    ("container", "restart", "restart"),
    ("container", "wait", "wait"),
    ("container", "attach", "attach"),
    ("container", "logs", "logs"),
    ("container", "exec", "exec"),
    ("container", "stop", "stop"),
    ("container", "kill", "kill"),
    ("container", "pause", "pause"),
    ("container", "unpause", "unpause"),
    ("container", "rename", "rename"),
    ("container", "update", "update"),
    ("container", "top", "top"),
    ("container", "stats", "stats"),
    ("container", "port", "port"),
    ("container", "cp", "cp"),
    ("container", "diff", "diff"),
    ("container", "commit", "commit"),
    ("container", "export", "export"),
    ("container", "prune", "container-prune"),
    ("container", "ls", "ps"),
    ("container", "list", "ps"),
    ("container", "ps", "ps"),
    ("container", "rm", "rm"),
    ("container", "remove", "rm"),
    ("container", "inspect", "inspect"),
    ("volume", "create", "volume-create"),
    ("volume", "ls", "volume-ls"),
    ("volume", "list", "volume-ls"),
    ("volume", "inspect", "inspect"),
    ("volume", "rm", "volume-rm"),
    ("volume", "remove", "volume-rm"),
    ("volume", "prune", "volume-prune"),
    ("volume", "export", "volume-export"),
    ("volume", "import", "volume-import"),
    ("network", "create", "network-create"),
    ("network", "ls", "network-ls"),
    ("network", "list", "network-ls"),
    ("network", "inspect", "inspect"),
    ("network", "rm", "network-rm"),
    ("network", "remove", "network-rm"),
    ("network", "connect", "network-connect"),
    ("network", "disconnect", "network-disconnect"),
    ("network", "prune", "network-prune"),
    ("builder", "build", "build"),
    ("builder", "prune", "builder-prune"),
    ("buildx", "build", "build"),
    ("buildx", "prune", "builder-prune"),
    ("buildx", "version", "version"),
    ("doctor", "net", "doctor-net"),
    ("system", "info", "info"),
    ("system", "df", "system-df"),
    ("system", "events", "events"),
    ("system", "prune", "system-prune"),
    ("system", "check", "system-check"),
    ("system", "boot", "system-boot"),
    ("system", "install-units", "system-install-units"),
];
