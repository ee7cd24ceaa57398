//! Standard error and standard output that are full, or a terminal that is gone.

use super::common::*;
use std::fs::{self, File};
use std::process::{Command, Stdio};

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full")
}

#[test]
fn a_full_standard_error_changes_no_exit_code() {
    let project = Project::new().synthetic(1, 10);
    fs::write(project.videos().join("text.mp4"), "no video").unwrap();
    let mut run = project.command("out", &[]);
    let code = run.stderr(full()).status().unwrap().code();
    assert_eq!(code, Some(3), "one video failed");
    assert_eq!(rows(&project.output("out")).len(), 10);
    let mut wrong = project.command("out", &["run.batch=0"]);
    assert_eq!(wrong.stderr(full()).status().unwrap().code(), Some(2));
}

#[test]
fn a_terminal_that_goes_away_does_not_end_the_run() {
    let project = Project::with_models(&["teacher_va"]).synthetic(2, 60);
    // The bars are on the terminal when it goes, as when a connection breaks. No signal: the run has a session of its own.
    let script = r#"
import os, pty, subprocess, sys
terminal, theirs = pty.openpty()
run = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True)
os.close(theirs)
seen = b""
while b"clip00.mp4" not in seen:
    seen += os.read(terminal, 65536)
os.close(terminal)
sys.exit(run.wait())
"#;
    let run = project.command("out", &["run.workers=1"]);
    let mut watched = Command::new(python());
    watched
        .args(["-c", script])
        .arg(run.get_program())
        .args(run.get_args());
    watched.env("TERM", "xterm");
    succeed(&mut watched);
    assert_eq!(rows(&project.output("out")).len(), 120);
}

#[test]
fn what_was_asked_for_and_cannot_be_written_is_an_error_and_events_are_not() {
    let project = Project::new().synthetic(1, 10);
    let mut run = project.command("out", &[]);
    let done = run
        .arg("--json")
        .stdout(full())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(0), "{told}");
    assert_eq!(told.matches("events cannot be written").count(), 1, "{told}");
    let commands = [&["summary"][..], &["status", "--json"], &["query"]];
    for command in commands {
        let mut asked = affectmill();
        asked
            .arg(command[0])
            .arg(project.output("out"))
            .args(&command[1..]);
        if command[0] == "query" {
            asked.arg("means");
        }
        let asked = asked.stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let told = stderr(&asked);
        assert_eq!(asked.status.code(), Some(4), "{command:?}: {told}");
        assert!(
            told.contains("cannot write to standard output: No space left"),
            "{told}"
        );
    }
}
