//! Whether what came is what was stored.

use super::Object;
use affectmill_base::hex;
use md5::{Digest, Md5};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Checksums of a file, hex.
#[derive(Debug, PartialEq)]
pub(super) struct Sums {
    sha256: String,
    md5: String,
}

impl Sums {
    pub fn of(file: &File) -> std::io::Result<Self> {
        let mut sha256 = sha2::Sha256::default();
        let mut md5 = Md5::new();
        let mut piece = vec![0; 1 << 18];
        let mut at = 0;
        loop {
            let count = file.read_at(&mut piece, at)?;
            if count == 0 {
                break;
            }
            sha2::Digest::update(&mut sha256, &piece[..count]);
            md5.update(&piece[..count]);
            at += count as u64;
        }
        Ok(Self {
            sha256: hex(&sha2::Digest::finalize(sha256)),
            md5: hex(&md5.finalize()),
        })
    }

    /// Whether they are those of an object, as far as is known: its SHA-256, else its tag where `may_be_md5`.
    pub fn fit(&self, object: &Object, may_be_md5: bool) -> bool {
        let looks_like_md5 = object.etag.len() == 32 && object.etag.bytes().all(|b| b.is_ascii_hexdigit());
        match &object.sha256 {
            Some(sha256) => self.sha256 == *sha256,
            // Of an upload in parts the tag is something else, and ends in a `-` and their number.
            None => !(may_be_md5 && looks_like_md5) || self.md5.eq_ignore_ascii_case(&object.etag),
        }
    }
}
