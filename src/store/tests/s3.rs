//! The store in S3, on a real server.

use super::*;
use crate::tests::{server, server::READER, server::environment, server::server, server::with_environment};
use affectmill_spec::S3Settings;
use std::time::Instant;

fn location(bucket: &str, prefix: &str) -> Location {
    Location::parse(&format!("s3://{bucket}/{prefix}")).unwrap()
}

fn access() -> Access {
    Access::of_environment()
}

fn connect(bucket: &str, prefix: &str) -> Store {
    Store::connect(&location(bucket, prefix), &access()).unwrap()
}

#[test]
fn the_store_in_s3_conforms() {
    let test = "tests::s3::the_store_in_s3_conforms";
    with_environment(test, server().environment(), || {
        let bucket = server().bucket("conform");
        for (n, (name, test)) in SUITE.iter().enumerate() {
            let began = Instant::now();
            // A prefix as odd as any key.
            test(&connect(&bucket, &format!("p {n}+%23é/x")));
            println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        }
        test_of_what_others_see(&bucket);
        uploads_that_were_never_completed_are_swept(&bucket);
        an_object_is_read_as_it_was_looked_at_or_not_at_all(&bucket);
        a_walk_shows_every_object_once(&bucket);
        outputs_are_told_from_other_prefixes(&bucket);
    });
}

/// The server's other interface sees the same bytes.
fn test_of_what_others_see(bucket: &str) {
    let store = connect(bucket, "others");
    let large = noise(33 << 20, 5);
    let _ = store.put_new("labels/a b+c%é", b"small").unwrap();
    let _ = store
        .put_new_file("labels/large", filled(&store, &large))
        .unwrap();
    let seen = server().tree(bucket, "others");
    assert_eq!(seen["labels/a b+c%é"], b"small");
    assert!(seen["labels/large"] == large);
    server().put(bucket, "others/from outside #1", b"theirs");
    assert_eq!(store.get("from outside #1").unwrap().unwrap(), b"theirs");
}

fn uploads_that_were_never_completed_are_swept(bucket: &str) {
    let store = connect(bucket, "sweep");
    let Backend::S3(view) = &store.backend else {
        unreachable!("it was connected to in S3")
    };
    view.begin_upload_for_tests("labels/left");
    assert_eq!(
        store.sweep_scratch(Duration::from_secs(3600)).unwrap(),
        0,
        "a young upload stays"
    );
    assert_eq!(store.sweep_scratch(Duration::ZERO).unwrap(), 1);
    assert_eq!(store.sweep_scratch(Duration::ZERO).unwrap(), 0);
    assert_eq!(store.list("labels").unwrap(), []);
}

fn an_object_is_read_as_it_was_looked_at_or_not_at_all(bucket: &str) {
    let view = Bucket::open(&location(bucket, "pinned"), &access()).unwrap();
    let first = noise(20 << 20, 1);
    server().put(bucket, "pinned/v.mp4", &first);
    let object = view.head("v.mp4").unwrap().unwrap();
    assert_eq!(object.bytes, first.len() as u64);
    let file = tempfile::tempfile().unwrap();
    view.fetch(&object, &file).unwrap();
    let mut came = Vec::new();
    (&file).read_to_end(&mut came).unwrap();
    assert!(came == first);
    assert!(view.read(&object, 1_000_000..1_000_100).unwrap() == first[1_000_000..1_000_100]);

    server().put(bucket, "pinned/v.mp4", &noise(20 << 20, 2));
    let error = view.fetch(&object, &file).unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Changed), "{error}");
    let gone = Object {
        key: "none.mp4".into(),
        ..object
    };
    let error = view.fetch(&gone, &file).unwrap_err();
    assert_eq!(error.trouble(), Some(Trouble::Missing), "{error}");
    assert!(error.to_string().contains("pinned/none.mp4"), "{error}");
}

fn a_walk_shows_every_object_once(bucket: &str) {
    for n in 0..1_050 {
        server().put(bucket, &format!("walk/{}/{n}", n % 7), b"x");
    }
    let view = Bucket::open(&location(bucket, "walk"), &access()).unwrap();
    let mut seen = BTreeSet::new();
    view.walk(|object| assert!(seen.insert(object.key))).unwrap();
    let expected: BTreeSet<_> = (0..1_050).map(|n| format!("{}/{n}", n % 7)).collect();
    assert_eq!(seen, expected);
}

fn outputs_are_told_from_other_prefixes(bucket: &str) {
    let _ = connect(bucket, "an/output");
    Store::connect_existing(&location(bucket, "an/output"), &access()).unwrap();
    for other in ["an", "an/out", "nothing"] {
        let refusal = Store::connect_existing(&location(bucket, other), &access()).unwrap_err();
        assert!(refusal.to_string().contains("no affectmill output"), "{refusal}");
    }
}

/// Runs with other keys or another address than a server's own.
fn refused(test: &str, environment: Vec<(&'static str, String)>, bucket: &str, expected: &[&str]) {
    with_environment(test, environment, || {
        let began = Instant::now();
        let error = Store::connect(&location(bucket, "p"), &access()).unwrap_err();
        let message = error.to_string();
        for text in expected {
            assert!(message.contains(text), "{message}");
        }
        assert!(message.contains(&format!("s3://{bucket}/p")), "{message}");
        for secret in [server::KEY.1, READER.1, "nobody"] {
            assert!(!message.contains(secret), "{message}");
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    });
}

#[test]
fn a_missing_bucket_is_told_at_once() {
    let test = "tests::s3::a_missing_bucket_is_told_at_once";
    refused(
        test,
        server().environment(),
        "no-such-bucket",
        &["404 NoSuchBucket", "make it"],
    );
}

#[test]
fn keys_that_may_only_read_are_told_at_once() {
    let test = "tests::s3::keys_that_may_only_read_are_told_at_once";
    // A bucket that every process of this test sees.
    server().put("readable", "x", b"x");
    let environment = environment(&server().endpoint(), READER);
    refused(
        test,
        environment,
        "readable",
        &["403 AccessDenied", "s3:PutObject"],
    );
}

#[test]
fn unknown_keys_are_told_at_once() {
    let test = "tests::s3::unknown_keys_are_told_at_once";
    server().put("readable", "x", b"x");
    let environment = environment(&server().endpoint(), ("nobody", "nothing"));
    refused(
        test,
        environment,
        "readable",
        &["403 InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"],
    );
}

#[test]
fn a_wrong_secret_is_told_at_once() {
    let test = "tests::s3::a_wrong_secret_is_told_at_once";
    server().put("readable", "x", b"x");
    let environment = environment(&server().endpoint(), (server::KEY.0, "nothing"));
    refused(
        test,
        environment,
        "readable",
        &["403 SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"],
    );
}

#[test]
fn a_server_that_is_not_there_is_told_soon() {
    let test = "tests::s3::a_server_that_is_not_there_is_told_soon";
    let nobody = "http://127.0.0.1:9";
    refused(
        test,
        environment(nobody, server::KEY),
        "b",
        &["tried for", "[s3] endpoint"],
    );
}

#[test]
fn missing_credentials_are_told_at_once() {
    let test = "tests::s3::missing_credentials_are_told_at_once";
    let mut environment = environment(&server().endpoint(), ("", ""));
    environment.retain(|(name, _)| !name.contains("ACCESS_KEY"));
    refused(test, environment, "readable", &["credentials", "AWS_PROFILE"]);
}

#[test]
fn a_public_bucket_is_read_without_credentials() {
    server().put("public-0", "p/a.mp4", b"for all");
    let test = "tests::s3::a_public_bucket_is_read_without_credentials";
    let mut environment = environment("http://127.0.0.1:9", ("", ""));
    environment.retain(|(name, _)| !name.contains("ACCESS_KEY"));
    with_environment(test, environment, || {
        let settings = S3Settings {
            // The job's server outdoes the environment's.
            endpoint: Some(server().endpoint()),
            unsigned: vec!["public-0".into()],
            ..Default::default()
        };
        let access = Access::new(settings, None, Duration::from_secs(5));
        let view = Bucket::open(&location("public-0", "p"), &access).unwrap();
        let object = view.head("a.mp4").unwrap().unwrap();
        assert_eq!(view.read(&object, 0..object.bytes).unwrap(), b"for all");
        let mut seen = Vec::new();
        view.walk(|object| seen.push(object.key)).unwrap();
        assert_eq!(seen, ["a.mp4"]);
    });
}
