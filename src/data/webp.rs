//! A WebP file's chunks, read before its decoder does, which claims memory for what they declare.

use image::metadata::Orientation;

/// Chunks of a RIFF file: the name, and the content as far as it is there.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (head, content) = rest.split_at_checked(8)?;
        let (name, length) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let (content, after) = content.split_at(length.min(content.len()));
        rest = after.get(length % 2..).unwrap_or_default();
        Some((name, content))
    })
}

/// The chunks of a WebP file.
fn chunks_of_file(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    chunks(bytes.get(12..).unwrap_or_default())
}

/// The orientation that a WebP file's EXIF data tells.
pub(super) fn orientation(bytes: &[u8]) -> Option<Orientation> {
    let (_, exif) = chunks_of_file(bytes).find(|(name, _)| *name == b"EXIF")?;
    Orientation::from_exif_chunk(exif)
}

/// The size that a lossy frame of a WebP file should have and the one that it declares, in words: the decoder claims the memory of a
/// frame before it holds the two against each other, and of one with an alpha channel it never does.
pub(super) fn frame_of_another_size(bytes: &[u8], size: [usize; 2]) -> Option<(String, String)> {
    let named = |wanted: &'static [u8; 4]| {
        let chunks = chunks_of_file(bytes).filter(move |(name, _)| name == wanted);
        chunks.map(|(_, content)| content)
    };
    let still = named(b"VP8 ").find_map(|frame| another_size(frame, size));
    // The first frame is all that is read of an animation.
    still.or_else(|| animated_of_another_size(named(b"ANMF").next()?))
}

/// As [`frame_of_another_size`], of an animation's frame: place, size, duration and flags, then chunks.
fn animated_of_another_size(content: &[u8]) -> Option<(String, String)> {
    let (head, parts) = content.split_at_checked(16)?;
    let side =
        |at: usize| 1 + u32::from_le_bytes([head[at], head[at + 1], head[at + 2], 0]) as usize;
    let mut parts = chunks(parts);
    let (mut name, mut frame) = parts.next()?;
    if name == b"ALPH" {
        (name, frame) = parts.next()?;
        if name != b"VP8 " {
            let found = name.escape_ascii().to_string();
            return Some(("VP8 after ALPH".to_owned(), found));
        }
    }
    match name {
        b"VP8 " => another_size(frame, [side(6), side(9)]),
        _ => None,
    }
}

/// The size that is expected of a lossy frame and another one that it declares, after its tag and start code (RFC 6386, section 9.1).
fn another_size(frame: &[u8], expected: [usize; 2]) -> Option<(String, String)> {
    let [_, _, _, 0x9d, 1, 0x2a, w0, w1, h0, h1] = *frame.first_chunk()? else {
        return None;
    };
    let sides = [[w0, w1], [h0, h1]].map(u16::from_le_bytes);
    let found = sides.map(|side| usize::from(side & 0x3fff));
    let in_words = |[width, height]: [usize; 2]| format!("{width} × {height} pixels");
    (found != expected).then(|| (in_words(expected), in_words(found)))
}
