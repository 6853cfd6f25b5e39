//! Height and width of images as people write them.

use std::ffi::{OsStr, OsString};

/// The option that takes height and width.
const OPTION: &str = "--image-size";

/// Reads height and width: "48x96" or "48,96"; one number for a square.
pub fn sides(text: &str) -> Result<[usize; 2], String> {
    let refuse = || format!("expected 32, say, or height and width as 48x96, found {text:?}");
    let sides = text.split(['x', ',']);
    let sides = sides.map(|side| side.trim().parse().map_err(|_| refuse()));
    match sides.collect::<Result<Vec<usize>, String>>()?[..] {
        [side] => Ok([side, side]),
        [height, width] => Ok([height, width]),
        _ => Err(refuse()),
    }
}

/// The program's arguments, with height and width as two numbers, which earlier versions took, in one: "48x96". A file that stands
/// behind a single number is none of them.
pub fn joined(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    for argument in arguments {
        let behind_one =
            matches!(&all[..], [.., option, height] if option == OPTION && is_number(height));
        match all.last_mut() {
            Some(height) if behind_one && is_number(&argument) => {
                height.push("x");
                height.push(argument);
            }
            _ => all.push(argument),
        }
    }
    all
}

fn is_number(text: &OsStr) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.to_str().is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn height_and_width_as_people_write_them() {
        for (text, expected) in [
            ("32", [32, 32]),
            ("48x96", [48, 96]),
            ("48,96", [48, 96]),
            ("48, 96", [48, 96]),
        ] {
            assert_eq!(sides(text), Ok(expected), "{text}");
        }
        for text in ["", "x", "48x", "-1", "1.5", "48x96x3", "weights.pth"] {
            assert!(sides(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_numbers_are_one_value_and_a_file_behind_one_is_none() {
        for (given, expected) in [
            ("--image-size 48 96 w.pth", "--image-size 48x96 w.pth"),
            ("--image-size 32 w.pth", "--image-size 32 w.pth"),
            ("--image-size 48x96 7", "--image-size 48x96 7"),
            ("--image-size 48 96 7", "--image-size 48x96 7"),
            ("w.pth --image-size 32", "w.pth --image-size 32"),
            ("--width 48 96", "--width 48 96"),
        ] {
            let words = given.split(' ').map(OsString::from);
            assert_eq!(joined(words).join(OsStr::new(" ")), expected, "{given}");
        }
    }
}
