//! Times as people write them.

use std::time::Duration;

/// Reads a time: "2h", "90m", "45s", "1h30m", "1d".
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("expected a time as 2h, 90m, 45s or 1h30m, found {text:?}");
    let mut seconds: u64 = 0;
    let mut number = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(refuse()),
        };
        let count: u64 = std::mem::take(&mut number).parse().map_err(|_| refuse())?;
        let more = count
            .checked_mul(unit)
            .and_then(|more| seconds.checked_add(more));
        seconds = more.ok_or_else(refuse)?;
    }
    match seconds {
        0 => Err(refuse()),
        _ if !number.is_empty() => Err(refuse()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, expected) in [
            ("45s", 45),
            ("90m", 5400),
            ("2h", 7200),
            ("1h30m", 5400),
            ("1d", 86_400),
        ] {
            assert_eq!(duration(text).expect(text).as_secs(), expected);
        }
        for text in [
            "",
            "2",
            "h",
            "0s",
            "2 h",
            "-1h",
            "1h30",
            "99999999999999999999d",
            "1.5h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
