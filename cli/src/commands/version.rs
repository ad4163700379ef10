//! `kiln version`.

use crate::arguments::{self, Globals};
use crate::config::Config;
use crate::error::CliError;
use crate::{format, ui};
use clap::Parser;
use kiln_image::platform::Platform;
use kiln_runtime::host::Host;
use serde::Serialize;
use std::ffi::OsString;

/// Show the version of Kiln, of the kernel, and of cgroups.
#[derive(Debug, Parser)]
struct Version {
    /// Format the answer with a Go template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The answer, with the names of Docker's fields. There is no daemon: client and server are the same program.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    client: Program,
    server: Server,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Program {
    version: &'static str,
    /// Empty where the program was built outside of a repository.
    git_commit: &'static str,
    os: String,
    arch: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    #[serde(flatten)]
    program: Program,
    kernel_version: String,
    cgroup_version: &'static str,
    docker_root_dir: String,
}

/// The line of `kiln --version`.
pub fn short() -> String {
    let commit = option_env!("KILN_COMMIT").map(|commit| format!(", build {commit}")).unwrap_or_default();
    format!("kiln version {}{commit}\n", env!("CARGO_PKG_VERSION"))
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Version as clap::CommandFactory>::command()
}

/// Prints the version, the host's kernel and cgroups, and where the store is.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let Version { format } = arguments::parse("version", arguments)?;
    let template = format.as_deref().filter(|text| *text != "json").map(format::template).transpose()?;
    let answer = Answer::detect(globals)?;
    match (&format, template) {
        (_, Some(template)) => ui::data_line(&format::render(&template, &answer)?),
        (Some(_), None) => ui::data_line(&format::json_of(&answer)),
        (None, None) => ui::print(&answer.text()),
    }
    Ok(0)
}

impl Answer {
    fn detect(globals: &Globals) -> Result<Answer, CliError> {
        let platform = Platform::host();
        let program = Program {
            version: env!("CARGO_PKG_VERSION"),
            git_commit: option_env!("KILN_COMMIT").unwrap_or_default(),
            os: platform.os.clone(),
            arch: platform.architecture.clone(),
        };
        let layout = Host::get().layout();
        Ok(Answer {
            client: program.clone(),
            server: Server {
                program,
                kernel_version: Host::get().release().to_owned(),
                cgroup_version: super::info::cgroup_version(layout),
                docker_root_dir: Config::read(globals)?.root.display().to_string(),
            },
        })
    }

    fn text(&self) -> String {
        let Program { version, git_commit, os, arch } = &self.client;
        let commit = if git_commit.is_empty() { "unknown" } else { git_commit };
        let Server { kernel_version, cgroup_version, docker_root_dir, .. } = &self.server;
        format!(
            "Client:
 Version:           {version}
 Git commit:        {commit}
 OS/Arch:           {os}/{arch}

Server: Kiln without a daemon
 Version:           {version}
 Kernel:            {kernel_version}
 Cgroup version:    {cgroup_version}
 Store:             {docker_root_dir}
"
        )
    }
}
