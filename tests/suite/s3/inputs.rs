//! Inputs in buckets: the same videos as on a disk, whatever the rights, the names and the way to the server.

use super::real::{LIMITED, Server, request};
use super::*;
use crate::inputs::{clutter, cluttered, counts};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// `affectmill plan --json` of the project's job with this input, in this environment.
fn plan(project: &Project, input: &str, environment: &[(&str, String)], sets: &[&str]) -> Output {
    let mut command = affectmill();
    for name in [
        "AWS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
    ] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.arg("plan").arg(project.job()).arg("--json");
    command.args(["--set", &format!("input.uri={input}")]);
    for set in sets {
        command.args(["--set", set]);
    }
    command.output().expect("affectmill starts")
}

fn planned(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("a plan")
}

fn ours() -> Vec<(&'static str, String)> {
    environment(&server().endpoint(), KEY)
}

#[test]
fn a_cluttered_folder_and_its_copy_in_a_bucket_give_the_same() {
    let project = cluttered();
    let camera = project.videos().join("00001.MTS");
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=96x64:r=25:d=1",
        "-f",
        "mpegts",
        camera.to_str().unwrap(),
    ]);
    let proxy = Proxy::start(server().port, 1);
    let s3 = InS3::new("clutter", project).through(&proxy);
    s3.project.run("local", &[], 0);
    let found = planned(&plan(
        &s3.project,
        &s3.uri("in"),
        &environment(&s3.endpoint, KEY),
        &[],
    ));
    assert_eq!(counts(&found["passed_over"]), clutter());
    assert_eq!((&found["videos"], &found["frames"]), (&5.into(), &45.into()));
    s3.run("out", &[], 0);
    s3.assert_labels("out", &local_labels(&s3.project.output("local")));
    let looks = |lines: &[String]| lines.iter().filter(|line| line.contains("bytes=0-")).count();
    let before = proxy.lines();
    let camera = |line: &String| line.contains("GET") && line.contains("00001.MTS");
    assert!(before.iter().any(camera));
    s3.run("out", &[], 0);
    let after = proxy.lines().split_off(before.len());
    assert!(
        !after.iter().any(camera),
        "what is planned is not looked at again"
    );
    assert_eq!(looks(&after), 2, "code.ts and go.mod are: {after:?}");
}

#[test]
fn an_object_called_like_the_prefix_does_not_hide_the_collection() {
    let project = Project::new().synthetic(3, 5);
    server().put_tree("public-1", "in", &project.videos());
    server().put("public-1", "aside/empty", b"");
    let clip = fs::read(project.videos().join("clip00.mp4")).unwrap();
    server().put("public-1", "aside/clip.mp4", &clip);
    let proxy = Proxy::start(server().port, 1);
    let videos = |input: &str| {
        let sets = ["s3.unsigned=[\"public-1\"]"];
        planned(&plan(
            &project,
            input,
            &environment(&proxy.endpoint(), KEY),
            &sets,
        ))["videos"]
            .clone()
    };
    proxy.alias("/public-1/in", "/public-1/aside/empty");
    assert_eq!(
        videos("s3://public-1/in"),
        3,
        "an empty object with keys below it is a marker"
    );
    proxy.alias("/public-1/in", "/public-1/aside/clip.mp4");
    assert_eq!(videos("s3://public-1/in"), 1, "a video of that very name");
    assert_eq!(videos("s3://public-1/in/"), 3, "a slash says prefix");
    assert_eq!(videos("s3://public-1/aside/clip.mp4"), 1);
    let empty = plan(&project, "s3://public-1/none/", &ours(), &[]);
    assert_eq!(empty.status.code(), Some(2), "{}", stderr(&empty));
    assert!(
        stderr(&empty).contains("no video in `s3://public-1/none/`"),
        "{}",
        stderr(&empty)
    );
}

#[test]
fn rights_for_the_prefix_alone_are_enough() {
    let project = Project::new().synthetic(2, 5);
    server().put_tree("limited-0", "in", &project.videos());
    server().put_tree("limited-0", "other", &project.videos());
    let environment = environment(&server().endpoint(), LIMITED);
    let (status, _) = request(server().port, "HEAD", "/limited-0/in", &[]).unwrap();
    assert_eq!(status, 403, "the server refuses the question");
    let found = planned(&plan(&project, "s3://limited-0/in", &environment, &[]));
    assert_eq!((&found["videos"], &found["frames"]), (&2.into(), &10.into()));
    let one = planned(&plan(&project, "s3://limited-0/in/clip01.mp4", &environment, &[]));
    assert_eq!(one["frames"], 5);
    let proxy = Proxy::start(server().port, 1);
    proxy.forbid(&["list-type=2"]);
    let one = plan(
        &project,
        "s3://limited-0/in/clip01.mp4",
        &super::environment(&proxy.endpoint(), KEY),
        &[],
    );
    assert_eq!(planned(&one)["frames"], 5, "who may read an object need not list");
    let refused = plan(&project, "s3://limited-0/other", &environment, &[]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(
        stderr(&refused).contains("403 AccessDenied"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn one_forbidden_object_is_that_videos_failure_and_all_forbidden_end_the_run() {
    let proxy = Proxy::start(server().port, 1);
    let s3 = InS3::new("forbidden", Project::new().synthetic(3, 30)).through(&proxy);
    proxy.forbid(&["/in/clip01.mp4"]);
    let told = stderr(&s3.run("out", &[], 3));
    assert!(
        told.contains("2 ok, 1 failed") && told.contains("failed (io): clip01.mp4"),
        "{told}"
    );
    assert!(
        told.contains("403 AccessDenied") && told.contains("s3:GetObject"),
        "{told}"
    );
    let rows = || {
        let status = succeed(s3.program().args(["status", "--json"]).arg(s3.uri("out")));
        serde_json::from_str::<Value>(&status).unwrap()["rows"].clone()
    };
    assert_eq!(rows(), 60);
    proxy.forbid(&["/in/clip"]);
    let told = stderr(&s3.run("none", &[], 4));
    assert!(
        told.contains("no video in") && told.contains("403 AccessDenied"),
        "{told}"
    );
    assert_eq!(s3.labels("none").len(), 0);
    proxy.forbid(&[]);
    let done = s3
        .program()
        .arg("retry")
        .arg(s3.uri("out"))
        .args(["--class", "io"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(rows(), 90);
}

#[test]
fn fragmented_videos_are_planned_as_from_a_disk() {
    let project = Project::new();
    let flags = [
        ("front", "+faststart"),
        ("fragments", "+frag_keyframe+empty_moov+default_base_moof"),
        ("after", "+frag_keyframe"),
    ];
    for (name, flags) in flags {
        let path = project.videos().join(format!("{name}.mp4"));
        let source = "testsrc2=s=640x360:r=25:d=4,noise=alls=60:allf=t";
        let codec = [
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-qp",
            "14",
            "-g",
            "25",
            "-pix_fmt",
            "yuv420p",
        ];
        let to = ["-movflags", flags, path.to_str().unwrap()];
        ffmpeg(&[&["-f", "lavfi", "-i", source][..], &codec, &to].concat());
        assert!(fs::metadata(&path).unwrap().len() > 5 << 20);
    }
    let s3 = InS3::new("fragments", project);
    for (name, _) in flags {
        let set = |folder: &str| format!("{folder}/{name}.mp4");
        let local = planned(&plan(
            &s3.project,
            &set(s3.project.videos().to_str().unwrap()),
            &[],
            &[],
        ));
        let bucket = planned(&plan(&s3.project, &s3.uri(&set("in")), &ours(), &[]));
        for figure in ["frames", "duration_us", "shards", "input_bytes"] {
            assert_eq!(bucket[figure], local[figure], "{name}: {figure}");
        }
        // Where the header holds the samples before the first fragment, FFmpeg's estimate knows no others.
        let frames = if name == "after" { 25 } else { 100 };
        assert_eq!(bucket["frames"], frames, "{name}");
    }
}

#[test]
fn objects_whose_tag_is_no_md5_are_fetched_once_or_counted_twice() {
    let project = Project::new().synthetic(2, 30);
    server().put_tree("public-2", "in", &project.videos());
    let sizes = fs::read_dir(project.videos()).unwrap();
    let bytes: u64 = sizes.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    // By KMS, which the server says; by a server that only looks as if its tags were MD5s.
    for (kms, times) in [(true, 1), (false, 2)] {
        let proxy = Proxy::start(server().port, 1);
        proxy.turn_tags(kms);
        let mut command = project.command(&format!("out{kms}"), &["input.uri=s3://public-2/in"]);
        command.args(["--set", "s3.unsigned=[\"public-2\"]"]);
        command.envs(environment(&proxy.endpoint(), KEY));
        let mut run = Running::start(command);
        let mut fetched = 0;
        while let Some(event) = run.event() {
            fetched += event["fetched_bytes"].as_u64().unwrap_or_default();
        }
        assert_eq!(run.wait(), Some(0));
        assert_eq!(fetched, times * bytes, "kms: {kms}");
        // Once to plan it, once to label it.
        let reads = proxy.lines();
        let reads = reads
            .iter()
            .filter(|line| line.starts_with("GET /public-2/in/clip00.mp4"));
        assert_eq!(reads.count() as u64, 2 * times, "kms: {kms}");
    }
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name("tunnel".into());
    thread.spawn(work).expect("a thread");
}

/// A proxy for `CONNECT` that wants a name and a password; what it was asked for.
fn tunnels(credentials: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = asked.clone();
    let serve = move |mut client: TcpStream, told: Arc<Mutex<Vec<String>>>| -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if !head.contains(&format!("Basic {credentials}")) && !head.contains(&format!("basic {credentials}"))
        {
            return client
                .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
        }
        told.lock().unwrap().push(target.clone());
        let mut server = TcpStream::connect(&target)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut back, mut forth) = (server.try_clone()?, client.try_clone()?);
        on_a_thread(move || drop(std::io::copy(&mut back, &mut forth)));
        std::io::copy(&mut client, &mut server).map(drop)
    };
    on_a_thread(move || {
        for client in listener.incoming().flatten() {
            let told = told.clone();
            on_a_thread(move || drop(serve(client, told)));
        }
    });
    (port, asked)
}

/// An authority, and a certificate by it for 127.0.0.1 with its key, as PEM files in a folder.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        succeed(command.args(arguments.split(' ')).current_dir(folder));
    };
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "{new} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"
    ));
    openssl(&format!(
        "{new} -subj /CN=server -keyout server.key -out server.csr"
    ));
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(
        "x509 -req -days 2 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out server.pem",
    );
}

#[test]
fn the_way_to_the_server_is_that_of_other_aws_tools() {
    let project = Project::new().synthetic(1, 5);
    let folder = project.dir.path();
    certificates(folder);
    let tls = Server::with_certificate(&folder.join("server.pem"), &folder.join("server.key"));
    tls.put_tree("way", "in", &project.videos());
    // name:pass%40word, as RFC 7617 has it.
    let (port, asked) = tunnels("bmFtZTpwYXNzQHdvcmQ=");
    let proxy = format!("http://name:pass%40word@127.0.0.1:{port}");
    let endpoint = format!("https://127.0.0.1:{}", tls.tls);
    let bundle = folder.join("ca.pem").display().to_string();
    let log = folder.join("log");
    let look = |more: &[(&'static str, &str)]| {
        let mut all = environment(&endpoint, KEY);
        all.extend(more.iter().map(|(name, value)| (*name, value.to_string())));
        all.push(("AFFECTMILL_LOG", "trace".into()));
        all.push(("AFFECTMILL_LOG_FILE", log.display().to_string()));
        let done = plan(&project, "s3://way/in", &all, &[]);
        let said = format!(
            "{}{}",
            stderr(&done),
            fs::read_to_string(&log).unwrap_or_default()
        );
        for secret in ["pass%40word", "pass@word", "bmFtZTpwYXNzQHdvcmQ"] {
            assert!(!said.contains(secret), "{secret} was told");
        }
        done
    };
    let refused = |more: &[(&'static str, &str)], words: &[&str]| {
        let done = look(more);
        assert_ne!(done.status.code(), Some(0));
        for words in words {
            assert!(stderr(&done).contains(words), "{words}: {}", stderr(&done));
        }
    };
    let ca = ("AWS_CA_BUNDLE", bundle.as_str());
    assert_eq!(planned(&look(&[ca]))["videos"], 1);
    assert_eq!(asked.lock().unwrap().len(), 0);
    assert_eq!(planned(&look(&[ca, ("HTTPS_PROXY", &proxy)]))["videos"], 1);
    let through = asked.lock().unwrap().len();
    assert!(
        through > 0
            && asked
                .lock()
                .unwrap()
                .iter()
                .all(|target| endpoint.ends_with(target.as_str()))
    );
    assert_eq!(
        planned(&look(&[ca, ("https_proxy", &proxy), ("NO_PROXY", "127.0.0.1")]))["videos"],
        1
    );
    assert_eq!(asked.lock().unwrap().len(), through, "NO_PROXY goes straight");
    assert_eq!(planned(&look(&[("SSL_CERT_FILE", &bundle)]))["videos"], 1);

    refused(&[], &["certificate", "AWS_CA_BUNDLE"]);
    let bare = format!("127.0.0.1:{port}");
    refused(
        &[ca, ("HTTPS_PROXY", &bare)],
        &["the proxy wants a name and a password"],
    );
    refused(
        &[ca, ("HTTPS_PROXY", "ftp://name:pass@word@x")],
        &["HTTPS_PROXY is not the address of a proxy"],
    );
    refused(
        &[("AWS_CA_BUNDLE", "/no/such.pem")],
        &["AWS_CA_BUNDLE names /no/such.pem", "cannot be read"],
    );
    let job = project.job().display().to_string();
    refused(&[("AWS_CA_BUNDLE", &job)], &["holds no certificate"]);

    // Without TLS the proxy is asked for the whole address.
    let plain = Proxy::start(tls.port, 1);
    let mut all = environment(&format!("http://127.0.0.1:{}", tls.port), KEY);
    all.push(("HTTP_PROXY", plain.endpoint()));
    assert_eq!(planned(&plan(&project, "s3://way/in", &all, &[]))["videos"], 1);
    let lines = plain.lines();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.contains(" http://127.0.0.1:")),
        "{lines:?}"
    );
}
