//! The recipe that a run folder keeps, and where the files that it names are now.
//!
//! `recipe.toml` is the program's file unless the user put it there: then it is read and never written,
//! and the recipe with all overrides stands beside it.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::files::{hash, read_text, write_atomic};
use crate::recipe::{Recipe, is_path};
use crate::run::{About, FORMAT, Layout, Place};

/// Recipe of a run folder.
pub struct FolderRecipe {
    /// The recipe, with the files that it names where they are now.
    pub recipe: Recipe,
    /// File that it was read from.
    pub path: PathBuf,
}

/// First words of the file that stands beside a user's own recipe.
const RESOLVED: &str =
    "# Written by advcl: recipe.toml with the overrides of the last command. Made from";

/// Text of a folder's recipe, and the file that it stands in.
struct Source {
    text: String,
    path: PathBuf,
    about: Option<About>,
}

/// Whether `text` is what the program wrote, and not the user.
fn is_ours(text: &str, about: Option<&About>) -> bool {
    match about {
        None => false,
        Some(about) => match &about.recipe_hash {
            Some(written) => *written == hash(text.as_bytes()),
            // An older folder: the program writes every key, in one order, without a comment.
            None => Recipe::parse("recipe.toml", text, &[]).is_ok_and(|r| r.to_toml() == text),
        },
    }
}

fn source(layout: &Layout) -> Result<Option<Source>> {
    let (path, resolved) = (layout.recipe(), layout.resolved_recipe());
    let about = About::load(layout)?;
    let text = if path.exists() {
        Some(read_text(&path)?)
    } else {
        None
    };
    let own = text
        .as_deref()
        .is_some_and(|text| is_ours(text, about.as_ref()));
    if !own && resolved.exists() {
        let beside = read_text(&resolved)?;
        let first = beside.lines().next().unwrap_or_default();
        // The user changed the recipe since: it is what counts.
        let current = text
            .as_ref()
            .is_none_or(|text| first == format!("{RESOLVED} {}.", hash(text.as_bytes())));
        if current {
            return Ok(Some(Source {
                text: beside,
                path: resolved,
                about,
            }));
        }
    }
    Ok(text.map(|text| Source { text, path, about }))
}

/// Whether a run has begun in `folder`.
pub fn has_begun(folder: &Path) -> bool {
    let layout = Layout::new(folder);
    layout.about().exists() && (layout.recipe().exists() || layout.resolved_recipe().exists())
}

/// Whether `folder` holds a recipe: a run's, or the user's for a run that is to begin there.
pub fn has_recipe(folder: &Path) -> bool {
    let layout = Layout::new(folder);
    layout.recipe().exists() || layout.resolved_recipe().exists()
}

impl FolderRecipe {
    /// Reads the recipe of a run folder with some overrides; none where it has none.
    ///
    /// Paths in it are looked for where they were relative to the folder, which may have been moved
    /// together with them; then where they were; then relative to the working directory.
    ///
    /// # Errors
    /// [`Error::Recipe`], [`Error::Io`]; [`Error::Run`] for a folder of a later version.
    pub fn load(folder: &Path, overrides: &[String]) -> Result<Option<Self>> {
        let layout = Layout::new(folder);
        let Some(source) = source(&layout)? else {
            return Ok(None);
        };
        let place = source.path.display().to_string();
        let places = Places {
            folder,
            about: source.about.as_ref(),
        };
        let relocate = |table: &mut Table| places.relocate(table);
        let recipe = Recipe::parse_relocated(&place, &source.text, relocate, overrides)?;
        Ok(Some(Self {
            recipe,
            path: source.path,
        }))
    }
}

/// Refuses images of a folder's recipe that are in none of the places where they were, naming these.
///
/// # Errors
/// [`Error::Data`]; [`Error::Io`], [`Error::Run`] for a folder that cannot be read.
pub fn require_images(folder: &Path, recipe: &Recipe) -> Result<()> {
    let about = About::load(&Layout::new(folder))?;
    let places = Places {
        folder,
        about: about.as_ref(),
    };
    recipe
        .sources()
        .try_for_each(|source| places.require(source))
}

/// Where the files of a folder's recipe were.
struct Places<'a> {
    folder: &'a Path,
    about: Option<&'a About>,
}

impl Places<'_> {
    fn place(&self, written: &str) -> Option<&Place> {
        self.about?.places.get(written)
    }

    /// The file in one of the places where it was.
    fn found(&self, written: &str) -> Option<PathBuf> {
        let candidates = self.place(written)?.candidates(self.folder);
        let mut candidates = candidates.into_iter();
        candidates.find_map(|path| path.canonicalize().ok())
    }

    /// Path of the file now, where it is not simply what is written.
    fn now(&self, written: &str) -> Option<String> {
        let found = self.found(written)?;
        let as_written = Path::new(written).canonicalize();
        let same = as_written.is_ok_and(|path| path == found);
        // A recipe has no other names than UTF-8.
        found.to_str().filter(|_| !same).map(str::to_owned)
    }

    fn relocate(&self, table: &mut Table) {
        for (table_name, key) in [
            ("data", "source"),
            ("downstream", "source"),
            ("cluster", "model"),
            ("cluster", "labels_file"),
        ] {
            if let Some(Value::Table(inner)) = table.get_mut(table_name)
                && let Some(Value::String(text)) = inner.get_mut(key)
                && let Some(now) = self.now(text)
            {
                *text = now;
            }
        }
        if let Some(Value::Table(data)) = table.get_mut("data")
            && let Some(Value::Array(sources)) = data.get_mut("unlabeled")
        {
            for source in sources {
                if let Value::String(text) = source
                    && let Some(now) = self.now(text)
                {
                    *text = now;
                }
            }
        }
        if let Some(Value::Table(methods)) = table.get_mut("pretrain") {
            for (_, settings) in methods.iter_mut() {
                let Value::Table(settings) = settings else {
                    continue;
                };
                for (_, value) in settings.iter_mut() {
                    if let Value::String(text) = value
                        && is_path(text)
                        && let Some(now) = self.now(text)
                    {
                        *text = now;
                    }
                }
            }
        }
    }

    /// Refuses images that were moved to where nobody knows.
    fn require(&self, written: &str) -> Result<()> {
        let Some(place) = self.place(written) else {
            return Ok(());
        };
        if Path::new(written).exists() || self.now(written).is_some() {
            return Ok(());
        }
        if let Some(found) = self.found(written) {
            let problem = format!(
                "found in {}, and a recipe names no path that is not UTF-8",
                found.display()
            );
            let hint = "rename the folder, or work in it: --set 'data.source = \"PATH\"' with a path that begins there";
            return Err(Error::data(written, problem, hint));
        }
        let looked = place.candidates(self.folder).into_iter();
        let looked: Vec<String> = looked.map(|path| path.display().to_string()).collect();
        let problem = format!(
            "moved or deleted: expected in {}, found in none",
            looked.join(" or ")
        );
        let hint =
            "--set 'data.source = \"PATH\"' names where it is now; what was made from it stays";
        Err(Error::data(written, problem, hint))
    }
}

/// Keeps the recipe of a command in its folder, together with the tables of methods and modes that the
/// folder's recipe has and this one has not: their results are still there.
///
/// # Errors
/// [`Error::Io`], [`Error::Run`].
pub fn save(layout: &Layout, recipe: &Recipe, mut about: About) -> Result<()> {
    let folder = layout.root();
    let before = FolderRecipe::load(folder, &[]).ok().flatten();
    let whole = joined(recipe, before.as_ref().map(|before| &before.recipe));
    let mut wanted = about.clone();
    wanted.format = FORMAT;
    for path in whole.paths() {
        if let Some(place) = Place::of(Path::new(path), folder) {
            wanted.places.insert(path.to_owned(), place);
        }
    }
    let same = before.as_ref().is_some_and(|before| before.recipe == whole);
    let (path, text) = (layout.recipe(), whole.to_toml());
    if same && about.recipe_hash.is_none() && read_text(&path).is_ok_and(|there| there == text) {
        // A process that was stopped in between wrote the recipe, and not yet whose it is.
        wanted.recipe_hash = Some(hash(text.as_bytes()));
    }
    if !same {
        let users = if path.exists() {
            let there = read_text(&path)?;
            (!is_ours(&there, Some(&about))).then_some(there)
        } else {
            None
        };
        match users {
            Some(users) => {
                let head = format!("{RESOLVED} {}.\n", hash(users.as_bytes()));
                write_atomic(&layout.resolved_recipe(), (head + &text).as_bytes())?;
            }
            None => {
                wanted.recipe_hash = Some(hash(text.as_bytes()));
                // First what tells whose file it is: killed in between, the old text is the user's at worst.
                write_atomic(&path, text.as_bytes())?;
            }
        }
    }
    if !layout.about().exists() || wanted != about {
        about = wanted;
        about.store(layout)?;
    }
    Ok(())
}

/// `recipe` with the methods and modes that only `before` has.
fn joined(recipe: &Recipe, before: Option<&Recipe>) -> Recipe {
    let Some(before) = before else {
        return recipe.clone();
    };
    let table = |recipe: &Recipe| Table::try_from(recipe).expect("tables of plain values");
    let (mut whole, before) = (table(recipe), table(before));
    for name in ["pretrain", "finetune"] {
        let (Some(Value::Table(whole)), Some(Value::Table(before))) =
            (whole.get_mut(name), before.get(name))
        else {
            continue;
        };
        for (key, value) in before {
            if !whole.contains_key(key) {
                whole.insert(key.clone(), value.clone());
            }
        }
    }
    let seeds = |table: &Table| -> Vec<Value> {
        let seeds = table
            .get("compare")
            .and_then(|compare| compare.get("seeds"));
        seeds.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let more = seeds(&before);
    if let Some(Value::Array(seeds)) = whole
        .get_mut("compare")
        .and_then(|compare| compare.get_mut("seeds"))
    {
        let more: Vec<Value> = more
            .into_iter()
            .filter(|seed| !seeds.contains(seed))
            .collect();
        seeds.extend(more);
    }
    if !whole.contains_key("cluster") {
        let cluster = before.get("cluster").cloned();
        whole.extend(cluster.map(|cluster| ("cluster".to_owned(), cluster)));
    }
    let text = toml::to_string(&whole).expect("tables of plain values");
    // Methods that do not go together with the new recipe stay out of it; their files stay too.
    Recipe::parse("recipe", &text, &[]).unwrap_or_else(|_| recipe.clone())
}
