//! `kiln info`.

use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format;
use crate::session::Session;
use crate::ui;
use clap::Parser;
use kiln_engine::{Containers, Listed, State};
use kiln_runtime::cgroup::Layout;
use kiln_runtime::host::{self, FEATURES, Host, SecurityModule};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;

/// Show details of this host and of the store: kernel, cgroups, security modules.
#[derive(Debug, Parser)]
struct InfoArguments {
    /// Format the answer with a Go template, or as json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The answer, with the names of Docker's fields where it has them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(flatten)]
    store: Option<StoreInfo>,
    server_version: &'static str,
    driver: &'static str,
    cgroup_driver: &'static str,
    cgroup_version: &'static str,
    /// Controllers of version 2; all of them where version 1 is mounted.
    cgroup_controllers: Vec<String>,
    security_options: Vec<String>,
    kernel_version: String,
    kernel_features: Vec<KernelFeature>,
    operating_system: String,
    #[serde(rename = "OSType")]
    os_type: &'static str,
    architecture: &'static str,
    #[serde(rename = "NCPU")]
    cpus: usize,
    /// Memory of the host in bytes.
    mem_total: u64,
    name: String,
}

/// Details of the store; absent when it cannot be opened.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StoreInfo {
    containers: usize,
    containers_running: usize,
    containers_paused: usize,
    containers_stopped: usize,
    images: usize,
    docker_root_dir: String,
    registry_mirrors: Vec<String>,
}

/// A feature that not all supported kernels have.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KernelFeature {
    name: &'static str,
    since: String,
    present: bool,
    /// Behaviour on kernels that lack it.
    without: &'static str,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <InfoArguments as clap::CommandFactory>::command()
}

/// Prints the details. A store that cannot be opened is reported last: details of the host help to find out why.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let InfoArguments { format } = arguments::parse("info", arguments)?;
    let template = format.as_deref().filter(|text| *text != "json").map(format::template).transpose()?;
    let (store, failed) = match Session::open(globals).and_then(|session| StoreInfo::of(&session)) {
        Ok(store) => (Some(store), None),
        Err(error) => (None, Some(error)),
    };
    let info = Info::detect(store);
    match (&format, template) {
        (_, Some(template)) => ui::data_line(&format::render(&template, &info)?),
        (Some(_), None) => ui::data_line(&format::json_of(&info)),
        (None, None) => ui::print(&info.text()),
    }
    failed.map_or(Ok(0), Err)
}

impl StoreInfo {
    fn of(session: &Session) -> Result<StoreInfo, CliError> {
        let containers = Containers::open(&session.store)?.list()?;
        let running = containers.iter().filter(|container| container.is_running()).count();
        let is_stopped = |one: &&Listed| match one {
            Listed::Sound(container) => matches!(container.state, State::Exited { .. }),
            Listed::Damaged(_) => true,
        };
        let is_paused = |one: &&Listed| match one {
            Listed::Sound(container) => matches!(container.state, State::Running { paused: true, .. }),
            Listed::Damaged(_) => false,
        };
        let paused = containers.iter().filter(is_paused).count();
        let stopped = containers.iter().filter(is_stopped).count();
        let images: BTreeSet<String> =
            session.store.images()?.iter().map(|image| image.id.to_string()).collect();
        let mirrors = session.config.registry.mirrors.iter();
        Ok(StoreInfo {
            containers: containers.len(),
            containers_running: running - paused,
            containers_paused: paused,
            containers_stopped: stopped,
            images: images.len(),
            docker_root_dir: session.store.root().display().to_string(),
            registry_mirrors: mirrors.map(|one| format!("{}://{}/", one.scheme, one.authority)).collect(),
        })
    }
}

impl Info {
    fn detect(store: Option<StoreInfo>) -> Info {
        let host = Host::get();
        let layout = Host::get().layout();
        let mut security_options = Vec::new();
        for (module, name) in [(SecurityModule::AppArmor, "apparmor"), (SecurityModule::SELinux, "selinux")] {
            if Host::get().is_active(module) {
                security_options.push(format!("name={name}"));
            }
        }
        security_options.push("name=seccomp,profile=builtin".to_owned());
        if Host::get().is_nested() {
            security_options.push("name=rootless".to_owned());
        }
        if layout.is_unified_only() {
            security_options.push("name=cgroupns".to_owned());
        }
        let features = FEATURES.iter().map(|row| KernelFeature {
            name: row.name,
            since: row.since.to_string(),
            present: host.has(row.feature),
            without: row.without,
        });
        let names = rustix::system::uname();
        Info {
            store,
            server_version: env!("CARGO_PKG_VERSION"),
            driver: "overlay2",
            cgroup_driver: if layout.is_none() { "none" } else { "cgroupfs" },
            cgroup_version: cgroup_version(layout),
            cgroup_controllers: layout.controllers(),
            security_options,
            kernel_version: host.release().to_owned(),
            kernel_features: features.collect(),
            operating_system: operating_system(),
            os_type: "linux",
            architecture: std::env::consts::ARCH,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            mem_total: memory(),
            name: names.nodename().to_string_lossy().into_owned(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Client:\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
            self.server_version
        );
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            let separator = if name.trim().is_empty() { "" } else { ": " };
            let _ = writeln!(text, " {name}{separator}{value}");
        };
        if let Some(store) = &self.store {
            line("Containers", &store.containers);
            line(" Running", &store.containers_running);
            line(" Paused", &store.containers_paused);
            line(" Stopped", &store.containers_stopped);
            line("Images", &store.images);
        }
        line("Server Version", &self.server_version);
        line("Storage Driver", &self.driver);
        line("Cgroup Driver", &self.cgroup_driver);
        line("Cgroup Version", &self.cgroup_version);
        line("Cgroup Controllers", &self.cgroup_controllers.join(" "));
        line("Security Options", &"");
        for option in &self.security_options {
            let mut parts = option.split(',');
            line(" ", &parts.next().unwrap_or_default().trim_start_matches("name="));
            for part in parts {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                line(&format!("  {}", capitalized(name)), &value);
            }
        }
        line("Kernel Version", &self.kernel_version);
        line("Kernel Features", &"");
        for feature in &self.kernel_features {
            let KernelFeature { name, since, present, without } = feature;
            let found = if *present { "yes".to_owned() } else { format!("no (Linux {since}): {without}") };
            line(&format!(" {name}"), &found);
        }
        line("Operating System", &self.operating_system);
        line("OSType", &self.os_type);
        line("Architecture", &self.architecture);
        line("CPUs", &self.cpus);
        line("Total Memory", &crate::text::binary_size(self.mem_total));
        line("Name", &self.name);
        if let Some(store) = &self.store {
            line("Docker Root Dir", &store.docker_root_dir);
            if !store.registry_mirrors.is_empty() {
                line("Registry Mirrors", &"");
                store.registry_mirrors.iter().for_each(|mirror| line(" ", mirror));
            }
        }
        if Host::get().is_too_old() {
            let _ = writeln!(
                text,
                "WARNING: Linux {} is older than {}, the oldest that Kiln supports",
                self.kernel_version,
                host::OLDEST
            );
        }
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// The version of cgroups that limits are set in, or `none`.
pub(super) fn cgroup_version(layout: &Layout) -> &'static str {
    match (layout.is_none(), layout.is_unified_only()) {
        (true, _) => "none",
        (false, true) => "2",
        (false, false) => "1",
    }
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let paths = ["/etc/os-release", "/usr/lib/os-release"];
    let text = paths.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Bytes of memory that the kernel manages.
fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}
