use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// RFC 7748 §6.1, Alice's keys.
#[test]
fn the_public_key_is_the_one_of_the_standard() {
    let private = WgSecret::new([
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf,
        0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
    ]);
    let public = [
        0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54, 0x74, 0x8b, 0x7d, 0xdc, 0xb4, 0x3e, 0xf7, 0x5a, 0x0d,
        0xbf, 0x3a, 0x0d, 0x26, 0x38, 0x1a, 0xf4, 0xeb, 0xa4, 0xa9, 0x8e, 0xaa, 0x9b, 0x4e, 0x6a,
    ];
    assert_eq!(public_key(&private), WgPublicKey::new(public));
}

#[test]
fn a_named_file_is_the_only_one() {
    let only = KeyFiles {
        first: "/etc/wgkey".into(),
        copy: None,
    };
    assert_eq!(KeyFiles::named(Some("/etc/wgkey".into())), only);
    let both = KeyFiles {
        first: "/run/flannel/wgkey".into(),
        copy: Some("/var/lib/flannel/wgkey".into()),
    };
    assert_eq!(KeyFiles::named(None), both);
    assert_eq!(KeyFiles::named(Some(OsString::new())), both);
}

#[test]
fn a_new_key_is_for_root_alone_and_stays() {
    let host = Host::new();
    let only = KeyFiles {
        copy: None,
        ..host.files.clone()
    };
    let key = only.read_or_make().unwrap();
    assert_eq!(mode(&only.first), 0o600);
    assert_eq!(only.read_or_make().unwrap(), key);
    assert!(!host.copy().exists());
    assert_ne!(Host::new().files.read_or_make().unwrap(), key);
    let bytes = key.reveal();
    assert_eq!((bytes[0] & 7, bytes[31] & 192), (0, 64));
}

#[test]
fn a_key_that_wg_made_is_taken() {
    let host = Host::new();
    host.write(&host.files.first, KEY);
    assert_eq!(host.read(), KEY.trim());
    // The kernel would report another one than it is told.
    host.write(&host.files.first, &KEY.replace("Hl8=", "Hh8="));
    assert_eq!(host.read(), KEY.trim());
}

#[test]
fn a_key_outlives_the_boot_that_empties_run() {
    let host = Host::new();
    let key = host.read();
    for _boot in 0..2 {
        assert_eq!(mode(host.copy()), 0o600);
        assert_eq!(mode(host.copy().parent().unwrap()), 0o700);
        fs::remove_dir_all(host.files.first.parent().unwrap()).unwrap();
        assert_eq!(host.read(), key);
        assert_eq!(fs::read_to_string(&host.files.first).unwrap(), key);
        assert_eq!(mode(&host.files.first), 0o600);
    }
}

/// Upstream makes a key while it runs on a node that was ours before: it is the one that peers know.
#[test]
fn upstreams_key_counts_and_is_copied() {
    let host = Host::new();
    let ours = host.read();
    host.write(&host.files.first, KEY);
    assert_eq!(host.read(), KEY.trim());
    assert_eq!(fs::read_to_string(host.copy()).unwrap(), KEY.trim());
    assert_ne!(ours, KEY.trim());
    // What is the same is not written again.
    let written = fs::metadata(host.copy()).unwrap().modified().unwrap();
    host.read();
    assert_eq!(fs::metadata(host.copy()).unwrap().modified().unwrap(), written);
}

#[test]
fn one_file_that_can_be_written_is_enough() {
    for blocked in ["run", "lib"] {
        let host = Host::new();
        host.block(blocked);
        let key = host.read();
        assert_eq!(host.read(), key, "{blocked}");
    }
    let host = Host::new();
    for blocked in ["run", "lib"] {
        host.block(blocked);
    }
    let refused = host.files.read_or_make();
    assert!(matches!(refused, Err(KeyFileError::Write(_))), "{refused:?}");
}

#[test]
fn a_file_with_something_else_is_left_alone_and_named_without_what_it_holds() {
    let host = Host::new();
    let check = |bad: &Path| {
        let err = host.files.read_or_make().unwrap_err().to_string();
        let named = format!("{} is to hold", bad.display());
        assert!(err.contains(&named) && !err.contains("secret"), "{err}");
        assert_eq!(fs::read_to_string(bad).unwrap(), "secret");
    };
    host.write(&host.files.first, "secret");
    check(&host.files.first);
    assert!(!host.copy().exists());

    fs::remove_file(&host.files.first).unwrap();
    host.write(host.copy(), "secret");
    check(host.copy());
    assert!(!host.files.first.exists());

    // The key that counts is another file's; what is in the copy is for a person to look at.
    host.write(&host.files.first, KEY);
    assert_eq!(host.read(), KEY.trim());
    assert_eq!(fs::read_to_string(host.copy()).unwrap(), "secret");
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHl8=\n";

/// A host with nothing on it.
struct Host {
    dir: TempDir,
    files: KeyFiles,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles {
            first: dir.path().join("run/wgkey"),
            copy: Some(dir.path().join("lib/wgkey")),
        };
        Self { dir, files }
    }

    /// Leads a directory to where nothing is, as a disk that is not there: not even root can write below.
    fn block(&self, dir: &str) {
        symlink("/nowhere/flannel", self.dir.path().join(dir)).unwrap();
    }

    fn copy(&self) -> &Path {
        self.files.copy.as_deref().unwrap()
    }

    fn read(&self) -> String {
        self.files.read_or_make().unwrap().reveal_text()
    }

    fn write(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
