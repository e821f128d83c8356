//! Device types: a document each. A type that only devices name is there, too, and says nothing.

use bytes::Bytes;
use moorline_core::{TenantId, Text, calendar::rfc3339};
use moorline_dialects::watson::{
    management::kept,
    rest::{
        Method, Resource,
        error::Error,
        kept::{KeptType, TYPE_BYTES_MAX},
        query::Query,
        request::{self, NewType, TypeChange},
        response::{DeviceType, Meta, Page},
    },
};
use moorline_machine::documents::{Expect, Space};
use moorline_service::registry::documents::is_conflict;
use serde_json::{Value, json};

use super::{Reply, Rest, TRIES_MAX, Who, Wrong, devices::SCANNED_MAX};
use crate::door::name_of;

/// An organisation's space for its types.
const TYPES: &str = "watson/type";

fn space(tenant: TenantId) -> Space {
    Space::of_tenant(tenant, TYPES)
}

fn shown(id: &str, kind: &KeptType) -> Value {
    json!(DeviceType {
        id,
        class_id: kind.class,
        description: kind.description.as_deref(),
        device_info: &kind.info,
        metadata: &kind.metadata,
        created_date_time: rfc3339(kind.created),
        updated_date_time: rfc3339(kind.updated),
    })
}

fn written(kind: &KeptType) -> Result<Bytes, Wrong> {
    let body = kept::write(kind);
    if body.len() > TYPE_BYTES_MAX { Err(Error::TooLarge.into()) } else { Ok(body) }
}

impl Rest {
    pub(super) async fn types(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        match (method, resource) {
            (Method::Get, Resource::Type(id)) => {
                let (kind, _) = self.kind(who.tenant, &id).await?.ok_or(Error::NotFound)?;
                Ok(Reply::json(success, &shown(id.as_str(), &kind)))
            }
            (Method::Get, _) => self.list_types(who, query).await,
            (Method::Post, _) => {
                let new = NewType::read(body)?;
                let id = Text::from(new.id.as_str());
                let kind = KeptType::new(new, self.judge.door.clock.wall());
                let (space, body) = (space(who.tenant), written(&kind)?);
                self.judge.door.registry.put_document(&space, &id, body, Expect::Absent).await?;
                Ok(Reply::json(success, &shown(id.as_str(), &kind)))
            }
            (Method::Put, Resource::Type(id)) => {
                let kind = self.change_type(who.tenant, &id, request::read(body)?).await?;
                Ok(Reply::json(success, &shown(id.as_str(), &kind)))
            }
            (Method::Delete, Resource::Type(id)) => {
                if self.is_named(who.tenant, &id).await? {
                    return Err(Error::Conflict.into());
                }
                let (space, registry) = (space(who.tenant), &self.judge.door.registry);
                if registry.delete_document(&space, &id, Expect::Any).await? {
                    Ok(Reply::nothing(success))
                } else {
                    Err(Error::NotFound.into())
                }
            }
            (Method::Put | Method::Delete, _) => Err(Error::Method.into()),
        }
    }

    async fn list_types(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let after = query.bookmark.as_deref().map(Text::from);
        let most = u16::try_from(query.limit).unwrap_or(u16::MAX);
        let registry = &self.judge.door.registry;
        let page = registry.documents(&space(who.tenant), after.as_ref(), most).await?;
        let mut results = Vec::with_capacity(page.documents.len());
        for found in &page.documents {
            results.push(shown(found.id.as_str(), &kept::read(&found.body)?));
        }
        let last = page.documents.last().filter(|_| page.more);
        let bookmark = last.map(|found| found.id.to_string());
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    /// A type with the version of its document, if it has one.
    pub(super) async fn kind(
        &self,
        tenant: TenantId,
        id: &Text,
    ) -> Result<Option<(KeptType, Option<u64>)>, Wrong> {
        if let Some(found) = self.judge.door.registry.document(&space(tenant), id).await? {
            return Ok(Some((kept::read(&found.body)?, Some(found.version))));
        }
        let named = self.is_named(tenant, id).await?;
        Ok(named.then(|| (KeptType::default(), None)))
    }

    /// What a type says of devices that are registered now: nothing if nobody has made it.
    pub(super) async fn kind_for_new(
        &self,
        tenant: TenantId,
        id: &Text,
    ) -> Result<KeptType, Wrong> {
        let found = self.judge.door.registry.document(&space(tenant), id).await?;
        Ok(found.map(|found| kept::read(&found.body)).transpose()?.unwrap_or_default())
    }

    async fn change_type(
        &self,
        tenant: TenantId,
        id: &Text,
        change: TypeChange,
    ) -> Result<KeptType, Wrong> {
        for _ in 0..TRIES_MAX {
            let now = self.judge.door.clock.wall();
            let (mut kind, version) = self.kind(tenant, id).await?.ok_or(Error::NotFound)?;
            if version.is_none() {
                kind.created = now;
            }
            kind.change(change.clone(), now);
            let expect = version.map_or(Expect::Absent, Expect::Version);
            let registry = &self.judge.door.registry;
            match registry.put_document(&space(tenant), id, written(&kind)?, expect).await {
                Err(error) if is_conflict(&error) => {}
                put => {
                    put?;
                    return Ok(kind);
                }
            }
        }
        Err(Error::Conflict.into())
    }

    /// Whether one of an organisation's first [`SCANNED_MAX`] devices is of a type.
    async fn is_named(&self, tenant: TenantId, id: &Text) -> Result<bool, Wrong> {
        let (mut after, mut scanned) = (None, 0);
        loop {
            let page = self.page(tenant, after).await?;
            scanned += page.devices.len();
            let is_of = |(name, _): &(Text, _)| name_of(name).is_some_and(|name| name.kind == *id);
            if page.devices.iter().any(is_of) {
                return Ok(true);
            }
            match page.next {
                Some(next) if scanned < SCANNED_MAX => after = Some(next),
                _ => return Ok(false),
            }
        }
    }
}
