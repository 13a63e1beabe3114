//! What all pages and XML files are made with.

/// How a page looks, in a light and a dark window.
const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #8884; }
code { font: 13px/1.4 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
dt { font-weight: 600; } dd { margin: 0 0 .3rem 1rem; }
td:first-child { font-weight: 600; white-space: nowrap; }
.pass { color: #188038; } .bad { color: #d93025; } .known { color: #b06000; } .skip { color: #888; }
.small { font-size: 13px; opacity: .8; }
";

/// An HTML page that needs no other file, from its title, what its style has beyond the common one, and its contents
/// below the title in HTML.
pub(crate) fn page(title: &str, style: &str, contents: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/>\n<title>{title}</title>\n\
         <style>{STYLE}{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{contents}</body>\n</html>\n"
    )
}

/// A text as it stands in XML and HTML, in contents and in quoted attributes. Control characters, which XML 1.0 cannot
/// hold in any form (§2.2), become U+FFFD.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// How tests look at pages.
#[cfg(test)]
pub(crate) mod check {
    /// What is between the tags of each element of that name, its attributes included.
    pub(crate) fn elements<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{name}"), format!("</{name}>"));
        let mut found = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_once(&open) {
            let (inside, behind) = after.split_once(&close).unwrap_or((after, ""));
            found.push(inside.strip_prefix('>').unwrap_or(inside));
            rest = behind;
        }
        found
    }

    /// Whether each element is closed where it must be, attributes are in quotes, and no character that is markup
    /// stands in a text (XML 1.0 §2.1).
    pub(crate) fn is_well_formed(text: &str) -> Result<(), String> {
        let body = text
            .strip_prefix("<!doctype html>\n")
            .ok_or("there is no doctype")?;
        let mut open: Vec<&str> = Vec::new();
        for part in body.split('<').skip(1) {
            let (tag, words) = part.split_once('>').ok_or(format!("<{part} does not end"))?;
            if words.contains('>') || !entities_are_known(words) || !entities_are_known(tag) {
                return Err(format!("{part:?} has a bare character"));
            }
            if let Some(name) = tag.strip_prefix('/') {
                let opened = open.pop();
                if opened != Some(name) {
                    return Err(format!("</{name}> ends {opened:?}"));
                }
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            let attributes = tag.strip_prefix(name).unwrap_or_default().trim_end_matches('/');
            if attributes.split('"').count() % 2 == 0 || attributes.split('"').step_by(2).any(is_value) {
                return Err(format!("<{tag}> has attributes without quotes"));
            }
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        if open.is_empty() {
            Ok(())
        } else {
            Err(format!("{open:?} are not closed"))
        }
    }

    /// Whether what is outside quotes is more than ` name=`.
    fn is_value(outside: &str) -> bool {
        let name = outside
            .trim_start()
            .strip_suffix('=')
            .unwrap_or(outside.trim_start());
        name.contains(['=', ' ', '\''])
    }

    fn entities_are_known(text: &str) -> bool {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        let mut entities = text.split('&').skip(1);
        entities.all(|entity| known.iter().any(|known| entity.starts_with(known)))
    }

    #[test]
    fn pages_with_flaws_are_seen() {
        for flawed in [
            "<p>a<b></p>",
            "<p>a & b</p>",
            "<p>a > b</p>",
            "<p class=x>a</p>",
            "<p class=\"x>a</p>",
            "<p>",
            "</p>",
            "<p",
        ] {
            let page = format!("<!doctype html>\n{flawed}");
            assert!(is_well_formed(&page).is_err(), "{flawed}");
        }
        let good = "<!doctype html>\n<p class=\"x y\" id=\"&lt;\">a&amp;b<br/></p>";
        assert_eq!(is_well_formed(good), Ok(()));
        assert_eq!(elements(good, "p"), [" class=\"x y\" id=\"&lt;\">a&amp;b<br/>"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_taken_for_markup() {
        assert_eq!(
            escaped("<a href=\"x\">&'\u{0}\u{1b}\u{ffff}\n"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}\u{fffd}\u{fffd}\n"
        );
        assert_eq!(escaped("Größe 1 €"), "Größe 1 €");
    }
}
