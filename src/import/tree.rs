//! Tensors in the pickle of a checkpoint: dictionaries inside each other, whole modules and other objects,
//! with the names that `state_dict` gives.

use std::collections::HashMap;

use super::pickle::{Made, Object, Pickle, Value};
use super::stored::{Element, Stored, Values};

/// Deepest nesting, longest name and most bytes of all names: far above those of any network.
const MAX_DEPTH: usize = 64;
const MAX_NAME: usize = 1024;
const MAX_NAMES: usize = 1 << 26;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 16;

/// Names of lists of numbers that are a normalization.
const NUMBERS: [&str; 2] = ["mean", "std"];

/// Finds all tensors of a pickle; `storages` are the numbers of the storages by their keys.
///
/// # Errors
/// In words, for names that are too long together.
pub fn tensors(
    pickle: &Pickle,
    storages: &HashMap<String, usize>,
) -> Result<Vec<(String, Stored)>, String> {
    let mut walk = Walk {
        pickle,
        storages,
        seen: vec![false; pickle.objects().len()],
        found: Vec::new(),
        bytes: 0,
    };
    walk.value(pickle.root, "", 0)?;
    Ok(walk.found)
}

/// A storage that a pickle refers to.
pub struct StorageOf<'a> {
    /// Name of its class: `FloatStorage`.
    pub class: &'a str,
    /// Its key in the file.
    pub key: &'a str,
    /// First element of what it shows of that storage.
    pub offset: usize,
}

/// A storage in the pickle, where a persistent value is one.
pub fn storage<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<StorageOf<'a>> {
    let &Object::Persistent(what) = pickle.object(value)? else {
        return None;
    };
    let parts = pickle.elements(what);
    let (Value::Text("storage"), Value::Text(key)) = (*parts.first()?, *parts.get(2)?) else {
        return None;
    };
    let (_, class) = pickle.global(*parts.get(1)?)?;
    // A view of another storage: its key, where it begins, its length.
    let view = parts.get(5).map(|view| pickle.elements(*view));
    let offset = match view {
        Some([_, offset, _]) => index(*offset)?,
        _ => 0,
    };
    Some(StorageOf { class, key, offset })
}

/// Kind of the values of a storage's class, or of a `torch.dtype`, and the bytes of each.
pub fn element(name: &str) -> (Element, usize) {
    let element = match name {
        "FloatStorage" | "float32" | "float" => Element::F32,
        "DoubleStorage" | "float64" | "double" => Element::F64,
        "HalfStorage" | "float16" | "half" => Element::F16,
        "BFloat16Storage" | "bfloat16" => Element::BF16,
        other => {
            let size = match other {
                "ComplexDoubleStorage" => 16,
                "LongStorage" | "ComplexFloatStorage" => 8,
                "IntStorage" | "QInt32Storage" => 4,
                "ShortStorage" => 2,
                _ => 1,
            };
            let kind = other.strip_suffix("Storage").unwrap_or(other);
            return (Element::Other(kind.to_lowercase()), size);
        }
    };
    let size = element.size();
    (element, size)
}

fn index(value: Value) -> Option<usize> {
    match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// A walk through the objects of a pickle. Every container is entered once, under the first name that leads to it.
struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    storages: &'p HashMap<String, usize>,
    seen: Vec<bool>,
    found: Vec<(String, Stored)>,
    /// Of all names.
    bytes: usize,
}

impl<'a> Walk<'_, 'a> {
    fn value(&mut self, value: Value<'a>, name: &str, depth: usize) -> Result<(), String> {
        if let Some(tensor) = self.tensor(value, 0) {
            return self.add(name, tensor);
        }
        if depth > MAX_DEPTH || !self.is_new(value) {
            return Ok(());
        }
        let pickle = self.pickle;
        match pickle.object(value).expect("only objects are new") {
            Object::Dict(entries) => self.entries(entries, name, depth),
            Object::List(elements) | Object::Tuple(elements) => {
                self.elements(elements, name, depth)
            }
            Object::Persistent(_) => Ok(()),
            Object::Made(made) => self.made(made, name, depth),
        }
    }

    /// Whether an object was not entered before; from now on it was.
    fn is_new(&mut self, value: Value<'a>) -> bool {
        match value {
            Value::Object(number) => !std::mem::replace(&mut self.seen[number], true),
            _ => false,
        }
    }

    fn elements(&mut self, all: &[Value<'a>], name: &str, depth: usize) -> Result<(), String> {
        for (at, element) in all.iter().enumerate() {
            if let Value::Object(_) = element {
                self.value(*element, &below(name, &at.to_string()), depth + 1)?;
            }
        }
        Ok(())
    }

    fn entries(
        &mut self,
        entries: &[(Value<'a>, Value<'a>)],
        name: &str,
        depth: usize,
    ) -> Result<(), String> {
        for (key, value) in entries {
            let Value::Object(_) = value else { continue };
            let number;
            let key = match key {
                Value::Text(key) => *key,
                Value::Int(key) => {
                    number = key.to_string();
                    number.as_str()
                }
                _ => continue,
            };
            if name.len() + key.len() < MAX_NAME {
                let name = below(name, key);
                self.numbers(key, *value, &name)?;
                self.value(*value, &name, depth + 1)?;
            }
        }
        Ok(())
    }

    /// An object that Python would have made: of a module its parts, of any other its entries and attributes.
    fn made(&mut self, made: &Made<'a>, name: &str, depth: usize) -> Result<(), String> {
        let pickle = self.pickle;
        // Python 2 gives an ordered dictionary its entries as a list of pairs.
        if let Some((_, "OrderedDict")) = pickle.global(made.by)
            && let &[list] = pickle.elements(made.arguments)
            && self.is_new(list)
        {
            for pair in pickle.elements(list) {
                if let &[key, value] = pickle.elements(*pair) {
                    self.entries(&[(key, value)], name, depth)?;
                }
            }
        }
        self.entries(&made.entries, name, depth)?;
        self.elements(&made.elements, name, depth)?;
        // Attributes; two dictionaries of them where the class has slots. A graph of torch.fx has them as an argument.
        let mut dictionaries = vec![made.state];
        for tuple in [made.state, made.arguments] {
            if let Some(Object::Tuple(parts)) = pickle.object(tuple)
                && self.is_new(tuple)
            {
                dictionaries.extend(parts);
            }
        }
        for attributes in dictionaries {
            let all = match pickle.object(attributes) {
                Some(Object::Dict(all)) => all,
                // A module inside a compiled one.
                Some(Object::Made(_)) => {
                    self.value(attributes, name, depth + 1)?;
                    continue;
                }
                _ => continue,
            };
            if !self.is_new(attributes) {
                continue;
            }
            if pickle.entry(attributes, "_modules").is_none() {
                self.entries(all, name, depth)?;
                continue;
            }
            for part in ["_parameters", "_buffers", "_modules"] {
                if let Some(part) = pickle.entry(attributes, part) {
                    // The same name: no name of its own.
                    self.value(part, name, depth + 1)?;
                }
            }
            for attribute in NUMBERS {
                if let Some(value) = pickle.entry(attributes, attribute) {
                    self.numbers(attribute, value, &below(name, attribute))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a list of a few numbers under a name that a normalization has.
    fn numbers(&mut self, key: &str, value: Value<'a>, name: &str) -> Result<(), String> {
        if !NUMBERS.contains(&key) {
            return Ok(());
        }
        let number = |value: &Value| match value {
            Value::Float(number) => Some(*number as f32),
            Value::Int(number) => Some(*number as f32),
            _ => None,
        };
        let elements = self.pickle.elements(value);
        if !matches!(elements.len(), 1 | 3) {
            return Ok(());
        }
        let values: Option<Vec<f32>> = elements.iter().map(number).collect();
        match values {
            None => Ok(()),
            Some(values) => self.add(
                name,
                Stored {
                    element: Element::F32,
                    shape: vec![values.len()],
                    values: Values::Given(values),
                },
            ),
        }
    }

    fn add(&mut self, name: &str, tensor: Stored) -> Result<(), String> {
        self.bytes += name.len();
        if self.bytes > MAX_NAMES {
            return Err(format!("names of more than {MAX_NAMES} bytes"));
        }
        self.found.push((name.to_owned(), tensor));
        Ok(())
    }

    /// The tensor that a value is, where it is one.
    fn tensor(&self, value: Value<'a>, depth: usize) -> Option<Stored> {
        let pickle = self.pickle;
        let Object::Made(made) = pickle.object(value)? else {
            return None;
        };
        let (module, function) = pickle.global(made.by)?;
        let arguments = pickle.elements(made.arguments);
        if !module.starts_with("torch") || depth > 4 {
            return None;
        }
        match function {
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
                let whole = self.rebuilt(arguments, function == "_rebuild_tensor_v3");
                Some(whole.unwrap_or_else(|| missing("damaged", Vec::new())))
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => {
                self.tensor(*arguments.first()?, depth + 1)
            }
            // A class of its own: the function that makes its values, the class, that function's arguments.
            "_rebuild_from_type" | "_rebuild_from_type_v2" => {
                let (_, function) = pickle.global(*arguments.first()?)?;
                let inner = pickle.elements(*arguments.get(2)?);
                match function {
                    "_rebuild_parameter" => self.tensor(*inner.first()?, depth + 1),
                    _ => self.rebuilt(inner, function == "_rebuild_tensor_v3"),
                }
            }
            other if other.starts_with("_rebuild") => {
                let kind = other.trim_start_matches("_rebuild_");
                Some(missing(kind, Vec::new()))
            }
            _ => None,
        }
    }

    /// A tensor from storage, offset, shape and strides; `typed` says that its kind is the seventh argument.
    fn rebuilt(&self, arguments: &[Value<'a>], typed: bool) -> Option<Stored> {
        let pickle = self.pickle;
        let storage = storage(pickle, *arguments.first()?)?;
        let dimensions = |value: &Value<'a>| -> Option<Vec<usize>> {
            let elements = pickle.elements(*value);
            let few = elements.len() <= MAX_DIMENSIONS;
            few.then(|| elements.iter().map(|length| index(*length)).collect())?
        };
        let offset = index(*arguments.get(1)?)?.checked_add(storage.offset)?;
        let (shape, strides) = (
            dimensions(arguments.get(2)?)?,
            dimensions(arguments.get(3)?)?,
        );
        let kind = match typed {
            true => pickle.global(*arguments.get(6)?)?.1,
            false => storage.class,
        };
        let values = match self.storages.get(storage.key) {
            Some(storage) => Values::In {
                storage: *storage,
                offset,
                strides,
            },
            None => Values::Missing(format!("no storage {:.40}", storage.key)),
        };
        Some(Stored {
            element: element(kind).0,
            shape,
            values,
        })
    }
}

fn below(name: &str, key: &str) -> String {
    match name {
        "" => key.to_owned(),
        _ => format!("{name}.{key}"),
    }
}

fn missing(kind: &str, shape: Vec<usize>) -> Stored {
    let kind = kind.to_owned();
    Stored {
        values: Values::Missing(kind.clone()),
        element: Element::Other(kind),
        shape,
    }
}
