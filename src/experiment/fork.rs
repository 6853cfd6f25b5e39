//! A new run folder from an old one: what still holds under another recipe is copied.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::state::State;
use super::{Experiment, classifier_title, folder};
use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::recipe::{Artifact, title};
use crate::run::{About, FolderKind, Layout};
use crate::session::Context;

/// What a fork copied and what it left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Forked {
    /// The new run folder.
    #[serde(serialize_with = "crate::files::as_text")]
    pub folder: PathBuf,
    /// Results that were copied: "SimCLR encoder", "SLF classifier of SimCLR".
    pub copied: Vec<String>,
    /// Results that were not, and why.
    pub left: Vec<(String, String)>,
}

impl Experiment {
    /// Copies everything that holds under this experiment's recipe to a new run folder: encoders,
    /// pseudo-labels, classifiers with their figures, and unfinished work that can go on. The old folder
    /// stays as it is.
    ///
    /// # Errors
    /// [`Error::Run`] for a folder that has something in it already; [`Error::Io`].
    pub fn fork(&self, new: &Path, context: &mut Context) -> Result<Forked> {
        let begun = fs::read_dir(new).is_ok_and(|mut entries| entries.next().is_some());
        if begun || new.is_file() {
            let problem = "expected a new or an empty folder to fork into, found something in it";
            return Err(Error::run(new, problem, "name another folder"));
        }
        let target = Layout::new(new);
        let mut forked = Forked {
            folder: new.to_path_buf(),
            ..Forked::default()
        };
        fs::create_dir_all(new).map_err(Error::io("create", new))?;
        for name in self.methods(None)? {
            let state = self.encoder_state(&name)?;
            self.copy(
                &title(Artifact::Encoder(&name)),
                &name,
                state,
                &target,
                &mut forked,
            )?;
        }
        if self.pseudo_label_path().exists() && self.recipe.cluster.is_some() {
            let what = title(Artifact::PseudoLabels);
            match self.labels_state()? {
                State::Stale(other) => forked.left.push((what, other.why)),
                _ => {
                    copy_file(&self.layout().pseudo_labels(), &target.pseudo_labels())?;
                    if self.layout().cluster_time().exists() {
                        copy_file(&self.layout().cluster_time(), &target.cluster_time())?;
                    }
                    forked.copied.push(what);
                }
            }
        }
        for cell in self.cells(None, None)? {
            // Figures of a classifier that was trained with its encoder have a folder of their own too.
            let state = self.classifier_state(&cell)?;
            self.copy(
                &classifier_title(&cell),
                &cell.stage(),
                state,
                &target,
                &mut forked,
            )?;
        }
        let mut about = About::new(
            FolderKind::Run,
            &device::name(&context.device),
            self.recipe.seed,
        );
        let before = About::load(self.layout())?;
        about.starts = before.map_or_else(Default::default, |before| before.starts);
        about.starts.retain(|name, _| target.stage(name).is_dir());
        folder::save(&target, &self.recipe, about)?;
        Ok(forked)
    }

    /// Copies the files of a stage, where they hold.
    fn copy(
        &self,
        what: &str,
        stage: &str,
        state: State,
        target: &Layout,
        forked: &mut Forked,
    ) -> Result<()> {
        let (from, to) = (self.layout().stage(stage), target.stage(stage));
        if !from.is_dir() {
            return Ok(());
        }
        if let State::Stale(other) = state {
            forked.left.push((what.to_owned(), other.why));
            return Ok(());
        }
        fs::create_dir_all(&to).map_err(Error::io("create", &to))?;
        let entries = fs::read_dir(&from).map_err(Error::io("read", &from))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &from))?;
            let path = entry.path();
            // Modes have folders of their own below a method's; pieces of unfinished attacks are made again, and what a killed
            // process left of a file is of no use.
            if path.is_file() && !files::is_part(&path) {
                copy_file(&path, &to.join(entry.file_name()))?;
            }
        }
        forked.copied.push(what.to_owned());
        Ok(())
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let content = files::read(from)?;
    files::write_atomic(to, &content)
}
