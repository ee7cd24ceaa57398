//! What a host lets a posted job do. Whoever may post a job otherwise decides what its workers run, read and write.

use affectmill_base::{Location, NetworkKind};
use affectmill_labelset::JobRecord;
use affectmill_spec::Job;
use std::fs::canonicalize;

/// What a worker's host allows.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    /// TorchScript files that may be run, by their SHA-256.
    pub scripts: Scripts,
    /// Input, output, labels that are taken over and scratch space must lie in one of these; anywhere when empty.
    pub within: Vec<Location>,
}

/// TorchScript files, which are programs.
#[derive(Clone, Debug, Default)]
pub enum Scripts {
    /// None.
    #[default]
    None,
    /// Those with these checksums, hex.
    These(Vec<String>),
    /// All.
    Any,
}

/// Why a posted job is refused here.
#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    /// A program that this host was not told to run.
    #[error(
        "the posted job's model `{model}` is a TorchScript program, which a worker runs only where it is allowed to: start it with \
         --allow-torchscript={sha256}, or with --allow-torchscript for any"
    )]
    Script {
        /// The model.
        model: String,
        /// Of the file, hex.
        sha256: String,
    },
    /// A place that this host was not told to use.
    #[error(
        "the posted job's {what} is {place}, which is in no place that this worker may use; allow it by a further --within"
    )]
    Place {
        /// What the job has there.
        what: &'static str,
        /// Where.
        place: Location,
    },
}

impl Permits {
    /// Looks at the places of a job before anything is read or written there.
    ///
    /// # Errors
    /// [`NotAllowed::Place`].
    pub fn places(&self, job: &Job, input_root: &Location) -> Result<(), NotAllowed> {
        let scratch = job.run.scratch.clone().map(Location::Local);
        let places = [
            ("input", Some(input_root)),
            ("output", Some(&job.output.uri)),
            ("[faces] labels", job.faces.labels.as_ref()),
            ("scratch folder", scratch.as_ref()),
        ];
        for (what, place) in places {
            let Some(place) = place else { continue };
            if !self.within.is_empty() && !self.within.iter().any(|allowed| is_within(place, allowed)) {
                let place = place.clone();
                return Err(NotAllowed::Place { what, place });
            }
        }
        Ok(())
    }

    /// Looks at the models of a job as this machine found them.
    ///
    /// # Errors
    /// [`NotAllowed::Script`].
    pub fn models(&self, record: &JobRecord) -> Result<(), NotAllowed> {
        let scripts = record
            .models
            .iter()
            .filter(|model| model.kind == NetworkKind::TorchScript);
        for (model, sha256) in scripts.flat_map(|model| model.weights().map(move |sha256| (model, sha256))) {
            let allowed = match &self.scripts {
                Scripts::None => false,
                Scripts::These(these) => these.iter().any(|this| this == sha256),
                Scripts::Any => true,
            };
            if !allowed {
                return Err(NotAllowed::Script {
                    model: model.name.clone(),
                    sha256: sha256.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Whether a place is that one or below it, links followed. What is not there is nowhere.
fn is_within(place: &Location, allowed: &Location) -> bool {
    match (place, allowed) {
        (Location::Local(place), Location::Local(allowed)) => {
            match (canonicalize(place), canonicalize(allowed)) {
                (Ok(place), Ok(allowed)) => place.starts_with(allowed),
                _ => false,
            }
        }
        (
            Location::S3 { bucket, key },
            Location::S3 {
                bucket: other,
                key: prefix,
            },
        ) => {
            let below = || key.strip_prefix(prefix.as_str());
            bucket == other
                && (prefix.is_empty() || below().is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_place_is_within_another_by_whole_names_and_links_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["data/a", "data-2", "elsewhere"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        symlink(path("elsewhere"), path("data/link")).unwrap();
        symlink(path("data"), path("alias")).unwrap();
        let local = |name: &str| Location::Local(path(name));
        for (place, inside) in [
            ("data", true),
            ("data/a", true),
            ("alias/a", true),
            ("data-2", false),
            ("data/link", false),
            ("data/../elsewhere", false),
            ("data/missing", false),
        ] {
            assert_eq!(is_within(&local(place), &local("data")), inside, "{place}");
        }
        let s3 = |text: &str| Location::parse(text).unwrap();
        for (place, allowed, inside) in [
            ("s3://b/a/c", "s3://b/a", true),
            ("s3://b/a", "s3://b/a/", true),
            ("s3://b/ab", "s3://b/a", false),
            ("s3://b/x", "s3://b", true),
            ("s3://b2/a", "s3://b", false),
        ] {
            assert_eq!(
                is_within(&s3(place), &s3(allowed)),
                inside,
                "{place} in {allowed}"
            );
        }
        assert!(!is_within(&s3("s3://b/a"), &local("data")));
    }
}
