//! A volume as `docker volume inspect` shows it (Docker Engine API, Volume).

use kiln_engine::{Containers, Volume};
use serde::Serialize;
use std::collections::BTreeMap;

/// Volume object of the API.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspected {
    created_at: String,
    driver: &'static str,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<String, String>>,
    scope: &'static str,
    #[serde(rename = "UID", skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(rename = "GID", skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    /// Permission bits in octal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

impl Inspected {
    /// The object of a volume.
    pub(super) fn new(volume: Volume, containers: &Containers<'_>) -> Inspected {
        let some = |map: BTreeMap<String, String>| (!map.is_empty()).then_some(map);
        Inspected {
            labels: some(volume.shown_labels()),
            mountpoint: containers.volume_data(&volume.name).display().to_string(),
            created_at: seconds(&volume.created),
            driver: "local",
            name: volume.name,
            options: some(volume.options),
            scope: "local",
            uid: volume.owner.uid,
            gid: volume.owner.gid,
            mode: volume.owner.mode.map(|mode| format!("{mode:o}")),
        }
    }
}

/// A time without fractions of seconds, as Docker shows it for volumes.
fn seconds(time: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| time.to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
