//! Images corrupted in every way, as safetensors, for `scripts/check_corruptions.py`:
//! `cargo run --release --example corrupt -- DATA IMAGES SEED FILE.safetensors`.
//!
//! The first test images as they are (`clean`) and corrupted (`KIND/SEVERITY`): uint8, `[images, channels, height, width]`.

use std::error::Error;

use advcl::data::corrupt::{KINDS, SEVERITIES, corrupt};
use advcl::data::load;
use safetensors::tensor::{Dtype, TensorView};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, count, seed, file] = &args[..] else {
        return Err("expected DATA IMAGES SEED FILE".into());
    };
    let images = load(data)?.test.images;
    let indices: Vec<usize> = (0..images.len().min(count.parse()?)).collect();
    let seed = seed.parse()?;
    let mut all = vec![("clean".to_owned(), images.select(&indices))];
    for kind in KINDS {
        for severity in 1..=SEVERITIES {
            let made = corrupt(&images, &indices, kind, severity, seed)?;
            all.push((format!("{}/{severity}", kind.0), made));
        }
    }
    let values: Vec<Vec<u8>> = all.iter().map(|(_, images)| images.pixels()).collect();
    let mut views = Vec::new();
    for ((name, images), values) in all.iter().zip(&values) {
        let shape = vec![images.len(), images.channels, images.height, images.width];
        views.push((name, TensorView::new(Dtype::U8, shape, values)?));
    }
    std::fs::write(file, safetensors::serialize(views, None)?)?;
    Ok(())
}
