//! `kiln build`.

mod call;
mod context;
mod given;
mod output;

use crate::arguments::{self, Globals};
use crate::config::STATE;
use crate::error::{BuildFailure, CliError, code};
use crate::images::ImageFinder;
use crate::progress::{Progress, Style};
use crate::session::{self, Session};
use crate::signals::Signals;
use crate::ui;
use call::Call;
use clap::Parser;
use kiln_builder::{BuildOptions, Cancel, Machine};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ast::NetworkMode;
use output::Output;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Build an image from a Dockerfile.
#[derive(Debug, Parser)]
struct Build {
    /// Folder with the files to build from; - for a tar of them, or a Dockerfile alone, on standard input
    #[arg(value_name = "PATH")]
    context: PathBuf,
    /// Dockerfile (default: PATH/Dockerfile); - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name for the image, NAME[:TAG]; may be repeated
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Value for an ARG, NAME=VALUE, or NAME for its value in the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Stage to build (default: the last one)
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Label for the image, NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Socket of an ssh agent for RUN --mount=type=ssh: default or ID=SOCKET; may be repeated
    #[arg(long, value_name = "default|ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Where the result goes: DIR for its files, - for a tar of them, or type=local|tar|oci|docker|image|cacheonly
    /// with dest=PATH; may be repeated
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Short for --output=type=docker; accepted, as images are always in the store
    #[arg(long)]
    load: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Ask registries for base images, whatever the store has
    #[arg(long)]
    pull: bool,
    /// Platform to build for, os/architecture (default: this machine's)
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Accepted for Docker's users: containers of steps never stay
    #[arg(long, hide = true)]
    rm: bool,
    /// Accepted for Docker's users: containers of steps never stay
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Run every step, whatever earlier builds have made
    #[arg(long)]
    no_cache: bool,
    /// How progress is shown: auto, plain, tty or quiet
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    progress: String,
    /// Answer a question instead of building: check, outline or targets, with `,format=json` for tools
    #[arg(long, value_name = "QUESTION", default_value = "build")]
    call: String,
    /// Short for --call=check
    #[arg(long)]
    check: bool,
    /// Run every step of these stages, whatever earlier builds have made; names with commas, may be repeated
    #[arg(long, value_name = "STAGES")]
    no_cache_filter: Vec<String>,
    /// What RUN steps can reach: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Address for a host name in RUN steps, NAME:ADDRESS; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Right that the Dockerfile may use: network.host; may be repeated
    #[arg(long, value_name = "RIGHT")]
    allow: Vec<String>,
    /// Show nothing but the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Say why each step runs that an earlier build had
    #[arg(long)]
    explain: bool,
}

/// Builds; prints the image's id with `-q`.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let build: Build = arguments::parse("build", arguments)?;
    let style = if build.quiet { Style::Quiet } else { Style::choose(&build.progress)? };
    let options = build.options()?;
    let outputs = build.outputs()?;
    let call = if build.check { Call::parse("check")? } else { Call::parse(&build.call)? };
    if let Some(call) = call {
        let opened = context::open(&build.context, build.file.as_deref())?;
        return call.answer(globals, &opened.context, &options, &build.shown_path());
    }
    let spawner = session::start_helper()?;
    let signals = Signals::catch()?;
    let failure = |error, source| CliError::Build(Box::new(BuildFailure { error, source }));
    let opened = context::open(&build.context, build.file.as_deref())?;
    let context = &opened.context;
    let session = Session::open(globals)?;

    let cancel = Cancel::default();
    let progress = Arc::new(Progress::new(style));
    end_on_signal(signals, cancel.clone());
    let images = ImageFinder::new(&session.store, &session.config.registry).asking_registries(build.pull);
    let machine = Machine {
        store: &session.store,
        spawner: &spawner,
        images: &images,
        state: Path::new(STATE),
        listener: &|event| progress.show(&event),
        cancel: &cancel,
    };
    let result = kiln_builder::build(context, &options, &machine);
    progress.finish();
    let outcome = result.map_err(|error| failure(error, Some(context.source.clone())))?;
    for output in &outputs {
        output.write(&session.store, &outcome.image, &options.tags)?;
    }
    if let Some(path) = &build.iidfile {
        output::write_id(path, &outcome.image)?;
    }
    if build.quiet && !outputs.iter().any(Output::is_tree) {
        ui::line(&outcome.image.to_string());
    }
    Ok(0)
}

/// The first signal stops the build in order, the second at once.
fn end_on_signal(signals: Signals, cancel: Cancel) {
    signals.listen(move |signal| {
        if !matches!(signal, 1 | 2 | 3 | 15) {
            return;
        }
        if cancel.is_interrupted() {
            std::process::exit(i32::from(code::INTERRUPTED));
        }
        cancel.interrupt();
    });
}

impl Build {
    /// The Dockerfile as messages name it: the way the user did.
    fn shown_path(&self) -> String {
        match &self.file {
            Some(file) if file != Path::new("-") => file.display().to_string(),
            _ if self.context == Path::new("-") => "Dockerfile".to_owned(),
            _ => {
                // Without the dots that say nothing.
                let parts = self.context.components().filter(|part| *part != Component::CurDir);
                parts.collect::<PathBuf>().join("Dockerfile").display().to_string()
            }
        }
    }

    fn outputs(&self) -> Result<Vec<Output>, CliError> {
        let outputs = self.output.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if self.iidfile.is_some() && outputs.iter().any(Output::is_tree) {
            return Err(CliError::failed("local and tar exporters are incompatible with image ID file")
                .hint("leave --iidfile out: no image is named by such an output"));
        }
        outputs.iter().try_for_each(Output::check)?;
        Ok(outputs)
    }

    fn network_mode(&self) -> Result<NetworkMode, CliError> {
        match self.network.as_str() {
            "default" | "" => Ok(NetworkMode::Default),
            "none" => Ok(NetworkMode::None),
            "host" => Ok(NetworkMode::Host),
            other => Err(CliError::failed(format!("failed to build: network mode {other:?} not supported"))
                .hint("one of default, none, host")),
        }
    }

    fn allows_host_network(&self) -> Result<bool, CliError> {
        for right in &self.allow {
            match right.as_str() {
                "network.host" => {}
                "security.insecure" => {
                    return Err(CliError::failed("--allow security.insecure is not supported yet"));
                }
                other => {
                    return Err(CliError::failed(format!("failed to build: unknown entitlement {other}"))
                        .hint("one of network.host, security.insecure"));
                }
            }
        }
        Ok(!self.allow.is_empty() || self.network == "host")
    }

    fn platform(&self) -> Result<Option<Platform>, CliError> {
        let Some(text) = self.platform.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        if text.contains(',') {
            return Err(CliError::failed("more than one --platform is not supported yet")
                .hint("build for one platform after the other"));
        }
        if text == "local" {
            return Ok(Some(Platform::host()));
        }
        text.parse().map(Some).map_err(|error| {
            CliError::failed(format!("invalid platform {text:?}: {error}"))
                .hint("write os/architecture, such as linux/amd64 or linux/arm64")
        })
    }

    fn options(&self) -> Result<BuildOptions, CliError> {
        let tags = self.tag.iter().map(|tag| {
            tag.parse::<Reference>()
                .map_err(|error| CliError::failed(format!("invalid tag {tag:?}: {error}")))
                .and_then(|reference| match reference.digest() {
                    None => Ok(reference.or_latest()),
                    Some(_) => Err(CliError::failed(format!("invalid tag {tag:?}: a tag has no digest"))),
                })
        });
        Ok(BuildOptions {
            target: self.target.clone(),
            build_args: build_arguments(&self.build_arg)?,
            labels: labels(&self.label),
            platform: self.platform()?,
            no_cache: self.no_cache,
            explain: self.explain,
            tags: tags.collect::<Result<_, _>>()?,
            given: given::read(&self.secret, &self.ssh)?,
            no_cache_stages: self
                .no_cache_filter
                .iter()
                .flat_map(|list| list.split(','))
                .map(str::to_lowercase)
                .collect(),
            network: self.network_mode()?,
            allows_host_network: self.allows_host_network()?,
            hosts: self.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        })
    }
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; brackets around the address go.
fn host(text: &str) -> Result<(String, String), CliError> {
    let invalid = || {
        CliError::failed(format!("failed to build: invalid host {text}"))
            .hint("write --add-host NAME:ADDRESS, such as db:10.0.0.5")
    };
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() || bare.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid());
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// `NAME=VALUE`, or `NAME` for what the environment has; nothing when it has nothing.
fn build_arguments(list: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut values = BTreeMap::new();
    for entry in list {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (entry.as_str(), std::env::var(entry).ok()),
        };
        if name.is_empty() {
            return Err(CliError::Flags(
                format!("invalid value {entry:?} for --build-arg"),
                vec!["write --build-arg NAME=VALUE".to_owned()],
            ));
        }
        values.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(values)
}

fn labels(list: &[String]) -> BTreeMap<String, String> {
    let pairs = list.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
