//! Deleted devices and tenants: what they left goes in pieces, what others have stays, and whoever leads can finish.

use bytes::Bytes;
use moorline_core::{Epoch, Message, QoS, ShardId, TenantId, Text, Will, session_name::of_device};
use moorline_machine::{
    Answer, Command, DEADLINES_PER_TICK_MAX, Effect,
    command::SessionId,
    forget::{Forget, Forgotten, whole},
    registry::{DeleteDevice, DeleteTenant, Owner, PutDevice, PutTenant},
};

use crate::harness::*;

const KIND_SESSION: u8 = 4;
const KIND_WILL: u8 = 18;
const KIND_RETAINED: u8 = 20;
const KIND_FORGETTING: u8 = 80;
const KIND_RETAINED_OWNER: u8 = 81;
const KIND_WILL_OWNER: u8 = 82;

fn owner(device: &str, born: u64) -> Owner {
    Owner { tenant: TENANT, device: Text::from(device), born }
}

fn forget(owner: &Owner) -> Command {
    Command::Forget(Forget { owners: vec![owner.clone()] })
}

/// A session of a device, with a subscription and a message in its queue.
fn session(group: &mut Group, of: &Owner, client: &str, conn: u64) -> (SessionId, Epoch) {
    let name = of_device(&of.device, of.born, &Text::from(client));
    let (session, epoch) = group.subscriber(name.as_str(), conn, "news");
    group.one(publish("news", b"waits"));
    (session, epoch)
}

fn retain(owner: Option<&Owner>, topic: &str, payload: &[u8]) -> Command {
    let message = Message { retain: true, ..message(topic, QoS::AtLeastOnce, payload) };
    Command::Retain { tenant: TENANT, owner: owner.cloned(), origin: None, message }
}

fn sessions(group: &Group) -> Vec<String> {
    let mut names: Vec<_> =
        group.machine.sessions().map(|info| info.client.as_str().replace('\u{1F}', "|")).collect();
    names.sort();
    names
}

#[test]
fn what_a_device_left_goes_and_what_others_have_stays() {
    let mut group = Group::new(SHARD);
    let (old, new) = (owner("pump", 5), owner("pump", 9));
    let (other, longer) = (owner("valve", 5), owner("pump-1", 5));
    for (conn, of) in (1..).zip([&old, &new, &other, &longer]) {
        session(&mut group, of, "main", conn);
    }
    session(&mut group, &old, "second", 9);
    group.subscriber("pump", 10, "news");
    group.batch(&[
        retain(Some(&old), "a", b"1"),
        retain(Some(&new), "b", b"1"),
        retain(None, "c", b"1"),
        retain(Some(&old), "taken", b"1"),
        retain(Some(&other), "taken", b"2"),
        retain(Some(&old), "freed", b"1"),
        retain(None, "freed", b"2"),
    ]);
    group.reopen();
    let answer = group.one(forget(&old));
    assert!(matches!(answer, Answer::Released(_)), "{answer:?}");
    assert_eq!(
        sessions(&group),
        ["pump", "pump-1|5|main", "pump|9|main", "valve|5|main"],
        "a later device, one with a longer name, and a client that is none"
    );
    assert_eq!(group.rows.count(KIND_RETAINED), 4, "b, c, taken, freed");
    assert_eq!(group.rows.count(KIND_RETAINED_OWNER), 2, "b, taken");
    let again = group.one(forget(&old));
    assert_eq!(again, Answer::Released(Vec::new()), "twice is once");
    group.one(forget(&new));
    assert_eq!(sessions(&group), ["pump", "pump-1|5|main", "valve|5|main"]);
    group.one(forget(&whole(TenantId(8))));
    assert_eq!(group.rows.count(KIND_SESSION), 3, "another tenant");
    group.one(forget(&whole(TENANT)));
    let counts = group.machine.counts();
    assert_eq!((counts.sessions, counts.retained, counts.subscriptions), (0, 0, 0));
    for _ in 0..9 {
        group.one(Command::Tick);
    }
    assert_eq!(group.rows.count(KIND_ITEM), 0);
}

#[test]
fn the_will_of_a_forgotten_device_is_never_due_and_that_of_another_knows_whose_it_is() {
    let mut group = Group::new(SHARD);
    let (gone, stays) = (owner("gone", 1), owner("stays", 2));
    for (conn, of) in (1..).zip([&gone, &stays]) {
        let name = of_device(&of.device, of.born, &Text::from("c"));
        let Command::OpenSession {
            tenant,
            client,
            clean_start,
            expiry_s,
            holder,
            limits,
            sessions_max,
            ..
        } = open(name.as_str(), conn, false, 0)
        else {
            panic!()
        };
        let message = message("will", QoS::AtLeastOnce, b"w");
        let will = Some(Box::new(Will { message, delay_s: 0 }));
        group.one(Command::OpenSession {
            tenant,
            client,
            clean_start,
            expiry_s,
            holder,
            limits,
            sessions_max,
            will,
        });
    }
    assert_eq!(group.rows.count(KIND_WILL), 2);
    group.one(forget(&gone));
    let (live, of) = (group.machine.sessions().next().unwrap().id, Epoch(1));
    group.one(close(live, of));
    group.reopen();
    let due = group.machine.due_wills(&group.rows, 0, 9).unwrap();
    let owners: Vec<_> = due.iter().map(|will| will.owner.clone()).collect();
    assert_eq!(owners, [Some(stays)]);
    group.one(Command::WillsDone { numbers: vec![due[0].number] });
    assert_eq!(group.rows.count(KIND_WILL_OWNER), 0);
}

#[test]
fn one_forget_removes_a_bounded_number() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let of = owner("busy", 1);
    for number in 0..=DEADLINES_PER_TICK_MAX {
        let name = of_device(&of.device, of.born, &Text::from(number.to_string()));
        group.one(open(name.as_str(), number as u64, false, 60));
    }
    assert!(matches!(group.one(forget(&of)), Answer::Partly(_)));
    assert_eq!(group.machine.counts().sessions, 1);
    assert!(matches!(group.one(forget(&of)), Answer::Released(_)));
    assert_eq!(group.machine.counts().sessions, 0);
}

#[test]
fn a_deletion_is_remembered_until_it_is_done() {
    let mut group = Group::new(SHARD);
    let put = |device: &str| {
        Command::PutDevice(PutDevice {
            tenant: TENANT,
            device: Text::from(device),
            enabled: true,
            credentials: Vec::new(),
            settings: Bytes::new(),
            if_version: None,
            devices_max: u32::MAX,
        })
    };
    let Answer::Device { born, .. } = group.one(put("pump")) else { panic!() };
    let delete = Command::DeleteDevice(DeleteDevice {
        tenant: TENANT,
        device: Text::from("pump"),
        if_version: None,
    });
    assert_eq!(group.one(delete.clone()), Answer::Done);
    assert!(
        group
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::DeviceChanged { gone: true, .. }))
    );
    group.reopen();
    let known: Vec<_> = group.machine.forgetting().map(|(owner, at)| (owner, at.0)).collect();
    assert_eq!(known, [(owner("pump", born), group.now)]);
    // Made and deleted again meanwhile.
    group.batch(&[put("pump"), delete]);
    assert_eq!(group.rows.count(KIND_FORGETTING), 2);
    let owners = vec![owner("pump", born)];
    group.one(Command::Forgotten(Forgotten { owners }));
    group.reopen();
    assert_eq!(group.machine.forgetting().count(), 1);
}

#[test]
fn a_deleted_tenant_is_remembered_by_the_meta_group() {
    let mut group = Group::new(ShardId::META);
    let put = PutTenant {
        tenant: TenantId(0),
        name: Text::from("acme"),
        aliases: Vec::new(),
        enabled: true,
        settings: Bytes::new(),
        if_version: None,
    };
    let Answer::Tenant { tenant, .. } = group.one(Command::PutTenant(put)) else { panic!() };
    group.one(Command::DeleteTenant(DeleteTenant { tenant, if_version: None }));
    let known: Vec<_> = group.machine.forgetting().map(|(owner, _)| owner).collect();
    assert_eq!(known, [whole(tenant)]);
    group.one(Command::Forgotten(Forgotten { owners: known }));
    assert_eq!(group.machine.forgetting().count(), 0);
}
