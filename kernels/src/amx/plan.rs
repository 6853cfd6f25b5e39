//! Which source pixels each run of result pixels is made of.

use crate::shape::{Convolution, Pass};

/// The source's pixels, arranged in strips: a strip has those of one row that one position of the
/// kernel meets, one after the other. Pixels beyond the border are there, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strips {
    /// Number of strips: `phases` for each row of the source that is used.
    pub count: usize,
    /// Distance between two rows that are used.
    pub row_step: usize,
    /// Strips of a row: one for each remainder of the column by `column_step`, as far as the kernel
    /// meets them.
    pub phases: usize,
    /// Distance between two pixels of a strip.
    pub column_step: usize,
    /// Columns before the image's first.
    pub lead: usize,
    /// Width of the source.
    pub width: usize,
}

impl Strips {
    /// The strips of whole rows without a border.
    pub fn whole(height: usize, width: usize) -> Self {
        Self {
            count: height,
            row_step: 1,
            phases: 1,
            column_step: 1,
            lead: 0,
            width,
        }
    }

    /// The source pixel at `column` of a strip, or none beyond the border.
    pub fn pixel(&self, strip: usize, column: usize) -> Option<usize> {
        let (row, phase) = (strip / self.phases * self.row_step, strip % self.phases);
        let column = (column * self.column_step + phase).checked_sub(self.lead)?;
        (column < self.width).then_some(row * self.width + column)
    }
}

/// One product of a run's sums: the pixels of a strip from `column` on, by the weight there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub strip: usize,
    pub column: usize,
    pub weight: usize,
}

/// Result pixels of one row with the same taps.
#[derive(Debug)]
pub(super) struct Run {
    /// The first pixel of the result.
    pub first: usize,
    /// Distance between its pixels.
    pub step: usize,
    /// Number of pixels.
    pub pixels: usize,
    /// The products. Where the rest of a kernel lies beyond the upper or lower border, they are
    /// fewer.
    pub taps: Vec<Tap>,
}

/// A convolution as sums over strips.
#[derive(Debug)]
pub(super) struct Plan {
    pub strips: Strips,
    pub runs: Vec<Run>,
    /// Pixels of the longest run.
    pub longest: usize,
    /// The last column of a strip where a tap begins.
    pub reach: usize,
}

impl Plan {
    /// Plans the output, or the gradient of the input.
    pub fn new(conv: &Convolution, pass: Pass) -> Self {
        let (strips, runs) = match pass {
            Pass::Forward => forward(conv),
            Pass::Backward => backward(conv),
        };
        let taps = runs.iter().flat_map(|run| &run.taps);
        Self {
            reach: taps.map(|tap| tap.column).max().unwrap_or(0),
            longest: runs.iter().map(|run| run.pixels).max().unwrap_or(0),
            strips,
            runs,
        }
    }

    /// Rows of a strip for so many images, such that products over a run's rows, rounded up to
    /// `multiple`, stay inside.
    pub fn rows(&self, images: usize, multiple: usize) -> usize {
        self.reach * images + (self.longest * images).next_multiple_of(multiple)
    }
}

fn forward(conv: &Convolution) -> (Strips, Vec<Run>) {
    let (input, output) = (conv.input, conv.output());
    let (kernel, stride, pad) = (conv.kernel, conv.stride, conv.kernel / 2);
    // A kernel of one pixel passes over every other row and column at stride 2.
    let row_step = if kernel < stride { stride } else { 1 };
    let phases = stride.min(kernel);
    let strips = Strips {
        count: input.height.div_ceil(row_step) * phases,
        row_step,
        phases,
        column_step: stride,
        lead: pad,
        width: input.width,
    };
    let runs = (0..output.height).map(|y| {
        let rows = (0..kernel).filter_map(|ky| {
            let row = (y * stride + ky).checked_sub(pad)?;
            (row < input.height).then_some((ky, row / row_step))
        });
        let taps = rows.flat_map(|(ky, row)| {
            (0..kernel).map(move |kx| Tap {
                strip: row * phases + kx % phases,
                column: kx / stride,
                weight: ky * kernel + kx,
            })
        });
        Run {
            first: y * output.width,
            step: 1,
            pixels: output.width,
            taps: taps.collect(),
        }
    });
    (strips, runs.collect())
}

/// At stride 2, pixels in even and in odd columns of the input are met by other positions of the
/// kernel: they are two runs.
fn backward(conv: &Convolution) -> (Strips, Vec<Run>) {
    let (input, output) = (conv.input, conv.output());
    let (kernel, stride, pad) = (conv.kernel, conv.stride, conv.kernel / 2);
    // The last position of the kernel meets a pixel this far before the same column.
    let lead = pad / stride;
    let strips = Strips {
        lead,
        ..Strips::whole(output.height, output.width)
    };
    let place = move |pixel: usize, k: usize| {
        let distance = pixel.checked_sub(k)?;
        distance.is_multiple_of(stride).then_some(distance / stride)
    };
    let mut runs = Vec::new();
    for y in 0..input.height {
        for phase in 0..stride.min(input.width) {
            let rows = (0..kernel).filter_map(|ky| {
                let row = place(y + pad, ky)?;
                (row < output.height).then_some((ky, row))
            });
            let taps = rows.flat_map(|(ky, row)| {
                (0..kernel).filter_map(move |kx| {
                    Some(Tap {
                        strip: row,
                        column: place(phase + pad + lead * stride, kx)?,
                        weight: ky * kernel + kx,
                    })
                })
            });
            runs.push(Run {
                first: y * input.width + phase,
                step: stride,
                pixels: (input.width - phase).div_ceil(stride),
                taps: taps.collect(),
            });
        }
    }
    (strips, runs)
}
