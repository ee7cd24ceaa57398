//! FFmpeg: videos to frames, frames to videos.

pub mod decode;
pub mod encode;
#[cfg(test)]
mod tests;
