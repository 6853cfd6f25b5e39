//! Weights that PyTorch wrote, imported as encoders: the same features, and refusals of other
//! files.

use std::path::{Path, PathBuf};

use advcl::device;
use advcl::nn::FrozenEncoder;
use advcl::run::Model;
use advcl::tensor::to_vec;
use advcl::weights;
use burn::tensor::{Tensor, TensorData};

use crate::transfer::{colour, image_folder};
use crate::{Transcript, advcl, copy, folder, get, put};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/import")
}

/// The features of the golden images by the model in `path`, less those that PyTorch computed.
fn gap(path: &Path, expected: &str) -> f32 {
    let (tensors, _) =
        weights::load(&golden().join("expected.safetensors")).expect("a golden file");
    gap_of(path, &tensors, ["images", expected])
}

/// The features of images by the model in `path` on its route, less those that were expected.
fn gap_of(path: &Path, tensors: &weights::Tensors, [images, expected]: [&str; 2]) -> f32 {
    let device = device::open("cpu").expect("the CPU");
    let (shape, values) = tensors[images].clone();
    let data = TensorData::new(values, [shape[0], shape[1], shape[2], shape[3]]);
    let model = Model::load(path, &device).expect("just written");
    let encoder = FrozenEncoder::new(&model.backbone.encoder, model.info.route);
    let found = to_vec(encoder.features(Tensor::from_data(data, &device)));
    let expected = &tensors[expected].1;
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    let gaps = length(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    gaps / length(&mut expected.iter().copied())
}

#[test]
fn features_are_those_of_pytorch() {
    let folder = folder();
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    let mut transcript = Transcript::new(path);
    for (file, expected, tolerance) in [
        ("bare.pt", "features", 1e-5),
        ("checkpoint.pth", "features", 1e-5),
        ("sequence.pt", "features", 1e-5),
        ("whole.pt", "normalised", 1e-5),
        // Weights of 16 bits.
        ("moco.pth", "features", 2e-3),
    ] {
        let command =
            format!("import theirs/{file} --image-size 16 -o plain.safetensors --replace");
        transcript.run(&command, 0);
        let gap = gap(&path.join("plain.safetensors"), expected);
        assert!(gap < tolerance, "{file}: {gap}");
    }
    // The file may stand behind the size, whose two numbers may be two words.
    for size in ["16", "16x16", "16 16"] {
        let command = format!("import --image-size {size} theirs/bare.pt -o size.safetensors");
        advcl(path, &command).expect(0);
    }
    // The other encoder of the file is another one.
    let other = "import theirs/moco.pth --prefix encoder_k -o key.safetensors";
    advcl(path, other).expect(0);
    assert!(gap(&path.join("key.safetensors"), "features") > 0.1);
    let json = "import theirs/checkpoint.pth -o x.safetensors --json";
    transcript.add_shape(&advcl(path, json).expect(0));
    transcript.check("import");

    let normalised =
        "import theirs/bare.pt --image-size 16 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26";
    advcl(path, &format!("{normalised} -o normalised.safetensors")).expect(0);
    let gap = gap(&path.join("normalised.safetensors"), "normalised");
    assert!(gap < 1e-5, "{gap}");
}

#[test]
fn the_first_layer_of_large_images_is_known_by_its_kernel() {
    let folder = folder();
    let path = folder.path();
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/rgb20/imagenet_stem.safetensors");
    let (tensors, _) = weights::load(&golden).expect("a golden file");
    let named = |(name, tensor): (&String, &(Vec<usize>, Vec<f32>))| {
        let name = name.strip_prefix("weight.")?;
        Some((name.to_owned(), tensor.clone()))
    };
    let mut all: weights::Tensors = tensors.iter().filter_map(named).collect();
    weights::save(&path.join("three.safetensors"), &all, &[]).expect("a file");
    let mut transcript = Transcript::new(path);
    for route in ["normal", "pgd", "pgd_ce"] {
        let command = format!(
            "import three.safetensors --route {route} --image-size 33 30 -o ours.safetensors --replace"
        );
        advcl(path, &command).expect(0);
        let expected = format!("eval.{route}.features");
        let gap = gap_of(
            &path.join("ours.safetensors"),
            &tensors,
            ["input", &expected],
        );
        assert!(gap < 1e-5, "{route}: {gap}");
    }
    // Of one branch and of the size that such networks are made for.
    all.retain(|name, _| !name.contains("bn_list.1") && !name.contains("bn_list.2"));
    weights::save(&path.join("one.safetensors"), &all, &[]).expect("a file");
    transcript.run("import one.safetensors -o one-out.safetensors", 0);
    all.insert(
        "conv1.weight".to_owned(),
        (vec![2, 3, 5, 5], vec![0.5; 150]),
    );
    weights::save(&path.join("five.safetensors"), &all, &[]).expect("a file");
    transcript.refuse("import five.safetensors");
    transcript.check("import_imagenet_stem");
}

#[test]
fn a_whole_classifier_predicts_at_once() {
    let folder = folder();
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    image_folder(&path.join("shapes"), colour);
    put(path.join("names.txt"), "ant\nbee\ncat\ndog\n");
    put(path.join("three.txt"), "ant\nbee\ncat\n");
    put(path.join("twice.txt"), "ant\nbee\nant\ndog\n");
    let mut transcript = Transcript::new(path);
    let import = "import theirs/bare.pt --image-size 16 -o model.safetensors";
    transcript.run(&format!("{import} --classes names.txt"), 0);
    transcript.run("predict model.safetensors shapes/test/both/0.png", 0);
    for names in ["three.txt", "twice.txt", "nowhere.txt"] {
        transcript.refuse(&format!("{import} --replace --classes {names}"));
    }
    transcript.refuse("import theirs/sequence.pt -o other.safetensors --classes names.txt");
    // A projection is a classifier when the user says so.
    transcript.run(
        "import theirs/moco.pth --classes names.txt -o query.safetensors",
        0,
    );
    transcript.check("a_whole_classifier");
}

#[test]
fn a_normalization_in_the_file_is_applied_by_any_name() {
    let folder = folder();
    let path = folder.path();
    let (bare, _) = tensors_of_bare(path);
    let [mean, std] = [[0.49, 0.48, 0.45], [0.25, 0.24, 0.26]].map(|values| values.to_vec());
    for (names, shape, unit) in [
        (
            ["normalizer.new_mean", "normalizer.new_std"],
            vec![3, 1, 1],
            1.0,
        ),
        (
            ["model.normalize.mean", "model.normalize.std"],
            vec![1, 3, 1, 1],
            1.0,
        ),
        (["mu", "sigma"], vec![3], 1.0),
        (["pixel_mean", "pixel_std"], vec![3, 1, 1], 255.0),
    ] {
        let mut tensors = bare.clone();
        for (name, values) in names.iter().zip([&mean, &std]) {
            let values = values.iter().map(|value| value * unit).collect();
            tensors.insert((*name).to_owned(), (shape.clone(), values));
        }
        weights::save(&path.join("normalised.safetensors"), &tensors, &[]).expect("a file");
        let import = "import normalised.safetensors --image-size 16 -o out.safetensors --replace";
        let answer = advcl(path, import).expect(0);
        assert!(answer.stderr.contains(names[0]), "{}", answer.stderr);
        let gap = gap(&path.join("out.safetensors"), "normalised");
        assert!(gap < 1e-5, "{names:?}: {gap}");
    }
}

#[test]
fn names_of_transformers_are_those_of_its_resnets() {
    let folder = folder();
    let path = folder.path();
    let (bare, _) = tensors_of_bare(path);
    let renamed = |(name, tensor): (String, (Vec<usize>, Vec<f32>))| {
        let parts: Vec<&str> = name.split('.').collect();
        let last = parts[parts.len() - 1];
        let place = |number: &str, kind: &str| {
            let number = number.parse::<usize>().expect("a number") - 1;
            format!("layer.{number}.{kind}")
        };
        let name = match parts[..] {
            ["conv1", _] => format!("resnet.embedder.embedder.convolution.{last}"),
            ["bn1", ..] => format!("resnet.embedder.embedder.normalization.{last}"),
            [stage, block, ref inside @ ..] => {
                let stage = stage.strip_prefix("layer").expect("a stage");
                let stage = stage.parse::<usize>().expect("a number") - 1;
                let inside = match inside {
                    ["downsample", "conv", ..] => "shortcut.convolution".to_owned(),
                    ["downsample", ..] => "shortcut.normalization".to_owned(),
                    [module, ..] => match module.strip_prefix("conv") {
                        Some(number) => place(number, "convolution"),
                        None => place(&module[2..], "normalization"),
                    },
                    [] => unreachable!("{name}"),
                };
                format!("resnet.encoder.stages.{stage}.layers.{block}.{inside}.{last}")
            }
            _ => unreachable!("{name}"),
        };
        (name, tensor)
    };
    let features = bare["layer4.0.conv2.weight"].0[0];
    let mut tensors: weights::Tensors = bare.into_iter().map(renamed).collect();
    tensors.insert(
        "classifier.1.weight".to_owned(),
        (vec![4, features], vec![0.1; 4 * features]),
    );
    tensors.insert("classifier.1.bias".to_owned(), (vec![4], vec![0.0; 4]));
    weights::save(&path.join("model.safetensors"), &tensors, &[]).expect("a file");
    let import = "import model.safetensors --image-size 16 -o out.safetensors --json";
    let answer = advcl(path, import).expect(0);
    let said: serde_json::Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(said["prefix"], "resnet.");
    assert_eq!(said["info"]["classes"].as_array().map(Vec::len), Some(4));
    assert_eq!(said["left_out"].as_array().map(Vec::len), Some(0), "{said}");
    let gap = gap(&path.join("out.safetensors"), "features");
    assert!(gap < 1e-5, "{gap}");
}

/// The tensors of the golden network by torchvision's names, and those of a second one.
fn tensors_of_bare(path: &Path) -> (weights::Tensors, weights::Tensors) {
    copy(&golden(), &path.join("theirs"));
    let import = "import theirs/bare.pt --image-size 16 -o ours.safetensors --replace";
    advcl(path, import).expect(0);
    let (ours, _) = weights::load(&path.join("ours.safetensors")).expect("just written");
    let tensors: weights::Tensors = ours
        .into_iter()
        .filter(|(name, _)| !name.starts_with("linear."))
        .collect();
    let mut other = tensors.clone();
    other.get_mut("conv1.weight").expect("a stem").1[0] += 1.0;
    (tensors, other)
}

#[test]
fn of_several_encoders_one_is_asked_for() {
    let folder = folder();
    let path = folder.path();
    let (one, other) = tensors_of_bare(path);
    let below = |prefix: &str, tensors: &weights::Tensors| -> weights::Tensors {
        let named =
            |(name, tensor): (&String, _)| (format!("{prefix}{name}"), Clone::clone(tensor));
        tensors.iter().map(named).collect()
    };
    let save = |name: &str, parts: [weights::Tensors; 2]| {
        let tensors = parts.into_iter().flatten().collect();
        weights::save(&path.join(name), &tensors, &[]).expect("a file");
    };
    save(
        "two.safetensors",
        [below("left.", &one), below("right.", &other)],
    );
    save(
        "same.safetensors",
        [below("model.", &one), below("attacker.model.", &one)],
    );
    save(
        "average.safetensors",
        [below("net.", &one), below("net_ema.", &other)],
    );
    let mut transcript = Transcript::new(path);
    transcript.refuse("import two.safetensors");
    transcript.refuse("import two.safetensors --prefix middle");
    transcript.run(
        "import two.safetensors --prefix right -o right.safetensors",
        0,
    );
    transcript.run("import same.safetensors -o same-out.safetensors", 0);
    transcript.run("import average.safetensors -o average-out.safetensors", 0);
    transcript.check("several_encoders");
}

/// DeACL from a teacher that PyTorch trained, on colour images of 20 × 20.
const RECIPE: &str = r#"
seed = 3

[data]
source = "shapes"

[encoder]
depth = 10
width = 2
stem = "cifar"

[threat]
norm = "linf"
radius = "8/255"

[pretrain.deacl]
teacher = "./teacher.safetensors"
attack_steps = 1
plan = { epochs = 1, batch_size = 8, lr = 0.01, momentum = 0.9, weight_decay = 5e-4, schedule.cosine = {} }

[finetune.slf]
plan = { epochs = 2, batch_size = 8, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.steps = { milestones = [] } }

[evaluate]
split = "test"
batch_size = 12
steps = 2
"#;

#[test]
fn a_teacher_from_elsewhere_teaches() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    image_folder(&path.join("shapes"), colour);
    put(path.join("deacl.toml"), RECIPE);
    let import = "import theirs/checkpoint.pth -o teacher.safetensors --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26";
    advcl(path, &format!("{import} --image-size 32")).expect(0);
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start("run deacl.toml --run run");
    transcript.check("a_teacher_for_images_of_another_size");
    advcl(path, &format!("{import} --image-size 20 --replace")).expect(0);
    advcl(path, "run deacl.toml --run run").expect(0);
    // The student began as its teacher, so it normalises its images too; so does its classifier.
    let device = device::open("cpu").expect("the CPU");
    for model in ["run/deacl", "run/deacl/slf"] {
        let file = path.join(model).join("model.safetensors");
        let model = Model::load(&file, &device).expect("a model");
        assert!(model.info.normalize.is_some(), "{}", file.display());
    }
    // One with another number of features is refused before the encoder that is made first.
    let plan =
        "plan={epochs=1,batch_size=8,lr=0.01,momentum=0.9,weight_decay=5e-4,schedule={cosine={}}}";
    let first = format!("pretrain.simclr={{temperature=0.5,{plan}}}");
    for command in ["run", "pretrain"] {
        let command =
            format!("{command} deacl.toml --run wide --set encoder.width=4 --set {first}");
        let refused = advcl(path, &command).expect(2);
        let words = "the teacher has 16 features, the encoder 32";
        assert!(refused.stderr.contains(words), "{refused}");
        assert!(!path.join("wide/simclr").exists(), "{refused}");
    }
    // A folder stands for the model in it, and a run folder has several.
    std::fs::create_dir(path.join("teacher")).expect("a folder");
    let (file, within) = ("teacher.safetensors", "teacher/model.safetensors");
    std::fs::copy(path.join(file), path.join(within)).expect("a copy");
    let by_folder = "--set pretrain.deacl.teacher=./teacher";
    let same = advcl(path, &format!("run deacl.toml --run run {by_folder}")).expect(0);
    assert!(!same.stderr.contains("epoch"), "{same}");
    let begun = format!("pretrain deacl.toml --run begun {by_folder}");
    advcl(
        path,
        &format!("{begun} --set pretrain.deacl.init=./teacher"),
    )
    .expect(0);
    let several = "pretrain deacl.toml --run several --set pretrain.deacl.teacher=./run";
    let refused = advcl(path, several).expect(2);
    assert!(
        refused
            .stderr
            .contains("name one: ./run/deacl, ./run/deacl/slf"),
        "{refused}"
    );
}

#[test]
fn weights_of_something_else_are_refused() {
    let folder = folder();
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    let whole = get(path.join("theirs/bare.pt"));
    put(path.join("cut.pt"), &whole[..whole.len() / 2]);
    put(path.join("text.pth"), "not weights");
    put(path.join("page.pth"), "<!DOCTYPE html><html>Sign in</html>");
    put(
        path.join("pointer.pth"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    );
    put(path.join("empty.pth"), "");
    put(path.join("plain.pkl"), b"\x80\x04}\x94.");
    let before_norm = |tensors: &mut weights::Tensors| {
        for name in ["layer1.0.bn1", "layer1.0.bn2"] {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                tensors.insert(format!("{name}.{part}"), (vec![2], vec![0.5; 2]));
            }
        }
        let conv = (vec![2, 2, 3, 3], vec![0.5; 36]);
        tensors.insert("layer1.0.conv1.weight".to_owned(), conv);
    };
    let change = |name: &str, change: &dyn Fn(&mut weights::Tensors)| {
        let mut tensors = weights::Tensors::new();
        tensors.insert("conv1.weight".to_owned(), (vec![2, 3, 3, 3], vec![0.5; 54]));
        change(&mut tensors);
        weights::save(&path.join(name), &tensors, &[]).expect("a writable folder");
    };
    change("stem.safetensors", &|tensors| {
        tensors.insert(
            "conv1.weight".to_owned(),
            (vec![2, 3, 7, 7], vec![0.5; 294]),
        );
    });
    change("blocks.safetensors", &|_| {});
    change("wide.safetensors", &|tensors| {
        tensors.insert(
            "conv1.weight".to_owned(),
            (vec![2000, 3, 3, 3], vec![0.5; 54_000]),
        );
        for stage in 1..=4 {
            let name = format!("layer{stage}.0.conv1.weight");
            tensors.insert(name, (vec![2, 2, 3, 3], vec![0.5; 36]));
        }
        tensors.insert("bn1.weight".to_owned(), (vec![2], vec![0.5; 2]));
    });
    change("other.safetensors", &|tensors| {
        let stem = tensors.remove("conv1.weight").expect("just put in");
        tensors.insert("patch_embed.weight".to_owned(), stem);
    });
    change("preact.safetensors", &before_norm);
    change("parameters.safetensors", &|tensors| {
        before_norm(tensors);
        tensors.insert("bn1.weight".to_owned(), (vec![2], vec![0.5; 2]));
        tensors.retain(|name, _| !name.contains("running"));
    });
    let mut transcript = Transcript::new(path);
    for command in [
        "import nowhere.pt",
        "import cut.pt",
        "import text.pth",
        "import page.pth",
        "import pointer.pth",
        "import empty.pth",
        "import plain.pkl",
        "import preact.safetensors",
        "import parameters.safetensors",
        "import stem.safetensors",
        "import blocks.safetensors",
        "import other.safetensors",
        "import theirs/bare.pt --route pgd",
        "import theirs/bare.pt --route pdg",
        "import theirs/bare.pt --mean 0.5 --std 0.2",
        "import theirs/bare.pt --mean 0.5,0.5,0.5 --std 0.2,0,0.2",
        "import theirs/bare.pt --image-size 0",
        "import theirs/bare.pt --image-size 16 5000",
        "import wide.safetensors",
    ] {
        transcript.refuse(command);
    }
    transcript.check("weights_of_something_else");
}
