//! Until when a client may stay: as long as what let it in, and its device, are as they were.

use moorline_core::op::Denial;
use moorline_edge::{Begin, watch_over};
use moorline_service::registry::{Watch, door::Guest};

use crate::{door::Door, pass::Pass};

/// What it depends on that a client may stay.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) guest: Guest,
    pub(crate) pass: Pass,
    of_device: Watch,
    of_pass: Watch,
    /// Of the authority that a registered certificate depends on.
    of_authority: Option<Watch>,
}

impl Stay {
    /// From now on what changes is told, and what changed before it is seen at the first look.
    pub(crate) fn new(door: &Door, guest: Guest, pass: Pass) -> Self {
        let of_device = door.registry.watch(pass.tenant, &guest.device);
        let of_pass = door.watch_pass(pass.tenant, &pass.id);
        let of_authority = pass.authority.as_ref();
        let of_authority = of_authority.map(|(id, _)| door.watch_pass(pass.tenant, id));
        Self { guest, pass, of_device, of_pass, of_authority }
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
        let authority = async {
            match &stay.of_authority {
                Some(watch) => {
                    watch.until_revoked(None, now_ms, || self.authority_stays(stay)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = device => {}
            () = pass => {}
            () = authority => {}
        }
    }

    async fn authority_stays(&self, Stay { pass, .. }: &Stay) -> Result<(), Denial> {
        let Some((id, version)) = &pass.authority else { return Ok(()) };
        let still = self.is_still(pass.tenant, id, *version).await;
        let still = still.map_err(|_| Denial::Unavailable)?;
        if still { Ok(()) } else { Err(Denial::WrongSecret) }
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
        let again = self.again(pass.tenant, (pass.kind, &pass.id), pass.version).await;
        match again.map_err(|_| Denial::Unavailable)? {
            Some(_) => Ok(()),
            None => Err(Denial::WrongSecret),
        }
    }
}
