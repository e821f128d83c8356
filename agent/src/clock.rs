//! The two clocks: a monotonic one for deadlines, and wall time for what people and SDKs read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moorline_moonlight::Millis;

/// Stands for moments that the clock can't express.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// One, handed to everybody who asks what time it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// This moment, for deadlines.
    pub(crate) fn now(self) -> Millis {
        Millis(millis(self.origin.elapsed()))
    }

    /// When `at` will be.
    pub(crate) fn instant(self, at: Millis) -> Instant {
        let far = self.origin.checked_add(Duration::from_millis(at.0));
        far.unwrap_or_else(|| Instant::now() + FAR)
    }
}

/// Milliseconds since 1970: the wall clock as it is now, since devices set theirs after they have started.
pub(crate) fn unix_ms() -> u64 {
    // Before 1970 is as good as no clock.
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
