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
fn a_new_key_is_for_root_alone_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/wgkey");
    let key = read_or_make(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read_or_make(&path).unwrap(), key);
    assert_ne!(read_or_make(&dir.path().join("other")).unwrap(), key);
    let bytes = key.reveal();
    assert_eq!((bytes[0] & 7, bytes[31] & 192), (0, 64));
}

#[test]
fn a_key_that_wg_made_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgkey");
    let text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHl8=\n";
    fs::write(&path, text).unwrap();
    assert_eq!(read_or_make(&path).unwrap().reveal_text(), text.trim());
    // The kernel would report another one than it is told.
    fs::write(&path, text.replace("Hl8=", "Hh8=")).unwrap();
    assert_eq!(read_or_make(&path).unwrap().reveal_text(), text.trim());
}

#[test]
fn a_file_with_something_else_is_left_alone_and_named_without_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wgkey");
    fs::write(&path, "secret").unwrap();
    let err = read_or_make(&path).unwrap_err().to_string();
    assert!(
        err.contains("wgkey is to hold") && !err.contains("secret"),
        "{err}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
}
