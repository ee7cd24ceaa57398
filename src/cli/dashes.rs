//! Tips for names that begin with `-`, which the command line parses as options.

use super::Cli;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error, Parser};
use std::ffi::OsString;

/// Parses the arguments of this process.
pub(super) fn parse() -> Result<Cli, Error> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    Cli::try_parse_from(&arguments).map_err(|error| advise(error, &arguments))
}

/// Adds a tip to an error where an argument may be meant as a name; `arguments` are those of the process.
fn advise(mut error: Error, arguments: &[OsString]) -> Error {
    if let Some(tip) = tip(&error, arguments) {
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

fn tip(error: &Error, arguments: &[OsString]) -> Option<String> {
    let options = arguments.iter().take_while(|argument| *argument != "--");
    let texts: Option<Vec<&str>> = options.map(|argument| argument.to_str()).collect();
    let texts = texts.filter(|texts| texts.len() == arguments.len())?;
    let is_name = |text: &str| text.starts_with('-') && !text.starts_with("--") && text.len() > 2;
    let at = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::DisplayHelp | ErrorKind::DisplayVersion, _) => None,
        (ErrorKind::UnknownArgument, Some(ContextValue::String(unknown))) => texts
            .iter()
            .position(|text| is_name(text) && text.starts_with(unknown.as_str())),
        // Options of one letter swallow the rest of such a name.
        _ => texts
            .iter()
            .position(|text| is_name(text) && text.contains(['.', '/'])),
    }?;
    let name = texts[at];
    let mut words: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    words.remove(at);
    match at.checked_sub(1).map(|before| texts[before]) {
        Some(option) if takes_value(texts.get(1)?, option) => {
            words[at - 1] = quoted(&format!("{option}={name}"));
        }
        _ => words.extend(["--".into(), quoted(name)]),
    }
    words[0] = "affectmill".into();
    Some(format!("if `{name}` is a name, write: {}", words.join(" ")))
}

/// Whether this is a long option of the subcommand that a value follows.
fn takes_value(subcommand: &str, option: &str) -> bool {
    let Some(long) = option.strip_prefix("--") else {
        return false;
    };
    let command = Cli::command();
    let found = command.find_subcommand(subcommand).and_then(|command| {
        let mut all = command.get_arguments();
        all.find(|argument| argument.get_long() == Some(long))
    });
    found.is_some_and(|argument| argument.get_action().takes_values())
}

/// Quoted for a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip_of(line: &[&str]) -> Option<String> {
        let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
        let error = Cli::try_parse_from(&arguments).expect_err("it is refused");
        let shown = advise(error, &arguments).to_string();
        let tip = shown.split("write: ").nth(1)?;
        Some(tip.lines().next()?.to_owned())
    }

    #[test]
    fn a_name_that_begins_with_a_dash_is_told_how_to_be_written() {
        let line = [
            "affectmill",
            "render",
            "-Zx9.mp4",
            "--labels",
            "my out",
            "-o",
            "x.mp4",
        ];
        let expected = "affectmill render --labels 'my out' -o x.mp4 -- -Zx9.mp4";
        assert_eq!(tip_of(&line).as_deref(), Some(expected));
        // `-o` swallows the name, and the video is missing.
        let line = [
            "affectmill",
            "render",
            "-old.mp4",
            "--labels",
            "out",
            "-o",
            "x.mp4",
        ];
        let expected = "affectmill render --labels out -o x.mp4 -- -old.mp4";
        assert_eq!(tip_of(&line).as_deref(), Some(expected));
        let line = ["affectmill", "retry", "out", "--video", "-Zx9.mp4"];
        assert_eq!(
            tip_of(&line).as_deref(),
            Some("affectmill retry out --video=-Zx9.mp4")
        );
    }

    #[test]
    fn what_is_written_so_is_understood_and_other_mistakes_get_no_such_tip() {
        Cli::try_parse_from([
            "affectmill",
            "render",
            "--labels",
            "out",
            "-o",
            "x.mp4",
            "--",
            "-Zx9.mp4",
        ])
        .unwrap();
        Cli::try_parse_from(["affectmill", "retry", "out", "--video=-Zx9.mp4"]).unwrap();
        assert_eq!(tip_of(&["affectmill", "run"]), None);
        assert_eq!(tip_of(&["affectmill", "run", "job.toml", "--sett", "a=b"]), None);
    }
}
