//! Who makes a request over HTTP: judged anew each time, unless it failed too often.

use moorline_core::{Text, op::Denial};
use moorline_dialects::watson::identity::{ClientId, Proof};
use moorline_edge::Doorkeeper;
use moorline_http::Caller;
use tracing::info;

use crate::door::{Door, Entered};

/// Judges those who make requests. Clones are the same.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) door: Door,
    /// Who failed too often: the same that counts those of MQTT.
    doors: Doorkeeper,
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It is nobody, or it showed something wrong.
    Wrong,
    /// It did so too often.
    Banned,
    /// It is somebody who may not come now.
    Forbidden,
    /// Nobody can say.
    Unavailable,
}

impl Judge {
    pub(crate) fn new(door: Door, doors: Doorkeeper) -> Self {
        Self { door, doors }
    }

    /// Lets in the one of these that there is and that has shown its secret, so that nobody guesses for long.
    pub(crate) async fn let_in(
        &self,
        caller: &Caller,
        readings: &[ClientId],
        proof: &Proof,
    ) -> Result<(ClientId, Entered), Turned> {
        let Self { door, doors } = self;
        let first = readings.first().ok_or(Turned::Wrong)?;
        let (who, from) = (Text::from(first.to_string()), caller.peer.ip());
        if let Some(retry_after_s) = doors.banned(&who, from, door.clock.wall()) {
            door.count_banned(first.class(), retry_after_s);
            return Err(Turned::Banned);
        }
        let judging = Box::pin(door.admit_one_of(readings, proof, &caller.channel));
        match door.registry.remembering_denial(from, judging).await {
            Ok(admitted) => {
                doors.succeeded(&who, from);
                Ok(admitted)
            }
            Err(Denial::Unavailable | Denial::Stopping) => Err(Turned::Unavailable),
            Err(Denial::UnknownTenant | Denial::UnknownDevice | Denial::WrongSecret) => {
                if doors.failed(&who, from, door.clock.wall()) {
                    info!(%from, "a client failed too often and is banned for a while");
                }
                Err(Turned::Wrong)
            }
            Err(_) => Err(Turned::Forbidden),
        }
    }
}
