//! FFmpeg: decodes videos to frames, encodes frames to videos.

pub mod boxes;
pub mod decode;
pub mod encode;
#[cfg(test)]
mod tests;
