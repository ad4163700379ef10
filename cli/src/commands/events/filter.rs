//! `--filter` of `kiln events` (moby `daemon/events/filter.go`): values of one key are alternatives, except for labels;
//! conditions of different keys must all hold.

use crate::conditions::{self, Conditions};
use crate::error::CliError;
use kiln_engine::events::Event;

/// Keys of conditions.
const KEYS: [&str; 9] =
    ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

/// Conditions of the user.
#[derive(Debug, Default)]
pub(super) struct Filter(Conditions);

impl Filter {
    /// Reads texts of the form `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// Fails for other texts and unknown keys.
    pub(super) fn read(texts: &[String]) -> Result<Filter, CliError> {
        Ok(Filter(Conditions::of(&conditions::read(texts, &KEYS)?)))
    }

    /// True for an event that meets all conditions.
    pub(super) fn takes(&self, event: &Event) -> bool {
        let name = event.actor.attributes.get("name").map_or("", String::as_str);
        // The names of other objects are not those of containers or volumes.
        let is = |kind: &str, value: &str| {
            let own = event.kind == kind && (event.actor.id.starts_with(value) || name.starts_with(value));
            own || event.actor.attributes.get(kind).is_some_and(|id| id.starts_with(value))
        };
        let of_image = event.actor.attributes.get("image").map_or(name, String::as_str);
        self.0.any("type", |value| event.kind == value)
            && self.0.any("event", |value| {
                let (action, _) = event.action.split_once(':').unwrap_or((&event.action, ""));
                event.action == value || action == value
            })
            && self.0.any("scope", |value| event.scope == value)
            && self.0.any("container", |value| is("container", value))
            && self.0.any("volume", |value| is("volume", value))
            && self.0.any("network", |value| is("network", value))
            // There is no daemon, and no event of one.
            && self.0.any("daemon", |_| false)
            && self.0.any("image", |value| {
                let is_named = of_image == value || without_tag(of_image) == value;
                event.kind == "image" && event.actor.id == value || !matches!(event.kind.as_str(), "volume" | "network") && is_named
            })
            && self.0.values("label").iter().all(|label| has_label(event, label))
    }
}

/// Name of an image without its tag.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn has_label(event: &Event, wanted: &str) -> bool {
    let (name, value) = wanted.split_once('=').map_or((wanted, None), |(name, value)| (name, Some(value)));
    let found = event.actor.attributes.get(name);
    found.is_some_and(|found| value.is_none_or(|value| found == value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_engine::events::Actor;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Event {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes: attributes.collect() },
            scope: "local".into(),
            ..Event::default()
        }
    }

    #[test]
    fn conditions_select_events() {
        let start =
            event("container", "start", "abc1", &[("name", "web"), ("image", "reg:5000/app:1"), ("a", "b")]);
        let health = event("container", "health_status: healthy", "abc1", &[("name", "web")]);
        let tag = event("image", "tag", "sha256:1", &[("name", "app:1")]);
        let volume = event("volume", "create", "data", &[("driver", "local")]);
        let check = |filters: &[&str], expected: [bool; 4]| {
            let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            let filter = Filter::read(&filters).unwrap();
            assert_eq!(
                [&start, &health, &tag, &volume].map(|event| filter.takes(event)),
                expected,
                "{filters:?}"
            );
        };
        check(&[], [true; 4]);
        check(&["type=container"], [true, true, false, false]);
        check(&["type=container", "event=start"], [true, false, false, false]);
        check(&["event=start", "event=tag"], [true, false, true, false]);
        check(&["event=health_status"], [false, true, false, false]);
        check(&["event=health_status: unhealthy"], [false; 4]);
        check(&["container=web"], [true, true, false, false]);
        check(&["container=abc"], [true, true, false, false]);
        check(&["container=bc"], [false; 4]);
        check(&["image=app"], [false, false, true, false]);
        check(&["image=reg:5000/app"], [true, false, false, false]);
        check(&["image=reg:5000/app:1"], [true, false, false, false]);
        check(&["volume=data"], [false, false, false, true]);
        check(&["label=a"], [true, false, false, false]);
        check(&["label=a=b", "label=c"], [false; 4]);
        check(&["scope=local"], [true; 4]);
        check(&["daemon=x"], [false; 4]);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let read = |text: &str| Filter::read(&[text.to_owned()]);
        assert!(matches!(read("foo=1"), Err(CliError::Failed { .. })));
        assert!(matches!(read("start"), Err(CliError::Flags(..))));
    }
}
