//! Gradients of every method's step in micro-batches, held against those of the whole batch, and against those of the same
//! shards in one graph.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;

use super::{Inputs, METHODS, Pretrain, Stage, Start, Trainer};
use crate::attack::{Ball, Norm};
use crate::cluster::PseudoLabels;
use crate::data::{Images, Reading, Split};
use crate::nn::{
    Backbone, BatchNormOver, Depth, EncoderConfig, Route, Sharding, Stem, Turn, in_one_graph,
};
use crate::run::{MODEL_FORMAT, Model, ModelInfo};
use crate::session::Context;
use crate::train::Resume;
use crate::{device, random, weights};

/// Tables of every method, and of ACL's and AdvCL's other forms. One step, whose velocities are the gradients.
fn tables(micro_batch: Option<usize>) -> Pretrain {
    let micro = micro_batch.map_or(String::new(), |most| format!("micro_batch = {most}, "));
    let plan = |name: &str| {
        format!(
            "{name} = {{ {micro}epochs = 1, batch_size = {BATCH}, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {{}} }}\n"
        )
    };
    let table = |name: &str, keys: &str| format!("[{name:?}]\n{}{keys}\n", plan("plan"));
    let attack = "attack_steps = 2\n";
    let contrastive = &format!("temperature = 0.5\n{attack}");
    let text = [
        table("simclr", "temperature = 0.5"),
        table(
            "advcl",
            &format!("{contrastive}cluster_weight = 0.5\nhigh_frequency_radius = 2.0"),
        ),
        table(
            "advcl-without",
            &format!("{contrastive}cluster_weight = 0.5\nclusters = []"),
        ),
        table(
            "advcl+",
            &format!("{contrastive}cluster_weight = 0.5\nperiod = 1"),
        ),
        table("rocl", &format!("{contrastive}target_weight = 0.5")),
        table("acl", contrastive),
        table(
            "acl-attacked",
            &format!("{contrastive}streams = 'adversarial-adversarial'"),
        ),
        table(
            "acl-clean",
            &format!("{contrastive}streams = 'adversarial-standard'"),
        ),
        table("dynacl", &format!("{contrastive}period = 1")),
        table(
            "dynacl++",
            &format!("{attack}{}clusters = 3\nbeta = 6.0", plan("head_plan")),
        ),
        table("deacl", attack),
        table("supervised", ""),
        table("adversarial-training", attack),
        table("trades", &format!("{attack}beta = 6.0")),
    ];
    toml::from_str(&text.concat()).expect("tables of methods")
}

/// Images of the batch; with four at a time, the shards are of 3, 3 and 4.
const BATCH: usize = 10;
const SIDE: usize = 12;

fn config() -> EncoderConfig {
    EncoderConfig {
        depth: Depth::D10,
        width: 4,
        stem: Stem::Cifar,
    }
}

/// What one step of a method leaves: gradients by name, and running statistics.
struct Stepped {
    gradients: HashMap<String, Vec<f32>>,
    running: HashMap<String, Vec<f32>>,
}

fn step(name: &str, micro_batch: Option<usize>) -> Stepped {
    pulled_step(name, micro_batch, 0.5)
}

fn pulled_step(name: &str, micro_batch: Option<usize>, pull: f64) -> Stepped {
    cut_step(name, micro_batch, pull, Sharding::default())
}

fn cut_step(name: &str, micro_batch: Option<usize>, pull: f64, shards: Sharding) -> Stepped {
    let device = device::open("cpu").expect("the CPU");
    let mut rng = random::generator(7, "micro", 0);
    let mut pixels = vec![0; BATCH * 3 * SIDE * SIDE];
    rng.fill_bytes(&mut pixels);
    let train = Split {
        images: Images::new(pixels, [3, SIDE, SIDE]),
        labels: (0..BATCH).map(|i| i % 3).collect(),
    };
    let labels = PseudoLabels {
        clusters: [2, 5]
            .map(|k| (k, (0..BATCH).map(|i| i % k).collect()))
            .to_vec(),
        origin: String::new(),
    };
    let model = |seed: u64| Model {
        info: ModelInfo {
            format: MODEL_FORMAT,
            method: "simclr".to_owned(),
            encoder: config(),
            channels: 3,
            image_size: [SIDE; 2],
            classes: Vec::new(),
            routes: vec![Route::Normal],
            route: Route::Normal,
            projection: true,
            clusters: Vec::new(),
            pseudo_labels: None,
            start: None,
            finetuning: None,
            normalize: None,
            recipe: String::new(),
            reading: Reading::default(),
            arithmetic: Vec::new(),
            advcl_version: String::new(),
        },
        backbone: {
            let mut rng = random::generator(seed, "teacher", 0);
            Backbone::new(&config(), 3, 1, &[], &mut rng, &device)
        },
        linear: None,
    };
    let (source, start) = (model(1), model(2));
    let folder = tempfile::tempdir().expect("a folder");
    let tables = tables(micro_batch);
    let method = tables.require(name).expect("its table").method();
    let inputs = Inputs {
        train: &train,
        classes: 3,
        pseudo_labels: if method.clustered() {
            &labels
        } else {
            &PseudoLabels::default()
        },
        source: Some(&source),
        // A pull too, where there can be one.
        start: (method.starts_at().is_none()).then_some(Start {
            model: &start,
            pull,
        }),
        encoder: &config(),
        // A step along the gradient, not along its sign: what differs by rounding stays so.
        ball: Ball {
            norm: Norm::L2,
            radius: 0.5,
        },
    };
    let stage = Stage {
        name,
        folder: folder.path(),
        resume: Resume {
            recipe: "",
            continues: None,
            replaces: false,
        },
        interval: Duration::MAX,
    };
    let mut context = Context::new(device.clone());
    context.shards = shards;
    let trained = method.pretrain(&mut Trainer::new(stage, inputs, &mut context));
    trained.expect(name);
    let (tensors, _) = weights::load(&folder.path().join("checkpoint.safetensors"))
        .expect("the checkpoint of the step");
    let among = |prefix: &str, what: &str| {
        let named = tensors.iter().filter_map(|(name, (_, values))| {
            let name = name
                .strip_prefix(prefix)
                .filter(|name| name.contains(what))?;
            Some((name.to_owned(), values.clone()))
        });
        named.collect::<HashMap<_, _>>()
    };
    Stepped {
        gradients: among("velocity.", ""),
        running: among("model.", "running_"),
    }
}

/// The largest distance of two steps' tensors, relative to their lengths; of all tensors below a thousandth of the longest
/// gradient, relative to that.
fn distance(ours: &HashMap<String, Vec<f32>>, theirs: &HashMap<String, Vec<f32>>) -> f64 {
    let length = |values: &[f32]| {
        values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let mut names: [Vec<_>; 2] = [ours.keys().collect(), theirs.keys().collect()];
    names.iter_mut().for_each(|names| names.sort());
    assert_eq!(names[0], names[1], "the same tensors");
    let longest = theirs
        .values()
        .map(|values| length(values))
        .fold(0.0, f64::max);
    let of = |(name, ours): (&String, &Vec<f32>)| {
        let theirs = &theirs[name];
        let apart: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
        length(&apart) / length(theirs).max(1e-3 * longest)
    };
    ours.iter().map(of).fold(0.0, f64::max)
}

/// Rounding, with BatchNorm of few values behind it.
const ROUNDING: f64 = 2e-4;

fn micro_batches_have_the_gradients_of_one_graph(name: &str) {
    let _turn = Turn::take();
    let whole = step(name, None);
    assert!(whole.gradients.len() > 20, "{:?}", whole.gradients.keys());
    // One shard of everything: nothing but the way to the gradients differs.
    let one = step(name, Some(BATCH));
    let apart = distance(&one.gradients, &whole.gradients);
    assert!(apart < ROUNDING, "one shard: {apart:.1e}");
    assert!(distance(&one.running, &whole.running) < ROUNDING);
    // Three shards in two passes, and the same shards in one graph.
    let parts = step(name, Some(4));
    let expected = in_one_graph(|| step(name, Some(4)));
    let apart = distance(&parts.gradients, &expected.gradients);
    assert!(apart < ROUNDING, "three shards: {apart:.1e}");
    assert!(distance(&parts.running, &expected.running) < ROUNDING);
    // BatchNorm's statistics are those of a shard: this is another network than the whole batch's.
    let apart = distance(&parts.gradients, &whole.gradients);
    assert!(
        apart > 10.0 * ROUNDING,
        "three shards are no shards: {apart:.1e}"
    );
}

fn shards_have_the_gradients_of_what_they_are_parts_of(name: &str) {
    let _turn = Turn::take();
    let cut = |batchnorm| {
        let sharding = Sharding {
            count: 2,
            batchnorm,
        };
        cut_step(name, None, 0.5, sharding)
    };
    // Kept in memory or computed again.
    let (kept, again) = (cut(BatchNormOver::Shard), step(name, Some(BATCH / 2)));
    let apart = distance(&kept.gradients, &again.gradients);
    assert!(apart < ROUNDING, "two shards: {apart:.1e}");
    assert!(distance(&kept.running, &again.running) < ROUNDING);
    // With one BatchNorm over both of them nothing tells that there are two.
    let (together, whole) = (cut(BatchNormOver::Global), step(name, None));
    let apart = distance(&together.gradients, &whole.gradients);
    assert!(apart < ROUNDING, "one BatchNorm: {apart:.1e}");
    let apart = distance(&together.running, &whole.running);
    assert!(apart < ROUNDING, "its statistics: {apart:.1e}");
}

macro_rules! methods {
    ($($test:ident: $name:literal;)*) => {
        const TESTED: &[&str] = &[$($name),*];
        $(
            #[test]
            fn $test() {
                micro_batches_have_the_gradients_of_one_graph($name);
                shards_have_the_gradients_of_what_they_are_parts_of($name);
            }
        )*
    };
}

methods! {
    simclr: "simclr";
    advcl: "advcl";
    advcl_without_clusters: "advcl-without";
    rocl: "rocl";
    acl: "acl";
    acl_of_attacked_pairs: "acl-attacked";
    acl_of_attacked_and_clean_images: "acl-clean";
    dynacl: "dynacl";
    advcl_plus: "advcl+";
    dynacl_plus_plus: "dynacl++";
    deacl: "deacl";
    supervised: "supervised";
    adversarial_training: "adversarial-training";
    trades: "trades";
}

#[test]
fn every_method_is_tested() {
    for method in METHODS {
        assert!(TESTED.contains(&method.name), "{} has no test", method.name);
    }
}

#[test]
fn one_shard_of_a_single_pass_has_the_same_bits() {
    let _turn = Turn::take();
    // Without the pull, whose gradients are added to the others in no certain order.
    let step = |name, micro_batch| pulled_step(name, micro_batch, 0.0);
    for name in ["supervised", "adversarial-training"] {
        let (whole, one) = (step(name, None), step(name, Some(BATCH)));
        let differ = |ours: &HashMap<String, Vec<f32>>, theirs: &HashMap<String, Vec<f32>>| {
            let names = ours
                .iter()
                .filter(|(name, values)| theirs[*name] != **values);
            names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let running = differ(&whole.running, &one.running);
        assert!(running.is_empty(), "{name}: {running:?}");
        let gradients = differ(&whole.gradients, &one.gradients);
        assert!(gradients.is_empty(), "{name}: {gradients:?}");
    }
}
