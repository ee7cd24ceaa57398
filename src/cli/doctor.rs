//! `affectmill doctor`.

use super::{Failure, exit, print};
use affectmill_media::decode;
use affectmill_nn as model;
use affectmill_nn::{Device, Gpus};
use affectmill_progress::text;
use std::thread::available_parallelism;

/// Decoders that most collections need.
const DECODERS: [&str; 8] = ["h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "png"];

/// Check this machine: FFmpeg, libtorch, devices; report what is missing and how to install it.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: Args) -> Result<u8, Failure> {
    let missing: Vec<_> = DECODERS
        .into_iter()
        .filter(|name| !decode::has_decoder(name))
        .collect();
    let gpus = Device::cuda_count();
    let mut lines = vec![
        format!("affectmill  {}", env!("CARGO_PKG_VERSION")),
        format!("libavcodec  {}", decode::ffmpeg_version()),
        format!("libtorch    {}", model::libtorch_version()),
        format!("processors  {}", available_parallelism().map_or(1, usize::from)),
        format!("gpus        {gpus}"),
    ];
    let nvidia = Gpus::open();
    let visible = nvidia.visible();
    let nvdec = decode::nvdec_available();
    for (index, gpu) in visible.iter().enumerate() {
        lines.push(format!(
            "gpu {index:<8}{}, {}, driver {}, {}",
            gpu.name,
            text::bytes(gpu.memory),
            nvidia.driver().unwrap_or_else(|| "unknown".into()),
            if nvdec.is_ok() { "NVDEC" } else { "no NVDEC" },
        ));
    }
    if let (Err(cause), false) = (nvdec, visible.is_empty()) {
        lines.push(format!("nvdec       cannot be used: {cause}"));
    }
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!(
            "FFmpeg has no decoder for {}: install a full build of it (Debian: libavcodec59)",
            missing.join(", ")
        ));
    }
    problems.extend(Device::missing_gpu().map(String::from));
    if let Err(error) = Device::cpu().check() {
        problems.push(format!("libtorch does not compute: {error}"));
    }
    lines.extend(problems.iter().map(|problem| format!("problem     {problem}")));
    if problems.is_empty() {
        lines.push("all is well".into());
    }
    print(lines.join("\n"))?;
    Ok(if problems.is_empty() {
        exit::OK
    } else {
        exit::STOPPED
    })
}
