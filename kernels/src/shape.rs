//! Shapes of convolutions, and which pixels their kernels cover.

/// The shape of activations, `[height, width, batch, channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Number of images.
    pub batch: usize,
    /// Values per pixel and image.
    pub channels: usize,
}

impl Activation {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.height * self.width * self.batch * self.channels
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Height and width of the largest kernel: the first layer of ResNets for large images.
pub(crate) const MAX_KERNEL: usize = 7;

/// The shape of a convolution whose padding keeps the size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Shape of the input.
    pub input: Activation,
    /// Channels of the output.
    pub channels: usize,
    /// Height and width of the kernel: 1, 3 or 7.
    pub kernel: usize,
    /// Stride in both directions: 1 or 2.
    pub stride: usize,
}

/// The pass that a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Forward pass: the output.
    Forward,
    /// Backward pass: the gradient of the input.
    Backward,
}

impl Pass {
    /// The output and the input channel of the weight in column `column` at depth `k`.
    pub(crate) fn channels(self, column: usize, k: usize) -> (usize, usize) {
        match self {
            Self::Forward => (column, k),
            Self::Backward => (k, column),
        }
    }
}

/// One product of a pixel's sum: a source pixel, and a position in the kernel.
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

    /// Number of values of the weight.
    pub fn weight_len(&self) -> usize {
        self.channels * self.input.channels * self.kernel * self.kernel
    }

    /// The number of channels that a product sums over, and the number of columns of its result.
    pub(crate) fn depth_and_columns(&self, pass: Pass) -> (usize, usize) {
        match pass {
            Pass::Forward => (self.input.channels, self.channels),
            Pass::Backward => (self.channels, self.input.channels),
        }
    }

    /// The weight's `[out, in, kernel, stride]`.
    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.channels, self.input.channels, self.kernel, self.stride]
    }

    /// Checks the length of the input, or in the backward pass of the output's gradient.
    ///
    /// # Panics
    /// If it is not that of its shape.
    pub(crate) fn check_source(&self, source: &[f32], pass: Pass) {
        match pass {
            Pass::Forward => self.check_input(source),
            Pass::Backward => self.check_gradient(source),
        }
    }

    /// Checks the operands of the weight's gradient.
    ///
    /// # Panics
    /// If the kernel or the stride is not supported, or a length is not that of its shape.
    pub(crate) fn check_weight_gradient(&self, x: &[f32], dy: &[f32]) {
        self.check_kernel();
        self.check_input(x);
        self.check_gradient(dy);
    }

    /// Checks a weight.
    ///
    /// # Panics
    /// If the kernel or the stride is not supported, or the length is not that of its shape.
    pub(crate) fn check_weight_values(&self, w: &[f32]) {
        self.check_kernel();
        assert_eq!(
            w.len(),
            self.weight_len(),
            "the weight does not have the length of its shape: {self:?}"
        );
    }

    fn check_kernel(&self) {
        let (kernel, stride) = (self.kernel, self.stride);
        assert!(
            matches!(kernel, 1 | 3 | MAX_KERNEL),
            "expected a kernel of 1, 3 or 7, found {kernel}"
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
            "the input does not have the length of its shape: {shape:?}"
        );
    }

    fn check_gradient(&self, dy: &[f32]) {
        let shape = self.output();
        assert_eq!(
            dy.len(),
            shape.len(),
            "the gradient does not have the length of the output's shape: {shape:?}"
        );
    }

    /// The input pixels under the kernel, for each output pixel.
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

    /// The output pixels whose kernels cover it, for each input pixel.
    pub(crate) fn taps_backward(&self) -> Vec<Vec<Tap>> {
        let mut taps = vec![Vec::new(); self.input.height * self.input.width];
        self.pairs(|out, tap| {
            taps[tap.pixel].push(Tap {
                pixel: out,
                weight: tap.weight,
            })
        });
        taps
    }

    /// Calls `each` with an output pixel and a tap of its sum, for every product of the
    /// convolution.
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
