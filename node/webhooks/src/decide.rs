//! What follows from what a receiver answered: done, again and when, skip, or pause. Pure: chance and the time are arguments.
//!
//! | answer | what follows |
//! |---|---|
//! | 2xx | done |
//! | 408, 425, 429, 5xx, no answer | again, for as long as the stream keeps the event: [`BACKOFF_MIN`], twice as long each time up to [`BACKOFF_MAX`], half of it by chance; not before `Retry-After`, up to [`RETRY_AFTER_MAX`] |
//! | 410 | pause at once |
//! | any other, redirects too | again, [`REFUSALS_MAX`] times in all; then pause or skip, as the webhook says |
//! | this node may not ask (address, URL, `outward.enabled`), or the answer is too large | the same, and then pause: an operator has to do something |

use std::time::Duration;

use moorline_core::calendar::unix_ms;
use moorline_outward::Unanswered;

use crate::kept::Refused;

/// Before the second try.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Between two tries, however often it failed.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The longest `Retry-After` that is kept to.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// How often a request is tried that its receiver refuses: about a minute and a half.
pub(crate) const REFUSALS_MAX: u32 = 8;
/// Doublings of the first pause: more would not fit, and are beyond the longest in any case.
const DOUBLINGS_MAX: u32 = 16;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It was answered.
    Answered {
        /// With this status.
        status: u16,
        /// And a time before which it should not be said again.
        retry_after: Option<Duration>,
    },
    /// It was not.
    Unanswered(Unanswered),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The receiver has it.
    Done,
    /// The same request after so long.
    Again(Duration),
    /// The receiver does not want it, and the others should have their turn.
    Skip,
    /// Nothing any more until its operator says so.
    Pause(String),
}

/// How often one request was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tries {
    /// In all.
    pub(crate) attempts: u32,
    /// And was refused.
    refusals: u32,
}

/// What sort of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 2xx.
    Delivered,
    /// It may be better in a while.
    Retried,
    /// The receiver says no.
    Refused,
    /// This node may not ask it, or not read the answer.
    Blocked,
    /// The receiver is gone for good.
    Gone,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Delivered, Self::Retried, Self::Refused, Self::Blocked, Self::Gone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::Gone => "gone",
        }
    }
}

impl Heard {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Answered { status, .. } => match status {
                200..=299 => Kind::Delivered,
                408 | 425 | 429 | 500.. => Kind::Retried,
                410 => Kind::Gone,
                _ => Kind::Refused,
            },
            Self::Unanswered(why) => match why {
                Unanswered::Busy
                | Unanswered::Lookup
                | Unanswered::Connect
                | Unanswered::ConnectTimeout
                | Unanswered::Tls
                | Unanswered::Timeout
                | Unanswered::Broken => Kind::Retried,
                Unanswered::Disabled
                | Unanswered::Url
                | Unanswered::Method
                | Unanswered::Header
                | Unanswered::Address
                | Unanswered::TooLarge => Kind::Blocked,
            },
        }
    }

    /// In words, for operators.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Answered { status, .. } => format!("the receiver answered {status}"),
            Self::Unanswered(why) => why.to_string(),
        }
    }
}

impl Tries {
    /// Another answer. `random`: any number, all as likely.
    pub(crate) fn hear(&mut self, heard: Heard, refused: Refused, random: u32) -> Step {
        self.attempts = self.attempts.saturating_add(1);
        let (kind, words) = (heard.kind(), heard.words());
        match kind {
            Kind::Delivered => return Step::Done,
            Kind::Gone => return Step::Pause(words),
            Kind::Retried => {}
            Kind::Refused | Kind::Blocked => {
                self.refusals += 1;
                if self.refusals >= REFUSALS_MAX {
                    return match (refused, kind) {
                        (Refused::Skip, Kind::Refused) => Step::Skip,
                        _ => Step::Pause(format!("{words}, {REFUSALS_MAX} times")),
                    };
                }
            }
        }
        let asked = match heard {
            Heard::Answered { retry_after, .. } => retry_after.unwrap_or_default(),
            Heard::Unanswered(_) => Duration::ZERO,
        };
        Step::Again(backoff(self.attempts, random).max(asked.min(RETRY_AFTER_MAX)))
    }
}

/// The pause after so many tries: half of it is fixed.
fn backoff(attempts: u32, random: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
    let whole = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Reads `Retry-After`: seconds, or `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 10.2.3).
pub(crate) fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = u64::try_from(http_date(text)?).ok()?;
    Some(Duration::from_millis(at.saturating_sub(now_ms)))
}

fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split([' ', ':']);
    let day = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let year = parts.next()?.parse().ok()?;
    let mut number = || parts.next()?.parse::<u8>().ok();
    let time = (number()?, number()?, number()?);
    unix_ms((year, u8::try_from(month).ok()?, day), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Heard {
        Heard::Answered { status, retry_after: None }
    }

    #[test]
    fn answers_are_what_they_mean() {
        #[rustfmt::skip]
        let table = [
            (status(200), Kind::Delivered), (status(204), Kind::Delivered), (status(299), Kind::Delivered),
            (status(408), Kind::Retried), (status(425), Kind::Retried), (status(429), Kind::Retried),
            (status(500), Kind::Retried), (status(503), Kind::Retried), (status(599), Kind::Retried),
            (status(100), Kind::Refused), (status(301), Kind::Refused), (status(307), Kind::Refused),
            (status(400), Kind::Refused), (status(401), Kind::Refused), (status(404), Kind::Refused),
            (status(410), Kind::Gone),
            (Heard::Unanswered(Unanswered::Timeout), Kind::Retried),
            (Heard::Unanswered(Unanswered::Connect), Kind::Retried),
            (Heard::Unanswered(Unanswered::Busy), Kind::Retried),
            (Heard::Unanswered(Unanswered::Address), Kind::Blocked),
            (Heard::Unanswered(Unanswered::Disabled), Kind::Blocked),
        ];
        for (heard, expected) in table {
            assert_eq!(heard.kind(), expected, "{heard:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut tries = Tries::default();
        #[rustfmt::skip]
        let table = [
            (0, 500), (u32::MAX, 2_000), (0, 2_000), (u32::MAX, 8_000), (0, 8_000), (u32::MAX, 32_000),
            (0, 30_000), (u32::MAX, 60_000), (0, 30_000), (u32::MAX, 60_000),
        ];
        for (random, expected) in table {
            let step = tries.hear(status(503), Refused::Pause, random);
            assert_eq!(step, Step::Again(Duration::from_millis(expected)), "{tries:?}");
        }
        for _ in 0..1_000 {
            let step = tries.hear(Heard::Unanswered(Unanswered::Connect), Refused::Skip, 0);
            assert_eq!(step, Step::Again(BACKOFF_MAX / 2), "for as long as it lasts");
        }
    }

    #[test]
    fn who_asks_for_time_gets_it() {
        let asked = |seconds| Heard::Answered {
            status: 429,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        for (seconds, expected) in [(0, 1), (5, 5), (600, 600), (86_400, 600)] {
            let step = Tries::default().hear(asked(seconds), Refused::Pause, u32::MAX);
            assert_eq!(step, Step::Again(Duration::from_secs(expected)), "{seconds}");
        }
        let now = 784_111_777_000;
        #[rustfmt::skip]
        let table = [
            ("120", Some(120)), (" 0 ", Some(0)), ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)), ("-1", None), ("soon", None), ("", None),
            ("Sun, 06 Nov 1994 08:50:37", None), ("Sun, 36 Nov 1994 08:50:37 GMT", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn who_refuses_is_asked_so_often_and_then_it_pauses_or_skips() {
        let blocked = Heard::Unanswered(Unanswered::Address);
        // Whether it skips in the end.
        let table = [
            (status(404), Refused::Pause, false),
            (status(404), Refused::Skip, true),
            (status(302), Refused::Pause, false),
            (blocked, Refused::Pause, false),
            (blocked, Refused::Skip, false),
        ];
        for (heard, refused, skips) in table {
            let mut tries = Tries::default();
            for _ in 1..REFUSALS_MAX {
                assert!(matches!(tries.hear(heard, refused, 0), Step::Again(_)), "{heard:?}");
            }
            let step = tries.hear(heard, refused, 0);
            let pauses = matches!(step, Step::Pause(_));
            assert_eq!((step == Step::Skip, pauses), (skips, !skips), "{heard:?} {refused:?}");
        }
        let gone = Tries::default().hear(status(410), Refused::Skip, 0);
        assert_eq!(gone, Step::Pause("the receiver answered 410".to_owned()));
    }
}
