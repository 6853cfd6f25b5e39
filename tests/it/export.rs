//! Models for other programs: what is said of an export, what is in it, and refusals.

use std::path::Path;

use advcl::device;
use advcl::export::{ExportFormat, ExportSettings, Notes, OnnxInput, export};
use advcl::nn::Route;
use advcl::run::Model;
use advcl::weights;

use crate::{Transcript, advcl, copy, folder, folder_after, get, put};

fn golden() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/import")
}

#[test]
fn every_format_is_written_compared_and_said() {
    let folder = folder_after("run supervised.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.run("export run/advcl/slf --format onnx", 0);
    for command in [
        "export run/advcl/slf --format torchvision",
        "export run/advcl/slf --format safetensors",
        "export run/advcl --format onnx --features --input uint8 -o encoder.onnx",
        "export run/advcl/slf/model.safetensors --format safetensors --features --route normal",
        "export run/adversarial-training --format onnx --quiet",
        "export run/simclr/slf --format onnx --route normal -o other.onnx",
        "export run/advcl/slf --format onnx --route normal -o other.onnx --replace",
    ] {
        transcript.run(command, 0);
    }
    transcript
        .add_shape(&advcl(path, "export run/advcl/slf --format onnx -o j.onnx --json").expect(0));
    transcript.check("export");
    // One branch of the model's, predicting as the model does.
    let predictions = |model: &str| {
        let answer = advcl(path, &format!("predict {model} image.png --json")).expect(0);
        let answer = answer.json();
        let classes = answer[0]["classes"].as_array().expect("classes").clone();
        let logits = classes
            .iter()
            .map(|class| class["logit"].as_f64().expect("a number"));
        logits.collect::<Vec<_>>()
    };
    put(path.join("image.png"), crate::png(28, &[130; 784]));
    let (whole, alone) = (
        predictions("run/advcl/slf"),
        predictions("advcl-slf-exported.safetensors"),
    );
    assert!(
        whole.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5),
        "{whole:?} {alone:?}"
    );
    let sizes = [
        "run/advcl/slf/model.safetensors",
        "advcl-slf-exported.safetensors",
    ];
    let [before, after] = sizes.map(|file| get(path.join(file)).len());
    assert!(
        after < before,
        "heads and branches are left out: {after} of {before} bytes"
    );
}

#[test]
fn a_state_dict_is_imported_again_and_whole() {
    let folder = folder();
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    let numbers = "--mean 0.49,0.48,0.45 --std 0.25,0.24,0.26";
    advcl(
        path,
        &format!("import theirs/bare.pt --image-size 16 {numbers} -o m.safetensors"),
    )
    .expect(0);
    let mut transcript = Transcript::new(path);
    transcript.run("export m.safetensors --format torchvision --features", 0);
    transcript.check("export_of_an_import");
    let file = path.join("m-features-torchvision.safetensors");
    let (tensors, metadata) = weights::load(&file).expect("an export");
    // As PyTorch saved it, counters and all, but for the classifier.
    assert_eq!(tensors["bn1.num_batches_tracked"], (vec![], vec![0.0]));
    assert!(tensors.contains_key("layer2.0.downsample.1.running_var"));
    let normalize = &metadata["normalize"];
    assert!(
        normalize.contains("0.49") && normalize.contains("0.26"),
        "{normalize}"
    );
    advcl(path, &format!("import m-features-torchvision.safetensors --image-size 16 {numbers} -o again.safetensors"))
        .expect(0);
    let (first, _) = weights::load(&path.join("m.safetensors")).expect("a model");
    let (again, _) = weights::load(&path.join("again.safetensors")).expect("a model");
    // The classifier stayed behind: --features.
    let encoder = |mut tensors: weights::Tensors| {
        tensors.retain(|name, _| !name.starts_with("linear."));
        tensors
    };
    assert!(
        encoder(first) == encoder(again),
        "weights changed on the way"
    );
}

#[test]
fn bytes_and_floats_give_the_same_and_other_weights_do_not() {
    let folder = folder_after("run supervised.toml --run run");
    let path = folder.path().join("run/advcl/slf/model.safetensors");
    let device = device::open("cpu").expect("the CPU");
    let model = Model::load(&path, &device).expect("a model");
    let exported = |input, route| {
        let settings = ExportSettings {
            format: ExportFormat::Onnx,
            features: false,
            route: Some(route),
            input,
        };
        export(&model, &path, &device, &settings, &Notes::default(), None).expect("an export")
    };
    let [bytes, floats] =
        [OnnxInput::Uint8, OnnxInput::Float].map(|input| exported(input, Route::Pgd));
    assert!(bytes.verified.largest_difference < 1e-5 && floats.verified.largest_difference < 1e-5);
    assert!(bytes.content != floats.content);
    let other = exported(OnnxInput::Float, Route::Normal);
    assert!(
        other.content != floats.content,
        "another branch has other weights"
    );
}

#[test]
fn what_cannot_be_exported_is_refused_with_a_way_out() {
    let folder = folder_after("run supervised.toml --run run");
    let path = folder.path();
    copy(&golden(), &path.join("theirs"));
    put(path.join("advcl-slf.onnx"), "precious");
    put(path.join("text.safetensors"), "no weights");
    let mut transcript = Transcript::new(path);
    for command in [
        "export run/advcl --format onnx",
        "export run --format onnx",
        "export run/advcl/slf --format onnx",
        "export run/advcl/slf --format safetensors -o run/advcl/slf/model.safetensors --replace",
        "export run/advcl/slf --format safetensors -o run --replace",
        "export run/simclr/slf --format onnx --route pgd",
        "export run/advcl/slf --format onnx --route fast",
        "export run/advcl/slf --format tflite",
        "export run/advcl/slf",
        "export nowhere --format onnx",
        "export text.safetensors --format onnx",
        "export theirs/bare.pt --format onnx",
        "export theirs/expected.safetensors --format onnx",
    ] {
        transcript.refuse(command);
    }
    transcript.check("what_cannot_be_exported");
}
