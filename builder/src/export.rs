//! From the target's tree and config to an image in the store.

use crate::plan::Plan;
use crate::step::Built;
use kiln_image::config::{History, ImageConfig};
use kiln_image::digest::{DiffId, ImageId};
use kiln_image::json;
use kiln_image::manifest::{Descriptor, Manifest, media_type};
use kiln_image::store::{Store, StoreError};

/// Comment of entries for layers that nobody described.
const FILLER_COMMENT: &str = "buildkit.exporter.image.v0";

/// Writes config and manifest; gives the image's id.
pub(crate) fn export(store: &Store, plan: &Plan, built: &Built) -> Result<ImageId, StoreError> {
    let mut layers = plan.base_layers.clone();
    let mut diff_ids: Vec<DiffId> = plan.config.rootfs.diff_ids.clone();
    for (layer, _) in &built.layers {
        let (diff_id, size) = store.diff_id(layer)?;
        // Made from the layer when somebody wants it: the digest of an uncompressed layer is its diff id.
        layers.push(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
        diff_ids.push(diff_id);
    }
    let mut config = plan.config.clone();
    config.rootfs.diff_ids = diff_ids;
    let created: Vec<String> = built.layers.iter().map(|(_, created)| timestamp(*created)).collect();
    finish_history(&mut config, &created);
    let (config, id) = config.encode();
    let manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), layers);
    store.put_image(&json::to_vec(&manifest), media_type::OCI_MANIFEST, &config)?;
    Ok(id)
}

/// RFC 3339 as Go prints it: nanoseconds without zeros at the end.
fn timestamp(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds))
        .map(|timestamp| timestamp.to_string())
        .unwrap_or_default()
}

/// Gives every entry a time, and every layer an entry (moby/buildkit `exporter/containerimage/writer.go`).
///
/// `created` are the times of the layers that steps made. The first entries of instructions without a layer
/// get the time of the layer after them, all later ones that of the layer before them.
fn finish_history(config: &mut ImageConfig, created: &[String]) {
    let layers = config.rootfs.diff_ids.len();
    let described = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let first_own = layers - created.len();
    let fillers = layers.saturating_sub(described);
    if fillers > 0 {
        // Only bases leave layers undescribed, and theirs come first.
        let at = config.history.iter().position(is_own).unwrap_or(config.history.len());
        let filler = History { comment: FILLER_COMMENT.to_owned(), ..History::default() };
        config.history.splice(at..at, std::iter::repeat_n(filler, fillers));
    }
    let described = config.history.iter_mut().filter(|entry| !entry.empty_layer);
    for (layer, entry) in described.enumerate() {
        if entry.created.is_none() && layer >= first_own {
            entry.created = created.get(layer - first_own).cloned();
        }
    }
    let mut time = first_time_after_a_gap(&config.history);
    let mut gap = false;
    for entry in &mut config.history {
        match &entry.created {
            Some(created) if gap => time = Some(created.clone()),
            Some(_) => {}
            None => {
                gap = true;
                entry.created.clone_from(&time);
            }
        }
    }
    config.created = config.history.iter().rev().find_map(|entry| entry.created.clone());
}

fn is_own(entry: &History) -> bool {
    entry.created.is_none() && entry.comment != FILLER_COMMENT
}

fn first_time_after_a_gap(history: &[History]) -> Option<String> {
    let mut time = None;
    let mut gap = false;
    for entry in history {
        match &entry.created {
            Some(created) => {
                time = Some(created.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(created: Option<&str>, empty_layer: bool) -> History {
        History { created: created.map(str::to_owned), empty_layer, ..History::default() }
    }

    fn check(history: &[(Option<&str>, bool)], layers: usize, created: &[&str], expected: &[Option<&str>]) {
        let history = history.iter().map(|(created, empty)| entry(*created, *empty)).collect();
        let mut config = ImageConfig { history, ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![DiffId(kiln_image::digest::Digest::of(b"")); layers];
        let created: Vec<String> = created.iter().map(|time| (*time).to_owned()).collect();
        finish_history(&mut config, &created);
        let times: Vec<Option<&str>> = config.history.iter().map(|entry| entry.created.as_deref()).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn times_are_filled_in() {
        // Base layer, ENV, RUN, CMD.
        check(
            &[(Some("1"), false), (None, true), (None, false), (None, true)],
            2,
            &["5"],
            &[Some("1"), Some("5"), Some("5"), Some("5")],
        );
        // Only settings: the time of the last layer there is.
        check(&[(Some("1"), false), (None, true)], 1, &[], &[Some("1"), Some("1")]);
        // The first gap is filled from the layer after it, the next ones from the layer before.
        check(
            &[(None, false), (None, true), (None, false), (None, true)],
            2,
            &["5", "6"],
            &[Some("5"), Some("6"), Some("6"), Some("6")],
        );
        // A base without history.
        check(&[(None, false)], 2, &["5"], &[Some("5"), Some("5")]);
    }

    #[test]
    fn timestamps_have_no_zeros_at_the_end() {
        assert_eq!(timestamp(1_700_000_000_120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(timestamp(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
    }
}
