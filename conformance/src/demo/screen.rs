use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

/// Where the demonstration is shown: lines of text, with colours on a terminal only.
pub(super) struct Screen {
    out: Box<dyn Write>,
    colour: bool,
}

impl Screen {
    /// The standard output; colours when it is a terminal and `NO_COLOR` is unset.
    pub(super) fn stdout() -> Self {
        let out = std::io::stdout();
        let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: Box::new(out),
            colour,
        }
    }

    /// Any other place, without colours.
    #[cfg(test)]
    pub(super) fn plain(out: Box<dyn Write>) -> Self {
        Self { out, colour: false }
    }

    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "{text}").context("writing to the standard output")
    }

    pub(super) fn heading(&mut self, text: &str) -> Result<()> {
        let text = self.bold(text);
        self.line(&format!("\n{text}"))
    }

    /// Tells what is being done; [`Screen::end`] finishes the line.
    pub(super) fn begin(&mut self, text: &str) -> Result<()> {
        write!(self.out, "{text} … ").context("writing to the standard output")?;
        self.out.flush().context("writing to the standard output")
    }

    pub(super) fn end(&mut self, text: &str) -> Result<()> {
        self.line(text)
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.painted("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.painted("2", text)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.painted("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.painted("31;1", text)
    }

    /// ECMA-48 §8.3.117, Select Graphic Rendition.
    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
