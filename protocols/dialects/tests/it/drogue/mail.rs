//! Mail, as devices hear it.

use moorline_dialects::drogue::{inbox::Inbox, mail::topic};

#[test]
fn mail_comes_once_by_a_name_that_is_listened_for() {
    let unnamed = Err("a command's name has no +, no # and no zero");
    #[rustfmt::skip]
    let table: [(&[&str], &str, Result<Option<&str>, &str>); 8] = [
        (&["command/inbox/#"],                           "open", Ok(Some("command/inbox//open"))),
        (&["command/inbox//#"],                          "open", Ok(Some("command/inbox//open"))),
        (&["command/inbox/own/#"],                       "open", Ok(Some("command/inbox/own/open"))),
        (&["command/inbox/other/#"],                     "open", Ok(None)),
        (&["command/inbox/other/#", "command/inbox//#"], "open", Ok(Some("command/inbox//open"))),
        (&["command/inbox/#", "command/inbox/own/#"],    "open", Ok(Some("command/inbox//open"))),
        (&[],                                            "open", Ok(None)),
        (&["command/inbox/#"],                           "a+",   unnamed),
    ];
    for (filters, name, expected) in table {
        let listens: Vec<_> = filters.iter().map(|filter| Inbox::parse(filter).unwrap()).collect();
        let said = topic(listens.iter(), "own", name);
        assert_eq!(said, expected.map(|topic| topic.map(str::to_owned)), "{filters:?} {name}");
    }
}
