//! Users and groups as an image's own `/etc/passwd` and `/etc/group` know them.
//!
//! Pure: text in, numbers out. Rules follow moby/sys `user` (`GetExecUser`), which the reference engine
//! uses.

use crate::op::UserIds;

/// A user found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Numbers.
    pub ids: UserIds,
    /// Home folder, `/` when unknown.
    pub home: String,
}

/// A user that cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number out of range.
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(text).filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
        Some(PasswdEntry {
            name: fields.first()?,
            uid: number(2)?,
            gid: number(3)?,
            home: fields.get(5).copied().unwrap_or_default(),
        })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(text).filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3).copied().unwrap_or_default();
        Some(GroupEntry {
            name: fields.first()?,
            gid: fields.get(2)?.parse().ok()?,
            members: members.split(',').filter(|member| !member.is_empty()).collect(),
        })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// A number if the text is one.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    match text.parse::<i64>() {
        Ok(value) if (0..=i64::from(i32::MAX)).contains(&value) => Ok(Some(value as u32)),
        Ok(_) => Err(UserError::Range),
        Err(_) => Ok(None),
    }
}

/// Finds `user[:group]`, each a name or a number; an empty text is root.
///
/// A number that the file does not know is taken as it is, with group 0. Without a group the user gets the
/// primary group of its entry and all groups that list it.
pub fn find(specification: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_part, group_part) = specification.split_once(':').unwrap_or((specification, ""));
    let user_number = if user_part.is_empty() { Some(0) } else { number(user_part)? };
    let entry = passwd_entries(passwd).find(|entry| match user_number {
        // A name that is a number wins over the number.
        Some(uid) if user_part.is_empty() => entry.uid == uid,
        Some(uid) => entry.name == user_part || entry.uid == uid,
        None => entry.name == user_part,
    });
    let mut user = match (&entry, user_number) {
        (Some(entry), _) => User {
            ids: UserIds { uid: entry.uid, gid: entry.gid, groups: Vec::new() },
            home: entry.home.to_owned(),
        },
        (None, Some(uid)) => User { ids: UserIds { uid, gid: 0, groups: Vec::new() }, home: "/".to_owned() },
        (None, None) => return Err(UserError::NoUser(user_part.to_owned())),
    };
    if user.home.is_empty() {
        user.home = "/".to_owned();
    }
    if group_part.is_empty() {
        if let Some(entry) = entry {
            let listing = group_entries(group).filter(|group| group.members.contains(&entry.name));
            user.ids.groups = listing.map(|group| group.gid).collect();
        }
    } else {
        user.ids.gid = find_group(group_part, group)?;
    }
    // The primary group is one of the groups too: a process that gave up that one group would otherwise
    // pass for a member of none (CVE-2022-36109).
    if !user.ids.groups.contains(&user.ids.gid) {
        user.ids.groups.insert(0, user.ids.gid);
    }
    Ok(user)
}

/// Finds a group by name or number; a number that the file does not know is taken as it is.
pub fn find_group(specification: &str, group: &str) -> Result<u32, UserError> {
    let wanted = number(specification)?;
    let entry = group_entries(group).find(|entry| entry.name == specification || Some(entry.gid) == wanted);
    match (entry, wanted) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Some(gid)) => Ok(gid),
        (None, None) => Err(UserError::NoGroup(specification.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\n\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n42:x:7:8::/odd:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\nwheel:x:51:root,app\napp:x:1001:\n";

    fn check(specification: &str, expected: Result<(u32, u32, &[u32], &str), UserError>) {
        let found = find(specification, PASSWD, GROUP);
        let shown = found.as_ref().map(|u| (u.ids.uid, u.ids.gid, u.ids.groups.as_slice(), u.home.as_str()));
        assert_eq!(shown, expected.as_ref().copied(), "{specification}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", Ok((0, 0, &[0, 51], "/root")));
        check("root", Ok((0, 0, &[0, 51], "/root")));
        check("app", Ok((1000, 1001, &[1001, 50, 51], "/home/app")));
        check("1000", Ok((1000, 1001, &[1001, 50, 51], "/home/app")));
        check("app:staff", Ok((1000, 50, &[50], "/home/app")));
        check("app:77", Ok((1000, 77, &[77], "/home/app")));
        check("5000", Ok((5000, 0, &[0], "/")));
        check("5000:app", Ok((5000, 1001, &[1001], "/")));
        check("42", Ok((7, 8, &[8], "/odd")));
        check("nobody", Err(UserError::NoUser("nobody".into())));
        check("app:none", Err(UserError::NoGroup("none".into())));
        check("2147483648", Err(UserError::Range));
        check("-1", Err(UserError::Range));
    }

    #[test]
    fn missing_files_know_only_numbers() {
        assert_eq!(find("", "", "").map(|user| user.ids.uid), Ok(0));
        assert_eq!(find("7:8", "", "").map(|user| (user.ids.uid, user.ids.gid)), Ok((7, 8)));
        assert!(find("app", "", "").is_err());
    }
}
