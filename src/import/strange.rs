//! Files that hold no weights of a ResNet: what they are, and what to do.

/// A problem and the way out.
pub type Said = (String, String);

/// A problem and the way out, always the same.
pub type Fixed = (&'static str, &'static str);

const SAVE: &str = "in PyTorch: torch.save(model.state_dict(), \"weights.pt\")";

/// An archive of `torch.jit.save`.
pub const TORCHSCRIPT: Fixed = (
    "a TorchScript archive, a program with its weights",
    "in PyTorch: torch.save(torch.jit.load(\"this.pt\").state_dict(), \"weights.pt\")",
);

/// A pickle of another program.
pub const PICKLE: Fixed = (
    "a pickle that torch.save did not write",
    "load it in Python and save its weights: torch.save(state_dict, \"weights.pt\")",
);

/// Says what a file is, by its first bytes.
pub fn file(start: &[u8]) -> Said {
    let text: String = String::from_utf8_lossy(start).trim_start().to_lowercase();
    let text = text.trim_start_matches('\u{feff}');
    let (what, hint) = if start.is_empty() {
        (
            "an empty file",
            "the download or the copy may have failed: get it again",
        )
    } else if text.starts_with("version https://git-lfs") {
        (
            "a Git LFS pointer, which only names the file of the weights",
            "fetch that file: git lfs pull",
        )
    } else if text.starts_with("<!doctype")
        || text.starts_with("<html")
        || text.starts_with("<?xml")
    {
        (
            "an HTML page and no weights",
            "the download led to a page (to sign in, say): download the file itself",
        )
    } else if start.starts_with(b"\x89HDF") {
        (
            "an HDF5 file, as Keras writes it",
            "weights of PyTorch are needed",
        )
    } else if start.starts_with(b"\x1f\x8b") {
        ("compressed by gzip", "unpack it first: gunzip, or tar xf")
    } else if start.get(257..262) == Some(b"ustar") {
        (
            "a tar archive",
            "unpack it first, and give the file of the weights in it",
        )
    } else if start.starts_with(b"\x93NUMPY") {
        ("an array of NumPy", SAVE)
    } else if start.starts_with(b"\x08") && text.contains("pytorch") {
        ("a network in ONNX's format", SAVE)
    } else if start.starts_with(b"PK") {
        (
            "the beginning of a zip archive and no more of it",
            "the download or the copy may have failed: get it again",
        )
    } else if text.starts_with('{') {
        (
            "a JSON text and no weights",
            "an index of weights names the files that have them: give such a file",
        )
    } else if str::from_utf8(start).is_ok_and(|text| !text.contains('\0')) {
        (
            "a text and no weights",
            "expected safetensors, or what torch.save writes",
        )
    } else {
        ("neither safetensors nor what torch.save writes", SAVE)
    };
    (what.to_owned(), hint.to_owned())
}

/// Says what a zip archive without PyTorch's pickle is.
pub fn archive<'a>(mut names: impl Iterator<Item = &'a String>) -> Said {
    let (what, hint) = match names.any(|name| name.ends_with(".npy")) {
        true => ("arrays of NumPy, and not what torch.save writes", SAVE),
        false => (
            "a zip archive without the data.pkl that torch.save writes",
            "if the weights are in it, unpack it and give their file",
        ),
    };
    (what.to_owned(), hint.to_owned())
}

/// Says that a file holds a list.
pub fn list(kind: &str, length: usize) -> Said {
    (
        format!("a {kind} of {length}, not a state dict: its tensors have no names"),
        "save the state dict in it: torch.save(torch.load(\"this.pt\")[0], \"weights.pt\"), if it is the first".to_owned(),
    )
}

/// Says that there is no tensor; `class` where the file holds a class and no object.
pub fn nothing(class: bool) -> Said {
    let what = match class {
        true => "the name of a class, and no tensors",
        false => "no tensors in it",
    };
    (what.to_owned(), SAVE.to_owned())
}

/// Says which network has tensors of these names, where no encoder was found among them.
pub fn network<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Said {
    const SIGNS: [(&str, &str); 14] = [
        ("patch_embed", "a vision transformer"),
        ("cls_token", "a vision transformer"),
        ("class_token", "a vision transformer"),
        ("patch_embeddings", "a vision transformer"),
        (
            "attnpool",
            "a ResNet of CLIP, with a first layer of three and attention at its end",
        ),
        ("denseblock", "a DenseNet"),
        ("block1.layer.0.", "a WideResNet"),
        ("conv_stem.", "an EfficientNet or MobileNet"),
        (
            "features.0.0.weight",
            "an EfficientNet, MobileNet or ConvNeXt",
        ),
        ("dwconv", "a ConvNeXt"),
        ("conv_dw", "a ConvNeXt"),
        ("conv1.0.weight", "a ResNet-D, with a first layer of three"),
        ("fire", "a SqueezeNet"),
        ("features.0.weight", "a VGG or AlexNet"),
    ];
    let sign = SIGNS
        .iter()
        .find(|(sign, _)| names.clone().any(|name| name.contains(sign)));
    let count = names.clone().count();
    let mut some: Vec<&str> = names.take(5).collect();
    if count > some.len() {
        some.push("…");
    }
    let what = match sign {
        Some((_, network)) => format!("{network}; expected a ResNet"),
        None => "no ResNet".to_owned(),
    };
    (
        format!("{what}: no conv1.weight with a layer1 among its {count} tensors: {}", some.join(", ")),
        "expected a ResNet by the names of torchvision, timm, transformers, lightly, solo-learn, MoCo or AdvCL, or an nn.Sequential of its parts".to_owned(),
    )
}
