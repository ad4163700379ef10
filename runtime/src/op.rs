//! Set-up of a container as data: an ordered list of operations.
//!
//! [`crate::plan`] creates the list without side effects, [`crate::init`] carries it out in the new process. It is sent
//! between processes as JSON, and printed as text ([`Plan`] implements `Display`).

mod bytes;
mod device;
mod error;
mod hook;
mod identity;
mod mount;
mod plan;
mod text;

pub use bytes::Bytes;
pub use device::{ConsoleSize, DeviceOp};
pub use error::{SetupError, Stage, describe_errno};
pub use hook::{HookOp, HookOutput};
pub use identity::{CapabilityOp, ClockOffset, IdMaps, IdRange, SchedulerOp, UserIds};
pub use mount::{
    FilesystemMount, HierarchiesOp, HierarchyMount, HierarchyView, Links, MountOp, MountSource, RootOp,
};
pub use plan::{FdSlot, JoinAt, JoinOp, Plan, Point, Program, SetupOp};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_text_or_numbers() {
        for bytes in [Bytes::from("/a"), Bytes(vec![b'/', 0xff])] {
            let json = serde_json::to_string(&bytes).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
        assert_eq!(serde_json::to_string(&Bytes::from("/a")).unwrap(), "\"/a\"");
    }

    #[test]
    fn paths_are_names() {
        for (path, names) in [("//a/./b/", "a b"), ("/a/../../proc//sys", "proc sys"), ("/", ""), ("", "")] {
            assert_eq!(Bytes::from(path).names().join(&b' '), names.as_bytes(), "{path}");
        }
    }

    #[test]
    fn errors_read_as_calls() {
        let error = SetupError {
            stage: Stage::Setup,
            call: "mount".into(),
            on: "/proc".into(),
            errno: 1,
            message: None,
        };
        assert_eq!(error.to_string(), "mount `/proc`: operation not permitted");
    }
}
