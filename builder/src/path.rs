//! Paths of WORKDIR, COPY and mounts as the reference interprets them (moby/buildkit `util/system/path.go`).

/// Joins a directory and a path below it like Go's `path.Join`: clean, without `.` and `..`.
pub(crate) fn join(dir: &str, path: &str) -> String {
    kiln_runtime::spec::clean_path(&format!("{dir}/{path}"))
}

/// Converts a Windows path to a path in a layer: slashes, and no drive.
pub(crate) fn of_windows(path: &str) -> String {
    let path = path.replace('\\', "/");
    let has_drive = matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if has_drive { path[2..].to_owned() } else { path }
}

/// New working directory after `WORKDIR path`. An absolute path stays as written.
pub(crate) fn working_dir(current: &str, path: &str) -> String {
    let current = if current.is_empty() { "/" } else { current };
    match path {
        "" => current.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => join(current, path),
    }
}

/// Absolute destination of COPY. A trailing slash or `/.` remains as a trailing slash: the destination must be a
/// directory.
pub(crate) fn destination(dir: &str, path: &str) -> String {
    let path = if matches!(path, "" | ".") { "./" } else { path };
    let base = if path.starts_with('/') { "/" } else { dir };
    let clean = join(base, path);
    if clean == "/" {
        return clean;
    }
    if path.ends_with('/') || path.ends_with("/.") { format!("{clean}/") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(working_dir("", "a"), "/a");
        assert_eq!(working_dir("/a", "../b/./c/"), "/b/c");
        assert_eq!(working_dir("/a", "/x//y/./"), "/x//y/./");
        assert_eq!(destination("/w", "."), "/w/");
        assert_eq!(destination("/w", ""), "/w/");
        assert_eq!(destination("/w", "a/"), "/w/a/");
        assert_eq!(destination("/w", "a/."), "/w/a/");
        assert_eq!(destination("/w", "/b"), "/b");
        assert_eq!(destination("/w", "../.."), "/");
        assert_eq!(join("/", "/../a//b"), "/a/b");
        assert_eq!(of_windows("C:\\a\\b/c"), "/a/b/c");
        assert_eq!(of_windows("a\\b"), "a/b");
    }
}
