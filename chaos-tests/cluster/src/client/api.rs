//! The API as an application uses it: a tenant of the run's own, devices, credentials.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::http::{Answer, AskError, Http, Question};

/// The tenant of a run.
pub const TENANT: &str = "chaos";
/// What Fostrom's devices call it.
pub const FLEET: &str = "CHAOSFLT";
/// How long the tenant and each device may take: the meta group may still elect.
const FIRST_MAX: Duration = Duration::from_secs(30);
/// How often something that failed is tried again before the faults begin.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// The API, with a token.
#[derive(Debug, Clone)]
pub struct Api {
    /// How nodes are reached.
    pub http: Http,
    token: String,
}

impl Api {
    /// Makes the tenant, with an administrator's token.
    pub async fn open(http: Http, node: SocketAddr, token: String) -> Result<Self> {
        let api = Self { http, token };
        let aliases = [format!("fostrom:{FLEET}")];
        // TLS is tested elsewhere, and would take the time of two cores.
        let settings = json!({ "plaintext": true });
        let tenant = json!({ "name": TENANT, "aliases": aliases, "settings": settings });
        api.insist(node, "/api/v1/tenants", tenant).await?;
        Ok(api)
    }

    /// The same API, reached in another way.
    #[must_use]
    pub fn by(&self, http: Http) -> Self {
        Self { http, token: self.token.clone() }
    }

    /// What must be in no log.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Asks one node, below `/api/v1`, in the tenant.
    pub async fn ask(
        &self,
        node: SocketAddr,
        method: Method,
        path: &str,
        (condition, body): (Option<u64>, Option<Value>),
    ) -> Result<Answer, AskError> {
        let mut headers = vec![("authorization", format!("Bearer {}", self.token))];
        headers.extend(condition.map(|version| ("if-match", format!("\"{version}\""))));
        let path = format!("/api/v1{path}?tenant={TENANT}");
        self.http.ask(node, &Question { method, path, headers, body }).await
    }

    /// Asks for a page of a list of the tenant's.
    pub async fn page(
        &self,
        node: SocketAddr,
        path: &str,
        query: &str,
    ) -> Result<Answer, AskError> {
        let headers = vec![("authorization", format!("Bearer {}", self.token))];
        let path = format!("/api/v1{path}?tenant={TENANT}&{query}");
        let method = Method::GET;
        self.http.ask(node, &Question { method, path, headers, body: None }).await
    }

    /// Makes a device of Fostrom's; its secret, and the number of that credential.
    pub async fn device(
        &self,
        node: SocketAddr,
        name: &str,
        settings: &Value,
    ) -> Result<(String, String)> {
        let device = format!("/api/v1/devices?tenant={TENANT}");
        let new = json!({ "name": name, "settings": settings });
        self.insist(node, &device, new).await?;
        let path = format!("/api/v1/devices/{name}/credentials?tenant={TENANT}");
        let made = self.insist(node, &path, json!({ "style": "fostrom" })).await?;
        let word = |key: &str| made[key].as_str().map(str::to_owned).context("a credential");
        Ok((word("secret")?, word("id")?))
    }

    /// Posts until it is done: only before the faults.
    async fn insist(&self, node: SocketAddr, path: &str, body: Value) -> Result<Value> {
        let deadline = Instant::now() + FIRST_MAX;
        let bearer = format!("Bearer {}", self.token);
        let headers = vec![("authorization", bearer)];
        let (method, path) = (Method::POST, path.to_owned());
        let question = Question { method, path: path.clone(), headers, body: Some(body) };
        loop {
            let answer = self.http.ask(node, &question).await;
            match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(answer.json()),
                Ok(answer) if answer.status < 500 => bail!("{path}: {}", answer.words()),
                Ok(_) | Err(_) if Instant::now() < deadline => sleep(TRY_EVERY).await,
                Ok(answer) => bail!("{path}: {}", answer.words()),
                Err(error) => bail!("{path}: {error}"),
            }
        }
    }
}
