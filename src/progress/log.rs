//! The event log: `_affectmill/events/<start>-<pid>.<n>.jsonl`, each event with its time, in pieces of which each says on its own
//! how the run stands. Progress is told every few seconds.
//!
//! In S3, where nothing can be appended to, the last piece is written anew every few seconds, on a thread of its own: a store
//! that is out of reach delays no run. What shows who had a video in hand, should the whole run die, is written at once.

use super::Sink;
use affectmill_labelset::events::{Event, Line, Recap, last_pieces, now_ms};
use affectmill_labelset::paths;
use affectmill_store::{Store, StoreError};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two uploads, and between two progress lines of one worker.
const INTERVAL: Duration = Duration::from_secs(5);
/// A piece of the log that has grown to this is followed by another one: on a disk, and in a store that takes it as a whole.
const PIECE: usize = 1 << 20;
const UPLOADED_PIECE: usize = 256 << 10;
/// Lines that wait for a store that is out of reach; what comes then is lost.
const MOST: usize = 4 << 20;
/// How long the end of a run waits for the last lines to be stored.
const FAREWELL: Duration = Duration::from_secs(10);
/// What is read of a log that an older affectmill wrote in one piece: of its beginning, and of its end.
const BEGINNING: u64 = 64 << 10;
const END: u64 = 4 << 20;

/// Keeps events in a log of this run's own. A log that cannot be written is no reason to stop.
pub struct Log {
    place: Place,
    /// When a progress line of each worker was last taken.
    progress: HashMap<usize, Instant>,
    recap: Recap,
    /// Bytes of the piece that is written, and of the recap it begins with.
    length: usize,
    recapped: usize,
}

enum Place {
    /// Lines are appended to a file.
    Folder(Files),
    /// Lines are uploaded now and then.
    Store(Uploads),
    /// It could not be opened, or not be written to.
    Lost,
}

impl Log {
    /// Opens the log of this run.
    pub fn create(store: &Store) -> Self {
        let name = format!("{}/{:013}-{}", paths::EVENTS, now_ms(), std::process::id());
        let place = match store.path(&name).as_local() {
            Some(path) => Files::create(path).map(Place::Folder),
            None => Uploads::start(store.clone(), name).map(Place::Store),
        };
        Self {
            place: place.unwrap_or(Place::Lost),
            progress: HashMap::new(),
            recap: Recap::default(),
            length: 0,
            recapped: 0,
        }
    }

    fn write(&mut self, line: &Line) {
        let text = line.text();
        self.length += text.len();
        match &mut self.place {
            // One write per line, so that a reader never sees half of one in the middle. A full disk stops the
            // log, not the run: the run will say so itself when it cannot commit.
            Place::Folder(files) => {
                if files.file.write_all(&text).is_err() {
                    self.place = Place::Lost;
                }
            }
            Place::Store(uploads) => {
                // It may be the last that the run gets to say.
                let urgent = match &line.event {
                    Event::Leased { .. } | Event::Strike { .. } => true,
                    Event::Opened { worker, .. } => self.recap.holds_suspect(*worker),
                    _ => false,
                };
                uploads.write(&text, urgent);
            }
            Place::Lost => {}
        }
    }

    fn is_full(&self) -> bool {
        let most = match self.place {
            Place::Store(_) => UPLOADED_PIECE,
            Place::Folder(_) | Place::Lost => PIECE,
        };
        // Of very many workers the recap alone may be as long.
        self.length >= most.max(4 * self.recapped)
    }

    fn begin_piece(&mut self) {
        let begun = match &mut self.place {
            Place::Folder(files) => files.next(),
            Place::Store(uploads) => {
                uploads.next();
                Ok(())
            }
            Place::Lost => return,
        };
        if begun.is_err() {
            self.place = Place::Lost;
        }
        self.length = 0;
        for line in self.recap.lines() {
            self.write(&line);
        }
        self.recapped = self.length;
    }
}

impl Sink for Log {
    fn event(&mut self, event: &Event) {
        if let Event::Progress { worker, .. } | Event::Waiting { worker, .. } = event {
            let now = Instant::now();
            match self.progress.get(worker) {
                Some(last) if now - *last < INTERVAL => return,
                _ => self.progress.insert(*worker, now),
            };
        }
        if self.is_full() {
            self.begin_piece();
        }
        let line = Line::now(event.clone());
        self.recap.add(&line);
        self.write(&line);
    }
}

/// Pieces in a folder.
struct Files {
    name: PathBuf,
    number: u32,
    file: File,
}

impl Files {
    fn create(name: &Path) -> io::Result<Self> {
        name.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(Self {
            name: name.into(),
            number: 1,
            file: open(name, 1)?,
        })
    }

    fn next(&mut self) -> io::Result<()> {
        self.number += 1;
        self.file = open(&self.name, self.number)?;
        Ok(())
    }
}

fn open(name: &Path, number: u32) -> io::Result<File> {
    let mut path = name.as_os_str().to_owned();
    path.push(piece(number));
    OpenOptions::new().append(true).create(true).open(path)
}

/// How the name of the `n`-th piece ends, counted from 1.
fn piece(number: u32) -> String {
    format!(".{number:05}.jsonl")
}

/// Lines on their way to a store.
struct Uploads {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
    number: u32,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Piece>,
    bytes: usize,
    urgent: bool,
    closing: bool,
    closed: bool,
}

#[derive(Default)]
struct Piece {
    number: u32,
    text: Vec<u8>,
}

impl Uploads {
    fn start(store: Store, name: String) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Waiting::default()), Condvar::new()));
        let theirs = shared.clone();
        thread::Builder::new()
            .name("event log".into())
            .spawn(move || upload(&store, &name, &theirs))?;
        Ok(Self { shared, number: 1 })
    }

    fn next(&mut self) {
        self.number += 1;
    }

    fn write(&mut self, text: &[u8], urgent: bool) {
        let (waiting, changed) = &*self.shared;
        let Ok(mut waiting) = waiting.lock() else { return };
        if waiting.bytes >= MOST {
            return;
        }
        waiting.bytes += text.len();
        add(&mut waiting.lines, self.number, text);
        if urgent {
            waiting.urgent = true;
            changed.notify_all();
        }
    }
}

fn add(pieces: &mut VecDeque<Piece>, number: u32, text: &[u8]) {
    match pieces.back_mut().filter(|piece| piece.number == number) {
        Some(piece) => piece.text.extend_from_slice(text),
        None => pieces.push_back(Piece {
            number,
            text: text.into(),
        }),
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let (waiting, changed) = &*self.shared;
        let Ok(mut guard) = waiting.lock() else { return };
        guard.closing = true;
        changed.notify_all();
        // Whether the last lines arrive in time or not.
        let _ = changed.wait_timeout_while(guard, FAREWELL, |waiting| !waiting.closed);
    }
}

fn upload(store: &Store, name: &str, shared: &(Mutex<Waiting>, Condvar)) {
    let (waiting, changed) = shared;
    // The first of them may be stored in part.
    let mut pieces = VecDeque::new();
    loop {
        let Ok(guard) = waiting.lock() else { return };
        let idle = |waiting: &mut Waiting| !waiting.closing && !waiting.urgent;
        let Ok((mut guard, _)) = changed.wait_timeout_while(guard, INTERVAL, idle) else {
            return;
        };
        let (fresh, closing) = (std::mem::take(&mut guard.lines), guard.closing);
        (guard.bytes, guard.urgent) = (0, false);
        drop(guard);
        let news = !fresh.is_empty();
        for piece in fresh {
            add(&mut pieces, piece.number, &piece.text);
        }
        while let Some(first) = pieces.front().filter(|_| news || pieces.len() > 1) {
            let key = format!("{name}{}", piece(first.number));
            // A failure was waited out already; the next round takes these lines along.
            if store.replace(&key, &first.text).is_err() || pieces.len() == 1 {
                break;
            }
            pieces.pop_front();
        }
        if closing {
            if let Ok(mut guard) = waiting.lock() {
                guard.closed = true;
                changed.notify_all();
            }
            return;
        }
    }
}

/// The lines that tell how the last run stands, or stood; none where there was no run. At most a few MiB are read.
pub fn newest(store: &Store) -> Result<Vec<Line>, StoreError> {
    let logs = store.list(paths::EVENTS)?;
    let Some(last) = last_pieces(logs.iter().map(|log| log.key.as_str())).pop() else {
        return Ok(Vec::new());
    };
    let Some(mut file) = store.file(last)? else {
        return Ok(Vec::new());
    };
    let text = beginning_and_end(&mut file).map_err(|source| StoreError::Io {
        operation: "read",
        path: store.path(last).to_string().into(),
        source,
    })?;
    Ok(Line::read(&text).collect())
}

fn beginning_and_end(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = file.metadata()?.len();
    if length > BEGINNING + END {
        file.take(BEGINNING).read_to_end(&mut text)?;
        // Of what lies between, half a line is left at either side.
        text.push(b'\n');
        file.seek(SeekFrom::Start(length - END))?;
    }
    file.read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use affectmill_base::{Fingerprint, Location, ShardId, VideoKey};
    use affectmill_labelset::StageSeconds;
    use affectmill_labelset::events::Totals;

    fn shard(n: u32) -> ShardId {
        ShardId::from_digest(&[[0; 4], n.to_be_bytes()].concat())
    }

    /// So many shards labelled by two workers in turn, of which one is in the midst of a long video all the time.
    fn run(shards: u32, mut tell: impl FnMut(Event)) {
        tell(Event::RunStarted {
            devices: Vec::new(),
            process: None,
            passed_over: Vec::new(),
            unseen: Default::default(),
            affectmill: String::new(),
            pid: 7,
            host: "here".into(),
            fingerprint: Fingerprint::from_digest(&[1; 32]),
            output: Location::Local("/out".into()),
            workers: 2,
            totals: Totals {
                unknown: 0,
                videos: shards as usize + 3,
                frames: 10 * u64::from(shards) + 1_000,
                shards: shards as usize + 3,
                shards_done: 1,
                frames_done: 100,
            },
        });
        let leased = |worker, shard, frames| Event::Leased {
            unknown: 0,
            worker,
            shard,
            videos: 1,
            frames,
            again: false,
            machine: None,
        };
        let opened = |worker, name: String| Event::Opened {
            worker,
            video: VideoKey::new(name).unwrap(),
        };
        for worker in 0..2 {
            tell(Event::WorkerStarted {
                worker,
                pid: 8,
                device: format!("cuda:{worker}"),
                gpu: None,
                host: None,
            });
            tell(Event::WorkerReady { worker });
        }
        tell(leased(0, shard(1_000_000), 900));
        tell(opened(0, "long.mp4".into()));
        for n in 0..shards {
            tell(leased(1, shard(n), 10));
            tell(opened(1, format!("{n:07}-{}.mp4", "x".repeat(100))));
            for frames in 0..10 {
                let rows = frames;
                tell(Event::Progress {
                    worker: 1,
                    frames,
                    rows,
                });
            }
            tell(Event::ShardDone {
                worker: 1,
                shard: shard(n),
                planned_frames: 10,
                frames: 10,
                rows: 10,
                ok: 1,
                seconds: StageSeconds::default(),
                fetched_bytes: 0,
                adopted: false,
            });
        }
    }

    fn state(lines: &[Line]) -> (u64, usize, Vec<String>) {
        let mut progress = Progress::new();
        lines.iter().for_each(|line| progress.event(&line.event));
        let workers = progress.workers.values();
        let workers = workers.map(|worker| format!("{} {}", worker.device, worker.doing));
        (progress.frames(), progress.totals.shards, workers.collect())
    }

    #[test]
    fn the_last_piece_alone_tells_how_a_run_stands() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(newest(&store).unwrap(), []);
        let mut log = Log::create(&store);
        run(9_000, |event| log.event(&event));
        let pieces = store.list(paths::EVENTS).unwrap();
        assert!(pieces.len() > 3, "{pieces:?}");
        let longest = pieces.iter().map(|piece| piece.bytes).max().unwrap();
        assert!(longest <= PIECE as u64 + 4_096, "{longest}");
        let newest = newest(&store).unwrap();
        let expected = vec!["cuda:0 long.mp4".to_owned(), "cuda:1 idle".to_owned()];
        assert_eq!(state(&newest), (100 + 90_000, 9_003, expected));
        let keys: Vec<String> = pieces.into_iter().map(|piece| piece.key).collect();
        let all = store
            .get_each(&keys)
            .unwrap()
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .concat();
        let all: Vec<Line> = Line::read(&all).collect();
        assert_eq!(state(&all), state(&newest));
        assert_eq!((newest[0].at_ms, newest[0].recap), (all[0].at_ms, true));
        // Of ten signs of life in a moment one is kept.
        let told = all
            .iter()
            .filter(|line| matches!(line.event, Event::Progress { .. }))
            .count();
        assert!(told < 100, "{told}");
    }

    #[test]
    fn of_a_long_log_in_one_piece_beginning_and_end_are_read() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut text = Vec::new();
        run(30_000, |event| text.extend(Line::now(event).text()));
        assert!(text.len() as u64 > 2 * END);
        store
            .replace("_affectmill/events/0000000000001-7.jsonl", &text)
            .unwrap();
        let newest = newest(&store).unwrap();
        assert!(matches!(newest[0].event, Event::RunStarted { .. }));
        assert!(matches!(newest.last().unwrap().event, Event::ShardDone { .. }));
        assert!(newest.len() < 60_000, "{}", newest.len());
    }
}
