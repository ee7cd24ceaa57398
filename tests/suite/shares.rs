//! Outputs on file systems that lack one thing or another, as network shares and FUSE do.

use super::common::*;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The command on a file system whose renameat2 knows no flags, and that lacks this, too.
fn on_share(lacking: &str, command: &Command) -> Command {
    let mut on_share = Command::new(refuse());
    on_share.arg(command.get_program()).args(command.get_args());
    on_share.env("LD_PRELOAD", faults_library());
    on_share.env("AFFECTMILL_REFUSED", lacking);
    on_share
}

fn hidden(folder: &Path) -> Vec<String> {
    let files = tree(folder).into_keys();
    files
        .filter(|name| name.contains("/.") || name.starts_with('.'))
        .collect()
}

#[test]
fn a_share_without_flags_links_across_folders_folder_flushes_and_locks_holds_the_same_labels() {
    let project = Project::new().synthetic(3, 15);
    let sets = ["output.crops=webdataset"];
    project.run("calm", &sets, 0);
    for (n, lacking) in ["", "flush,locks", "across,flush,locks"].into_iter().enumerate() {
        let output = format!("share{n}");
        let mut run = on_share(lacking, &project.command(&output, &sets));
        let done = run.output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{lacking}: {}", stderr(&done));
        assert_same_labels(&project.output("calm"), &project.output(&output));
        assert_eq!(hidden(&project.output(&output)), [""; 0]);
        assert!(project.output(&output).join("_SUCCESS").exists());
    }
}

#[test]
fn two_coordinators_on_such_a_share_end_with_one_dataset() {
    let project = Project::new().synthetic(6, 30);
    project.run("calm", &[], 0);
    let start = || Running::start(on_share("across,flush,locks", &project.command("both", &[])));
    let (one, two) = (start(), start());
    assert_eq!((one.wait(), two.wait()), (Some(0), Some(0)));
    assert_same_labels(&project.output("calm"), &project.output("both"));
    assert_eq!(hidden(&project.output("both")), [""; 0]);
}

#[test]
fn where_nothing_can_be_created_without_overwriting_the_calls_and_the_way_out_are_named() {
    let project = Project::new().synthetic(1, 10);
    let done = on_share("links", &project.command("out", &[])).output().unwrap();
    let told = stderr(&done);
    assert_eq!(done.status.code(), Some(4), "{told}");
    let named = [
        "job.json",
        "RENAME_NOREPLACE (Invalid argument",
        "link (Operation not permitted",
        "in S3",
    ];
    for words in named {
        assert!(told.contains(words), "expected `{words}` in:\n{told}");
    }
    let left: Vec<String> = tree(&project.output("out")).into_keys().collect();
    assert_eq!(left, [""; 0]);
    fs::remove_dir_all(project.output("out")).unwrap();
    project.run("out", &[], 0);
}
