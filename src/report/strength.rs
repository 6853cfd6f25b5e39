//! The strongest of the attacks that ran on a classifier.

use std::cmp::Ordering;

use crate::attack::AUTOATTACK;

/// What a suite of attacks left of its images, as shares of them.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// Name of the suite.
    pub suite: &'a str,
    /// Number of images.
    pub images: usize,
    /// Share that the suite left.
    pub robust: f64,
    /// Share that PGD left of the same images; of all that it ran on, where that is not known.
    pub pgd: f64,
    /// Whether its attacks are more than weak ones.
    pub thorough: bool,
}

impl Left<'_> {
    /// The order in which several runs of one suite count: that on the most images, then that which left the fewest.
    pub fn compare_runs(&self, other: &Left) -> Ordering {
        let by_images = self.images.cmp(&other.images);
        by_images.then(other.robust.total_cmp(&self.robust))
    }

    /// Share of the images that the suite broke beyond PGD.
    fn gain(&self) -> f64 {
        self.pgd - self.robust
    }
}

/// The strongest of several suites; none where PGD is stronger than each.
///
/// Suites run on some of the images only, and their shares of different images cannot be compared: each is held against PGD on its own.
pub fn strongest<T>(suites: &[T], left: impl Fn(&T) -> Left<'_>) -> Option<&T> {
    let all: Vec<(&T, Left)> = suites.iter().map(|suite| (suite, left(suite))).collect();
    let counts = |one: &Left| {
        let mut runs = all.iter().filter(|(_, other)| other.suite == one.suite);
        runs.all(|(_, other)| other.compare_runs(one) != Ordering::Greater)
    };
    let stronger = all.iter().filter(|(_, one)| {
        // One that broke just what PGD did is the better evidence, unless it is weak itself.
        let evidence = one.gain() > 0.0 || (one.thorough && one.gain() >= 0.0);
        evidence && counts(one)
    });
    let strongest = stronger.max_by(|(_, a), (_, b)| {
        let is_standard = |one: &Left| one.suite == AUTOATTACK;
        let by_gain = a.gain().total_cmp(&b.gain());
        let by_name = is_standard(a).cmp(&is_standard(b));
        by_gain.then(by_name).then(a.images.cmp(&b.images))
    });
    strongest.map(|(suite, _)| *suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, images, the share that it left, and that PGD left of the same.
    type Suite = (&'static str, usize, f64, f64);

    fn left(&(suite, images, robust, pgd): &Suite) -> Left<'_> {
        Left {
            suite,
            images,
            robust,
            pgd,
            thorough: !["noise", "fgsm"].contains(&suite),
        }
    }

    #[test]
    fn the_strongest_attack_is_that_which_breaks_the_most_beyond_pgd() {
        let noise = ("noise", 100, 0.7, 0.5);
        let autoattack = ("autoattack", 40, 0.55, 0.6);
        let square = ("square", 100, 0.49, 0.5);
        for (suites, expected) in [
            (&[][..], None),
            // Weak ones, the latest of them or not, leave PGD in the headline, also where they leave no more.
            (&[noise], None),
            (&[("fgsm", 100, 0.5, 0.5)], None),
            (&[("square", 100, 0.5, 0.5)], Some("square")),
            (&[noise, autoattack], Some("autoattack")),
            // Its few images are harder for attacks, and it broke more of them than PGD all the same.
            (&[square, autoattack], Some("autoattack")),
            (&[square, noise], Some("square")),
            (&[("apgd-t", 100, 0.4, 0.5), square], Some("apgd-t")),
            (
                &[("autoattack", 100, 0.4, 0.5), ("apgd-t", 100, 0.4, 0.5)],
                Some("autoattack"),
            ),
            // Of two runs that on more images counts, whatever the other found on its few.
            (&[("square", 4, 0.0, 0.5), square, noise], Some("square")),
        ] {
            let found = strongest(suites, left);
            assert_eq!(found.map(|one| one.0), expected, "{suites:?}");
            let few = found.is_some_and(|one| one.1 == 4);
            assert!(!few, "{suites:?}");
        }
    }
}
