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
            347 => {
                let tables = || {
                    // In the entry itself where they fit.
                    let start = match count > of_value {
                        true => field(4 + of_value, of_value)?,
                        false => at.saturating_add(4 + of_value),
                    };
                    let start = usize::try_from(start).ok()?;
                    bytes.get(start..start.checked_add(count as usize)?)
                };
                if !tables().is_some_and(are_whole_segments) {
                    return Some("JPEG tables that end within a segment".to_owned());
                }
            }
            _ => {}
        }
    }
    // Of 8 bytes a value, the most there are.
    let row = width.saturating_mul(samples).saturating_mul(8);
    (row > most).then(|| format!("rows of {width} pixels with {samples} channels"))
}

/// Whether JPEG tables, which the decoder puts before each strip, are whole segments (ITU T.81, section B.1.1.4): what a strip adds
/// to one that is not is seen nowhere else.
fn are_whole_segments(tables: &[u8]) -> bool {
    let Some(mut rest) = tables.strip_prefix(&[0xff, 0xd8]) else {
        return false;
    };
    while !rest.is_empty() {
        let after = match *rest {
            // The end, and a byte that makes their number even.
            [0xff, 0xd9, ..] => return rest.len() <= 3,
            // A byte that fills.
            [0xff, 0xff, ..] => 1,
            [0xff, _, high, low, ..] if high > 0 || low > 1 => {
                2 + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => return false,
        };
        let Some(next) = rest.get(after..) else {
            return false;
        };
        rest = next;
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A TIFF file of one entry, JPEG tables of these bytes, which begin at a place.
    fn with_tables(tables: &[u8], place: usize) -> Vec<u8> {
        let mut bytes = b"II\x2a\0\x08\0\0\0\x01\0".to_vec();
        bytes.extend(347_u16.to_le_bytes());
        bytes.extend(7_u16.to_le_bytes());
        bytes.extend((tables.len() as u32).to_le_bytes());
        bytes.extend((place as u32).to_le_bytes());
        bytes.resize(place, 0);
        bytes.extend(tables);
        bytes
    }

    #[test]
    fn tables_are_whole_segments() {
        let table = [0xff, 0xdb, 0, 4, 1, 2];
        let frame = [0xff, 0xc0, 0, 11, 8];
        let (begin, end) = ([0xff, 0xd8], [0xff, 0xd9]);
        for (tables, whole) in [
            ([&begin[..], &table, &end].concat(), true),
            (
                [&begin[..], &table, &[0xff], &table, &end, &[0]].concat(),
                true,
            ),
            ([&begin[..], &table].concat(), true),
            // The rest of the header is in the strip.
            ([&begin[..], &table, &frame].concat(), false),
            ([&begin[..], &table, &frame, &end].concat(), false),
            ([&begin[..], &table, &[0xff]].concat(), false),
            (table.to_vec(), false),
        ] {
            // Behind the directory, and behind the pixels, as most programs write them.
            for place in [26, 70_000] {
                let found = beyond(&with_tables(&tables, place), 1 << 20);
                assert_eq!(found.is_none(), whole, "{tables:?}, {place}: {found:?}");
            }
        }
        // A place outside of the file.
        let mut bytes = with_tables(&[0; 8], 26);
        bytes[18..22].fill(0xff);
        assert!(beyond(&bytes, 1 << 20).is_some());
    }
}
