//! Estimate of the memory that pretraining takes.

use super::Method;
use crate::nn::{EncoderConfig, Sharding, Shards};
use crate::ranks;

/// Share by which the estimate may be off, either way; see RESULTS.md.
pub const MARGIN: f64 = 0.3;

/// Code and threads of the program, in bytes.
const PROGRAM: f64 = 40e6;
/// Room of a value that is kept for the way back, with what the allocator loses between them.
const KEPT: f64 = 1.2;
/// Results of the largest layer that the way back and the kernels work on at once.
const WORKED_ON: f64 = 3.5;
/// Copies of every weight: kept, tracked, gradient, momentum, and what the kernels pack of them for either direction.
const COPIES: f64 = 10.0;

/// Copies of every weight beside those with micro-batches: gradients of a pass, of a shard, of all, and the sum being made.
const SUMS: f64 = 4.0;
/// Copies of a batch's pixels beside the views that are kept with micro-batches: what augmentation and attack work on.
const PICTURES: f64 = 6.0;

/// Peak memory in bytes of pretraining an encoder by `method` on images of `[channels, height, width]`, where `held` bytes of
/// pixels are in memory. For the CPU: intermediate results of all forward passes that one step keeps, weights with their
/// gradients and momentum, pixels. The constants were fitted to measured runs.
pub fn peak(method: &dyn Method, encoder: &EncoderConfig, shape: [usize; 3], held: usize) -> u64 {
    peak_with(method, method.plan().micro_batch, encoder, shape, held)
}

/// [`peak`] with other micro-batches than the plan's: one pass of one of them is kept at a time, and the views of the batch.
pub fn peak_with(
    method: &dyn Method,
    micro_batch: Option<usize>,
    encoder: &EncoderConfig,
    [channels, height, width]: [usize; 3],
    held: usize,
) -> u64 {
    // Ranks share a batch.
    let batch = method.plan().batch_size.div_ceil(ranks::count());
    let kept = KEPT * encoder.kept_values(channels, [height, width]) as f64;
    let worked_on = WORKED_ON * encoder.largest_values([height, width]) as f64;
    let weights = encoder.values(channels, method.routes()) as f64;
    let passes = method.passes() as f64;
    let values = match micro_batch {
        None => batch as f64 * (kept * passes + worked_on) + COPIES * weights,
        Some(most) => {
            let shards = Shards::new(batch, Sharding::default(), Some(most)).ranges();
            let largest = shards.iter().map(|images| images.len()).max();
            let at_once = (largest.unwrap_or(batch) * method.stacked()) as f64;
            let pictures = (passes + PICTURES) * (channels * height * width) as f64;
            at_once * (kept + worked_on) + batch as f64 * pictures + (COPIES + SUMS) * weights
        }
    };
    (PROGRAM + 4.0 * values + held as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretrain::METHODS;
    use crate::recipe::Recipe;

    #[test]
    fn estimates_are_near_what_was_measured() {
        // Method, depth, width, stem, size, batch, measured peak in MB (RESULTS.md).
        for (name, depth, width, stem, size, batch, measured) in [
            ("simclr", 10, 16, "strided", 28, 128, 95.0),
            ("advcl", 10, 16, "strided", 64, 128, 666.0),
            ("simclr", 18, 64, "cifar", 32, 64, 1343.0),
            ("advcl", 10, 64, "strided", 64, 32, 816.0),
            ("rocl", 10, 16, "strided", 32, 128, 198.0),
            ("acl", 10, 16, "strided", 64, 64, 364.0),
            ("dynacl", 10, 32, "cifar", 32, 64, 386.0),
            ("adversarial-training", 18, 32, "strided", 48, 64, 230.0),
            ("trades", 18, 16, "strided", 64, 64, 342.0),
        ] {
            let set = [
                format!("encoder = {{ depth = {depth}, width = {width}, stem = '{stem}' }}"),
                format!("pretrain.{name}.plan.batch_size = {batch}"),
            ];
            let recipe = Recipe::load("compare-quick", &set).expect("a recipe");
            let entry = recipe.pretrain.require(name).expect("a method of it");
            let found = peak(entry.method(), &recipe.encoder, [3, size, size], 0) as f64 / 1e6;
            let off = found / measured - 1.0;
            assert!(off.abs() <= MARGIN, "{name}: {found:.0} for {measured}");
        }
    }

    #[test]
    fn micro_batches_take_less_the_smaller_they_are() {
        // Few weights and many images: what micro-batches save is what counts.
        let small = "encoder = { depth = 18, width = 16, stem = 'cifar' }".to_owned();
        let trial = "pretrain.\"advcl+\" = { temperature = 0.5, cluster_weight = 3.0, period = 1, attack_steps = 1, plan = { epochs = 1, batch_size = 256, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} } }".to_owned();
        let batches = METHODS.iter().map(|method| {
            let name = method.name;
            format!("pretrain.{name:?}.plan.batch_size = 256")
        });
        let set: Vec<String> = [small, trial].into_iter().chain(batches).collect();
        let recipe = Recipe::load("compare-quick", &set).expect("a recipe");
        for entry in recipe.pretrain.entries() {
            let method = entry.method();
            let within =
                |micro_batch| peak_with(method, micro_batch, &recipe.encoder, [3, 32, 32], 0);
            let whole = within(None);
            assert_eq!(whole, peak(method, &recipe.encoder, [3, 32, 32], 0));
            let batch = method.plan().batch_size;
            let halves = (1..=3).map(|power| within(Some(batch >> power)));
            let halves: Vec<u64> = std::iter::once(whole).chain(halves).collect();
            let falling = halves.is_sorted_by(|before, after| after < before);
            assert!(falling, "{}: {halves:?}", entry.name);
            assert!(halves[3] < whole / 2, "{}: {halves:?}", entry.name);
        }
    }
}
