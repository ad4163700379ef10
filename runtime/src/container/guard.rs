//! What a container holds of the host, released on every path of a start that fails.

use crate::cgroup::Groups;
use crate::resctrl::Class;

/// Cgroups and the resctrl class of a container that is being made. Dropping removes them, unless they were kept.
#[derive(Debug)]
pub struct Holdings {
    groups: Groups,
    class: Option<Class>,
    is_kept: bool,
}

impl Holdings {
    /// Takes charge of cgroups.
    pub fn new(groups: Groups) -> Holdings {
        Holdings { groups, class: None, is_kept: false }
    }

    /// Takes charge of a class, too.
    pub fn add_class(&mut self, class: Option<Class>) {
        self.class = class;
    }

    /// The cgroups; possibly none.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The class of caches and memory bandwidth; `None` when the container has none of its own.
    pub fn class(&self) -> Option<&Class> {
        self.class.as_ref()
    }

    /// Leaves both to the container, whose record names them.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        if !self.is_kept {
            // The start has failed already; the reason for that says more.
            let _ = self.groups.remove();
            let _ = self.class.as_ref().map(Class::remove);
        }
    }
}
