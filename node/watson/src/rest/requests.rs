//! Management requests: what devices are asked to do, and what became of it.

use moorline_core::Text;
use moorline_dialects::watson::{
    identity::DeviceName,
    management::{
        bundle::Bundle,
        kept,
        task::{Action, RequestId},
    },
    rest::{
        Method, Resource,
        error::Error,
        query::Query,
        request::NewRequest,
        response::{Initiated, Meta, Page},
    },
};
use moorline_machine::documents::Space;
use serde_json::{Value, json};

use super::{Reply, Rest, Who, Wrong};
use crate::{
    door::{device_name, name_of},
    managed::{BUNDLES, Made},
};

impl Rest {
    pub(super) async fn requests(
        &self,
        who: &Who,
        (method, resource, success): (Method, Resource, u16),
        query: &Query,
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        match (method, resource) {
            (Method::Get, Resource::Requests) => self.list_requests(who, query).await,
            (_, Resource::Requests) => {
                let id = self.initiate(who, NewRequest::read(body, query)?).await?;
                Ok(Reply::json(success, &Initiated { id: id.to_string() }))
            }
            (Method::Get, Resource::Request(id)) => self.request(who, id, success).await,
            (_, Resource::Request(id)) => {
                manager.request(tenant, id).await?.ok_or(Error::NotFound)?;
                Box::pin(manager.forget(tenant, id)).await?;
                Ok(Reply::nothing(success))
            }
            (_, Resource::RequestCancel(id)) => {
                manager.request(tenant, id).await?.ok_or(Error::NotFound)?;
                Box::pin(manager.call_off(tenant, id)).await?;
                self.request(who, id, success).await
            }
            (_, Resource::RequestDevices(id)) => self.list_parts(who, id, query).await,
            (_, Resource::RequestDevice(id, name)) => {
                let part = Box::pin(manager.part(tenant, id, &name)).await?;
                Ok(Reply::json(success, &part.ok_or(Error::NotFound)?.shown(&name)))
            }
            (_, _) => Err(Error::Method.into()),
        }
    }

    async fn initiate(&self, who: &Who, mut asked: NewRequest) -> Result<RequestId, Wrong> {
        if let Action::Custom { bundle, action } = &asked.action {
            let space = Space::of_tenant(who.tenant, BUNDLES);
            let found = self.judge.door.registry.document(&space, bundle).await?;
            let invalid = |why: String| Error::Invalid(vec![why]);
            let found =
                found.ok_or_else(|| invalid(format!("there is no extension bundle {bundle}")))?;
            let bundle: Bundle = kept::read(&found.body)?;
            let parameters = bundle.parameters(action.as_str(), &asked.parameters);
            asked.parameters = parameters.map_err(|why| invalid(why.to_string()))?;
        }
        let made = Made::new(asked, self.now(), rand::random());
        let (id, tenant, manager) = (made.id, who.tenant, self.manager.clone());
        // Whoever asked may go: what was begun is done.
        let doing =
            self.judge.door.tasks.spawn(async move { manager.initiate(tenant, made).await });
        doing.await.map_err(|_| Error::Failed)??;
        Ok(id)
    }

    async fn request(&self, who: &Who, id: RequestId, status: u16) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        let (record, version) = manager.request(tenant, id).await?.ok_or(Error::NotFound)?;
        let record = Box::pin(manager.looked(tenant, id, (record, Some(version)))).await?;
        Ok(Reply::json(status, &record.shown(id)))
    }

    async fn list_requests(&self, who: &Who, query: &Query) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        let after = match &query.bookmark {
            None => None,
            Some(text) => {
                Some(RequestId::parse(text).ok_or(Error::Malformed("_bookmark is none"))?)
            }
        };
        let after = after.map(|id| Text::from(id.to_string()));
        let most = u16::try_from(query.limit).unwrap_or(u16::MAX);
        let (page, next) = manager.requests(tenant, after.as_ref(), most).await?;
        let bookmark = next.map(|next| next.to_string());
        let mut results: Vec<Value> = Vec::with_capacity(page.len());
        for (id, record) in page {
            let record = Box::pin(manager.looked(tenant, id, (record, None))).await?;
            results.push(json!(record.shown(id)));
        }
        Ok(Reply::json(200, &Page { results, bookmark, meta: Meta::default() }))
    }

    async fn list_parts(&self, who: &Who, id: RequestId, query: &Query) -> Result<Reply, Wrong> {
        let (manager, tenant) = (&self.manager, who.tenant);
        let (record, _) = manager.request(tenant, id).await?.ok_or(Error::NotFound)?;
        let after: Option<DeviceName> = match &query.bookmark {
            None => None,
            Some(text) => Some(
                name_of(&Text::from(text.as_str())).ok_or(Error::Malformed("_bookmark is none"))?,
            ),
        };
        let after = after.as_ref().map(device_name);
        let most = u16::try_from(query.limit).unwrap_or(u16::MAX);
        let (page, next) = manager.parts(tenant, id, after.as_ref(), most).await?;
        let bookmark = next.map(|next| next.to_string());
        let mut results: Vec<Value> = Vec::with_capacity(page.len());
        for (name, part) in page {
            let part = match part.has_ended() {
                true => Some(part),
                false => Box::pin(manager.part(tenant, id, &name)).await?,
            };
            results.extend(part.map(|part| json!(part.shown(&name))));
        }
        let meta = Meta { total_rows: Some(record.devices.into()) };
        Ok(Reply::json(200, &Page { results, bookmark, meta }))
    }
}
