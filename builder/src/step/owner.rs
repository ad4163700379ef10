//! Owners by name or number in COPY and WORKDIR (moby/buildkit `solver/llbsolver/file`).

use super::{StepError, copy};
use kiln_image::tree::Tree;
use kiln_parser::suggest;
use kiln_runtime::user::{self, UserError};
use rustix::fd::OwnedFd;

/// Size limit of user databases in bytes; larger files are not user databases.
const MAX_DATABASE: u64 = 8 << 20;

/// An owner, and its unknown names, which count as root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    uid: u32,
    gid: u32,
    pub(super) unknown: Vec<UnknownName>,
}

/// A name that the tree's user databases do not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownName {
    /// Kind of the name: `user` or `group`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// Similar name in the databases; `None` when there is none.
    pub(super) near: Option<String>,
}

impl Owner {
    pub(super) fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// Uid and gid of `user[:group]` in a tree.
///
/// A number without a group is also the gid, and is never looked up as a name. An unknown name is root, as in the
/// reference, and so is a number that is not a valid id.
pub(super) fn find(text: &str, tree: Option<&OwnedFd>) -> Result<Owner, StepError> {
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let read = |path: &str| -> Result<String, StepError> {
        let Some(tree) = tree else { return Ok(String::new()) };
        let tree = Tree::of(vec![copy::duplicate(tree)?]);
        let bytes = tree.read_file(path.as_bytes(), MAX_DATABASE)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut owner = Owner::default();
    match number(name) {
        Ok(Some(id)) => (owner.uid, owner.gid) = (id, id),
        Ok(None) if name.is_empty() => {}
        Err(_) => owner.unknown.push(unknown("user", name, "")),
        Ok(None) => {
            let passwd = read("etc/passwd")?;
            match user::ids_of_user(name, &passwd) {
                Some(ids) => (owner.uid, owner.gid) = ids,
                None => owner.unknown.push(unknown("user", name, &passwd)),
            }
        }
    }
    let Some(name) = group else { return Ok(owner) };
    match number(name) {
        Ok(Some(id)) => owner.gid = id,
        // An empty group is root's.
        Ok(None) if name.is_empty() => owner.gid = 0,
        Err(_) => owner.unknown.push(unknown("group", name, "")),
        Ok(None) => {
            let groups = read("etc/group")?;
            match user::id_of_group(name, &groups) {
                Some(id) => owner.gid = id,
                None => owner.unknown.push(unknown("group", name, &groups)),
            }
        }
    }
    Ok(owner)
}

fn unknown(kind: &'static str, name: &str, database: &str) -> UnknownName {
    let known = database.lines().filter_map(|line| line.split(':').next()).filter(|name| !name.is_empty());
    UnknownName { kind, name: name.to_owned(), near: suggest::nearest(name, known) }
}

fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text == "root" { Ok(Some(0)) } else { user::id(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_in_the_tree() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\n").unwrap();
        std::fs::write(root.path().join("etc/group"), "staff:x:50:\n").unwrap();
        let tree = OwnedFd::from(std::fs::File::open(root.path()).unwrap());
        let check =
            |text: &str, expected| assert_eq!(find(text, Some(&tree)).unwrap().ids(), expected, "{text}");
        check("app", (1000, 1001));
        check("app:staff", (1000, 50));
        check("app:7", (1000, 7));
        check("5", (5, 5));
        check("5:staff", (5, 50));
        check("root", (0, 0));
        check("nobody", (0, 0));
        check("", (0, 0));
        assert_eq!(find("app:staff", None).unwrap().ids(), (0, 0));
        let near = |text: &str| {
            find(text, Some(&tree)).unwrap().unknown.pop().map(|unknown| (unknown.kind, unknown.near))
        };
        assert_eq!(near("ap"), Some(("user", Some("app".to_owned()))));
        assert_eq!(near("app:staf"), Some(("group", Some("staff".to_owned()))));
        assert_eq!(near("app:staff"), None);
    }

    /// CVE-2016-3697, CVE-2026-46680: a number is never a name, in WORKDIR and --chown as well.
    #[test]
    fn numbers_are_never_names() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let names = ["1001", "3000000000", "4294967295", "99999999999999999999", "+1", "-1", " 1"];
        let line = |name: &&str| format!("{name}:x:7:8::/:\n");
        let passwd: String = names.iter().map(line).collect();
        std::fs::write(root.path().join("etc/passwd"), &passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), &passwd).unwrap();
        let tree = OwnedFd::from(std::fs::File::open(root.path()).unwrap());
        let ids = |text: &str| find(text, Some(&tree)).map(|owner| owner.ids());
        assert_eq!(ids("1001").unwrap(), (1001, 1001));
        assert_eq!(ids("3000000000:1001").unwrap(), (3_000_000_000, 1001));
        for name in &names[2..] {
            assert_eq!(ids(name).unwrap(), (0, 0), "{name:?}");
            assert_eq!(find(&format!("5:{name}"), Some(&tree)).unwrap().unknown.len(), 1, "{name:?}");
        }
    }
}
