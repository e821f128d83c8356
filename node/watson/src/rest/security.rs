//! What is asked of connections, by type.

use moorline_dialects::watson::rest::{Method, error::Error, security::ConnectionSecurity};

use super::{Reply, Rest, Who, Wrong};
use crate::security::Unknown;

impl Rest {
    pub(super) async fn connection_security(
        &self,
        who: &Who,
        (method, success): (Method, u16),
        body: &[u8],
    ) -> Result<Reply, Wrong> {
        let door = &self.judge.door;
        if method == Method::Get {
            return match door.policies(who.tenant).await {
                Ok(said) => Ok(Reply::json(success, &*said)),
                Err(Unknown::Unreadable) => Err(Error::Failed.into()),
                Err(Unknown::Registry(error)) => Err(error.into()),
            };
        }
        let asks = ConnectionSecurity::read(body)?;
        door.set_policies(who.tenant, asks.clone()).await?;
        Ok(Reply::json(success, &asks))
    }
}
