//! Pretrains an encoder with AdvCL on a folder of images without labels, and looks for similar images with it:
//! `cargo run --release --example pretrain_on_a_folder -- IMAGES [RUN]`.
//!
//! IMAGES holds PNG or JPEG files of one size, 64 of them or more. Without it some are drawn. RUN is the run folder, a
//! temporary one where it is left out; the same command continues there what was interrupted.
//!
//! The recipe is `smoke` with a few epochs, so that this takes seconds. For use, begin with `quickstart` or a recipe
//! of your own; `advcl recipe keys` prints what can be set.

use std::error::Error;
use std::path::{Path, PathBuf};

use advcl::data::{image_files, read_images};
use advcl::nn::FrozenEncoder;
use advcl::session::Event;
use advcl::tensor::{to_tensor, to_vec};
use advcl::{Context, Experiment, Model, Recipe};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let images = match args.next() {
        Some(folder) => folder,
        None => draw_images(&temporary.path().join("images"))?,
    };
    let run = args.next().unwrap_or_else(|| temporary.path().join("run"));

    // A value in braces replaces the whole table: no limit to the number of images.
    let data = format!("data = {{ source = {:?} }}", images.display().to_string());
    let changes = [data, "threat.radius = '8/255'".to_owned()];
    let recipe = Recipe::load("smoke", &changes)?;
    let experiment = Experiment::open(recipe, &run)?;
    let mut context = Context::cpu()?.observed(|event| {
        if let Event::Epoch {
            stage,
            epoch,
            epochs,
            losses,
            ..
        } = event
        {
            let losses = losses
                .iter()
                .map(|(name, loss)| format!("{name} {loss:.2}"));
            let losses = losses.collect::<Vec<_>>().join(", ");
            println!("{stage}, epoch {epoch} of {epochs}: {losses}");
        }
    });
    // AdvCL needs pseudo-labels, and these an encoder by SimCLR: they are made first.
    experiment.pretrain(Some("advcl"), &mut context)?;

    let path = experiment.encoder_path("advcl");
    println!("encoder: {}", path.display());
    let model = Model::load(&path, &context.device)?;
    print_similar(&model, &images, &context)?;
    Ok(())
}

/// Prints the images whose features point most nearly in the direction of the first image's.
fn print_similar(model: &Model, folder: &Path, context: &Context) -> Result<(), Box<dyn Error>> {
    let [height, width] = model.info.image_size;
    let shape = [model.info.channels, height, width];
    let files = image_files(&[folder.to_path_buf()])?;
    let found = read_images(&files, shape, &model.info.reading)?;
    let (files, images) = (found.files, found.images);
    let encoder = FrozenEncoder::new(&model.backbone.encoder, model.info.route);
    let all: Vec<usize> = (0..images.len()).collect();
    let mut features: Vec<Vec<f32>> = Vec::new();
    for batch in all.chunks(100) {
        let found = encoder.features(to_tensor(images.batch(batch), &context.device));
        let [_, length] = found.dims();
        features.extend(to_vec(found).chunks(length).map(<[f32]>::to_vec));
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let mut similar: Vec<(f32, usize)> = (1..images.len())
        .map(|other| (cosine(&features[0], &features[other]), other))
        .collect();
    similar.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("most similar to {}:", files[0].display());
    for (cosine, image) in similar.into_iter().take(5) {
        println!("  {cosine:.3}  {}", files[image].display());
    }
    Ok(())
}

/// Draws discs, stripes and checkerboards in random colours, 32 of each kind.
fn draw_images(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    for number in 0..96u64 {
        let mut random = advcl::random::generator(0, "example", number);
        let mut draw = || rand::RngExt::random_range(&mut random, 0..=255u8);
        let (front, back) = ([draw(), draw(), draw()], [draw(), draw(), draw()]);
        let (x0, y0, size) = (10 + draw() % 12, 10 + draw() % 12, 3 + draw() % 6);
        let (kind, is_front): (_, &dyn Fn(u8, u8) -> bool) = match number % 3 {
            0 => ("disc", &|x, y| {
                let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
                square(x, x0) + square(y, y0) <= u32::from(size).pow(2)
            }),
            1 => ("stripes", &|x, _| (x / size) % 2 == 0),
            _ => ("checkers", &|x, y| (x / size + y / size) % 2 == 0),
        };
        let picture = image::RgbImage::from_fn(32, 32, |x, y| {
            image::Rgb(if is_front(x as u8, y as u8) {
                front
            } else {
                back
            })
        });
        picture.save(folder.join(format!("{kind}-{number:02}.png")))?;
    }
    Ok(folder.to_path_buf())
}
