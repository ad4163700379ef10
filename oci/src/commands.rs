//! Commands of the runtime: one file for each, or for a few related ones.

mod events;
mod features;
mod lifecycle;
mod list;
mod notify;
mod pause;
mod run;
mod spec;
mod update;

pub(crate) use list::processes;
pub(crate) use notify::Agent;

use crate::Globals;
use crate::arguments::{Arguments, Flag, switch, value};
use crate::error::OciError;

/// Command with its usage and its function.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) words: &'static str,
    /// Lists of flags, some of which several commands share.
    pub(crate) flags: &'static [&'static [Flag]],
    /// True when all after the first positional argument belongs to another program.
    pub(crate) until_word: bool,
    /// Exit code when the command itself fails, distinct from exit codes of the container's program; `None` for the
    /// code of the error.
    pub(crate) failure: Option<u8>,
    pub(crate) run: fn(&Globals, &Arguments) -> Result<u8, OciError>,
}

/// Flags of commands that create a container.
const CREATE_FLAGS: &[Flag] = &[
    value(&["bundle", "b"]),
    value(&["config", "f"]),
    value(&["console-socket"]),
    value(&["pidfd-socket"]),
    value(&["pid-file"]),
    switch(&["no-pivot"]),
    switch(&["no-new-keyring"]),
    value(&["preserve-fds"]),
];

/// Further flags of commands that also start it.
const RUN_FLAGS: &[Flag] = &[switch(&["detach", "d"]), switch(&["keep"]), switch(&["no-subreaper"])];

const EXEC_FLAGS: &[Flag] = &[
    value(&["process", "p"]),
    switch(&["detach", "d"]),
    value(&["pid-file"]),
    value(&["console-socket"]),
    value(&["pidfd-socket"]),
    switch(&["tty", "t"]),
    value(&["cwd"]),
    value(&["env", "e"]),
    value(&["user", "u"]),
    value(&["additional-gids", "g"]),
    value(&["cap", "c"]),
    value(&["cgroup"]),
    value(&["preserve-fds"]),
    switch(&["ignore-paused"]),
    switch(&["no-new-privs"]),
    value(&["apparmor"]),
    value(&["process-label"]),
    switch(&["no-subreaper"]),
];

/// All commands, in the order of the help text.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "create",
        about: "make a container that waits to be started",
        words: "ID",
        flags: &[CREATE_FLAGS],
        until_word: false,
        failure: None,
        run: run::create,
    },
    Command {
        name: "start",
        about: "start a container that was created",
        words: "ID",
        flags: &[],
        until_word: false,
        failure: None,
        run: lifecycle::start,
    },
    Command {
        name: "run",
        about: "make a container and start it",
        words: "ID",
        flags: &[CREATE_FLAGS, RUN_FLAGS],
        until_word: false,
        failure: None,
        run: run::run,
    },
    Command {
        name: "exec",
        about: "run a further program in a container",
        words: "ID PROGRAM [ARGUMENTS]",
        flags: &[EXEC_FLAGS],
        until_word: true,
        // As in runc: distinct from the codes of a program that ends with 1, or that a shell did not find.
        failure: Some(255),
        run: crate::enter::exec,
    },
    Command {
        name: "state",
        about: "print a container's state as JSON",
        words: "ID",
        flags: &[],
        until_word: false,
        failure: None,
        run: list::state,
    },
    Command {
        name: "kill",
        about: "send a signal to a container (default TERM)",
        words: "ID [SIGNAL]",
        flags: &[&[switch(&["all", "a"])]],
        until_word: false,
        failure: None,
        run: lifecycle::kill,
    },
    Command {
        name: "delete",
        about: "remove a container that has ended",
        words: "ID",
        flags: &[&[switch(&["force", "f"]), switch(&["regex"])]],
        until_word: false,
        failure: None,
        run: lifecycle::delete,
    },
    Command {
        name: "list",
        about: "list containers",
        words: "",
        flags: &[&[value(&["format", "f"]), switch(&["quiet", "q"])]],
        until_word: false,
        failure: None,
        run: list::list,
    },
    Command {
        name: "ps",
        about: "list the processes of a container",
        words: "ID [ps OPTIONS]",
        flags: &[&[value(&["format", "f"])]],
        until_word: true,
        failure: None,
        run: list::ps,
    },
    Command {
        name: "pause",
        about: "stop all processes of a container",
        words: "ID",
        flags: &[],
        until_word: false,
        failure: None,
        run: pause::pause,
    },
    Command {
        name: "resume",
        about: "let the processes of a paused container go on",
        words: "ID",
        flags: &[],
        until_word: false,
        failure: None,
        run: pause::resume,
    },
    Command {
        name: "update",
        about: "change a container's limits",
        words: "ID",
        flags: &[update::FLAGS],
        until_word: false,
        failure: None,
        run: update::update,
    },
    Command {
        name: "events",
        about: "print what a container uses, and when it runs out of memory",
        words: "ID",
        flags: &[&[switch(&["stats"]), value(&["interval"])]],
        until_word: false,
        failure: None,
        run: events::events,
    },
    Command {
        name: "spec",
        about: "write an example configuration",
        words: "",
        flags: &[&[value(&["bundle", "b"]), value(&["config", "f"]), switch(&["rootless"])]],
        until_word: false,
        failure: None,
        run: spec::spec,
    },
    Command {
        name: "plan",
        about: "print how a bundle's container would be set up, without doing it",
        words: "",
        flags: &[&[
            value(&["bundle", "b"]),
            value(&["config", "f"]),
            value(&["preserve-fds"]),
            switch(&["no-pivot"]),
            switch(&["no-new-keyring"]),
        ]],
        until_word: false,
        failure: None,
        run: plan,
    },
    Command {
        name: "features",
        about: "print what this runtime can do as JSON",
        words: "",
        flags: &[],
        until_word: false,
        failure: None,
        run: features::features,
    },
    Command {
        name: "checkpoint",
        about: "not supported",
        words: "ID",
        flags: &[&[
            value(&["image-path"]),
            value(&["work-path"]),
            switch(&["leave-running"]),
            value(&["parent-path"]),
            switch(&["pre-dump"]),
            switch(&["lazy-pages"]),
            switch(&["tcp-established"]),
            switch(&["file-locks"]),
            switch(&["ext-unix-sk"]),
            switch(&["shell-job"]),
            value(&["status-fd"]),
            value(&["manage-cgroups-mode"]),
            switch(&["auto-dedup"]),
        ]],
        until_word: false,
        failure: None,
        run: |_, _| Err(OciError::Unsupported("checkpoint")),
    },
    Command {
        name: "restore",
        about: "not supported",
        words: "ID",
        flags: &[&[
            value(&["image-path"]),
            value(&["work-path"]),
            value(&["bundle", "b"]),
            switch(&["detach", "d"]),
            value(&["pid-file"]),
            value(&["console-socket"]),
            switch(&["no-subreaper"]),
            switch(&["no-pivot"]),
            switch(&["tcp-established"]),
            switch(&["file-locks"]),
            switch(&["ext-unix-sk"]),
            switch(&["shell-job"]),
            switch(&["lazy-pages"]),
            value(&["manage-cgroups-mode"]),
            switch(&["auto-dedup"]),
        ]],
        until_word: false,
        failure: None,
        run: |_, _| Err(OciError::Unsupported("restore")),
    },
];

/// Prints the plan for a bundle.
fn plan(globals: &Globals, arguments: &Arguments) -> Result<u8, OciError> {
    crate::print(&crate::create::plan_of(globals, arguments)?)
}
