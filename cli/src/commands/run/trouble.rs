//! Reasons for the end of a program that its exit code does not show: hints on a terminal.

use crate::{text, ui};
use kiln_engine::{ClosedMount, Container, Containers};

/// Exit code of a program that SIGKILL has ended.
const KILLED: i32 = 137;
/// Exit codes by which programs report a failed access.
const REFUSED: [i32; 3] = [1, 2, 126];

/// Facts about a container that explain its end; none where nothing would be shown.
#[derive(Debug, Default)]
pub(in crate::commands) struct Trouble {
    /// Limit of memory in bytes, 0 for none.
    memory: i64,
    /// Mounts of host directories that the container's user may not use.
    closed: Vec<ClosedMount>,
    is_shown: bool,
}

impl Trouble {
    /// Collects the facts before the start: a container of `--rm` is gone after its end. Commands whose standard error is no
    /// terminal print nothing beside the program's output.
    pub(in crate::commands) fn expect(
        containers: &Containers<'_>,
        container: &Container,
        is_attached: bool,
    ) -> Trouble {
        if !is_attached || !ui::is_terminal() {
            return Trouble::default();
        }
        // A user that the image does not have is reported by the start.
        let closed = containers.closed_mounts(container).unwrap_or_default();
        Trouble { memory: container.settings.limits.memory, closed, is_shown: true }
    }

    /// Prints hints about the end of the program.
    pub(in crate::commands) fn explain(&self, code: i32, is_out_of_memory: bool) {
        if self.is_shown {
            self.hints(code, is_out_of_memory)
                .iter()
                .for_each(|hint| ui::tell_line(&format!("hint: {hint}")));
        }
    }

    fn hints(&self, code: i32, is_out_of_memory: bool) -> Vec<String> {
        if is_out_of_memory && code != 0 {
            return vec![match u64::try_from(self.memory) {
                Ok(limit) if limit > 0 => format!(
                    "the kernel killed a process of the container: its memory limit of {} is reached (--memory)",
                    text::binary_size(limit)
                ),
                _ => "the kernel killed a process of the container: the host has no memory left".to_owned(),
            }];
        }
        if code == KILLED {
            let text = "exit code 137: the program was killed (SIGKILL), and not for lack of memory";
            return vec![text.to_owned()];
        }
        if !REFUSED.contains(&code) {
            return Vec::new();
        }
        self.closed.iter().map(closed).collect()
    }
}

/// Hint about a mount that the container's user may not use.
fn closed(mount: &ClosedMount) -> String {
    let ClosedMount { source, target, mode, owner, user, access } = mount;
    format!(
        "the program ran as {}:{}, which may not {access} {target}: its source {source} belongs to {}:{} and has the mode \
         {mode:04o}; change these, add :U to the mount, or run as --user {}:{}",
        user.0, user.1, owner.0, owner.1, owner.0, owner.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_explained_where_its_code_does_not() {
        let mount = ClosedMount {
            source: "/srv".to_owned(),
            target: "/data".to_owned(),
            mode: 0o700,
            owner: (0, 0),
            user: (7, 8),
            access: "read",
        };
        let trouble = Trouble { memory: 64 << 20, closed: vec![mount], is_shown: true };
        for (code, is_out_of_memory, expected) in [
            (137, true, "memory limit of 64MiB is reached"),
            (137, false, "not for lack of memory"),
            (
                1,
                false,
                "ran as 7:8, which may not read /data: its source /srv belongs to 0:0 and has the mode 0700",
            ),
        ] {
            let hints = trouble.hints(code, is_out_of_memory);
            assert!(hints.len() == 1 && hints[0].contains(expected), "{hints:?}");
        }
        assert!(trouble.hints(0, true).is_empty() && trouble.hints(3, false).is_empty());
        assert!(Trouble::default().hints(137, true)[0].contains("the host has no memory left"));
    }
}
