//! Weights that PyTorch wrote, imported as encoders: the same features, and refusals of other
//! files.

use std::path::{Path, PathBuf};

use advcl::device;
use advcl::nn::{FrozenEncoder, Route};
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
    let device = device::open("cpu").expect("the CPU");
    let (tensors, _) =
        weights::load(&golden().join("expected.safetensors")).expect("a golden file");
    let (shape, values) = tensors["images"].clone();
    let data = TensorData::new(values, [shape[0], shape[1], shape[2], shape[3]]);
    let model = Model::load(path, &device).expect("just written");
    let encoder = FrozenEncoder::new(&model.backbone.encoder, Route::Normal);
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
    for file in ["bare.pt", "checkpoint.pth"] {
        let command =
            format!("import theirs/{file} --image-size 16 -o plain.safetensors --replace");
        transcript.run(&command, 0);
        let gap = gap(&path.join("plain.safetensors"), "features");
        assert!(gap < 1e-5, "{file}: {gap}");
    }
    let json = "import theirs/checkpoint.pth -o x.safetensors --json";
    transcript.add_shape(&advcl(path, json).expect(0));
    transcript.check("import");

    let normalised =
        "import theirs/bare.pt --image-size 16 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26";
    advcl(path, &format!("{normalised} -o normalised.safetensors")).expect(0);
    let gap = gap(&path.join("normalised.safetensors"), "normalised");
    assert!(gap < 1e-5, "{gap}");
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
}

#[test]
fn weights_of_something_else_are_refused() {
    let folder = folder();
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    let whole = get(path.join("theirs/bare.pt"));
    put(path.join("cut.pt"), &whole[..whole.len() / 2]);
    put(path.join("text.pth"), "not weights");
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
    let mut transcript = Transcript::new(path);
    for command in [
        "import nowhere.pt",
        "import cut.pt",
        "import text.pth",
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
