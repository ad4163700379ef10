//! Owners by name or number, as COPY and WORKDIR know them (moby/buildkit `solver/llbsolver/file`).

use super::{StepError, copy};
use kiln_image::tree::Tree;
use rustix::fd::OwnedFd;

/// User databases are not longer than this, or they are no user databases.
const MAX_DATABASE: u64 = 8 << 20;

/// User and group that `user[:group]` means in a tree.
///
/// A number without a group is the group too. A name that the tree does not know is root, as in the
/// reference.
pub(super) fn find(text: &str, tree: Option<&OwnedFd>) -> Result<(u32, u32), StepError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let read = |path: &str| -> Result<String, StepError> {
        let Some(tree) = tree else { return Ok(String::new()) };
        let tree = Tree::of(vec![copy::duplicate(tree)?]);
        let bytes = tree.read_file(path.as_bytes(), MAX_DATABASE)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (uid, mut gid) = match number(user) {
        Some(id) => (id, id),
        None if user.is_empty() => (0, 0),
        None => find_user(&read("etc/passwd")?, user).unwrap_or((0, 0)),
    };
    match group.map(|group| (group, number(group))) {
        Some((_, Some(id))) => gid = id,
        Some((name, None)) => gid = find_group(&read("etc/group")?, name).unwrap_or(gid),
        None => {}
    }
    Ok((uid, gid))
}

fn number(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { text.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()) }
}

fn find_user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let ids = || Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?));
        if fields.first() == Some(&name) { ids() } else { None }
    })
}

fn find_group(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        if fields.first() == Some(&name) { fields.get(2)?.parse().ok() } else { None }
    })
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
        let check = |text: &str, expected| assert_eq!(find(text, Some(&tree)).unwrap(), expected, "{text}");
        check("app", (1000, 1001));
        check("app:staff", (1000, 50));
        check("app:7", (1000, 7));
        check("5", (5, 5));
        check("5:staff", (5, 50));
        check("root", (0, 0));
        check("nobody", (0, 0));
        check("", (0, 0));
        assert_eq!(find("app:staff", None).unwrap(), (0, 0));
    }
}
