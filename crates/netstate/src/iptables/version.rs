use std::str::FromStr;

/// A version of iptables, as `iptables --version` prints it: `iptables v1.8.9 (nf_tables)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IptablesVersion {
    /// Its numbers.
    pub numbers: (u32, u32, u32),
    /// Whether it keeps its rules in nf_tables.
    pub in_nf_tables: bool,
}

/// A text that is no version of iptables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of iptables, such as \"iptables v1.8.9 (nf_tables)\"")]
pub struct IptablesVersionError(String);

impl IptablesVersion {
    /// Whether it knows `MASQUERADE --random-fully`: since 1.6.2.
    #[must_use]
    pub fn has_random_fully(self) -> bool {
        self.numbers >= (1, 6, 2)
    }
}

impl FromStr for IptablesVersion {
    type Err = IptablesVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).ok_or_else(|| IptablesVersionError(text.trim().to_owned()))
    }
}

fn read(text: &str) -> Option<IptablesVersion> {
    let mut words = text.split_whitespace();
    let version = words.find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some(IptablesVersion {
        numbers: (major, minor, numbers.next().unwrap_or(Some(0))?),
        in_nf_tables: words.next() == Some("(nf_tables)"),
    })
}
