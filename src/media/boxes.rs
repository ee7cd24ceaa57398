//! Boxes, of which MP4 and MOV files consist (ISO/IEC 14496-12, 4.2): a 32-bit length, four letters, and where the length is 1 a
//! 64-bit one; 0 stands for "to the end".

/// Bytes in which the longest header of a box lies.
pub const BOX_HEADER: u64 = 16;

/// The header of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxHeader {
    /// Its four letters.
    pub kind: [u8; 4],
    /// Bytes of the header.
    pub header: u64,
    /// Bytes of the whole box; `None` where it goes to the end.
    pub length: Option<u64>,
}

impl BoxHeader {
    /// Reads the header at the beginning of these bytes; `None` where they are too few, or the box is shorter than its header.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.get(4..8)?.first_chunk()?;
        let (header, length) = match u32::from_be_bytes(*bytes.first_chunk()?) {
            0 => (8, None),
            1 => (16, Some(u64::from_be_bytes(*bytes.get(8..16)?.first_chunk()?))),
            short => (8, Some(short.into())),
        };
        length
            .is_none_or(|length| length >= header)
            .then_some(Self { kind, header, length })
    }
}
