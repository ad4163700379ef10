//! Objects of the host that a container owns; released on every path of a start that fails.

use crate::cgroup::Groups;
use crate::resctrl::Class;

/// Cgroups and the resctrl class of a container that is being created. Dropping removes them, unless they were kept.
#[derive(Debug)]
pub struct Holdings {
    groups: Groups,
    class: Option<Class>,
    is_kept: bool,
}

impl Holdings {
    /// Takes ownership of the cgroups.
    pub fn new(groups: Groups) -> Holdings {
        Holdings { groups, class: None, is_kept: false }
    }

    /// Takes ownership of a resctrl class as well.
    pub fn add_class(&mut self, class: Option<Class>) {
        self.class = class;
    }

    /// Cgroups of the container; possibly none.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Class of caches and memory bandwidth; `None` when the container has no class.
    pub fn class(&self) -> Option<&Class> {
        self.class.as_ref()
    }

    /// Keeps the cgroups and the class: they belong to the container, whose record names them.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        if !self.is_kept {
            // The start has already failed, with the error that is reported.
            let _ = self.groups.remove();
            let _ = self.class.as_ref().map(Class::remove);
        }
    }
}
