//! The edge's clocks, given to the protocol machines as arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moorline_core::UnixMillis;
use moorline_mqtt::{Millis, Now};

/// Stands for deadlines that the clock can't express.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the monotonic milliseconds of this process begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// This moment on both clocks.
    pub(crate) fn now(self) -> Now {
        // A wall clock before 1970 is as good as none: nothing expires then.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { at: Millis(millis(self.origin.elapsed())), wall: UnixMillis(millis(wall)) }
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
