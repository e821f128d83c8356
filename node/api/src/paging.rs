//! Lists in pages, and what devices and tokens share since both are rows of the same kind.
//!
//! # Invariants
//!
//! - **Pages together are the list**: who goes on with `next` until there is none has met everything once that was there all the
//!   time. Checked by the cluster tests (`registry.rs`).

use axum::http::StatusCode;
use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::{
    DeviceCursor,
    registry::{DeleteDevice, DeviceRecord},
};
use moorline_service::registry::principal;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{Api, Problem};

/// Items of one page of a list.
pub(crate) const ITEMS_PER_PAGE_MAX: usize = 1_000;
/// Items of a page for which nobody says how many.
const ITEMS_PER_PAGE: usize = 100;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// A tenant's name; not needed with a token of that tenant.
    pub(crate) tenant: Option<String>,
    /// At most so many: 1 to 1,000.
    #[param(minimum = 1, maximum = 1_000)]
    pub(crate) limit: Option<usize>,
    /// `next` of the page before.
    pub(crate) after: Option<String>,
}

/// Where a page ended.
pub(crate) type Place = Option<(ShardId, DeviceCursor)>;

impl Page {
    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(ITEMS_PER_PAGE);
        let fits = (1..=ITEMS_PER_PAGE_MAX).contains(&limit);
        if fits { Ok(limit) } else { Err(Problem::malformed("limit: 1 to 1,000")) }
    }

    fn place(&self) -> Result<Place, Problem> {
        let wrong = || Problem::malformed("after: what the page before said under `next`");
        self.after.as_deref().map(|cursor| parse(cursor).ok_or_else(wrong)).transpose()
    }

    /// What is on it: names, records, and what `after` of the next page is.
    pub(crate) async fn read(
        &self,
        api: &Api,
        tenant: TenantId,
    ) -> Result<(Vec<(Text, DeviceRecord)>, Option<String>), Problem> {
        let found = api.registry.devices(tenant, self.place()?, self.limit()?).await?;
        let next = found.next.map(|(shard, at)| format!("{}.{}.{}", shard.0, at.bucket, at.device));
        Ok((found.devices, next))
    }
}

fn parse(cursor: &str) -> Option<(ShardId, DeviceCursor)> {
    let mut parts = cursor.splitn(3, '.');
    let shard = ShardId(parts.next()?.parse().ok()?);
    let bucket = parts.next()?.parse().ok()?;
    Some((shard, DeviceCursor { bucket, device: Text::from(parts.next()?) }))
}

/// Whether a row is a token of the API, which is kept as devices are.
pub(crate) fn is_token(name: &Text) -> bool {
    principal::is_principal(name)
}

/// All rows of a tenant, a page at a time.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    api: &'a Api,
    tenant: TenantId,
    /// Where the next page begins; [`None`]: there is none.
    from: Option<Place>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(api: &'a Api, tenant: TenantId) -> Self {
        Self { api, tenant, from: Some(None) }
    }

    /// The next ones; [`None`] at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<(Text, DeviceRecord)>>, Problem> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let page = self.api.registry.devices(self.tenant, from, ITEMS_PER_PAGE_MAX).await?;
        self.from = page.next.map(Some);
        Ok(Some(page.devices))
    }
}

/// Forgets a device or a token; `what` it is is said when there is none.
pub(crate) async fn forget(
    api: &Api,
    what: &str,
    delete: DeleteDevice,
) -> Result<StatusCode, Problem> {
    let gone = api.registry.delete_device(delete).await;
    gone.map_err(|error| Problem::about(what, error))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which bytes a name may have.
pub(crate) type Alphabet = fn(u8) -> bool;

/// `a-z`, `0-9` and `-`: tenants and tokens.
pub(crate) fn is_small(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')
}

/// `why` in a problem, unless a name has 1 to `bytes_max` bytes of an alphabet.
pub(crate) fn checked(
    name: &str,
    bytes_max: usize,
    is_of: Alphabet,
    why: &str,
) -> Result<(), Problem> {
    let fits = !name.is_empty() && name.len() <= bytes_max && name.bytes().all(is_of);
    if fits { Ok(()) } else { Err(Problem::malformed(why)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_the_one_before_ended() {
        let page = |after: &str| Page { after: Some(after.to_owned()), ..Page::default() };
        let place = (ShardId(3), DeviceCursor { bucket: 7, device: Text::from("a.b") });
        assert_eq!(page("3.7.a.b").place().unwrap(), Some(place));
        for wrong in ["", "3", "3.7", "x.7.a", "3.-1.a", "70000.1.a"] {
            page(wrong).place().unwrap_err();
        }
        for (limit, fits) in
            [(None, true), (Some(0), false), (Some(1_000), true), (Some(1_001), false)]
        {
            assert_eq!(Page { limit, ..Page::default() }.limit().is_ok(), fits, "{limit:?}");
        }
    }

    #[test]
    fn names_are_of_their_alphabet() {
        for (name, fits) in [("a-1", true), ("", false), ("A", false), ("aaaaa", false)] {
            assert_eq!(checked(name, 4, is_small, "why").is_ok(), fits, "{name}");
        }
    }
}
