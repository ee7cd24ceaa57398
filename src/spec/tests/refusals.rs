//! Job files that are refused. Lines and columns in expected messages were counted by hand in the texts shown.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_jobs_are_refused_with_place_key_and_remedy() {
    let model = "[[models]]\nkind = \"student\"\nweights = \"w\"\nname = ";
    let cases: Vec<(String, &str)> = vec![
        // TOML itself.
        (
            GOOD.replace("\"videos\"", "\"videos"),
            "job.toml:2:14: not TOML: invalid basic string",
        ),
        (with_input("uri = 'x'"), "job.toml:3:1: not TOML: duplicate key"),
        (
            with("[run]\nbatch = 99999999999999999999"),
            "job.toml:10:9: the number 99999999999999999999 does not fit 64 bits",
        ),
        // Unknown and missing keys.
        (
            with("[sampling]\n  stirde = 5"),
            "job.toml:10:3: unknown key `stirde` in [sampling]; did you mean `stride`? (valid keys: `fps`, `mode`, `stride`)",
        ),
        (
            with("[sampeling]"),
            "job.toml:9:2: unknown key `sampeling` in the job file; did you mean `sampling`? (valid keys: `faces`, ",
        ),
        (
            with("[run]\nxyz = 1"),
            "job.toml:10:1: unknown key `xyz` in [run] (valid keys: `allow_device_change`, ",
        ),
        (
            GOOD.replace("kind", "kinds"),
            "job.toml:5:1: unknown key `kinds` in [[models]]; did you mean `kind`? (valid",
        ),
        (
            GOOD.replace("kind = \"student\"", ""),
            "job.toml:3:1: `kind` is missing in [[models]]; add it",
        ),
        (
            GOOD.replace("weights = \"w/student.safetensors\"", ""),
            "job.toml:3:1: `weights` is missing in [[models]]; add it",
        ),
        (
            GOOD.replace("uri = \"out\"", ""),
            "job.toml:7:1: `uri` is missing in [output]; add it",
        ),
        (
            GOOD.replace("[output]\nuri = \"out\"", ""),
            "job.toml:1:1: the section [output] is missing; add it",
        ),
        (
            "[input]\nuri = 'a'\n[output]\nuri = 'b'".into(),
            "job.toml:1:1: there is no [[models]] entry; add one",
        ),
        (
            "models = []\n[input]\nuri = 'a'\n[output]\nuri = 'b'".into(),
            "job.toml:1:10: `models` is empty; add an entry",
        ),
        (
            String::new(),
            "job.toml:1:1: the section [input] is missing; add it",
        ),
        // Types.
        (
            GOOD.replace("[[models]]", "[models]"),
            "job.toml:3:1: `models` must be a list of sections, each written [[models]], found a section",
        ),
        (
            format!("run = 5\n{GOOD}"),
            "job.toml:1:7: `run` must be a section, written [run], found the whole number 5",
        ),
        (
            GOOD.replace("\"videos\"", "5"),
            "job.toml:2:7: `input.uri` must be text, found the whole number 5; put it in quotes",
        ),
        (
            GOOD.replace("\"out\"", "2024-01-01"),
            "job.toml:8:7: `output.uri` must be text, found the date or time 2024-01-01; put it in",
        ),
        (
            with("[run]\nworkers = \"2\""),
            "job.toml:10:11: `run.workers` must be a whole number, found the text \"2\"; leave the quotes out",
        ),
        (
            with("[run]\nbatch = 8.0"),
            "job.toml:10:9: `run.batch` must be a whole number, found the number 8.0",
        ),
        (
            with("[run]\nstall_timeout = true"),
            "job.toml:10:17: `run.stall_timeout` must be a number, found the boolean true",
        ),
        (
            with_input("extensions = 'mp4'"),
            "job.toml:3:14: `input.extensions` must be a list of texts such as [\"a\", \"b\"], found the text",
        ),
        (
            with_input("extensions = ['mp4',\n  7]"),
            "job.toml:4:3: `input.extensions.1` must be text, found the whole number 7",
        ),
        // Choices.
        (
            with("[sampling]\nmode = \"strde\""),
            "job.toml:10:8: `sampling.mode` cannot be \"strde\"; did you mean `stride`? (valid: `every`, `stride`, `fps`, `keyframes`)",
        ),
        (
            GOOD.replace("= \"student\"\nw", "= \"teacher\"\nw"),
            "job.toml:5:8: `models.0.kind` cannot be \"teacher\"; did you mean `teacher_",
        ),
        (
            with("values = \"probs\""),
            "job.toml:9:10: `output.values` cannot be \"probs\"; did you mean `probabilities`? (valid: `logits`, ",
        ),
        // Ranges.
        (
            with("[run]\nbatch = 0"),
            "job.toml:10:9: `run.batch` must be at least 1, found the whole number 0",
        ),
        (
            with("[run]\nbatch = 1025"),
            "job.toml:10:9: `run.batch` must be at most 1024, found the whole number 1025",
        ),
        (
            with("[run]\nworkers = 0"),
            "job.toml:10:11: `run.workers` must be at least 1",
        ),
        (
            with("[run]\nworkers = 1025"),
            "job.toml:10:11: `run.workers` must be at most 1024",
        ),
        (
            with("[run]\nthreads = -1"),
            "job.toml:10:11: `run.threads` must be at least 1, found the whole number -1",
        ),
        (
            with("[run]\nmax_strikes = 0"),
            "job.toml:10:15: `run.max_strikes` must be at least 1",
        ),
        (
            with("[run]\nstall_timeout = 0.0"),
            "job.toml:10:17: `run.stall_timeout` must be above 0, found the number 0.0",
        ),
        (
            with("[run]\nstall_timeout = inf"),
            "job.toml:10:17: `run.stall_timeout` must be a finite number, found the number inf",
        ),
        (
            with("[run]\nstall_timeout = 1e18"),
            "job.toml:10:17: `run.stall_timeout` must be at most 604800",
        ),
        (
            with("[sampling]\nmode = 'fps'\nfps = nan"),
            "job.toml:11:7: `sampling.fps` must be a finite number",
        ),
        (
            with("[sampling]\nmode = 'fps'\nfps = -2"),
            "job.toml:11:7: `sampling.fps` must be above 0",
        ),
        (
            with("[sampling]\nmode = 'stride'\nstride = 0"),
            "job.toml:11:10: `sampling.stride` must be at least 1",
        ),
        (
            with("shard_frames = 0"),
            "job.toml:9:16: `output.shard_frames` must be at least 1",
        ),
        (
            with_input("image_fps = 0"),
            "job.toml:3:13: `input.image_fps` must be above 0",
        ),
        (
            with_input("image_base = -1"),
            "job.toml:3:14: `input.image_base` must be at least 0",
        ),
        (
            with_input("extensions = []"),
            "job.toml:3:14: `input.extensions` is empty; add an entry",
        ),
        // Combinations.
        (
            with("[sampling]\nmode = 'stride'"),
            "job.toml:10:8: `sampling.mode` is \"stride\", which needs `stride`; add it, such as stride = 5",
        ),
        (
            with("[sampling]\nmode = 'fps'"),
            "job.toml:10:8: `sampling.mode` is \"fps\", which needs `fps`; add it, such as fps = 2.0",
        ),
        (
            with("[sampling]\nstride = 5"),
            "job.toml:10:10: `sampling.stride` has no effect unless `mode` is \"stride\"; write mode = \"stride\" or remove it",
        ),
        (
            with("[sampling]\nmode = 'keyframes'\nfps = 5"),
            "job.toml:11:7: `sampling.fps` has no effect unless `mode` is \"fps\"",
        ),
        (
            with_input("extensions = ['mp4', '.mov']"),
            "job.toml:3:22: `input.extensions` holds \".mov\"; write the letters and digits",
        ),
        (
            with_input("extensions = ['']"),
            "job.toml:3:15: `input.extensions` holds \"\"; write",
        ),
        (
            with(&format!("{model}'student'")),
            "job.toml:12:8: the model name `student` clashes with the earlier `student`",
        ),
        (
            with(&format!("{model}'STUDENT'")),
            "job.toml:12:8: the model name `STUDENT` clashes with the earlier `student` (upper and lower case",
        ),
        (
            with(&format!("{model}'1st'")),
            "job.toml:12:8: `models.name` cannot be \"1st\"; it begins the names of columns",
        ),
        (
            with(&format!("{model}''")),
            "job.toml:12:8: `models.name` cannot be \"\"; it begins",
        ),
        (
            with(&format!("{model}'é'")),
            "job.toml:12:8: `models.name` cannot be \"é\"; it begins",
        ),
        (
            GOOD.replace("\"out\"", "\"./videos/\""),
            "job.toml:8:7: `output.uri` is the input itself (",
        ),
        // What this version does not have.
        (
            with("[run]\nqueue = \"nats://host:4222\""),
            "job.toml:10:9: `run.queue` is \"nats://host:4222\", which needs `name`: what workers ask for; letters, digits,",
        ),
        (
            with("[run]\nqueue = \"nats://host:4222\"\nname = \"a.b\""),
            "job.toml:11:8: `run.name` cannot be \"a.b\"; letters, digits, `-` and `_`, at most 64",
        ),
        (
            with("[run]\nname = \"x\"\nqueue = \"nats://host:4222\"\n[nats]\ninbox_prefix = \"mine.>\""),
            "job.toml:13:16: `nats.inbox_prefix` cannot be \"mine.>\"; letters, digits, `-`, `_` and dots between them",
        ),
        (
            with("[run]\nname = \"x\"\nqueue = \"a:4222,nats://me:secret@b:4222\""),
            "job.toml:11:9: `run.queue` cannot hold credentials; name a file as [nats] credentials, or set NATS_USER",
        ),
        (
            with("[run]\nqueue = \"amqp://host\""),
            "job.toml:10:9: `run.queue` cannot be \"amqp://host\": there are no `amqp://` queues; write \"local\" or",
        ),
        (
            with("[run]\nqueue = \"lokal\""),
            "job.toml:10:9: `run.queue` cannot be \"lokal\": there is no such queue; write \"local\" or \"nats://host:4222\"",
        ),
        (
            GOOD.replace("\"videos\"", "\"s3://a bucket/videos\""),
            "job.toml:2:7: `input.uri` is \"s3://a bucket/videos\": \"a bucket\" is no name of a bucket; write s3://",
        ),
        (
            GOOD.replace("\"videos\"", "\"s3://b/v/\"")
                .replace("\"out\"", "\"s3://b/v\""),
            "job.toml:8:7: `output.uri` is the input itself (s3://b/v)",
        ),
        (
            with("[s3]\nendpoint = \"localhost:9000\""),
            "job.toml:10:12: `s3.endpoint` cannot be \"localhost:9000\": a server begins with http://",
        ),
        (
            with("[s3]\nendpoint = \"http://me:secret@host\""),
            "job.toml:10:12: `s3.endpoint` cannot be \"set\": credentials have no place in it",
        ),
        (
            with("[s3]\naccess_key = \"x\""),
            "job.toml:10:1: unknown key `access_key` in [s3]",
        ),
        (
            GOOD.replace("\"out\"", "\"https://x/y\""),
            "job.toml:8:7: `output.uri` is \"https://x/y\": `https://` is not available here",
        ),
        (
            GOOD.replace("w/student", "gs://student"),
            "job.toml:6:11: `models.student.weights` is \"gs://student.safetensors\": `gs://` is not available here",
        ),
        (
            GOOD.replace("\"out\"", "\"file://out\""),
            "job.toml:8:7: `output.uri` is \"file://out\": a file uri holds an absolute path",
        ),
        (
            GOOD.replace("\"out\"", "\"file:///out%2\""),
            "job.toml:8:7: `output.uri` is \"file:///out%2\": it has a `%`",
        ),
        (
            GOOD.replace("\"out\"", "\"\""),
            "job.toml:8:7: `output.uri` is \"\": it is empty; name a path",
        ),
        (
            GOOD.replace("\"out\"", "\"a\\u0000b\""),
            "job.toml:8:7: `output.uri` is \"a\\0b\": no path holds a NUL",
        ),
    ];
    for (text, expected) in cases {
        let message = load_text(&text, &[]).expect_err(&text);
        let lines: Vec<&str> = message.lines().collect();
        assert!(
            lines[0].starts_with(expected),
            "\n{text}\nexpected: {expected}\nfound:    {message}"
        );
        for line in lines {
            assert!(line.starts_with("job.toml:"), "{line}");
        }
    }
}

#[test]
fn columns_count_characters_and_lines_may_end_in_crlf() {
    let text = with("run = { \"ünknöwn\" = 1, bad = 2 }").replace('\n', "\r\n");
    let text = text.replace("run = {", "[run]\r\nqueue = { \"é\" = 1 }\r\nx = {");
    let message = load_text(&text, &[]).unwrap_err();
    let lines: Vec<&str> = message.lines().collect();
    assert!(
        lines[0].starts_with("job.toml:10:9: `run.queue` must be text, found a section"),
        "{message}"
    );
    assert!(
        lines[1].starts_with("job.toml:11:1: unknown key `x` in [run]"),
        "{message}"
    );

    let message = load_text(&with("values = \"ü\"; x"), &[]).unwrap_err();
    assert!(message.starts_with("job.toml:9:13: not TOML"), "{message}");
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = GOOD
        .replace("uri = \"videos\"", "url = \"videos\"")
        .replace("kind", "kin");
    let message = load_text(
        &format!("{text}[run]\nbatch = 'a'\nworkres = 2\n"),
        &["run.thread=1"],
    )
    .unwrap_err();
    let places: Vec<&str> = message
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let expected = [
        "job.toml:2:1",
        "job.toml:5:1",
        "job.toml:10:9",
        "job.toml:11:1",
        "--set run.thread=1",
    ];
    assert_eq!(places, expected, "{message}");
}

#[test]
fn bad_overrides_are_refused_by_their_text() {
    let cases = [
        (
            "run.workers",
            "--set run.workers: has no `=`; write it as key=value, such as run.workers=2",
        ),
        ("=2", "--set =2: has an empty key"),
        ("run..x=2", "--set run..x=2: has an empty key"),
        (
            "run.worker=2",
            "--set run.worker=2: unknown key `worker` in [run]; did you mean `workers`? (valid keys: `allow_device_change`, ",
        ),
        (
            "rum.workers=2",
            "--set rum.workers=2: unknown key `rum` in the job file; did you mean `run`?",
        ),
        (
            "run.workers=two",
            "--set run.workers=two: `run.workers` must be a whole number, found the text \"two\"",
        ),
        (
            "output.uri=2024",
            "--set output.uri=2024: `output.uri` must be text, found the whole number 2024; put it in quotes",
        ),
        (
            "models.pupil.name=x",
            "--set models.pupil.name=x: `models` has no entry `pupil` (entries: `student`)",
        ),
        (
            "models.studnet.name=x",
            "--set models.studnet.name=x: `models` has no entry `studnet`; did you mean `student`?",
        ),
        (
            "models.1.name=x",
            "--set models.1.name=x: `models` has no entry `1` (entries: `student`)",
        ),
        (
            "input.uri.x=1",
            "--set input.uri.x=1: `input.uri` is the text \"videos\", which has no keys",
        ),
        (
            "sampling.stride=5",
            "--set sampling.stride=5: `sampling.stride` has no effect unless `mode` is \"stride\"",
        ),
        (
            "input.uri=s3:///x",
            "--set input.uri=s3:///x: `input.uri` is \"s3:///x\": \"\" is no name of a bucket",
        ),
        ("models=[]", "--set models=[]: `models` is empty; add an entry"),
    ];
    for (text, expected) in cases {
        let message = load_text(GOOD, &[text]).expect_err(text);
        assert!(
            message.starts_with(expected),
            "\nexpected: {expected}\nfound:    {message}"
        );
    }
}

#[test]
fn unreadable_files_are_named() {
    let (_keep, folder) = job_file(b"[input]\nuri = \"a\xff\"\n");
    let message = |path: PathBuf| load(&path, &[]).unwrap_err().to_string();
    let missing = folder.join("missing.toml");
    assert_eq!(
        message(missing.clone()),
        format!("{}: there is no such job file; check the path", missing.display())
    );
    assert!(message(folder.clone()).contains("is a folder, not a job file"));
    assert!(
        message(folder.join("job.toml"))
            .ends_with("job.toml:2:9: is not UTF-8; save the job file as UTF-8 text")
    );
}

/// A job file that is cut off anywhere, or has any one byte spoilt, is loaded or refused; nothing panics.
#[test]
fn damaged_files_never_panic() {
    let text = with("[run]\nworkers = 2 # ü\n[sampling]\nmode = 'fps'\nfps = 2.5");
    let (_keep, folder) = job_file(&text);
    let path = folder.join("job.toml");
    let mut refused = 0;
    for at in 0..text.len() {
        for spoil in [None, Some(b'['), Some(b'"'), Some(b'\n'), Some(0xff)] {
            let mut bytes = text.as_bytes().to_vec();
            match spoil {
                None => bytes.truncate(at),
                Some(byte) => bytes[at] = byte,
            }
            std::fs::write(&path, bytes).unwrap();
            refused += usize::from(load(&path, &[]).is_err());
        }
    }
    assert!(refused > text.len(), "{refused}");
}
