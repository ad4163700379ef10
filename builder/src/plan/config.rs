//! Instructions that only change the image's config.

use super::{StageState, commit, expand_value, expose, go, shell};
use crate::mistake::Mistake;
use crate::stage::Step;
use kiln_image::config::{Empty, Healthcheck};
use kiln_parser::Text;
use kiln_parser::ast::{self, CommandLine, KeyValues, Kind};
use kiln_runtime::signal;

pub(super) fn apply(state: &mut StageState, step: &Step, kind: &Kind) -> Result<(), Mistake> {
    match kind {
        Kind::Env(pairs) => env(state, step, pairs),
        Kind::Label(pairs) => label(state, step, pairs),
        Kind::User(text) => user(state, step, text),
        Kind::Cmd(command) => {
            cmd(state, command);
            Ok(())
        }
        Kind::Entrypoint(command) => {
            entrypoint(state, command);
            Ok(())
        }
        Kind::Expose(words) => expose::expose(state, step, words),
        Kind::Volume(words) => volume(state, step, words),
        Kind::Shell(words) => {
            state.config.config.shell = words.iter().map(|word| word.as_str().to_owned()).collect();
            commit(state, format!("SHELL {}", go::plain_list(&state.config.config.shell)), false);
            Ok(())
        }
        Kind::Stopsignal(text) => stop_signal(state, step, text),
        Kind::Maintainer(text) => {
            state.config.author = text.as_str().to_owned();
            commit(state, format!("MAINTAINER {}", text.as_str()), false);
            Ok(())
        }
        Kind::Onbuild(onbuild) => {
            state.config.config.on_build.push(onbuild.trigger.clone());
            Ok(())
        }
        Kind::Healthcheck(check) => {
            healthcheck(state, check);
            Ok(())
        }
        // Never among a stage's steps: files with errors are not planned, and FROM begins a stage.
        Kind::Invalid | Kind::From(_) => Ok(()),
        Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) | Kind::Arg(_) => Ok(()),
    }
}

/// Keys and values of ENV or LABEL; each value is expanded in the environment before the line.
fn pairs(state: &StageState, step: &Step, pairs: &KeyValues) -> Result<Vec<(String, String)>, Mistake> {
    let expanded = pairs
        .pairs
        .iter()
        .map(|pair| Ok((expand_value(state, step, &pair.key)?, expand_value(state, step, &pair.value)?)));
    expanded.collect()
}

fn shown(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    std::iter::once(keyword.to_owned()).chain(pairs).collect()
}

fn env(state: &mut StageState, step: &Step, list: &KeyValues) -> Result<(), Mistake> {
    let list = pairs(state, step, list)?;
    for (name, value) in &list {
        state.environment.set(name, value);
        state.config.config.set_env(name, value);
    }
    commit(state, shown("ENV", &list), false);
    Ok(())
}

fn label(state: &mut StageState, step: &Step, list: &KeyValues) -> Result<(), Mistake> {
    let list = pairs(state, step, list)?;
    state.config.config.labels.extend(list.iter().cloned());
    commit(state, shown("LABEL", &list), false);
    Ok(())
}

fn user(state: &mut StageState, step: &Step, text: &Text) -> Result<(), Mistake> {
    let user = expand_value(state, step, text)?;
    commit(state, format!("USER {user}"), false);
    state.config.config.user = user;
    Ok(())
}

/// Program and arguments of a command in exec or shell form.
pub(super) fn arguments(state: &StageState, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.iter().map(|word| word.as_str().to_owned()).collect(),
        CommandLine::Shell(text) => {
            let mut arguments = shell(&state.config.config);
            arguments.push(text.as_str().to_owned());
            arguments
        }
    }
}

fn none_if_empty(arguments: Vec<String>) -> Option<Vec<String>> {
    (!arguments.is_empty()).then_some(arguments)
}

fn cmd(state: &mut StageState, command: &CommandLine) {
    let arguments = arguments(state, command);
    commit(state, format!("CMD {}", go::quoted_list(&arguments)), false);
    state.config.config.cmd = none_if_empty(arguments);
    state.config.config.args_escaped = true;
    state.has_own_command = true;
}

fn entrypoint(state: &mut StageState, command: &CommandLine) {
    let arguments = arguments(state, command);
    commit(state, format!("ENTRYPOINT {}", go::quoted_list(&arguments)), false);
    state.config.config.entrypoint = none_if_empty(arguments);
    // The base image's command belongs to the base image's entrypoint.
    if !state.has_own_command {
        state.config.config.cmd = None;
    }
}

fn volume(state: &mut StageState, step: &Step, words: &[Text]) -> Result<(), Mistake> {
    let mut volumes = Vec::new();
    for word in words {
        let volume = expand_value(state, step, word)?;
        if volume.is_empty() {
            let message = "VOLUME specified can not be an empty string";
            return Err(Mistake::at("empty-volume", step.span_of(word), message));
        }
        volumes.push(volume);
    }
    commit(state, format!("VOLUME {}", go::plain_list(&volumes)), false);
    state.config.config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
    Ok(())
}

fn stop_signal(state: &mut StageState, step: &Step, text: &Text) -> Result<(), Mistake> {
    let value = expand_value(state, step, text)?;
    // Numbers without a signal name are kept unchanged.
    let is_number = value.parse::<i64>().is_ok_and(|number| number != 0);
    if !is_number && signal::parse(&value).is_none() {
        return Err(Mistake::at("invalid-signal", step.span_of(text), format!("invalid signal: {value}"))
            .hint(Some("name one as SIGTERM or TERM, or give its number".to_owned())));
    }
    commit(state, format!("STOPSIGNAL {value}"), false);
    state.config.config.stop_signal = Some(value);
    Ok(())
}

fn healthcheck(state: &mut StageState, check: &ast::Healthcheck) {
    let check = match check {
        ast::Healthcheck::None => Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() },
        ast::Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } => {
            Healthcheck {
                test: health_test(command),
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: i64::from(*retries),
            }
        }
    };
    let text = format!(
        "HEALTHCHECK &{{{} {} {} {} {} {}}}",
        go::quoted_list(&check.test),
        go::quote(&go::duration(check.interval)),
        go::quote(&go::duration(check.timeout)),
        go::quote(&go::duration(check.start_period)),
        go::quote(&go::duration(check.start_interval)),
        go::quote_rune(check.retries)
    );
    commit(state, text, false);
    state.config.config.healthcheck = Some(check);
}

fn health_test(command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.as_str().to_owned()],
        CommandLine::Exec(words) => {
            let words = words.iter().map(|word| word.as_str().to_owned());
            std::iter::once("CMD".to_owned()).chain(words).collect()
        }
    }
}
