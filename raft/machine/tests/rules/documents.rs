//! Documents: written by condition, listed in order, limited, gone with their device or tenant; and the same against a map, at random.

use std::collections::BTreeMap;

use bytes::Bytes;
use moorline_core::{TenantId, Text};
use moorline_machine::{
    Answer, Command, Refused,
    documents::{
        DEVICE_DOCUMENTS_BYTES_MAX, DEVICE_DOCUMENTS_MAX, DOCUMENT_BYTES_MAX,
        DOCUMENT_ID_BYTES_MAX, DOCUMENTS_DELETE_BYTES_MAX, DOCUMENTS_PAGE_BYTES_MAX,
        DOCUMENTS_PER_DELETE_MAX, DeleteDocument, Document, DocumentAnswer, DocumentCommand,
        DocumentRefused, DocumentTotals, DocumentsFound, DocumentsPage, DocumentsQuery, Expect,
        PutDocument, SPACE_DOCUMENTS_MAX, SPACE_NAME_BYTES_MAX, Space,
    },
    forget::{Forget, whole},
};
use proptest::prelude::*;

use crate::{devices::*, harness::*};

const KIND_SPACE: u8 = 100;
const KIND_DEVICE_DOCUMENTS: u8 = 101;
const KIND_DOCUMENT: u8 = 102;

fn own() -> Space {
    Space::of_tenant(TENANT, "s")
}

fn of_device(born: u64) -> Space {
    Space::of_device(TENANT, &Text::from("d"), born, "s")
}

fn put(space: &Space, id: &str, body: impl Into<Bytes>, expect: Expect) -> Command {
    let (space, id, body) = (space.clone(), Text::from(id), body.into());
    Command::Documents(DocumentCommand::Put(PutDocument { space, id, body, expect }))
}

fn delete(space: &Space, id: &str, expect: Expect) -> Command {
    let (space, id) = (space.clone(), Text::from(id));
    Command::Documents(DocumentCommand::Delete(DeleteDocument { space, id, expect }))
}

fn delete_some(space: &Space) -> Command {
    Command::Documents(DocumentCommand::DeleteSome(space.clone()))
}

fn refused(why: DocumentRefused) -> Answer {
    Answer::Refused(Refused::Documents(why))
}

fn conflict(version: Option<u64>) -> Answer {
    refused(DocumentRefused::Conflict { version })
}

fn deleted(documents: u32, more: bool) -> Answer {
    Answer::Documents(DocumentAnswer::Deleted { documents, more })
}

fn written(answer: &Answer) -> u64 {
    let Answer::Documents(DocumentAnswer::Put { version }) = answer else { panic!("{answer:?}") };
    *version
}

fn one(group: &Group, space: &Space, id: &str) -> Option<Document> {
    let query = DocumentsQuery::One { space: space.clone(), id: Text::from(id) };
    let found = group.machine.documents(&group.rows, &query).unwrap();
    let DocumentsFound::One(document) = found else { panic!("{found:?}") };
    document
}

fn page(group: &Group, space: &Space, after: Option<&str>, documents_max: u16) -> DocumentsPage {
    let after = after.map(Text::from);
    let query = DocumentsQuery::Page { space: space.clone(), after, documents_max };
    let found = group.machine.documents(&group.rows, &query).unwrap();
    let DocumentsFound::Page(page) = found else { panic!("{found:?}") };
    page
}

fn ids(page: &DocumentsPage) -> Vec<&str> {
    page.documents.iter().map(|document| document.id.as_str()).collect()
}

fn with_device() -> (Group, u64) {
    let mut group = Group::new(SHARD);
    let answer = group.one(put_plain("d"));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    (group, born)
}

#[test]
fn who_expects_another_version_changes_nothing() {
    let (mut group, born) = with_device();
    for space in [own(), of_device(born)] {
        assert_eq!(one(&group, &space, "a"), None);
        assert_eq!(group.one(put(&space, "a", "1", Expect::Version(7))), conflict(None));
        let first = written(&group.one(put(&space, "a", "1", Expect::Absent)));
        group.now += 5;
        assert_eq!(group.one(put(&space, "a", "2", Expect::Absent)), conflict(Some(first)));
        let second = written(&group.one(put(&space, "a", "2", Expect::Version(first))));
        assert!(second > first);
        assert_eq!(
            group.one(put(&space, "a", "3", Expect::Version(first))),
            conflict(Some(second))
        );
        let now = moorline_core::UnixMillis(group.now);
        let body = Bytes::from_static(b"2");
        let document = Document { id: "a".into(), version: second, changed: now, body };
        assert_eq!(one(&group, &space, "a"), Some(document));
        let third = written(&group.one(put(&space, "a", "", Expect::Any)));
        assert_eq!(group.one(delete(&space, "a", Expect::Version(second))), conflict(Some(third)));
        assert_eq!(group.one(delete(&space, "a", Expect::Version(third))), deleted(1, false));
        assert_eq!(group.one(delete(&space, "a", Expect::Any)), deleted(0, false));
        assert_eq!(group.one(delete(&space, "a", Expect::Version(third))), conflict(None));
        let anew = written(&group.one(put(&space, "a", "1", Expect::Absent)));
        assert!(anew > third, "a version is never given twice");
    }
    // Two of one batch: the second one sees what the first did.
    let both = [put(&own(), "b", "1", Expect::Absent), put(&own(), "b", "2", Expect::Absent)];
    let answers = group.batch(&both);
    assert_eq!(answers[1], conflict(Some(written(&answers[0]))));
}

#[test]
fn a_page_is_in_order_and_goes_on_where_it_ended() {
    let mut group = Group::new(SHARD);
    for id in ["b", "a", "ab", "c", "a\u{1}"] {
        written(&group.one(put(&own(), id, id.to_owned(), Expect::Any)));
    }
    for other in ["r", "sa", "t"] {
        written(&group.one(put(&Space::of_tenant(TENANT, other), "z", "", Expect::Any)));
    }
    let other = Space::of_tenant(TenantId(8), "s");
    written(&group.one(put(&other, "y", "", Expect::Any)));
    let all = page(&group, &own(), None, 100);
    assert_eq!((ids(&all), all.more), (vec!["a", "a\u{1}", "ab", "b", "c"], false));
    let first = page(&group, &own(), None, 2);
    assert_eq!((ids(&first), first.more), (vec!["a", "a\u{1}"], true));
    let rest = page(&group, &own(), Some("a\u{1}"), 3);
    assert_eq!((ids(&rest), rest.more), (vec!["ab", "b", "c"], false));
    let least = page(&group, &own(), Some("b"), 0);
    assert_eq!((ids(&least), least.more), (vec!["c"], false), "one in any case");
    assert_eq!(ids(&page(&group, &other, None, 9)), ["y"]);

    let large = Space::of_tenant(TENANT, "large");
    let most = vec![0; DOCUMENT_BYTES_MAX];
    for id in ["1", "2", "3"] {
        written(&group.one(put(&large, id, most.clone(), Expect::Any)));
    }
    let part = page(&group, &large, None, 9);
    assert!(part.more && part.documents.len() * DOCUMENT_BYTES_MAX <= DOCUMENTS_PAGE_BYTES_MAX);
    assert_eq!(ids(&part), ["1"], "two of them with their heads are more than a page");
}

#[test]
fn what_can_be_no_document_is_refused() {
    let (mut group, born) = with_device();
    let named = |name: &str| Space::of_tenant(TENANT, name);
    let name = "n".repeat(SPACE_NAME_BYTES_MAX);
    let id = "i".repeat(DOCUMENT_ID_BYTES_MAX);
    written(&group.one(put(&named(&name), &id, vec![0; DOCUMENT_BYTES_MAX], Expect::Any)));
    let bad = || refused(DocumentRefused::BadName);
    for (space, id) in [
        (named(&format!("{name}n")), "i"),
        (named(""), "i"),
        (named("a\0b"), "i"),
        (own(), ""),
        (own(), "a\0b"),
        (own(), &format!("{id}i")),
    ] {
        assert_eq!(group.one(put(&space, id, "", Expect::Any)), bad(), "{space:?} {id}");
        assert_eq!(group.one(delete(&space, id, Expect::Any)), bad(), "{space:?} {id}");
    }
    assert_eq!(group.one(delete_some(&named(""))), bad());
    let large = vec![0; DOCUMENT_BYTES_MAX + 1];
    assert_eq!(group.one(put(&own(), "i", large, Expect::Any)), refused(DocumentRefused::TooLarge));
    let gone = || refused(DocumentRefused::DeviceGone);
    let nobody = Space::of_device(TENANT, &Text::from("nobody"), born, "s");
    for space in [of_device(born + 1), nobody] {
        assert_eq!(group.one(put(&space, "i", "", Expect::Any)), gone());
        assert_eq!(group.one(delete(&space, "i", Expect::Any)), gone());
        assert_eq!(group.one(delete_some(&space)), gone());
    }
    assert_eq!(group.rows.count(KIND_DOCUMENT), 1);
}

#[test]
fn a_device_has_so_many_documents_in_all_its_spaces() {
    let (mut group, born) = with_device();
    group.unchecked = true;
    let spaces = ["x", "y"].map(|name| Space::of_device(TENANT, &Text::from("d"), born, name));
    for number in 0..DEVICE_DOCUMENTS_MAX {
        let space = &spaces[number as usize % 2];
        written(&group.one(put(space, &number.to_string(), "1", Expect::Absent)));
    }
    let full = || refused(DocumentRefused::Full);
    assert_eq!(group.one(put(&spaces[0], "more", "", Expect::Any)), full());
    written(&group.one(put(&spaces[0], "0", "another", Expect::Any)));
    assert_eq!(group.one(delete(&spaces[0], "0", Expect::Any)), deleted(1, false));
    written(&group.one(put(&spaces[1], "more", "", Expect::Any)));
    let most = vec![0; DOCUMENT_BYTES_MAX];
    let fit = DEVICE_DOCUMENTS_BYTES_MAX / DOCUMENT_BYTES_MAX as u64;
    for number in 1..fit {
        let space = &spaces[usize::try_from(number % 2).unwrap()];
        written(&group.one(put(space, &number.to_string(), most.clone(), Expect::Any)));
    }
    assert_eq!(group.one(put(&spaces[1], "9", most, Expect::Any)), full());
    group.check();
    assert_eq!(group.machine.document_totals(), DocumentTotals::default(), "those of tenants");
    group.one(delete_plain("d"));
    let kinds = [KIND_DOCUMENT, KIND_DEVICE_DOCUMENTS].map(|kind| group.rows.count(kind));
    assert_eq!(kinds, [0, 0], "at once");
    let answer = group.one(put_plain("d"));
    let Answer::Device { born, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(one(&group, &of_device(born), "1"), None);
}

#[test]
fn a_space_has_so_many_documents_and_goes_in_pieces() {
    let mut group = Group::new(SHARD);
    group.unchecked = true;
    let commands: Vec<_> = (0..SPACE_DOCUMENTS_MAX)
        .map(|number| put(&own(), &format!("{number:05}"), "1", Expect::Absent))
        .collect();
    for some in commands.chunks(500) {
        for answer in group.batch(some) {
            written(&answer);
        }
    }
    assert_eq!(group.one(put(&own(), "more", "", Expect::Any)), refused(DocumentRefused::Full));
    written(&group.one(put(&own(), "00000", "2", Expect::Any)));
    let totals = group.machine.document_totals();
    let bytes = u64::from(SPACE_DOCUMENTS_MAX) * 6;
    let documents = u64::from(SPACE_DOCUMENTS_MAX);
    assert_eq!(totals, DocumentTotals { spaces: 1, documents, bytes });
    let piece = u32::try_from(DOCUMENTS_PER_DELETE_MAX).unwrap();
    assert_eq!(group.one(delete_some(&own())), deleted(piece, true));
    assert_eq!(ids(&page(&group, &own(), None, 1)), [format!("{piece:05}")]);
    let mut times = 1;
    while let Answer::Documents(DocumentAnswer::Deleted { more: true, .. }) =
        group.one(delete_some(&own()))
    {
        times += 1;
    }
    assert_eq!(times, SPACE_DOCUMENTS_MAX / piece);
    assert_eq!(group.one(delete_some(&own())), deleted(0, false));
    assert_eq!(group.machine.document_totals(), DocumentTotals::default());
    assert_eq!((group.rows.count(KIND_SPACE), group.rows.count(KIND_DOCUMENT)), (0, 0));
    group.check();
}

#[test]
fn large_documents_go_in_smaller_pieces() {
    let (mut group, _) = with_device();
    let (most, fit) = (DOCUMENT_BYTES_MAX as u64 + 2, DOCUMENTS_DELETE_BYTES_MAX);
    let at_once = u32::try_from(fit.div_ceil(most)).unwrap();
    for id in 0..at_once + 3 {
        let body = vec![0; DOCUMENT_BYTES_MAX];
        written(&group.one(put(&own(), &format!("{id:02}"), body, Expect::Absent)));
    }
    assert_eq!(group.one(delete_some(&own())), deleted(at_once, true));
    assert_eq!(group.machine.document_totals().bytes, 3 * most);
    assert_eq!(group.one(delete_some(&own())), deleted(3, false));
}

#[test]
fn documents_go_with_their_tenant_in_pieces() {
    let mut group = Group::new(SHARD);
    let most = u32::try_from(DOCUMENTS_PER_DELETE_MAX).unwrap();
    for name in ["a", "b"] {
        let space = Space::of_tenant(TENANT, name);
        let some: Vec<_> =
            (0..=most).map(|id| put(&space, &id.to_string(), "", Expect::Any)).collect();
        group.batch(&some);
    }
    let other = Space::of_tenant(TenantId(TENANT.0 + 1), "a");
    written(&group.one(put(&other, "stays", "", Expect::Any)));
    // All that one command names share what it may delete.
    let nobodys = TenantId(TENANT.0 + 2);
    written(&group.one(put(&Space::of_tenant(nobodys, "a"), "goes", "", Expect::Any)));
    let all = 2 * (most as usize + 1) + 2;
    let owners = vec![whole(nobodys), whole(TENANT)];
    let forget = || Command::Forget(Forget { owners: owners.clone() });
    for pieces in 1..3 {
        let answer = group.one(forget());
        assert!(matches!(answer, Answer::Partly(_)), "{answer:?}");
        assert_eq!(group.rows.count(KIND_DOCUMENT), all - pieces * most as usize);
        group.reopen();
    }
    let answer = group.one(forget());
    assert!(matches!(answer, Answer::Released(_)), "{answer:?}");
    assert_eq!(group.rows.count(KIND_DOCUMENT), 1);
    assert_eq!(ids(&page(&group, &other, None, 9)), ["stays"]);
    assert_eq!(group.machine.document_totals().spaces, 1);
}

#[derive(Debug, Clone)]
enum Do {
    Put { space: usize, id: u8, bytes: usize, expect: usize },
    Delete { space: usize, id: u8, expect: usize },
    DeleteSome { space: usize },
    Anew,
    Reopen,
}

fn something() -> impl Strategy<Value = Do> {
    prop_oneof![
        8 => (0..4_usize, 0..5_u8, 0..40_usize, 0..4_usize)
            .prop_map(|(space, id, bytes, expect)| Do::Put { space, id, bytes, expect }),
        3 => (0..4_usize, 0..5_u8, 0..4_usize)
            .prop_map(|(space, id, expect)| Do::Delete { space, id, expect }),
        1 => (0..4_usize).prop_map(|space| Do::DeleteSome { space }),
        1 => Just(Do::Anew),
        1 => Just(Do::Reopen),
    ]
}

/// What there should be: of each space its documents, with their versions.
#[derive(Debug, Default)]
struct Model(BTreeMap<usize, BTreeMap<String, (u64, Bytes)>>);

impl Model {
    fn expectation(&self, space: usize, id: &str, which: usize) -> (Expect, bool) {
        let version = self.0.get(&space).and_then(|all| all.get(id)).map(|(version, _)| *version);
        match which {
            0 => (Expect::Any, true),
            1 => (Expect::Absent, version.is_none()),
            2 => (Expect::Version(1), version == Some(1)),
            _ => (version.map_or(Expect::Absent, Expect::Version), true),
        }
    }
}

fn spaces(born: u64) -> [Space; 4] {
    let of_device = |name| Space::of_device(TENANT, &Text::from("d"), born, name);
    [own(), Space::of_tenant(TENANT, "t"), of_device("s"), of_device("t")]
}

fn check(group: &Group, born: u64, model: &Model) {
    let none = BTreeMap::new();
    for (number, space) in spaces(born).iter().enumerate() {
        let expected = model.0.get(&number).unwrap_or(&none);
        let found = page(group, space, None, 100).documents;
        let found = found.into_iter().map(|document| {
            let Document { id, version, body, .. } = document;
            (id.as_str().to_owned(), (version, body))
        });
        assert_eq!(&found.collect::<BTreeMap<_, _>>(), expected, "{space:?}");
    }
    let own = [0, 1].map(|number| model.0.get(&number).unwrap_or(&none));
    let totals = DocumentTotals {
        spaces: own.iter().filter(|space| !space.is_empty()).count() as u64,
        documents: own.iter().map(|space| space.len() as u64).sum(),
        bytes: own
            .iter()
            .flat_map(|space| space.iter())
            .map(|(id, (_, body))| (id.len() + body.len()) as u64)
            .sum(),
    };
    assert_eq!(group.machine.document_totals(), totals);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn documents_are_those_of_a_map(steps in proptest::collection::vec(something(), 1..60)) {
        let (mut group, mut born) = with_device();
        let mut model = Model::default();
        for step in steps {
            match step {
                Do::Put { space, id, bytes, expect } => {
                    let (id, body) = (id.to_string(), Bytes::from(vec![7; bytes]));
                    let (expect, holds) = model.expectation(space, &id, expect);
                    let answer = group.one(put(&spaces(born)[space], &id, body.clone(), expect));
                    if holds {
                        let version = written(&answer);
                        model.0.entry(space).or_default().insert(id, (version, body));
                    } else {
                        prop_assert!(matches!(answer, Answer::Refused(_)));
                    }
                }
                Do::Delete { space, id, expect } => {
                    let id = id.to_string();
                    let (expect, holds) = model.expectation(space, &id, expect);
                    let answer = group.one(delete(&spaces(born)[space], &id, expect));
                    if holds {
                        let was = model.0.entry(space).or_default().remove(&id);
                        prop_assert_eq!(answer, deleted(u32::from(was.is_some()), false));
                    } else {
                        prop_assert!(matches!(answer, Answer::Refused(_)));
                    }
                }
                Do::DeleteSome { space } => {
                    let gone = model.0.remove(&space).unwrap_or_default().len();
                    let answer = group.one(delete_some(&spaces(born)[space]));
                    prop_assert_eq!(answer, deleted(u32::try_from(gone).unwrap(), false));
                }
                Do::Anew => {
                    prop_assert_eq!(group.one(delete_plain("d")), Answer::Done);
                    let answer = group.one(put_plain("d"));
                    let Answer::Device { born: anew, .. } = answer else { panic!("{answer:?}") };
                    born = anew;
                    model.0.retain(|space, _| *space < 2);
                }
                Do::Reopen => group.reopen(),
            }
            check(&group, born, &model);
        }
    }
}
