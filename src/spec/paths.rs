//! Resolves the locations of a job: makes paths absolute, parses `file://` and `s3://`, rejects unsupported schemes.

use super::tree::Node;
use super::{Job, Place, Problem};
use affectmill_base::{BadBucket, Location};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Why a location of a job is invalid; the message continues "`key` is …: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum PathError {
    #[error("it is empty; name a path")]
    Empty,
    #[error("no path holds a NUL character")]
    Nul,
    #[error("`{0}://` is not available here; use s3://bucket/prefix or a path on this machine's disks")]
    Scheme(String),
    #[error("{} cannot be resolved: {cause}", base.display())]
    Base { base: PathBuf, cause: io::Error },
    #[error("a file uri holds an absolute path: write file:///folder, or a plain path")]
    RelativeUri,
    #[error("it has a `%` that is not followed by the two hex digits of UTF-8 text; write %25 for `%`")]
    Percent,
    #[error("training reads from disks; fetch it first, with `aws s3 sync` for instance")]
    Remote,
    #[error(transparent)]
    Bucket(BadBucket),
}

/// Makes every path of the job absolute: those of the file relative to the folder of `job_file`, those of overrides to
/// the current directory. Returns the problems.
pub(super) fn resolve(job: &mut Job, tree: &Node, job_file: &Path) -> Vec<Problem> {
    let mut places = vec![
        (
            &mut job.input.uri,
            "input.uri".to_string(),
            tree.place_of(&["input", "uri"]),
        ),
        (
            &mut job.output.uri,
            "output.uri".to_string(),
            tree.place_of(&["output", "uri"]),
        ),
    ];
    let faces = &mut job.faces;
    for (key, path) in [("detector", &mut faces.detector), ("labels", &mut faces.labels)] {
        if let Some(path) = path {
            places.push((path, format!("faces.{key}"), tree.place_of(&["faces", key])));
        }
    }
    for (index, model) in job.models.iter_mut().enumerate() {
        let place = tree.place_of(&["models", &index.to_string(), "weights"]);
        places.push((
            &mut model.weights,
            format!("models.{}.weights", model.name),
            place,
        ));
        for (at, weights) in model.also.iter_mut().enumerate() {
            let place = tree.place_of(&["models", &index.to_string(), "also", &at.to_string()]);
            places.push((weights, format!("models.{}.also", model.name), place));
        }
    }
    let mut problems = Vec::new();
    for (path, key, place) in places {
        let base = match &place {
            Place::Override(_) => Path::new("."),
            _ => folder_of(job_file),
        };
        // The file was read as text, so this is UTF-8.
        let written = path.to_string();
        let found = match path {
            Location::S3 { .. } => continue,
            Location::Local(_) if written.starts_with("s3://") => {
                Location::parse(&written).map_err(PathError::Bucket)
            }
            Location::Local(_) => absolute(&written, base).map(Location::Local),
        };
        match found {
            Ok(found) => *path = found,
            Err(cause) => problems.push(Problem::new(place, format!("`{key}` is {written:?}: {cause}"))),
        }
    }
    let local = [
        ("run", "scratch", &mut job.run.scratch),
        ("nats", "credentials", &mut job.nats.credentials),
        ("nats", "ca", &mut job.nats.ca),
    ];
    for (section, key, path) in local {
        let Some(path) = path else { continue };
        let place = tree.place_of(&[section, key]);
        let base = match &place {
            Place::Override(_) => Path::new("."),
            _ => folder_of(job_file),
        };
        let written = path.to_string_lossy().into_owned();
        match absolute(&written, base) {
            Ok(found) => *path = found,
            Err(cause) => problems.push(Problem::new(
                place,
                format!("`{section}.{key}` is {written:?}: {cause}"),
            )),
        }
    }
    problems
}

/// Makes a path of a local file or folder absolute, as [`resolve`] does.
pub(super) fn resolve_local(path: &mut PathBuf, place: &Place, job_file: &Path) -> Result<(), PathError> {
    let base = match place {
        Place::Override(_) => Path::new("."),
        _ => folder_of(job_file),
    };
    let written = path.to_string_lossy().into_owned();
    if written.starts_with("s3://") {
        return Err(PathError::Remote);
    }
    *path = absolute(&written, base)?;
    Ok(())
}

fn folder_of(job_file: &Path) -> &Path {
    job_file
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."))
}

fn absolute(written: &str, base: &Path) -> Result<PathBuf, PathError> {
    if written.is_empty() {
        return Err(PathError::Empty);
    }
    if written.contains('\0') {
        return Err(PathError::Nul);
    }
    let path = match written.split_once("://") {
        Some(("file", rest)) => file_uri(rest)?,
        Some((scheme, _)) if is_scheme(scheme) => {
            return Err(PathError::Scheme(scheme.into()));
        }
        _ => PathBuf::from(written),
    };
    // The real path of the base has no symbolic links, so going up from it by text is exact; `..` after a named
    // component is kept, because that component may be a link.
    let base = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        base.canonicalize().map_err(|cause| PathError::Base {
            base: base.into(),
            cause,
        })?
    };
    let mut whole = base.clone();
    for component in path.components() {
        match component {
            Component::ParentDir if base.starts_with(&whole) => {
                whole.pop();
            }
            Component::CurDir => {}
            // An absolute path's root replaces the base.
            other => whole.push(other),
        }
    }
    Ok(whole)
}

/// RFC 3986: a letter, then letters, digits, `+`, `-`, `.`.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// The rest of a `file://` uri (RFC 8089): an absolute path, percent-encoded, after an empty host or `localhost`.
fn file_uri(rest: &str) -> Result<PathBuf, PathError> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(PathError::RelativeUri);
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut pieces = path.split('%');
    bytes.extend(pieces.next().unwrap_or_default().bytes());
    for piece in pieces {
        let digits = piece
            .get(..2)
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or(PathError::Percent)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| PathError::Percent)?);
        bytes.extend(piece[2..].bytes());
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.into()),
        _ => Err(PathError::Percent),
    }
}
