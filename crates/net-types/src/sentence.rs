use std::error::Error;

/// An error and its causes in one sentence, as a person or another program gets to read it: the messages of this
/// project do not repeat their sources.
#[must_use]
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn causes_follow_the_error_in_their_order() {
        let cause = Layer("no space", None);
        let error = Layer("cannot write", Some(Box::new(cause)));
        let error = Layer("cannot store the lease", Some(Box::new(error)));
        assert_eq!(sentence(&error), "cannot store the lease: cannot write: no space");
        assert_eq!(sentence(&Layer("alone", None)), "alone");
    }
}
