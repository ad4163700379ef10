//! Command line in the syntax of runc and crun, which is that of Go's `flag` package: one dash or two, values behind
//! `=` or as the next argument, flags before the container's id.

use crate::error::OciError;
use std::collections::BTreeMap;

/// Flag: its names, the first being the canonical one, and whether a value follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) names: &'static [&'static str],
    pub(crate) takes_value: bool,
}

/// Flag without a value.
pub(crate) const fn switch(names: &'static [&'static str]) -> Flag {
    Flag { names, takes_value: false }
}

/// Flag with a value.
pub(crate) const fn value(names: &'static [&'static str]) -> Flag {
    Flag { names, takes_value: true }
}

/// Command line after parsing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    flags: BTreeMap<&'static str, Vec<String>>,
    /// Positional arguments, in order.
    pub(crate) words: Vec<String>,
}

impl Arguments {
    /// Parses `words`; with `until_word` the first positional argument and all after it are kept as they are.
    pub(crate) fn read(words: &[String], known: &[Flag], until_word: bool) -> Result<Arguments, OciError> {
        let mut read = Arguments::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let Some(name) = name.filter(|_| word != "-") else {
                read.words.push(word.clone());
                if until_word {
                    read.words.extend(rest.cloned());
                    break;
                }
                continue;
            };
            if word == "--" {
                read.words.extend(rest.cloned());
                break;
            }
            let (name, given) = match name.split_once('=') {
                Some((name, given)) => (name, Some(given.to_owned())),
                None => (name, None),
            };
            if !read.take(name, given.clone(), known, &mut rest)?
                && !read.take_cluster(name, given.is_none(), known)
            {
                return Err(OciError::usage(format!("flag provided but not defined: -{name}")));
            }
        }
        Ok(read)
    }

    fn take(
        &mut self,
        name: &str,
        given: Option<String>,
        known: &[Flag],
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<bool, OciError> {
        let Some(flag) = known.iter().find(|flag| flag.names.contains(&name)) else { return Ok(false) };
        let text = match (flag.takes_value, given) {
            (true, Some(given)) => given,
            (true, None) => rest
                .next()
                .cloned()
                .ok_or_else(|| OciError::usage(format!("flag needs an argument: -{name}")))?,
            (false, Some(given)) if given == "false" => return Ok(true),
            (false, Some(given)) if given != "true" => {
                return Err(OciError::usage(format!("invalid boolean value {given:?} for -{name}")));
            }
            (false, _) => String::new(),
        };
        self.flags.entry(flag.names[0]).or_default().push(text);
        Ok(true)
    }

    /// Several short switches in one argument, such as `-it`.
    fn take_cluster(&mut self, name: &str, is_bare: bool, known: &[Flag]) -> bool {
        let find = |letter: char| {
            known.iter().find(|flag| {
                !flag.takes_value && flag.names.iter().any(|name| name.chars().eq(std::iter::once(letter)))
            })
        };
        let found: Option<Vec<&Flag>> = name.chars().map(find).collect();
        let Some(found) = found.filter(|found| is_bare && found.len() > 1) else { return false };
        for flag in found {
            self.flags.entry(flag.names[0]).or_default().push(String::new());
        }
        true
    }

    /// True when a switch is present.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }

    /// Last value of a flag. `None` when it is absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.last().map(String::as_str)
    }

    /// All values of a flag, in order.
    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.flags.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Numeric value of a flag. `None` when it is absent or empty.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, OciError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            OciError::usage(format!("invalid value {text:?} for flag -{name}: not a number in range"))
        })
    }

    /// Single positional argument of a command: the container's id.
    pub(crate) fn id(&self, command: &str) -> Result<&str, OciError> {
        match self.words.as_slice() {
            [id] => Ok(id),
            words => Err(OciError::usage(format!(
                "{command} requires exactly 1 argument, the container's id; {} were given",
                words.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 4] =
        [value(&["bundle", "b"]), switch(&["detach", "d"]), switch(&["tty", "t"]), value(&["env", "e"])];

    fn read(line: &str, until_word: bool) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::read(&words, &FLAGS, until_word).map_err(|error| error.to_string())
    }

    #[test]
    fn dashes_and_values_come_in_all_forms() {
        for line in ["--bundle /b -d x", "-bundle=/b --detach x", "-b /b -d=true x", "-b=/b x -d"] {
            let read = read(line, false).unwrap();
            assert_eq!(
                (read.get("bundle"), read.has("detach"), read.id("run").ok()),
                (Some("/b"), true, Some("x"))
            );
        }
        assert!(!read("-d=false x", false).unwrap().has("detach"));
        let cluster = read("-dt x", false).unwrap();
        assert!(cluster.has("detach") && cluster.has("tty"));
    }

    #[test]
    fn a_program_keeps_its_own_flags() {
        let read = read("-t -e A=1 -e B=2 x ls -l --bundle", true).unwrap();
        assert_eq!(read.words, ["x", "ls", "-l", "--bundle"]);
        assert_eq!(read.all("env"), ["A=1", "B=2"]);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read("--nope x", false), Err("flag provided but not defined: -nope".to_owned()));
        assert_eq!(read("--bundle", false), Err("flag needs an argument: -bundle".to_owned()));
        assert_eq!(read("-d=maybe", false), Err("invalid boolean value \"maybe\" for -d".to_owned()));
        assert!(read("-d", false).unwrap().id("start").is_err());
    }
}
