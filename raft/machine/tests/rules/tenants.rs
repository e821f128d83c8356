//! Tenants: unique names and aliases, ids that never come again, and rows of before there was a registry.

use bytes::Bytes;
use moorline_core::{ShardId, TenantId, Text, UnixMillis};
use moorline_machine::{
    Answer, Command, Effect, Machine, Refused, TENANTS_BYTES_MAX, TENANTS_MAX,
    registry::{
        DeleteTenant, PutTenant, TENANT_ALIAS_BYTES_MAX, TENANT_ALIASES_MAX, TENANT_NAME_BYTES_MAX,
        TENANT_SETTINGS_BYTES_MAX, TenantRecord,
    },
};
use proptest::prelude::*;

use crate::harness::*;

const KIND_TENANT: u8 = 32;
const KIND_RECORD: u8 = 40;
/// What a cluster is made with.
const FIRST: TenantId = TenantId(1);
const NEW: TenantId = TenantId(0);

fn putting(tenant: TenantId, name: &str, aliases: &[&str]) -> PutTenant {
    PutTenant {
        tenant,
        name: name.into(),
        aliases: aliases.iter().map(|alias| Text::from(*alias)).collect(),
        enabled: true,
        settings: Bytes::from_static(b"{}"),
        if_version: None,
    }
}

fn put_if(tenant: TenantId, name: &str, if_version: Option<u64>) -> Command {
    Command::PutTenant(PutTenant { if_version, ..putting(tenant, name, &[]) })
}

fn set(tenant: TenantId, name: &str) -> Command {
    Command::SetTenant { tenant, name: name.into() }
}

fn delete_if(tenant: TenantId, if_version: Option<u64>) -> Command {
    Command::DeleteTenant(DeleteTenant { tenant, if_version })
}

/// Any `PutTenant` of a few tenants whose names and aliases meet.
pub(crate) fn put() -> impl Strategy<Value = Command> {
    let name = prop::sample::select(&["a", "b", "c"][..]);
    let aliases = prop::collection::vec(prop::sample::select(&["x", "y", "z"][..]), 0..3);
    let if_version = prop::option::of(prop::sample::select(&[0_u64, 1, 65_536][..]));
    (0..5_u32, name, aliases, if_version, any::<bool>()).prop_map(
        |(tenant, name, aliases, if_version, enabled)| {
            let put = putting(TenantId(tenant), name, &aliases);
            Command::PutTenant(PutTenant { enabled, if_version, ..put })
        },
    )
}

/// Any `DeleteTenant` of those.
pub(crate) fn delete() -> impl Strategy<Value = Command> {
    (0..5_u32, prop::option::of(0..2_u64))
        .prop_map(|(tenant, if_version)| delete_if(TenantId(tenant), if_version))
}

fn meta() -> Group {
    Group::new(ShardId::META)
}

/// Puts a tenant that is to be taken.
fn took(group: &mut Group, put: PutTenant) -> (TenantId, u64) {
    let answer = group.one(Command::PutTenant(put));
    let Answer::Tenant { tenant, version } = answer else { panic!("{answer:?}") };
    (tenant, version)
}

fn refused(group: &mut Group, command: Command) -> Refused {
    let before = group.rows.clone();
    let answer = group.one(command);
    let Answer::Refused(why) = answer else { panic!("{answer:?}") };
    let tenants = |map: &Map| -> Vec<_> {
        let mut rows = map.0.clone();
        rows.retain(|key, _| [KIND_TENANT, KIND_RECORD, 41].contains(&key[4]));
        rows.into_iter().collect()
    };
    assert_eq!(tenants(&group.rows), tenants(&before), "a refusal changes nothing");
    assert!(group.effects.is_empty());
    why
}

fn reopened(group: &Group) -> Machine {
    Machine::open(ShardId::META, &group.rows).unwrap()
}

#[test]
fn a_tenant_is_found_by_id_name_and_alias() {
    let mut group = meta();
    let (tenant, version) = took(&mut group, putting(NEW, "acme", &["fostrom:A", "watson:a"]));
    assert_eq!(tenant, TenantId(2), "1 is the one that clusters are made with");
    assert_eq!(group.effects, [Effect::TenantChanged { tenant }]);
    let expected = TenantRecord {
        name: "acme".into(),
        aliases: vec!["fostrom:A".into(), "watson:a".into()],
        enabled: true,
        version,
        created: UnixMillis(group.now),
        updated: UnixMillis(group.now),
        settings: Bytes::from_static(b"{}"),
    };
    for machine in [&group.machine, &reopened(&group)] {
        let meta = machine.meta();
        assert_eq!(meta.tenant(tenant), Some(&expected));
        assert_eq!(meta.tenant_by_name(&"acme".into()), Some((tenant, &expected)));
        assert_eq!(meta.tenant_by_alias(&"watson:a".into()), Some((tenant, &expected)));
        assert_eq!(meta.tenant_by_alias(&"acme".into()), None);
        assert_eq!(meta.tenant_by_name(&"watson:a".into()), None);
        assert_eq!(meta.tenants().len(), 1);
    }

    group.now += 5;
    let changed = PutTenant { enabled: false, ..putting(tenant, "acme2", &["watson:a"]) };
    let (again, next) = took(&mut group, changed);
    assert!(again == tenant && next > version);
    let meta = group.machine.meta();
    assert_eq!(meta.tenant_by_name(&"acme".into()), None);
    assert_eq!(meta.tenant_by_alias(&"fostrom:A".into()), None);
    let (_, record) = meta.tenant_by_name(&"acme2".into()).unwrap();
    assert!(!record.enabled && record.created < record.updated);
    assert_eq!(record.updated, UnixMillis(group.now));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut group = meta();
    let (first, version) = took(&mut group, putting(NEW, "one", &["p:1"]));
    let (second, _) = took(&mut group, putting(NEW, "two", &["p:2"]));
    let long = |bytes: usize| "x".repeat(bytes + 1);
    let many: Vec<String> = (0..=TENANT_ALIASES_MAX).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let settings = Bytes::from(vec![b'x'; TENANT_SETTINGS_BYTES_MAX + 1]);
    let mismatch = Refused::VersionMismatch { version };
    let put = Command::PutTenant;
    let unknown = TenantId(9);
    #[rustfmt::skip]
    let table = [
        (put(putting(NEW, "", &[])),                                    Refused::Malformed),
        (put(putting(NEW, "x", &[""])),                                 Refused::Malformed),
        (put(putting(NEW, "x", &["p:x", "p:x"])),                       Refused::Malformed),
        (put(putting(NEW, &long(TENANT_NAME_BYTES_MAX), &[])),          Refused::TooLarge),
        (put(putting(NEW, "x", &[&long(TENANT_ALIAS_BYTES_MAX)])),      Refused::TooLarge),
        (put(PutTenant { settings, ..putting(NEW, "x", &[]) }),         Refused::TooLarge),
        (put(putting(NEW, "x", &many)),                                 Refused::TooMany),
        (put(putting(NEW, "one", &[])),                                 Refused::Exists),
        (put(putting(second, "one", &[])),                              Refused::Exists),
        (put(putting(second, "two", &["p:2", "p:1"])),                  Refused::Exists),
        (set(second, "one"),                                            Refused::Exists),
        (put_if(first, "one", Some(0)),                                 Refused::Exists),
        (put_if(first, "one", Some(version + 1)),                       mismatch),
        (put_if(NEW, "x", Some(version)),                               Refused::NotFound),
        (put_if(unknown, "x", None),                                    Refused::NotFound),
        (put_if(unknown, "x", Some(0)),                                 Refused::NotFound),
        (delete_if(unknown, None),                                      Refused::NotFound),
        (delete_if(first, Some(version + 1)),                           mismatch),
    ];
    for (command, expected) in table {
        assert_eq!(refused(&mut group, command.clone()), expected, "{command:?}");
    }
    assert!(matches!(group.one(put_if(first, "one", Some(version))), Answer::Tenant { .. }));
    assert!(matches!(group.one(put_if(NEW, "three", Some(0))), Answer::Tenant { .. }));
}

#[test]
fn an_id_never_comes_again() {
    let mut group = meta();
    took(&mut group, putting(NEW, "a", &[]));
    let (last, version) = took(&mut group, putting(NEW, "b", &["p:b"]));
    assert_eq!(group.one(delete_if(last, Some(version))), Answer::Done);
    assert_eq!(group.effects, [Effect::TenantChanged { tenant: last }]);
    group.machine = reopened(&group);
    assert_eq!(group.machine.meta().tenant(last), None);
    let (next, later) = took(&mut group, putting(NEW, "b", &["p:b"]));
    assert!(next > last && later > version);
    // Ids that somebody else chose are passed over too, up to the last one there is.
    group.one(set(TenantId(u32::MAX - 1), "c"));
    assert_eq!(took(&mut group, putting(NEW, "d", &[])).0, TenantId(u32::MAX));
    assert_eq!(refused(&mut group, put_if(NEW, "e", None)), Refused::TooMany);
    group.one(delete_if(TenantId(u32::MAX), None));
    assert_eq!(refused(&mut group, put_if(NEW, "e", None)), Refused::TooMany);
}

#[test]
fn a_tenant_that_was_only_named_is_moved_by_the_first_put() {
    let mut group = meta();
    assert_eq!(group.one(set(FIRST, "demo")), Answer::At(group.index));
    assert_eq!((group.rows.count(KIND_TENANT), group.rows.count(KIND_RECORD)), (1, 0));
    let record = group.machine.meta().tenant(FIRST).unwrap();
    assert!(record.enabled && record.version == 1 && record.aliases.is_empty());
    group.machine = reopened(&group);
    assert_eq!(took(&mut group, putting(NEW, "other", &[])).0, TenantId(2));

    let (_, version) =
        took(&mut group, PutTenant { if_version: Some(1), ..putting(FIRST, "show", &["p:1"]) });
    assert_eq!((group.rows.count(KIND_TENANT), group.rows.count(KIND_RECORD)), (0, 2));
    assert!(version > 1);
    // And it stays there: to name it again keeps the rest.
    group.one(set(FIRST, "demo"));
    group.machine = reopened(&group);
    let (found, record) = group.machine.meta().tenant_by_alias(&"p:1".into()).unwrap();
    assert_eq!((found, record.name.as_str()), (FIRST, "demo"));
    assert!(record.version > version);
    assert_eq!((group.rows.count(KIND_TENANT), group.rows.count(KIND_RECORD)), (0, 2));

    group.one(set(TenantId(5), "named"));
    assert_eq!(group.one(delete_if(TenantId(5), Some(1))), Answer::Done);
    assert_eq!(group.rows.count(KIND_TENANT), 0);
}

#[test]
fn names_that_an_old_disk_holds_twice_can_be_read() {
    let mut group = meta();
    group.one(set(TenantId(3), "twice"));
    let (key, row) = group.rows.0.iter().find(|(key, _)| key[4] == KIND_TENANT).unwrap();
    let (mut other, row) = (key.to_vec(), row.clone());
    *other.last_mut().unwrap() = 4;
    group.rows.0.insert(other.into(), row);
    group.machine = reopened(&group);
    let by_name = |group: &Group| {
        let found = group.machine.meta().tenant_by_name(&"twice".into());
        found.map(|(tenant, _)| tenant.0)
    };
    assert_eq!(by_name(&group), Some(3));
    group.one(delete_if(TenantId(3), None));
    assert_eq!(by_name(&group), Some(4));
}

/// A tenant with a name of eight bytes.
fn numbered(n: usize, settings: &Bytes) -> PutTenant {
    PutTenant { settings: settings.clone(), ..putting(NEW, &format!("t{n:07}"), &[]) }
}

fn put_many(group: &mut Group, many: usize, settings: &Bytes, per_batch: usize) {
    group.unchecked = true;
    for piece in (0..many).collect::<Vec<_>>().chunks(per_batch) {
        let put = |n: &usize| Command::PutTenant(numbered(*n, settings));
        let answers = group.batch(&piece.iter().map(put).collect::<Vec<_>>());
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Tenant { .. })));
    }
    group.check();
}

#[test]
fn the_bytes_of_all_tenants_are_limited() {
    let mut group = meta();
    let settings = Bytes::from(vec![b'x'; TENANT_SETTINGS_BYTES_MAX]);
    let fit = TENANTS_BYTES_MAX / (TENANT_SETTINGS_BYTES_MAX + 8);
    put_many(&mut group, fit, &settings, 40);
    let full = Answer::Refused(Refused::TooMany);
    let more = Command::PutTenant(numbered(fit, &settings));
    assert_eq!(group.one(more.clone()), full);
    // What is replaced does not count.
    let known = TenantId(2);
    took(&mut group, PutTenant { tenant: known, ..numbered(0, &settings) });
    took(&mut group, PutTenant { tenant: known, ..numbered(0, &Bytes::new()) });
    assert!(matches!(group.one(more), Answer::Tenant { .. }));
}

#[test]
fn tenants_are_limited() {
    let mut group = meta();
    put_many(&mut group, TENANTS_MAX, &Bytes::new(), 5_000);
    assert_eq!(group.one(put_if(NEW, "more", None)), Answer::Refused(Refused::TooMany));
    let named = set(TenantId(u32::MAX), "more");
    assert_eq!(group.one(named.clone()), Answer::Refused(Refused::TooManyRoutes));
    assert!(matches!(group.one(put_if(TenantId(7), "seven", None)), Answer::Tenant { .. }));
    group.one(delete_if(TenantId(7), None));
    assert_eq!(group.one(named), Answer::At(group.index));
}
