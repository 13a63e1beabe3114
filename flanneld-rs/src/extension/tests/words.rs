use super::*;

#[test]
fn variables_are_expanded_as_go_s_os_expand_does() {
    let value = |name: &str| match name {
        "SUBNET" => "10.244.1.0/24".to_owned(),
        "A" => "a".to_owned(),
        "TWO WORDS" => "two words".to_owned(),
        _ => String::new(),
    };
    for (word, expected) in [
        ("plain", "plain"),
        ("$SUBNET", "10.244.1.0/24"),
        ("${SUBNET}", "10.244.1.0/24"),
        ("x$A-${A}y", "xa-ay"),
        ("$A$A", "aa"),
        ("$ABSENT.", "."),
        ("${TWO WORDS}", "two words"),
        ("$", "$"),
        ("a$", "a$"),
        ("$.x", "$.x"),
        ("$é", "$é"),
        ("$$A", "A"),
        ("$1A", "A"),
        ("${}x", "x"),
        ("${A", "A"),
        ("\"$A\"", "\"a\""),
    ] {
        assert_eq!(expand(word, value), expected, "{word}");
    }
}

#[test]
fn what_only_a_shell_understands_is_recognised() {
    for (line, syntax) in [
        ("ip route add $SUBNET via ${PUBLIC_IP}", None),
        ("/opt/up --name=a,b (c) #d", None),
        ("ip route add \"$SUBNET\"", Some("\"")),
        ("a; b", Some(";")),
        ("a && b", Some("&&")),
        ("a | b", Some("|")),
        ("echo $(date)", Some("$(")),
        ("a 2>/dev/null", Some(">")),
    ] {
        assert_eq!(shell_syntax(line), syntax, "{line}");
    }
    assert_eq!(blank_as_none(" \t"), None);
    assert_eq!(blank_as_none("a b").as_deref(), Some("a b"));
}

#[test]
fn the_end_of_what_was_printed_is_shown_on_one_line() {
    assert_eq!(last_words(""), "");
    assert_eq!(last_words("\n one \n\n two\x1b[0m\n"), "one; two[0m");
    let long = last_words(&format!("{}{}", "x".repeat(500), "é".repeat(299)));
    assert_eq!(long, format!("…x{}", "é".repeat(299)));
}
