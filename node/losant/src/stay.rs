//! Until when a client may stay: as long as what let it in, and its device, are as they were.
//!
//! Invariant: **what it does not hear of counts as well**: it is judged once when the watch begins, since what let it in was read before,
//! and again and again later. Checked by the cluster tests (`losant.rs`, `losant_limits.rs`).

use moorline_core::op::Denial;
use moorline_dialects::losant::{device::Class, id::Id};
use moorline_edge::{Begin, watch_over};
use moorline_service::registry::{Watch, door::Guest};

use crate::{door::Door, pass::Pass};

/// What it depends on that a client may stay.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) guest: Guest,
    pub(crate) pass: Pass,
    /// What its device was when it was let in.
    class: Class,
    of_device: Watch,
    of_pass: Watch,
    /// Of the authority that a registered certificate depends on.
    of_authority: Option<Watch>,
}

impl Stay {
    /// From now on what changes is told, and what changed before it is seen at the first look.
    pub(crate) fn new(door: &Door, guest: Guest, pass: Pass, class: Class) -> Self {
        let of_device = door.registry.watch(pass.tenant, &guest.device);
        let of_pass = door.watch_pass(pass.tenant, &pass.id);
        let of_authority = pass.authority.as_ref();
        let of_authority = of_authority.map(|(id, _)| door.watch_pass(pass.tenant, id));
        Self { guest, pass, class, of_device, of_pass, of_authority }
    }

    /// Whether its device speaks for another one.
    pub(crate) fn speaks_for(&self, other: &Known) -> bool {
        let own = Id::parse(self.guest.device.as_bytes());
        let speaks = |own: &Id| other.about.is_spoken_for_by(self.class, own);
        other.record.enabled && own.as_ref().is_some_and(speaks)
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
        // What changed before the watches began is not told.
        let (device, pass) = (self.device_stays(stay).await, self.pass_stays(stay).await);
        for stays in [device, pass, self.authority_stays(stay).await] {
            if stays.is_err_and(|denial| denial != Denial::Unavailable) {
                return;
            }
        }
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

    async fn device_stays(&self, Stay { guest, pass, class, .. }: &Stay) -> Result<(), Denial> {
        self.registry.still(guest).await?;
        let id = Id::parse(guest.device.as_bytes());
        let id = id.ok_or(Denial::UnknownDevice)?;
        let known = self.known(guest.tenant, &id).await.map_err(|_| Denial::Unavailable)?;
        let known = known.ok_or(Denial::UnknownDevice)?;
        // Of another class it may say and hear other things: it comes again.
        let may = pass.access.is_for(&id, &known.about.tags) && known.about.class == *class;
        if may { Ok(()) } else { Err(Denial::Disabled) }
    }

    /// Another version of it may be for something else: its devices come again, and hear.
    async fn pass_stays(&self, Stay { pass, .. }: &Stay) -> Result<(), Denial> {
        let again = self.again(pass.tenant, (pass.kind, &pass.id), pass.version).await;
        let again = again.map_err(|_| Denial::Unavailable)?;
        if is_as_it_was(pass, again.as_ref()) { Ok(()) } else { Err(Denial::WrongSecret) }
    }
}

/// Whether what let a client in lets the same in again: its document may be another where its row is not yet.
fn is_as_it_was(pass: &Pass, again: Option<&Pass>) -> bool {
    again.is_some_and(|again| again.access == pass.access)
}

#[cfg(test)]
mod tests {
    use moorline_core::{TenantId, Text};
    use moorline_dialects::losant::{access::Access, rest::route::PassKind};

    use super::*;

    #[test]
    fn a_document_that_was_changed_before_its_row_counts() {
        let id = Id::parse(b"5f0c9a1b2c3d4e5f60718293").unwrap();
        let of = |access| Pass {
            tenant: TenantId(7),
            application: Text::from("a"),
            id: id.clone(),
            kind: PassKind::Key,
            version: 3,
            access,
            until_ms: None,
            authority: None,
        };
        let (all, own) =
            (Access::default(), Access { device_ids: vec![id.to_string()], ..Access::default() });
        assert!(is_as_it_was(&of(all.clone()), Some(&of(all.clone()))));
        assert!(!is_as_it_was(&of(all.clone()), Some(&of(own))));
        assert!(!is_as_it_was(&of(all), None));
    }
}
