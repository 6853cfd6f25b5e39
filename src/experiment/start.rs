//! Weights that a method's training begins at: found, held against the encoder to make, and noted.

use std::path::Path;

use super::Experiment;
use crate::error::{Error, Result};
use crate::nn::EncoderConfig;
use crate::pretrain::Entry;
use crate::run::{About, Model, ModelInfo, model_file};
use crate::session::Context;

impl Experiment {
    /// The weights that a method's training begins at; none where they are random.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a file that is no model file, or whose encoder has not the shape of the one to make;
    /// [`Error::Run`] for another method's encoder that is not there yet; what reading a model file meets.
    pub(super) fn start(&self, name: &str, context: &Context) -> Result<Option<Model>> {
        let Some(init) = &self.recipe.pretrain.require(name)?.common().init else {
            return Ok(None);
        };
        if self.recipe.pretrain.get(init).is_some() {
            return self.require_encoder(init, context).map(Some);
        }
        let key = format!("pretrain.{name}.init");
        let path = &model_file(Path::new(init))?;
        // Its description alone first: another program's file is told from a damaged one of ours.
        let info = ModelInfo::load(path).map_err(|error| match error {
            Error::Format { .. } | Error::Model { .. } => {
                let problem = format!("expected a model file of advcl, found {error}");
                let hint =
                    "`advcl import FILE -o weights.safetensors` makes one of PyTorch's weights";
                Error::recipe(&key, problem, hint)
            }
            other => other,
        })?;
        if let Some(info) = info {
            self.require_shape(&key, init, &info)?;
        }
        Model::load(path, &context.device).map(Some)
    }

    /// Whether a method's training begins at weights of a file.
    pub(super) fn begins_at_a_file(&self, entry: &Entry) -> bool {
        let init = entry.common().init.as_ref();
        init.is_some_and(|init| self.recipe.pretrain.get(init).is_none())
    }

    /// Refuses a file of the weights of another encoder than the one to make.
    fn require_shape(&self, key: &str, file: &str, info: &ModelInfo) -> Result<()> {
        let channels = self.data.pretraining.train.images.channels;
        let own = &self.recipe.encoder;
        if info.encoder == *own && info.channels == channels {
            return Ok(());
        }
        let shape = |encoder: &EncoderConfig, channels: usize| {
            let (depth, width) = (usize::from(encoder.depth), encoder.width);
            let stem = encoder.stem.name();
            format!("depth {depth}, width {width}, stem {stem}, channels {channels}")
        };
        let (expected, found) = (shape(own, channels), shape(&info.encoder, info.channels));
        let problem = format!("{file}: expected {expected}, found {found}");
        let mut hints = Vec::new();
        if info.encoder != *own {
            let EncoderConfig { depth, width, stem } = &info.encoder;
            let (depth, stem) = (usize::from(*depth), stem.name());
            hints.push(format!(
                "--set 'encoder = {{ depth = {depth}, width = {width}, stem = \"{stem}\" }}'"
            ));
        }
        if info.channels != channels {
            let kind = if info.channels == 1 { "gray" } else { "rgb" };
            hints.push(format!("--set 'data.channels = \"{kind}\"'"));
        }
        let hint = format!("{} fits the weights", hints.join(" "));
        Err(Error::recipe(key, problem, hint))
    }

    /// Says where a training begins.
    pub(super) fn say_start(&self, name: &str, start: &Model, words: &str, context: &mut Context) {
        let mut text = format!("starts at the weights of {words}");
        let images = &self.data.pretraining.train.images;
        let (theirs, own) = (start.info.image_size, [images.height, images.width]);
        if theirs != own {
            let [[a, b], [c, d]] = [theirs, own];
            text += &format!("; its images were {a} × {b}, these are {c} × {d}");
        }
        if start.linear.is_some() {
            text += "; its classifier is left out";
        }
        context.note(name, text);
    }

    /// Keeps in `run.json` where a method's training began.
    pub(super) fn note_start(&self, name: &str, words: Option<&str>) -> Result<()> {
        let Some(mut about) = About::load(self.layout())? else {
            return Ok(());
        };
        let before = about.starts.clone();
        about.starts.remove(name);
        about
            .starts
            .extend(words.map(|words| (name.to_owned(), words.to_owned())));
        match before == about.starts {
            true => Ok(()),
            false => about.store(self.layout()),
        }
    }
}

/// Origin of the weights that a training begins at, in words: "theirs.safetensors (imported, route normal)".
pub(super) fn in_words(init: &str, start: &ModelInfo) -> String {
    let route = start.route.name();
    match start.method.as_str() {
        method if method == init => format!("{init} (route {route})"),
        method => format!("{init} ({method}, route {route})"),
    }
}
