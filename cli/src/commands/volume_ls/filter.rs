//! `--filter` of commands on volumes (moby `volume/service/convert.go`).

use crate::commands::images::filter::{has_label, label, switch};
use crate::conditions::{self, Conditions};
use crate::error::CliError;
use kiln_engine::{UsedVolume, Volume};
use regex::Regex;

/// Keys that `volume ls` accepts.
pub const OF_LIST: &[&str] = &["dangling", "driver", "label", "label!", "name"];

/// Keys that `volume prune` accepts.
pub const OF_PRUNE: &[&str] = &["all", "label", "label!"];

/// Conditions that the volumes of a command must meet.
#[derive(Debug, Default)]
pub struct Filter {
    terms: Conditions,
    names: Vec<Regex>,
    dangling: Option<bool>,
    all: Option<bool>,
}

impl Filter {
    /// Reads `KEY=VALUE` texts with keys that the command knows.
    ///
    /// # Errors
    ///
    /// Fails for other keys and for invalid values.
    pub fn read(texts: &[String], keys: &[&'static str]) -> Result<Filter, CliError> {
        let pairs = conditions::read(texts, keys)?;
        let mut filter = Filter { terms: Conditions::of(&pairs), ..Filter::default() };
        for (key, value) in &pairs {
            match *key {
                "dangling" => filter.dangling = Some(switch("dangling", value)?),
                "all" => filter.all = Some(switch("all", value)?),
                "name" => filter.names.push(Regex::new(value).map_err(|_| {
                    CliError::failed(format!("invalid filter 'name={value}'"))
                        .hint("write a part of the name, or a regular expression")
                })?),
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Value of `all`; `None` when it is not among the filters.
    pub fn all(&self) -> Option<bool> {
        self.all
    }

    /// True for a volume that meets all conditions.
    pub fn takes(&self, used: &UsedVolume) -> bool {
        let name = &used.volume.name;
        self.terms.any("driver", |driver| driver == "local")
            && (self.names.is_empty() || self.names.iter().any(|pattern| pattern.is_match(name)))
            && self.dangling.is_none_or(|dangling| dangling == used.containers.is_empty())
            && self.takes_labels(&used.volume)
    }

    /// True for a volume that meets the conditions on labels.
    pub fn takes_labels(&self, volume: &Volume) -> bool {
        let labels = volume.shown_labels();
        let has = |text: &String| has_label(&labels, &label(text));
        self.terms.values("label").iter().all(has) && !self.terms.values("label!").iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, containers: &[&str], labels: &[(&str, &str)]) -> UsedVolume {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        UsedVolume {
            volume: Volume {
                name: name.to_owned(),
                created: String::new(),
                anonymous: false,
                labels,
                options: Default::default(),
                owner: Default::default(),
            },
            containers: containers.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    #[test]
    fn conditions_choose_volumes() {
        let all = [
            used("db-data", &["1"], &[("env", "prod")]),
            used("db-old", &[], &[("env", "test"), ("keep", "")]),
            used("web", &[], &[]),
        ];
        for (texts, expected) in [
            (&[][..], "db-data db-old web"),
            (&["name=db"], "db-data db-old"),
            (&["name=^web$"], "web"),
            (&["name=old", "name=web"], "db-old web"),
            (&["dangling=true"], "db-old web"),
            (&["dangling=0"], "db-data"),
            (&["driver=local"], "db-data db-old web"),
            (&["driver=nfs"], ""),
            (&["label=env"], "db-data db-old"),
            (&["label=env=test"], "db-old"),
            (&["label=env", "label=keep"], "db-old"),
            (&["label!=env"], "web"),
            (&["label!=env=prod", "name=db"], "db-old"),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let filter = Filter::read(&texts, OF_LIST).unwrap();
            let taken: Vec<&str> =
                all.iter().filter(|used| filter.takes(used)).map(|used| used.volume.name.as_str()).collect();
            assert_eq!(taken.join(" "), expected, "{texts:?}");
        }
        for wrong in ["dangling=maybe", "name=(", "nosuch=1"] {
            assert!(Filter::read(&[wrong.to_owned()], OF_LIST).is_err(), "{wrong}");
        }
        assert_eq!(Filter::read(&["all=1".to_owned()], OF_PRUNE).unwrap().all(), Some(true));
    }
}
