//! The tar shards of a training. There may be more of them than a process can hold open, so they are opened as they are wanted.

use super::error::TrainError;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Archives held open at most; a process usually may hold 1,024 files.
const OPEN: usize = 128;

/// Archives by number, in the order in which they were added.
#[derive(Default)]
pub struct Archives {
    known: Vec<(PathBuf, Stamp)>,
    /// The one that was used last comes last.
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

/// What tells a file from one that took its place: inode, bytes, time of the last change in seconds and nanoseconds.
#[derive(Clone, Copy, PartialEq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        ))
    }
}

impl Archives {
    /// Adds an archive; its number, and the file to be looked through.
    pub fn add(&mut self, path: &Path) -> io::Result<(usize, File)> {
        let file = File::open(path)?;
        self.known.push((path.into(), Stamp::of(&file)?));
        Ok((self.known.len() - 1, file))
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Where an archive lies.
    pub fn path(&self, archive: usize) -> &Path {
        &self.known[archive].0
    }

    /// Fills `bytes` from an archive, from byte `start` on.
    ///
    /// # Errors
    /// [`TrainError::Data`] when it cannot be read, or is another file than the one that was added.
    pub fn read(&self, archive: usize, start: u64, bytes: &mut [u8]) -> Result<(), TrainError> {
        let failed = || TrainError::data(self.path(archive));
        let file = match self.at_hand(archive) {
            Some(file) => file,
            None => {
                let file = File::open(self.path(archive)).map_err(failed())?;
                if Stamp::of(&file).map_err(failed())? != self.known[archive].1 {
                    return Err(TrainError::Data {
                        path: self.path(archive).into(),
                        cause: "was replaced since the training began; start it again, and leave its data alone meanwhile"
                            .into(),
                    });
                }
                let file = Arc::new(file);
                self.keep(archive, &file);
                file
            }
        };
        file.read_exact_at(bytes, start).map_err(failed())
    }

    fn at_hand(&self, archive: usize) -> Option<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(of, _)| *of == archive)?;
        let found = open.remove(at)?;
        let file = Arc::clone(&found.1);
        open.push_back(found);
        Some(file)
    }

    fn keep(&self, archive: usize, file: &Arc<File>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have opened it meanwhile.
        open.retain(|(of, _)| *of != archive);
        open.push_back((archive, Arc::clone(file)));
        if open.len() > OPEN {
            open.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open_files(folder: &Path) -> usize {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(folder)).count()
    }

    #[test]
    fn few_of_many_are_open_and_each_is_read_right() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut archives = Archives::default();
        for n in 0..1500_u32 {
            let path = root.join(format!("{n}.tar"));
            fs::write(&path, [n.to_le_bytes(), (n + 7).to_le_bytes()].concat()).unwrap();
            assert_eq!(archives.add(&path).unwrap().0, n as usize);
        }
        assert_eq!(open_files(&root), 0);
        // In an order without one, some again and again.
        for step in 0..4000_u32 {
            let n = if step % 3 == 0 { 5 } else { step * 811 % 1500 };
            let mut bytes = [0; 4];
            archives.read(n as usize, 4, &mut bytes).unwrap();
            assert_eq!(u32::from_le_bytes(bytes), n + 7);
        }
        assert_eq!(open_files(&root), OPEN);
    }

    #[test]
    fn a_replaced_archive_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut archives = Archives::default();
        let path = folder.path().join("part-1.tar");
        fs::write(&path, "four").unwrap();
        archives.add(&path).unwrap();
        fs::write(&path, "fours").unwrap();
        let error = archives.read(0, 0, &mut [0; 4]).unwrap_err().to_string();
        assert!(
            error.contains("part-1.tar") && error.contains("was replaced since the training began"),
            "{error}"
        );
    }
}
