//! The bytes of every command, frozen: logs hold them.

use moorline_core::{
    ConnId, Epoch, Message, Offset, QoS, ShardId, SubscriptionOptions, TenantId, UnixMillis,
    port::SessionLimits,
};
use proptest::prelude::*;

use super::*;
use crate::{
    command::{Holder, RouteTarget, SessionId},
    registry::Owner,
};

/// Commands with their frames, without the length in front.
fn every_command() -> Vec<(Command, &'static str)> {
    let session = SessionId { bucket: 0x0102, number: 3 };
    let holder = Holder { node: NodeId(4), incarnation: Incarnation(5), conn: ConnId(6) };
    let message = Message {
        topic: "t".into(),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Bytes::from_static(b"pp"),
        expires_at: Some(UnixMillis(9)),
        payload: Bytes::from_static(b"xyz"),
    };
    let plain =
        Message { retain: false, properties: Bytes::new(), expires_at: None, ..message.clone() };
    let kept = kept_commands(session, holder, plain.clone());
    let record = NodeRecord {
        node: NodeId(1),
        store: 2,
        incarnation: Incarnation(3),
        address: "a:1".into(),
    };
    let (tenant, epoch) = (TenantId(7), Epoch(8));
    let limits = SessionLimits { queue_items: 1, queue_bytes: 2, subscriptions: 3 };
    #[rustfmt::skip]
    let all = vec![
        (Command::OpenSession { tenant, client: "c".into(), clean_start: true, expiry_s: 60, holder, limits, sessions_max: 9, will: None },
            "01 00000007 00000001 63 01 0000003c 0000000000000004 0000000000000005 0000000000000006 \
             00000001 00000002 00000003 00000009"),
        (Command::CloseSession { session, epoch, expiry_s: Some(5), forget_will: false },
            "02 0102 0000000000000003 0000000000000008 01 00000005"),
        (Command::CloseSession { session, epoch, expiry_s: None, forget_will: false },
            "02 0102 0000000000000003 0000000000000008 00"),
        (Command::NodeGone { node: NodeId(1), gone: Incarnation(2) },
            "03 0000000000000001 0000000000000002"),
        (Command::Subscribe { session, epoch, subscriptions: vec![Subscription { filter: "#".into(), options: SubscriptionOptions::of_qos(QoS::AtLeastOnce) }] },
            "04 0102 0000000000000003 0000000000000008 00000001 01 00000001 23"),
        (Command::Unsubscribe { session, epoch, filters: vec!["#".into()] },
            "05 0102 0000000000000003 0000000000000008 00000001 00000001 23"),
        (Command::Publish { tenant, from: Some(session), message },
            "06 00000007 01 0102 0000000000000003 0d 00000001 74 00000002 7070 0000000000000009 78797a"),
        (Command::Publish { tenant, from: None, message: plain.clone() },
            "06 00000007 00 01 00000001 74 00000000 78797a"),
        (Command::Settle { session, upto: Offset(9), also: vec![Offset(11)] },
            "07 0102 0000000000000003 0000000000000009 00000001 000000000000000b"),
        (Command::Receive { session, epoch, packet: 5 },
            "0a 0102 0000000000000003 0000000000000008 0005"),
        (Command::PublishOnce { tenant, origin: Origin { session, number: 4, floor: 2 }, message: plain },
            "0b 00000007 0102 0000000000000003 0000000000000004 0000000000000002 01 00000001 74 00000000 78797a"),
        (Command::Complete { session, epoch, packets: vec![5, 6] },
            "0c 0102 0000000000000003 0000000000000008 00000002 0005 0006"),
        (Command::Release { session, epoch: None, offsets: vec![Offset(9)] },
            "0d 0102 0000000000000003 00000001 0000000000000009"),
        (Command::Release { session, epoch: Some(epoch), offsets: vec![Offset(9)] },
            "16 0102 0000000000000003 0000000000000008 00000001 0000000000000009"),
        (Command::Tick, "08"),
        (Command::Digest, "09"),
        (Command::CreateCluster { cluster: 1, shards: 2, nodes: vec![record.clone()], replicas: 3 },
            "20 00000000000000000000000000000001 0002 03 00000001 \
             0000000000000001 00000000000000000000000000000002 0000000000000003 00000003 613a31"),
        (Command::RegisterNode(record.clone()),
            "21 0000000000000001 00000000000000000000000000000002 0000000000000003 00000003 613a31"),
        (Command::SetRoute { tenant, filter: "#".into(), target: RouteTarget::Shard(ShardId(1)), version: 2, present: true },
            "22 00000007 00000001 23 01 0001 0000000000000002 01"),
        (Command::SetRoute { tenant, filter: "#".into(), target: RouteTarget::Node(NodeId(1), Incarnation(3)), version: 2, present: false },
            "22 00000007 00000001 23 02 0000000000000001 0000000000000003 0000000000000002 00"),
        (Command::DropNodeRoutes { node: NodeId(1), gone: Incarnation(2) },
            "23 0000000000000001 0000000000000002"),
        (Command::SetTenant { tenant, name: "n".into() },
            "24 00000007 00000001 6e"),
    ];
    let more = share_commands().into_iter().chain(registry::every_command());
    all.into_iter().chain(kept).chain(more).chain(membership_commands(record)).collect()
}

fn kept_commands(
    session: SessionId,
    holder: Holder,
    message: Message,
) -> Vec<(Command, &'static str)> {
    let (tenant, epoch) = (TenantId(7), Epoch(8));
    let will = Some(Box::new(Will { message: message.clone(), delay_s: 10 }));
    let owner = Owner { tenant, device: "d".into(), born: 9 };
    let origin = Some(Origin { session, number: 4, floor: 2 });
    let ids = [5, 6].into_iter().filter_map(NonZeroU32::new).collect();
    let copy = Enqueued { qos: QoS::ExactlyOnce, ids, message: message.clone() };
    let limits = SessionLimits { queue_items: 1, queue_bytes: 2, subscriptions: 3 };
    #[rustfmt::skip]
    let all = vec![
        (Command::OpenSession { tenant, client: "c".into(), clean_start: true, expiry_s: 60, holder, limits, sessions_max: 9, will },
            "0e 00000007 00000001 63 01 0000003c 0000000000000004 0000000000000005 0000000000000006 \
             00000001 00000002 00000003 00000009 0000000a 01 00000001 74 00000000 78797a"),
        (Command::CloseSession { session, epoch, expiry_s: None, forget_will: true },
            "0f 0102 0000000000000003 0000000000000008 00"),
        (Command::WillsDone { numbers: vec![4, 6] },
            "10 00000002 0000000000000004 0000000000000006"),
        (Command::Retain { tenant, owner: None, origin, message: message.clone() },
            "11 00000007 01 0102 0000000000000003 0000000000000004 0000000000000002 01 00000001 74 00000000 78797a"),
        (Command::Retain { tenant, owner: Some(owner.clone()), origin: None, message: message.clone() },
            "50 00000007 00000007 00000001 64 0000000000000009 00 01 00000001 74 00000000 78797a"),
        (Command::Forget(Forget { owners: vec![owner.clone()] }),
            "51 00000001 00000007 00000001 64 0000000000000009"),
        (Command::Forgotten(Forgotten { owners: vec![owner] }),
            "52 00000001 00000007 00000001 64 0000000000000009"),
        (Command::Retain { tenant, owner: None, origin: None, message },
            "11 00000007 00 01 00000001 74 00000000 78797a"),
        (Command::Enqueue { session, epoch, since: 9, copies: vec![copy] },
            "12 0102 0000000000000003 0000000000000008 0000000000000009 00000001 \
             02 02 00000005 00000006 0000000d 01 00000001 74 00000000 78797a"),
    ];
    let known = mail::every_command().into_iter().chain(events::every_command());
    let known = known.chain(values::every_command()).chain(calls::every_command());
    let known = known.chain(documents::every_command());
    all.into_iter()
        .chain(known)
        .chain(presence::every_command())
        .chain(audit::every_command())
        .collect()
}

fn share_commands() -> [(Command, &'static str); 2] {
    let (tenant, member) = (TenantId(7), SessionId { bucket: 0x0102, number: 3 });
    #[rustfmt::skip]
    let all = [
        (Command::JoinShare { tenant, filter: "$share/g/t".into(), member, options: SubscriptionOptions::default(), version: 5 },
            "14 00000007 0000000a 2473686172652f672f74 0102 0000000000000003 00 0000000000000005"),
        (Command::LeaveShare { tenant, filter: "$share/g/t".into(), member, version: 5 },
            "15 00000007 0000000a 2473686172652f672f74 0102 0000000000000003 0000000000000005"),
    ];
    all
}

fn membership_commands(record: NodeRecord) -> [(Command, &'static str); 7] {
    let program = Program { levels: Levels { min: 1, max: 2 }, version: [0, 3, 4] };
    #[rustfmt::skip]
    let all = [
        (Command::AddToken { token_hash: 1, lifetime_ms: 2 },
            "25 00000000000000000000000000000001 0000000000000002"),
        (Command::JoinNode { token_hash: 1, record },
            "26 00000000000000000000000000000001 \
             0000000000000001 00000000000000000000000000000002 0000000000000003 00000003 613a31"),
        (Command::SetMember { node: NodeId(1), state: MemberState::Removed },
            "27 0000000000000001 03"),
        (Command::Place { group: ShardId(1), from: vec![NodeId(1)], to: vec![NodeId(2)] },
            "28 0001 00000001 0000000000000001 00000001 0000000000000002"),
        (Command::Placed { group: ShardId(1), voters: vec![NodeId(2)] },
            "29 0001 00000001 0000000000000002"),
        (Command::SetLevel { level: 2, programs: vec![(NodeId(3), program)] },
            "30 0002 00000001 0000000000000003 0001 0002 0000 0003 0004"),
        (Command::SetReplicas { replicas: 5 }, "31 05"),
    ];
    all
}

fn encoded(command: &Command) -> Bytes {
    let mut out = BytesMut::new();
    command.encode(&mut out).unwrap();
    out.freeze()
}

#[test]
fn commands_keep_their_bytes() {
    // Frozen: logs hold these.
    for (command, expected) in every_command() {
        let bytes = encoded(&command);
        let body = expected.replace(' ', "");
        let frame = format!("{:08x}{body}", body.len() / 2);
        assert_eq!(crate::codec::hex(&bytes), frame, "{command:?}");
        assert_eq!(Command::decode(&bytes).unwrap(), command);
    }
}

#[test]
fn a_command_cut_anywhere_is_an_error() {
    for (command, _) in every_command() {
        let bytes = encoded(&command);
        for len in 0..bytes.len() {
            assert!(Command::decode(&bytes.slice(..len)).is_err(), "{command:?} at {len}");
            // Also when the length in front agrees. Only a payload may end anywhere.
            let tail = matches!(
                command,
                Command::Publish { .. }
                    | Command::PublishOnce { .. }
                    | Command::Retain { .. }
                    | Command::OpenSession { will: Some(_), .. }
            );
            if len > FRAME_HEADER_BYTES && !tail {
                let mut cut = BytesMut::from(&bytes[..len]);
                let body = u32::try_from(len - FRAME_HEADER_BYTES).unwrap();
                cut[..FRAME_HEADER_BYTES].copy_from_slice(&body.to_be_bytes());
                assert!(Command::decode(&cut.freeze()).is_err(), "{command:?} at {len}");
            }
        }
    }
}

#[test]
fn payloads_are_slices_of_what_was_read() {
    let (command, _) = every_command().swap_remove(6);
    let bytes = encoded(&command);
    let Command::Publish { message, .. } = Command::decode(&bytes).unwrap() else { panic!() };
    assert!(bytes.as_ptr_range().contains(&message.payload.as_ptr()));
}

#[test]
fn a_command_that_is_too_large_leaves_nothing_behind() {
    let (command, _) = every_command().swap_remove(6);
    let Command::Publish { tenant, from, mut message } = command else { panic!() };
    message.payload = Bytes::from(vec![0; COMMAND_BYTES_MAX]);
    let mut out = BytesMut::from(&b"before"[..]);
    let error = Command::Publish { tenant, from, message }.encode(&mut out).unwrap_err();
    assert!(error.bytes > COMMAND_BYTES_MAX);
    assert_eq!(out, b"before"[..]);
}

#[test]
fn an_unknown_kind_is_an_error() {
    for kind in [0, 19, 31, 48, 255] {
        assert!(Command::decode(&Bytes::from(vec![0, 0, 0, 1, kind])).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), which in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let all = every_command();
        let mut bytes = encoded(&all[which.index(all.len())].0).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(command) = Command::decode(&Bytes::from(bytes.clone())) {
            prop_assert_eq!(encoded(&command), bytes, "one command, one encoding");
        }
        drop(Command::decode(&Bytes::from(junk.clone())));
        drop(crate::Answer::decode(&mut Bytes::from(junk.clone())));
        drop(crate::RunAnswers::decode(&mut Bytes::from(junk.clone())));
        drop(crate::Run::decode(&mut Bytes::from(junk.clone())));
        drop(crate::Batch::decode(&Bytes::from(junk)));
    }
}
