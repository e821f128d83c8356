//! The process clock: wall time at the process's start and the monotonic clock since. A wall clock that is set while the
//! process runs changes nothing in it. Given to the protocol machines as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moorline_core::UnixMillis;
use moorline_mqtt::{Millis, Now};

/// Stands for deadlines that the clock can't express.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// The clock of a process: one, handed to everybody who asks what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    wall: UnixMillis,
}

impl Clock {
    /// Begins now; the only place that asks the wall clock.
    #[must_use]
    pub fn start() -> Self {
        // A wall clock before 1970 is as good as none.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), wall: UnixMillis(millis(wall)) }
    }

    /// Milliseconds since the Unix epoch, if the wall clock was right when the process began. Never runs backwards.
    #[must_use]
    pub fn wall(self) -> UnixMillis {
        self.now().wall
    }

    /// This moment, for deadlines and for expiry.
    pub(crate) fn now(self) -> Now {
        let since = millis(self.origin.elapsed());
        Now { at: Millis(since), wall: UnixMillis(self.wall.0.saturating_add(since)) }
    }

    /// When `at` will be; a deadline beyond what the clock can say is a day away, and asked for again then.
    pub(crate) fn instant(self, at: Millis) -> Instant {
        let far = self.origin.checked_add(Duration::from_millis(at.0));
        far.unwrap_or_else(|| Instant::now() + FAR)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
