//! Files that are either there whole or not there.

use super::sync_folder;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, TempPath};

/// A file that could not be written; an earlier file at that path is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {step}: {cause}{remedy}", path.display(), remedy = remedy(cause.kind()))]
pub struct WriteError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// The step that failed.
    pub step: &'static str,
    /// The operating system's answer.
    #[source]
    pub cause: io::Error,
}

fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "; free space on that disk and try again",
        io::ErrorKind::QuotaExceeded => "; your quota on that disk is used up: free space and try again",
        io::ErrorKind::PermissionDenied => "; get write permission for that folder, or choose another",
        io::ErrorKind::ReadOnlyFilesystem => "; choose a folder on a disk that is not mounted read-only",
        io::ErrorKind::NotFound => "; make its folder first",
        _ => "",
    }
}

/// Writes a file atomically: a reader, or a crash at any moment, sees the old file or the new one.
///
/// An [`AtomicFile`] of bytes in memory.
///
/// # Errors
/// [`WriteError`]; the temporary file is gone then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = AtomicFile::create(path)?;
    match file.write_all(bytes) {
        Ok(()) => file.finish(),
        Err(cause) => Err(file.failed(cause)),
    }
}

/// A file that is written in pieces and renamed into place by [`finish`](Self::finish); dropped before that, it is deleted.
///
/// The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name by a rename, which
/// is flushed too. An existing file is replaced; the usual permissions (`0666` less the umask) apply.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // Not a `NamedTempFile`: its errors would name the temporary path.
    file: BufWriter<File>,
    temporary: TempPath,
}

impl AtomicFile {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// [`WriteError`] when no temporary file can be made beside it.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        let mut builder = Builder::new();
        builder.prefix(".").suffix(".tmp");
        #[cfg(unix)]
        {
            // Others may read the file, so it must not keep the private mode of a temporary file.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder
            .tempfile_in(folder_of(path))
            .map_err(fail(path, "making a temporary file beside it"))?;
        let (file, temporary) = file.into_parts();
        Ok(Self {
            path: path.into(),
            file: BufWriter::new(file),
            temporary,
        })
    }

    /// The error for a failed write.
    pub fn failed(&self, cause: io::Error) -> WriteError {
        fail(&self.path, "writing its bytes")(cause)
    }

    /// Flushes the file and renames it into place.
    ///
    /// # Errors
    /// [`WriteError`]; the temporary file is gone then.
    pub fn finish(self) -> Result<(), WriteError> {
        let Self {
            path,
            file,
            temporary,
        } = self;
        let file = file
            .into_inner()
            .map_err(|error| fail(&path, "writing its bytes")(error.into_error()))?;
        file.sync_all().map_err(fail(&path, "flushing it to the disk"))?;
        temporary
            .persist(&path)
            .map_err(|error| fail(&path, "giving it its name")(error.error))?;
        sync_folder(folder_of(&path)).map_err(fail(&path, "flushing its folder to the disk"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."))
}

fn fail(path: &Path, step: &'static str) -> impl Fn(io::Error) -> WriteError {
    let path = path.to_path_buf();
    move |cause| WriteError {
        path: path.clone(),
        step,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        std::fs::read_dir(folder).unwrap().map(name).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomic(&path, b"first, and longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn others_may_read_it_as_far_as_the_umask_lets_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode();
        write_atomic(&folder.path().join("ours"), b"x").unwrap();
        std::fs::write(folder.path().join("plain"), b"x").unwrap();
        assert_eq!(mode("ours"), mode("plain"));
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/folder/a.json");
        let error = write_atomic(&missing, b"x").unwrap_err().to_string();
        assert!(
            error.contains("no/such/folder/a.json") && error.contains("make its folder first"),
            "{error}"
        );

        // The rename fails at the very end: a folder has the name.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = write_atomic(&taken, b"x").unwrap_err().to_string();
        assert!(error.contains("taken: giving it its name"), "{error}");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_full_disk_says_so() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = WriteError {
            path: "/x/a.json".into(),
            step: "writing its bytes",
            cause,
        }
        .to_string();
        assert!(
            error.starts_with("cannot write /x/a.json: writing its bytes: No space left on device"),
            "{error}"
        );
        assert!(
            error.ends_with("free space on that disk and try again"),
            "{error}"
        );
    }
}
