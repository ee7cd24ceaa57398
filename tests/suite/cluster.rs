//! Runs past one machine: a real nats-server, a coordinator and workers on hosts of their own, which are killed, stopped and
//! cut off. Whatever happens, the labels are those of a run on one machine.

use super::common::*;
use super::nats::{self, Server};
use super::strikes::{deadly, rebooted};
#[path = "../nats/network.rs"]
mod network;

use network::Network;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WORKERS: [&str; 3] = ["w1", "w2", "w3"];

/// A project, a server, and hosts where this user may have them.
pub struct Cluster {
    pub project: Project,
    pub server: Server,
    network: Option<Network>,
    pub job: String,
}

impl Cluster {
    /// Everything on loopback.
    fn local(project: Project) -> Self {
        Self::with(project, Server::start())
    }

    /// The same with this server.
    pub fn with(project: Project, server: Server) -> Self {
        Self {
            project,
            server,
            network: None,
            job: "job".into(),
        }
    }

    /// Server, coordinator and workers on hosts of their own; `None`, said aloud, where this user may not make any.
    fn apart(project: Project) -> Option<Self> {
        let network = match Network::new(&["queue", "head", "w1", "w2", "w3"]) {
            Ok(network) => network,
            Err(why) if fs::metadata("/proc/self").unwrap().uid() != 0 => {
                eprintln!("NOT TESTED, network namespaces are for root: {why}");
                return None;
            }
            Err(why) => panic!("{why}"),
        };
        let address = (network.address("queue"), 4222).into();
        let server = Server::configured("", address, Some(network.namespace("queue")));
        Some(Self {
            project,
            server,
            network: Some(network),
            job: "job".into(),
        })
    }

    fn on(&self, host: &str, command: Command) -> Command {
        match &self.network {
            Some(network) => network.on(host, &command),
            None => command,
        }
    }

    pub fn run(&self, output: &str, sets: &[&str]) -> Command {
        let queue = format!("run.queue={}", self.server.url());
        let name = format!("run.name={}", self.job);
        let sets: Vec<&str> = [queue.as_str(), &name, "nats.lease_seconds=2"]
            .iter()
            .chain(sets)
            .copied()
            .collect();
        self.on("head", self.project.command(output, &sets))
    }

    pub fn worker(&self, host: &str) -> Command {
        let mut command = self.project.program();
        command.args(["worker", "--queue", &self.server.url(), "--job", &self.job]);
        command.args(["--threads", "1", "--json"]);
        self.on(host, command)
    }
}

/// A process of a cluster, with the processes it started, and its events so far.
pub struct Part {
    child: Child,
    pub events: Arc<Mutex<Vec<Value>>>,
    words: Arc<Mutex<String>>,
}

fn reading(read: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("reading".into());
    thread.spawn(read).expect("a thread");
}

impl Part {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (events, words) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to, said) = (events.clone(), words.clone());
        reading(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().extend(serde_json::from_str::<Value>(&line));
            }
        });
        reading(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap();
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, events, words }
    }

    /// The first event of this name, waiting for it.
    pub fn until(&mut self, name: &str) -> Value {
        let began = Instant::now();
        loop {
            let events = self.events.lock().unwrap();
            if let Some(event) = events.iter().find(|event| event["event"] == name) {
                return event.clone();
            }
            drop(events);
            let ended = self.child.try_wait().unwrap();
            let words = self.words.lock().unwrap();
            assert!(ended.is_none(), "ended ({ended:?}) before `{name}`: {words}");
            assert!(began.elapsed() < Duration::from_secs(120), "no `{name}`: {words}");
            drop(words);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn count(&self, name: &str) -> usize {
        let events = self.events.lock().unwrap();
        events.iter().filter(|event| event["event"] == name).count()
    }

    /// Itself and every process it started; workers are in groups of their own.
    fn family(&self) -> Vec<u32> {
        let children = |of: u32| -> Vec<u32> {
            let file = format!("/proc/{of}/task/{of}/children");
            let text = fs::read_to_string(file).unwrap_or_default();
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect()
        };
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while at < all.len() {
            all.extend(children(all[at]));
            at += 1;
        }
        all
    }

    pub fn signal(&self, name: &str) {
        for pid in self.family() {
            signal(pid, name);
        }
    }

    pub fn wait(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("it ends") {
                break status.code();
            }
            let events = self.events.lock().unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(240),
                "it does not end: {:?} {}",
                events.last(),
                self.words.lock().unwrap()
            );
            drop(events);
            std::thread::sleep(Duration::from_millis(20));
        };
        let words = self.words.lock().unwrap().clone();
        (code, words)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }
}

fn assert_all_ok(output: &std::path::Path) {
    for (name, video) in videos(output) {
        assert_eq!(video.status, "ok", "{name}: {video:?}");
    }
}

#[test]
fn hosts_label_what_one_machine_would_and_go_when_all_is_done() {
    let project = Project::with_models(&["mini_xception"]).synthetic(9, 40);
    project.run("alone", &[], 0);
    let Some(cluster) = Cluster::apart(project) else {
        return;
    };
    // Workers may be there before the job is.
    let mut workers: Vec<Part> = WORKERS
        .iter()
        .map(|host| Part::start(cluster.worker(host)))
        .collect();
    let run = Part::start({
        let mut run = cluster.run("together", &[]);
        run.arg("--json");
        run
    });
    for worker in &mut workers {
        worker.until("joined");
    }
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    let mut done = 0;
    for worker in workers {
        done += worker.count("shard_done");
        assert_eq!(worker.wait(), (Some(0), String::new()));
    }
    assert_eq!(done, 9, "each shard was labelled once");
    let project = &cluster.project;
    assert_same_labels(&project.output("alone"), &project.output("together"));
    assert_all_ok(&project.output("together"));
    let again = Part::start(cluster.run("together", &[])).wait();
    assert!(
        again.0 == Some(0) && again.1.contains("nothing to do"),
        "{again:?}"
    );
}

#[test]
fn a_host_of_another_class_of_device_is_refused_until_a_change_is_allowed() {
    let cluster = Cluster::local(Project::new().synthetic(2, 20));
    let coordinator = |sets: &[&str]| {
        let mut run = cluster.run("out", sets);
        run.arg("--json");
        run
    };
    let on_the_cpu = || {
        let mut worker = cluster.worker("w1");
        worker.env("CUDA_VISIBLE_DEVICES", "");
        Part::start(worker)
    };
    let out = cluster.project.output("out");
    let cuda = r#"{"version": 1, "device": {"class": "cuda", "name": "NVIDIA H100"}}"#;
    let mut run = Part::start(coordinator(&["run.device=cuda"]));
    run.until("queued");
    let (code, words) = on_the_cpu().wait();
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("[run] device = \"cuda\" cannot be had here"),
        "{words}"
    );
    run.signal("TERM");
    run.wait();

    fs::write(out.join("_affectmill/device.json"), cuda).unwrap();
    // The coordinator labels nothing, and may be on any machine.
    let mut run = Part::start(coordinator(&[]));
    run.until("queued");
    let (code, words) = on_the_cpu().wait();
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("was begun on cuda (NVIDIA H100)"), "{words}");
    run.signal("TERM");
    run.wait();

    let mut allowed = coordinator(&[]);
    allowed.arg("--allow-device-change");
    let mut run = Part::start(allowed);
    run.until("queued");
    let mut worker = on_the_cpu();
    let joined = worker.until("joined");
    assert_eq!(joined["devices"], serde_json::json!(["cpu, 1 thread"]));
    // A host that goes because all is done is no lost one.
    run.until("shard_done");
    let (code, words) = worker.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(run.count("worker_lost"), 0);
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_all_ok(&out);
    assert_eq!(rows(&out).len(), 40);
}

#[test]
fn a_worker_that_is_preempted_gives_its_shard_back_without_a_strike() {
    let project = Project::with_models(&["teacher_va"]).synthetic(2, 60);
    project.run("alone", &["output.shard_frames=1000"], 0);
    let cluster = Cluster::local(project);
    let sets = [
        "output.shard_frames=1000",
        "run.drain_seconds=0.5",
        "nats.lease_seconds=60",
    ];
    let run = Part::start(cluster.run("out", &sets));
    let mut first = Part::start(cluster.worker("w1"));
    first.until("opened");
    signal(first.child.id(), "TERM");
    let (code, words) = first.wait();
    assert_eq!(code, Some(75), "{words}");
    // Long before the lease would have ended.
    let began = Instant::now();
    let mut second = Part::start(cluster.worker("w2"));
    second.until("leased");
    assert!(began.elapsed() < Duration::from_secs(30));
    let (code, words) = run.wait();
    assert_eq!(code, Some(0), "{words}");
    assert!(!words.contains("strike"), "{words}");
    assert_same_labels(&cluster.project.output("alone"), &cluster.project.output("out"));
}

#[test]
fn a_video_that_hangs_every_host_is_quarantined_and_the_run_ends_with_3() {
    let mut project = Project::with_models(&["mini_xception"]).synthetic(4, 30);
    noisy(&project.videos().join("hangs.mp4"), 300, 1);
    // Its header can be read, and so can its first pictures.
    project.faults = "hang:300000:310000:hangs.mp4".into();
    let Some(cluster) = Cluster::apart(project) else {
        return;
    };
    let run = Part::start(cluster.run("out", &["run.stall_timeout=3", "output.shard_frames=400"]));
    let workers: Vec<Part> = WORKERS
        .iter()
        .map(|host| Part::start(cluster.worker(host)))
        .collect();
    let (code, words) = run.wait();
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("quarantined (timeout): hangs.mp4"), "{words}");
    let strikes: usize = workers.iter().map(|worker| worker.count("strike")).sum();
    assert_eq!(strikes, 3);
    for worker in workers {
        assert_eq!(worker.wait().0, Some(0));
    }
    let videos = videos(&cluster.project.output("out"));
    assert_eq!(videos.len(), 5);
    for (name, video) in videos {
        match name.as_str() {
            "hangs.mp4" => assert_eq!((video.status.as_str(), video.rows), ("quarantined", 0)),
            _ => assert_eq!((video.status.as_str(), video.rows), ("ok", 30), "{name}"),
        }
    }
}

#[test]
fn a_video_that_takes_whole_hosts_down_is_quarantined_after_as_many_deaths_as_strikes_are_allowed() {
    let cluster = Cluster::local(deadly());
    let run = Part::start(cluster.run("out", &["output.shard_frames=1000", "run.batch=4"]));
    let start = |boot| Part::start(rebooted(cluster.project.dir.path(), boot, &cluster.worker("w1")));
    for boot in 0..3 {
        let worker = start(boot);
        let began = Instant::now();
        let opened = || {
            let events = worker.events.lock().unwrap();
            events
                .iter()
                .any(|event| event["event"] == "opened" && event["video"] == "clip01.mp4")
        };
        while !opened() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{}",
                worker.words.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        // Noted by then.
        std::thread::sleep(Duration::from_millis(500));
        worker.signal("KILL");
        assert_eq!(worker.wait().0, None);
    }
    let last = start(3);
    let (code, words) = run.wait();
    assert_eq!(code, Some(3), "{words}");
    assert_eq!(last.wait().0, Some(0));
    let videos = videos(&cluster.project.output("out"));
    let deadly = &videos["clip01.mp4"];
    assert_eq!(deadly.status, "quarantined");
    let error = deadly.error.as_deref().unwrap();
    assert!(
        error.contains("3 attempts") && error.contains("left no word"),
        "{error}"
    );
    assert_eq!((videos["clip00.mp4"].rows, videos["clip02.mp4"].rows), (40, 40));
}

#[test]
fn the_recipes_are_what_kubernetes_docker_and_nats_take() {
    let repository = env!("CARGO_MANIFEST_DIR");
    let mut check = Command::new(python());
    check
        .arg(format!("{repository}/tests/recipes/manifests.py"))
        .arg(repository);
    println!(
        "{}",
        succeed(check.arg(nats::program()).arg(affectmill().get_program()))
    );
}

/// The answer of a server's monitoring port to what KEDA asks for.
fn monitored(port: u16) -> Value {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let path = "/jsz?acc=$G&consumers=true&config=true";
    write!(connection, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn keda_finds_the_queue_where_its_manifest_says() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/keda.yaml")).unwrap();
    let said = |key: &str| {
        let line = manifest
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        line.unwrap().split(" #").next().unwrap().to_owned()
    };
    let project = Project::new().synthetic(3, 30);
    let [port, monitor] = nats::free_ports(2)[..] else {
        panic!("two ports")
    };
    let http = format!("http: \"127.0.0.1:{monitor}\"");
    let cluster = Cluster {
        server: Server::configured(&http, ([127, 0, 0, 1], port).into(), None),
        project,
        network: None,
        job: said("stream").strip_prefix("affectmill-").unwrap().into(),
    };
    // What is neither done nor given up, as KEDA adds it up.
    let lag = || -> Option<u64> {
        let found =
            |list: &Value, name: &str| list.as_array()?.iter().find(|one| one["name"] == name).cloned();
        let account = found(&monitored(monitor)["account_details"], &said("account"))?;
        let stream = found(&account["stream_detail"], &said("stream"))?;
        let consumer = found(&stream["consumer_detail"], &said("consumer"))?;
        Some(consumer["num_pending"].as_u64()? + consumer["num_ack_pending"].as_u64()?)
    };
    let mut run = Part::start({
        let mut run = cluster.run("out", &[]);
        run.arg("--json");
        run
    });
    run.until("queued");
    assert_eq!(lag(), Some(3), "{}", monitored(monitor));
    let worker = Part::start(cluster.worker("w1"));
    assert_eq!((worker.wait().0, run.wait().0), (Some(0), Some(0)));
    assert_eq!(lag(), None, "a queue that is done with starts no worker");
}

#[test]
fn the_slurm_script_gives_each_gpu_of_its_node_a_worker() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recipes/slurm_gpus.sh");
    let told = succeed(Command::new("bash").arg(script));
    assert!(told.ends_with("all good\n"), "{told}");
}

/// Minutes of a real Slurm, so only where there is time.
#[test]
fn the_slurm_script_ends_in_the_same_bytes_preempted_or_not() {
    if !soak() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recipes/slurm.sh");
    let mut slurm = Command::new("bash");
    slurm
        .arg(script)
        .env("AFFECTMILL", affectmill().get_program())
        .env("NATS_SERVER", nats::program());
    let told = succeed(&mut slurm);
    println!("{told}");
    assert!(told.contains("all good"), "{told}");
}

#[test]
fn hosts_that_would_label_otherwise_or_elsewhere_are_refused() {
    let project = Project::with_models(&["mini_xception"]).synthetic(2, 20);
    let cluster = Cluster::local(project);
    let nobody = Part::start({
        let mut worker = cluster.worker("w1");
        worker.args(["--wait", "1"]);
        worker
    });
    let (code, words) = nobody.wait();
    assert_eq!(code, Some(2), "{words}");
    assert!(
        words.contains("no job `job` is posted") && words.contains("affectmill run"),
        "{words}"
    );

    let mut run = Part::start({
        let mut run = cluster.run("out", &[]);
        run.arg("--json");
        run
    });
    run.until("queued");
    // A host on which the shared folder is not mounted: an empty one lies there.
    let hidden = |folder: &str| {
        let worker = cluster.worker("w1");
        let script = format!(
            "mount -t tmpfs none {:?} && exec \"$@\"",
            cluster.project.dir.path().join(folder)
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command.arg(worker.get_program()).args(worker.get_args());
        Part::start(command).wait()
    };
    for folder in ["out", "videos"] {
        let (code, words) = hidden(folder);
        assert_eq!(code, Some(2), "{folder}: {words}");
        assert!(
            words.contains(folder) && words.contains("mount the same file system"),
            "{words}"
        );
    }
    // The name is taken while that run is not finished.
    let (code, words) = Part::start(cluster.run("other", &[])).wait();
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("the name `job` is taken"), "{words}");
    // Weights need not be on the worker's disks.
    let job = fs::read_to_string(cluster.project.job()).unwrap();
    assert!(job.contains("mini_xception.safetensors"));
    let worker = Part::start({
        let worker = cluster.worker("w1");
        let weights = weights("mini_xception");
        let scratch = cluster.project.dir.path().join("scratch");
        let script = format!("mount --bind /dev/null {weights:?} && exec \"$@\" --scratch {scratch:?}");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command.arg(worker.get_program()).args(worker.get_args());
        command
    });
    assert_eq!(run.wait().0, Some(0));
    let (code, words) = worker.wait();
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(rows(&cluster.project.output("out")).len(), 40);
}

/// The coordinator died after the last commit, and with it the server; the next one finds nothing to do.
#[test]
fn hosts_that_wait_are_told_by_the_next_run_even_where_the_server_is_late_and_empty() {
    let project = Project::with_models(&["mini_xception"]).synthetic(1, 10);
    let mut cluster = Cluster::local(project);
    let mut run = Part::start({
        let mut run = cluster.run("out", &[]);
        run.arg("--json");
        run
    });
    run.until("queued");
    let mut worker = Part::start(cluster.worker("w1"));
    worker.until("leased");
    run.signal("STOP");
    worker.until("shard_done");
    run.signal("KILL");
    assert_eq!(run.wait().0, None, "it never saw the commit");
    cluster.server.kill();
    cluster.server.wipe();
    let again = Part::start(cluster.run("out", &[]));
    std::thread::sleep(Duration::from_secs(3));
    cluster.server.run();
    let (code, words) = again.wait();
    assert_eq!(code, Some(0), "{words}");
    assert!(!words.contains("told"), "{words}");
    let (code, words) = worker.wait();
    assert_eq!(code, Some(0), "{words}");
}

/// Kills, stops past the lease, cuts and heals workers, coordinator and server at random until the run is whole.
#[test]
fn a_storm_over_hosts_and_wires_changes_no_byte_and_strikes_nobody_out() {
    let (clips, frames) = if soak() { (100, 200) } else { (20, 300) };
    let project = Project::with_models(&["mini_xception"]).synthetic(clips, frames);
    project.run("calm", &["run.workers=2"], 0);
    let Some(mut cluster) = Cluster::apart(project) else {
        return;
    };
    let mut dice = Dice::new();
    let coordinator = |cluster: &Cluster| {
        let mut run = cluster.run("storm", &["run.stall_timeout=60"]);
        run.arg("--json");
        Part::start(run)
    };
    let start = |cluster: &Cluster, host: &str| {
        let mut worker = cluster.worker(host);
        worker.args(["--wait", "15"]);
        Part::start(worker)
    };
    let mut run = coordinator(&cluster);
    let mut workers: Vec<Part> = WORKERS.iter().map(|host| start(&cluster, host)).collect();
    let mut struck = std::collections::BTreeMap::<&str, usize>::new();
    let began = Instant::now();
    let (mut asleep, mut cut) = (Vec::<(Instant, usize)>::new(), Vec::<(Instant, &str)>::new());
    let mut next = Instant::now() + Duration::from_millis(500);
    loop {
        if let Some(status) = run.child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0), "{}", run.words.lock().unwrap());
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(900),
            "{struck:?}: {}",
            run.words.lock().unwrap()
        );
        let now = Instant::now();
        asleep.retain(|(until, worker)| {
            let over = now >= *until;
            if over {
                workers[*worker].signal("CONT");
            }
            !over
        });
        cut.retain(|(until, host)| {
            let over = now >= *until;
            if over {
                cluster.network.as_ref().unwrap().link(host, true);
            }
            !over
        });
        for (number, host) in WORKERS.iter().enumerate() {
            if workers[number].child.try_wait().unwrap().is_some() {
                workers[number] = start(&cluster, host);
            }
        }
        if now >= next {
            next = now + Duration::from_millis(300 + dice.roll(1_500));
            let worker = dice.roll(3) as usize;
            let until = now + Duration::from_millis(2_500 + dice.roll(2_500));
            let what = match dice.roll(10) {
                0..=2 => {
                    workers[worker].signal("KILL");
                    "worker killed"
                }
                3 | 4 if !asleep.iter().any(|(_, other)| *other == worker) => {
                    workers[worker].signal("STOP");
                    asleep.push((until, worker));
                    "worker stopped past its lease"
                }
                5 | 6 if cut.is_empty() => {
                    cluster.network.as_ref().unwrap().link(WORKERS[worker], false);
                    cut.push((until, WORKERS[worker]));
                    "worker cut off past its lease"
                }
                7 if cut.is_empty() => {
                    cluster.network.as_ref().unwrap().link("head", false);
                    cut.push((until, "head"));
                    "coordinator cut off"
                }
                8 => {
                    run.signal("KILL");
                    run = coordinator(&cluster);
                    "coordinator killed"
                }
                9 if dice.roll(2) == 0 => {
                    cluster.server.kill();
                    cluster.server.wipe();
                    cluster.server.run();
                    "server emptied"
                }
                9 => {
                    cluster.server.kill();
                    cluster.server.run();
                    "server killed"
                }
                _ => continue,
            };
            *struck.entry(what).or_default() += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!(
        "{clips} shards in {:.0} s: {struck:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(struck.values().sum::<usize>() > 3, "{struck:?}");
    // The last blow may have fallen on the word that all is done: the next run says it again. Who is still there goes.
    for host in WORKERS.into_iter().chain(["head"]) {
        cluster.network.as_ref().unwrap().link(host, true);
    }
    let (code, words) = coordinator(&cluster).wait();
    assert_eq!(code, Some(0), "{words}");
    assert!(!words.contains("told"), "{words}");
    for worker in workers {
        worker.signal("CONT");
        let (code, words) = worker.wait();
        assert!(matches!(code, Some(0) | None), "{code:?}: {words}");
    }
    let project = &cluster.project;
    assert_same_labels(&project.output("calm"), &project.output("storm"));
    assert_all_ok(&project.output("storm"));
}
