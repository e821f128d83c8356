//! When nothing changes any more, what the registry says in one way it says in every other: the list of devices is the set of those
//! that can be shown; the credentials shown of a device are those that were issued and not revoked; and nothing of a deleted device is
//! left for the next one of its name: no mail, no session, no credential.

use std::collections::{BTreeMap, BTreeSet};

use super::{INVENTORY, named};
use crate::history::{Event, Phase};
use crate::loads::{Churn, ChurnAct, Last, Load};
use crate::verdict::Check;

/// What is shown of a device: its version and its credentials.
type Shown<'a> = (u64, BTreeSet<&'a str>);

/// What clients know of a device's credentials.
#[derive(Debug, Default)]
struct Known<'a> {
    issued: BTreeSet<&'a str>,
    /// Somebody asked for its revocation.
    revoking: BTreeSet<&'a str>,
    revoked: BTreeSet<&'a str>,
    deleted: bool,
}

#[derive(Debug, Default)]
struct Inventory<'a> {
    listed: BTreeMap<&'a str, Shown<'a>>,
    got: BTreeMap<&'a str, Option<Shown<'a>>>,
    known: BTreeMap<&'a str, Known<'a>>,
}

fn set(credentials: &[String]) -> BTreeSet<&str> {
    credentials.iter().map(String::as_str).collect()
}

impl<'a> Inventory<'a> {
    fn take(&mut self, load: &'a Load, ph: Phase, check: &mut Check) {
        match load {
            Load::Last(Last::Listed { device, version, credentials }) => {
                if self.listed.insert(device, (*version, set(credentials))).is_some() {
                    check.violated(|| format!("{device} is listed twice"));
                }
            }
            Load::Last(Last::Got { device, version, credentials }) => {
                self.got.insert(device, version.map(|version| (version, set(credentials))));
            }
            Load::Last(Last::Reborn { device, mailbox_before, credentials, mails, present }) => {
                #[rustfmt::skip]
                let table = [
                    (*mailbox_before,   "had a mailbox when it was deleted"),
                    (*credentials > 0,  "has credentials of the deleted one of its name"),
                    (*mails > 0,        "has mail of the deleted one of its name"),
                    (*present,          "has a session of the deleted one of its name"),
                ];
                for (_, what) in table.into_iter().filter(|(wrong, _)| *wrong) {
                    check.violated(|| format!("{device} {what}"));
                }
            }
            Load::Churn(Churn { device, act }) => {
                let known = self.known.entry(device).or_default();
                match act {
                    ChurnAct::Issued { credential } => {
                        known.issued.insert(credential);
                    }
                    ChurnAct::Revoke { credential: Some(credential) } => {
                        known.revoking.insert(credential);
                        if ph == Phase::Ok {
                            known.revoked.insert(credential);
                        }
                    }
                    ChurnAct::Revoke { credential: None } => known.deleted = true,
                    ChurnAct::Change { .. }
                    | ChurnAct::Disable
                    | ChurnAct::Enable
                    | ChurnAct::Login { .. }
                    | ChurnAct::Served { .. }
                    | ChurnAct::Close { .. } => {}
                }
            }
            Load::Share(_)
            | Load::Will(_)
            | Load::Retained(_)
            | Load::Audited(_)
            | Load::Usage(_)
            | Load::Accounts { .. } => {}
        }
    }
}

/// Compares what was said when everything was over.
pub fn check(events: &[Event]) -> Option<Check> {
    let mut check = named(INVENTORY);
    let mut all = Inventory::default();
    for event in events {
        if let Some(load) = Load::of(event) {
            all.take(load, event.ph, &mut check);
        }
    }
    if all.listed.is_empty() && all.got.is_empty() {
        return None;
    }
    for (device, got) in &all.got {
        let listed = all.listed.get(device);
        if got.as_ref() != listed {
            check.violated(|| format!("{device} is listed as {listed:?} and shown as {got:?}"));
        }
    }
    for device in all.listed.keys().filter(|device| !all.got.contains_key(*device)) {
        check.unclear(|| format!("{device} was listed, and nobody asked for it"));
    }
    for (device, known) in all.known.iter().filter(|(_, known)| !known.deleted) {
        let Some(Some((_, shown))) = all.got.get(device) else { continue };
        for credential in known.issued.difference(&known.revoking) {
            if !shown.contains(credential) {
                check.violated(|| format!("{device}: credential {credential} is gone"));
            }
        }
        for credential in known.revoked.intersection(shown) {
            check.violated(|| format!("{device}: credential {credential} is revoked, and there"));
        }
    }
    check.detail = format!("{} listed, {} asked for", all.listed.len(), all.got.len());
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Op;
    use crate::planted::Story;

    fn say(story: &mut Story, last: Last) {
        story.push("w8", Phase::Ok, None, Op::Load(Load::Last(last)));
    }

    fn shown(credentials: &[&str]) -> Vec<String> {
        credentials.iter().map(|&one| one.to_owned()).collect()
    }

    fn listed(version: u64, credentials: &[&str]) -> Last {
        Last::Listed { device: "d".into(), version, credentials: shown(credentials) }
    }

    fn got(version: Option<u64>, credentials: &[&str]) -> Last {
        Last::Got { device: "d".into(), version, credentials: shown(credentials) }
    }

    #[test]
    fn a_list_is_the_set_of_what_can_be_shown() {
        #[rustfmt::skip]
        let table = [
            (Some(listed(5, &["1"])), got(Some(5), &["1"]), 0),
            (None,                    got(None, &[]),       0),
            (Some(listed(5, &["1"])), got(Some(6), &["1"]), 1),
            (Some(listed(5, &["1"])), got(Some(5), &[]),    1),
            (Some(listed(5, &["1"])), got(None, &[]),       1),
            (None,                    got(Some(5), &[]),    1),
        ];
        for (at, (listed, got, violations)) in table.into_iter().enumerate() {
            let mut story = Story::new();
            if let Some(listed) = listed {
                say(&mut story, listed);
            }
            say(&mut story, got);
            assert_eq!(story.found(INVENTORY), violations, "line {at}");
        }
    }

    #[test]
    fn credentials_are_those_that_were_issued_and_not_revoked() {
        for (credentials, violations) in [(&["1"][..], 0), (&[], 1), (&["1", "2"], 1)] {
            let mut story = Story::new();
            for credential in ["1", "2"] {
                story.churn(Phase::Ok, 1, ChurnAct::Issued { credential: credential.into() });
            }
            let revoke = ChurnAct::Revoke { credential: Some("2".into()) };
            story.churn(Phase::Invoke, 1, revoke.clone()).churn(Phase::Ok, 1, revoke);
            say(&mut story, listed(5, credentials));
            say(&mut story, got(Some(5), credentials));
            assert_eq!(story.found(INVENTORY), violations, "{credentials:?}");
        }
    }

    #[test]
    fn what_a_deleted_device_left_to_the_next_one_is_found() {
        for (mailbox_before, credentials, mails, present, violations) in [
            (false, 0, 0, false, 0),
            (true, 0, 0, false, 1),
            (false, 1, 0, false, 1),
            (false, 0, 2, false, 1),
            (false, 0, 0, true, 1),
        ] {
            let mut story = Story::new();
            say(&mut story, got(None, &[]));
            let device = "d".to_owned();
            say(&mut story, Last::Reborn { device, mailbox_before, credentials, mails, present });
            assert_eq!(story.found(INVENTORY), violations);
        }
    }
}
