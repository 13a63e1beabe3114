//! What has to change on the host's end of a pair. Pure.

use net_types::IfIndex;
use netlink::tc::{Control, Entry, Root, TcOp, TokenBucket};

/// What the host's end shall hold. Absent means: whatever is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The bucket for what leaves it.
    pub(crate) root: Option<TokenBucket>,
    /// Where all that enters it is redirected.
    pub(crate) redirect: Option<IfIndex>,
}

/// The changes that bring a link from what it holds to what it shall hold; an error names what somebody else set on
/// it, which is not ours to replace.
pub(crate) fn plan(link: IfIndex, observed: &Control, desired: &Desired) -> Result<Vec<TcOp>, String> {
    let mut ops = Vec::new();
    if let Some(bucket) = desired.root {
        match &observed.root {
            Root::Bucket(found) if *found == bucket => {}
            Root::Default | Root::Bucket(_) => ops.push(TcOp::SetBucket(link, bucket)),
            Root::Other(kind) => return Err(format!("a root queueing discipline {kind}")),
        }
    }
    if let Some(to) = desired.redirect {
        let redirect = TcOp::Redirect { from: link, to };
        match &observed.entry {
            Entry::Plain => ops.extend([TcOp::AddIngress(link), redirect]),
            Entry::Redirected(targets) => match targets.as_slice() {
                [] => ops.push(redirect),
                [Some(found)] if *found == to => {}
                // The device that a killed or repeated ADD made is gone.
                stale if stale.iter().all(Option::is_none) => {
                    ops.extend([TcOp::ClearIngress(link), TcOp::AddIngress(link), redirect]);
                }
                _ => return Err("a redirection of what enters it to another device".to_owned()),
            },
            Entry::Other(kind) => return Err(format!("a filter or discipline {kind} for what enters it")),
        }
    }
    Ok(ops)
}

/// The changes that take back those of a plan that were made, given what was there before.
pub(crate) fn undo(link: IfIndex, before: &Control, made: &[TcOp]) -> Vec<TcOp> {
    let mut ops = Vec::new();
    for op in made.iter().rev() {
        match op {
            TcOp::SetBucket(..) => ops.push(match &before.root {
                Root::Bucket(bucket) => TcOp::SetBucket(link, *bucket),
                Root::Default | Root::Other(_) => TcOp::ClearRoot(link),
            }),
            TcOp::AddIngress(_) => ops.push(TcOp::ClearIngress(link)),
            // They go with the discipline, or were in place of what was of no use.
            TcOp::Redirect { .. } | TcOp::ClearIngress(_) | TcOp::ClearRoot(_) | TcOp::DelLink(_) => {}
        }
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: TokenBucket = TokenBucket {
        rate_bytes_per_sec: 1000,
        burst_ticks: 5,
        limit_bytes: 2000,
    };

    fn index(number: u32) -> IfIndex {
        IfIndex::new(number).unwrap()
    }

    fn control(root: Root, entry: Entry) -> Control {
        Control { root, entry }
    }

    fn both() -> Desired {
        Desired {
            root: Some(BUCKET),
            redirect: Some(index(7)),
        }
    }

    fn planned(root: Root, entry: Entry) -> Result<Vec<TcOp>, String> {
        plan(index(3), &control(root, entry), &both())
    }

    const REDIRECT: fn() -> TcOp = || TcOp::Redirect {
        from: index(3),
        to: index(7),
    };

    #[test]
    fn a_plain_link_gets_all_and_a_finished_one_nothing() {
        let all = planned(Root::Default, Entry::Plain).unwrap();
        let wanted = [
            TcOp::SetBucket(index(3), BUCKET),
            TcOp::AddIngress(index(3)),
            REDIRECT(),
        ];
        assert_eq!(all, wanted);
        let finished = Entry::Redirected(vec![Some(index(7))]);
        assert_eq!(planned(Root::Bucket(BUCKET), finished).unwrap(), []);
        let nothing = Desired {
            root: None,
            redirect: None,
        };
        let others = control(Root::Other("htb".into()), Entry::Other("clsact".into()));
        assert_eq!(plan(index(3), &others, &nothing).unwrap(), []);
    }

    #[test]
    fn what_a_killed_add_left_is_completed_or_made_anew() {
        let bucket = TokenBucket {
            limit_bytes: 1,
            ..BUCKET
        };
        let ops = planned(Root::Bucket(bucket), Entry::Redirected(vec![])).unwrap();
        assert_eq!(ops, [TcOp::SetBucket(index(3), BUCKET), REDIRECT()]);
        let ops = planned(Root::Bucket(BUCKET), Entry::Redirected(vec![None, None])).unwrap();
        assert_eq!(
            ops,
            [
                TcOp::ClearIngress(index(3)),
                TcOp::AddIngress(index(3)),
                REDIRECT()
            ]
        );
    }

    #[test]
    fn what_others_set_is_named_and_not_replaced() {
        for (root, entry, named) in [
            (Root::Other("htb".into()), Entry::Plain, "htb"),
            (Root::Default, Entry::Other("clsact".into()), "clsact"),
            (
                Root::Default,
                Entry::Redirected(vec![Some(index(8))]),
                "another device",
            ),
        ] {
            assert!(planned(root, entry).unwrap_err().contains(named));
        }
    }

    #[test]
    fn a_failure_takes_back_what_was_made() {
        let made = [
            TcOp::SetBucket(index(3), BUCKET),
            TcOp::AddIngress(index(3)),
            REDIRECT(),
        ];
        let ops = undo(index(3), &control(Root::Default, Entry::Plain), &made);
        assert_eq!(ops, [TcOp::ClearIngress(index(3)), TcOp::ClearRoot(index(3))]);
        let ops = undo(index(3), &control(Root::Bucket(BUCKET), Entry::Plain), &made[..1]);
        assert_eq!(ops, [TcOp::SetBucket(index(3), BUCKET)]);
    }
}
