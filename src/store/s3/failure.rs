//! What an answer, or the lack of one, means.

use crate::Trouble;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub trouble: Trouble,
    pub cause: String,
    pub remedy: String,
}

impl Failure {
    /// What came is not what was asked for: cut off, damaged on the way, of another length.
    pub fn damaged(cause: impl Into<String>) -> Self {
        Self::of(Trouble::Transient, cause.into(), "")
    }

    /// The object is not there.
    pub fn missing() -> Self {
        answered(404, "", None, None)
    }

    /// The object is not the one that was meant.
    pub fn changed() -> Self {
        let cause = "it is not what it was".into();
        Self::of(Trouble::Changed, cause, "it was written anew meanwhile")
    }

    fn of(trouble: Trouble, cause: String, remedy: impl Into<String>) -> Self {
        Self {
            trouble,
            cause,
            remedy: remedy.into(),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(refusal) => {
                let raw = refusal.raw();
                let region = raw.headers().get("x-amz-bucket-region");
                let code = refusal.err().code().unwrap_or_default();
                answered(raw.status().as_u16(), code, refusal.err().message(), region)
            }
            SdkError::ConstructionFailure(_) => setup(chain(&error)),
            SdkError::DispatchFailure(failure) if failure.is_user() => setup(chain(&error)),
            // Timeouts, connections that break, answers that are none; credentials that cannot be had come this way too.
            _ => unanswered(chain(&error)),
        }
    }
}

const CREDENTIALS: &str = "check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or [s3] profile, \
     `aws sso login`, or the machine's role; a bucket that anybody may read goes into [s3] unsigned";

const PROXY: &str = "the proxy wants a name and a password: HTTPS_PROXY=http://name:password@host:port";

fn answered(status: u16, code: &str, message: Option<&str>, region: Option<&str>) -> Failure {
    let cause = match (code, message) {
        ("", _) => format!("the server answered {status}"),
        (code, None | Some("")) => format!("the server answered {status} {code}"),
        (code, Some(message)) => format!("the server answered {status} {code}: {message}"),
    };
    let (trouble, remedy) = match (status, code) {
        (_, "NoSuchBucket") => (
            Trouble::Setup,
            "there is no such bucket: make it, or correct its name or the server ([s3] endpoint)".into(),
        ),
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
            (Trouble::Setup, CREDENTIALS.into())
        }
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => (
            Trouble::Setup,
            "the credentials have run out: renew them and run again".into(),
        ),
        (_, "RequestTimeTooSkewed") => (
            Trouble::Setup,
            "this machine's clock is wrong: set it and run again".into(),
        ),
        (_, "InvalidObjectState") => (
            Trouble::Missing,
            "it lies in an archive: restore it, or leave it out".into(),
        ),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
        | (301 | 307, _) => (
            Trouble::Setup,
            match region {
                Some(region) => format!("the bucket lies in {region}: set [s3] region = \"{region}\""),
                None => "the bucket lies in another region: set [s3] region or AWS_REGION".into(),
            },
        ),
        // What was damaged on its way to the server may arrive the next time.
        (
            400,
            "BadDigest"
            | "IncompleteBody"
            | "InvalidDigest"
            | "RequestTimeout"
            | "XAmzContentChecksumMismatch"
            | "XAmzContentSHA256Mismatch",
        )
        // 409: another conditional write of the same key was under way.
        | (408 | 409 | 429, _) => (Trouble::Transient, String::new()),
        (501, _) => (
            Trouble::Setup,
            "this server lacks what affectmill needs: create-only writes (If-None-Match), multipart uploads".into(),
        ),
        (500.., _) | (_, "SlowDown" | "ThrottlingException") => (Trouble::Transient, String::new()),
        (401 | 403, _) => (
            if status == 403 { Trouble::Forbidden } else { Trouble::Setup },
            "check that these credentials may list, read and write there (s3:ListBucket, s3:GetObject, s3:PutObject, \
             s3:DeleteObject, s3:AbortMultipartUpload)"
                .into(),
        ),
        (407, _) => (Trouble::Setup, PROXY.into()),
        (404, _) => (
            Trouble::Missing,
            "was it moved or deleted? Put it back and run again".into(),
        ),
        (412 | 416, _) => (Trouble::Changed, "it was written anew meanwhile".into()),
        _ => (
            Trouble::Setup,
            "check the server ([s3] endpoint), the region and the bucket's name".into(),
        ),
    };
    Failure::of(trouble, cause, remedy)
}

fn unanswered(cause: String) -> Failure {
    let says = |text: &str| cause.contains(text);
    let no_credentials =
        says("credentials") && !says("timed out") && !says("timeout") && !says("connection error");
    if no_credentials {
        return Failure::of(Trouble::Setup, cause, CREDENTIALS);
    }
    if says("certificate") {
        let remedy = "check the server's certificate and this machine's list of authorities (AWS_CA_BUNDLE, SSL_CERT_FILE)";
        return Failure::of(Trouble::Setup, cause, remedy);
    }
    if says("proxy authorization required") {
        return Failure::of(Trouble::Setup, cause, PROXY);
    }
    Failure::of(Trouble::Transient, cause, "")
}

fn setup(cause: String) -> Failure {
    Failure::of(
        Trouble::Setup,
        cause,
        "check the [s3] section and the AWS settings",
    )
}

/// An error with its causes, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and statuses: "List of error codes", Amazon S3 API reference.
    #[test]
    fn answers_are_told_apart() {
        for (status, code, expected, remedy) in [
            (500, "InternalError", Trouble::Transient, ""),
            (503, "SlowDown", Trouble::Transient, ""),
            (503, "", Trouble::Transient, ""),
            (429, "", Trouble::Transient, ""),
            (400, "RequestTimeout", Trouble::Transient, ""),
            (400, "BadDigest", Trouble::Transient, ""),
            (409, "ConditionalRequestConflict", Trouble::Transient, ""),
            (404, "NoSuchKey", Trouble::Missing, "deleted"),
            (404, "NoSuchBucket", Trouble::Setup, "bucket"),
            (403, "AccessDenied", Trouble::Forbidden, "s3:GetObject"),
            (403, "", Trouble::Forbidden, "s3:PutObject"),
            (401, "", Trouble::Setup, "s3:PutObject"),
            (403, "InvalidAccessKeyId", Trouble::Setup, "AWS_ACCESS_KEY_ID"),
            (
                403,
                "SignatureDoesNotMatch",
                Trouble::Setup,
                "AWS_SECRET_ACCESS_KEY",
            ),
            (403, "RequestTimeTooSkewed", Trouble::Setup, "clock"),
            (403, "InvalidObjectState", Trouble::Missing, "restore"),
            (400, "ExpiredToken", Trouble::Setup, "renew"),
            (412, "PreconditionFailed", Trouble::Changed, ""),
            (501, "NotImplemented", Trouble::Setup, "If-None-Match"),
        ] {
            let failure = answered(status, code, None, None);
            assert_eq!(failure.trouble, expected, "{status} {code}");
            assert!(
                failure.remedy.contains(remedy),
                "{status} {code}: {}",
                failure.remedy
            );
            assert!(failure.cause.contains(&status.to_string()), "{}", failure.cause);
        }
        let moved = answered(301, "PermanentRedirect", None, Some("eu-west-1"));
        assert!(
            moved.remedy.contains("region = \"eu-west-1\""),
            "{}",
            moved.remedy
        );
    }
}
