//! A TIFF file's directory, read before its decoder does, which claims memory for what it declares before it looks at a limit.

/// Finds what a TIFF file declares beyond `most` bytes, in words: values of an entry of the directory, a row of a strip or of a tile, a
/// strip that is a JPEG image. Of a damaged file, what is there.
pub(super) fn beyond(bytes: &[u8], most: u64) -> Option<String> {
    directory_beyond(bytes, most).or_else(|| {
        let found = jpeg_sizes(bytes).find(|sizes| sizes.iter().product::<u64>() > most);
        found.map(|[width, height, _]| format!("a part with {width} × {height} pixels"))
    })
}

/// The number of so many bytes at a place, in the file's order of bytes.
fn number(bytes: &[u8], at: u64, length: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let digits = bytes.get(at..at.checked_add(length as usize)?)?.iter();
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(match bytes.starts_with(b"II") {
        true => digits.rev().fold(0, add),
        false => digits.fold(0, add),
    })
}

/// What the first directory declares (TIFF 6.0, section 2; with 64 bits in BigTIFF); the decoder reads no other one.
fn directory_beyond(bytes: &[u8], most: u64) -> Option<String> {
    let (directory, of_count, of_entry, of_value) = match number(bytes, 2, 2)? {
        43 => (number(bytes, 8, 8)?, 8, 20, 8),
        _ => (number(bytes, 4, 4)?, 2, 12, 4),
    };
    let [mut width, mut samples] = [0, 1];
    let entries = number(bytes, directory, of_count)?.min(bytes.len() as u64 / of_entry);
    for entry in 0..entries {
        let at = directory.saturating_add(of_count + entry * of_entry);
        let field = |from: u64, length| number(bytes, at.saturating_add(from), length);
        let (Some(tag), Some(kind), Some(count)) = (field(0, 2), field(2, 2), field(4, of_value))
        else {
            break;
        };
        let size = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            _ => continue,
        };
        if count.saturating_mul(size) > bytes.len() as u64 {
            return Some(format!("{count} values of entry {tag}"));
        }
        let value = field(4 + of_value, size.min(of_value)).unwrap_or(0);
        match tag {
            256 | 322 => width = value.max(width), // of the image, of a tile
            277 => samples = value.max(samples),
            _ => {}
        }
    }
    // Of 8 bytes a value, the most there are.
    let row = width.saturating_mul(samples).saturating_mul(8);
    (row > most).then(|| format!("rows of {width} pixels with {samples} channels"))
}

/// Width, height and channels of whatever looks like the frame of a JPEG image: its mark, its length, 8 bits a value, height, width and
/// channels (ITU T.81, section B.2.2). Pixels that are no JPEG look like that once in millions of files.
fn jpeg_sizes(bytes: &[u8]) -> impl Iterator<Item = [u64; 3]> {
    bytes.windows(10).filter_map(|at| match *at {
        [
            0xff,
            0xc0..=0xc2,
            0,
            length,
            8,
            h0,
            h1,
            w0,
            w1,
            channels @ 1..=4,
        ] if length == 8 + 3 * channels => {
            let [width, height] = [[w0, w1], [h0, h1]].map(u16::from_be_bytes);
            Some([width.into(), height.into(), channels.max(3).into()])
        }
        _ => None,
    })
}
