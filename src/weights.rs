//! Weights under their published names, read and written strictly.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::files;
use crate::tensor::to_vec;

/// Largest header of a safetensors file in bytes: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// Tensors by name: f32 values and their shape.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The name of a parameter in weight files, from its place in the module tree.
///
/// Field names already are the published ones, with two exceptions: our `encoder` is not a level of its own
/// there, and the linear head for K clusters is called `fc_K` with three digits.
fn published_name(path: &[String], shape: &[usize]) -> String {
    match path {
        [first, rest @ ..] if first == "encoder" => rest.join("."),
        [first, _, rest @ ..] if first == "fc" => format!("fc_{:03}.{}", shape[0], rest.join(".")),
        _ => path.join("."),
    }
}

/// Calls `f` with the name and the parameter, for every float parameter in the order of the fields.
struct Named<F> {
    path: Vec<String>,
    f: F,
}

impl<F: FnMut(String, Vec<usize>, Tensor<1>)> ModuleVisitor for Named<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let name = published_name(&self.path, &shape);
        (self.f)(name, shape, value.reshape([-1]));
    }
}

/// Visits every float parameter and statistic: its name, its shape, its values as `[elements]`.
pub fn visit<M: Module>(module: &M, f: impl FnMut(String, Vec<usize>, Tensor<1>)) {
    module.visit(&mut Named {
        path: Vec::new(),
        f,
    });
}

/// All parameters and statistics of a module, by name.
pub fn export<M: Module>(module: &M) -> Tensors {
    let mut tensors = Tensors::new();
    visit(module, |name, shape, values| {
        tensors.insert(name, (shape, to_vec(values)));
    });
    tensors
}

struct Import<'a> {
    path: Vec<String>,
    tensors: &'a mut Tensors,
    problem: Option<String>,
}

impl ModuleMapper for Import<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (expected, device) = (param.val().dims(), param.val().device());
        let name = published_name(&self.path, &expected);
        match self.tensors.remove(&name) {
            Some((shape, values)) if shape == expected => {
                param.map(|_| Tensor::from_data(TensorData::new(values, expected), &device))
            }
            other => {
                self.problem.get_or_insert(match other {
                    Some((shape, _)) => {
                        format!("tensor {name}: expected shape {expected:?}, found {shape:?}")
                    }
                    None => format!("tensor {name} of shape {expected:?} is missing"),
                });
                param
            }
        }
    }
}

/// Puts `tensors` into a module: every parameter must be there in its shape, and nothing may be left over.
///
/// Takes what it uses out of `tensors`; names starting with one of `others` may remain. `origin` is for messages.
///
/// # Errors
/// [`Error::Model`] naming the first tensor that is missing, misshapen or unknown.
pub fn import<M: Module>(
    module: M,
    tensors: &mut Tensors,
    others: &[&str],
    origin: &Path,
) -> Result<M> {
    let mut import = Import {
        path: Vec::new(),
        tensors,
        problem: None,
    };
    let module = module.map(&mut import);
    let problem = import.problem.or_else(|| {
        let unknown = |name: &&String| !others.iter().any(|prefix| name.starts_with(prefix));
        let name = tensors.keys().find(unknown)?;
        Some(format!("tensor {name} is not part of this model"))
    });
    match problem {
        None => Ok(module),
        Some(problem) => Err(Error::model(
            origin,
            problem,
            "the file belongs to another model: check depth, width, stem, channels and cluster counts",
        )),
    }
}

/// Writes a safetensors file: to a temporary name in the same folder, synced, renamed.
///
/// # Errors
/// [`Error::Io`].
pub fn save(path: &Path, tensors: &Tensors, metadata: &[(&str, String)]) -> Result<()> {
    files::write_atomic(path, &serialize(path, tensors, metadata)?)
}

/// Content of a safetensors file with its checksum; `path` is for messages.
///
/// # Errors
/// [`Error::Io`].
pub fn serialize(path: &Path, tensors: &Tensors, metadata: &[(&str, String)]) -> Result<Vec<u8>> {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (name.as_str(), view.expect("four bytes a value"))
    });
    serialize_views(path, views, metadata)
}

/// As [`serialize`], of tensors of any type.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn serialize_views<'a>(
    path: &Path,
    views: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
    metadata: &[(&str, String)],
) -> Result<Vec<u8>> {
    let metadata = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let content = safetensors::serialize(views, Some(metadata)).map_err(|error| Error::Io {
        action: "write",
        path: path.to_path_buf(),
        source: std::io::Error::other(error),
    })?;
    Ok(with_checksum(content))
}

/// Name of the checksum in the metadata of the files that are written here.
const CHECKSUM: &str = "advcl_checksum";

/// A safetensors file with a checksum of what it holds as the first entry of its metadata.
pub(crate) fn with_checksum(content: Vec<u8>) -> Vec<u8> {
    const START: &[u8] = b"{\"__metadata__\":{";
    let header = &content[8..];
    let Some(sum) = checksum(&content) else {
        return content;
    };
    if !header.starts_with(START) || header[START.len()..].starts_with(b"}") {
        return content;
    }
    let mut entry = format!("\"{CHECKSUM}\":\"{sum}\",");
    // The tensors stay at multiples of eight bytes.
    while entry.len() % 8 != 0 {
        entry.push(' ');
    }
    let length = content.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)) + entry.len() as u64;
    let (start, rest) = header.split_at(START.len());
    [&length.to_le_bytes()[..], start, entry.as_bytes(), rest].concat()
}

/// Checksum of the tensors and the metadata of a safetensors file, however they are laid out in it; none for a file that is
/// damaged so far that it cannot be read.
fn checksum(content: &[u8]) -> Option<String> {
    let (_, header) = SafeTensors::read_metadata(content).ok()?;
    let file = SafeTensors::deserialize(content).ok()?;
    let metadata: BTreeMap<_, _> = header.metadata().iter().flatten().collect();
    let mut described = String::new();
    for (key, value) in metadata {
        if key != CHECKSUM {
            // Most are JSON, which another program may have written anew.
            let json = serde_json::from_str(value);
            let value = json.map_or_else(|_| value.clone(), |json| files::canonical(&json));
            described += &format!("{key}\0{value}\0");
        }
    }
    let tensors: BTreeMap<String, TensorView> = file.tensors().into_iter().collect();
    for (name, view) in &tensors {
        described += &format!("{name}\0{:?}\0{:?}\0", view.dtype(), view.shape());
    }
    let data = tensors.values().map(|view| view.data());
    Some(files::checksum(
        std::iter::once(described.as_bytes()).chain(data),
    ))
}

/// Refuses a file that is not what was written, by the checksum in its metadata, where it has one.
///
/// # Errors
/// [`Error::Checksum`].
pub fn require_checksum(content: &[u8], path: &Path) -> Result<()> {
    let header = SafeTensors::read_metadata(content);
    let metadata = header
        .ok()
        .and_then(|(_, header)| header.metadata().clone());
    let expected = metadata.and_then(|mut metadata| metadata.remove(CHECKSUM));
    match (expected, checksum(content)) {
        (Some(expected), Some(found)) => files::require_checksum(&expected, &found, path),
        // What cannot be read is refused by those who read it.
        _ => Ok(()),
    }
}

/// Refuses values that are not finite.
///
/// # Errors
/// [`Error::Format`] naming `path` and the tensor.
pub fn require_finite(tensors: &Tensors, path: &Path) -> Result<()> {
    for (name, (_, values)) in tensors {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let place = format!("tensor {name}");
            return Err(Error::format(
                path,
                place,
                "finite numbers",
                value.to_string(),
            ));
        }
    }
    Ok(())
}

/// A safetensors file's tensors, as f32 (or int64, converted), and its metadata.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be read, [`Error::Format`] for one that is truncated or no safetensors,
/// [`Error::Checksum`] for one that was damaged.
pub fn load(path: &Path) -> Result<(Tensors, BTreeMap<String, String>)> {
    let content = files::read(path)?;
    let found = parse(&content, path)?;
    // Afterwards: of a file that was cut, how much is there says more.
    require_checksum(&content, path)?;
    Ok(found)
}

/// Metadata of a safetensors file: its header is read, its tensors are not.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be read, [`Error::Format`] for a header that is none and for a file
/// that ends before the header's last tensor.
pub fn load_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let broken =
        |found: String| Error::format(path, "header", "a complete safetensors file", found);
    let mut file = files::open(path)?;
    let mut read = || -> std::io::Result<(Vec<u8>, u64)> {
        let length = file.metadata()?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)?;
        // A damaged size claims no memory: what is there is read.
        let mut header = size.to_vec();
        (&mut file)
            .take(u64::from_le_bytes(size).min(MAX_HEADER))
            .read_to_end(&mut header)?;
        Ok((header, length))
    };
    let (content, length) = match read() {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(broken("less than eight bytes".to_owned()));
        }
        content => content.map_err(Error::io("read", path))?,
    };
    let header = content.get(8..).unwrap_or_default();
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(default, rename = "__metadata__")]
        metadata: BTreeMap<String, String>,
        #[serde(flatten)]
        tensors: BTreeMap<String, Place>,
    }
    #[derive(serde::Deserialize)]
    struct Place {
        data_offsets: [u64; 2],
    }
    let header: Header = serde_json::from_slice(header).map_err(|e| broken(e.to_string()))?;
    let ends = header.tensors.values().map(|place| place.data_offsets[1]);
    let expected = ends.max().unwrap_or(0).saturating_add(content.len() as u64);
    if length < expected {
        return Err(broken(format!("{length} of {expected} bytes")));
    }
    Ok(header.metadata)
}

/// Reads the content of a file as [`load`] does; `path` is for messages.
///
/// # Errors
/// [`Error::Format`].
pub fn parse(content: &[u8], path: &Path) -> Result<(Tensors, BTreeMap<String, String>)> {
    let broken =
        |found: String| Error::format(path, "header", "a complete safetensors file", found);
    let (_, header) = SafeTensors::read_metadata(content).map_err(|e| broken(e.to_string()))?;
    let file = SafeTensors::deserialize(content).map_err(|e| broken(e.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        let bytes = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => chunks(bytes, f32::from_le_bytes),
            Dtype::F64 => chunks(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::I64 => chunks(bytes, |b| i64::from_le_bytes(b) as f32),
            other => {
                let place = format!("tensor {name}");
                return Err(Error::format(
                    path,
                    place,
                    "F32, F64 or I64",
                    format!("{other:?}"),
                ));
            }
        };
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    let mut metadata = header.metadata().clone().unwrap_or_default();
    // Of this file, and of no other that is made of its content.
    metadata.remove(CHECKSUM);
    Ok((tensors, metadata.into_iter().collect()))
}

/// Little-endian values of `N` bytes each.
pub(crate) fn chunks<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| convert(*chunk))
        .collect()
}
