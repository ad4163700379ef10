//! Command line of `build`, and its conversion to build options.

use super::call::Call;
use super::credentials;
use super::limits::LimitFlags;
use super::output::Output;
use crate::error::CliError;
use crate::missing;
use clap::Parser;
use kiln_builder::source::{NamedSource, SourceRequest};
use kiln_builder::{Annotations, BuildOptions, Entitlements, HostMount, Squash, Target};
use kiln_image::platform::Platform;
use kiln_image::reference::Reference;
use kiln_parser::ast::NetworkMode;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build an image from a Dockerfile.
#[derive(Debug, Parser)]
pub(in crate::commands) struct Build {
    /// Build context: a directory, the URL of a tar or Dockerfile, a git repository (REPOSITORY.git#REF:DIR), or - for a tar or
    /// a Dockerfile on standard input
    #[arg(value_name = "PATH | URL | -")]
    pub(super) context: PathBuf,
    /// Name the image NAME[:TAG]; may be repeated
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Also build the stages that no target needs
    #[arg(long)]
    all_stages: bool,
    /// Set a label of the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Set an annotation of the image's manifest; may be repeated
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    annotation: Vec<String>,
    /// Pass a secret to RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be repeated
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Write the result: DIR for its files, - for a tar of them, or type=TYPE,dest=PATH with the types local, tar, oci,
    /// docker, image, registry and cacheonly; may be repeated
    #[arg(short, long, value_name = "OUTPUT")]
    output: Vec<String>,
    /// Keep the image in the store, as --output=type=docker does [default: images are always kept]
    #[arg(long)]
    load: bool,
    /// Upload the image to the registry of its name
    #[arg(long)]
    push: bool,
    /// Write the image's id to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write the names and digests of the result to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) recipe: RecipeFlags,
    /// Build for these platforms: os/architecture, separated by commas [default: that of the host]
    #[arg(long, value_name = "PLATFORMS")]
    platform: Vec<String>,
    /// Answer a question instead of building: check, outline, targets or plan; add `,format=json` for tools (not to plan)
    #[arg(long, value_name = "QUESTION", default_value = "build")]
    call: String,
    /// Check the Dockerfile instead of building, as --call=check does
    #[arg(long)]
    check: bool,
    /// Connect RUN steps to a network: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Add a line to /etc/hosts of RUN steps; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Merge the new layers into one
    #[arg(long)]
    squash: bool,
    /// Merge all layers into one, including those of the base image
    #[arg(long)]
    squash_all: bool,
    /// Set the time of the image and its new layers: seconds since 1970, or `context` for the time of a remote context
    #[arg(long, visible_alias = "timestamp", value_name = "SECONDS")]
    source_date_epoch: Option<String>,
    /// Set the times of files that are younger than the epoch to the epoch
    #[arg(long)]
    rewrite_timestamp: bool,
    /// Fail on what Docker only warns about, or accepts without a warning
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    limits: LimitFlags,
    /// Run at most this many steps at once [default: the number of processors, at least 16]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZero<usize>>,
    /// Mount a host directory in all RUN steps; its content is not part of cache keys; may be repeated
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// Read credentials for registries from FILE [default: ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
    /// Use the media types of oci or docker for the image
    #[arg(long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub(super) quiet: bool,
    #[command(flatten)]
    accepted: AcceptedFlags,
    #[command(flatten)]
    refused: RefusedFlags,
}

/// Flags that say what is built, and how: those of `kiln up` as well.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct RecipeFlags {
    /// Read the Dockerfile from FILE, or - for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::commands) file: Option<PathBuf>,
    /// Set an ARG; without VALUE, to its value in the environment; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Build this stage, and name its image NAME; may be repeated [default: the last stage]
    #[arg(long, value_name = "STAGE[=NAME]")]
    target: Vec<String>,
    /// Add a named context: a directory, docker-image://, oci-layout://, https://, a git repository or target:STAGE; may be
    /// repeated
    #[arg(long, value_name = "NAME=SOURCE")]
    build_context: Vec<String>,
    /// Pass an ssh agent's socket, or keys, to RUN --mount=type=ssh; may be repeated
    #[arg(long, value_name = "default|ID[=SOCKET|KEY]")]
    ssh: Vec<String>,
    /// Always check the registry for newer base images
    #[arg(long)]
    pub(super) pull: bool,
    /// Do not use the build cache
    #[arg(long)]
    no_cache: bool,
    /// Do not use the build cache for these stages: names separated by commas; may be repeated
    #[arg(long, value_name = "STAGES")]
    no_cache_filter: Vec<String>,
    /// Show progress as auto, plain, tty, quiet or rawjson [default: auto]
    #[arg(long, value_name = "STYLE")]
    progress: Option<String>,
    /// Grant the Dockerfile an entitlement: network.host, security.insecure, device[=NAME] or secret-leak; may be repeated
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Explain for each step that runs why no result of an earlier build was used
    #[arg(long)]
    explain: bool,
}

/// Flags of Docker's and buildah's users that change nothing here; a notice is printed.
#[derive(Debug, clap::Args)]
struct AcceptedFlags {
    /// No effect: containers of steps are always removed
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    rm: Option<Option<bool>>,
    /// No effect: containers of steps are always removed
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    force_rm: Option<Option<bool>>,
    /// No effect: there is no daemon that a context would be sent to
    #[arg(long)]
    compress: bool,
    /// No effect: results of steps are always kept in the cache
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    layers: Option<Option<bool>>,
    /// No effect: the environment variable KILN_LOG=debug prints a log for debugging
    #[arg(short = 'D', long)]
    debug: bool,
    /// No effect but with the value `default`: there is one way to isolate steps
    #[arg(long, value_name = "KIND")]
    isolation: Option<String>,
    /// No effect: steps always have the default confinement
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// No effect but with the value `default`: there is one builder
    #[arg(long, value_name = "NAME")]
    builder: Option<String>,
}

impl AcceptedFlags {
    /// Notices about the flags that have no effect.
    fn notices(&self) -> Vec<String> {
        let removed = "containers of steps are always removed";
        let given = [
            ("--rm", self.rm.is_some(), removed),
            ("--force-rm", self.force_rm.is_some(), removed),
            ("--compress", self.compress, "there is no daemon that a context would be sent to"),
            ("--layers", self.layers.is_some(), "results of steps are always kept in the cache"),
            ("--debug", self.debug, "KILN_LOG=debug prints a log for debugging"),
            ("--security-opt", !self.security_opt.is_empty(), "steps always have the default confinement"),
        ];
        let given = given.iter().filter(|(_, is_given, _)| *is_given);
        given.map(|(flag, _, reason)| format!("warning: {flag} has no effect: {reason}")).collect()
    }
}

/// Flags of Docker that are refused: they are not implemented yet.
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
            return refuse("--cache-from", "steps are found in the store of this host; leave the option out");
        }
        if !self.cache_to.is_empty() {
            return refuse("--cache-to", "results stay in the store of this host; leave the option out");
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
    /// Build of the directory `context` by the flags of `kiln up`; all others have their defaults.
    pub(in crate::commands) fn of_project(
        context: &Path,
        recipe: RecipeFlags,
        tag: String,
        secrets: Vec<String>,
    ) -> Build {
        let words = ["build".as_ref(), "--".as_ref(), context.as_os_str()];
        let build = Build::try_parse_from(words).expect("the context is the only argument that is required");
        Build { recipe, tag: vec![tag], secret: secrets, ..build }
    }

    /// Same build without the cache, names, outputs and files with results.
    pub(in crate::commands) fn anew(mut self) -> Build {
        self.recipe.no_cache = true;
        self.tag.clear();
        self.output.clear();
        (self.push, self.load, self.quiet) = (false, false, false);
        (self.iidfile, self.metadata_file) = (None, None);
        self
    }

    /// True when the context or the Dockerfile comes from standard input.
    pub(in crate::commands) fn reads_stdin(&self) -> bool {
        let stdin = Path::new("-");
        self.context == stdin || self.recipe.file.as_deref() == Some(stdin)
    }

    /// Build options and outputs from all flags.
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
        let mut outputs = self.outputs(&options)?;
        for output in outputs.iter_mut().filter(|output| output.kind == super::output::Kind::Image) {
            output.options.docker_types.get_or_insert(options.docker_types);
        }
        let is_named =
            !options.tags.is_empty() || options.targets.iter().any(|target| !target.tags.is_empty());
        options.only_files = !is_named && !outputs.is_empty() && outputs.iter().all(Output::needs_no_image);
        for output in &outputs {
            options.rewrites_times |= output.options.rewrites_times;
            for text in &output.options.annotations {
                options.annotations.add(text)?;
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

    /// Question to answer instead of building. `None` for a build.
    pub(super) fn question(&self) -> Result<Option<Call>, CliError> {
        if self.check { Call::parse("check") } else { Call::parse(&self.call) }
    }

    /// Style of the progress: the flag has precedence over `BUILDKIT_PROGRESS`.
    pub(in crate::commands) fn progress(&self) -> String {
        let variable = || std::env::var("BUILDKIT_PROGRESS").ok();
        self.recipe.progress.clone().or_else(variable).unwrap_or_else(|| "auto".to_owned())
    }

    /// True when the build argument `BUILDKIT_CONTEXT_KEEP_GIT_DIR` keeps the `.git` directory of a git context.
    pub(super) fn keeps_git(&self) -> bool {
        self.recipe.build_arg.iter().any(|text| {
            text.strip_prefix("BUILDKIT_CONTEXT_KEEP_GIT_DIR=")
                .is_some_and(|value| matches!(value, "1" | "true"))
        })
    }

    /// Notices about flags that have no effect.
    pub(super) fn accepted(&self) -> Vec<String> {
        self.accepted.notices()
    }

    /// Named contexts from `--build-context`.
    pub(super) fn contexts(&self) -> Result<Vec<NamedSource>, CliError> {
        self.recipe.build_context.iter().map(|text| Ok(NamedSource::parse(text)?)).collect()
    }

    /// Sources of the build context and its Dockerfile.
    pub(super) fn source<'a>(&'a self, named: &'a [NamedSource]) -> SourceRequest<'a> {
        SourceRequest { place: &self.context, file: self.recipe.file.as_deref(), named }
    }

    /// Path of the Dockerfile for messages, as the user wrote it.
    pub(super) fn shown_path(&self) -> String {
        match &self.recipe.file {
            Some(file) if file != Path::new("-") => file.display().to_string(),
            _ if self.context == Path::new("-") => "Dockerfile".to_owned(),
            _ => {
                // Redundant `.` components are removed.
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
            && !self.recipe.allow.iter().any(|right| right == "buildx.local.delete")
        {
            return Err(CliError::failed(
                "mode=delete removes other files of the directory, which is not allowed",
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

    fn entitlements(&self) -> Result<Entitlements, CliError> {
        let mut entitlements =
            Entitlements { host_network: self.network == "host", ..Entitlements::default() };
        for right in &self.recipe.allow {
            match right.split_once('=').unwrap_or((right, "")) {
                ("network.host", "") => entitlements.host_network = true,
                ("security.insecure", "") => entitlements.insecure = true,
                ("secret-leak", "") => entitlements.secret_leak = true,
                ("buildx.local.delete", "") => {}
                ("device", "") => entitlements.devices = Some(BTreeSet::new()),
                ("device", name) => {
                    // An entitlement to all devices has precedence, as set below.
                    let names = entitlements.devices.get_or_insert_default();
                    names.insert(name.to_owned());
                }
                _ => {
                    return Err(CliError::failed(format!("failed to build: unknown entitlement {right}"))
                        .hint("one of network.host, security.insecure, device, secret-leak"));
                }
            }
        }
        if self.recipe.allow.iter().any(|right| right == "device") {
            entitlements.devices = Some(BTreeSet::new());
        }
        Ok(entitlements)
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
        for text in self.recipe.target.iter().filter(|text| !text.is_empty()) {
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
        let mut build_args = build_arguments(&self.recipe.build_arg)?;
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
            annotations.add(text)?;
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
            no_cache: self.recipe.no_cache,
            explain: self.recipe.explain,
            tags: self.tag.iter().map(|text| tag(text)).collect::<Result<_, _>>()?,
            credentials: credentials::read(&self.secret, &self.recipe.ssh, self.strict)?,
            no_cache_stages: self
                .recipe
                .no_cache_filter
                .iter()
                .flat_map(|list| list.split(','))
                .map(str::to_lowercase)
                .collect(),
            network: self.network_mode()?,
            entitlements: self.entitlements()?,
            limits: self.limits.read()?,
            rewrites_times: self.rewrite_timestamp,
            squash,
            strict: self.strict,
            jobs: self.jobs.map(NonZero::get),
            volumes: self.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
            docker_types: match self.format.as_str() {
                "oci" => false,
                "docker" => true,
                other => {
                    return Err(CliError::Usage(
                        format!("invalid value {other:?} for --format"),
                        vec!["one of oci, docker".to_owned()],
                    ));
                }
            },
            only_files: false,
            hosts: self.add_host.iter().map(|text| host(text)).collect::<Result<_, _>>()?,
        })
    }
}

/// Parses a reference for an image.
fn tag(text: &str) -> Result<Reference, CliError> {
    let reference = text
        .parse::<Reference>()
        .map_err(|error| CliError::failed(format!("invalid tag {text:?}: {error}")).hint(missing::NAME))?;
    match reference.digest() {
        None => Ok(reference.or_latest()),
        Some(_) => Err(CliError::failed(format!("invalid tag {text:?}: a tag has no digest"))),
    }
}

/// Parses a mount in the form `HOST:CONTAINER[:ro|rw]`.
fn volume(text: &str) -> Result<HostMount, CliError> {
    let invalid = |reason: &str| {
        CliError::Usage(
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

/// Parses `NAME:ADDRESS` or `NAME=ADDRESS`; brackets around the address are removed.
fn host(text: &str) -> Result<(String, String), CliError> {
    let invalid = || {
        CliError::failed(format!("failed to build: invalid host {text}"))
            .hint("write --add-host NAME:ADDRESS, such as db:10.0.0.5")
    };
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if bare == "host-gateway" && !name.is_empty() {
        // The builder replaces it with the address.
        return Ok((name.to_owned(), bare.to_owned()));
    }
    if name.is_empty() || bare.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid());
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// Parses `NAME=VALUE`, or `NAME` for its value in the environment; unset variables are skipped.
fn build_arguments(list: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut values = BTreeMap::new();
    for entry in list {
        let (name, value) = match entry.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (entry.as_str(), std::env::var(entry).ok()),
        };
        if name.is_empty() {
            return Err(CliError::Usage(
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

/// Describes the command's arguments for help and completion.
pub(in crate::commands) fn describe() -> clap::Command {
    <Build as clap::CommandFactory>::command()
}
