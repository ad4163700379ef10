//! `--filter` of `kiln events` (moby `daemon/events/filter.go`): values of one key are alternatives, except for labels;
//! conditions of different keys must all hold.

use crate::error::CliError;
use kiln_engine::events::Event;
use std::collections::BTreeMap;

/// Keys of conditions.
const KEYS: [&str; 9] =
    ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

/// Conditions of the user.
#[derive(Debug, Default)]
pub(super) struct Filter {
    terms: BTreeMap<&'static str, Vec<String>>,
}

impl Filter {
    /// Reads texts of the form `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// Fails for other texts and unknown keys.
    pub(super) fn read(texts: &[String]) -> Result<Filter, CliError> {
        let mut filter = Filter::default();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let Some((key, value)) = text.split_once('=') else {
                return Err(CliError::Flags(
                    format!("invalid argument {text:?} for --filter: expected KEY=VALUE"),
                    vec![format!("keys: {}", KEYS.join(", "))],
                ));
            };
            let (key, value) = (key.trim().to_lowercase(), value.trim());
            let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
                return Err(CliError::failed(format!("invalid filter '{key}'"))
                    .hint(format!("one of {}", KEYS.join(", "))));
            };
            filter.terms.entry(key).or_default().push(value.to_owned());
        }
        Ok(filter)
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
        self.any("type", |value| event.kind == value)
            && self.any("event", |value| {
                let (action, _) = event.action.split_once(':').unwrap_or((&event.action, ""));
                event.action == value || action == value
            })
            && self.any("scope", |value| event.scope == value)
            && self.any("container", |value| is("container", value))
            && self.any("volume", |value| is("volume", value))
            && self.any("network", |value| is("network", value))
            // There is no daemon, and no event of one.
            && self.any("daemon", |_| false)
            && self.any("image", |value| {
                let is_named = of_image == value || without_tag(of_image) == value;
                event.kind == "image" && event.actor.id == value || event.kind != "volume" && is_named
            })
            && self.values("label").iter().all(|label| has_label(event, label))
    }

    /// True when one of a key's values holds, or it has none.
    fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| holds(value))
    }

    fn values(&self, key: &str) -> &[String] {
        self.terms.get(key).map_or(&[], Vec::as_slice)
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
