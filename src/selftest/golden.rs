//! A golden file: its tensors, its constants, and the quantities that were compared with it.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;

use super::Quantity;
use crate::error::{Error, Result};
use crate::files;
use crate::random;
use crate::run::require_values;
use crate::tensor::to_vec;
use crate::weights::{self, Tensors};

/// One file, and the quantities that were compared so far.
pub struct Golden {
    pub path: PathBuf,
    pub check: String,
    pub params: serde_json::Value,
    pub tensors: Tensors,
    pub device: Device,
    pub quantities: Vec<Quantity>,
    /// Seed of rounding errors that are added to images; none for 0. See [`super::check_file`].
    pub jitter: u64,
}

/// Reads all golden files of a folder, in the order of their names.
pub fn read_folder(folder: &Path) -> Result<Vec<Golden>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        let found = "no such file";
        return Err(Error::format(
            folder,
            "golden vectors",
            "*.safetensors files",
            found,
        ));
    }
    paths.sort();
    let read = |path: PathBuf| {
        let content = files::read(&path)?;
        Golden::parse(&content, path)
    };
    paths.into_iter().map(read).collect()
}

impl Golden {
    /// Reads a file's content.
    pub fn parse(content: &[u8], path: PathBuf) -> Result<Self> {
        let (tensors, metadata) = weights::parse(content, &path)?;
        let entry = |key: &str| {
            metadata.get(key).cloned().ok_or_else(|| {
                Error::format(&path, "metadata", format!("an entry {key:?}"), "none")
            })
        };
        let (check, params) = (entry("check")?, entry("params")?);
        let params = serde_json::from_str(&params)
            .map_err(|error| Error::format(&path, "metadata params", "JSON", error.to_string()))?;
        Ok(Self {
            path,
            check,
            params,
            tensors,
            device: Device::default(),
            quantities: Vec::new(),
            jitter: 0,
        })
    }

    /// The error of a file that is no golden one.
    pub fn broken(&self, place: String, expected: &str, found: String) -> Error {
        Error::format(&self.path, place, expected, found)
    }

    /// A number among the constants.
    pub fn number(&self, key: &str) -> Result<f64> {
        let value = &self.params[key];
        let place = format!("params {key}");
        value
            .as_f64()
            .ok_or_else(|| self.broken(place, "a number", value.to_string()))
    }

    /// A whole number, 1 or more, among the constants.
    pub fn count(&self, key: &str) -> Result<usize> {
        let value = self.number(key)?;
        if value.fract() == 0.0 && (1.0..1e6).contains(&value) {
            return Ok(value as usize);
        }
        Err(self.broken(
            format!("params {key}"),
            "a whole number from 1",
            value.to_string(),
        ))
    }

    /// A list of whole numbers among the constants.
    pub fn numbers(&self, key: &str) -> Result<Vec<usize>> {
        let value = &self.params[key];
        let list = value.as_array().and_then(|list| {
            list.iter()
                .map(|v| v.as_u64().map(|v| v as usize))
                .collect::<Option<Vec<_>>>()
        });
        let place = format!("params {key}");
        list.ok_or_else(|| self.broken(place, "a list of whole numbers", value.to_string()))
    }

    /// The error of a tensor whose shape is not the one that the check needs.
    pub fn misshapen(&self, name: &str, expected: &str, shape: &[usize]) -> Error {
        self.broken(format!("tensor {name}"), expected, format!("{shape:?}"))
    }

    fn get(&self, name: &str) -> Result<&(Vec<usize>, Vec<f32>)> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| self.broken("tensors".to_owned(), name, "no such tensor".to_owned()))
    }

    /// Shape and values of a tensor.
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.get(name).cloned()
    }

    /// Shape of a tensor that must have `D` axes, none of them empty.
    pub fn dims<const D: usize>(&self, name: &str) -> Result<[usize; D]> {
        let (shape, _) = self.get(name)?;
        match <[usize; D]>::try_from(shape.as_slice()) {
            Ok(dims) if !dims.contains(&0) => Ok(dims),
            _ => Err(self.misshapen(name, &format!("{D} axes, none empty"), shape)),
        }
    }

    /// Values of a tensor that must have the given shape.
    pub fn shaped(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (found, values) = self.get(name)?;
        if found != shape {
            return Err(self.misshapen(name, &format!("{shape:?}"), found));
        }
        Ok(values.clone())
    }

    /// Values of a tensor to hold `ours` against, which must be as many. Where there are none of ours, this program is at fault, not
    /// the file: the comparison fails.
    pub fn values_for(&self, name: &str, ours: &[f32]) -> Result<Vec<f32>> {
        let (shape, values) = self.get(name)?;
        if values.len() != ours.len() && !ours.is_empty() {
            return Err(self.misshapen(name, &format!("{} values", ours.len()), shape));
        }
        Ok(values.clone())
    }

    /// Refuses logits or their weights of fewer classes than the targeted difference of logits ratio compares.
    pub fn require_classes(&self, name: &str, classes: usize) -> Result<()> {
        const COMPARED: usize = 4;
        if classes >= COMPARED {
            return Ok(());
        }
        let (shape, _) = self.get(name)?;
        Err(self.misshapen(name, &format!("{COMPARED} classes or more"), shape))
    }

    /// A tensor of a known rank, see [`Golden::tensor_of`].
    pub fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>> {
        self.tensor_of(name, self.dims(name)?)
    }

    /// A tensor of a known shape. Images (four dimensions) get rounding errors by
    /// [`Golden::jitter`].
    pub fn tensor_of<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>> {
        let mut values = self.shaped(name, &shape)?;
        if D == 4 && self.jitter > 0 {
            let mut rng = random::generator(self.jitter, name, 0);
            for value in &mut values {
                *value *= 1.0 + f32::EPSILON * rng.random_range(-1..=1) as f32;
            }
        }
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            &self.device,
        ))
    }

    /// A tensor of labels, `[count]`, each below `classes`.
    pub fn labels(&self, name: &str, count: usize, classes: usize) -> Result<Tensor<1, Int>> {
        let (_, values) = self.values(name)?;
        let valid = |v: &f32| v.fract() == 0.0 && (0.0..classes as f32).contains(v);
        if values.len() != count || !values.iter().all(valid) {
            let expected = format!("{count} whole numbers below {classes}");
            let found = format!("{} values, {values:?}", values.len());
            return Err(self.broken(format!("tensor {name}"), &expected, found));
        }
        let labels: Vec<usize> = values.iter().map(|&v| v as usize).collect();
        Ok(crate::tensor::label_tensor(&labels, &self.device))
    }

    /// The part of each name that follows `prefix`, for the tensors whose names start with it.
    pub fn suffixes(&self, prefix: &str) -> Vec<String> {
        self.tensors
            .keys()
            .filter_map(|name| name.strip_prefix(prefix))
            .map(str::to_owned)
            .collect()
    }

    /// The suffixes that [`Golden::suffixes`] finds, which must be one at least: a comparison with none would pass.
    pub fn some_suffixes(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.suffixes(prefix);
        if found.is_empty() {
            let (place, found) = ("tensors".to_owned(), "no such tensor".to_owned());
            return Err(self.broken(place, &format!("{prefix}*"), found));
        }
        Ok(found)
    }

    /// Puts the tensors `weight.*` into a module of so many values, strictly. It is made once they are known to be there: what the
    /// file declares may be any size.
    pub fn load<M: Module>(&self, values: usize, module: impl FnOnce() -> M) -> Result<M> {
        let names = self.suffixes("weight.").into_iter();
        let take = |name: String| {
            (
                name.clone(),
                self.tensors[&format!("weight.{name}")].clone(),
            )
        };
        let mut tensors: Tensors = names.map(take).collect();
        require_values(values, &tensors, &self.path)?;
        weights::import(module(), &mut tensors, &[], &self.path)
    }

    /// Records the error of a quantity; of several tries, the smallest.
    pub fn record(&mut self, name: impl Into<String>, error: f64, tolerance: f64) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let name = name.into();
        match self.quantities.iter_mut().find(|q| q.name == name) {
            Some(before) => before.error = before.error.min(error),
            None => self.quantities.push(Quantity {
                name,
                error,
                tolerance,
            }),
        }
    }

    /// Whether all quantities so far are within tolerance.
    pub fn passed(&self) -> bool {
        self.quantities.iter().all(|q| q.error <= q.tolerance)
    }

    /// Compares values with the golden tensor `name` by ‖ours − golden‖ / ‖golden‖.
    pub fn compare(&mut self, name: &str, ours: &[f32], tolerance: f64) -> Result<()> {
        let golden = self.values_for(name, ours)?;
        let mut distance = Distance::default();
        distance.add(ours, &golden);
        self.record(name, distance.relative(), tolerance);
        Ok(())
    }

    /// Compares a tensor on the device with the golden tensor `name`, by [`Golden::compare`].
    pub fn compare_tensor<const D: usize>(
        &mut self,
        name: &str,
        ours: Tensor<D>,
        tolerance: f64,
    ) -> Result<()> {
        self.compare(name, &to_vec(ours.inner()), tolerance)
    }
}

/// Relative distance of two sets of tensors.
#[derive(Default)]
pub struct Distance {
    difference: f64,
    golden: f64,
}

impl Distance {
    /// Adds a tensor of both sets.
    pub fn add(&mut self, ours: &[f32], golden: &[f32]) {
        if ours.len() != golden.len() {
            self.difference = f64::INFINITY;
            return;
        }
        for (&a, &b) in ours.iter().zip(golden) {
            self.difference += (f64::from(a) - f64::from(b)).powi(2);
            self.golden += f64::from(b).powi(2);
        }
    }

    /// ‖ours − golden‖ / ‖golden‖ of all tensors.
    pub fn relative(&self) -> f64 {
        if self.golden > 0.0 {
            (self.difference / self.golden).sqrt()
        } else {
            self.difference.sqrt()
        }
    }
}
