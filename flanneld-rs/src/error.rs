//! Errors as people read them.

use std::error::Error;

/// An error and its causes in one sentence.
#[must_use]
pub fn sentence(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text.push_str(": ");
        text.push_str(&err.to_string());
        cause = err.source();
    }
    text
}
