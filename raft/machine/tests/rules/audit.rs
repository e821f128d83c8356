//! The audit: a record for each change, in the step of the change, and none for what changed nothing.

use moorline_core::{NodeId, ShardId, TenantId};
use moorline_machine::{
    Answer, Command, Refused,
    audit::{
        AUDIT_KEEP_MS, AUDIT_PER_QUESTION_MAX, AuditAction, AuditPage, AuditRecord, Audited,
        AuditedBy,
    },
    query::{Found, Query},
    registry::{DeleteTenant, PutTenant},
};

use crate::{devices, harness::*, mail};

fn by(request_id: u128) -> AuditedBy {
    AuditedBy {
        actor: "0/root".into(),
        request: "PUT /devices".into(),
        request_id,
        address: "127.0.0.1".into(),
        node: NodeId(2),
    }
}

pub(crate) fn audited(command: Command) -> Command {
    Command::Audited(Box::new(Audited { by: by(9), command }))
}

fn page(group: &Group, tenant: Option<TenantId>, after: u64) -> AuditPage {
    let query = Query::Audit { tenant, after, items_max: 1_000 };
    let Found::Audit(page) = group.machine.query(&group.rows, &query).unwrap() else { panic!() };
    page
}

fn records(group: &Group) -> Vec<AuditRecord> {
    page(group, None, 0).records.into_iter().map(|(_, record)| record).collect()
}

#[test]
fn a_change_leaves_one_record_with_its_versions() {
    let mut group = Group::new(SHARD);
    let made = group.one(audited(devices::put_plain("d")));
    let Answer::Device { version: first, .. } = made else { panic!("{made:?}") };
    let written = group.one(audited(devices::put_plain("d")));
    let Answer::Device { version: second, .. } = written else { panic!("{written:?}") };
    assert_eq!(group.one(audited(devices::delete_plain("d"))), Answer::Done);
    let all = records(&group);
    let versions: Vec<_> =
        all.iter().map(|record| (record.action, record.before, record.after)).collect();
    #[rustfmt::skip]
    assert_eq!(versions, [
        (AuditAction::PutDevice,    None,         Some(first)),
        (AuditAction::PutDevice,    Some(first),  Some(second)),
        (AuditAction::DeleteDevice, Some(second), None),
    ]);
    assert_eq!((&all[0].by, all[0].tenant, all[0].object.as_str()), (&by(9), TENANT, "d"));
    assert_eq!(all[0].at.0, group.now);
}

#[test]
fn what_changes_nothing_leaves_none() {
    let mut group = Group::new(SHARD);
    let gone = Answer::Refused(Refused::NotFound);
    assert_eq!(group.one(audited(devices::delete_plain("d"))), gone);
    for id in 1..=3 {
        group.one(mail::send(id));
    }
    group.one(audited(mail::cancel(1)));
    group.one(audited(mail::cancel(1)));
    group.one(audited(mail::cancel(9)));
    group.one(audited(mail::purge(false)));
    group.one(audited(mail::purge(false)));
    group.one(audited(mail::purge(true)));
    let all: Vec<_> = records(&group).iter().map(|record| (record.action, record.mail)).collect();
    assert_eq!(all, [(AuditAction::CancelMail, Some(1)), (AuditAction::PurgeMail, None)]);
}

#[test]
fn a_repeated_run_leaves_one_record() {
    let mut group = Group::new(SHARD);
    let mut builder =
        moorline_machine::RunBuilder::new(moorline_machine::command::ProducerId(7), 1);
    builder.push(&audited(devices::put_plain("d"))).unwrap();
    let run = builder.take(1).unwrap();
    // At which index the first was is not remembered.
    let answers = |runs: Vec<moorline_machine::RunAnswers>| {
        runs.into_iter().map(|run| run.answers).collect::<Vec<_>>()
    };
    let first = answers(group.runs(std::slice::from_ref(&run)));
    assert_eq!(answers(group.runs(&[run])), first, "answered from memory");
    assert_eq!(records(&group).len(), 1);
}

#[test]
fn tenants_are_audited_in_the_meta_group_by_the_id_they_get() {
    let mut group = Group::new(ShardId::META);
    let put = PutTenant {
        tenant: TenantId(0),
        name: "acme".into(),
        aliases: Vec::new(),
        enabled: true,
        settings: bytes::Bytes::from_static(b"{}"),
        if_version: None,
    };
    let made = group.one(audited(Command::PutTenant(put)));
    let Answer::Tenant { tenant, version } = made else { panic!("{made:?}") };
    let delete = DeleteTenant { tenant, if_version: None };
    group.one(audited(Command::DeleteTenant(delete)));
    let all = records(&group);
    assert_eq!(all.len(), 2);
    for (record, action) in all.iter().zip([AuditAction::PutTenant, AuditAction::DeleteTenant]) {
        assert_eq!(
            (record.tenant, record.object.as_str(), record.action),
            (tenant, "acme", action)
        );
    }
    assert_eq!((all[0].after, all[1].before, all[1].after), (Some(version), Some(version), None));
}

#[test]
fn a_tenant_sees_its_own_page_by_page_and_what_is_too_old_goes() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let many = AUDIT_PER_QUESTION_MAX as u64 + 5;
    for number in 0..many {
        group.one(audited(devices::put_plain(&format!("d{}", number % 3))));
    }
    let first = page(&group, None, 0);
    assert_eq!((first.records.len(), first.more), (1_000, true));
    let rest = page(&group, None, first.upto);
    assert_eq!((rest.records.len() as u64, rest.more), (many - 1_000, false));
    let other = page(&group, Some(TenantId(99)), 0);
    assert_eq!((other.records.len(), other.upto), (0, AUDIT_PER_QUESTION_MAX as u64));
    assert!(other.more && !page(&group, Some(TenantId(99)), other.upto).more);
    group.now += AUDIT_KEEP_MS;
    for _ in 0..many / 2 {
        group.one(audited(devices::put_plain("d0")));
    }
    let oldest = page(&group, None, 0).records[0].0;
    assert!(oldest >= many - 2, "two go for each that comes: {oldest}");
    group.check();
}
