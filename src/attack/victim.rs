//! Who is attacked, and what an attack found: what all attacks of a suite share.

use burn::tensor::{Int, Tensor};
use rand::rngs::ChaCha8Rng;

use super::Ball;
use crate::error::Result;
use crate::logits::{classes_said, require_finite};
use crate::random;
use crate::tensor::{label_tensor, to_vec};

/// Images under attack, and the classifier that is to be fooled.
pub struct Victim<'a> {
    /// `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`. A row depends on its image alone.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// All of them classified correctly.
    pub images: &'a Tensor<4>,
    /// Of each image.
    pub labels: &'a [usize],
    /// Where each image is in its split. Its random numbers come from here, so that they do not depend on the batch.
    pub indices: &'a [usize],
    /// Where adversarial examples may be.
    pub ball: Ball,
    /// Of all random numbers.
    pub seed: u64,
}

/// Is told the share of the work that is done, in [0, 1]; an error ends the attack.
pub type Tell<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// What an attack found.
pub struct Found {
    /// Which images it broke.
    pub broken: Vec<bool>,
    /// An adversarial example of each broken image; anything for the others.
    pub images: Tensor<4>,
}

/// The images at `rows` of a batch, in that order.
pub fn select(images: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let index = label_tensor(rows, &images.device());
    images.clone().select(0, index)
}

impl Victim<'_> {
    /// The labels of the images at `rows`.
    pub fn labels_of(&self, rows: &[usize]) -> Tensor<1, Int> {
        let labels: Vec<usize> = rows.iter().map(|&row| self.labels[row]).collect();
        label_tensor(&labels, &self.images.device())
    }

    /// Which of the images at `rows` are misclassified, by what the classifier said where an attack moved them.
    ///
    /// # Errors
    /// [`Error::Logits`](crate::Error::Logits) for logits that are not finite: neither right nor wrong.
    pub fn wrong(&self, rows: &[usize], logits: Tensor<2>) -> Result<Vec<bool>> {
        let indices: Vec<usize> = rows.iter().map(|&row| self.indices[row]).collect();
        let said = classes_said("under attack", &indices, logits)?;
        let wrong = rows.iter().zip(said);
        Ok(wrong
            .map(|(&row, class)| self.labels[row] != class)
            .collect())
    }

    /// The classes other than its label of each image, in falling order of the image's own logits: whom targeted attacks push to.
    ///
    /// # Errors
    /// As [`Victim::wrong`].
    pub fn rivals(&self) -> Result<Vec<Vec<usize>>> {
        let said = (self.logits)(self.images.clone());
        let classes = said.dims()[1];
        let values = to_vec(said);
        let rows = values.chunks(classes).zip(self.labels).zip(self.indices);
        rows.map(|((logits, &label), &index)| {
            require_finite("under attack", index, logits)?;
            let mut others: Vec<usize> = (0..classes).filter(|&class| class != label).collect();
            others.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            Ok(others)
        })
        .collect()
    }

    /// Something random for each of the images at `rows`, by a generator of its own: `draw` gets one image at a time,
    /// `[1, channels, height, width]`.
    pub fn draw(
        &self,
        purpose: &str,
        rows: &[usize],
        draw: impl Fn(&Tensor<4>, &mut ChaCha8Rng) -> Tensor<4>,
    ) -> Tensor<4> {
        let each = rows.iter().map(|&row| {
            let mut rng = random::generator(self.seed, purpose, self.indices[row] as u64);
            draw(&self.images.clone().narrow(0, row, 1), &mut rng)
        });
        Tensor::cat(each.collect(), 0)
    }
}

impl Found {
    /// Of an attack that has not begun.
    pub fn nothing(victim: &Victim) -> Self {
        Self {
            broken: vec![false; victim.labels.len()],
            images: victim.images.clone(),
        }
    }

    /// The images that are not broken yet.
    pub fn left(&self) -> Vec<usize> {
        let rows = 0..self.broken.len();
        rows.filter(|&row| !self.broken[row]).collect()
    }

    /// Notes adversarial examples of the images at `rows`.
    pub fn put(&mut self, rows: &[usize], examples: Tensor<4>) {
        let count = self.broken.len();
        let mut order: Vec<usize> = (0..count).collect();
        for (place, &row) in rows.iter().enumerate() {
            self.broken[row] = true;
            order[row] = count + place;
        }
        let all = Tensor::cat(vec![self.images.clone(), examples], 0);
        self.images = select(&all, &order);
    }

    /// Asks the classifier about `tried`, one for each of the images at `rows`, and notes those that it gets wrong.
    ///
    /// # Errors
    /// As [`Victim::wrong`].
    pub fn judge(&mut self, victim: &Victim, rows: &[usize], tried: Tensor<4>) -> Result<()> {
        let wrong = victim.wrong(rows, (victim.logits)(tried.clone()))?;
        let places: Vec<usize> = (0..rows.len()).filter(|&place| wrong[place]).collect();
        if !places.is_empty() {
            let rows: Vec<usize> = places.iter().map(|&place| rows[place]).collect();
            self.put(&rows, select(&tried, &places));
        }
        Ok(())
    }
}
