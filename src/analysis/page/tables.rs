//! The page's tables, and its faces.

use super::figures::{Agreement, Apart, Confusion, Failures, Model, Shown, UnitAgreement};
use affectmill_base::EXPRESSIONS;
use affectmill_labelset::VideoStatus;
use affectmill_progress::text;
use base64::Engine;
use maud::{Markup, html};

pub use text::plural;

/// `12.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A name as the page shows it: characters that would hide or turn others around are spelled out.
pub fn name(name: &str) -> Markup {
    let turns = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut shown = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_control() || turns(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    html! { bdi { (shown) } }
}

/// Two decimals, or a dash.
fn number(number: Option<f64>) -> String {
    let rounded = |number: f64| (number * 100.0).round() / 100.0;
    // Adding 0 turns −0 into 0.
    number.map_or("–".into(), |number| format!("{:.2}", rounded(number) + 0.0))
}

/// Who labelled.
pub fn models(models: &[Model]) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for title in ["model", "kind", "architecture", "precision", "weights (SHA-256)", ""] { th { (title) } }
                    }
                }
                tbody {
                    @for model in models {
                        tr {
                            th { (model.name) }
                            td { (model.kind) }
                            td { (model.architecture) }
                            td { (model.precision) }
                            td { code { (model.sha256.get(..12).unwrap_or(&model.sha256)) "…" } }
                            td { @if model.untrained { span.tag { "untrained" } } }
                        }
                    }
                }
            }
        }
    }
}

/// Videos that did not end `ok`.
pub fn failures(failures: &Failures) -> Markup {
    let more = failures.videos - failures.listed.len();
    html! {
        div.scroll {
            table {
                thead { tr { th { "video" } th { "status" } th { "class" } th { "error" } } }
                tbody {
                    @for video in &failures.listed {
                        tr {
                            th { (name(video.video.as_str())) }
                            td { span.tag.bad[video.status != VideoStatus::Partial] { (video.status.as_str()) } }
                            td { (video.class.map_or("", |class| class.as_str())) }
                            td.words { (video.error) }
                        }
                    }
                }
            }
        }
        @if more > 0 { p.note { "… and " (text::count(more as u64)) " more: see videos.parquet." } }
    }
}

/// Concordance, confusions, and action units of every pair.
pub fn agreement(agreement: &Agreement) -> Markup {
    html! {
        @if !agreement.valence_arousal.is_empty() {
            figure {
                figcaption { "Valence and arousal: concordance correlation (CCC), 1 the same, 0 unrelated" }
                div.scroll {
                    table.narrow {
                        thead { tr { th { "models" } th.n { "valence" } th.n { "arousal" } } }
                        tbody {
                            @for pair in &agreement.valence_arousal {
                                tr {
                                    th { (pair.models[0]) " – " (pair.models[1]) }
                                    td.n { (number(pair.valence)) }
                                    td.n { (number(pair.arousal)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if !agreement.expressions.is_empty() {
            div.grid { @for pair in &agreement.expressions { (confusion(pair)) } }
        }
        @for pair in &agreement.action_units { (units(pair)) }
    }
}

fn confusion(pair: &Confusion) -> Markup {
    html! {
        figure {
            figcaption {
                "Expressions: the same on " b { (percent(pair.agreement)) } " of faces, κ " b { (number(pair.kappa)) }
            }
            div.scroll {
                table.confusion {
                    thead {
                        tr {
                            th { (pair.models[0]) " ↓ " (pair.models[1]) " →" }
                            @for class in EXPRESSIONS { th { span { (class) } } }
                        }
                    }
                    tbody {
                        @for (class, row) in EXPRESSIONS.iter().zip(&pair.faces) {
                            @let sum = row.iter().sum::<u64>();
                            tr {
                                th { (class) }
                                @for count in row {
                                    @let share = *count as f64 / sum.max(1) as f64;
                                    td.n style=(format!("--v:{share:.3}")) title=(percent(share)) {
                                        @if *count > 0 { (text::count(*count)) } @else { span.muted { "·" } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn units(pair: &UnitAgreement) -> Markup {
    let [first, second] = &pair.models;
    html! {
        figure {
            figcaption { "Action units of " b { (first) } " and " b { (second) } ": active is a probability above 0.5" }
            div.scroll {
                table.narrow {
                    thead {
                        tr { th { "" } @for title in [first.as_str(), second, "both", "the same", "κ"] { th.n { (title) } } }
                    }
                    tbody {
                        @for unit in &pair.units {
                            @let [both, only_first, only_second, _] = unit.faces;
                            @let all = unit.faces.iter().sum::<u64>().max(1) as f64;
                            tr {
                                th { (unit.unit) }
                                td.n { (percent((both + only_first) as f64 / all)) }
                                td.n { (percent((both + only_second) as f64 / all)) }
                                td.n { (percent(both as f64 / all)) }
                                td.n { (percent(unit.agreement)) }
                                td.n { (number(unit.kappa)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Videos apart from the others.
pub fn apart(videos: &[Apart], model: &str) -> Markup {
    html! {
        @if videos.len() > 1 {
            details {
                summary { "Videos whose expressions differ most from the whole set's, by " (model) }
                p.note { "Distance: half the sum of the differences of their shares; 0 the same, 1 nothing in common." }
                div.scroll {
                    table {
                        thead {
                            tr {
                                th { "video" }
                                @for title in ["faces", "distance"].into_iter().chain(EXPRESSIONS) { th.n { (title) } }
                            }
                        }
                        tbody {
                            @for video in videos {
                                tr {
                                    th { (name(&video.video)) }
                                    td.n { (text::count(video.faces)) }
                                    td.n { (format!("{:.2}", video.distance)) }
                                    @for share in video.expressions { td.n { (percent(share)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Faces, with their crops where crops were kept at all.
pub fn faces(faces: &[Shown], crops: bool) -> Markup {
    html! {
        ul.faces {
            @for face in faces {
                li {
                    @if let Some(jpeg) = &face.jpeg {
                        img alt=(face.expression) width="128" height="128" src=(data_uri(jpeg));
                    } @else if crops {
                        div.nocrop { "no crop" }
                    }
                    div.what { b { (face.expression) } " " span { (percent(f64::from(face.confidence))) } }
                    div.where title=(face.video) { (name(&face.video)) }
                    div.where { (moment(face)) }
                }
            }
        }
    }
}

fn data_uri(jpeg: &[u8]) -> String {
    format!(
        "data:image/jpeg;base64,{}",
        base64::engine::general_purpose::STANDARD.encode(jpeg)
    )
}

fn moment(face: &Shown) -> String {
    let time = face
        .timestamp_us
        .map_or(String::new(), |time| format!(", {:.2} s", time as f64 / 1e6));
    format!("frame {}{time}", face.frame)
}
