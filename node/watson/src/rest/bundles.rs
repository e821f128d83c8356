//! Extension bundles: custom actions of an organisation, a document each.

use moorline_core::Text;
use moorline_dialects::watson::{
    management::{bundle::Bundle, kept},
    rest::{Method, Resource, error::Error, request},
};
use moorline_machine::documents::{Expect, Space};

use super::{Reply, Rest, Who, Wrong};
use crate::managed::BUNDLES;

/// Bundles of an organisation.
const BUNDLES_MAX: usize = 100;
/// Bytes of one, as it is kept.
const BUNDLE_BYTES_MAX: usize = 64 * 1024;

impl Rest {
    pub(super) async fn bundles(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let (space, registry) = (Space::of_tenant(who.tenant, BUNDLES), &self.judge.door.registry);
        let id = if let Resource::Bundle(id) = resource { Some(id) } else { None };
        match (method, id) {
            (Method::Get, None) => Ok(Reply::json(success, &self.all_bundles(who).await?)),
            (Method::Get, Some(id)) => {
                let found = registry.document(&space, &id).await?.ok_or(Error::NotFound)?;
                Ok(Reply::json(success, &kept::read::<Bundle>(&found.body)?))
            }
            (Method::Delete, Some(id)) => {
                let deleted = registry.delete_document(&space, &id, Expect::Any).await?;
                if deleted { Ok(Reply::nothing(success)) } else { Err(Error::NotFound.into()) }
            }
            (Method::Put, Some(id)) => {
                let bundle = request::bundle(body, Some(id.as_str()))?;
                let found = registry.document(&space, &id).await?.ok_or(Error::NotFound)?;
                self.put_bundle(&space, &bundle, Expect::Version(found.version)).await?;
                Ok(Reply::json(success, &bundle))
            }
            (Method::Post, None) => {
                let bundle = request::bundle(body, None)?;
                if self.all_bundles(who).await?.len() >= BUNDLES_MAX {
                    return Err(Error::Full.into());
                }
                self.put_bundle(&space, &bundle, Expect::Absent).await?;
                Ok(Reply::json(success, &bundle))
            }
            (Method::Put | Method::Delete, None) | (Method::Post, Some(_)) => {
                Err(Error::Method.into())
            }
        }
    }

    async fn put_bundle(
        &self,
        space: &Space,
        bundle: &Bundle,
        expect: Expect,
    ) -> Result<(), Wrong> {
        let (id, body) = (Text::from(bundle.bundle_id.as_str()), kept::write(bundle));
        if body.len() > BUNDLE_BYTES_MAX {
            return Err(Error::TooLarge.into());
        }
        self.judge.door.registry.put_document(space, &id, body, expect).await?;
        Ok(())
    }

    async fn all_bundles(&self, who: &Who) -> Result<Vec<Bundle>, Wrong> {
        let space = Space::of_tenant(who.tenant, BUNDLES);
        let most = u16::try_from(BUNDLES_MAX).unwrap_or(u16::MAX);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let registry = &self.judge.door.registry;
            let page = registry.documents(&space, after.as_ref(), most).await?;
            for found in &page.documents {
                all.push(kept::read(&found.body)?);
            }
            after = page.documents.last().map(|found| found.id.clone());
            if !page.more {
                return Ok(all);
            }
        }
    }
}
