//! Check of how predictions and accuracy are spread over the classes.

use super::{CheckName, FEW, Finding};

/// Warn if other classes than the most frequent prediction get less than this share of the predictions that they should.
///
/// With balanced classes a classifier of little skill still predicts all of them about equally often; a tenth is far below
/// what noise or a bias of training does, and leaves rare classes of a skewed test set room: a classifier may well miss
/// half of them.
const NEARLY_ALL: f64 = 0.1;

/// Warn if accuracy and balanced accuracy differ by more than this, beyond two standard errors of the latter.
///
/// On a test set with equal classes they do not differ at all. With skewed ones, a classifier that is right on 95 % of a
/// frequent class and 75 % of a rare one differs by at most 10 points; a larger gap means that the accuracy is mostly that
/// of the frequent classes.
const GAP: f64 = 0.1;

/// Compares predictions with the labels, class by class.
pub(super) fn class_balance(labels: &[usize], predicted: &[usize], classes: usize) -> Finding {
    let check = CheckName::ClassBalance;
    let count = labels.len();
    let frequencies = |values: &[usize]| {
        let mut counts = vec![0usize; classes];
        values.iter().for_each(|&class| counts[class] += 1);
        counts
    };
    let (of_labels, of_predictions) = (frequencies(labels), frequencies(predicted));
    let present = of_labels.iter().filter(|&&images| images > 0).count();
    if classes < 2 || present < 2 {
        return check.not_checked("only one class");
    }
    if count < FEW {
        return check.not_checked(format!("fewer than {FEW} images"));
    }
    let top = (0..classes)
        .max_by_key(|&class| of_predictions[class])
        .unwrap_or(0);
    let [others, predicted_others] = [&of_labels, &of_predictions].map(|all| count - all[top]);
    let spread = predicted_others as f64 >= NEARLY_ALL * others as f64;

    let mut correct = vec![0usize; classes];
    let pairs = labels.iter().zip(predicted);
    pairs
        .filter(|(label, class)| label == class)
        .for_each(|(&label, _)| correct[label] += 1);
    let accuracy = correct.iter().sum::<usize>() as f64 / count as f64;
    let (mut balanced, mut variance) = (0.0, 0.0);
    for (&hits, &images) in correct
        .iter()
        .zip(&of_labels)
        .filter(|(_, images)| **images > 0)
    {
        balanced += hits as f64 / images as f64 / present as f64;
        // One hit and one miss more, so that a class of few images does not seem free of error.
        let (n, share) = (
            images as f64 + 2.0,
            (hits as f64 + 1.0) / (images as f64 + 2.0),
        );
        variance += share * (1.0 - share) / n / (present * present) as f64;
    }
    let agree = (accuracy - balanced).abs() <= GAP + 2.0 * variance.sqrt();
    let (most, own) = (of_predictions[top], of_labels[top]);
    let found = format!(
        "one class is predicted for {most} of {count} images and is the label of {own}; accuracy {:.1} %, balanced over the classes {:.1} %",
        100.0 * accuracy,
        100.0 * balanced
    );
    check.finding(spread && agree, found)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Holds, NotChecked, Warns};
    use super::*;

    /// `counts[label][class]` images of a label are predicted as a class.
    fn verdict(counts: &[&[usize]]) -> Verdict {
        let (mut labels, mut predicted) = (Vec::new(), Vec::new());
        for (label, row) in counts.iter().enumerate() {
            for (class, &images) in row.iter().enumerate() {
                labels.extend(vec![label; images]);
                predicted.extend(vec![class; images]);
            }
        }
        class_balance(&labels, &predicted, counts.len()).verdict
    }

    #[test]
    fn a_classifier_of_one_class_warns_and_an_honest_one_on_skewed_classes_does_not() {
        for (what, counts, expected) in [
            ("no skill", &[&[5, 5][..], &[5, 5]][..], Holds),
            ("biased", &[&[50, 0], &[40, 10]], Holds),
            ("one class", &[&[50, 0], &[50, 0]], Warns),
            ("nearly one class", &[&[50, 0], &[48, 2]], Warns),
            ("one of many", &[&[9, 0, 0], &[9, 0, 0], &[8, 1, 0]], Warns),
            ("the rare class never", &[&[38, 0], &[2, 0]], Warns),
            ("half of the rare class", &[&[38, 0], &[1, 1]], Holds),
            ("skewed and good", &[&[930, 20], &[10, 40]], Holds),
            ("skewed, good and small", &[&[38, 1], &[1, 2]], Holds),
            ("skewed, one class", &[&[950, 0], &[50, 0]], Warns),
            ("skewed, nearly", &[&[940, 10], &[45, 5]], Warns),
            ("the frequent class fails", &[&[40, 110], &[0, 50]], Warns),
            ("one label", &[&[20, 5], &[0, 0]], NotChecked),
            ("few images", &[&[3, 0], &[3, 1]], NotChecked),
        ] {
            assert_eq!(verdict(counts), expected, "{what}");
        }
    }

    #[test]
    fn the_finding_has_its_numbers() {
        let labels = [[0; 6], [1; 6]].concat();
        let found = class_balance(&labels, &[0; 12], 2).found;
        assert_eq!(
            found,
            "one class is predicted for 12 of 12 images and is the label of 6; accuracy 50.0 %, balanced over the classes 50.0 %"
        );
        assert_eq!(class_balance(&[0; 9], &[0; 9], 1).found, "only one class");
    }
}
