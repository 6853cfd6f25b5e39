//! Shapes, and which pixels meet under a kernel.

use crate::pack::Way;

/// The shape of activations, `[height, width, batch, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// In pixels.
    pub height: usize,
    /// In pixels.
    pub width: usize,
    /// Images.
    pub batch: usize,
    /// Values a pixel and image.
    pub channels: usize,
}

impl Activation {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.height * self.width * self.batch * self.channels
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A convolution whose padding keeps the size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Of the input.
    pub input: Activation,
    /// Of the output.
    pub channels: usize,
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
}

/// One product of the sum that makes a pixel: a source pixel and a place in the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tap {
    pub pixel: usize,
    pub weight: usize,
}

impl Convolution {
    /// The shape of the output.
    pub fn output(&self) -> Activation {
        Activation {
            height: self.input.height.div_ceil(self.stride),
            width: self.input.width.div_ceil(self.stride),
            batch: self.input.batch,
            channels: self.channels,
        }
    }

    /// Values of the weight.
    pub fn weight_len(&self) -> usize {
        self.channels * self.input.channels * self.kernel * self.kernel
    }

    /// What a product sums over, and how many columns it makes.
    pub(crate) fn depth_and_columns(&self, way: Way) -> (usize, usize) {
        match way {
            Way::Forward => (self.input.channels, self.channels),
            Way::Back => (self.channels, self.input.channels),
        }
    }

    /// `[out, in, kernel, stride]`.
    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.channels, self.input.channels, self.kernel, self.stride]
    }

    /// Of what is convolved: the input, or on the way back the gradient.
    pub(crate) fn check_source(&self, source: &[f32], way: Way) {
        match way {
            Way::Forward => self.check_input(source),
            Way::Back => self.check_gradient(source),
        }
    }

    pub(crate) fn check_weight_gradient(&self, x: &[f32], dy: &[f32]) {
        self.check_kernel();
        self.check_input(x);
        self.check_gradient(dy);
    }

    pub(crate) fn check_weight_values(&self, w: &[f32]) {
        self.check_kernel();
        assert_eq!(
            w.len(),
            self.weight_len(),
            "the weight is not of its shape {self:?}"
        );
    }

    fn check_kernel(&self) {
        let (kernel, stride) = (self.kernel, self.stride);
        assert!(
            matches!(kernel, 1 | 3),
            "expected a kernel of 1 or 3, found {kernel}"
        );
        assert!(
            matches!(stride, 1 | 2),
            "expected a stride of 1 or 2, found {stride}"
        );
    }

    fn check_input(&self, x: &[f32]) {
        let shape = self.input;
        assert_eq!(
            x.len(),
            shape.len(),
            "the input is not of its shape {shape:?}"
        );
    }

    fn check_gradient(&self, dy: &[f32]) {
        let shape = self.output();
        assert_eq!(
            dy.len(),
            shape.len(),
            "the gradient is not of shape {shape:?}"
        );
    }

    /// For each output pixel, the input pixels under the kernel.
    pub(crate) fn taps(&self) -> Vec<Vec<Tap>> {
        let (input, output) = (self.input, self.output());
        let mut taps = vec![Vec::new(); output.height * output.width];
        self.pairs(|out, tap| taps[out].push(tap));
        debug_assert!(
            taps.iter()
                .all(|t| t.iter().all(|t| t.pixel < input.height * input.width))
        );
        taps
    }

    /// For each input pixel, the output pixels whose kernels cover it.
    pub(crate) fn taps_back(&self) -> Vec<Vec<Tap>> {
        let mut taps = vec![Vec::new(); self.input.height * self.input.width];
        self.pairs(|out, tap| {
            taps[tap.pixel].push(Tap {
                pixel: out,
                weight: tap.weight,
            })
        });
        taps
    }

    fn pairs(&self, mut each: impl FnMut(usize, Tap)) {
        let (input, output, pad) = (self.input, self.output(), self.kernel / 2);
        for y in 0..output.height {
            for x in 0..output.width {
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        let (row, column) = (y * self.stride + ky, x * self.stride + kx);
                        let inside = row >= pad && row - pad < input.height;
                        if inside && column >= pad && column - pad < input.width {
                            let pixel = (row - pad) * input.width + column - pad;
                            each(
                                y * output.width + x,
                                Tap {
                                    pixel,
                                    weight: ky * self.kernel + kx,
                                },
                            );
                        }
                    }
                }
            }
        }
    }
}
