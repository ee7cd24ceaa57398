//! Test media: the set-up's cache of real videos, and files made on the spot with the `ffmpeg` program.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that `make setup` fills.
pub fn cache() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("AFFECTMILL_CACHE").unwrap_or_else(|| {
        let base = set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").expect("HOME is set").join(".cache"));
        base.join("affectmill")
    })
}

/// A file of the cache.
pub fn cached(name: &str) -> PathBuf {
    let path = cache().join(name);
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// A real video of the cache.
pub fn video(name: &str) -> PathBuf {
    cached(&format!("videos/{name}"))
}

/// Runs a program; its standard output.
pub fn output(program: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `make setup`", program.display()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} {arguments:?}: {error}",
        program.display()
    );
    output.stdout
}

/// Runs `ffmpeg` with a line of blank-separated arguments, then the given file.
pub fn ffmpeg(arguments: &str, file: &Path) {
    let file = format!("file:{}", file.display());
    let mut all: Vec<&str> = "-v error -nostdin -y"
        .split(' ')
        .chain(arguments.split_whitespace())
        .collect();
    all.push(&file);
    output(Path::new("ffmpeg"), &all);
}

/// A number of ffprobe's in decimal seconds, as whole microseconds.
pub fn micros(seconds: &str) -> i64 {
    let (sign, digits) = seconds.strip_prefix('-').map_or((1, seconds), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').expect("six decimals");
    assert_eq!(fraction.len(), 6, "{seconds}");
    sign * (whole.parse::<i64>().expect("digits") * 1_000_000 + fraction.parse::<i64>().expect("digits"))
}
