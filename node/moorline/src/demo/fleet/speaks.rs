//! Five devices, one of each platform: how they are made, and what they say and hear.

use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use moorline_core::Text;
use moorline_mqtt::client::Options;
use serde_json::{Value, json};

use super::board::Heard;
use crate::{bench::caller::Caller, demo::ReadyNode, http};

/// The tenant that has a name on each platform.
pub(super) const TENANT: &str = "fleet";
/// What all its devices are labelled with.
pub(super) const LABEL: &str = "fleet";
const FLEET: &str = "FLEET001";
const ORG: &str = "fleet1";
const APPLICATION: &str = "5f0c9a1b2c3d4e5f60718293";

/// How often most of them say something.
const OFTEN: Duration = Duration::from_millis(100);
/// How often one says something whose platform takes thirty messages in fifteen seconds.
const SELDOM: Duration = Duration::from_millis(600);

/// How a device's platform speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    Fostrom,
    Watson,
    Thingsboard,
    Losant,
    Drogue,
}

/// A device, and what it shows.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) platform: Platform,
    pub(super) name: String,
    client: String,
    user: String,
    password: Option<String>,
}

impl Platform {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fostrom => "Fostrom",
            Self::Watson => "Watson IoT",
            Self::Thingsboard => "ThingsBoard",
            Self::Losant => "Losant",
            Self::Drogue => "Drogue Cloud",
        }
    }

    /// How often it says something.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::Losant => SELDOM,
            Self::Fostrom | Self::Watson | Self::Thingsboard | Self::Drogue => OFTEN,
        }
    }
}

impl Device {
    /// What it connects with.
    pub(super) fn options(&self) -> Options {
        Options {
            client_id: Text::from(self.client.as_str()),
            username: Some(Text::from(self.user.as_str())),
            password: self.password.clone().map(Into::into),
            ..Options::default()
        }
    }

    /// Where it listens for what it is told.
    pub(super) fn listens(&self) -> String {
        match self.platform {
            Platform::Fostrom => "mailbox/mail".to_owned(),
            Platform::Watson => "iot-2/cmd/+/fmt/+".to_owned(),
            Platform::Thingsboard => "v1/devices/me/rpc/request/+".to_owned(),
            Platform::Losant => format!("losant/{}/command", self.name),
            Platform::Drogue => "command/inbox//#".to_owned(),
        }
    }

    /// Event number `seq`: topic and body.
    pub(super) fn event(&self, seq: u64) -> (String, String) {
        let celsius = 20 + seq % 5;
        let (topic, body) = match self.platform {
            Platform::Fostrom => ("datapoint/env", json!({ "seq": seq, "t": celsius })),
            Platform::Watson => {
                ("iot-2/evt/env/fmt/json", json!({ "d": { "seq": seq, "t": celsius } }))
            }
            Platform::Thingsboard => {
                ("v1/devices/me/telemetry", json!({ "seq": seq, "t": celsius }))
            }
            Platform::Losant => {
                let topic = format!("losant/{}/state", self.name);
                return (topic, json!({ "data": { "seq": seq, "t": celsius } }).to_string());
            }
            Platform::Drogue => ("env", json!({ "seq": seq, "t": celsius })),
        };
        (topic.to_owned(), body.to_string())
    }

    /// What it was told, if that is mail; and what it publishes to say that it is done with it, where it has to.
    pub(super) fn hears(&self, topic: &str, payload: &[u8]) -> Option<(Heard, Option<String>)> {
        let said: Value = serde_json::from_slice(payload).unwrap_or_default();
        let field = |key: &str| said[key].as_str().map(str::to_owned);
        let (name, done) = match self.platform {
            // An empty mailbox is told, too, and has no name.
            Platform::Fostrom => (field("name")?, Some(format!("mailbox/ack/{}", field("id")?))),
            Platform::Watson => (topic.split('/').nth(2)?.to_owned(), None),
            Platform::Thingsboard => (field("method")?, None),
            Platform::Losant => (field("name")?, None),
            Platform::Drogue => (topic.rsplit('/').next()?.to_owned(), None),
        };
        let payload = String::from_utf8_lossy(payload).into_owned();
        Some((Heard { name, topic: topic.to_owned(), payload }, done))
    }
}

/// Whoever manages the tenant.
struct Manager {
    api: Caller,
}

impl Manager {
    /// Makes a device with the label.
    async fn device(&mut self, name: &str, kind: Option<&str>) -> anyhow::Result<()> {
        let settings = json!({ "type": kind, "labels": [LABEL] });
        let body = json!({ "name": name, "settings": settings });
        let path = format!("/api/v1/devices?tenant={TENANT}");
        self.api.done(Method::POST, &path, &body).await.map(drop)
    }

    /// A credential of a device: its secret, if that was generated.
    async fn credential(&mut self, device: &str, wanted: &Value) -> anyhow::Result<String> {
        let path = format!("/api/v1/devices/{device}/credentials?tenant={TENANT}");
        let made = self.api.done(Method::POST, &path, wanted).await?;
        Ok(made["secret"].as_str().unwrap_or_default().to_owned())
    }
}

/// Makes the tenant and its devices: a token of the API, and them.
pub(super) async fn make(node: &ReadyNode) -> anyhow::Result<(String, Vec<Device>)> {
    let admin = node.admin.to_string();
    let mut nobody = Caller::connect(&admin, Vec::new()).await?;
    let first = json!({ "name": "fleet", "role": "admin" });
    let made = nobody.done(Method::POST, "/api/v1/tokens", &first).await?;
    let token = made["token"].as_str().context("no token")?.to_owned();
    let mut manager = Manager { api: Caller::connect(&admin, http::bearer(Some(&token))).await? };
    let tenant = json!({
        "name": TENANT,
        "aliases": [
            format!("fostrom:{FLEET}"), format!("watson:{ORG}"), format!("thingsboard:{TENANT}"),
            format!("losant:{APPLICATION}"), format!("drogue:{TENANT}"),
        ],
        // Beside what each platform's applications hear, all events are kept in one stream.
        "settings":
            { "plaintext": true, "chosen-passwords": true, "events": { "published": true } },
    });
    manager.api.done(Method::POST, "/api/v1/tenants", &tenant).await?;
    let devices = vec![
        fostrom(&mut manager).await?,
        watson(&mut manager).await?,
        thingsboard(&mut manager).await?,
        losant(&mut manager, node).await?,
        drogue(&mut manager).await?,
    ];
    Ok((token, devices))
}

async fn fostrom(manager: &mut Manager) -> anyhow::Result<Device> {
    let name = "DEVICE0001";
    manager.device(name, None).await?;
    let secret = manager.credential(name, &json!({ "style": "fostrom" })).await?;
    Ok(Device {
        platform: Platform::Fostrom,
        name: name.to_owned(),
        client: "JSON".to_owned(),
        user: format!("{FLEET}::{name}"),
        password: Some(secret),
    })
}

async fn watson(manager: &mut Manager) -> anyhow::Result<Device> {
    let name = "pump:p1";
    manager.device(name, Some("pump")).await?;
    Ok(Device {
        platform: Platform::Watson,
        name: name.to_owned(),
        client: format!("d:{ORG}:{name}"),
        user: "use-token-auth".to_owned(),
        password: Some(manager.credential(name, &json!({})).await?),
    })
}

async fn thingsboard(manager: &mut Manager) -> anyhow::Result<Device> {
    let name = "meter-1";
    manager.device(name, None).await?;
    Ok(Device {
        platform: Platform::Thingsboard,
        name: name.to_owned(),
        client: name.to_owned(),
        user: manager.credential(name, &json!({ "kind": "token" })).await?,
        password: None,
    })
}

async fn drogue(manager: &mut Manager) -> anyhow::Result<Device> {
    let name = "gate-7";
    manager.device(name, None).await?;
    let password = format!("{:032x}", rand::random::<u128>());
    let wanted = json!({ "kind": "password", "user": name, "password": password });
    manager.credential(name, &wanted).await?;
    Ok(Device {
        platform: Platform::Drogue,
        name: name.to_owned(),
        client: name.to_owned(),
        user: format!("{name}@{TENANT}"),
        password: Some(password),
    })
}

/// Losant's devices are made over its own API, and have an access key of their application.
async fn losant(manager: &mut Manager, node: &ReadyNode) -> anyhow::Result<Device> {
    let at = node.http.context("the node listens for no HTTP")?.to_string();
    let operator = json!({ "name": "integrator", "role": "operator" });
    let path = format!("/api/v1/tokens?tenant={TENANT}");
    let made = manager.api.done(Method::POST, &path, &operator).await?;
    let integrator = made["token"].as_str().context("no token")?.to_owned();
    let mut rest = Caller::connect(&at, http::bearer(Some(&integrator))).await?;
    let attributes = json!([
        { "name": "seq", "dataType": "number" }, { "name": "t", "dataType": "number" },
    ]);
    let new = json!({ "name": "boiler", "deviceClass": "standalone", "attributes": attributes });
    let path = format!("/applications/{APPLICATION}");
    let made = rest.done(Method::POST, &format!("{path}/devices"), &new).await?;
    let name = made["deviceId"].as_str().context("no device id")?.to_owned();
    let key = rest.done(Method::POST, &format!("{path}/keys"), &json!({})).await?;
    let field =
        |name: &str| Ok::<_, anyhow::Error>(key[name].as_str().context("no key")?.to_owned());
    let labelled = json!({ "settings": { "labels": [LABEL] } });
    let path = format!("/api/v1/devices/{name}?tenant={TENANT}");
    manager.api.done(Method::PATCH, &path, &labelled).await?;
    Ok(Device {
        platform: Platform::Losant,
        client: name.clone(),
        name,
        user: field("key")?,
        password: Some(field("secret")?),
    })
}
