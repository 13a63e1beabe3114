//! Test support: what a table holds after changes.

use netstate::nft::{Chain, Change};
use nftables::Listing;

/// What a table holds after changes, with handles as a kernel gives them.
pub(crate) fn after(before: Listing, changes: &[Change]) -> Listing {
    let mut listing = before;
    let mut next = 1 + listing.handles.values().flatten().max().copied().unwrap_or(0);
    for change in changes {
        let chains = &mut listing.table.chains;
        match change {
            Change::AddTable { comment, .. } => listing.table.comment.clone_from(comment),
            Change::AddChain {
                chain, base, comment, ..
            } => {
                let made = Chain {
                    base: *base,
                    comment: comment.clone(),
                    rules: Vec::new(),
                };
                chains.entry(chain.clone()).or_insert(made);
                listing.handles.entry(chain.clone()).or_default();
            }
            Change::FlushChain { chain, .. } => {
                chains.get_mut(chain).unwrap().rules.clear();
                listing.handles.get_mut(chain).unwrap().clear();
            }
            Change::AppendRule { chain, rule, .. } => {
                chains.get_mut(chain).unwrap().rules.push(rule.clone());
                listing.handles.get_mut(chain).unwrap().push(next);
                next += 1;
            }
            Change::DelRule { chain, handle, .. } => {
                let handles = listing.handles.get_mut(chain).unwrap();
                let place = handles.iter().position(|found| found == handle).unwrap();
                handles.remove(place);
                chains.get_mut(chain).unwrap().rules.remove(place);
            }
            Change::DelTable(_) | Change::DelChain { .. } | Change::InsertRule { .. } => panic!("{change}"),
        }
    }
    listing
}
