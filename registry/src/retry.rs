//! Waits before a request is sent again, and the waits that servers ask for.

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait that a server may ask for; longer ones are errors.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
/// Shortest wait that is reported.
const SHORTEST_REPORTED: Duration = Duration::from_secs(2);

/// A wait before a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Number that distinguishes simultaneous waits.
    pub id: u64,
    /// Host and port of the server.
    pub server: String,
    /// Answer of the server: status and message.
    pub answer: String,
    /// Remaining time in whole seconds; 0 at the end of the wait.
    pub left: u64,
}

type Listener = dyn Fn(&Waiting) + Send + Sync;

/// Listener for waits; called once a second, from any thread.
#[derive(Clone, Default)]
pub struct WaitListener(Option<Arc<Listener>>);

impl WaitListener {
    /// Creates a listener that calls `listener` for each second of each wait.
    pub fn new(listener: impl Fn(&Waiting) + Send + Sync + 'static) -> WaitListener {
        WaitListener(Some(Arc::new(listener)))
    }

    fn send(&self, waiting: &Waiting) {
        if let Some(listener) = &self.0 {
            listener(waiting);
        }
    }

    /// Waits, and reports the wait unless it is short.
    pub(crate) async fn wait(&self, server: &str, answer: &str, wait: Duration) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if wait < SHORTEST_REPORTED {
            return tokio::time::sleep(wait).await;
        }
        let end = tokio::time::Instant::now() + wait;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut waiting = Waiting { id, server: server.to_owned(), answer: answer.to_owned(), left: 0 };
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                break;
            }
            waiting.left = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            self.send(&waiting);
            // Sleeps until the beginning of the next second.
            tokio::time::sleep_until(end - Duration::from_secs(waiting.left - 1)).await;
        }
        waiting.left = 0;
        self.send(&waiting);
    }
}

impl fmt::Debug for WaitListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitListener")
    }
}

/// True for a status after which a later request may succeed.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Wait that a response asks for, as seconds or a date (RFC 9110, section 10.2.3); `None` without the header.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Parses a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, as seconds since 1970.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let &[day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let &[hour, minute, second] = clock.as_slice() else { return None };
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days since 1970, with years that begin in March, so that leap days come last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86400 + hour * 3600 + minute * 60 + second)
}

/// Formats a duration in its two largest units.
pub(crate) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(seconds / 3600, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let words = units.iter().skip_while(|(count, _)| *count == 0).take(2).filter(|(count, _)| *count > 0);
    words.map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn waits_are_seconds_or_dates() {
        let wait = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(wait(" 3600"), Some(Duration::from_secs(3600)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert!(wait("Fri, 31 Dec 9999 23:59:59 GMT").is_some_and(|wait| wait > MAX_WAIT));
        assert_eq!((wait("soon"), wait("-1"), wait("Sun, 06 Nov 1994")), (None, None, None));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn durations_have_two_units() {
        let words = |seconds: u64| in_words(Duration::from_secs(seconds));
        assert_eq!(
            [words(3600), words(3661), words(90), words(7)],
            ["1 h", "1 h 1 min", "1 min 30 s", "7 s"]
        );
    }

    #[test]
    fn waits_are_counted_down() {
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let log = seen.clone();
        let listener = WaitListener::new(move |waiting| log.lock().unwrap().push(waiting.left));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(listener.wait("s", "429", Duration::from_secs(3)));
        let seen = seen.lock().unwrap().clone();
        assert!(seen.is_sorted_by(|a, b| a > b) && seen[0] == 3 && seen.last() == Some(&0), "{seen:?}");
        runtime.block_on(listener.wait("s", "429", Duration::from_millis(1)));
    }
}
