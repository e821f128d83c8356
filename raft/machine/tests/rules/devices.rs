//! Devices and lookups: conditions, quotas, pages, and a lookup that is a hint and no more.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis, shard::bucket_of};
use moorline_machine::{
    Answer, Command, DEVICE_BUCKETS_PER_PAGE_MAX, DEVICES_PER_SHARD_MAX, DeviceCursor, DevicesPage,
    DevicesQuery, Effect, LOOKUPS_PER_SHARD_MAX, Refused, RegistryCounts,
    registry::{
        CREDENTIALS_MAX, Credential, DEVICE_NAME_BYTES_MAX, DEVICE_SETTINGS_BYTES_MAX,
        DeleteDevice, DeleteLookup, DeviceRecord, LookupHash, Owner, PutDevice, PutLookup,
        VERIFIER_BYTES_MAX,
    },
};
use proptest::prelude::*;

use crate::harness::*;

const KIND_DEVICE: u8 = 26;
const KIND_LOOKUP: u8 = 27;
const KIND_COUNTS: u8 = 28;

fn hash(n: u8) -> LookupHash {
    LookupHash([n; 32])
}

fn credential(id: u64, lookup: Option<LookupHash>) -> Credential {
    Credential {
        id,
        kind: 1,
        lookup,
        verifier: Bytes::from_static(b"verifier"),
        not_before: None,
        not_after: Some(UnixMillis(9)),
        created: UnixMillis(0),
    }
}

fn putting(device: &str) -> PutDevice {
    PutDevice {
        tenant: TENANT,
        device: device.into(),
        enabled: true,
        credentials: vec![credential(1, Some(hash(1)))],
        settings: Bytes::from_static(b"{}"),
        if_version: None,
        devices_max: u32::MAX,
    }
}

fn put_if(device: &str, if_version: Option<u64>) -> Command {
    Command::PutDevice(PutDevice { if_version, ..putting(device) })
}

fn delete_if(device: &str, if_version: Option<u64>) -> Command {
    Command::DeleteDevice(DeleteDevice { tenant: TENANT, device: device.into(), if_version })
}

/// Makes a device without lookups.
pub(crate) fn put_plain(device: &str) -> Command {
    Command::PutDevice(PutDevice { credentials: Vec::new(), ..putting(device) })
}

/// Deletes it, whatever its version.
pub(crate) fn delete_plain(device: &str) -> Command {
    delete_if(device, None)
}

fn owner(device: &str, born: u64) -> Owner {
    Owner { tenant: TENANT, device: device.into(), born }
}

fn put_lookup(hash: LookupHash, owner: &Owner, takes: Option<&Owner>) -> Command {
    Command::PutLookup(PutLookup { hash, owner: owner.clone(), takes: takes.cloned() })
}

fn delete_lookup(hash: LookupHash, owner: &Owner) -> Command {
    Command::DeleteLookup(DeleteLookup { hash, owner: owner.clone() })
}

const NAMES: [&str; 4] = ["a", "b", "type/c", "d"];
/// Conditions: must not be there, the first command's version, none.
const CONDITIONS: [Option<u64>; 4] = [None, None, Some(0), Some(65_536)];

fn any_owner() -> impl Strategy<Value = Owner> {
    (1..3_u32, prop::sample::select(&NAMES[..2]), 0..2_u64).prop_map(|(tenant, device, born)| {
        Owner { tenant: TenantId(tenant), device: device.into(), born }
    })
}

/// Any change of a few devices and lookups.
pub(crate) fn change() -> impl Strategy<Value = Command> {
    let name = || prop::sample::select(&NAMES[..]);
    let condition = || prop::sample::select(&CONDITIONS[..]);
    let credentials = prop::collection::vec((0..3_u64, prop::option::of(0..3_u8)), 0..3);
    let put = (1..3_u32, name(), condition(), credentials, 1..4_u32, 0..40_usize);
    prop_oneof![
        4 => put.prop_map(|(tenant, device, if_version, credentials, devices_max, bytes)| {
            let credentials = credentials.into_iter().map(|(id, n)| credential(id, n.map(hash)));
            Command::PutDevice(PutDevice {
                tenant: TenantId(tenant),
                credentials: credentials.collect(),
                settings: vec![b'x'; bytes].into(),
                if_version,
                devices_max,
                ..putting(device)
            })
        }),
        2 => (1..3_u32, name(), condition()).prop_map(|(tenant, device, if_version)| {
            let tenant = TenantId(tenant);
            Command::DeleteDevice(DeleteDevice { tenant, device: device.into(), if_version })
        }),
        2 => (0..3_u8, any_owner(), prop::option::of(any_owner())).prop_map(
            |(n, owner, takes)| put_lookup(hash(n), &owner, takes.as_ref())),
        1 => (0..3_u8, any_owner()).prop_map(|(n, owner)| delete_lookup(hash(n), &owner)),
    ]
}

/// Puts a device that is to be taken: its birth and version.
fn took(group: &mut Group, put: PutDevice) -> (u64, u64) {
    let answer = group.one(Command::PutDevice(put));
    let Answer::Device { born, version, .. } = answer else { panic!("{answer:?}") };
    (born, version)
}

fn device(group: &Group, name: &str) -> Option<DeviceRecord> {
    group.machine.device(&group.rows, TENANT, &name.into()).unwrap()
}

fn lookup(group: &Group, hash: LookupHash) -> Option<Owner> {
    group.machine.lookup(&group.rows, hash).unwrap()
}

/// Rows of the registry: a refusal leaves them as they were.
fn registry(group: &Group) -> BTreeMap<Bytes, Bytes> {
    let mut rows = group.rows.0.clone();
    rows.retain(|key, _| (KIND_DEVICE..=KIND_COUNTS).contains(&key[4]));
    rows
}

#[test]
fn a_device_keeps_what_was_put() {
    let mut group = Group::new(SHARD);
    let (born, version) = took(&mut group, putting("type/a"));
    assert_eq!(born, version);
    let change = Effect::DeviceChanged {
        tenant: TENANT,
        device: "type/a".into(),
        born,
        version,
        gone: false,
    };
    assert_eq!(group.effects, [change]);
    let record = device(&group, "type/a").unwrap();
    let made = UnixMillis(group.now);
    let expected = DeviceRecord {
        born,
        version,
        enabled: true,
        created: made,
        updated: made,
        credentials: vec![Credential { created: made, ..credential(1, Some(hash(1))) }],
        settings: Bytes::from_static(b"{}"),
    };
    assert_eq!(record, expected);
    assert_eq!(device(&group, "type"), None);
    assert_eq!(group.machine.device(&group.rows, TenantId(8), &"type/a".into()).unwrap(), None);

    // One credential more: the other one is sent back as it was read.
    group.now += 5;
    let mut credentials = record.credentials;
    credentials.push(credential(2, None));
    let change =
        PutDevice { credentials, enabled: false, if_version: Some(version), ..putting("type/a") };
    let answer = group.one(Command::PutDevice(change));
    let Answer::Device { version: next, new: false, .. } = answer else { panic!("{answer:?}") };
    assert!(next > version);
    let record = device(&group, "type/a").unwrap();
    let created: Vec<u64> = record.credentials.iter().map(|one| one.created.0).collect();
    assert_eq!(created, [made.0, group.now]);
    assert_eq!((record.born, record.version, record.enabled), (born, next, false));
    assert_eq!((record.created, record.updated), (made, UnixMillis(group.now)));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut group = Group::new(SHARD);
    let (_, version) = took(&mut group, putting("a"));
    let long = "x".repeat(DEVICE_NAME_BYTES_MAX + 1);
    let big = |bytes: usize| Bytes::from(vec![b'x'; bytes + 1]);
    let with = |credentials| Command::PutDevice(PutDevice { credentials, ..putting("b") });
    let settings = big(DEVICE_SETTINGS_BYTES_MAX);
    let verifier = big(VERIFIER_BYTES_MAX);
    let many = (0..=CREDENTIALS_MAX as u64).map(|id| credential(id, None)).collect();
    let of_one = |n| credential(n, Some(hash(1)));
    let gone = owner("a", 1);
    let nobody = owner("", 1);
    let mismatch = Refused::VersionMismatch { version };
    #[rustfmt::skip]
    let table = [
        (put_if("", None),                                                    Refused::Malformed),
        (with(vec![credential(1, None), credential(1, None)]),                Refused::Malformed),
        (with(vec![of_one(1), of_one(2)]),                                    Refused::Malformed),
        (put_if(&long, None),                                                 Refused::TooLarge),
        (Command::PutDevice(PutDevice { settings, ..putting("b") }),          Refused::TooLarge),
        (with(vec![Credential { verifier, ..credential(1, None) }]),          Refused::TooLarge),
        (with(many),                                                          Refused::TooMany),
        (Command::PutDevice(PutDevice { devices_max: 1, ..putting("b") }),    Refused::TooMany),
        (put_if("a", Some(0)),                                                Refused::Exists),
        (put_if("a", Some(version + 1)),                                      mismatch),
        (put_if("b", Some(version)),                                          Refused::NotFound),
        (delete_if("a", Some(version + 1)),                                   mismatch),
        (delete_if("b", None),                                                Refused::NotFound),
        (delete_if("b", Some(0)),                                             Refused::NotFound),
        (put_lookup(hash(1), &nobody, None),                                  Refused::Malformed),
        (put_lookup(hash(1), &owner(&long, 1), None),                         Refused::TooLarge),
        (delete_lookup(hash(1), &gone),                                       Refused::NotFound),
    ];
    let before = registry(&group);
    for (command, expected) in table {
        assert_eq!(group.one(command.clone()), Answer::Refused(expected), "{command:?}");
        assert!(registry(&group) == before && group.effects.is_empty(), "{command:?}");
    }
    // At the limits it is taken.
    let name = "x".repeat(DEVICE_NAME_BYTES_MAX);
    let most = (0..CREDENTIALS_MAX as u64).map(|id| Credential {
        verifier: big(VERIFIER_BYTES_MAX - 1),
        ..credential(id, Some(hash(u8::try_from(id).unwrap())))
    });
    let settings = big(DEVICE_SETTINGS_BYTES_MAX - 1);
    let put =
        PutDevice { credentials: most.collect(), settings, if_version: Some(0), ..putting(&name) };
    took(&mut group, put);
    assert!(device(&group, &name).is_some());
}

#[test]
fn a_device_that_is_made_again_is_another() {
    let mut group = Group::new(SHARD);
    // All in one batch: the index of the log alone would not tell them apart.
    let answers = group.batch(&[put_if("a", None), delete_if("a", None), put_if("a", Some(0))]);
    let [
        Answer::Device { born, version, .. },
        Answer::Done,
        Answer::Device { born: again, new: true, .. },
    ] = answers[..]
    else {
        panic!("{answers:?}")
    };
    assert!(again > born);
    let gone: Vec<bool> = group
        .effects
        .iter()
        .map(|effect| matches!(effect, Effect::DeviceChanged { gone: true, .. }))
        .collect();
    assert_eq!(gone, [false, true, false]);
    // Who saw the first one changes nothing of the second.
    let other = Answer::Refused(Refused::VersionMismatch { version: again });
    assert_eq!(group.one(put_if("a", Some(version))), other);
    assert_eq!(group.one(delete_if("a", Some(version))), other);
    assert_eq!(group.one(delete_if("a", Some(again))), Answer::Done);
    assert_eq!(registry(&group), BTreeMap::new(), "not even counts are left");
}

#[test]
fn a_lookup_has_one_owner_until_it_is_taken() {
    let mut group = Group::new(SHARD);
    let (first, second) = (owner("a", 1), owner("b", 2));
    assert_eq!(lookup(&group, hash(1)), None);
    assert_eq!(group.one(put_lookup(hash(1), &first, None)), Answer::Done);
    assert_eq!(group.one(put_lookup(hash(1), &first, None)), Answer::Done, "a repeat");
    assert_eq!(group.machine.counts().registry.lookups, 1);

    // The same name, born later, is another owner too.
    for other in [&second, &owner("a", 2)] {
        let taken = Answer::Taken(first.clone());
        assert_eq!(group.one(put_lookup(hash(1), other, None)), taken);
        assert_eq!(group.one(put_lookup(hash(1), other, Some(other))), taken);
        let refused = Answer::Refused(Refused::NotFound);
        assert_eq!(group.one(delete_lookup(hash(1), other)), refused);
    }
    assert_eq!(lookup(&group, hash(1)), Some(first.clone()));
    assert_eq!(group.one(put_lookup(hash(1), &second, Some(&first))), Answer::Done);
    group.reopen();
    assert_eq!(lookup(&group, hash(1)), Some(second.clone()));
    assert_eq!(group.one(delete_lookup(hash(1), &second)), Answer::Done);
    // There was somebody to take it from, and is no more: also well.
    assert_eq!(group.one(put_lookup(hash(1), &second, Some(&first))), Answer::Done);
}

#[test]
fn counts_and_quotas_are_those_of_a_tenant() {
    let mut group = Group::new(SHARD);
    let of = |tenant, device| {
        Command::PutDevice(PutDevice {
            tenant: TenantId(tenant),
            devices_max: 2,
            ..putting(device)
        })
    };
    group.batch(&[of(1, "a"), of(1, "b"), of(2, "a")]);
    group.reopen();
    let full = Answer::Refused(Refused::TooMany);
    assert_eq!(group.one(of(1, "c")), full);
    assert!(matches!(group.one(of(1, "b")), Answer::Device { new: false, .. }));
    assert!(matches!(group.one(of(2, "b")), Answer::Device { new: true, .. }));
    let other = Owner { tenant: TenantId(2), ..owner("a", 1) };
    group.one(put_lookup(hash(1), &other, None));
    let counts = |group: &Group, tenant| group.machine.registry_counts(TenantId(tenant));
    let (first, second) = (counts(&group, 1), counts(&group, 2));
    assert_eq!((first.devices, first.lookups), (2, 0));
    assert_eq!((second.devices, second.lookups), (2, 1));
    assert_eq!(counts(&group, 3), RegistryCounts::default());
    let total = group.machine.counts().registry;
    assert_eq!((total.devices, total.lookups), (4, 1));
    assert_eq!(total.device_bytes, first.device_bytes + second.device_bytes);
    let shorter = PutDevice { tenant: TenantId(1), credentials: vec![], ..putting("b") };
    group.one(Command::PutDevice(shorter));
    assert!(counts(&group, 1).device_bytes < first.device_bytes);
    // A quota that was lowered takes nothing away.
    let lower = PutDevice { tenant: TenantId(1), devices_max: 0, ..putting("b") };
    assert!(matches!(group.one(Command::PutDevice(lower)), Answer::Device { .. }));
}

#[test]
fn a_shard_takes_so_many_whatever_the_quotas_say() {
    let mut group = Group::new(SHARD);
    group.batch(&[put_if("known", None), put_lookup(hash(1), &owner("known", 1), None)]);
    // As if another tenant had all but one of them: only the counts are there.
    group.unchecked = true;
    let mut key = group.rows.0.keys().find(|key| key[4] == KIND_COUNTS).unwrap().to_vec();
    *key.last_mut().unwrap() = 99;
    let counts = [DEVICES_PER_SHARD_MAX - 2, 0, LOOKUPS_PER_SHARD_MAX - 2];
    let row = counts.iter().flat_map(|count| count.to_be_bytes());
    group.rows.0.insert(key.into(), [1].into_iter().chain(row).collect());
    group.reopen();
    let full = Answer::Refused(Refused::TooMany);
    assert!(matches!(group.one(put_if("last", None)), Answer::Device { new: true, .. }));
    assert_eq!(group.one(put_if("more", None)), full);
    assert!(matches!(group.one(put_if("known", None)), Answer::Device { new: false, .. }));
    let (last, next) = (owner("last", 2), owner("next", 3));
    assert_eq!(group.one(put_lookup(hash(2), &last, None)), Answer::Done);
    assert_eq!(group.one(put_lookup(hash(3), &next, None)), full);
    assert_eq!(group.one(put_lookup(hash(2), &next, Some(&last))), Answer::Done);
}

/// All pages of a tenant's devices, and how many there were.
fn pages(
    group: &Group,
    tenant: TenantId,
    items_max: usize,
    bytes_max: usize,
) -> (Vec<String>, usize) {
    let (mut names, mut count) = (Vec::new(), 0);
    let mut after: Option<DeviceCursor> = None;
    loop {
        let query = DevicesQuery { tenant, after: after.as_ref(), items_max, bytes_max };
        let DevicesPage { devices, next } = group.machine.devices(&group.rows, &query).unwrap();
        assert!(devices.len() <= items_max);
        let bytes: usize =
            devices.iter().map(|(name, record)| name.len() + record.settings.len()).sum();
        assert!(devices.len() <= 1 || bytes <= bytes_max);
        names.extend(devices.into_iter().map(|(name, _)| name.as_str().to_owned()));
        count += 1;
        if next.is_none() {
            return (names, count);
        }
        assert!(next > after, "it goes on");
        after = next;
    }
}

/// In order of bucket and name.
fn ordered(tenant: TenantId, names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.map(|name| (bucket_of(tenant, name.as_bytes()), name)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn devices_come_page_by_page_in_order() {
    let mut group = Group::new(SHARD);
    let name = |n: usize| format!("d{n}");
    let many = 3 * DEVICE_BUCKETS_PER_PAGE_MAX;
    let commands: Vec<_> = (0..many).map(|n| put_if(&name(n), None)).collect();
    group.batch(&commands);
    let others = [TenantId(TENANT.0 - 1), TenantId(TENANT.0 + 1), TenantId(u32::MAX)];
    let of_other = |tenant| Command::PutDevice(PutDevice { tenant, ..putting("other") });
    group.batch(&others.map(of_other));

    let expected = ordered(TENANT, (0..many).map(name));
    for (items_max, bytes_max) in
        [(1, usize::MAX), (7, usize::MAX), (usize::MAX, usize::MAX), (100, 200), (9, 0)]
    {
        let (names, count) = pages(&group, TENANT, items_max, bytes_max);
        assert!(names == expected, "{items_max} {bytes_max}");
        assert!(count >= 2, "a page looks into so many buckets only");
    }
    for tenant in others {
        assert_eq!(pages(&group, tenant, 9, usize::MAX).0, ["other"]);
    }
    assert_eq!(pages(&group, TenantId(1), 9, usize::MAX).0, Vec::<String>::new());

    // Nothing is asked for, or from behind the end on.
    let last = DeviceCursor { bucket: u16::MAX, device: Text::default() };
    let none = DevicesQuery { tenant: TENANT, after: Some(&last), items_max: 9, bytes_max: 9 };
    let page = group.machine.devices(&group.rows, &none).unwrap();
    assert_eq!(page, DevicesPage::default());
    let none = DevicesQuery { after: None, items_max: 0, ..none };
    let page = group.machine.devices(&group.rows, &none).unwrap();
    assert!(page.devices.is_empty() && page.next.is_some());
}

/// What a registry is, said as simply as possible.
#[derive(Debug, Default)]
struct Model {
    devices: BTreeMap<(TenantId, String), DeviceRecord>,
    lookups: BTreeMap<LookupHash, Owner>,
}

impl Model {
    /// What the command should come to, at this version and time.
    #[expect(clippy::wildcard_enum_match_arm, reason = "it gets no other commands")]
    fn apply(&mut self, command: Command, version: u64, now: UnixMillis) -> Answer {
        match command {
            Command::PutDevice(put) => self.put(put, version, now),
            Command::DeleteDevice(delete) => {
                let key = (delete.tenant, delete.device.to_string());
                let Some(known) = self.devices.get(&key) else {
                    return Answer::Refused(Refused::NotFound);
                };
                if delete.if_version == Some(0) {
                    return Answer::Refused(Refused::Exists);
                }
                if delete.if_version.is_some_and(|wanted| wanted != known.version) {
                    return Answer::Refused(Refused::VersionMismatch { version: known.version });
                }
                self.devices.remove(&key);
                Answer::Done
            }
            Command::PutLookup(put) => match self.lookups.get(&put.hash) {
                Some(by) if *by != put.owner && put.takes.as_ref() != Some(by) => {
                    Answer::Taken(by.clone())
                }
                _ => {
                    self.lookups.insert(put.hash, put.owner);
                    Answer::Done
                }
            },
            Command::DeleteLookup(delete) => {
                if self.lookups.get(&delete.hash) != Some(&delete.owner) {
                    return Answer::Refused(Refused::NotFound);
                }
                self.lookups.remove(&delete.hash);
                Answer::Done
            }
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, put: PutDevice, version: u64, now: UnixMillis) -> Answer {
        let mut ids: Vec<_> = put.credentials.iter().map(|one| one.id).collect();
        let mut lookups: Vec<_> = put.credentials.iter().filter_map(|one| one.lookup).collect();
        ids.sort_unstable();
        lookups.sort_unstable();
        if ids.windows(2).any(|two| two[0] == two[1])
            || lookups.windows(2).any(|two| two[0] == two[1])
        {
            return Answer::Refused(Refused::Malformed);
        }
        let key = (put.tenant, put.device.to_string());
        let known = self.devices.get(&key);
        let refused = match (known, put.if_version) {
            (Some(_), Some(0)) => Some(Refused::Exists),
            (Some(known), Some(wanted)) if known.version != wanted => {
                Some(Refused::VersionMismatch { version: known.version })
            }
            (None, Some(1..)) => Some(Refused::NotFound),
            _ => None,
        };
        if let Some(refused) = refused {
            return Answer::Refused(refused);
        }
        let held = self.devices.keys().filter(|(tenant, _)| *tenant == put.tenant).count();
        if known.is_none() && held >= put.devices_max as usize {
            return Answer::Refused(Refused::TooMany);
        }
        let new = known.is_none();
        let (born, created) = known.map_or((version, now), |known| (known.born, known.created));
        let credentials = put.credentials.into_iter();
        let record = DeviceRecord {
            born,
            version,
            enabled: put.enabled,
            created,
            updated: now,
            credentials: credentials.map(|one| Credential { created: now, ..one }).collect(),
            settings: put.settings,
        };
        self.devices.insert(key, record);
        Answer::Device { born, version, new }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn devices_and_lookups_are_as_in_a_simple_model(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..6), 1..20),
    ) {
        let mut group = Group::new(SHARD);
        let mut model = Model::default();
        for commands in batches {
            group.now += 1;
            let answers = group.batch(&commands);
            let place = |ordinal: usize| group.index << 16 | ordinal as u64;
            for (ordinal, (command, answer)) in commands.into_iter().zip(answers).enumerate() {
                let expected = model.apply(command, place(ordinal), UnixMillis(group.now));
                prop_assert_eq!(answer, expected);
            }
        }
        group.reopen();
        for ((tenant, name), record) in &model.devices {
            let name = Text::from(name.as_str());
            let found = group.machine.device(&group.rows, *tenant, &name).unwrap();
            prop_assert_eq!(found.as_ref(), Some(record));
        }
        for (hash, owner) in &model.lookups {
            let found = lookup(&group, *hash);
            prop_assert_eq!(found.as_ref(), Some(owner));
        }
        prop_assert_eq!(group.rows.count(KIND_DEVICE), model.devices.len());
        prop_assert_eq!(group.rows.count(KIND_LOOKUP), model.lookups.len());
        for tenant in [1, 2].map(TenantId) {
            let names = model.devices.keys().filter(|(of, _)| *of == tenant);
            let expected = ordered(tenant, names.map(|(_, name)| name.clone()));
            prop_assert_eq!(pages(&group, tenant, 2, usize::MAX).0, expected);
        }
    }
}
