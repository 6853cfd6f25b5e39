//! Distances in pixels of [0, 1] that keep the text they were written as.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A finite number from 0 on, written as a decimal or as a fraction such as "8/255". How far it may be depends on the norm:
/// two images are at most 1 apart in L∞, and the square root of their values in L2.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    text: String,
    value: f64,
}

impl Pixels {
    /// The distance as a number.
    pub fn value(&self) -> f64 {
        self.value
    }
}

impl FromStr for Pixels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<f64>().ok();
        let value = match text.split_once('/') {
            Some((above, below)) => number(above).zip(number(below)).map(|(a, b)| a / b),
            None => number(text),
        };
        match value {
            Some(value) if value >= 0.0 && value.is_finite() => Ok(Self {
                text: text.trim().to_owned(),
                value,
            }),
            _ => Err(format!(
                "expected a distance in pixels, a number from 0 on such as 0.1 or \"8/255\", found {text:?}"
            )),
        }
    }
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for Pixels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Pixels;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a distance in pixels such as 0.1 or \"8/255\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pixels, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Pixels, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Pixels, E> {
                self.visit_str(&value.to_string())
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_decimals_and_fractions_and_keeps_the_text() {
        let written: Pixels = "8/255".parse().unwrap();
        assert_eq!(written.value(), 8.0 / 255.0);
        assert_eq!(written.to_string(), "8/255");
        assert_eq!("0.1".parse::<Pixels>().unwrap().value(), 0.1);
        // Usual within L2.
        assert_eq!("1.5".parse::<Pixels>().unwrap().value(), 1.5);
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["-0.1", "1/0", "nan", "inf", "1e999", "", "8/", "a/b"] {
            assert!(text.parse::<Pixels>().is_err(), "{text:?}");
        }
    }
}
