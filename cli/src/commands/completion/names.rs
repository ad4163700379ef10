//! Names of containers, images, networks and volumes that complete a word of a command line.
//!
//! The scripts of all shells ask this program with the words so far, so that the flags with values and the positional
//! arguments of each command are known from its description alone.

use crate::arguments::Globals;
use crate::commands::{self, Command};
use crate::error::CliError;
use crate::session::Session;
use crate::{text, ui};
use kiln_engine::{Containers, Listed};
use kiln_image::reference::Reference;
use kiln_image::store::Store;
use std::ffi::OsString;

/// Name of the internal command that prints names.
pub const NAMES: &str = "completion-names";

/// Objects whose names complete a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Containers,
    Running,
    Images,
    Volumes,
    /// Containers, images, networks and volumes.
    All,
    Networks,
    /// Containers, with a colon for a path.
    Paths,
}

/// Commands that take names, with the kinds of their positional arguments; the last kind also counts for those after it,
/// where a command takes several.
const TAKING: &[(&str, &[Kind], bool)] = &[
    ("attach", &[Kind::Running], false),
    ("commit", &[Kind::Containers, Kind::Images], false),
    ("cp", &[Kind::Paths, Kind::Paths], false),
    ("create", &[Kind::Images], false),
    ("diff", &[Kind::Containers], false),
    ("exec", &[Kind::Running], false),
    ("export", &[Kind::Containers], false),
    ("history", &[Kind::Images], false),
    ("inspect", &[Kind::All], true),
    ("kill", &[Kind::Running], true),
    ("logs", &[Kind::Containers], false),
    ("network-connect", &[Kind::Networks, Kind::Containers], false),
    ("network-disconnect", &[Kind::Networks, Kind::Containers], false),
    ("network-rm", &[Kind::Networks], true),
    ("pause", &[Kind::Running], true),
    ("port", &[Kind::Running], false),
    ("pull", &[Kind::Images], false),
    ("push", &[Kind::Images], false),
    ("rename", &[Kind::Containers], false),
    ("restart", &[Kind::Containers], true),
    ("rm", &[Kind::Containers], true),
    ("rmi", &[Kind::Images], true),
    ("run", &[Kind::Images], false),
    ("save", &[Kind::Images], true),
    ("start", &[Kind::Containers], true),
    ("stats", &[Kind::Running], true),
    ("stop", &[Kind::Running], true),
    ("tag", &[Kind::Images, Kind::Images], false),
    ("top", &[Kind::Running], false),
    ("unpause", &[Kind::Running], true),
    ("update", &[Kind::Containers], true),
    ("verify", &[Kind::Images], false),
    ("volume-export", &[Kind::Volumes], false),
    ("volume-import", &[Kind::Volumes], false),
    ("volume-rm", &[Kind::Volumes], true),
    ("wait", &[Kind::Containers], true),
];

/// Prints the names that complete the last of the words, which follow the program's name on a command line.
///
/// # Errors
///
/// Fails when the store cannot be read.
pub fn print(words: &[OsString]) -> Result<u8, CliError> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some((root, kind, word)) = wanted(&words) else { return Ok(0) };
    let session = Session::open(&Globals { root: root.map(Into::into) })?;
    let mut names = Vec::new();
    if !matches!(kind, Kind::Images | Kind::Networks | Kind::Volumes) {
        names.extend(containers(&session.store, kind, &word)?);
    }
    if matches!(kind, Kind::Images | Kind::All) {
        names.extend(images(&session.store)?);
    }
    if matches!(kind, Kind::Volumes | Kind::All) {
        let volumes = Containers::open(&session.store)?.volumes()?;
        names.extend(volumes.into_iter().map(|used| used.volume.name));
    }
    if matches!(kind, Kind::Networks | Kind::All) {
        let networks = Containers::open(&session.store)?.networks()?.list()?;
        names.extend(networks.into_iter().map(|network| network.name));
    }
    names.sort();
    names.dedup();
    names.iter().filter(|name| name.starts_with(&word)).for_each(|name| ui::line(name));
    Ok(0)
}

/// Store, kind of objects, and beginning of the name that the last word is; `None` when it is no name.
fn wanted(words: &[String]) -> Option<(Option<String>, Kind, String)> {
    let (word, before) = words.split_last()?;
    let mut root = None;
    let mut before = before.iter();
    let (command, group) = loop {
        match before.next()?.as_str() {
            "--root" => root = Some(before.next()?.clone()),
            "--color" => drop(before.next()?),
            flag if flag.starts_with("--root=") => root = Some(flag["--root=".len()..].to_owned()),
            flag if flag.starts_with('-') => {}
            name => break find(name, &mut before)?,
        }
    };
    let rest: Vec<&str> = before.map(String::as_str).collect();
    if matches!(command.name, "run" | "create") && matches!(rest.last(), Some(&"--network" | &"--net")) {
        return Some((root, Kind::Networks, word.clone()));
    }
    let at = position(&(command.describe)(), &rest)?;
    if word.starts_with('-') {
        return None;
    }
    let (_, kinds, takes_more) = TAKING.iter().find(|(name, _, _)| *name == command.name)?;
    let kind = kinds.get(at).or(kinds.last().filter(|_| *takes_more)).copied()?;
    let kind = match (kind, group) {
        (Kind::All, Some("image")) => Kind::Images,
        (Kind::All, Some("container")) => Kind::Containers,
        (Kind::All, Some("volume")) => Kind::Volumes,
        (Kind::All, Some("network")) => Kind::Networks,
        (kind, _) => kind,
    };
    Some((root, kind, word.clone()))
}

/// Command of a name, or of a group and its member, which is read from the words after it.
fn find<'w>(
    name: &'w str,
    rest: &mut std::slice::Iter<'w, String>,
) -> Option<(&'static Command, Option<&'w str>)> {
    if let Some(command) = commands::named(name) {
        return Some((command, None));
    }
    let member = rest.next()?;
    let (_, _, target) =
        commands::GROUPS.iter().find(|(group, known, _)| *group == name && known == member)?;
    Some((commands::named(target)?, Some(name)))
}

/// Number of positional arguments before the last word; `None` when that is the value of a flag.
fn position(command: &clap::Command, before: &[&str]) -> Option<usize> {
    let takes_value = |found: &dyn Fn(&clap::Arg) -> bool| {
        command.get_arguments().any(|known| found(known) && known.get_action().takes_values())
    };
    let mut positions = 0;
    let mut words = before.iter();
    while let Some(word) = words.next() {
        let needs_value = match word.strip_prefix("--") {
            Some("") => return Some(positions + words.count()),
            Some(long) => !long.contains('=') && takes_value(&|known| known.get_long() == Some(long)),
            None => match word.strip_prefix('-').and_then(|letters| letters.chars().last()) {
                Some(letter) => takes_value(&|known| known.get_short() == Some(letter)),
                None => {
                    positions += 1;
                    false
                }
            },
        };
        if needs_value {
            words.next()?;
        }
    }
    Some(positions)
}

/// Names of containers, and ids when a part of one is typed.
fn containers(store: &Store, kind: Kind, word: &str) -> Result<Vec<String>, CliError> {
    let listed = Containers::open(store)?.list()?;
    let chosen = listed.iter().filter(|one| kind != Kind::Running || one.is_running());
    let names = chosen.flat_map(|one: &Listed| {
        let id = (!word.is_empty()).then(|| text::short(one.id()));
        [Some(one.name().to_owned()).filter(|name| !name.is_empty()), id]
    });
    let end = if kind == Kind::Paths { ":" } else { "" };
    Ok(names.flatten().map(|name| name + end).collect())
}

/// Names of images as users write them, with their tags.
fn images(store: &Store) -> Result<Vec<String>, CliError> {
    let tags = store.tags()?;
    let names = tags.iter().filter_map(|tag| tag.reference.parse::<Reference>().ok());
    Ok(names.map(|name| name.familiar()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_take_names_exist() {
        for (name, _, _) in TAKING {
            assert!(commands::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_are_offered_where_a_command_takes_them() {
        for (line, expected) in [
            ("exec |", Some(Kind::Running)),
            ("exec -it -e A=1 we|", Some(Kind::Running)),
            ("exec -e |", None),
            ("exec --workdir |", None),
            ("exec web |", None),
            ("exec -|", None),
            ("--root /x container exec --user=me w|", Some(Kind::Running)),
            ("run -d --name web |", Some(Kind::Images)),
            ("run --name |", None),
            ("run busybox |", None),
            ("rm -f one two |", Some(Kind::Containers)),
            ("inspect |", Some(Kind::All)),
            ("image inspect |", Some(Kind::Images)),
            ("container inspect a |", Some(Kind::Containers)),
            ("volume inspect a |", Some(Kind::Volumes)),
            ("volume remove -f a |", Some(Kind::Volumes)),
            ("volume import |", Some(Kind::Volumes)),
            ("volume import a |", None),
            ("volume create |", None),
            ("commit web |", Some(Kind::Images)),
            ("commit web app |", None),
            ("cp |", Some(Kind::Paths)),
            ("network inspect |", Some(Kind::Networks)),
            ("network connect |", Some(Kind::Networks)),
            ("network connect web |", Some(Kind::Containers)),
            ("run --network |", Some(Kind::Networks)),
            ("stop -- |", Some(Kind::Running)),
            ("container |", None),
            ("nosuch |", None),
            ("|", None),
        ] {
            let words: Vec<String> = line.trim_end_matches('|').split(' ').map(str::to_owned).collect();
            let found = wanted(&words);
            assert_eq!(found.as_ref().map(|(_, kind, _)| *kind), expected, "{line}");
        }
        let words: Vec<String> = ["--root", "/x", "rm", "we"].map(str::to_owned).to_vec();
        assert_eq!(wanted(&words), Some((Some("/x".to_owned()), Kind::Containers, "we".to_owned())));
    }
}
