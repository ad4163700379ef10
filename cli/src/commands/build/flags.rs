//! The command line of `build`, and what it asks for.

use super::annotation;
use super::call::Call;
use super::given;
use super::limits::LimitFlags;
use super::named::NamedFlag;
use super::output::Output;
use crate::error::CliError;
use crate::missing;
use clap::Parser;
use kiln_builder::{Annotations, BuildOptions, HostMount, Rights, Squash, Target};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ast::NetworkMode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build an image from a Dockerfile.
#[derive(Debug, Parser)]
pub(in crate::commands) struct Build {
    /// Folder with the files to build from; - for a tar of them, or a Dockerfile alone, on standard input; the URL of
    /// either; or a git repository, REPOSITORY.git#REFERENCE:FOLDER
    #[arg(value_name = "PATH | URL | -")]
    pub(super) context: PathBuf,
    /// Dockerfile (default: PATH/Dockerfile); - for standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Name for the image, NAME[:TAG]; may be repeated
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Value for an ARG, NAME=VALUE, or NAME for its value in the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Stage to build (default: the last one), with a name for its image if need be; may be repeated
    #[arg(long, value_name = "STAGE[=NAME]")]
    target: Vec<String>,
    /// Build the stages, too, that no target needs
    #[arg(long)]
    all_stages: bool,
    /// One more place to take files and images from, NAME=FOLDER, or with docker-image://, oci-layout://, https://,
    /// a git repository or target: behind the sign; may be repeated
    #[arg(long, value_name = "NAME=PLACE")]
    build_context: Vec<String>,
    /// Label for the image, NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Annotation for the image's manifest, [TYPE:]NAME=VALUE; may be repeated
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    annotation: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Socket of an ssh agent, or keys, for RUN --mount=type=ssh: default or ID=SOCKET|KEY; may be repeated
    #[arg(long, value_name = "default|ID[=SOCKET|KEY]")]
    ssh: Vec<String>,
    /// Where the result goes: DIR for its files, - for a tar of them, or
    /// type=local|tar|oci|docker|image|registry|cacheonly with dest=PATH; may be repeated
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Short for --output=type=docker; accepted, as images are always in the store
    #[arg(long)]
    load: bool,
    /// Upload the image to the registry that its name says
    #[arg(long)]
    push: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Ask registries for base images, whatever the store has
    #[arg(long)]
    pub(super) pull: bool,
    /// Platforms to build for, os/architecture with commas between (default: this machine's)
    #[arg(long, value_name = "PLATFORMS")]
    platform: Vec<String>,
    /// Run every step, whatever earlier builds have made
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages, whatever earlier builds have made; names with commas, may be repeated
    #[arg(long, value_name = "STAGES")]
    no_cache_filter: Vec<String>,
    /// How progress is shown: auto, plain, tty, quiet or rawjson
    #[arg(long, value_name = "STYLE")]
    progress: Option<String>,
    /// Answer a question instead of building: check, outline or targets, with `,format=json` for tools
    #[arg(long, value_name = "QUESTION", default_value = "build")]
    call: String,
    /// Short for --call=check
    #[arg(long)]
    check: bool,
    /// What RUN steps can reach: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Address for a host name in RUN steps, NAME:ADDRESS; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Right that the Dockerfile may use: network.host, security.insecure, device[=NAME], secret-leak; may be repeated
    #[arg(long, value_name = "RIGHT")]
    allow: Vec<String>,
    /// The layers that the build makes become one
    #[arg(long)]
    squash: bool,
    /// All layers become one, those of the base image, too
    #[arg(long)]
    squash_all: bool,
    /// The time of all that the build makes: seconds since 1970, or `context` for that of a remote context
    #[arg(long, visible_alias = "timestamp", value_name = "SECONDS")]
    source_date_epoch: Option<String>,
    /// Files in new layers that are younger than the epoch get its time
    #[arg(long)]
    rewrite_timestamp: bool,
    /// What Docker lets pass with a warning or without a word is an error
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    limits: LimitFlags,
    /// Steps that run at once at most (default: as many as there are processors, and at least four)
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Folder of this machine for all RUN steps, HOST:CONTAINER[:ro]; what it holds is no part of the cache; may be
    /// repeated
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// File with the credentials for registries
    #[arg(long, value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
    /// Media types of the image: oci or docker
    #[arg(long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// Show nothing but the image's id
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Say of each step that runs why no result of an earlier build was used
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    accepted: AcceptedFlags,
    #[command(flatten)]
    refused: RefusedFlags,
}

/// Flags of Docker's users that change nothing here.
#[derive(Debug, clap::Args)]
struct AcceptedFlags {
    /// Accepted for Docker's users: containers of steps never stay
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    rm: Option<Option<bool>>,
    /// Accepted for Docker's users: containers of steps never stay
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    force_rm: Option<Option<bool>>,
    /// Accepted for Docker's users: nothing is sent that could be compressed
    #[arg(long, hide = true)]
    compress: bool,
    /// Accepted for Docker's users: results of steps are always kept
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    layers: Option<Option<bool>>,
    /// Accepted for Docker's users
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    /// There is one way to isolate steps
    #[arg(long, hide = true, value_name = "KIND")]
    isolation: Option<String>,
    /// Steps always have the default confinement
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// There is one builder
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
}

/// Flags of Docker's users that are not carried out yet, and say so.
#[derive(Debug, clap::Args)]
struct RefusedFlags {
    #[arg(long, hide = true)]
    cache_from: Vec<String>,
    #[arg(long, hide = true)]
    cache_to: Vec<String>,
    #[arg(long, hide = true)]
    attest: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    sbom: Option<String>,
    #[arg(long, hide = true)]
    policy: Vec<String>,
}

impl RefusedFlags {
    fn check(&self) -> Result<(), CliError> {
        let refuse =
            |flag: &str, hint: &str| Err(CliError::failed(format!("{flag} is not supported yet")).hint(hint));
        let wanted = |value: &Option<String>| {
            value.as_deref().is_some_and(|value| !matches!(value, "false" | "0" | "disabled"))
        };
        let off = |text: &String| text.split(',').any(|field| field == "disabled=true");
        if !self.cache_from.is_empty() {
            return refuse(
                "--cache-from",
                "steps are found in the store of this machine; leave the option out",
            );
        }
        if !self.cache_to.is_empty() {
            return refuse("--cache-to", "results stay in the store of this machine; leave the option out");
        }
        if !self.attest.iter().all(off) {
            return refuse("--attest", "images have no attestations; leave the option out");
        }
        if wanted(&self.provenance) {
            return refuse("--provenance", "images have no attestations; pass --provenance=false or nothing");
        }
        if wanted(&self.sbom) {
            return refuse("--sbom", "images have no attestations; pass --sbom=false or nothing");
        }
        if !self.policy.is_empty() {
            return refuse("--policy", "sources are not judged by policies; leave the option out");
        }
        Ok(())
    }
}

impl Build {
    /// The same build from nothing, of which nothing is named or written.
    pub(in crate::commands) fn anew(mut self) -> Build {
        self.no_cache = true;
        self.tag.clear();
        self.output.clear();
        (self.push, self.load, self.quiet) = (false, false, false);
        (self.iidfile, self.metadata_file) = (None, None);
        self
    }

    /// Files or the Dockerfile come from standard input.
    pub(in crate::commands) fn reads_stdin(&self) -> bool {
        let stdin = Path::new("-");
        self.context == stdin || self.file.as_deref() == Some(stdin)
    }

    /// All that the flags ask for.
    pub(in crate::commands) fn read(&self) -> Result<(BuildOptions, Vec<Output>), CliError> {
        self.refused.check()?;
        if let Some(kind) =
            self.accepted.isolation.as_deref().filter(|kind| !matches!(*kind, "" | "default" | "oci"))
        {
            return Err(CliError::failed(format!("--isolation {kind} is not supported"))
                .hint("steps run in containers; leave the option out"));
        }
        if let Some(builder) =
            self.accepted.builder.as_deref().filter(|name| !matches!(*name, "" | "default"))
        {
            return Err(CliError::failed(format!("no builder {builder:?} found"))
                .hint("this program is the builder; leave --builder out"));
        }
        let mut options = self.options()?;
        let outputs = self.outputs(&options)?;
        for output in &outputs {
            options.rewrites_times |= output.options.rewrites_times;
            for text in &output.options.annotations {
                annotation::add(&mut options.annotations, text)?;
            }
            for name in &output.options.names {
                let name = tag(name)?;
                if !options.tags.contains(&name) {
                    options.tags.push(name);
                }
            }
        }
        let for_index = [&options.annotations.index, &options.annotations.index_descriptor];
        let is_single =
            options.platforms.len() < 2 && !options.build_args.contains_key("BUILDKIT_MULTI_PLATFORM");
        if is_single && for_index.iter().any(|list| !list.is_empty()) {
            return Err(CliError::failed("index annotations not supported for single platform export")
                .hint("annotate the manifest, or build for several platforms"));
        }
        Ok((options, outputs))
    }

    /// The question to answer instead of building.
    pub(super) fn question(&self) -> Result<Option<Call>, CliError> {
        if self.check { Call::parse("check") } else { Call::parse(&self.call) }
    }

    /// How progress is shown: the flag counts before `BUILDKIT_PROGRESS`.
    pub(in crate::commands) fn progress(&self) -> String {
        let variable = || std::env::var("BUILDKIT_PROGRESS").ok();
        self.progress.clone().or_else(variable).unwrap_or_else(|| "auto".to_owned())
    }

    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`.
    pub(super) fn keeps_git(&self) -> bool {
        self.build_arg.iter().any(|text| {
            text.strip_prefix("BUILDKIT_CONTEXT_KEEP_GIT_DIR=")
                .is_some_and(|value| matches!(value, "1" | "true"))
        })
    }

    /// Warnings about flags that change nothing.
    pub(super) fn accepted(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for option in &self.accepted.security_opt {
            warnings.push(format!("[Warning] --security-opt {option} has no effect on builds"));
        }
        warnings
    }

    /// Named contexts.
    pub(super) fn contexts(&self) -> Result<Vec<NamedFlag>, CliError> {
        self.build_context.iter().map(|text| NamedFlag::parse(text)).collect()
    }

    /// The Dockerfile as messages name it: the way the user did.
    pub(super) fn shown_path(&self) -> String {
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

    fn outputs(&self, options: &BuildOptions) -> Result<Vec<Output>, CliError> {
        let mut outputs =
            self.output.iter().map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
        if self.push {
            match outputs.iter_mut().find(|output| output.kind == super::output::Kind::Image) {
                Some(output) => output.options.push = true,
                None => outputs.push(Output::push()),
            }
        }
        if self.iidfile.is_some() && outputs.iter().any(Output::is_tree) {
            return Err(CliError::failed("local and tar exporters are incompatible with image ID file")
                .hint("leave --iidfile out: no image is named by such an output"));
        }
        if outputs.iter().any(|output| output.options.deletes)
            && !self.allow.iter().any(|right| right == "buildx.local.delete")
        {
            return Err(CliError::failed(
                "mode=delete removes other files of the folder, which is not allowed",
            )
            .hint("pass --allow buildx.local.delete if they may go"));
        }
        let last = options.targets.last().map(|target| target.tags.clone()).unwrap_or_default();
        let names: Vec<Reference> = options.tags.iter().cloned().chain(last).collect();
        outputs.iter().try_for_each(|output| output.check(options.platforms.len(), &names))?;
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

    fn rights(&self) -> Result<Rights, CliError> {
        let mut rights = Rights { host_network: self.network == "host", ..Rights::default() };
        for right in &self.allow {
            match right.split_once('=').unwrap_or((right, "")) {
                ("network.host", "") => rights.host_network = true,
                ("security.insecure", "") => rights.insecure = true,
                ("secret-leak", "") => rights.secret_leak = true,
                ("buildx.local.delete", "") => {}
                ("device", "") => rights.devices = Some(BTreeSet::new()),
                ("device", name) => {
                    // All devices are more than one.
                    let names = rights.devices.get_or_insert_default();
                    names.insert(name.to_owned());
                }
                _ => {
                    return Err(CliError::failed(format!("failed to build: unknown entitlement {right}"))
                        .hint("one of network.host, security.insecure, device, secret-leak"));
                }
            }
        }
        if self.allow.iter().any(|right| right == "device") {
            rights.devices = Some(BTreeSet::new());
        }
        Ok(rights)
    }

    fn platforms(&self) -> Result<Vec<Platform>, CliError> {
        let mut platforms: Vec<Platform> = Vec::new();
        let default = std::env::var("DOCKER_DEFAULT_PLATFORM").ok().filter(|_| self.platform.is_empty());
        let texts = self.platform.iter().map(String::as_str).chain(default.as_deref());
        for text in texts.flat_map(|list| list.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
            let platform = if text == "local" {
                Platform::host()
            } else {
                text.parse().map_err(|error| {
                    CliError::failed(format!("invalid platform {text:?}: {error}"))
                        .hint("write os/architecture, such as linux/amd64 or linux/arm64")
                })?
            };
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
        Ok(platforms)
    }

    fn targets(&self) -> Result<Vec<Target>, CliError> {
        let mut targets: Vec<Target> = Vec::new();
        for text in self.target.iter().filter(|text| !text.is_empty()) {
            let (stage, name) = text.split_once('=').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
            let tags = name.map(tag).transpose()?.into_iter().collect::<Vec<_>>();
            match targets.iter_mut().find(|target| target.stage.eq_ignore_ascii_case(stage)) {
                Some(known) => known.tags.extend(tags),
                None => targets.push(Target { stage: stage.to_owned(), tags }),
            }
        }
        Ok(targets)
    }

    fn options(&self) -> Result<BuildOptions, CliError> {
        let mut build_args = build_arguments(&self.build_arg)?;
        let variable = || std::env::var(EPOCH).ok().filter(|value| !value.is_empty());
        match (&self.source_date_epoch, build_args.contains_key(EPOCH)) {
            (Some(epoch), _) => {
                build_args.insert(EPOCH.to_owned(), epoch.clone());
            }
            (None, false) => build_args.extend(variable().map(|value| (EPOCH.to_owned(), value))),
            (None, true) => {}
        }
        let mut annotations = Annotations::default();
        for text in &self.annotation {
            annotation::add(&mut annotations, text)?;
        }
        let squash = match (self.squash, self.squash_all) {
            (_, true) => Squash::All,
            (true, false) => Squash::New,
            (false, false) => Squash::No,
        };
        Ok(BuildOptions {
            targets: self.targets()?,
            all_stages: self.all_stages,
            build_args,
            labels: labels(&self.label)?,
            annotations,
            platforms: self.platforms()?,
            no_cache: self.no_cache,
            explain: self.explain,
            tags: self.tag.iter().map(|text| tag(text)).collect::<Result<_, _>>()?,
            given: given::read(&self.secret, &self.ssh, self.strict)?,
            no_cache_stages: self
                .no_cache_filter
                .iter()
                .flat_map(|list| list.split(','))
                .map(str::to_lowercase)
                .collect(),
            network: self.network_mode()?,
            rights: self.rights()?,
            limits: self.limits.read()?,
            rewrites_times: self.rewrite_timestamp,
            squash,
            strict: self.strict,
            jobs: self.jobs.filter(|jobs| *jobs > 0),
            volumes: self.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
            docker_types: match self.format.as_str() {
                "oci" => false,
                "docker" => true,
                other => {
                    return Err(CliError::Flags(
                        format!("invalid value {other:?} for --format"),
                        vec!["one of oci, docker".to_owned()],
                    ));
                }
            },
            hosts: self.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        })
    }
}

/// A name for an image.
fn tag(text: &str) -> Result<Reference, CliError> {
    let reference = text
        .parse::<Reference>()
        .map_err(|error| CliError::failed(format!("invalid tag {text:?}: {error}")).hint(missing::NAME))?;
    match reference.digest() {
        None => Ok(reference.or_latest()),
        Some(_) => Err(CliError::failed(format!("invalid tag {text:?}: a tag has no digest"))),
    }
}

/// `HOST:CONTAINER[:ro|rw]`
fn volume(text: &str) -> Result<HostMount, CliError> {
    let invalid = |reason: &str| {
        CliError::Flags(
            format!("invalid value {text:?} for --volume: {reason}"),
            vec!["write HOST:CONTAINER or HOST:CONTAINER:ro, both paths from the root".to_owned()],
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, readonly) = match parts.as_slice() {
        [host, target] | [host, target, "rw"] => (*host, *target, false),
        [host, target, "ro"] => (*host, *target, true),
        _ => return Err(invalid("it has the wrong form")),
    };
    let host = std::path::absolute(host).map_err(|error| invalid(&error.to_string()))?;
    if !host.exists() {
        return Err(invalid(&format!("`{}` does not exist", host.display())));
    }
    if !target.starts_with('/') || target == "/" {
        return Err(invalid("the path in the container begins at the root, and is not the root"));
    }
    Ok(HostMount { host, target: target.to_owned(), readonly })
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; brackets around the address go.
fn host(text: &str) -> Result<(String, String), CliError> {
    let invalid = || {
        CliError::failed(format!("failed to build: invalid host {text}"))
            .hint("write --add-host NAME:ADDRESS, such as db:10.0.0.5")
    };
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare == "host-gateway" && !name.is_empty() {
        // The builder knows the address.
        return Ok((name.to_owned(), bare.to_owned()));
    }
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

fn labels(list: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pair = |entry: &String| match entry.split_once('=').unwrap_or((entry, "")) {
        ("", _) => Err(CliError::failed(format!("invalid key-value pair {entry:?}: empty key"))
            .hint("write --label NAME=VALUE")),
        (name, value) => Ok((name.to_owned(), value.to_owned())),
    };
    list.iter().map(pair).collect()
}
