use super::*;

fn node(name: &str, revision: u64) -> WatchLine {
    WatchLine::Put(Box::new(Node {
        name: name.to_owned(),
        revision: revision.to_string(),
        ..Node::default()
    }))
}

fn bookmark(revision: u64, ends_list: bool) -> WatchLine {
    WatchLine::Bookmark {
        revision: revision.to_string(),
        ends_list,
    }
}

fn refused(code: u16) -> End {
    End::Refused {
        refusal: Refusal {
            code,
            reason: "Reason".to_owned(),
            message: String::new(),
        },
        retry_after: None,
    }
}

fn page(next: &str, revision: &str) -> PageMeta {
    PageMeta {
        revision: revision.to_owned(),
        next: next.to_owned(),
    }
}

fn watch(revision: &str) -> Request {
    Request::Watch {
        revision: revision.to_owned(),
    }
}

fn following(revision: u64) -> Follower {
    let mut follower = Follower::new();
    assert_eq!(follower.line(bookmark(revision, true)), Ok(Some(Step::Complete)));
    follower
}

const FIRST_PAGE: Request = Request::Page { next: None };

#[test]
fn a_streaming_list_is_followed_from_where_it_ended() {
    let mut follower = Follower::new();
    assert_eq!(follower.request(), Request::Stream);
    assert!(follower.begins_anew());
    assert!(matches!(follower.line(node("a", 5)), Ok(Some(Step::Put(_)))));
    assert_eq!(
        follower.line(bookmark(7, false)),
        Ok(None),
        "a bookmark of another kind"
    );
    assert_eq!(follower.line(bookmark(9, true)), Ok(Some(Step::Complete)));
    assert!(!follower.begins_anew());
    assert!(matches!(follower.line(node("b", 12)), Ok(Some(Step::Put(_)))));
    let gone = WatchLine::Gone {
        name: "a".to_owned(),
        revision: "13".to_owned(),
    };
    assert_eq!(follower.line(gone), Ok(Some(Step::Gone("a".to_owned()))));
    assert_eq!(follower.line(bookmark(20, false)), Ok(None));
    let verdict = follower.ended(End::Done, 0);
    assert_eq!((verdict.pause, verdict.trouble), (Duration::ZERO, None));
    assert_eq!(follower.request(), watch("20"));
}

#[test]
fn a_server_without_streaming_lists_is_read_in_pages() {
    for code in [400, 404, 405, 410, 422, 500, 501] {
        let mut follower = Follower::new();
        let verdict = follower.ended(refused(code), 0);
        assert_eq!((verdict.pause, verdict.trouble), (Duration::ZERO, None), "{code}");
        assert_eq!(follower.request(), FIRST_PAGE, "{code}");
        follower.page_meta(page("token", "40"));
        assert_eq!(follower.page_ended(), None);
        assert_eq!(follower.ended(End::Done, 0).pause, Duration::ZERO);
        let next = Some("token".to_owned());
        assert_eq!(follower.request(), Request::Page { next });
        assert!(!follower.begins_anew());
        follower.page_meta(page("", "40"));
        assert_eq!(follower.page_ended(), Some(Step::Complete));
        assert_eq!(follower.request(), watch("40"), "{code}");
    }
}

#[test]
fn a_server_that_closes_or_breaks_a_streaming_list_is_read_in_pages() {
    for end in [End::Done, End::Broken("silence".to_owned())] {
        let mut follower = Follower::new();
        assert!(follower.line(node("a", 5)).is_ok());
        follower.ended(end, 0);
        assert_eq!(follower.request(), FIRST_PAGE);
        assert!(follower.begins_anew());
    }
}

#[test]
fn a_forgotten_revision_is_read_anew_however_the_server_says_so() {
    let mut at_once = following(9);
    assert_eq!(at_once.ended(refused(410), 0).trouble, None);
    assert_eq!(at_once.request(), Request::Stream);
    let mut in_stream = following(9);
    let gone = Refusal {
        code: 410,
        ..Refusal::default()
    };
    let end = in_stream.line(WatchLine::Error(gone)).unwrap_err();
    assert_eq!(in_stream.ended(end, 0).trouble, None);
    assert_eq!(in_stream.request(), Request::Stream);
    let mut of_a_token = Follower::new();
    of_a_token.ended(refused(422), 0);
    of_a_token.page_meta(page("token", "40"));
    of_a_token.ended(refused(410), 0);
    assert!(of_a_token.begins_anew());
}

#[test]
fn a_server_restored_from_a_backup_is_read_anew() {
    let mut follower = following(900);
    assert_eq!(follower.line(bookmark(17, false)), Err(End::Done));
    follower.ended(End::Done, 0);
    assert!(follower.begins_anew());
}

#[test]
fn a_watch_that_breaks_goes_on_and_tells_trouble_only_when_it_cannot() {
    let mut follower = following(9);
    let verdict = follower.ended(End::Broken("reset".to_owned()), 0);
    assert_eq!(verdict.trouble, None);
    assert_eq!(follower.request(), watch("9"));
    let verdict = follower.ended(End::Broken("refused".to_owned()), 0);
    assert_eq!(verdict.trouble.as_deref(), Some("refused"));
    assert_eq!(follower.request(), watch("9"));
    assert_eq!(follower.line(bookmark(9, false)), Ok(None));
    assert_eq!(follower.ended(End::Done, 0).pause, Duration::ZERO);
}

#[test]
fn a_server_that_closes_every_watch_at_once_is_not_asked_in_a_hot_loop() {
    let mut follower = following(9);
    follower.ended(End::Done, 0);
    let pauses: Vec<_> = (0..8).map(|_| follower.ended(End::Done, 0).pause).collect();
    assert!(
        pauses.iter().all(|pause| *pause >= Duration::from_millis(50)),
        "{pauses:?}"
    );
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses.last(), Some(&(LONGEST_PAUSE / 2)));
}

#[test]
fn pauses_grow_up_to_a_limit_and_a_servers_wish_counts() {
    let mut follower = following(9);
    let longest = (0..200)
        .map(|n| follower.ended(End::Broken(String::new()), n * 7_919).pause)
        .max();
    assert!(longest <= Some(LONGEST_PAUSE));
    let wish = |secs| End::Refused {
        refusal: Refusal {
            code: 429,
            ..Refusal::default()
        },
        retry_after: Some(Duration::from_secs(secs)),
    };
    assert_eq!(follower.ended(wish(3), 0).pause, Duration::from_secs(3));
    assert_eq!(follower.ended(wish(86_400), 0).pause, LONGEST_WISH);
    assert_eq!(follower.request(), watch("9"));
}

#[test]
fn refused_credentials_are_told_apart_from_missing_rights() {
    let mut follower = Follower::new();
    assert!(follower.ended(refused(401), 0).is_unknown);
    let verdict = follower.ended(refused(403), 0);
    assert!(!verdict.is_unknown);
    assert_eq!(
        verdict.trouble.as_deref(),
        Some("the API server answered 403: Reason")
    );
    assert_eq!(follower.request(), Request::Stream);
}

#[test]
fn a_page_that_fails_begins_the_list_anew() {
    let mut follower = Follower::new();
    follower.ended(refused(422), 0);
    follower.page_meta(page("token", "40"));
    assert!(follower.ended(refused(503), 0).trouble.is_some());
    assert!(follower.begins_anew());
    assert_eq!(follower.request(), FIRST_PAGE);
}

#[test]
fn revisions_are_compared_as_numbers_only() {
    assert!(is_before("9", "10"));
    assert!(!is_before("10", "9"));
    assert!(!is_before("a", "b"));
    assert!(!is_before("1", "b"));
}
