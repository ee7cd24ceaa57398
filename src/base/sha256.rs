//! SHA-256 (FIPS 180-4) as 64 lower-case hex digits.

use crate::hex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Checksum and length of a file's content, from the same read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256File {
    /// The digest, hex.
    pub sha256: String,
    /// Bytes that were read.
    pub bytes: u64,
}

/// The digest of bytes in memory.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digest of a file, read once in pieces; memory does not grow with the file.
///
/// # Errors
/// The operating system's error; it does not name the file.
pub fn sha256_file(path: &Path) -> io::Result<Sha256File> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => {
                return Ok(Sha256File {
                    sha256: hex(&hasher.finalize()),
                    bytes,
                });
            }
            Ok(count) => {
                hasher.update(&piece[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: FIPS 180-4 example messages (NIST), among them one million times `a`.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const MILLION: &str = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

    #[test]
    fn published_digests() {
        assert_eq!(sha256_hex(b""), EMPTY);
        assert_eq!(sha256_hex(b"abc"), ABC);
    }

    #[test]
    fn a_file_longer_than_a_piece() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![b'a'; 1_000_000]).unwrap();
        let expected = Sha256File {
            sha256: MILLION.into(),
            bytes: 1_000_000,
        };
        assert_eq!(sha256_file(&path).unwrap(), expected);
        assert!(sha256_file(&folder.path().join("missing")).is_err());
    }
}
