//! Stratified folds of cross-validation.

use rand::rngs::ChaCha8Rng;

use crate::random::shuffle;

/// Images of one fold, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// Images that it is fitted on: every class is among them.
    pub training: Vec<usize>,
    /// The others.
    pub held_out: Vec<usize>,
}

/// Deals the images of each class out to `count` folds, in random order. A class of fewer images is held out in as many
/// folds as it has images; one of a single image in none. Folds in which nothing is held out are left away: none are left
/// where every class has one image.
pub fn stratified(
    labels: &[usize],
    classes: usize,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Fold> {
    let mut fold_of = vec![None; labels.len()];
    // Each class goes on where the one before ended, so that small classes do not all end in the first folds.
    let mut next = 0;
    for class in 0..classes {
        let of_class = (0..labels.len()).filter(|&image| labels[image] == class);
        let mut images: Vec<usize> = of_class.collect();
        if images.len() < 2 {
            continue;
        }
        shuffle(&mut images, rng);
        for image in images {
            fold_of[image] = Some(next % count);
            next += 1;
        }
    }
    let fold = |fold: usize| {
        let (held_out, training) =
            (0..labels.len()).partition(|&image: &usize| fold_of[image] == Some(fold));
        Fold { training, held_out }
    };
    let folds = (0..count).map(fold);
    folds.filter(|fold| !fold.held_out.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;

    fn folds(labels: &[usize], classes: usize, seed: u64) -> Vec<Fold> {
        stratified(labels, classes, 5, &mut generator(seed, "folds", 0))
    }

    #[test]
    fn every_fold_knows_every_class() {
        // Sixteen of the first class, three of the second, one of the third, none of the fourth.
        let labels = [vec![0; 16], vec![1; 3], vec![2]].concat();
        let found = folds(&labels, 4, 0);
        assert_eq!(found.len(), 5);
        let mut held_out = vec![0; labels.len()];
        for fold in &found {
            for class in 0..3 {
                assert!(fold.training.iter().any(|&image| labels[image] == class));
            }
            assert_eq!(fold.training.len() + fold.held_out.len(), labels.len());
            let of_first = fold.held_out.iter().filter(|&&image| labels[image] == 0);
            assert!((3..=4).contains(&of_first.count()), "{fold:?}");
            fold.held_out.iter().for_each(|&image| held_out[image] += 1);
        }
        assert_eq!(
            held_out,
            [vec![1; 19], vec![0]].concat(),
            "each once, but the single one"
        );
        assert_eq!(found, folds(&labels, 4, 0));
        assert_ne!(found, folds(&labels, 4, 1));
    }

    #[test]
    fn classes_of_one_image_are_never_held_out() {
        assert!(folds(&[0, 1, 2], 3, 0).is_empty());
        let found = folds(&[0, 1, 1], 2, 0);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|fold| fold.training.contains(&0)));
    }
}
