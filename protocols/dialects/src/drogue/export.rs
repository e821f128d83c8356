//! Devices out of answers of the registry's API: lists of devices, and devices.

use serde_json::{Map, Value};

use super::registry::{
    credentials::{self, CREDENTIALS_MAX, Credential, Logins, Password},
    device::{Kept, is_disabled},
};
use crate::{
    export::{Carried, Export, Left, Moved, Validity},
    moments,
};

/// Reads arrays and devices. Applications among them are named: they are tenants, which are made before.
#[must_use]
pub fn read(values: &[Value]) -> Export {
    let mut reading = Export::default();
    for (at, value) in values.iter().enumerate() {
        take(&mut reading, value, &format!("value {}", at + 1));
    }
    reading
}

fn leave(into: &mut Export, what: &str, why: impl Into<String>) {
    into.left.push(Left { what: what.to_owned(), why: why.into() });
}

fn take(into: &mut Export, value: &Value, place: &str) {
    if let Some(list) = value.as_array() {
        for (at, value) in list.iter().enumerate() {
            take(into, value, &format!("{place}, item {}", at + 1));
        }
        return;
    }
    let metadata = &value["metadata"];
    let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) else {
        return leave(into, place, "no device: it has no metadata.name");
    };
    let Some(application) = metadata["application"].as_str() else {
        let why = "an application: make a tenant of it, with the alias drogue:NAME, and import its devices";
        return leave(into, name, why);
    };
    let device = device(into, name, application, value);
    into.devices.push(device);
}

fn texts(value: &Value) -> impl Iterator<Item = (String, String)> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
}

fn device(into: &mut Export, name: &str, application: &str, value: &Value) -> Moved {
    let spec = value["spec"].as_object().cloned().unwrap_or_default();
    let mut kept = Kept {
        labels: texts(&value["metadata"]["labels"]).collect(),
        annotations: texts(&value["metadata"]["annotations"]).collect(),
        spec: Kept::without_credentials(spec.clone()),
    };
    // That is the row's.
    kept.spec.remove("core");
    let aliases = kept.aliases().filter(|alias| *alias != name);
    let mut carried: Vec<_> = aliases.map(|alias| Carried::Alias(alias.to_owned())).collect();
    let mut logins = Logins::default();
    for credential in credentials::of(&spec) {
        match credential {
            Ok(credential) => match carry(&mut logins, (name, application), credential) {
                Ok(more) => carried.push(more),
                Err(why) => leave(into, name, why),
            },
            Err(why) => leave(into, name, why),
        }
    }
    if carried.len() > CREDENTIALS_MAX {
        carried.truncate(CREDENTIALS_MAX);
        leave(into, name, "more than 8 credentials, with those of its aliases: the first 8 move");
    }
    let mut metadata = Map::new();
    kept.put(&mut metadata);
    let labels = kept.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let name = name.to_owned();
    let disabled = is_disabled(&spec);
    Moved { name, labels, metadata, credentials: carried, disabled, ..Moved::default() }
}

/// What a device shows is the same as before; what is kept of it is other.
fn carry(
    logins: &mut Logins,
    (name, application): (&str, &str),
    credential: Credential,
) -> Result<Carried, String> {
    let login = |client, user, password| match password {
        Password::Plain(plain) => Carried::Login(client, Some(user), Some(plain)),
        Password::Hashed(hash) => Carried::Hashed(client, Some(user), hash),
    };
    match credential {
        Credential::Password(password) => {
            let client = logins.password(name).map_err(|why| why.to_string())?;
            Ok(login(client, name.to_owned(), password))
        }
        Credential::User { user, password, unique } => {
            let client = logins.user((!unique).then_some(name), &user);
            Ok(login(client.map_err(|why| why.to_string())?, user, password))
        }
        Credential::Psk { key, not_before, not_after } => {
            // One that counts for ever in the place of one that has ended would be worse than none.
            let moment = |said: Option<String>| {
                let unreadable = "a pre-shared key whose validity can't be read".to_owned();
                said.map(|said| moments::parse(&said).ok_or(unreadable)).transpose()
            };
            let (not_before, not_after) = (moment(not_before)?, moment(not_after)?);
            let validity = Validity { not_before, not_after };
            Ok(Carried::Psk(format!("{name}@{application}"), key.0, validity))
        }
    }
}
