//! Devices out of answers of the registry's API: lists of devices, and devices.

use serde_json::{Map, Value};

use super::registry::{
    credentials::{self, CREDENTIALS_MAX, Credential, Logins, Password},
    device::{Kept, is_disabled},
};
use crate::export::{Carried, Export, Left, Moved};

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
            Ok(credential) => {
                let said = carry(&mut logins, (name, application), credential);
                let (more, lost) = said.unwrap_or_else(|why| (None, Some(why)));
                carried.extend(more);
                lost.into_iter().for_each(|why| leave(into, name, why));
            }
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

/// What a device shows is the same as before; what is kept of it is other. With what is lost of it.
fn carry(
    logins: &mut Logins,
    (name, application): (&str, &str),
    credential: Credential,
) -> Result<(Option<Carried>, Option<String>), String> {
    let plain = |password| match password {
        Password::Plain(plain) => Ok(plain),
        Password::Hashed(form) => {
            Err(format!("a password as {form}: it can't be read, and needs a new one"))
        }
    };
    match credential {
        Credential::Password(password) => {
            let password = plain(password)?;
            let client = logins.password(name).map_err(|why| why.to_string())?;
            Ok((Some(Carried::Login(client, Some(name.to_owned()), Some(password))), None))
        }
        Credential::User { user, password, unique } => {
            let password = plain(password)?;
            let client = logins.user((!unique).then_some(name), &user);
            let client = client.map_err(|why| why.to_string())?;
            Ok((Some(Carried::Login(client, Some(user), Some(password))), None))
        }
        Credential::Psk { key, not_before, not_after } => {
            let dated = not_before.is_some() || not_after.is_some();
            let why = "a pre-shared key for a time: it moves without its dates";
            let lost = dated.then(|| why.to_owned());
            Ok((Some(Carried::Psk(format!("{name}@{application}"), key.0)), lost))
        }
    }
}
