//! What goes wrong, and when.

use serde::Deserialize;

/// Something that is to go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// The requests that it concerns: those whose `METHOD /path?query` holds this text; the empty one is in all.
    #[serde(default)]
    pub at: String,
    /// What happens.
    pub trouble: Trouble,
    /// How many requests it befalls; `None` is all to come.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It is refused.
    Refuse {
        /// The HTTP status.
        code: u16,
        /// Seconds after which to try again.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// The answer comes this many milliseconds late.
    Delay(u64),
    /// Nothing is ever answered.
    Hang,
    /// The connection breaks after this many bytes of the answer's body.
    Cut(usize),
    /// A watch gets an event that ends it.
    ErrorEvent {
        /// The code in it.
        code: u16,
    },
}

/// The faults that are in force.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What befalls a request; the first fault that concerns it.
    pub(crate) fn strike(&mut self, line: &str) -> Option<Trouble> {
        let fault = self
            .0
            .iter_mut()
            .find(|fault| fault.times != Some(0) && line.contains(&fault.at))?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.trouble.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_befalls_as_many_requests_as_it_should() {
        let mut faults = Faults::default();
        faults.add(Fault {
            at: "watch=true".to_owned(),
            trouble: Trouble::Hang,
            times: Some(2),
        });
        assert_eq!(faults.strike("GET /api/v1/nodes?limit=500"), None);
        for expected in [Some(Trouble::Hang), Some(Trouble::Hang), None] {
            assert_eq!(faults.strike("GET /api/v1/nodes?watch=true"), expected);
        }
    }

    #[test]
    fn a_fault_is_read_from_json() {
        let text = r#"{"at":"PATCH","trouble":{"refuse":{"code":429,"retry_after":1}},"times":1}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        let expected = Trouble::Refuse {
            code: 429,
            retry_after: Some(1),
        };
        assert_eq!(fault.trouble, expected);
        assert_eq!(
            serde_json::from_str::<Trouble>("\"hang\"").unwrap(),
            Trouble::Hang
        );
    }
}
