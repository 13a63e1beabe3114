use std::fmt;
use std::iter::Peekable;
use std::str::{Chars, FromStr};

use super::TextError;

/// A word as it is printed: in quotes where it would not be read back without them.
pub(super) struct Word<'a>(pub(super) &'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '#');
        if !self.0.is_empty() && !self.0.contains(special) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' ' => f.write_str(" ")?,
                c if c.is_whitespace() || c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

/// The words of one line, taken from the front.
pub(super) struct Words {
    rest: std::vec::IntoIter<String>,
}

impl Words {
    /// Splits a line at white space, minding quotes.
    pub(super) fn split(line: &str) -> Result<Self, TextError> {
        let mut chars = line.chars().peekable();
        let mut words = Vec::new();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            match chars.peek() {
                None => break,
                Some('"') => words.push(quoted(&mut chars).ok_or_else(|| TextError::Quote(line.to_owned()))?),
                Some(_) => words.push(bare(&mut chars)),
            }
        }
        Ok(Self {
            rest: words.into_iter(),
        })
    }

    /// Takes the next word.
    pub(super) fn next(&mut self, expected: &'static str) -> Result<String, TextError> {
        self.rest.next().ok_or(TextError::Ends { expected })
    }

    /// Takes the next word, which must be a value of type `T`.
    pub(super) fn value<T: FromStr>(&mut self, expected: &'static str) -> Result<T, TextError> {
        let word = self.next(expected)?;
        word.parse().map_err(|_| TextError::Unexpected { word, expected })
    }

    /// Takes the next word, which must be this one.
    pub(super) fn keyword(&mut self, keyword: &'static str) -> Result<(), TextError> {
        let word = self.next(keyword)?;
        if word == keyword {
            return Ok(());
        }
        Err(TextError::Unexpected {
            word,
            expected: keyword,
        })
    }

    /// Takes the next word if there is one.
    pub(super) fn optional(&mut self) -> Option<String> {
        self.rest.next()
    }

    /// Checks that nothing is left.
    pub(super) fn end(&mut self) -> Result<(), TextError> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(TextError::Unexpected {
                word,
                expected: "the end of the line",
            }),
        }
    }
}

fn bare(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
        word.push(c);
    }
    word
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'"')?;
    let mut word = String::new();
    loop {
        match chars.next()? {
            '"' => break,
            '\\' => word.push(escaped(chars)?),
            c => word.push(c),
        }
    }
    chars.peek().is_none_or(|c| c.is_whitespace()).then_some(word)
}

fn escaped(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
    match chars.next()? {
        c @ ('"' | '\\') => Some(c),
        'u' => {
            chars.next_if_eq(&'{')?;
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_hexdigit) {
                digits.push(digit);
            }
            chars.next_if_eq(&'}')?;
            char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
        }
        _ => None,
    }
}
