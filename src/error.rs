//! The crate's one error: what went wrong, where, what was expected, what was found, and a hint.

use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in the crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can fail. `Display` gives one line, [`Error::hint`] a way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: missing file, no permission, full disk.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Action that failed, as a verb: "read", "write", "create".
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file's content is not what its format says.
    #[error("{}: {place}: expected {expected}, found {found}", path.display())]
    Format {
        /// File, or `archive.tar.gz/member`.
        path: PathBuf,
        /// Place in the file: "byte 4", "header", "tensor conv1.weight".
        place: String,
        /// Content that the format asks for.
        expected: String,
        /// Content that is there.
        found: String,
    },
    /// A file whose checksum says that it is not what was written.
    #[error("{}: expected the checksum {expected}, found {found}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Checksum in the file.
        expected: String,
        /// Checksum of what is there.
        found: String,
    },
    /// A data set that cannot be used for what was asked.
    #[error("data set {name}: {problem}")]
    Data {
        /// Name or path of the data set.
        name: String,
        /// Problem with the data set, with the figures.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// A recipe that is not understood or cannot be carried out.
    #[error("recipe {place}: {problem}")]
    Recipe {
        /// File, line and column, or the key.
        place: String,
        /// Problem, with expected and found.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// Weights, a checkpoint or adversarial examples that do not belong to what is at hand.
    #[error("{}: {problem}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Difference: expected and found.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// A run folder that cannot be used as asked.
    #[error("run {}: {problem}", path.display())]
    Run {
        /// Run folder.
        path: PathBuf,
        /// Problem.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// An output that would overwrite something.
    #[error("cannot write {}: {problem}", path.display())]
    Output {
        /// The output as named.
        path: PathBuf,
        /// What is there.
        problem: String,
        /// Another way to write it.
        hint: String,
    },
    /// A value that a library function cannot work with.
    #[error("{what}: {problem}")]
    Input {
        /// Name of the value.
        what: &'static str,
        /// What was expected and what was found.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A compute device that is unknown, or not compiled in.
    #[error("device {name:?}: {problem}")]
    Device {
        /// Name as written.
        name: String,
        /// Problem with the device.
        problem: String,
        /// Names that work here.
        hint: String,
    },
    /// A compute device that failed at work: no memory left, a kernel that it cannot run, a driver that gave up.
    #[error("device {device:?} failed: {problem}")]
    DeviceFailed {
        /// Name as written.
        device: String,
        /// Message of its runtime.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// Training met a loss or a weight that is not finite.
    #[error("{stage}: {part} is {value} at {at}")]
    Diverged {
        /// Stage of the run.
        stage: String,
        /// Named part of the loss, or tensor.
        part: String,
        /// Value that was found.
        value: f32,
        /// Epoch and step, counted from 1.
        at: String,
    },
    /// A classifier's logit is not a finite number: the prediction is neither right nor wrong.
    #[error("{stage}: a logit of image {image} is {value}")]
    Logits {
        /// Stage of the run.
        stage: String,
        /// Index of the image in its split, counted from 0.
        image: usize,
        /// Value of the logit.
        value: f32,
    },
    /// An encoder's feature is not a finite number: the image is near no other and far from none.
    #[error("{stage}: a feature of {image} is {value}")]
    Features {
        /// Stage of the run.
        stage: String,
        /// Image: its file, or its number.
        image: String,
        /// Value of the feature.
        value: f32,
    },
    /// The user asked to stop; everything up to here is saved.
    #[error("stopped at {at}; saved in {}", path.display())]
    Interrupted {
        /// Stage, epoch and step.
        at: String,
        /// Run folder.
        path: PathBuf,
    },
    /// Processes that were started together and cannot work together.
    #[error("ranks: {problem}")]
    Ranks {
        /// Problem, with expected and found.
        problem: String,
        /// Way out.
        hint: String,
    },
    /// An error of another of the processes that were started together, which tells it.
    #[error("rank {rank} failed, and tells why")]
    OtherRank {
        /// Its number.
        rank: usize,
    },
    /// Rows of a comparison that could not be computed; each was reported as it failed.
    #[error("{failed} rows failed")]
    Rows {
        /// Number of rows.
        failed: usize,
    },
    /// Image files that could not be read; each was reported, and the others were read.
    #[error("{failed} of {files} images could not be read")]
    Unread {
        /// Number of files that could not be read.
        failed: usize,
        /// Number of files.
        files: usize,
    },
    /// Stored adversarial examples that are invalid.
    #[error("{}: {wrong} of {examples} adversarial examples are not what they should be", path.display())]
    Examples {
        /// File of the examples.
        path: PathBuf,
        /// Examples outside of [0, 1] or of the ball, or not misclassified.
        wrong: usize,
        /// Examples in the file.
        examples: usize,
    },
    /// Files of a run folder that are not what was written.
    #[error("{}: {damaged} of {files} files are damaged", path.display())]
    Damaged {
        /// Run folder.
        path: PathBuf,
        /// Number of damaged files.
        damaged: usize,
        /// Number of files that were checked.
        files: usize,
    },
    /// An exported model that does not compute what the model does; nothing was written.
    #[error("{}: its export as {format} computes something else: off by {gap:.1e}, expected {most:.0e} at most", path.display())]
    Export {
        /// Model file.
        path: PathBuf,
        /// Format of the export.
        format: &'static str,
        /// Largest difference of the outputs, over the largest output.
        gap: f32,
        /// Largest difference that is rounding.
        most: f32,
    },
    /// Golden vectors that this machine does not reproduce.
    #[error("self-test: {failed} of {total} checks failed")]
    SelfTest {
        /// Number of checks out of tolerance.
        failed: usize,
        /// Number of checks.
        total: usize,
    },
}

impl Error {
    /// Makes [`Error::Io`] in a `map_err`: `Error::io("read", path)`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Makes [`Error::Format`]: a file whose content is wrong at `place`.
    pub fn format(
        path: impl AsRef<Path>,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Format {
            path: path.as_ref().to_path_buf(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Makes [`Error::Data`].
    pub fn data(
        name: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Data {
            name: name.into(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Makes [`Error::Recipe`].
    pub fn recipe(
        place: impl Into<String>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Recipe {
            place: place.into(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Makes [`Error::Model`].
    pub fn model(
        path: impl AsRef<Path>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Model {
            path: path.as_ref().to_path_buf(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Makes [`Error::Run`].
    pub fn run(
        path: impl AsRef<Path>,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Run {
            path: path.as_ref().to_path_buf(),
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Makes [`Error::Input`].
    pub fn input(what: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Input {
            what,
            problem: problem.into(),
            hint: hint.into(),
        }
    }

    /// Way out for the user, where there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Data { hint, .. }
            | Self::Recipe { hint, .. }
            | Self::Model { hint, .. }
            | Self::Run { hint, .. }
            | Self::Output { hint, .. }
            | Self::Input { hint, .. }
            | Self::Ranks { hint, .. }
            | Self::DeviceFailed { hint, .. }
            | Self::Device { hint, .. } => (!hint.is_empty()).then_some(hint),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("check the path"),
                io::ErrorKind::PermissionDenied => Some("check the permissions"),
                io::ErrorKind::StorageFull => {
                    Some("free some space and run the same command again: what was written stays")
                }
                _ => None,
            },
            Self::Checksum { .. } => Some(
                "the file was changed or damaged after it was written: take a copy of it, or delete it and make it again",
            ),
            Self::Format { .. } => Some("the file may be truncated or of another kind"),
            Self::Diverged { .. } => Some(
                "the last good checkpoint is kept; the usual cure is a smaller lr in that stage's plan (--set), which makes that stage again",
            ),
            Self::Logits { .. } => Some(
                "weights that are not finite, or huge, cause that: look at the classifier's training, and make it again with --replace",
            ),
            Self::Features { .. } => Some(
                "weights that are not finite, or huge, cause that: take another encoder, or look at this one's training and make it again",
            ),
            Self::OtherRank { .. } => None,
            Self::Rows { .. } => Some(
                "the other rows are kept: fix what is reported above and run the same command again",
            ),
            Self::Examples { .. } => Some(
                "they may be of another classifier, threat model or data set; only the valid ones count against it",
            ),
            Self::Unread { .. } => Some("all other images were read"),
            Self::Damaged { .. } => Some("nothing was changed; what to do is said above"),
            Self::Interrupted { .. } => Some("run the same command again to go on"),
            Self::Export { .. } => Some(
                "nothing was written; with another device or --cpu-kernels portable this tells the computation from the file; please report it",
            ),
            Self::SelfTest { .. } => {
                Some("results from this device cannot be trusted; please report the lines above")
            }
        }
    }

    /// Exit code of the process: 1 where the work was tried and failed, 2 where the input is at fault, 3 where the
    /// machine is (disk full, no permission, input and output that fail).
    pub fn exit_code(&self) -> u8 {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } => match source.kind() {
                Kind::NotFound
                | Kind::NotADirectory
                | Kind::IsADirectory
                | Kind::AlreadyExists
                | Kind::InvalidInput
                | Kind::InvalidFilename => 2,
                #[cfg(unix)]
                _ if source.raw_os_error() == Some(libc::ELOOP) => 2,
                _ => 3,
            },
            Self::DeviceFailed { .. } => 3,
            Self::Diverged { .. }
            | Self::Logits { .. }
            | Self::Features { .. }
            | Self::Interrupted { .. }
            | Self::Rows { .. }
            | Self::Examples { .. }
            | Self::Damaged { .. }
            | Self::Unread { .. }
            | Self::Export { .. }
            | Self::SelfTest { .. } => 1,
            _ => 2,
        }
    }
}

/// First difference of two TOML texts in words: "it has `seed = 3`, this one `seed = 4`".
pub fn first_difference(found: &str, expected: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b);
    let at = same.count();
    let line = |lines: &[String]| match lines[at.min(lines.len())..].first() {
        Some(line) if line.is_empty() => "another table there".to_owned(),
        Some(line) => format!("`{line}`"),
        None => "nothing there".to_owned(),
    };
    format!("it has {}, this one {}", line(&found), line(&expected))
}

/// Hint for an unknown name: "did you mean …?" with the nearest known one, or the whole list.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let best = known.iter().max_by(|a, b| {
        let similarity = |name: &str| strsim::jaro_winkler(given, name);
        similarity(a).total_cmp(&similarity(b))
    });
    match best {
        Some(name) if strsim::jaro_winkler(given, name) > 0.8 => format!("did you mean {name:?}?"),
        _ => format!("known: {}", known.join(", ")),
    }
}
