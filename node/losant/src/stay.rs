//! Until when a client may stay: as long as what let it in, and its device, are as they were.

use moorline_core::op::Denial;
use moorline_edge::{Begin, watch_over};
use moorline_service::registry::{Watch, door::Guest};

use crate::{
    door::Door,
    pass::{Known, Pass},
};

/// What it depends on that a client may stay.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) guest: Guest,
    pub(crate) pass: Pass,
    of_device: Watch,
    of_pass: Watch,
}

impl Stay {
    /// Before either is read: what changes from then on is told.
    pub(crate) fn watches(door: &Door, pass: &Pass, known: &Known) -> (Watch, Watch) {
        (door.registry.watch(pass.tenant, known.id.text()), door.watch_pass(pass))
    }

    pub(crate) fn new(guest: Guest, pass: Pass, (of_device, of_pass): (Watch, Watch)) -> Self {
        Self { guest, pass, of_device, of_pass }
    }
}

impl Door {
    /// Watches over a connection that was let in: ends it when its client may not stay.
    pub(crate) fn watching(&self, stay: Stay) -> Begin {
        let door = self.clone();
        watch_over(self.tasks.clone(), move || {
            let present = door.registry.arrive(&stay.guest);
            async move {
                let _present = present;
                door.until_revoked(&stay).await;
            }
        })
    }

    /// Returns when a client may not stay.
    pub(crate) async fn until_revoked(&self, stay: &Stay) {
        let now_ms = || self.clock.wall().0;
        let device = stay.of_device.until_revoked(None, now_ms, || self.device_stays(stay));
        let pass = stay.of_pass.until_revoked(stay.pass.until_ms, now_ms, || self.pass_stays(stay));
        tokio::select! {
            () = device => {}
            () = pass => {}
        }
    }

    async fn device_stays(&self, Stay { guest, pass, .. }: &Stay) -> Result<(), Denial> {
        self.registry.still(guest).await?;
        let id = moorline_dialects::losant::id::Id::parse(guest.device.as_bytes());
        let id = id.ok_or(Denial::UnknownDevice)?;
        let known = self.known(guest.tenant, &id).await.map_err(|_| Denial::Unavailable)?;
        let known = known.ok_or(Denial::UnknownDevice)?;
        let may = pass.access.is_for(&id, &known.about.tags) && known.about.class.connects();
        if may { Ok(()) } else { Err(Denial::Disabled) }
    }

    /// Another version of it may be for something else: its devices come again, and hear.
    async fn pass_stays(&self, Stay { pass, .. }: &Stay) -> Result<(), Denial> {
        let again = self.again(pass.tenant, &pass.id, pass.version).await;
        match again.map_err(|_| Denial::Unavailable)? {
            Some(_) => Ok(()),
            None => Err(Denial::WrongSecret),
        }
    }
}
