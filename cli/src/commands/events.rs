//! `kiln events`.

mod filter;

use super::logs::time;
use crate::arguments::{self, Globals};
use crate::error::CliError;
use crate::format::typed::Types;
use crate::format::{self};
use crate::session::Session;
use crate::ui;
use clap::Parser;
use filter::Filter;
use gotmpl::{MissingKey, Template};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use kiln_engine::events::{Event, EventQuery, Events as Journal};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::LazyLock;

/// Show what happens to containers, images and volumes.
#[derive(Debug, Parser)]
struct Events {
    /// Show events since TIME as well: a time such as 2026-01-02T15:04:05, or a duration such as 42m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show events until TIME, and then end
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show only those that meet a condition, such as type=container or event=die; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each event with a Go template, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Describes the arguments.
pub fn describe() -> clap::Command {
    <Events as clap::CommandFactory>::command()
}

/// Prints events as they happen, without `--until` for ever.
pub fn run(globals: &Globals, arguments: Vec<OsString>) -> Result<u8, CliError> {
    let events: Events = arguments::parse("events", arguments)?;
    let query = events.query(Timestamp::now())?;
    let filter = Filter::read(&events.filter)?;
    let format = Format::read(events.format.as_deref())?;
    let session = Session::open(globals)?;
    let mut failed = None;
    let mut pass = |event: &Event| {
        if filter.takes(event)
            && let Err(error) = format.print(event)
        {
            failed = Some(error);
        }
        if failed.is_some() || ui::is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let read = Journal::of(session.store.root()).read(&query, &mut pass);
    read.map_err(|error| CliError::failed(format!("cannot read the events of the store: {error}")))?;
    failed.map_or(Ok(0), Err)
}

impl Events {
    /// Without a time, only new events are shown.
    fn query(&self, now: Timestamp) -> Result<EventQuery, CliError> {
        let (since, until) = (time("since", &self.since, now)?, time("until", &self.until, now)?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(CliError::failed("invalid value for \"since\": it is later than that of \"until\"")
                .hint("a duration is a time before now: --since 1h --until 5m"));
        }
        Ok(EventQuery { since: since.or(until.is_none().then_some(now)), until })
    }
}

/// Docker's type of events, by the names of Go's fields (moby `api/types/events`).
static TYPES: LazyLock<Types> = LazyLock::new(|| {
    Types::read(
        "Message
 Status=status string omit
 ID=id string omit
 From=from string omit
 Type string
 Action string
 Actor Actor
 Scope=scope string omit
 Time=time int omit
 TimeNano=timeNano int omit
Actor
 ID string
 Attributes map:string
",
    )
});

/// Format of an event.
enum Format {
    /// One line with all attributes.
    Text,
    /// One JSON object.
    Json,
    /// Filled in template.
    Template(Template),
}

impl Format {
    fn read(text: Option<&str>) -> Result<Format, CliError> {
        let template = match text {
            None | Some("") => return Ok(Format::Text),
            Some("json" | "{{json .}}") => return Ok(Format::Json),
            Some(text) => format::template(text)?,
        };
        if text.is_some_and(|text| text.contains("Attributes")) {
            // Each event has other attributes: an absent one is no mistake.
            return Ok(Format::Template(template.missing_key(MissingKey::Invalid)));
        }
        let format = Format::Template(template);
        // A field that events do not have is reported at once.
        format.show(&Event::default())?;
        Ok(format)
    }

    fn print(&self, event: &Event) -> Result<(), CliError> {
        let text = self.show(event)?;
        match self {
            Format::Text => ui::line(&text),
            Format::Json | Format::Template(_) => ui::data_line(&text),
        }
        Ok(())
    }

    fn show(&self, event: &Event) -> Result<String, CliError> {
        match self {
            Format::Text => Ok(line(event, &TimeZone::system())),
            Format::Json => Ok(format::json_of(event)),
            Format::Template(template) => {
                let failed = |error| CliError::failed(format!("cannot show the event: {error}"));
                let json = serde_json::to_value(event).map_err(failed)?;
                let value = TYPES.value("Message", Some(&json)).to_value();
                let printed = template.execute_to_string(&value);
                let printed = printed.map_err(|error| {
                    CliError::failed(format!("template parsing error: {error}")).hint(
                        "fields: .Type .Action .Actor.ID .Actor.Attributes .Time .TimeNano .Status .ID .From",
                    )
                })?;
                Ok(format::typed::plain(&printed))
            }
        }
    }
}

/// `2026-01-02T15:04:05.000000000+01:00 container start ID (image=busybox, name=web)` (docker/cli `system/events`).
fn line(event: &Event, zone: &TimeZone) -> String {
    let time = event.at().to_zoned(zone.clone());
    let offset = if time.offset().is_zero() { "Z".to_owned() } else { time.strftime("%:z").to_string() };
    let time = time.strftime("%Y-%m-%dT%H:%M:%S.%9f");
    let mut text = format!("{time}{offset} {} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> =
            event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        text.push_str(&format!(" ({})", pairs.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_engine::events::Actor;
    use std::collections::BTreeMap;

    fn event() -> Event {
        let attributes = [("name", "web"), ("image", "busybox")];
        let attributes: BTreeMap<String, String> =
            attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Event {
            kind: "container".into(),
            action: "start".into(),
            actor: Actor { id: "abc".into(), attributes },
            time: 1_700_000_000,
            time_nano: 1_700_000_000_000_000_005,
            ..Event::default()
        }
    }

    #[test]
    fn lines_are_those_of_docker() {
        let shown = |zone| line(&event(), &zone);
        let rest = " container start abc (image=busybox, name=web)";
        assert_eq!(shown(TimeZone::UTC), format!("2023-11-14T22:13:20.000000005Z{rest}"));
        let east = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(shown(east), format!("2023-11-14T23:13:20.000000005+01:00{rest}"));
    }

    #[test]
    fn templates_know_the_fields_of_events() {
        let show = |text: &str| Format::read(Some(text)).and_then(|format| format.show(&event()));
        assert_eq!(show("{{.Type}} {{.Action}} {{.Actor.ID}}").unwrap(), "container start abc");
        assert_eq!(show("{{.Actor.Attributes.name}} {{.Time}}").unwrap(), "web 1700000000");
        assert_eq!(
            show("{{json .Actor}}").unwrap(),
            r#"{"ID":"abc","Attributes":{"image":"busybox","name":"web"}}"#
        );
        assert_eq!(show("{{.Actor.Attributes.absent}}").unwrap(), "<nil>");
        assert!(show("{{.Nothing}}").is_err());
    }

    #[test]
    fn only_new_events_are_shown_without_a_time() {
        let now = Timestamp::from_second(1000).unwrap();
        let query = |since: Option<&str>, until: Option<&str>| {
            let events = Events {
                since: since.map(str::to_owned),
                until: until.map(str::to_owned),
                filter: Vec::new(),
                format: None,
            };
            events
                .query(now)
                .map(|query| (query.since.map(|t| t.as_second()), query.until.map(|t| t.as_second())))
        };
        assert_eq!(query(None, None).unwrap(), (Some(1000), None));
        assert_eq!(query(Some("10s"), None).unwrap(), (Some(990), None));
        assert_eq!(query(None, Some("10s")).unwrap(), (None, Some(990)));
        assert!(query(Some("1s"), Some("10s")).is_err());
        assert!(query(Some("x"), None).is_err());
    }
}
