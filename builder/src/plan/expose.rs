//! EXPOSE: ports, ranges and protocols.

use super::{StageState, commit, expansion_error, go};
use crate::mistake::Mistake;
use crate::stage::Step;
use kiln_image::config::Empty;
use kiln_parser::Text;
use kiln_parser::expand::{self, Rules};
use kiln_parser::port;

pub(super) fn expose(state: &mut StageState, step: &Step, words: &[Text]) -> Result<(), Mistake> {
    let mut written = Vec::new();
    for text in words {
        let expanded = expand::expand_words(text.as_str(), &state.limited(), Rules::value(step.escape))
            .map_err(|error| expansion_error(step, text, &error))?;
        written.extend(expanded.value.into_iter().map(|word| (word.text, text)));
    }
    // As in the reference, ports are sorted by their text as written, not by their numbers.
    written.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut ports = Vec::new();
    for (word, text) in written {
        let found = port::container_ports(&word).map_err(|reason| {
            Mistake::at("invalid-port", step.span_of(text), reason.to_string()).hint(Some(
                "write a port or a range, with tcp, udp or sctp: 80, 53/udp, 8000-8010".to_owned(),
            ))
        })?;
        ports.extend(found);
    }
    commit(state, format!("EXPOSE {}", go::plain_list(&ports)), false);
    state.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
    Ok(())
}
