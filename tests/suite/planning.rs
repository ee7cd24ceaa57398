//! Planning: signals are heard from the beginning, what was probed is kept, and the page shows how far it is.

use super::common::*;
use super::watch::ask;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Six videos of half a shard each, of which the header of the fifth cannot be read to its end.
fn stuck() -> Project {
    let mut project = Project::new().synthetic(6, 15);
    project.run("calm", &[], 0);
    project.faults = "hang:0:100:clip04.mp4".into();
    project
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let started =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    let started: Vec<String> = started.collect();
    let pids = started.iter().flat_map(|text| text.split_whitespace());
    pids.map(|pid| pid.parse().expect("a number")).collect()
}

fn plans(project: &Project, output: &str) -> usize {
    let folder = project.output(output).join("_affectmill/plans");
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn a_planning_that_is_stopped_keeps_what_was_probed_and_ends_in_the_same_shards() {
    let mut project = stuck();
    for (signal, code) in [("TERM", 75), ("INT", 130)] {
        let mut run = project.start("out", &[]);
        loop {
            let probed = run.until("probing");
            if probed["done"].as_u64().unwrap() + 1 == probed["of"].as_u64().unwrap() {
                break;
            }
        }
        let began = Instant::now();
        run.signal(signal);
        let stopped = run.until("stopped");
        // Of the four before the fifth, those of the shard that is closed.
        assert_eq!(stopped["planned"], 2, "{stopped}");
        assert_eq!(run.wait(), Some(code));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(plans(&project, "out"), 1);
    }
    project.faults.clear();
    project.run("out", &[], 0);
    assert_eq!(plans(&project, "out"), 2, "the rest is planned by itself");
    assert_eq!(plans(&project, "calm"), 1);
    assert_same_labels(&project.output("calm"), &project.output("out"));
}

/// Pieces are a minute long, so only where there is time.
#[test]
fn a_planning_of_several_pieces_that_is_killed_between_them_misses_no_video() {
    if !soak() {
        return;
    }
    let mut project = Project::new().synthetic(40, 5);
    project.run("calm", &[], 0);
    // Three seconds for each read of a header.
    project.faults = "slow:0:100:.mp4".into();
    let mut run = project.start("out", &[]);
    let began = Instant::now();
    while plans(&project, "out") == 0 {
        assert!(began.elapsed() < Duration::from_secs(90), "no piece in time");
        run.until("probing");
    }
    run.signal("KILL");
    assert_eq!(run.wait(), None);
    let mut run = project.start("out", &[]);
    let probing = run.until("probing");
    assert!((1..40).contains(&probing["of"].as_u64().unwrap()), "{probing}");
    let started = run.until("run_started");
    assert_eq!(
        (&started["totals"]["videos"], &started["totals"]["frames"]),
        (&40.into(), &200.into())
    );
    assert_eq!(run.wait(), Some(0));
    // Nobody kills this one, so its pieces are all its own.
    let mut run = project.start("whole", &[]);
    assert_eq!(run.until("run_started")["totals"]["videos"], 40);
    assert_eq!(run.wait(), Some(0));
    assert!(plans(&project, "whole") > 1, "it was planned in one piece");
    for output in ["out", "whole"] {
        assert_same_labels(&project.output("calm"), &project.output(output));
    }
}

#[test]
fn the_first_process_of_a_container_hears_signals_while_it_plans() {
    let project = stuck();
    let run = project.command("out", &[]);
    let mut container = Command::new("unshare");
    container.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
    container.arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        container.env(name, value.expect("a value"));
    }
    let container = container.stderr(Stdio::piped()).spawn().expect("unshare");
    let began = Instant::now();
    let plan =
        || plans(&project, "out") + project.output("out").join("_affectmill/job.json").exists() as usize;
    while plan() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it never planned");
        std::thread::sleep(Duration::from_millis(50));
    }
    let first = children(container.id());
    assert_eq!(first.len(), 1);
    signal(first[0], "TERM");
    let done = container.wait_with_output().unwrap();
    let told = stderr(&done);
    assert_eq!(
        (done.status.code(), done.status.signal()),
        (Some(75), None),
        "{told}"
    );
    assert!(told.contains("stopped by SIGTERM while planning"), "{told}");
}

#[test]
fn a_prober_that_is_killed_from_outside_costs_its_video_nothing() {
    let mut project = Project::new().synthetic(3, 15);
    project.faults = "slow:0:100:clip01.mp4".into();
    let mut run = project.start("out", &[]);
    loop {
        let probed = run.until("probing");
        if probed["done"] == 2 {
            break;
        }
    }
    let probers = children(run.child.id());
    assert!(!probers.is_empty());
    probers.into_iter().for_each(|prober| signal(prober, "KILL"));
    let started = run.until("run_started");
    assert_eq!(
        started["totals"]["frames"], 45,
        "every header was read: {started}"
    );
    assert_eq!(run.wait(), Some(0));
}

#[test]
fn the_page_shows_planning_and_an_address_that_is_taken_costs_nothing() {
    let project = stuck();
    let mut run = project.start("out", &["run.metrics=\"127.0.0.1:0\""]);
    let address = run.until("shown")["address"].as_str().unwrap().to_owned();
    let began = Instant::now();
    loop {
        let (page, figures) = (ask(&address, "GET", "/").1, ask(&address, "GET", "/metrics").1);
        if page.contains("affectmill: planning") && page.contains("reading headers: 5 of 6 videos") {
            assert!(figures.contains("affectmill_videos_probed 5\n"), "{figures}");
            assert!(figures.contains("affectmill_videos_to_probe 6\n"), "{figures}");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{page}");
        std::thread::sleep(Duration::from_millis(100));
    }
    run.signal("TERM");
    assert_eq!(run.wait(), Some(75));

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = format!("run.metrics=\"{}\"", taken.local_addr().unwrap());
    let refused = project.run("fresh", &[&metrics], 2);
    assert!(stderr(&refused).contains("free port"), "{}", stderr(&refused));
    assert!(!project.output("fresh").exists(), "nothing was written");
}
