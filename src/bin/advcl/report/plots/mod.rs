//! Plots as SVG inside the page. Their colours are the page's variables, so that a plot follows
//! light and dark.

mod axes;
mod drawing;
mod heat;
mod lines;
mod map;
mod style;
mod whiskers;

pub use axes::Axis;
pub use heat::{Heat, viridis};
pub use lines::{PlotPoint, Series, lines};
pub use map::{Dot, map};
pub use style::{STYLES, colour, shape};
pub use whiskers::{Whisker, whiskers};

/// Width of every plot, in the page's pixels before it is scaled.
const WIDTH: f64 = 420.0;
