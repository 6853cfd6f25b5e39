//! Self-test: compares the numbers that a device computes with golden vectors, computed by PyTorch
//! in float64. `golden/README.md` describes the files.

mod attacks;
mod batch_norm;
mod boxes;
mod golden;
mod methods;
mod network;
mod shards;
mod step;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use crate::error::{Error, Result};
use golden::Golden;

/// Relative error allowed in outputs and losses.
const OUTPUT: f64 = 1e-4;
/// Relative error allowed in gradients and updated parameters.
const GRADIENT: f64 = 1e-3;
/// Absolute error allowed in an attack's next iterate.
const ITERATE: f64 = 1e-6;
/// Relative error allowed in the final loss of an attack that ran freely.
const TRAJECTORY: f64 = 0.02;
/// Largest number of tries of a check.
const TRIES: u64 = 48;

/// Makes the table of checks from one line for each: the name in a file's metadata, the function,
/// and whether it computes gradients of the network, see [`check_file`].
macro_rules! checks {
    ($($name:literal, $compute:path, $kinks:literal;)*) => {
        const CHECKS: &[KnownCheck] = &[
            $(KnownCheck {
                name: $name,
                embedded: include_bytes!(concat!("../../golden/rgb20/", $name, ".safetensors")),
                compute: $compute,
                kinks: $kinks,
            },)*
        ];
    };
}

checks! {
    "high_frequency", step::high_frequency, false;
    "contrastive_loss", step::contrastive_loss, false;
    "class_losses", step::class_losses, false;
    "encoder", network::encoder, true;
    "imagenet_stem", network::encoder, true;
    "advcl_step", network::advcl_step, true;
    "pgd20", network::pgd20, true;
    "shards", shards::shards, true;
    "kmeans", step::kmeans, false;
    "transforms", step::transforms, false;
    "acl", methods::acl, true;
    "rocl", methods::rocl, true;
    "deacl", methods::deacl, false;
    "lars", methods::lars, false;
    "dynacl", methods::dynacl, false;
    "apgd", attacks::apgd, false;
    "fab_projection", boxes::fab_projection, false;
    "square_step", boxes::square_step, false;
}

/// A check that this program knows.
struct KnownCheck {
    name: &'static str,
    /// Vectors of an odd image size, in colour, with width 2, written by the scripts in `golden/`.
    embedded: &'static [u8],
    compute: fn(&mut Golden) -> Result<()>,
    /// Whether a rounding error may flip a ReLU and so change a gradient.
    kinks: bool,
}

impl KnownCheck {
    fn find(name: &str) -> Option<&'static Self> {
        CHECKS.iter().find(|check| check.name == name)
    }
}

/// A quantity that was compared with its golden value.
#[derive(Clone, Debug, Serialize)]
pub struct Quantity {
    /// Name of the golden tensor, or of a group of them.
    pub name: String,
    /// Relative error, unless the name says otherwise; infinite for values that are not finite.
    pub error: f64,
    /// Largest error that passes.
    pub tolerance: f64,
}

/// Outcome of the check of one golden file.
#[derive(Clone, Debug, Serialize)]
pub struct GoldenCheck {
    /// The file's folder.
    pub folder: String,
    /// Name of the check in the file's metadata.
    pub name: String,
    /// All quantities that were compared.
    pub quantities: Vec<Quantity>,
    /// Number of tries: gradients near a kink of the network may need several.
    pub tries: u64,
}

impl GoldenCheck {
    /// The quantity with the largest error relative to its tolerance.
    pub fn worst(&self) -> Option<&Quantity> {
        let used = |q: &&Quantity| q.error / q.tolerance;
        self.quantities
            .iter()
            .max_by(|a, b| used(a).total_cmp(&used(b)))
    }

    /// Whether all quantities are within tolerance.
    pub fn passed(&self) -> bool {
        self.quantities.iter().all(|q| q.error <= q.tolerance)
    }
}

/// Runs every check of each of `folders`, or of the embedded vectors and BatchNorm's if there are none;
/// `on_check` gets each check when it is done.
///
/// # Errors
/// [`Error::SelfTest`] when a quantity is out of tolerance; [`Error::Io`] and [`Error::Format`] for
/// folders that cannot be read.
pub fn run(
    folders: &[PathBuf],
    device: &Device,
    mut on_check: impl FnMut(&GoldenCheck),
) -> Result<()> {
    let mut files = Vec::new();
    for folder in folders {
        files.extend(golden::read_folder(folder)?);
    }
    if folders.is_empty() {
        for check in CHECKS {
            let path = Path::new("embedded").join(format!("{}.safetensors", check.name));
            files.push(Golden::parse(check.embedded, path)?);
        }
    }
    let computed = folders.is_empty().then(|| batch_norm::check(device));
    let (mut failed, total) = (0, files.len() + computed.iter().len());
    let checks = files.into_iter().map(|file| check_file(file, device));
    for check in checks.chain(computed.map(Ok)) {
        let check = check?;
        failed += usize::from(!check.passed());
        on_check(&check);
    }
    if failed > 0 {
        return Err(Error::SelfTest { failed, total });
    }
    Ok(())
}

/// Runs the check of one file.
///
/// A gradient jumps where a ReLU's input crosses zero, and among the millions of them in a golden
/// step some lie within a rounding error of it: there, float32 lands on either side in any program
/// (PyTorch's own float32 misses `grad_ce.3` and `train.normal.grad.input` of the published `rgb32`
/// vectors by 5e-3 and 4e-3). So a check that fails is repeated with its images changed by one
/// rounding error each, and each quantity keeps its best try: a wrong computation is wrong in all
/// of them. The tolerances do not change.
fn check_file(mut file: Golden, device: &Device) -> Result<GoldenCheck> {
    let Some(known) = KnownCheck::find(&file.check) else {
        let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        let expected = format!("one of {}", names.join(", "));
        let found = format!("{:?}", file.check);
        return Err(Error::format(&file.path, "metadata check", expected, found));
    };
    file.device = device.clone();
    let mut tries = 0;
    while tries == 0 || known.kinks && tries < TRIES && !file.passed() {
        file.jitter = tries;
        (known.compute)(&mut file)?;
        tries += 1;
    }
    let folder = file.path.parent().unwrap_or(Path::new("."));
    Ok(GoldenCheck {
        folder: folder.display().to_string(),
        name: file.check,
        quantities: file.quantities,
        tries,
    })
}
