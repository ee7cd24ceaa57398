//! Events and figures as people read them.

use affectmill_base::ErrorClass;
use affectmill_base::escaped;
use affectmill_labelset::events::{Event, NotOk, Summary, Totals};
use affectmill_labelset::{PassedOver, Unseen, VideoStatus};
use console::style;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// An event as lines of text, or `None` when it is not worth one. Styled; the caller's stream decides whether
/// colours show. Nothing else in it acts on a terminal.
#[expect(clippy::too_many_lines, reason = "one arm for each event")]
pub fn lines(event: &Event) -> Option<String> {
    let event = harmless(event);
    Some(match &*event {
        Event::RunStarted {
            output,
            workers,
            devices,
            totals,
            passed_over: passed,
            ..
        } => {
            let passed = passed_over(passed).map_or(String::new(), |line| format!("\n{line}"));
            let resumed = match totals.shards_done {
                0 => String::new(),
                done => format!(
                    "; {} of {} done already",
                    count(done as u64),
                    plural(totals.shards as u64, "shard")
                ),
            };
            format!(
                "labelling {} of {} into {} with {}{resumed}{passed}",
                plural(totals.videos as u64, "video"),
                length(totals),
                output,
                match workers {
                    0 => "workers that join".into(),
                    workers => on_devices(*workers, devices),
                },
            )
        }
        Event::Queued { job, queue, shards } => format!(
            "{} in the queue; `affectmill worker --queue {queue} --job {job}` on any host that sees input and output joins",
            plural(*shards as u64, "shard")
        ),
        Event::Joined {
            job,
            output,
            workers,
            devices,
            ..
        } => format!(
            "joined {job}, which labels into {output}, with {}",
            on_devices(*workers, devices)
        ),
        Event::Retrying { videos, classes } => retrying(*videos, classes),
        Event::Shown { address } => format!("this run shows itself at http://{address}/ and /metrics"),
        Event::Warning { message } => format!("{}: {message}", style("warning").yellow().bold()),
        Event::WorkerLost {
            worker,
            reason,
            video,
            last_frame,
            last_words,
        } => {
            let place = match (video, last_frame) {
                (Some(video), Some(frame)) => format!(" at frame {frame} of {video}"),
                (Some(video), None) => format!(" while opening {video}"),
                (None, _) => String::new(),
            };
            let words: String = last_words.iter().map(|line| format!("\n    | {line}")).collect();
            format!(
                "{}: worker {worker}{place}: {reason}{words}",
                style("lost").red().bold()
            )
        }
        Event::Resumed {
            worker,
            video,
            frame,
            again,
        } => format!(
            "worker {worker} goes on with {video} at frame {frame} ({} decoded again)",
            plural(*again, "frame")
        ),
        Event::Strike {
            video, strikes, of, ..
        } => {
            let then = if *strikes >= *of as usize {
                "; quarantined"
            } else {
                ""
            };
            format!(
                "{}: {video}: strike {strikes} of {of}{then}",
                style("strike").red()
            )
        }
        Event::VideoNotOk {
            video,
            status,
            class,
            error,
        } => {
            let (video, status) = (video.clone(), *status);
            let (class, error) = (*class, error.clone());
            not_ok(&NotOk {
                video,
                status,
                class,
                error,
            })
        }
        Event::Draining { signal, shards: 0 } => format!("{signal}: stopping at once; run again to go on"),
        Event::Draining { signal, shards } => format!(
            "{signal}: finishing {} in hand, then stopping; once more stops at once",
            plural(*shards as u64, "shard")
        ),
        Event::Finished {
            nothing_to_do,
            summary,
        } => finished(*nothing_to_do, summary),
        Event::Stopped {
            reason,
            planned: Some(planned),
            ..
        } => format!(
            "stopped by {reason} while planning: {} planned, which stay so; run again to go on",
            plural(*planned as u64, "video")
        ),
        Event::Stopped {
            reason,
            shards_done,
            shards,
            planned: None,
            ..
        } => {
            format!("stopped by {reason}: {shards_done} of {shards} shards are done; run again to go on")
        }
        _ => return None,
    })
}

/// The event with every text in it escaped: names of videos, what went wrong, what a worker wrote last.
fn harmless(event: &Event) -> Cow<'_, Event> {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    escape(&mut value);
    serde_json::from_value(value).map_or(Cow::Borrowed(event), Cow::Owned)
}

fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = escaped(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(escape),
        Value::Object(values) => values.values_mut().for_each(escape),
        _ => {}
    }
}

/// `about 1,000 frames`, and of how many videos nobody knows.
fn length(totals: &Totals) -> String {
    let frames = plural(totals.frames, "frame");
    match totals.unknown {
        0 => format!("about {frames}"),
        all if all == totals.videos => "unknown length".into(),
        some => format!("about {frames} ({} of unknown length)", count(some as u64)),
    }
}

/// `2 workers: cuda:0 (NVIDIA H100), cuda:1 (NVIDIA H100)`.
fn on_devices(workers: usize, devices: &[String]) -> String {
    let crew = plural(workers as u64, "worker");
    match devices {
        [] => crew,
        _ => format!("{crew}: {}", devices.join(", ")),
    }
}

/// Whether somebody should look at it.
pub fn is_trouble(event: &Event) -> bool {
    matches!(
        event,
        Event::Warning { .. }
            | Event::WorkerLost { .. }
            | Event::Strike { .. }
            | Event::VideoNotOk { .. }
            | Event::Stopped { .. }
    )
}

/// `failed (io): clip.mp4: why`.
pub fn not_ok(video: &NotOk) -> String {
    let NotOk {
        video,
        status,
        class,
        error,
    } = video;
    let error = escaped(error);
    let class = class.map_or(String::new(), |class| format!(" ({})", class.as_str()));
    let status = match status {
        VideoStatus::Partial => style(status.as_str()).yellow(),
        _ => style(status.as_str()).red(),
    };
    format!("{status}{class}: {video}: {error}")
}

fn retrying(videos: usize, classes: &[(ErrorClass, usize)]) -> String {
    if videos == 0 {
        return "no video to label again".into();
    }
    let counts = classes
        .iter()
        .map(|(class, count)| format!("{} {}", count, class.as_str()));
    let counts: Vec<String> = counts.collect();
    let counts = if counts.is_empty() {
        String::new()
    } else {
        format!(" ({})", counts.join(", "))
    };
    format!("labelling {} again{counts}", plural(videos as u64, "video"))
}

fn finished(nothing_to_do: bool, summary: &Summary) -> String {
    let mut text = if nothing_to_do {
        format!(
            "nothing to do: all {} are done",
            plural(summary.videos() as u64, "video")
        )
    } else {
        format!(
            "{}: {} in {} ({:.1} frames/s)",
            style("finished").green().bold(),
            plural(summary.frames_this_run, "frame"),
            duration(Duration::from_secs_f64(summary.seconds)),
            summary.frames_this_run as f64 / summary.seconds.max(1e-3),
        )
    };
    text += &format!(
        "; {}, {}; videos: {} ok",
        plural(summary.rows, "row"),
        plural(summary.faces, "face"),
        summary.ok
    );
    for (number, name) in [
        (summary.partial, "partial"),
        (summary.failed, "failed"),
        (summary.quarantined, "quarantined"),
    ] {
        if number > 0 {
            text += &format!(", {number} {name}");
        }
    }
    if summary.not_finite > 0 {
        text += &format!(
            "; {} for which a model gave no finite number",
            plural(summary.not_finite, "face")
        );
    }
    for listed in &summary.not_ok {
        text += &format!("\n  {}", not_ok(listed));
    }
    let more = summary.partial + summary.failed + summary.quarantined - summary.not_ok.len();
    if more > 0 {
        text += &format!("\n  … and {more} more: see videos.parquet");
    }
    for line in unseen(&summary.unseen)
        .into_iter()
        .chain(passed_over(&summary.passed_over))
        .chain(fell_back(summary.fell_back))
    {
        text += &format!("\n{line}");
    }
    if let Some(line) = devices(&summary.devices) {
        text += &format!("\n{line}");
    }
    if let Some(bottleneck) = &summary.bottleneck {
        text += &format!("\n{bottleneck}");
    }
    text
}

/// What a search of the input passed over; nothing where that is nothing.
pub fn passed_over(passed_over: &[PassedOver]) -> Option<String> {
    PassedOver::list(passed_over).map(|list| format!("passed over: {list}"))
}

/// What a search of the input could not look at; nothing where it saw everything.
pub fn unseen(unseen: &Unseen) -> Option<String> {
    if unseen.is_empty() {
        return None;
    }
    let what = plural(unseen.count, "place");
    let mut text = format!(
        "{}: {what} of the input could not be looked at, and what is there is not labelled",
        style("unseen").red()
    );
    for place in &unseen.first {
        text += &format!("\n  {place}");
    }
    if unseen.more() > 0 {
        text += &format!("\n  … and {} more", count(unseen.more()));
    }
    Some(text)
}

/// How many videos were decoded on the CPU though the job decodes on GPUs; nothing where none was.
pub fn fell_back(videos: usize) -> Option<String> {
    (videos > 0).then(|| {
        format!(
            "decoded on the CPU instead of the GPU: {}; `decode_fallback` in videos.parquet says why",
            plural(videos as u64, "video")
        )
    })
}

/// What the shards were labelled on, where that is not one device; nothing where it is.
pub fn devices(shards: &BTreeMap<String, usize>) -> Option<String> {
    let each = shards
        .iter()
        .map(|(device, shards)| format!("{} on {device}", plural(*shards as u64, "shard")));
    let each: Vec<String> = each.collect();
    (each.len() > 1).then(|| format!("labelled on more than one kind of device: {}", each.join(", ")))
}

/// `1 video`, `2,345 videos`.
pub fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit.
pub fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{number} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `3 d 4 h`, `2 h 5 min`, `3 min 20 s`, `4.2 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{:.1} s", time.as_secs_f64()),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "row"), "1 row");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(duration(Duration::from_millis(4_200)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
    }
}
