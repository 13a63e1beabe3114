use std::io;
use std::path::Path;

use cni_types::Dns;
use statefile::Action;

/// Reads a file of the form of `/etc/resolv.conf` (resolver(5)); it must exist.
pub(super) fn read(path: &Path) -> Result<Dns, statefile::Error> {
    let text = statefile::read_text(path)?;
    let missing = || statefile::Error::of(Action::Open, path)(io::ErrorKind::NotFound.into());
    let text = text.ok_or_else(missing)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.nameservers.extend(words.next().map(str::to_owned)),
            Some("domain") => dns.domain = words.next().map(str::to_owned),
            Some("search") => dns.search.extend(words.map(str::to_owned)),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            Some(_) | None => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_comments_passed_over() {
        let dns =
            parse("# x\nnameserver 10.0.0.10\n;y\nsearch a.b c.d\noptions ndots:5\ndomain e.f\nsortlist 1\n");
        assert_eq!(dns.nameservers, ["10.0.0.10"]);
        assert_eq!(dns.search, ["a.b", "c.d"]);
        assert_eq!(dns.options, ["ndots:5"]);
        assert_eq!(dns.domain.as_deref(), Some("e.f"));
    }
}
