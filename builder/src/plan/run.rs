//! RUN: programs that change the stage's tree.

use super::{Planner, StageState, commit, config, shell, shown_expanded};
use crate::graph::{Exec, MountSource, Network, Operation, StepMount};
use crate::mistake::Mistake;
use crate::path;
use crate::stage::Step;
use kiln_image::platform::Platform;
use kiln_parser::ast::{CommandLine, NetworkMode, Run, SecurityMode};
use kiln_parser::expand::Quotes;
use kiln_parser::span::Span;
use std::collections::BTreeMap;

/// Default host name in RUN steps.
pub(super) const HOSTNAME: &str = "buildkitsandbox";
/// Names of proxy settings, which are passed in upper and lower case.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Host name in RUN steps: `BUILDKIT_SANDBOX_HOSTNAME`, or the default.
pub(crate) fn hostname(build_args: &BTreeMap<String, String>) -> &str {
    let given = build_args.get("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty());
    given.map_or(HOSTNAME, String::as_str)
}

impl Planner<'_> {
    pub(super) fn run(&mut self, state: &mut StageState, step: &Step, run: &Run) -> Result<(), Mistake> {
        state.pay_for_environment(0, step.span)?;
        let (mounts, inputs) = self.mounts(state, step, run)?;
        if !self.options.looks_only {
            self.check_entitlements(step, run)?;
        }
        let (arguments, script) = command(state, step, run);
        let mut shown = shown(state, step, &mounts);
        if let (true, Some(heredoc)) = (run.is_heredoc_alone(), step.instruction.heredocs.first()) {
            shown.push_str(&format!(" ({})", summary(&heredoc.content)));
        }
        let own = run.network.as_ref().map(|network| network.value);
        let network = match own.filter(|own| *own != NetworkMode::Default).unwrap_or(self.options.network) {
            NetworkMode::None => Network::None,
            NetworkMode::Host => Network::Host,
            NetworkMode::Default => Network::Bridge,
        };
        let dir = &state.config.config.working_dir;
        let exec = Exec {
            arguments: arguments.clone(),
            environment: state.environment.to_entries(),
            proxies: self.proxies(),
            dir: path::join("/", dir),
            user: state.config.config.user.clone(),
            network,
            script,
            hosts: self.options.hosts.iter().map(|(name, _)| name.clone()).collect(),
            hostname: hostname(self.options.build_args).to_owned(),
            is_insecure: run.security.as_ref().is_some_and(|mode| mode.value == SecurityMode::Insecure),
            devices: run
                .devices
                .iter()
                .map(|device| (device.name.as_str().to_owned(), device.required))
                .collect(),
            limits: self.options.limits.clone(),
            platform: (state.platform != Platform::host()).then(|| state.platform.clone()),
            mounts,
            declared: self.declared(state),
        };
        self.push(state, step, Operation::Exec(Box::new(exec)), inputs, &shown);
        let created_by = created_by(state, &arguments);
        commit(state, created_by, true);
        Ok(())
    }

    /// Variables of a RUN that ARGs set, and whether `--build-arg` set their values.
    fn declared(&self, state: &StageState) -> Vec<(String, bool)> {
        let names = state.arguments.iter().map(|(name, _)| name);
        let own = names.filter(|name| state.config.config.env_value(name).is_none());
        own.map(|name| (name.clone(), self.options.build_args.contains_key(name))).collect()
    }

    /// Fails when a RUN needs an entitlement that `--allow` does not grant.
    fn check_entitlements(&self, step: &Step, run: &Run) -> Result<(), Mistake> {
        let entitlements = self.options.entitlements;
        let missing = |span: Span, right: &str, what: &str| {
            let span = if step.is_trigger { step.span } else { span };
            Err(Mistake::at("not-allowed", span, format!("{right} is not allowed"))
                .hint(Some(format!("pass --allow {right} if this Dockerfile may use {what}"))))
        };
        let denied = run.devices.iter().find(|device| !entitlements.allows_device(device.name.as_str()));
        if let Some(device) = denied {
            return missing(device.name.span(), "device", "devices of the host");
        }
        if let Some(security) = run.security.as_ref().filter(|mode| mode.value == SecurityMode::Insecure)
            && !entitlements.insecure
        {
            return missing(security.span, "security.insecure", "all rights of root");
        }
        if let Some(network) = run.network.as_ref().filter(|mode| mode.value == NetworkMode::Host)
            && !entitlements.host_network
        {
            return missing(network.span, "network.host", "the host's own network");
        }
        Ok(())
    }

    fn proxies(&self) -> Vec<String> {
        let mut proxies = Vec::new();
        for name in PROXIES {
            let given = self.options.build_args.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
                proxies.push(format!("{name}={value}"));
                proxies.push(format!("{}={value}", name.to_lowercase()));
            }
        }
        proxies
    }
}

/// Name of a step. Values of variables that a secret replaces in the container are masked.
fn shown(state: &StageState, step: &Step, mounts: &[StepMount]) -> String {
    let hidden = mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Secret { variable, .. } => variable.as_ref(),
        _ => None,
    });
    let mut hidden = hidden.peekable();
    if hidden.peek().is_none() {
        return shown_expanded(state, step, Quotes::Keep, true);
    }
    let mut masked = state.clone();
    hidden.for_each(|name| masked.environment.set(name, "****"));
    shown_expanded(&masked, step, Quotes::Keep, true)
}

/// Arguments of a RUN, and name and content of the script when the heredoc is one.
fn command(state: &StageState, step: &Step, run: &Run) -> (Vec<String>, Option<(String, String)>) {
    let heredocs = &step.instruction.heredocs;
    let text = match &run.command {
        CommandLine::Shell(text) if !heredocs.is_empty() => text,
        command => return (config::arguments(state, command), None),
    };
    let mut script = None;
    let whole = if run.is_heredoc_alone() {
        let body = heredocs[0].text();
        if body.starts_with("#!") {
            let path = format!("/dev/pipes/{}", heredocs[0].name);
            script = Some((heredocs[0].name.clone(), body));
            path
        } else {
            body
        }
    } else {
        // The shell parses the heredocs itself, so they are passed as written.
        let bodies = heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
        std::iter::once(text.as_str().to_owned()).chain(bodies).collect()
    };
    let mut arguments = shell(&state.config.config);
    arguments.push(whole);
    (arguments, script)
}

/// First line of a heredoc, for the progress.
fn summary(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.to_owned(),
    }
}

/// History entry `RUN |2 A=1 B=2 /bin/sh -c make # buildkit`: each declared ARG once, with its value in RUN.
fn created_by(state: &StageState, arguments: &[String]) -> String {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (name, value) in &state.arguments {
        let value = state.environment.value(name).or(value.as_deref()).unwrap_or_default();
        match seen.iter_mut().find(|(earlier, _)| earlier == name) {
            Some((_, earlier)) => *earlier = value.to_owned(),
            None => seen.push((name, value.to_owned())),
        }
    }
    let mut words = Vec::new();
    if !seen.is_empty() {
        words.push(format!("|{}", seen.len()));
        words.extend(seen.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(arguments.iter().cloned());
    format!("RUN {} # buildkit", words.join(" "))
}
