//! What a change of sides is judged by.

use anyhow::Result;

use crate::interop::mixed::Terms;
use crate::lab::Pod;
use crate::lab::traffic::{Count, End, stream_during};
use crate::report::{Checked, Outcome, expect};

/// By requirement, how it ended and what was measured.
#[derive(Debug, Default)]
pub(super) struct Step(pub(super) Vec<(&'static str, Outcome, Vec<String>)>);

impl Step {
    pub(super) fn add(&mut self, id: &'static str, ended: Checked<()>) {
        self.0.push((id, Outcome::of(ended), Vec::new()));
    }

    pub(super) fn add_measured(&mut self, id: &'static str, ended: Checked<()>, measured: Vec<String>) {
        self.0.push((id, Outcome::of(ended), measured));
    }
}

/// What became of the packets between two pods.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    names: [String; 2],
    counts: [Count; 2],
}

/// Sends packets both ways between each pod and the next all through some action.
///
/// # Errors
/// Fails when there are no sockets to be had, or when two pods do not reach each other before.
pub(super) fn streams<T>(pods: &[Pod], action: impl FnOnce() -> T) -> Result<(T, Vec<Stream>)> {
    let next = pods.iter().skip(1).chain(pods.first());
    let mut pairs: Vec<_> = pods.iter().zip(next).collect();
    // Of two pods, the second one's next is the first again.
    pairs.truncate(if pods.len() == 2 { 1 } else { pairs.len() });
    between(&pairs, Box::new(action))
}

fn between<'a, T>(pairs: &[(&Pod, &Pod)], action: Box<dyn FnOnce() -> T + 'a>) -> Result<(T, Vec<Stream>)> {
    let Some(((near, far), rest)) = pairs.split_first() else {
        return Ok((action(), Vec::new()));
    };
    let (inner, counts) = stream_during(end(near), end(far), || between(rest, action))?;
    let (result, mut streams) = inner?;
    let names = [near, far].map(|pod| pod.name().to_owned());
    streams.push(Stream { names, counts });
    Ok((result, streams))
}

fn end(pod: &Pod) -> End<'_> {
    End {
        namespaces: pod.namespaces(),
        address: pod.address().into(),
    }
}

/// Judges what was lost: no more than is allowed, beside what the machine dropped because it was busy and what was lost
/// while nothing happened.
pub(super) fn judge_loss(
    streams: &[Stream],
    idle: &[Stream],
    dropped: usize,
    terms: &Terms,
) -> (Checked<()>, Vec<String>) {
    let lost = |stream: &Stream| stream.counts.map(Count::lost);
    let most = |streams: &[Stream]| streams.iter().flat_map(lost).max().unwrap_or(0);
    let allowed = terms.max_lost + most(idle) + dropped;
    let told: Vec<_> = streams
        .iter()
        .map(|stream| {
            let [there, back] = stream.counts;
            let [near, far] = &stream.names;
            let (lost_there, lost_back) = (there.lost(), back.lost());
            format!(
                "{near} to {far}: {lost_there} of {} packets lost; back: {lost_back} of {}",
                there.sent, back.sent
            )
        })
        .collect();
    let ended = expect(
        most(streams) <= allowed,
        format!("at most {allowed} packets of a way are lost, each a millisecond's"),
        told.join("; "),
    );
    (ended, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lost: usize) -> Stream {
        let count = |lost| Count {
            sent: 1_000,
            arrived: 1_000 - lost,
        };
        Stream {
            names: ["a", "b"].map(str::to_owned),
            counts: [count(0), count(lost)],
        }
    }

    #[test]
    fn what_a_busy_machine_and_an_idle_one_lose_is_allowed() {
        let terms = Terms {
            flanneld: None,
            plugins: None,
            net_conf: None,
            nodes: 2,
            max_lost: 10,
        };
        let judge = |lost, idle, dropped| judge_loss(&[stream(lost)], &[stream(idle)], dropped, &terms);
        assert!(judge(10, 0, 0).0.is_ok());
        assert!(judge(11, 0, 0).0.is_err());
        assert!(judge(13, 1, 2).0.is_ok());
        assert_eq!(
            judge(3, 0, 0).1,
            ["a to b: 0 of 1000 packets lost; back: 3 of 1000"]
        );
    }
}
