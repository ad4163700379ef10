//! Signals by name and number.

/// Names and numbers of signals on x86 and arm (signal(7)).
const SIGNALS: [(&str, i32); 33] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
];

const FILE_SIZE: (&str, i32) = ("XFSZ", 25);
const FIRST_REALTIME: i32 = 34;
const LAST_REALTIME: i32 = 64;

/// Number of a signal, given as `SIGTERM`, `term`, `RTMIN+3` or a number; `None` when it is unknown.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST_REALTIME).contains(&number).then_some(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |rest: &str, base: i32, sign: i32| {
        let offset = if rest.is_empty() { 0 } else { rest[1..].parse::<i32>().ok()? };
        let number = base + sign * offset;
        (FIRST_REALTIME..=LAST_REALTIME).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+')) {
        return realtime(rest, FIRST_REALTIME, 1);
    }
    if let Some(rest) = name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-')) {
        return realtime(rest, LAST_REALTIME, -1);
    }
    let mut signals = SIGNALS.iter().chain([&FILE_SIZE]);
    signals.find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let check = |text: &str, expected: Option<i32>| assert_eq!(parse(text), expected, "{text}");
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("9", Some(9));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("RTMIN", Some(34));
        check("XFSZ", Some(25));
        for bad in ["", "0", "65", "SIGFOO", "RTMIN+40", "RTMIN-1", "RTMIN+x"] {
            check(bad, None);
        }
    }
}
