//! A weight file, read once: the bytes that are hashed are the bytes that become the model.

use super::ModelError;
use affectmill_base::hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The bytes of a weight file, independent of later changes to the file.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    bytes: Vec<u8>,
    sha256: String,
}

impl WeightFile {
    /// Reads a file whole into memory.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(ModelError::io("read the weights", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            sha256: hex(&Sha256::digest(&bytes)),
            bytes,
        })
    }

    /// Where it was read from; for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of its bytes, 64 lower-case hex digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
