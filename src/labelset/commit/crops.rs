//! What a tar shard of crops holds, read to be held against the rows of its part.

use affectmill_base::Fingerprint;
use affectmill_base::SampleName;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};

/// Video, frame and index of a face.
pub(super) type Key = (String, u64, i32);

/// The samples of a shard; an error says why it is none of this label set's.
pub(super) fn samples(file: File, fingerprint: &Fingerprint) -> Result<BTreeSet<Key>, String> {
    #[derive(Deserialize)]
    struct Said {
        fingerprint: String,
    }
    let broken = |error: std::io::Error| format!("it is no whole tar file ({error})");
    let (mut pictures, mut texts) = (BTreeSet::new(), BTreeSet::new());
    let mut archive = tar::Archive::new(BufReader::new(file));
    for member in archive.entries().map_err(broken)? {
        let mut member = member.map_err(broken)?;
        let path = member.path_bytes().into_owned();
        let name = std::str::from_utf8(&path).ok().and_then(SampleName::parse);
        let name =
            name.ok_or_else(|| format!("its member `{}` is no crop", String::from_utf8_lossy(&path)))?;
        let key = (name.video.to_owned(), name.frame, name.face);
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(broken)?;
        let first = if name.ending == "jpg" {
            pictures.insert(key)
        } else {
            let said: Said = serde_json::from_slice(&bytes).map_err(|error| format!("`{name}`: {error}"))?;
            if said.fingerprint != fingerprint.as_str() {
                return Err(format!(
                    "`{name}` was labelled under fingerprint {}",
                    said.fingerprint
                ));
            }
            texts.insert(key)
        };
        if !first {
            return Err(format!("`{name}` is there twice"));
        }
    }
    if pictures != texts {
        return Err("it has crops without labels, or labels without crops".into());
    }
    Ok(pictures)
}
