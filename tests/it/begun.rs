//! Pretraining that begins at weights that are there already: `init`, and the pull towards them.

use std::path::Path;

use advcl::nn::{Mode, Normalize, Route};
use advcl::pretrain::Start;
use advcl::run::Model;
use advcl::tensor::to_vec;
use advcl::weights;
use burn::tensor::{Tensor, TensorData};

use crate::{Transcript, advcl, copy, device, folder_after, get, put};

const ADVCL: &str = "run/advcl/model.safetensors";

fn load(path: &Path) -> Model {
    Model::load(path, &device()).expect("a model")
}

/// One step of no size: weights stay, statistics follow the batch.
fn unmoved(method: &str) -> String {
    let plan = "{epochs=1,batch_size=64,lr=0.0,momentum=0.0,weight_decay=0.0,schedule.cosine={}}";
    format!("--set pretrain.{method}.plan={plan}")
}

#[test]
fn every_route_begins_as_the_one_that_the_model_uses() {
    let folder = folder_after("run tiny.toml --run run");
    let mut model = load(&folder.path().join(ADVCL));
    assert_eq!(model.info.route, Route::Pgd);
    let normalize = Normalize::new(vec![0.3], vec![0.2]).expect("possible");
    model.backbone.encoder = model.backbone.encoder.normalized(Some(normalize));
    let values: Vec<f32> = (0..4 * 784).map(|i| (i % 97) as f32 / 97.0).collect();
    let images = Tensor::<4>::from_data(TensorData::new(values, [4, 1, 28, 28]), &device());
    let features = |encoder: &advcl::nn::Encoder, route| {
        to_vec(encoder.features(images.clone(), route, &mut Mode::Eval))
    };
    let expected = features(&model.backbone.encoder, Route::Pgd);
    // The routes of the file differ, so that another one would be seen.
    assert!(expected != features(&model.backbone.encoder, Route::Normal));
    let start = Start {
        model: &model,
        pull: 0.0,
    };
    for routes in 1..=3 {
        let begun = start.encoder(routes);
        assert_eq!(begun.normalize(), model.backbone.encoder.normalize());
        for route in &Route::ALL[..routes] {
            assert!(features(&begun, *route) == expected, "{routes}, {route:?}");
        }
    }
}

#[test]
fn a_run_begins_at_the_weights_of_a_file() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let (given, _) = weights::load(&path.join(ADVCL)).expect("a model");
    let common = format!("--set pretrain.advcl.init={ADVCL} --set pretrain.advcl.clusters=[]");
    let run = format!("pretrain tiny.toml --method advcl --run second {common}");
    advcl(path, &format!("{run} {}", unmoved("advcl"))).expect(0);
    let (begun, _) = weights::load(&path.join("second/advcl/model.safetensors")).expect("a model");
    let (mut branches, mut others) = (0, 0);
    for (name, (_, values)) in &begun {
        if name.contains("running_") || name.starts_with("head_proj") || name.starts_with("fc_") {
            continue;
        }
        let branch = (0..3).find(|branch| name.contains(&format!("bn_list.{branch}.")));
        let from = branch.map_or(name.clone(), |branch| {
            name.replace(&format!("bn_list.{branch}."), "bn_list.1.")
        });
        assert!(*values == given[&from].1, "{name} is not {from}");
        match branch {
            Some(_) => branches += 1,
            None => others += 1,
        }
    }
    assert_eq!((branches, others), (2 * 3 * 12, 12));
    assert!(
        begun["head_proj.0.weight"] != given["head_proj.0.weight"],
        "the head is a fresh one"
    );
}

#[test]
fn it_is_said_where_a_training_began() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    copy(&path.join("run/advcl/slf"), &path.join("given"));
    let mut transcript = Transcript::new(path);
    let init = "--set pretrain.simclr.init=given/model.safetensors --set pretrain.simclr.pull=0.5";
    transcript.run(&format!("run simclr.toml --run second {init}"), 0);
    transcript.check("it_is_said_where_a_training_began");
    let words = "given/model.safetensors (advcl, route pgd)";
    for file in ["simclr/model.safetensors", "simclr/slf/model.safetensors"] {
        let model = load(&path.join("second").join(file));
        assert_eq!(model.info.start.as_deref(), Some(words), "{file}");
    }
    let about = String::from_utf8(get(path.join("second/run.json"))).expect("UTF-8");
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    assert_eq!(about["starts"]["simclr"], words);
    advcl(path, "report second -o page.html").expect(0);
    let page = String::from_utf8(get(path.join("page.html"))).expect("UTF-8");
    assert!(page.contains("SimCLR starts at") && page.contains(words));
    // A fork knows it too; a run that begins at random weights says nothing.
    advcl(path, "fork second third").expect(0);
    let about = String::from_utf8(get(path.join("third/run.json"))).expect("UTF-8");
    assert!(about.contains(words), "{about}");
    let about = String::from_utf8(get(path.join("run/run.json"))).expect("UTF-8");
    assert!(!about.contains("starts"), "{about}");
    // The term is in the log under its own name, near -1: the training is short and begins there.
    let log = String::from_utf8(get(path.join("second/metrics.jsonl"))).expect("UTF-8");
    let pulls: Vec<f64> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["event"] == "epoch" && line["stage"] == "simclr")
        .map(|line| {
            let losses = line["losses"].as_array().expect("losses").iter();
            let mut pulls = losses.filter(|loss| loss[0] == "pull");
            pulls.next().expect("the term")[1]
                .as_f64()
                .expect("a number")
        })
        .collect();
    assert_eq!(pulls.len(), 2);
    assert!(
        pulls.iter().all(|pull| (-1.0..-0.5).contains(pull)),
        "{pulls:?}"
    );
}

#[test]
fn a_file_counts_by_its_content() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let (simclr, advcl_model) = (
        get(path.join("run/simclr/model.safetensors")),
        get(path.join(ADVCL)),
    );
    put(path.join("a.safetensors"), &simclr);
    put(path.join("moved/b.safetensors"), &simclr);
    let run = |init: &str| {
        let set = format!("--set pretrain.simclr.init={init}");
        format!("run simclr.toml --run second {set}")
    };
    advcl(path, &run("./a.safetensors")).expect(0);
    let before = get(path.join("second/simclr/model.safetensors"));
    let again = advcl(path, &run("moved/b.safetensors")).expect(0);
    assert!(
        !again.stderr.contains("simclr"),
        "nothing is to be done:\n{again}"
    );
    assert!(before == get(path.join("second/simclr/model.safetensors")));
    put(path.join("a.safetensors"), &advcl_model);
    let checked = advcl(
        path,
        "check second --set pretrain.simclr.init=./a.safetensors",
    );
    let words = "the file that pretrain.simclr.init names has another content";
    assert!(checked.stdout.contains(words), "{checked}");
    let changed = advcl(path, &run("./a.safetensors")).expect(0);
    assert!(changed.stderr.contains(words), "{changed}");
    assert!(before != get(path.join("second/simclr/model.safetensors")));
}

#[test]
fn another_method_of_the_recipe_is_a_beginning_too() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let begun = |simclr: &str| {
        let set = format!("--set pretrain.advcl.init=simclr {simclr}");
        advcl(path, &format!("run tiny.toml --run run {set}")).expect(0)
    };
    let first = begun("");
    let words = "starts at the weights of simclr (route normal)";
    assert!(first.stderr.contains(words), "{first}");
    assert!(!begun("").stderr.contains("starts at"));
    // What the first encoder depends on, the second does too.
    let again = begun("--set pretrain.simclr.temperature=0.25");
    assert!(again.stderr.contains(words), "{again}");
}

#[test]
fn beginnings_that_cannot_be() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let given = path.join(ADVCL);
    put(path.join("text.pth"), "no weights");
    let (mut tensors, metadata) = weights::load(&given).expect("a model");
    weights::save(&path.join("foreign.safetensors"), &tensors, &[]).expect("a file");
    tensors.get_mut("conv1.weight").expect("a stem").1[3] = f32::NAN;
    let info = [("advcl", metadata["advcl"].clone())];
    weights::save(&path.join("nan.safetensors"), &tensors, &info).expect("a file");
    let mut transcript = Transcript::new(path);
    let run = "run simclr.toml --run second --set pretrain.simclr";
    for set in [
        ".init=nowhere.safetensors".to_owned(),
        ".init=text.pth".to_owned(),
        ".init=foreign.safetensors".to_owned(),
        ".init=nan.safetensors".to_owned(),
        format!(".init={ADVCL} --set encoder.width=3"),
        format!(".init={ADVCL} --set encoder.depth=18 --set encoder.stem=cifar"),
    ] {
        transcript.refuse_after_a_start(&format!("{run}{set}"));
    }
    for set in [
        ".init=advcl",
        ".init=simclr",
        ".init=3",
        ".pull=1.0",
        ".pull=-1.0 --set pretrain.simclr.init=./a.b",
        ".pull=much",
        ".pul=1.0",
    ] {
        transcript.refuse(&format!("{run}{set}"));
    }
    transcript.note("A method that begins at an encoder of its own choice.");
    let plan = "{epochs=1,batch_size=16,lr=0.1,momentum=0.9,weight_decay=0.0,schedule.cosine={}}";
    transcript.refuse(&format!(
        "run simclr.toml --run second --set pretrain.'dynacl++'={{encoder='./a.b',init='./a.b',clusters=3,beta=6.0,attack_steps=2,head_plan={plan},plan={plan}}}"
    ));
    let recipe = String::from_utf8(get(path.join("simclr.toml"))).expect("UTF-8");
    let at = "[pretrain.simclr]\n";
    transcript.note("In a file, with line and column.");
    for line in ["inti = \"a.b\"", "pull = true"] {
        put(
            path.join("wrong.toml"),
            recipe.replace(at, &format!("{at}{line}\n")),
        );
        transcript.refuse("recipe check wrong.toml");
    }
    transcript.check("beginnings_that_cannot_be");
}
