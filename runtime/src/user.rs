//! Users and groups in an image's own `/etc/passwd` and `/etc/group`.
//!
//! Pure: text in, ids out. Rules follow moby/sys `user` (`GetExecUser`), which the reference engine uses. A text of
//! digits is an id and never a name: an image whose database has a user *called* `1001` must not decide the identity of
//! uid 1001 (CVE-2016-3697, CVE-2026-46680). Here all ids up to the kernel's largest are accepted, and any text that is
//! nearly a number is rejected.

use crate::op::UserIds;

/// A user with ids and home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Uid and gids of the user.
    pub ids: UserIds,
    /// Home directory; `/` when unknown.
    pub home: String,
}

/// Failure to find a user or group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No user with that name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No group with that name.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// An invalid id: out of range, or malformed.
    #[error("invalid id `{0}`: a uid or gid is a decimal number from 0 to {MAX_ID}, without sign and blanks")]
    Id(String),
    /// More supplementary groups than the kernel accepts.
    #[error(
        "user {user} is a member of {count} groups in the group file, and the kernel takes at most {MAX_GROUPS}"
    )]
    TooManyGroups {
        /// Name of the user.
        user: String,
        /// Number of groups that list the user.
        count: usize,
    },
}

/// Largest uid and gid. The id above it means "no change" in system calls.
pub const MAX_ID: u32 = u32::MAX - 1;
/// Largest number of supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65536;

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Entries with valid ids; malformed lines are ignored.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.splitn(7, ':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (field_id(fields.next()?)?, field_id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.splitn(4, ':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = field_id(fields.next()?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

impl GroupEntry<'_> {
    /// True when the group lists the member; members are listed by name only.
    fn lists(&self, name: &str) -> bool {
        !name.is_empty() && self.members.split(',').any(|member| member == name)
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Id in a field of a database; `None` for any other text.
fn field_id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id <= MAX_ID)
}

/// Id in a user's input; `None` for a name.
///
/// # Errors
///
/// Fails for a number that is not a valid id, so that it does not pass for a name.
pub fn id(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.trim().trim_start_matches(['+', '-']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse().ok().filter(|id| digits == text && *id <= MAX_ID);
    id.map(Some).ok_or_else(|| UserError::Id(text.to_owned()))
}

/// Uid and primary gid of the first user with this name; `None` without one.
pub fn ids_of_user(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd_entries(passwd).find(|entry| entry.name == name).map(|entry| (entry.uid, entry.gid))
}

/// Gid of the first group with this name; `None` without one.
pub fn id_of_group(name: &str, group: &str) -> Option<u32> {
    group_entries(group).find(|entry| entry.name == name).map(|entry| entry.gid)
}

/// Finds `user[:group]`, each a name or an id; an empty text is root.
///
/// An id that the file does not contain is used as it is, with gid 0. Without a group the user gets the primary group
/// of its entry and all groups that list it. Of several entries the first counts.
///
/// # Errors
///
/// Fails for names that the databases do not contain, for numbers that are not valid ids, and for a user with too many
/// groups.
pub fn find(specification: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user_part, group_part) = specification.split_once(':').unwrap_or((specification, ""));
    let wanted = if user_part.is_empty() { Some(0) } else { id(user_part)? };
    let entry = passwd_entries(passwd).find(|entry| match wanted {
        Some(uid) => entry.uid == uid,
        None => entry.name == user_part,
    });
    let mut user = match (&entry, wanted) {
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
            user.ids.groups = groups_of(entry.name, group);
        }
    } else {
        user.ids.gid = find_group(group_part, group)?;
    }
    // The primary group must also be a supplementary one: a process that dropped it would otherwise pass for a member
    // of no group (CVE-2022-36109).
    if !user.ids.groups.contains(&user.ids.gid) {
        user.ids.groups.insert(0, user.ids.gid);
    }
    if user.ids.groups.len() > MAX_GROUPS {
        let count = user.ids.groups.len();
        return Err(UserError::TooManyGroups { user: user_part.to_owned(), count });
    }
    Ok(user)
}

/// Gids of the groups that list a user, without duplicates.
fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let mut seen = std::collections::HashSet::new();
    let listing = group_entries(group).filter(|group| group.lists(name)).map(|group| group.gid);
    listing.filter(|gid| seen.insert(*gid)).collect()
}

/// Finds a group by name or id; an id is used as it is.
///
/// # Errors
///
/// Fails for a name that the file does not contain, and for a number that is not a valid id.
pub fn find_group(specification: &str, group: &str) -> Result<u32, UserError> {
    match id(specification)? {
        Some(gid) => Ok(gid),
        None => id_of_group(specification, group).ok_or_else(|| UserError::NoGroup(specification.to_owned())),
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
        check("nobody", Err(UserError::NoUser("nobody".into())));
        check("app:none", Err(UserError::NoGroup("none".into())));
        check("4294967294", Ok((4_294_967_294, 0, &[0], "/")));
    }

    /// CVE-2016-3697, CVE-2026-46680: a text that is a number, or nearly one, is never looked up as a name.
    #[test]
    fn numbers_are_never_names() {
        let refused = [
            "4294967295",
            "4294967296",
            "99999999999999999999",
            "+1001",
            "-1",
            " 1001",
            "1001 ",
            "\u{a0}1001",
        ];
        // Each is a name of root as well.
        let plain = ["42", "0", "1001", "4294967294"];
        let passwd: String =
            plain.iter().chain(&refused).map(|name| format!("{name}:x:0:7::/odd:\n")).collect();
        let passwd = passwd + "app:x:1000:1001::/home/app:\n";
        let group: String = plain.iter().chain(&refused).map(|name| format!("{name}:x:0:\n")).collect();
        let ids = |text: &str| find(text, &passwd, &group).map(|user| (user.ids.uid, user.ids.gid));
        assert_eq!(ids("42"), Ok((42, 0)));
        assert_eq!(ids("0"), Ok((0, 7)));
        assert_eq!(ids("app:1001"), Ok((1000, 1001)));
        assert_eq!(ids("1001:42"), Ok((1001, 42)));
        assert_eq!(ids("4294967294:4294967294"), Ok((MAX_ID, MAX_ID)));
        for text in refused {
            assert_eq!(ids(text), Err(UserError::Id(text.to_owned())), "{text:?}");
            assert_eq!(ids(&format!("app:{text}")), Err(UserError::Id(text.to_owned())), "{text:?}");
        }
        assert_eq!(ids("01001"), Ok((1001, 0)), "digits are decimal, as in the reference");
    }

    #[test]
    fn broken_lines_of_databases_are_no_entries() {
        let long = "x".repeat(100_000);
        let passwd = format!(
            "app\napp:x\napp:x:-1:0::/a:\napp:x:4294967295:0::/a:\napp:x:+5:0::/a:\napp:x:5:99999999999::/a:\n\
             app:x: 5:5::/a:\napp:x::5::/a:\n# app:x:0:0::/a:\n{long}:x:0:0::/a:\n  app:x:6:7:{long}:/b:\n\
             app:x:8:9::/c:\nother:x:6:9::/d:\n"
        );
        let group = "g\ng:x:-1:app\ng:x:4294967295:app\ng:x:+1:app\ng:x:9:\ng:x:10:app\nh:x:10:app,app\nh:x:12:6,apple\n";
        let user = find("app", &passwd, group).unwrap();
        assert_eq!((user.ids.uid, user.ids.gid, user.home.as_str()), (6, 7, "/b"));
        assert_eq!(user.ids.groups, [7, 10]);
        // The first entry with the uid counts, and groups list names alone.
        assert_eq!(find("6", &passwd, group), Ok(user));
        assert_eq!(find_group("g", group), Ok(9));
        let many: String = (1..=MAX_GROUPS + 1).map(|gid| format!("g:x:{gid}:app\n")).collect();
        assert!(matches!(find("app", &passwd, &many), Err(UserError::TooManyGroups { .. })));
    }

    #[test]
    fn missing_files_know_only_numbers() {
        assert_eq!(find("", "", "").map(|user| user.ids.uid), Ok(0));
        assert_eq!(find("7:8", "", "").map(|user| (user.ids.uid, user.ids.gid)), Ok((7, 8)));
        assert!(find("app", "", "").is_err());
    }
}
