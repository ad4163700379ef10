//! `--filter` of `kiln ps` (moby `daemon/list.go`): values of one key are alternatives, except for labels; conditions of
//! different keys must all hold.

use super::columns;
use crate::conditions::{self, Conditions as Terms};
use crate::error::CliError;
use kiln_engine::{Container, Containers, Listed, Records};
use kiln_image::digest::DiffId;
use kiln_image::store::{Store, StoreError};
use regex::Regex;

/// Keys of conditions.
const KEYS: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network",
    "publish", "since", "status", "volume",
];
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// Conditions as the user wrote them, with valid keys and values.
#[derive(Debug, Default)]
pub(super) struct Filter {
    terms: Terms,
    names: Vec<Regex>,
}

impl Filter {
    /// Reads texts of the form `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// Fails for other texts, unknown keys and invalid values.
    pub(super) fn read(texts: &[String]) -> Result<Filter, CliError> {
        let pairs = conditions::read(texts, &KEYS)?;
        let mut names = Vec::new();
        for (key, value) in &pairs {
            check(key, value)?;
            if *key == "name" {
                names.push(Regex::new(value).map_err(|_| invalid(key, value, "a regular expression"))?);
            }
        }
        Ok(Filter { terms: Terms::of(&pairs), names })
    }

    /// Looks up the containers and images that conditions name.
    ///
    /// # Errors
    ///
    /// Fails when there is no container of that name.
    pub(super) fn resolve<'a>(
        &'a self,
        store: &'a Store,
        containers: &Containers<'_>,
    ) -> Result<Conditions<'a>, CliError> {
        let created = |key: &str| -> Result<Vec<String>, CliError> {
            let names = self.terms.values(key).iter();
            names.map(|name| Ok(containers.find(name)?.created().to_owned())).collect()
        };
        let mut ancestors = Vec::new();
        for name in self.terms.values("ancestor") {
            match store.resolve(name) {
                Ok(image) => {
                    let config = store.read_image(image.clone())?.config;
                    ancestors.push((image.id.to_string(), config.rootfs.diff_ids));
                }
                // As in the reference, no container descends from an image that does not exist.
                Err(StoreError::NoSuchImage(_) | StoreError::Reference(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (before, since) = (created("before")?, created("since")?);
        Ok(Conditions { filter: self, store, records: (**containers).clone(), before, since, ancestors })
    }
}

/// Checks the value of a key that takes only some.
fn check(key: &str, value: &str) -> Result<(), CliError> {
    let one_of = |values: &[&str]| match values.contains(&value) {
        true => Ok(()),
        false => Err(invalid(key, value, &format!("one of {}", values.join(", ")))),
    };
    match key {
        "status" => one_of(&STATES),
        "health" => one_of(&HEALTH),
        "is-task" => one_of(&["true", "false", "1", "0", "t", "f"]),
        "exited" => value.parse::<i32>().map(drop).map_err(|_| invalid(key, value, "an exit code")),
        "publish" | "expose" if ports(value).is_none() => {
            Err(invalid(key, value, "PORT[-PORT][/tcp|udp|sctp]"))
        }
        _ => Ok(()),
    }
}

fn invalid(key: &str, value: &str, expected: &str) -> CliError {
    CliError::failed(format!("invalid filter '{key}={value}'")).hint(format!("the value must be {expected}"))
}

/// First and last port of a range, and the protocol; `None` for other texts.
fn ports(text: &str) -> Option<(u16, u16, &str)> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && matches!(protocol, "tcp" | "udp" | "sctp")).then_some((first, last, protocol))
}

/// Conditions whose names have been looked up.
pub(super) struct Conditions<'a> {
    filter: &'a Filter,
    store: &'a Store,
    records: Records,
    before: Vec<String>,
    since: Vec<String>,
    /// Id and layers of each image.
    ancestors: Vec<(String, Vec<DiffId>)>,
}

impl Conditions<'_> {
    /// True for conditions that running containers alone would never or seldom meet.
    pub(super) fn shows_ended(&self) -> bool {
        ["status", "exited"].iter().any(|key| !self.filter.terms.values(key).is_empty())
    }

    /// True for a container that meets all conditions.
    pub(super) fn takes(&self, listed: &Listed) -> bool {
        let name = listed.name();
        let slashed = format!("/{name}");
        let names = &self.filter.names;
        let is_named = || names.iter().any(|pattern| pattern.is_match(name) || pattern.is_match(&slashed));
        let (before, since) = (&self.before, &self.since);
        let filter = self.filter;
        filter.terms.any("id", |value| listed.id().contains(value))
            && (names.is_empty() || is_named())
            && (before.is_empty() || before.iter().any(|time| listed.created() < time.as_str()))
            && (since.is_empty() || since.iter().any(|time| listed.created() > time.as_str()))
            && filter.terms.any("is-task", |value| value.starts_with(['f', '0']))
            && match listed {
                Listed::Sound(container) => self.takes_sound(container),
                Listed::Damaged(_) => self.takes_damaged(),
            }
    }

    /// True when no condition asks for what the record would have to show.
    fn takes_damaged(&self) -> bool {
        let known = ["id", "name", "before", "since", "is-task", "status"];
        let status = self.filter.terms.values("status");
        self.filter.terms.keys().all(|key| known.contains(&key))
            && (status.is_empty() || status.iter().any(|value| value == "dead"))
    }

    fn takes_sound(&self, container: &Container) -> bool {
        let code = match &container.state {
            kiln_engine::State::Exited { code, .. } => Some(code.to_string()),
            _ => None,
        };
        let filter = self.filter;
        filter.terms.any("status", |value| container.state.status() == value)
            && filter.terms.any("exited", |value| code.as_deref() == Some(value))
            && filter.terms.any("network", |value| has_network(container, value))
            && self.filter.terms.values("label").iter().all(|label| has_label(container, label))
            && (self.filter.terms.values("ancestor").is_empty() || self.descends(container))
            && (filter.terms.values("health").is_empty()
                || filter.terms.any("health", |value| value == self.health(container)))
            && filter.terms.any("volume", |value| columns::has_volume(container, value))
            && filter.terms.any("publish", |value| publishes(container, value))
            && filter.terms.any("expose", |value| exposes(container, value))
    }

    fn health(&self, container: &Container) -> &'static str {
        self.records.health(container).map_or("none", |health| health.status.name())
    }

    /// True when the container's image is one of the ancestors, or begins with its layers.
    fn descends(&self, container: &Container) -> bool {
        let id = container.image.to_string();
        let layers = self.store.image(&container.image).ok().flatten();
        let layers = layers.and_then(|image| self.store.read_image(image).ok());
        let layers = layers.map(|image| image.config.rootfs.diff_ids).unwrap_or_default();
        self.ancestors
            .iter()
            .any(|(ancestor, own)| *ancestor == id || !own.is_empty() && layers.starts_with(own))
    }
}

/// True for a network by its name, its id or the beginning of that.
fn has_network(container: &Container, value: &str) -> bool {
    let attachments = container.settings.attachments.iter().flatten();
    container.network_names().iter().any(|name| name == value)
        || !value.is_empty() && attachments.into_iter().any(|one| one.network.starts_with(value))
}

/// True when a port or one of a range is published. Docker looks at the ports of the container.
fn publishes(container: &Container, wanted: &str) -> bool {
    let Some((first, last, protocol)) = ports(wanted) else { return false };
    container.bindings().iter().any(|one| {
        let end = one.container_port.saturating_add(one.count - 1);
        one.protocol.to_string() == protocol && one.container_port <= last && first <= end
    })
}

/// True when the container exposes a port or one of a range.
fn exposes(container: &Container, wanted: &str) -> bool {
    let Some((first, last, protocol)) = ports(wanted) else { return false };
    container.open_ports().any(|port| {
        ports(port).is_some_and(|(port, _, kind)| kind == protocol && (first..=last).contains(&port))
    })
}

fn has_label(container: &Container, wanted: &str) -> bool {
    let (name, value) = wanted.split_once('=').map_or((wanted, None), |(name, value)| (name, Some(value)));
    let found = container.settings.labels.get(name);
    found.is_some_and(|found| value.is_none_or(|value| found == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_checked() {
        let read = |text: &str| Filter::read(&[text.to_owned()]);
        for good in [
            "name=^web$",
            "status=paused",
            "exited=137",
            "publish=80",
            "expose=8000-8010/udp",
            "is-task=false",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in [
            "foo=1",
            "status=up",
            "exited=x",
            "health=good",
            "publish=x",
            "expose=9-8",
            "name=(",
            "is-task=x",
        ] {
            assert!(matches!(read(bad), Err(CliError::Failed { .. })), "{bad}");
        }
        assert!(matches!(read("name"), Err(CliError::Flags(..))));
    }
}
