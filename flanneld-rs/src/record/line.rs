//! An input of the engine as a line of JSON, and back. Times are nanoseconds since the daemon's start, what a kernel holds
//! and wants is in its text form, which shows no secrets: what holds one comes back without it, or is not understood.

use std::collections::BTreeSet;
use std::time::Duration;

use net_types::MacAddr;
use netstate::{ErrorClass, KernelError, ObjectKey, Prune, Spot, State};
use serde::{Deserialize, Serialize};

use crate::reconciler::Input;

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is not JSON of the form that is written.
    #[error("it is not an input of the engine")]
    Json(#[source] serde_json::Error),
    /// What a kernel holds or wants is not understood.
    #[error("its text form is not understood")]
    Text(#[source] netstate::TextError),
    /// A spot is not understood.
    #[error("{0:?} is not a route, neighbour, forwarding entry or WireGuard peer")]
    Spot(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Goal { state: String, prune: PruneWord },
    Change { gone: String, wanted: String },
    LookAgain,
    LookAt(Vec<String>),
    Observed { at: u64, state: String },
    Unobservable { at: u64, error: Refusal },
    Applied(Vec<Option<Refusal>>),
    Next { at: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PruneWord {
    Keep,
    Addrs,
    Remove,
}

#[derive(Serialize, Deserialize)]
struct Refusal {
    class: ClassWord,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClassWord {
    Exists,
    NotFound,
    NoDevice,
    LinkDown,
    Unreachable,
    Busy,
    Denied,
    Unsupported,
    Other(i32),
}

/// Writes an input as one line, without its end.
///
/// # Errors
/// JSON cannot be written, which does not happen to texts and numbers.
pub fn print(input: &Input) -> Result<String, LineError> {
    let line = match input {
        Input::Goal(state, prune) => Line::Goal {
            state: state.to_string(),
            prune: match prune {
                Prune::Keep => PruneWord::Keep,
                Prune::Addrs => PruneWord::Addrs,
                Prune::Remove => PruneWord::Remove,
            },
        },
        Input::Change { gone, wanted } => Line::Change {
            gone: gone.to_string(),
            wanted: wanted.to_string(),
        },
        Input::LookAgain => Line::LookAgain,
        Input::LookAt(spots) => Line::LookAt(spots.iter().map(print_spot).collect()),
        Input::Observed(at, Ok(state)) => Line::Observed {
            at: nanos(*at),
            state: state.to_string(),
        },
        Input::Observed(at, Err(err)) => Line::Unobservable {
            at: nanos(*at),
            error: print_error(err),
        },
        Input::Applied(results) => {
            let refusal = |result: &Result<(), KernelError>| result.as_ref().err().map(print_error);
            Line::Applied(results.iter().map(refusal).collect())
        }
        Input::Next(at) => Line::Next { at: nanos(*at) },
    };
    serde_json::to_string(&line).map_err(LineError::Json)
}

/// Reads a line.
///
/// # Errors
/// It is not one that [`print()`] writes.
pub fn parse(text: &str) -> Result<Input, LineError> {
    let line: Line = serde_json::from_str(text).map_err(LineError::Json)?;
    Ok(match line {
        Line::Goal { state, prune } => {
            let prune = match prune {
                PruneWord::Keep => Prune::Keep,
                PruneWord::Addrs => Prune::Addrs,
                PruneWord::Remove => Prune::Remove,
            };
            Input::Goal(parse_state(&state)?, prune)
        }
        Line::Change { gone, wanted } => Input::Change {
            gone: Box::new(parse_state(&gone)?),
            wanted: Box::new(parse_state(&wanted)?),
        },
        Line::LookAgain => Input::LookAgain,
        Line::LookAt(spots) => {
            let spots: Result<BTreeSet<_>, _> = spots.iter().map(|spot| parse_spot(spot)).collect();
            Input::LookAt(spots?)
        }
        Line::Observed { at, state } => Input::Observed(Duration::from_nanos(at), Ok(parse_state(&state)?)),
        Line::Unobservable { at, error } => {
            Input::Observed(Duration::from_nanos(at), Err(parse_error(error)))
        }
        Line::Applied(results) => {
            let result =
                |refusal: Option<Refusal>| refusal.map_or(Ok(()), |refusal| Err(parse_error(refusal)));
            Input::Applied(results.into_iter().map(result).collect())
        }
        Line::Next { at } => Input::Next(Duration::from_nanos(at)),
    })
}

/// Enough for five centuries.
fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

fn parse_state(text: &str) -> Result<State, LineError> {
    text.parse().map_err(LineError::Text)
}

fn print_spot(spot: &Spot) -> String {
    match spot {
        Spot::Route(key) => ObjectKey::Route(key.clone()).to_string(),
        Spot::Neigh(key) => ObjectKey::Neigh(key.clone()).to_string(),
        Spot::Fdb(link, mac) => format!("fdb {link} {mac}"),
        Spot::WgPeer(key) => ObjectKey::WgPeer(key.clone()).to_string(),
    }
}

fn parse_spot(text: &str) -> Result<Spot, LineError> {
    let unknown = || LineError::Spot(text.to_owned());
    if let Some(entry) = text.strip_prefix("fdb ") {
        let (link, mac) = entry.split_once(' ').ok_or_else(unknown)?;
        let mac: MacAddr = mac.parse().map_err(|_| unknown())?;
        return Ok(Spot::Fdb(link.parse().map_err(|_| unknown())?, mac));
    }
    match text.parse().map_err(LineError::Text)? {
        ObjectKey::Route(key) => Ok(Spot::Route(key)),
        ObjectKey::Neigh(key) => Ok(Spot::Neigh(key)),
        ObjectKey::WgPeer(key) => Ok(Spot::WgPeer(key)),
        ObjectKey::Link(_)
        | ObjectKey::Addr(_)
        | ObjectKey::Fdb(_)
        | ObjectKey::Wireguard(_)
        | ObjectKey::Sysctl(_)
        | ObjectKey::NftTable(_)
        | ObjectKey::Iptables(_) => Err(unknown()),
    }
}

fn print_error(err: &KernelError) -> Refusal {
    let class = match err.class {
        ErrorClass::Exists => ClassWord::Exists,
        ErrorClass::NotFound => ClassWord::NotFound,
        ErrorClass::NoDevice => ClassWord::NoDevice,
        ErrorClass::LinkDown => ClassWord::LinkDown,
        ErrorClass::Unreachable => ClassWord::Unreachable,
        ErrorClass::Busy => ClassWord::Busy,
        ErrorClass::Denied => ClassWord::Denied,
        ErrorClass::Unsupported => ClassWord::Unsupported,
        ErrorClass::Other(number) => ClassWord::Other(number),
    };
    Refusal {
        class,
        message: err.message.clone(),
    }
}

fn parse_error(refusal: Refusal) -> KernelError {
    let class = match refusal.class {
        ClassWord::Exists => ErrorClass::Exists,
        ClassWord::NotFound => ErrorClass::NotFound,
        ClassWord::NoDevice => ErrorClass::NoDevice,
        ClassWord::LinkDown => ErrorClass::LinkDown,
        ClassWord::Unreachable => ErrorClass::Unreachable,
        ClassWord::Busy => ErrorClass::Busy,
        ClassWord::Denied => ErrorClass::Denied,
        ClassWord::Unsupported => ErrorClass::Unsupported,
        ClassWord::Other(number) => ErrorClass::Other(number),
    };
    KernelError {
        class,
        message: refusal.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_is_read_back_from_its_line() {
        let state: State =
            "link flannel.1 vxlan vni 1 port 8472 nolearning mac e6:2c:26:5a:4c:4a mtu 1450 up\n\
             route 10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink proto 3\n\
             neigh flannel.1 10.244.84.0 mac 72:e5:67:00:44:8c\n\
             fdb flannel.1 72:e5:67:00:44:8c remote 192.168.77.13\n"
                .parse()
                .unwrap();
        let refusals = [
            ErrorClass::Exists,
            ErrorClass::NotFound,
            ErrorClass::NoDevice,
            ErrorClass::LinkDown,
            ErrorClass::Unreachable,
            ErrorClass::Busy,
            ErrorClass::Denied,
            ErrorClass::Unsupported,
            ErrorClass::Other(-7),
        ]
        .map(|class| KernelError {
            class,
            message: "a \"word\"\nand another".to_owned(),
        });
        let at = Duration::from_nanos(1_234_567_890_123);
        let [one, ..] = refusals.clone();
        let inputs = [
            Input::Goal(state.clone(), Prune::Keep),
            Input::Goal(state.clone(), Prune::Addrs),
            Input::Goal(State::default(), Prune::Remove),
            Input::Change {
                gone: Box::default(),
                wanted: Box::new(state.clone()),
            },
            Input::LookAgain,
            Input::LookAt(state.spots()),
            Input::Observed(at, Ok(state)),
            Input::Observed(at, Err(one)),
            Input::Applied([Ok(())].into_iter().chain(refusals.map(Err)).collect()),
            Input::Next(at),
        ];
        for input in inputs {
            let line = print(&input).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(parse(&line).unwrap(), input, "{line}");
        }
    }

    #[test]
    fn what_is_no_input_is_told_so() {
        for text in [
            "",
            "{}",
            "[1]",
            r#"{"next":{}}"#,
            r#"{"look_at":["fdb flannel.1"]}"#,
            r#"{"look_at":["link flannel.1"]}"#,
            r#"{"observed":{"at":1,"state":"route nonsense"}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
