//! Which kernel this host runs, and what is known of it.

use std::{fmt, fs};

/// A version of the kernel as its own developers number it: major, minor, patch level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32, pub u32);

/// What tells the version. Distributors number their releases by themselves, and some say elsewhere what is in them.
struct Told<'a> {
    /// `/proc/sys/kernel/osrelease`, as `uname -r` shows it.
    release: &'a str,
    /// `/proc/version`; Debian's ends with "Debian 4.19.316-1".
    version: &'a str,
    /// `/proc/version_signature`, "Ubuntu 5.4.0-42.46-generic 5.4.44"; only Ubuntu's kernels have it.
    signature: &'a str,
}

impl KernelVersion {
    /// The version of the running kernel; `None` if its release is not a version.
    #[must_use]
    pub fn running() -> Option<Self> {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Told {
            release: &text("/proc/sys/kernel/osrelease"),
            version: &text("/proc/version"),
            signature: &text("/proc/version_signature"),
        }
        .version()
    }

    /// Reads a version at the beginning of a text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?, next().unwrap_or(0)))
    }

    /// Whether packets of VXLAN whose checksum is left to the hardware may go out with a wrong one, if they are
    /// translated twice: until "netfilter: nat: never update the UDP checksum when it's 0" (linux 5.7, 5.6.13, 5.4.41,
    /// 4.19.123, 4.14.181).
    #[must_use]
    pub const fn spoils_checksums(self) -> bool {
        match self {
            Self(5, 6, patch) => patch < 13,
            Self(5, 4, patch) => patch < 41,
            Self(4, 19, patch) => patch < 123,
            Self(4, 14, patch) => patch < 181,
            Self(major, minor, _) => major < 5 || major == 5 && minor < 7,
        }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Told<'_> {
    fn version(&self) -> Option<KernelVersion> {
        let ubuntu = self.signature.split_whitespace().next_back();
        let mut words = self.version.split_whitespace();
        let debian = words.find(|word| *word == "Debian").and_then(|_| words.next());
        let more_exact = ubuntu.or(debian).and_then(KernelVersion::parse);
        more_exact.or_else(|| KernelVersion::parse(self.release))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_spoil_checksums_are_known() {
        let rows = [
            ("3.10.0-1160.el7.x86_64", true),
            ("4.14.180", true),
            ("4.14.181", false),
            ("4.15.0", true),
            ("4.19.122", true),
            ("4.19.123", false),
            ("5.4.40", true),
            ("5.4.41", false),
            ("5.6.12", true),
            ("5.6.13", false),
            ("5.7.0", false),
            ("5.10.0-rc1", false),
            ("6.18.44", false),
        ];
        for (release, spoils) in rows {
            let version = KernelVersion::parse(release).unwrap();
            assert_eq!(version.spoils_checksums(), spoils, "{release}");
        }
        assert_eq!(KernelVersion::parse("unknown"), None);
    }

    #[test]
    fn what_a_distributor_says_is_in_its_kernel_counts() {
        let debian = "Linux version 4.19.0-27-amd64 (debian-kernel@lists.debian.org) (gcc version 8.3.0 (Debian \
                      8.3.0-6)) #1 SMP Debian 4.19.316-1 (2024-06-25)";
        let rows = [
            ("4.19.0-27-amd64\n", debian, "", Some(KernelVersion(4, 19, 316))),
            (
                "5.4.0-42-generic",
                "Linux version 5.4.0-42-generic (buildd@lgw01) #46-Ubuntu SMP",
                "Ubuntu 5.4.0-42.46-generic 5.4.44\n",
                Some(KernelVersion(5, 4, 44)),
            ),
            (
                "4.18.0-553.el8",
                "Linux version 4.18.0-553.el8",
                "",
                Some(KernelVersion(4, 18, 0)),
            ),
            ("", "", "", None),
        ];
        for (release, version, signature, expected) in rows {
            let told = Told {
                release,
                version,
                signature,
            };
            assert_eq!(told.version(), expected, "{release}");
        }
    }
}
