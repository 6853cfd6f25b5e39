//! Settings of how image files become images of one size and one kind.

use serde::{Deserialize, Serialize};

use super::fit::{Fit, Interpolation};

/// Height and width in pixels: a number for both, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// A square.
    Square(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl Size {
    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        match self {
            Self::Square(side) => [side, side],
            Self::Sides(sides) => sides,
        }
    }
}

/// Channels of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Red, green and blue; gray images get three equal ones.
    Rgb,
    /// One; colour images become their luma (ITU-R BT.601).
    Gray,
}

impl Channels {
    /// Number of channels.
    pub fn count(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Gray => 1,
        }
    }
}

/// Answer to images that cannot be read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Damaged {
    /// All of them are listed, and nothing is done.
    #[default]
    Refuse,
    /// They are passed over, which is said.
    Skip,
}

/// Use that is made of a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted {
    /// Training, with labels where there are any.
    Labels,
    /// More images for pretraining: labels and test images do not matter.
    Images,
}

/// How image files become images of one size and one kind. Predictions read images as training did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Size of all images; images have to have one size where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How an image of another shape is brought to the size.
    #[serde(default)]
    pub fit: Fit,
    /// How values between pixels are computed.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// Channels of all images; where there are none, images keep theirs, and a mixture becomes RGB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Colour behind transparent pixels: red, green, blue. Transparency is refused without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<[u8; 3]>,
    /// Most pixels of an image that is scaled; 100 million where there is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<usize>,
}

impl Reading {
    /// The same for images of one shape, `[channels, height, width]`, as a model takes them.
    pub fn for_shape(&self, [channels, height, width]: [usize; 3]) -> Self {
        Self {
            size: Some(Size::Sides([height, width])),
            channels: Some(match channels {
                1 => Channels::Gray,
                _ => Channels::Rgb,
            }),
            ..*self
        }
    }

    /// Most pixels of an image that is scaled. The memory of some of them is claimed by each thread that decodes.
    pub fn pixel_limit(&self) -> usize {
        self.max_pixels.unwrap_or(100_000_000)
    }
}
