use std::error::Error;

use cni_types::{Code, ConfError, DecodeError, EnvError, ResultError};
use net_types::sentence;

/// What a call ends with when it fails: the content of the error object, less its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind of failure it is.
    pub(crate) code: Code,
    /// One sentence that says what failed and why.
    pub(crate) msg: String,
    /// More, for whoever looks into it; may be empty.
    pub(crate) details: String,
}

impl Failure {
    /// Adds to the details what failed on the way out, after the first cause.
    pub(crate) fn append_details(&mut self, text: &str) {
        if text == self.msg {
            return;
        }
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(text);
    }

    /// Adds an error to the details.
    pub(crate) fn add_details(&mut self, error: &dyn Error) {
        self.append_details(&sentence(error));
    }
}

/// What failed of several steps that do not depend on each other.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Failures(Vec<Failure>);

impl Failures {
    /// Notes a step's failure; tells whether the step succeeded.
    pub(crate) fn note(&mut self, step: Result<(), impl Into<Failure>>) -> bool {
        match step {
            Ok(()) => true,
            Err(failure) => {
                self.0.push(failure.into());
                false
            }
        }
    }

    /// All as one: the first with its code, the others in its details.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        let mut failures = self.0.into_iter();
        let Some(mut first) = failures.next() else {
            return Ok(());
        };
        for Failure { msg, details, .. } in failures {
            for text in [msg, details].iter().filter(|text| !text.is_empty()) {
                first.append_details(text);
            }
        }
        Err(first)
    }
}

/// An error that knows its place in the specification.
pub(crate) trait CniError: Error {
    /// The code of the error object.
    fn code(&self) -> Code;

    /// The details of the error object.
    fn details(&self) -> String {
        String::new()
    }
}

impl<E: CniError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            code: error.code(),
            msg: sentence(&error),
            details: error.details(),
        }
    }
}

impl CniError for EnvError {
    fn code(&self) -> Code {
        Code::BAD_ENVIRONMENT
    }
}

impl CniError for ConfError {
    fn code(&self) -> Code {
        Self::code(self)
    }

    fn details(&self) -> String {
        Self::details(self)
    }
}

impl CniError for DecodeError {
    fn code(&self) -> Code {
        Code::DECODING
    }
}

impl CniError for ResultError {
    fn code(&self) -> Code {
        Code::DECODING
    }
}
