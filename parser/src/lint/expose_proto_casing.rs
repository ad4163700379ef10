//! ExposeProtoCasing: image configs store protocols in lower case.

use super::{Findings, Rule, View};
use crate::ast::Kind;

pub(super) static RULE: Rule = Rule {
    name: "ExposeProtoCasing",
    summary: "Protocol in EXPOSE instruction should be lowercase",
    page: Some("expose-proto-casing"),
    check,
};

fn check(view: &View<'_>, findings: &mut Findings) {
    for instruction in view.in_stages() {
        let Kind::Expose(ports) = &instruction.kind else { continue };
        for port in ports {
            let protocol = port.as_str().rsplit_once('/').map_or("", |(_, protocol)| protocol);
            if protocol.chars().any(char::is_uppercase) && !protocol.contains('$') {
                let message =
                    format!("Defined protocol '{}' in EXPOSE instruction should be lowercase", port.as_str());
                findings.add(port.span(), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::RULE;

    #[test]
    fn problems_are_found() {
        let message = "2:11 Defined protocol '80/TCP' in EXPOSE instruction should be lowercase";
        check(&RULE, "FROM a\nEXPOSE 81 80/TCP 82/udp\n", &[message]);
    }
}
