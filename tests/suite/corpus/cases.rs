//! The files of the corpus: what ffmpeg makes, in the order of issue headings (time, picture, container and codec).

/// A file that ffmpeg makes of `INPUT` and these arguments.
pub struct Made {
    /// File name.
    pub name: &'static str,
    /// ffmpeg's arguments, separated by blanks; `S`, `H` and `B` stand for the source and two encodings below.
    pub arguments: &'static str,
    /// Frames, by closed form.
    pub frames: u64,
    /// How its pictures are compared with ffmpeg's own conversion.
    pub look: Look,
}

/// How pictures are compared.
#[derive(Clone, Copy, PartialEq)]
pub enum Look {
    /// First and last frame, as ffmpeg shows them.
    Shown,
    /// First frame only: ffmpeg scales later ones to the first one's size or format.
    First,
    /// Not at all, because of this.
    None(&'static str),
}

/// Six frames of a moving test pattern.
pub const S: &str = "-f lavfi -i testsrc2=size=160x120:rate=25 -frames:v 6";
/// H.264 without B-frames.
pub const H: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
/// H.264 with B-frames that others refer to.
pub const B: &str = "-c:v libx264 -preset veryfast -bf 3 -b-pyramid normal -g 12 -pix_fmt yuv420p";

const fn made(name: &'static str, arguments: &'static str) -> Made {
    Made {
        name,
        arguments,
        frames: 6,
        look: Look::Shown,
    }
}

const fn of(name: &'static str, frames: u64, arguments: &'static str) -> Made {
    Made {
        name,
        arguments,
        frames,
        look: Look::Shown,
    }
}

/// Two frames of HDR.
const fn toned(name: &'static str, arguments: &'static str) -> Made {
    Made {
        name,
        arguments,
        frames: 2,
        look: Look::None("brought to SDR, which swscale does not do"),
    }
}

/// Everything that ffmpeg makes in one call.
#[rustfmt::skip]
pub const MADE: &[Made] = &[
    // ---- time
    made("vfr.mp4", "S -vf setpts=PTS+0.011*mod(N\\,3)/TB -vsync vfr B"),
    made("vfr.mkv", "S -vf setpts=PTS+0.011*mod(N\\,3)/TB -vsync vfr B"),
    made("vfr.webm", "S -vf setpts=PTS*(1+N) -vsync vfr -c:v libvpx -deadline realtime"),
    made("vfr-dropped.mp4", "S -vf select=not(eq(n\\,2)+eq(n\\,3)) -vsync vfr B"),
    made("gap-of-an-hour.mkv", "S -vf setpts=if(gte(N\\,3)\\,N+90000\\,N)/25/TB -vsync vfr H"),
    made("no-pts.h264", "S B"),
    made("no-pts.hevc", "S -c:v libx265 -preset ultrafast -x265-params log-level=none"),
    made("no-pts.m4v", "S -c:v mpeg4 -bf 2 -q:v 4 -f m4v"),
    made("no-pts.mjpeg", "S -c:v mjpeg -q:v 4 -pix_fmt yuvj420p"),
    made("no-pts-b-frames.avi", "S -c:v mpeg4 -bf 2 -q:v 4"),
    made("late.mp4", "-itsoffset 0.7 -f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=1.5 -frames:v 6 B"),
    made("late.mkv", "S B -output_ts_offset 2.123"),
    made("late.ts", "S B -output_ts_offset 5.3"),
    made("late.mov", "S H -output_ts_offset 100"),
    made("early.mkv", "S H -avoid_negative_ts disabled -output_ts_offset -0.1"),
    of("early.mp4", 4, "S B -avoid_negative_ts disabled -output_ts_offset -0.08"),
    made("pts-wraps.ts", "S H -output_ts_offset 95442.2"),
    made("pts-wraps-b-frames.ts", "S B -output_ts_offset 95442.2"),
    made("b-frames.mp4", "S B"),
    made("b-frames.flv", "S B"),
    made("b-frames.avi", "S B"),
    made("open-gop.ts", "S -c:v libx264 -preset veryfast -bf 2 -g 3 -x264-params open-gop=1 -pix_fmt yuv420p"),
    made("90-khz.mp4", "S B -video_track_timescale 90000"),
    made("odd-time-base.mp4", "S B -video_track_timescale 12345"),
    made("ntsc.mov", "-f lavfi -i testsrc2=size=160x120:rate=30000/1001 -frames:v 6 B"),
    made("film.mkv", "-f lavfi -i testsrc2=size=160x120:rate=24000/1001 -frames:v 6 B"),
    made("half.mp4", "-f lavfi -i testsrc2=size=160x120:rate=25/2 -frames:v 6 B"),
    made("one-in-seven-seconds.mkv", "-f lavfi -i testsrc2=size=160x120:rate=1/7 -frames:v 6 H"),
    made("thousand.mp4", "-f lavfi -i testsrc2=size=160x120:rate=1000 -frames:v 6 H"),
    of("doubled.mp4", 12, "S -vf fps=50 -frames:v 12 B"),
    made("interlaced-top.ts", "S -c:v libx264 -preset veryfast -flags +ildct+ilme -x264opts tff=1 -pix_fmt yuv420p"),
    made("interlaced-bottom.mp4", "S -c:v libx264 -preset veryfast -flags +ildct+ilme -x264opts bff=1 -pix_fmt yuv420p"),
    made("interlaced.mpg", "S -c:v mpeg2video -flags +ildct+ilme -top 1 -q:v 3"),
    of("telecined.mkv", 10, "-f lavfi -i testsrc2=size=160x120:rate=24 -frames:v 10 -vf telecine -c:v ffv1"),
    of("single.mp4", 1, "S -frames:v 1 H"),
    of("single.mkv", 1, "S -frames:v 1 -c:v ffv1"),
    // ---- picture
    of("16x16.mp4", 2, "S -vf scale=16:16 -frames:v 2 H"),
    of("odd.mp4", 2, "S -vf scale=161:121 -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv444p"),
    of("odd-420.mkv", 2, "S -vf scale=161:121 -frames:v 2 -c:v ffv1 -pix_fmt yuv420p"),
    of("1x1.mkv", 2, "S -vf scale=1:1 -frames:v 2 -c:v ffv1 -pix_fmt yuv444p"),
    of("2x2.mkv", 2, "S -vf scale=2:2 -frames:v 2 -c:v ffv1 -pix_fmt yuv420p"),
    of("wide.mkv", 2, "S -vf scale=4000:16 -frames:v 2 -c:v ffv1 -pix_fmt yuv420p"),
    of("tall.mkv", 2, "S -vf scale=16:4000 -frames:v 2 -c:v ffv1 -pix_fmt yuv420p"),
    of("8k.mp4", 1, "S -vf scale=7680:4320 -frames:v 1 H"),
    of("8k-mjpeg.avi", 1, "S -vf scale=7680:4320 -frames:v 1 -c:v mjpeg -q:v 8 -pix_fmt yuvj420p"),
    of("not-square.mp4", 2, "S -vf setsar=4/3 -frames:v 2 H"),
    of("not-square.mpg", 2, "S -vf scale=352:288,setsar=16/11 -frames:v 2 -c:v mpeg2video -q:v 3"),
    of("h264-422.mp4", 2, "S -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv422p"),
    of("h264-444.mp4", 2, "S -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv444p"),
    of("h264-grey.mp4", 2, "S -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt gray"),
    of("h264-10.mp4", 2, "S -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"),
    of("h264-422-10.mkv", 2, "S -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv422p10le"),
    of("hevc-10.mp4", 2, "S -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le"),
    of("hevc-12.mkv", 2, "S -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p12le"),
    of("hevc-444.mkv", 2, "S -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv444p"),
    of("vp9-10.webm", 2, "S -frames:v 2 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p10le"),
    of("vp9-444.webm", 2, "S -frames:v 2 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv444p"),
    of("vp8-alpha.webm", 2, "S -frames:v 2 -c:v libvpx -auto-alt-ref 0 -deadline realtime -pix_fmt yuva420p"),
    of("ffv1-420.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv420p"),
    of("ffv1-411.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv411p"),
    of("ffv1-410.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv410p"),
    of("ffv1-440.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv440p"),
    of("ffv1-grey.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt gray"),
    of("ffv1-grey-16.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt gray16le"),
    of("ffv1-422-10.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv422p10le"),
    of("ffv1-444-12.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv444p12le"),
    of("ffv1-444-16.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuv444p16le"),
    of("ffv1-alpha.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt yuva444p"),
    of("ffv1-rgb.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt bgr0"),
    of("ffv1-rgba.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt bgra"),
    of("ffv1-rgb-10.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt gbrp10le"),
    of("ffv1-rgb-16.mkv", 2, "S -frames:v 2 -c:v ffv1 -pix_fmt gbrp16le"),
    of("png-palette.mov", 2, "S -frames:v 2 -c:v png -pix_fmt pal8"),
    of("png-rgba.mov", 2, "S -frames:v 2 -c:v png -pix_fmt rgba"),
    of("png-black-and-white.mov", 2, "S -frames:v 2 -c:v png -pix_fmt monob"),
    of("png-rgb-48.mov", 2, "S -frames:v 2 -c:v png -pix_fmt rgb48be"),
    of("raw-565.avi", 2, "S -frames:v 2 -c:v rawvideo -pix_fmt rgb565le"),
    of("raw-bottom-up.avi", 2, "S -frames:v 2 -c:v rawvideo -pix_fmt bgr24"),
    of("raw-uyvy.avi", 2, "S -frames:v 2 -c:v rawvideo -pix_fmt uyvy422"),
    of("raw-nv12.nut", 2, "S -frames:v 2 -c:v rawvideo -pix_fmt nv12"),
    of("hevc-main10-intra.mkv", 2, "S -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none:keyint=1 -pix_fmt yuv422p10le"),
    of("raw.y4m", 2, "S -frames:v 2 -pix_fmt yuv420p"),
    of("full-range.mp4", 2, "S -vf scale=out_range=full -color_range pc -frames:v 2 H"),
    of("limited-range.mp4", 2, "S -vf scale=out_range=limited -color_range tv -frames:v 2 H"),
    of("bt601.mp4", 2, "S -vf scale=out_color_matrix=bt601 -colorspace smpte170m -frames:v 2 H"),
    of("bt709.mp4", 2, "S -vf scale=out_color_matrix=bt709 -colorspace bt709 -color_primaries bt709 -color_trc bt709 -frames:v 2 H"),
    of("bt2020.mkv", 2, "S -vf scale=out_color_matrix=bt2020 -colorspace bt2020nc -color_primaries bt2020 -frames:v 2 -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"),
    of("smpte240m.mkv", 2, "S -vf scale=out_color_matrix=smpte240m -colorspace smpte240m -frames:v 2 H"),
    toned("hdr10.mp4", "S -vf scale=out_color_matrix=bt2020 -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc -pix_fmt yuv420p10le"),
    toned("hlg.mkv", "S -vf scale=out_color_matrix=bt2020 -frames:v 2 -c:v libx265 -preset ultrafast -x265-params log-level=none:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc -pix_fmt yuv420p10le"),
    // ---- container and codec
    made("fragmented.mp4", "S B -movflags frag_keyframe+empty_moov"),
    made("moov-first.mp4", "S B -movflags +faststart"),
    made("h264.mov", "S B"),
    made("h264.mkv", "S B"),
    made("h264.3gp", "S H"),
    made("hevc.mp4", "S -c:v libx265 -preset ultrafast -x265-params log-level=none -tag:v hvc1"),
    made("hevc.ts", "S -c:v libx265 -preset ultrafast -x265-params log-level=none"),
    made("vp8.webm", "S -c:v libvpx -deadline realtime -auto-alt-ref 1 -lag-in-frames 5"),
    made("vp9.webm", "S -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 5"),
    made("vp9.mp4", "S -c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    made("vp8.ivf", "S -c:v libvpx -deadline realtime"),
    made("av1.mkv", "S -c:v libaom-av1 -cpu-used 8"),
    made("av1.mp4", "S -c:v libsvtav1 -preset 12"),
    made("mpeg1.mpg", "S -c:v mpeg1video -q:v 4"),
    made("mpeg2.ts", "S -c:v mpeg2video -bf 2 -q:v 4"),
    made("mpeg2.vob", "S -c:v mpeg2video -bf 2 -q:v 4 -f vob"),
    made("mpeg2.mxf", "S -vf scale=720:576 -c:v mpeg2video -q:v 4"),
    made("hybrid.mp4", "S B -movflags frag_keyframe"),
    made("segments.mp4", "S B -movflags dash+global_sidx+frag_keyframe+empty_moov"),
    made("live.webm", "S -c:v libvpx -deadline realtime -f webm -live 1"),
    made("long-sound.mkv", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=3 -frames:v 6 B -c:a aac"),
    made("long-sound.webm", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=3 -frames:v 6 -c:v libvpx -deadline realtime -c:a libopus"),
    made("long-sound.flv", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=3 -frames:v 6 -c:v flv -c:a mp3 -ar 44100"),
    made("long-sound.wmv", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=3 -frames:v 6 -c:v wmv2 -c:a wmav2"),
    made("long-sound.avi", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=3 -frames:v 6 -c:v mpeg4 -c:a mp3"),
    made("mpeg4.mp4", "S -c:v mpeg4 -bf 2 -q:v 4"),
    made("xvid.avi", "S -c:v libxvid -q:v 4"),
    made("mjpeg.avi", "S -c:v mjpeg -q:v 4 -pix_fmt yuvj420p"),
    made("mjpeg.mov", "S -c:v mjpeg -q:v 4 -pix_fmt yuvj422p"),
    of("prores.mov", 2, "S -frames:v 2 -c:v prores_ks -profile:v standard"),
    of("prores-alpha.mov", 2, "S -frames:v 2 -c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le"),
    of("dnxhr.mov", 2, "S -vf scale=320:240 -frames:v 2 -c:v dnxhd -profile:v dnxhr_hq -pix_fmt yuv422p"),
    of("dv.dv", 2, "S -vf scale=720:576 -frames:v 2 -c:v dvvideo -pix_fmt yuv420p"),
    made("sorenson.flv", "S -c:v flv"),
    made("h263.3gp", "S -vf scale=176:144 -c:v h263"),
    made("windows.wmv", "S -c:v wmv2"),
    made("msmpeg4.asf", "S -c:v msmpeg4"),
    made("theora.ogv", "S -c:v libtheora -pix_fmt yuv420p"),
    made("animation.gif", "S"),
    made("animation.apng", "S -c:v apng"),
    made("huffyuv.avi", "S -c:v huffyuv -pix_fmt yuv422p"),
    made("utvideo.avi", "S -c:v utvideo -pix_fmt yuv422p"),
    made("qtrle.mov", "S -c:v qtrle"),
    made("svq1.mov", "S -c:v svq1 -pix_fmt yuv410p"),
    made("cinepak.avi", "S -c:v cinepak"),
    made("msvideo1.avi", "S -c:v msvideo1"),
    made("real.rm", "S -c:v rv20"),
    made("snow.nut", "S -c:v snow -strict experimental"),
    made("jpeg2000.mov", "S -c:v jpeg2000 -pix_fmt yuv420p"),
    made("with-sound.mp4", "-f lavfi -i testsrc2=size=160x120:rate=25 -f lavfi -i sine=duration=0.24 -frames:v 6 B -c:a aac"),
    made("with-chapters-and-timecode.mov", "S B -timecode 01:00:00:00"),
    made("with-attachment.mkv", "S B -attach Cargo.toml -metadata:s:t mimetype=text/plain"),
];
