//! Variables by name, in the order in which they were set.

use kiln_parser::expand::Environment;

/// A list of variables with unique names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    entries: Vec<(String, String)>,
}

impl Variables {
    /// Sets a variable and moves it to the end.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.entries.retain(|(old, _)| *old != name);
        self.entries.push((name, value.into()));
    }

    /// Value of a variable; `None` when it is not set.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.entries.iter().find(|(entry, _)| entry == name).map(|(_, value)| value.as_str())
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Variables in the form `NAME=value`.
    pub fn to_entries(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Environment for Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.value(name)
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Variables {
        let mut variables = Variables::default();
        entries.into_iter().for_each(|(name, value)| variables.set(name, value));
        variables
    }
}
