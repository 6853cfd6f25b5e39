//! Arguments, nothing else.

use std::path::PathBuf;

use advcl::Pixels;
use advcl::attack::Norm;
use advcl::experiment::{Stale, Strategy};
use advcl::export;
use advcl::files::expand_home;
use advcl::nn::{self, Route, Stem};
use advcl::ranks;
use advcl::recipe::Threat;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Robust image encoders from unlabeled data.
#[derive(Parser)]
#[command(
    name = "advcl",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed or stopped, 2 bad input, 3 the machine (disk, permissions), 130 stopped at once\n\n\
    Example: advcl run quickstart"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Args, Clone)]
pub struct Shared {
    /// Run folder [default: runs/RECIPE]; running again resumes
    #[arg(long, value_name = "DIR", global = true, display_order = 100)]
    pub run: Option<PathBuf>,
    /// Compute device: cpu, gpu, gpu:1, auto, cuda, …
    #[arg(long, default_value = "cpu", global = true, display_order = 101)]
    pub device: String,
    /// CPU kernels: auto (the best), amx, avx512, avx2, neon, portable
    #[arg(
        long,
        value_enum,
        value_name = "SET",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        global = true,
        display_order = 101
    )]
    pub cpu_kernels: InstructionSet,
    /// CPU convolution: auto (direct in selftest, export), winograd, direct
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true,
        global = true,
        display_order = 101
    )]
    pub conv: ConvAlgorithm,
    /// Precision of the convolutions in pretraining
    #[arg(long, value_enum, value_name = "P", global = true, display_order = 101)]
    pub precision: Option<PrecisionName>,
    /// Shards of training batches, for ranks of MPI; sets the key
    #[arg(long, value_name = "N", global = true, display_order = 101)]
    pub shards: Option<usize>,
    /// Keep decoded images in files: auto (large sets), always, never
    #[arg(
        long,
        value_enum,
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "WHEN",
        default_value = "auto",
        global = true,
        display_order = 101
    )]
    pub cache: CacheName,
    /// Write TensorBoard event files too, to RUN/tensorboard
    #[arg(long, global = true, display_order = 102)]
    pub tensorboard: bool,
    /// Override a key of the recipe, e.g. 'seed = 1' (repeatable)
    #[arg(long, value_name = "KEY = VALUE", global = true, display_order = 102)]
    pub set: Vec<String>,
    /// Print JSON on stdout
    #[arg(long, global = true, display_order = 103)]
    pub json: bool,
    /// Say more: accuracy by class, every checked quantity
    #[arg(short, long, global = true, display_order = 104)]
    pub verbose: bool,
    /// Most images that pass an encoder at once; from the command's `MicroBatchArg`.
    #[arg(skip)]
    pub micro_batch: Option<usize>,
    /// Say nothing but results and errors
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 105
    )]
    pub quiet: bool,
}

/// Instruction set of the CPU kernels. All are offered everywhere; one that the processor lacks is refused.
#[derive(Clone, Copy, ValueEnum)]
pub enum InstructionSet {
    Auto,
    Amx,
    Avx512,
    Avx2,
    Neon,
    Portable,
}

impl InstructionSet {
    /// The name in `advcl::nn`; none for the best one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Amx => Some("amx"),
            Self::Avx512 => Some("avx512"),
            Self::Avx2 => Some("avx2"),
            Self::Neon => Some("neon"),
            Self::Portable => Some("portable"),
        }
    }
}

/// Convolution algorithm on the CPU.
#[derive(Clone, Copy, ValueEnum)]
pub enum ConvAlgorithm {
    Auto,
    Winograd,
    Direct,
}

/// Data sets whose decoded images are kept in files.
#[derive(Clone, Copy, ValueEnum)]
pub enum CacheName {
    Auto,
    Always,
    Never,
}

/// Precision of the products in convolutions.
#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionName {
    F32,
    Bf16,
    Auto,
}

#[derive(Subcommand)]
pub enum Command {
    /// Pretrain, cluster, finetune, attack; end with a table
    #[command(after_help = "Example: advcl run quickstart --set 'seed = 1' --run runs/seed1")]
    Run(Run),
    /// Pretrain the recipe's encoders, or one of them
    #[command(after_help = "Example: advcl pretrain quickstart --method simclr --run runs/a")]
    Pretrain(Pretrain),
    /// Cluster the standard encoder's features into pseudo-labels
    #[command(after_help = "Example: advcl cluster --run runs/a")]
    Cluster(Cluster),
    /// Make a classifier of each encoder in each of the recipe's modes, or of one in one
    #[command(after_help = "Example: advcl finetune --method advcl --mode slf --run runs/a")]
    Finetune(Finetune),
    /// Clean and robust accuracy of the classifiers, or of one: PGD, AutoAttack where asked
    #[command(
        after_help = "Example: advcl evaluate runs/a --method advcl --attack autoattack\n\n\
        A model file: advcl evaluate model.safetensors --data DIR --attack autoattack --radius 8/255"
    )]
    Evaluate(Evaluate),
    /// Check the files of a run folder: formats, checksums, what is stale; changes nothing
    #[command(after_help = "Example: advcl check runs/quickstart")]
    Check(Check),
    /// Copy what still holds under a changed recipe to a new run folder
    #[command(after_help = "Example: advcl fork runs/a runs/b --set 'threat.radius = \"8/255\"'")]
    Fork(Fork),
    /// All methods and modes of a recipe, over several seeds
    #[command(
        after_help = "Example: advcl compare compare-quick --method advcl,acl --seeds 0,1,2 --format md"
    )]
    Compare(Compare),
    /// A page to look at, of one run or several side by side; or their tables
    #[command(after_help = "Example: advcl report runs/quickstart -o report.html")]
    Report(Report),
    /// Watch a run grow in a browser: a small server of this machine
    #[command(after_help = "Example: advcl watch runs/quickstart")]
    Watch(Watch),
    /// Predict class probabilities for images
    #[command(
        after_help = "Example: advcl predict runs/quickstart/advcl/slf photo.png more-photos/"
    )]
    Predict(Predict),
    /// Compute features of images, as .npy, .csv or .parquet
    #[command(after_help = "Example: advcl embed runs/a/advcl photos/ -o features.npy --normalize")]
    Embed(Embed),
    /// Find images that look alike to an encoder, each with the first that it is like
    #[command(after_help = "Example: advcl duplicates runs/a/advcl photos/ --threshold 0.995")]
    Duplicates(Duplicates),
    /// Choose the unlabeled images to label next
    #[command(
        after_help = "Example: advcl label-next runs/a --count 50 -o to-label.csv --sheet to-label.png"
    )]
    LabelNext(LabelNext),
    /// Attack images, one by one: what it takes to fool a model, and how that looks
    #[command(after_help = "Example: advcl attack runs/a/advcl/slf photo.png -o attacked")]
    Attack(Attack),
    /// Look at stored adversarial examples
    #[command(
        after_help = "Example: advcl adversarial show found.safetensors --run runs/a -o pictures"
    )]
    Adversarial {
        #[command(subcommand)]
        what: AdversarialCommand,
    },
    /// Import a ResNet's weights from PyTorch: an encoder, or a classifier
    #[command(
        after_help = "Example: advcl import resnet18.pth -o teacher.safetensors\n\n\
        Then: --set 'pretrain.deacl.teacher = \"./teacher.safetensors\"' or --set 'cluster.model = \"./teacher.safetensors\"'"
    )]
    Import(Import),
    /// Export a model for other programs: ONNX, or weights with torchvision's names or ours
    #[command(
        after_help = "Example: advcl export runs/quickstart/advcl/slf --format onnx -o model.onnx"
    )]
    Export(Export),
    /// Check this machine's numbers against golden vectors
    #[command(after_help = "Example: advcl selftest --device cpu -v")]
    Selftest {
        /// Folders of golden vectors [default: the ones inside the program]
        dirs: Vec<PathBuf>,
    },
    /// What this build and this machine have
    #[command(after_help = "Example: advcl info")]
    Info,
    /// Measure speed with random weights and images
    #[command(after_help = "Example: advcl bench kernels --width 16 --batch 64")]
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// What there is: pretraining methods, finetuning modes, shipped recipes
    #[command(after_help = "Example: advcl list methods")]
    List {
        /// What to list
        #[arg(value_enum)]
        what: List,
    },
    /// Look at a data set and write a commented recipe that fits it
    #[command(after_help = "Example: advcl init my-images -o mine.toml --budget 2h")]
    Init(Init),
    /// Look at recipes
    #[command(after_help = "Example: advcl recipe show quickstart")]
    Recipe {
        #[command(subcommand)]
        what: RecipeCommand,
    },
    /// Look at data sets
    #[command(after_help = "Example: advcl data inspect my-images/ --sheet views.png")]
    Data {
        #[command(subcommand)]
        what: DataCommand,
    },
    /// Files of decoded images: list or remove them
    #[command(after_help = "Example: advcl cache clear\n\n\
        Images of large sets are decoded once, into files of ADVCL_CACHE or the user's cache folder. Removing one costs time, nothing else.")]
    Cache {
        #[command(subcommand)]
        what: CacheCommand,
    },
    /// Print completions for a shell
    #[command(
        after_help = "Example: advcl completions bash > ~/.local/share/bash-completion/completions/advcl\n\n\
        zsh: into a folder of $fpath, as _advcl; fish: into ~/.config/fish/completions, as advcl.fish"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands to a folder
    #[command(after_help = "Example: advcl man ~/.local/share/man/man1")]
    Man {
        /// Folder for the pages, advcl.1, advcl-run.1, …; pages of an earlier call are replaced
        dir: Option<PathBuf>,
    },
    /// Options that every command takes
    #[command(hide = true)]
    Options,
}

#[derive(Subcommand)]
pub enum CacheCommand {
    /// List the files
    #[command(after_help = "Example: advcl cache list")]
    List,
    /// Remove the files, or those of one data set
    #[command(after_help = "Example: advcl cache clear my-images/")]
    Clear {
        /// Data set whose files are removed [default: all]
        source: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct Check {
    /// Run folder, or folder of a comparison
    #[arg(value_name = "RUN")]
    pub folder: Option<PathBuf>,
}

#[derive(Args)]
pub struct RecipeArg {
    /// A shipped recipe's name, a file, or a run folder [default: the run folder's, else quickstart]
    pub recipe: Option<String>,
}

#[derive(Args)]
pub struct Stage {
    #[command(flatten)]
    pub recipe: RecipeArg,
    /// Only this pretraining method: a table of the recipe, as simclr or advcl
    #[arg(long)]
    pub method: Option<String>,
}

#[derive(Args)]
pub struct Row {
    #[command(flatten)]
    pub stage: Stage,
    /// Only this finetuning mode: a table of the recipe, as slf or aff
    #[arg(long)]
    pub mode: Option<String>,
}

/// Answer to results that were made with other settings or images than the command's.
#[derive(Args)]
pub struct StaleArg {
    /// Make results again that were made with other settings or images, however long they took
    #[arg(long, conflicts_with = "reuse")]
    pub replace: bool,
    /// Use such results as they are
    #[arg(long)]
    pub reuse: bool,
}

impl StaleArg {
    pub fn answer(&self) -> Stale {
        if self.replace {
            Stale::Replace
        } else if self.reuse {
            Stale::Reuse
        } else {
            Stale::Ask
        }
    }
}

#[derive(Args, Clone, Copy)]
pub struct MicroBatchArg {
    /// Let at most N images pass an encoder at once in training: less memory, more time; sets plan.micro_batch wherever
    /// plan.batch_size is larger
    #[arg(long, value_name = "N")]
    pub micro_batch: Option<usize>,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub recipe: RecipeArg,
    #[command(flatten)]
    pub stale: StaleArg,
    #[command(flatten)]
    pub micro: MicroBatchArg,
}

#[derive(Args)]
pub struct Cluster {
    #[command(flatten)]
    pub recipe: RecipeArg,
    #[command(flatten)]
    pub stale: StaleArg,
}

#[derive(Args)]
pub struct Pretrain {
    #[command(flatten)]
    pub stage: Stage,
    #[command(flatten)]
    pub stale: StaleArg,
    #[command(flatten)]
    pub micro: MicroBatchArg,
}

#[derive(Args)]
pub struct Finetune {
    #[command(flatten)]
    pub row: Row,
    #[command(flatten)]
    pub stale: StaleArg,
    #[command(flatten)]
    pub micro: MicroBatchArg,
}

#[derive(Args)]
pub struct Fork {
    /// Run folder to copy from; it stays as it is
    #[arg(value_name = "RUN")]
    pub from: PathBuf,
    /// Run folder to make
    #[arg(value_name = "NEW")]
    pub to: PathBuf,
}

#[derive(Args)]
pub struct Evaluate {
    #[command(flatten)]
    pub row: Row,
    /// Evaluate classifiers as they are, also those that contradict the recipe
    #[arg(long)]
    pub reuse: bool,
    /// Attack with these beside PGD, separated by commas: autoattack, rand, apgd-ce, apgd-dlr, apgd-t, fab-t, square, fgsm, …
    #[arg(long, value_name = "NAME")]
    pub attack: Option<String>,
    /// Evaluate a model file on the test images of this data set
    #[arg(long, value_name = "DIR", conflicts_with_all = ["method", "mode", "reuse", "measure", "verify"])]
    pub data: Option<String>,
    /// With --data: so many of the images, the same share of each class
    #[arg(long, value_name = "N", requires = "data")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub threat: ThreatArgs,
    /// Measure more: all, or a list of radius, steps, corruptions, patch, smoothing, confusion, features, calibration, transfer
    #[arg(long, value_name = "WHAT")]
    pub measure: Option<String>,
    /// Measure on so many images at most; the same as --set 'evaluate.measure_limit = N' [default: 500]
    #[arg(long, value_name = "N", requires = "measure")]
    pub measure_limit: Option<usize>,
    /// Write the adversarial examples of one row: FILE.safetensors, DIR/ (a PNG each, rounded to 8 bits) or FILE.png (a sheet)
    #[arg(long, value_name = "FILE")]
    pub save_adversarial: Option<PathBuf>,
    /// Check such a file instead: ball, box, and what the classifier says; nothing is attacked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["attack", "save_adversarial", "measure"])]
    pub verify: Option<PathBuf>,
}

/// Threat model of attacks on a model file, which has no recipe.
#[derive(Args)]
pub struct ThreatArgs {
    /// Radius of attacks on a model file, in pixels of [0, 1]: 8/255
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    pub radius: Option<Pixels>,
    /// Norm of the radius [default: linf]
    #[arg(long, value_enum)]
    pub norm: Option<NormName>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum NormName {
    Linf,
    L2,
}

impl ThreatArgs {
    /// The threat model; none without a radius.
    pub fn threat(&self) -> Option<Threat> {
        Some(Threat {
            norm: self.norm(),
            radius: self.radius.clone()?,
        })
    }

    /// The norm.
    pub fn norm(&self) -> Norm {
        match self.norm {
            Some(NormName::L2) => Norm::L2,
            Some(NormName::Linf) | None => Norm::Linf,
        }
    }
}

#[derive(Args)]
pub struct Attack {
    /// A model file, or the folder that holds it
    pub model: PathBuf,
    /// Image files, or folders of them; `-` reads a list from standard input, a path a line
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Folder for pictures of each image: adversarial, rounded to 8 bits, and the change, magnified
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Attack with this: autoattack, or some of apgd-ce, apgd-t, fab-t, square, …, separated by commas
    #[arg(long, value_name = "NAME", default_value = "apgd-ce")]
    pub attack: String,
    #[command(flatten)]
    pub threat: ThreatArgs,
    /// Class of the images [default: what the model predicts for each]
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Replace any files of the pictures' names
    #[arg(long)]
    pub replace: bool,
}

#[derive(Subcommand)]
pub enum AdversarialCommand {
    /// Print stored examples and what becomes of them in 8 bits; write them as pictures where asked
    #[command(
        after_help = "Example: advcl adversarial show found.safetensors --run runs/a -o pictures\n\n\
        Predictions need the classifier: --run RUN, or --model MODEL --data DIR as in advcl evaluate."
    )]
    Show(Show),
}

#[derive(Args)]
pub struct Show {
    /// File of advcl evaluate --save-adversarial
    pub file: PathBuf,
    /// Folder for a PNG each, rounded to 8 bits, and a list of them; or FILE.png for some of them side by side
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Model file that they are to fool
    #[arg(long, requires = "data", conflicts_with = "run")]
    pub model: Option<PathBuf>,
    /// Data set with the test images that they are made from
    #[arg(long, value_name = "DIR", requires = "model")]
    pub data: Option<String>,
}

#[derive(Args)]
pub struct Import {
    /// Weights of a ResNet: safetensors, .pt, .pth or .ckpt; names of torchvision, timm, transformers, lightly, solo-learn, MoCo, AdvCL
    pub weights: PathBuf,
    /// Model file to write
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "imported.safetensors"
    )]
    pub output: PathBuf,
    /// Replace the model file if it exists
    #[arg(long)]
    pub replace: bool,
    /// Which encoder, where the file has several: what stands before its tensors' names
    #[arg(long)]
    pub prefix: Option<String>,
    /// Names of the classes, one a line, where the file is a whole classifier [default: 0, 1, …]
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// First layer where its kernel is 3 × 3: stride 1 (cifar) or 2 (strided); 7 × 7 is known by its shape
    #[arg(long, default_value = "cifar", value_parser = PossibleValuesParser::new(["cifar", "strided"]).map(stem))]
    pub stem: Stem,
    /// Height and width of the encoder's input images: 32, or 48x96 [default: 32; 224 where the first layer is 7 × 7]
    #[arg(long, value_name = "PIXELS", value_parser = crate::sides::sides)]
    pub image_size: Option<[usize; 2]>,
    /// BatchNorm branch to use if there are several [default: pgd]
    #[arg(long, value_parser = PossibleValuesParser::new(Route::ALL.map(Route::name)).try_map(|name| name.parse::<Route>()))]
    pub route: Option<Route>,
    /// Means of the normalization, in [0, 1], one number per channel: 0.4914,0.4822,0.4465 [default: the file's]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "std")]
    pub mean: Vec<f32>,
    /// Standard deviations of the normalization
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "mean")]
    pub std: Vec<f32>,
}

#[derive(Args)]
pub struct Export {
    /// model.safetensors of a run folder, or the folder that holds it
    pub model: PathBuf,
    /// onnx: a graph; torchvision: a state dict with its names; safetensors: a model file of one BatchNorm branch
    #[arg(long, value_enum, hide_possible_values = true)]
    pub format: ExportFormat,
    /// File to write [default: the model's name, in the working directory]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub replace: bool,
    /// The encoder alone: images to features
    #[arg(long)]
    pub features: bool,
    /// BatchNorm branch [default: the model's]
    #[arg(long, value_parser = PossibleValuesParser::new(Route::ALL.map(Route::name)).try_map(|name| name.parse::<Route>()))]
    pub route: Option<Route>,
    /// Input in ONNX: float in [0, 1], or uint8
    #[arg(
        long,
        value_enum,
        value_name = "TYPE",
        default_value = "float",
        hide_possible_values = true
    )]
    pub input: ExportInput,
}

/// Format of an exported file.
#[derive(Clone, Copy, ValueEnum)]
pub enum ExportFormat {
    Torchvision,
    Onnx,
    Safetensors,
}

impl From<ExportFormat> for export::ExportFormat {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Torchvision => Self::Torchvision,
            ExportFormat::Onnx => Self::Onnx,
            ExportFormat::Safetensors => Self::Safetensors,
        }
    }
}

/// Input of an ONNX graph.
#[derive(Clone, Copy, ValueEnum)]
pub enum ExportInput {
    Float,
    Uint8,
}

impl From<ExportInput> for export::OnnxInput {
    fn from(input: ExportInput) -> Self {
        match input {
            ExportInput::Float => Self::Float,
            ExportInput::Uint8 => Self::Uint8,
        }
    }
}

/// First layer of an encoder, by one of the names that are possible.
fn stem(name: String) -> Stem {
    let mut all = Stem::ALL.into_iter();
    all.find(|stem| stem.name() == name)
        .expect("a possible name")
}

#[derive(Args)]
pub struct Compare {
    #[command(flatten)]
    pub recipe: RecipeArg,
    #[command(flatten)]
    pub stale: StaleArg,
    #[command(flatten)]
    pub micro: MicroBatchArg,
    /// Only these pretraining methods, tables of the recipe; the tables are printed, and written to no file
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub method: Vec<String>,
    /// These seeds, a run each; the same as --set 'compare.seeds = [LIST]'
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub seeds: Vec<u64>,
    /// How the tables are printed; all but text are written to the run folder too
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Text,
    Md,
    Csv,
    Json,
}

#[derive(Args)]
pub struct Report {
    /// Run folders, or folders of comparisons
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Where it goes; a report of an earlier call is replaced [default: report.html if there is none
    /// yet; md, json, csv: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace any other file of that name too
    #[arg(long)]
    pub replace: bool,
    /// What is written [default: html]
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
    /// Only this pretraining method
    #[arg(long)]
    pub method: Option<String>,
    /// Only this finetuning mode
    #[arg(long)]
    pub mode: Option<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum ReportFormat {
    Html,
    Md,
    Json,
    Csv,
}

#[derive(Args)]
pub struct Watch {
    /// Run folder, or folder of a comparison
    #[arg(value_name = "RUN")]
    pub folder: Option<PathBuf>,
    /// Port of the server; 0 takes one that is free
    #[arg(long, default_value_t = 8765)]
    pub port: u16,
    /// Address of the server; any other than this machine's own shows the run to whoever reaches it
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
}

#[derive(Args)]
pub struct Predict {
    /// model.safetensors of a run folder, or the folder that holds it
    pub model: PathBuf,
    /// Image files, or folders of them; `-` reads a list from standard input, a path a line
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// So many classes of each image [default: 3; all with -v and in JSON]
    #[arg(long, value_name = "K")]
    pub top: Option<usize>,
    /// Print a line of JSON for each image, as soon as it is known
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    pub jsonl: bool,
    /// Print comma-separated values, a line for each class of an image
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
}

#[derive(Args)]
pub struct Embed {
    /// model.safetensors of a run folder, or the folder that holds it
    pub model: PathBuf,
    /// Image files, folders of them, or data sets; `-` reads a list from standard input, a path a line
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// File to write: NAME.npy (with the paths in NAME.paths.csv), .csv or .parquet
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Scale the features of each image to length 1
    #[arg(long)]
    pub normalize: bool,
    /// Replace an existing file
    #[arg(long)]
    pub replace: bool,
}

#[derive(Args)]
pub struct Duplicates {
    /// model.safetensors of a run folder, or the folder that holds it
    pub model: PathBuf,
    /// Image files, folders of them, or data sets; `-` reads a list from standard input, a path a line
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// Smallest cosine of the features of a pair
    #[arg(long, value_name = "COSINE", default_value_t = 0.99)]
    pub threshold: f32,
}

#[derive(Args)]
pub struct LabelNext {
    #[command(flatten)]
    pub row: Row,
    /// Number of images
    #[arg(long, value_name = "N")]
    pub count: usize,
    /// Typical images of groups without a label, or smallest margins under attack, or half by each
    #[arg(long, value_enum, default_value_t = StrategyName::Coverage)]
    pub strategy: StrategyName,
    /// List to write, with the images that have labels, as data.source reads it
    #[arg(short, long, value_name = "FILE", default_value = "to-label.csv")]
    pub output: PathBuf,
    /// Contact sheet of the images, PNG
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub replace: bool,
}

/// Strategy of `label-next`.
#[derive(Clone, Copy, ValueEnum)]
pub enum StrategyName {
    Coverage,
    Uncertain,
    Mixed,
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Coverage => Self::Coverage,
            StrategyName::Uncertain => Self::Uncertain,
            StrategyName::Mixed => Self::Mixed,
        }
    }
}

#[derive(Subcommand)]
pub enum Bench {
    /// Time the CPU kernels, layer by layer, in GFLOP/s, and the fastest matrix product
    #[command(after_help = "Example: advcl bench kernels --width 16 --batch 64")]
    Kernels(BenchSetup),
    /// Time a recipe's own training steps, with peak memory; without a recipe, AdvCL's
    #[command(
        after_help = "Example: advcl bench step quickstart --method advcl --micro-batch 32\n\n\
        On random images: advcl bench step --width 16 --batch 64"
    )]
    Step(BenchStep),
    /// Time clean and PGD-20 predictions of a frozen encoder with a head in images per second
    #[command(after_help = "Example: advcl bench evaluate --width 16 --batch 64")]
    Evaluate(BenchSetup),
}

#[derive(Args)]
pub struct BenchStep {
    /// A shipped recipe's name, a file, or a run folder: its images are read, and a few of its steps taken
    #[arg(conflicts_with_all = ["width", "batch", "size", "channels", "stem"])]
    pub recipe: Option<String>,
    /// Only this pretraining method of the recipe
    #[arg(long, requires = "recipe")]
    pub method: Option<String>,
    /// Only this finetuning mode of the recipe, one that trains the encoder
    #[arg(long, requires = "recipe", conflicts_with = "method")]
    pub mode: Option<String>,
    #[command(flatten)]
    pub micro: MicroBatchArg,
    #[command(flatten)]
    pub setup: BenchSetup,
}

/// Sizes of a benchmark. The encoder is a ResNet-18; weights and images are random.
#[derive(Args)]
pub struct BenchSetup {
    /// Channels of the first stage
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    /// Images per batch
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Height and width of the images
    #[arg(long, default_value_t = 32)]
    pub size: usize,
    /// Channels of the images, 1 or 3
    #[arg(long, default_value_t = 3)]
    pub channels: usize,
    /// First layer: 3 × 3 at stride 1 or 2, or 7 × 7 at stride 2 with max pooling
    #[arg(long, default_value = "cifar", value_parser = PossibleValuesParser::new(Stem::ALL.map(Stem::name)).map(stem))]
    pub stem: Stem,
    /// Number of measurements; the median is printed
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
}

#[derive(Subcommand)]
pub enum RecipeCommand {
    /// Print a recipe, overrides applied; its comments stay
    #[command(after_help = "Example: advcl recipe show quickstart --set 'seed = 1' > mine.toml")]
    Show(RecipeArg),
    /// Read a recipe and say whether it can be carried out
    #[command(after_help = "Example: advcl recipe check mine.toml")]
    Check(RecipeArg),
    /// List the shipped recipes
    #[command(after_help = "Example: advcl recipe list --json")]
    List,
    /// Print every key that a recipe can have: type, default, meaning
    #[command(after_help = "Example: advcl recipe keys pretrain.advcl")]
    Keys {
        /// Only this key and those below it
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum List {
    Methods,
    Modes,
    Recipes,
}

#[derive(Subcommand)]
pub enum DataCommand {
    /// Print sizes, formats, classes, damaged images, copies; draw a contact sheet where asked
    #[command(after_help = "Example: advcl data inspect my-images/ --sheet views.png")]
    Inspect(Inspect),
}

#[derive(Args)]
pub struct Init {
    /// Name or path of a data set
    pub source: String,
    /// Recipe to write [default: print it]; an existing file is never replaced
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Weights that pretraining begins at: a model file of advcl import or of a run
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Time that a run may take: 2h, 90m, 45s
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::duration::duration)]
    pub budget: std::time::Duration,
}

#[derive(Args)]
pub struct Inspect {
    /// Name or path of a data set [default: the recipe's]
    pub source: Option<String>,
    /// Recipe of the views and of the threat model
    #[arg(long, default_value = "quickstart")]
    pub recipe: String,
    /// Model to attack for an adversarial view
    #[arg(long, requires = "sheet")]
    pub model: Option<PathBuf>,
    /// Contact sheet of views to write; a sheet of an earlier call is replaced
    #[arg(long, value_name = "PNG")]
    pub sheet: Option<PathBuf>,
    /// Replace any other file of that name too
    #[arg(long)]
    pub replace: bool,
    /// Rows of the contact sheet
    #[arg(long, default_value_t = 10)]
    pub rows: usize,
}

impl Command {
    /// Whether ranks share its work; the first one does everything else.
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Run(_)
                | Self::Pretrain(_)
                | Self::Cluster(_)
                | Self::Finetune(_)
                | Self::Evaluate(_)
                | Self::Compare(_)
                | Self::Embed(_)
                | Self::Selftest { .. }
                | Self::Bench {
                    what: Bench::Step(_)
                }
        )
    }

    /// Whether the command has a recipe, or images, whose keys can be overridden.
    pub fn reads_overrides(&self) -> bool {
        !matches!(
            self,
            Self::Import(_)
                | Self::Export(_)
                | Self::Selftest { .. }
                | Self::Watch(_)
                | Self::Info
                | Self::List { .. }
                | Self::Cache { .. }
                | Self::Completions { .. }
                | Self::Man { .. }
                | Self::Options
        )
    }

    /// Most images that shall pass an encoder at once, where the command trains and was told.
    pub fn micro_batch(&self) -> Option<usize> {
        let micro = match self {
            Self::Run(what) => what.micro,
            Self::Pretrain(what) => what.micro,
            Self::Finetune(what) => what.micro,
            Self::Compare(what) => what.micro,
            Self::Bench {
                what: Bench::Step(what),
            } => what.micro,
            _ => return None,
        };
        micro.micro_batch
    }
}

impl Shared {
    /// Shards of a batch that no recipe cuts: as many as there are ranks unless the option says otherwise.
    pub fn shards(&self) -> usize {
        self.shards.unwrap_or_else(ranks::count)
    }

    /// Whether the CPU was named as the device.
    pub fn on_cpu(&self) -> bool {
        self.device.split(':').next() == Some("cpu")
    }

    /// The precision that was asked for.
    pub fn precision(&self) -> nn::Precision {
        match self.precision {
            Some(PrecisionName::Bf16) => nn::Precision::Bf16,
            Some(PrecisionName::Auto) => nn::Precision::Auto,
            Some(PrecisionName::F32) | None => nn::Precision::F32,
        }
    }

    /// Overrides of the recipe: those of `--set`, after the options that stand for a key.
    pub fn with_options(mut self) -> Self {
        let precision = self.precision.and_then(|name| name.to_possible_value());
        let precision = precision.map(|value| format!("precision = '{}'", value.get_name()));
        let shards = self.shards.map(|shards| format!("shards = {shards}"));
        let options = precision.into_iter().chain(shards);
        self.set.splice(..0, options);
        // After an equals sign a shell expands nothing.
        let expanded = |run: PathBuf| match run.to_str() {
            Some(text) => PathBuf::from(expand_home(text)),
            None => run,
        };
        self.run = self.run.map(expanded);
        self
    }
}
