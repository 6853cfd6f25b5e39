//! Files that appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::{random, ranks};

/// Largest text file in bytes that is read: a recipe, the results of a classifier. Far above any real
/// one.
pub const MAX_TEXT: u64 = 1 << 28;

/// A path as a shell would have expanded it: `~/` is the home folder.
pub fn expand_home(path: &str) -> String {
    let home = std::env::var("HOME").unwrap_or_default();
    match path.strip_prefix("~/") {
        Some(rest) if !home.is_empty() => format!("{}/{rest}", home.trim_end_matches('/')),
        _ => path.to_owned(),
    }
}

/// Opens a regular file for reading, at once: a pipe, a socket or a device, which might never have an
/// end, is refused.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
pub fn open(path: &Path) -> Result<File> {
    // Waiting for a writer is what opening a pipe does by default.
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(Error::io("read", path))?;
    require_regular(&file, path)?;
    Ok(file)
}

/// Opens a file of the program's own for appending, and makes it where it is missing. A link is never
/// followed, and what is there is never shortened.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
pub fn open_own(path: &Path) -> Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
        return Err(not_regular(path, "a symbolic link"));
    }
    let mut options = File::options();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW);
    let file = options.open(path).map_err(Error::io("write", path))?;
    require_regular(&file, path)?;
    Ok(file)
}

/// Reads a whole regular file.
///
/// # Errors
/// [`Error::Io`], also where memory does not suffice; [`Error::Format`] for anything but a regular file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut file = open(path)?;
    file.read_to_end(&mut content)
        .map_err(Error::io("read", path))?;
    Ok(content)
}

/// Reads a whole text file of at most [`MAX_TEXT`] bytes.
///
/// # Errors
/// As [`read`]; [`Error::Format`] for a longer file and for bytes that are no UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut content = Vec::new();
    open(path)?
        .take(MAX_TEXT + 1)
        .read_to_end(&mut content)
        .map_err(Error::io("read", path))?;
    if content.len() as u64 > MAX_TEXT {
        let expected = format!("a text of at most {MAX_TEXT} bytes");
        return Err(Error::format(path, "size", expected, "more"));
    }
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = content[..] {
        return Err(Error::format(
            path,
            "byte 0",
            "text in UTF-8",
            "UTF-16: save it as UTF-8",
        ));
    }
    // A byte order mark, as editors of Windows put it there.
    if content.starts_with("\u{feff}".as_bytes()) {
        content.drain(..3);
    }
    String::from_utf8(content).map_err(|error| {
        let place = format!("byte {}", error.utf8_error().valid_up_to());
        Error::format(path, place, "text in UTF-8", "other bytes")
    })
}

/// The first bytes of a regular file, so many at most.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
pub fn beginning(path: &Path, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    open(path)?
        .take(length as u64)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    Ok(bytes)
}

fn require_regular(file: &File, path: &Path) -> Result<()> {
    let about = file.metadata().map_err(Error::io("read", path))?;
    match about.is_file() {
        true => Ok(()),
        false => Err(not_regular(path, kind_of(about.file_type()))),
    }
}

fn not_regular(path: &Path, found: &str) -> Error {
    Error::format(path, "file", "a regular file", found)
}

/// Kind of what is no regular file, in words.
fn kind_of(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    "a device"
}

/// Writes a whole file of the program's own: to a temporary name in the same folder, synced, renamed,
/// and the folder synced, so that no crash and no full disk leaves half a file under the real name. A
/// link of that name is replaced, not followed.
///
/// # Errors
/// [`Error::Io`].
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    changing(path, || write_here(path, content))
}

/// Writes a file like [`write_atomic`], but on the rank that calls it, which alone has this file.
///
/// # Errors
/// [`Error::Io`].
pub fn write_here(path: &Path, content: &[u8]) -> Result<()> {
    write_whole(path, content, true).map_err(Error::io("write", path))
}

/// Changes a file or folder, on the first rank for all.
///
/// # Errors
/// As [`ranks::first`].
pub fn changing(path: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    // Its name alone: temporary folders of ranks differ.
    let name = path.file_name().unwrap_or_default();
    ranks::first(&name.to_string_lossy(), work)
}

/// Writes a whole file that must not be there, as [`write_atomic`]; what appeared there meanwhile stays as it is.
///
/// # Errors
/// [`Error::Io`], of the kind `AlreadyExists` where it is there.
pub fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    changing(path, || {
        write_whole(path, content, false).map_err(Error::io("write", path))
    })
}

fn write_whole(path: &Path, content: &[u8], replace: bool) -> io::Result<()> {
    let folder = folder_of(path);
    let write = || -> io::Result<()> {
        let mut file = temporary_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        match replace {
            true => file.persist(path)?,
            false => file.persist_noclobber(path)?,
        };
        sync_folder(folder)
    };
    write().map_err(without_path)
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file under a temporary name.
fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(PART);
    // Temporary files are private by default; a run folder's are ordinary ones (the umask still
    // applies).
    #[cfg(unix)]
    let permissions = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    builder.tempfile_in(folder)
}

/// A file that the user named, written piece by piece, with what [`write_output`] promises: nothing appears under its name
/// before [`Output::finish`].
pub struct Output {
    file: tempfile::NamedTempFile,
    path: PathBuf,
    /// Whether it is a pipe or a device, which gets the content in the end.
    through: bool,
}

impl Output {
    /// Begins a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("write", path)(without_path(error));
        let (path, folder, through) = match Place::of(path)? {
            Place::File(real) => (real.clone(), folder_of(&real).to_path_buf(), false),
            Place::Through => (path.to_path_buf(), std::env::temp_dir(), true),
        };
        Ok(Self {
            file: temporary_in(&folder).map_err(failed)?,
            path,
            through,
        })
    }

    /// Gives the file its name, or its content to the pipe or device of that name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        let Self {
            mut file,
            path,
            through,
        } = self;
        let mut finish = || -> io::Result<()> {
            if through {
                file.rewind()?;
                let mut target = File::options().append(true).open(&path)?;
                return io::copy(file.as_file_mut(), &mut target).map(drop);
            }
            file.as_file().sync_all()
        };
        let mut whole = finish();
        if !through {
            let keep = |()| file.persist(&path).map(drop).map_err(io::Error::from);
            whole = whole
                .and_then(keep)
                .and_then(|()| sync_folder(folder_of(&path)));
        }
        whole.map_err(|error| Error::io("write", &path)(without_path(error)))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Output {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Makes a rename in a folder last through a power failure, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Folders that may be written and not read; file systems without a sync of folders.
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Writes a file that the user named, whatever it is: a regular file as [`write_atomic`], the file
/// behind a link and not the link, and into a pipe or a device.
///
/// # Errors
/// [`Error::Io`].
pub fn write_output(path: &Path, content: &[u8]) -> Result<()> {
    match Place::of(path)? {
        Place::File(real) => write_atomic(&real, content),
        Place::Through => changing(path, || {
            let opened = File::options().append(true).open(path);
            opened
                .and_then(|mut file| file.write_all(content))
                .map_err(Error::io("write", path))
        }),
    }
}

/// Destination of the content of a file that the user named.
enum Place {
    /// A file of this name: the user's, or that of the file behind a link.
    File(PathBuf),
    /// The thing that is there already: see [`is_written_through`].
    Through,
}

impl Place {
    fn of(path: &Path) -> Result<Self> {
        Ok(match fs::metadata(path) {
            Ok(about) if is_written_through(path, &about) => Self::Through,
            Ok(_) if fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) => {
                Self::File(fs::canonicalize(path).map_err(Error::io("write", path))?)
            }
            _ => Self::File(path.to_path_buf()),
        })
    }
}

/// Names under which a process finds its standard output and its standard error.
const STREAMS: [&str; 6] = [
    "/dev/stdout",
    "/dev/stderr",
    "/dev/fd/1",
    "/dev/fd/2",
    "/proc/self/fd/1",
    "/proc/self/fd/2",
];

/// Whether content goes into what is there, and no new file takes its place: into a pipe or a device, and into the file of a
/// redirected standard stream, which is the shell's; another one of its name would not be what the shell reads. Any other
/// regular file is one for its user, also below /dev and /proc.
fn is_written_through(path: &Path, about: &fs::Metadata) -> bool {
    let is_stream = || STREAMS.iter().any(|name| path == Path::new(name));
    !about.is_dir() && (!about.is_file() || is_stream())
}

/// End of the names of files that are being written.
const PART: &str = ".part";

/// Whether a file has the name of one that is being written: `.XXXXXX.part`.
pub(crate) fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let random = name.and_then(|name| name.strip_prefix('.')?.strip_suffix(PART));
    random.is_some_and(|random| random.len() == 6 && random.chars().all(char::is_alphanumeric))
}

/// Removes what a process that was killed while it wrote left in a folder: `.XXXXXX.part`. Nothing of
/// that name is written by anyone while the folder's lock is held.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_parts(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        let (path, regular) = (
            entry.path(),
            entry.file_type().is_ok_and(|kind| kind.is_file()),
        );
        if is_part(&path) && regular {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// An error of `tempfile` without the temporary name at its end, which means nothing to a user.
fn without_path(error: io::Error) -> io::Error {
    let (number, text) = (error.raw_os_error(), error.to_string());
    match (number, text.split_once(" at path ")) {
        (Some(number), _) => io::Error::from_raw_os_error(number),
        (None, Some((problem, _))) => io::Error::new(error.kind(), problem.to_owned()),
        (None, None) => error,
    }
}

/// Refuses an output where writing it would lose a file.
///
/// A file that is one of the `inputs`, or lies in a folder among them, is never replaced, whatever
/// links and spellings lead to it; any other existing file only where `replace` is true. Pipes,
/// devices and standard streams are written to. `option` is the option that names the output, for the hint.
///
/// # Errors
/// [`Error::Output`].
pub fn check_output(path: &Path, option: &str, inputs: &[&Path], replace: bool) -> Result<()> {
    let refuse = |problem: String, hint: String| {
        Err(Error::Output {
            path: path.to_path_buf(),
            problem,
            hint,
        })
    };
    let another = format!("name another file with {option}");
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => return refuse("it is a folder".to_owned(), another),
        Ok(about) if is_written_through(path, &about) => return Ok(()),
        Err(_) if fs::symlink_metadata(path).is_err() => return Ok(()),
        Err(_) => {
            let problem = "it is a link that leads nowhere".to_owned();
            return refuse(problem, format!("remove it, or {another}"));
        }
        Ok(_) => {}
    }
    let is_in = |input: &Path| match (fs::canonicalize(path), fs::canonicalize(input)) {
        (Ok(output), Ok(input)) => output.starts_with(input),
        _ => false,
    };
    if let Some(input) = inputs.iter().find(|input| is_in(input)) {
        let problem = format!("it belongs to the input {}", input.display());
        return refuse(problem, another);
    }
    if !replace {
        let hint = format!("{another}, or replace this one with --replace");
        return refuse("the file exists already".to_owned(), hint);
    }
    Ok(())
}

/// Writes a value as indented JSON, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, to_json(value).as_bytes())
}

/// A value as indented JSON with a line break at its end.
fn to_json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain values");
    text.push('\n');
    text
}

/// Serializes a path as text, for `serialize_with`: names that are no UTF-8 are shown as well as they can be, whereas serde refuses
/// them. For readers; a path that is to be opened again is kept as [`Path::to_str`] gives it, or not at all.
pub fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Serializes a path that may be missing, as [`as_text`].
pub fn as_optional_text<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with line and column.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    parse_json(&read_text(path)?, path)
}

/// As [`read_json`], from a file's content; `path` is for messages.
///
/// # Errors
/// [`Error::Format`].
pub fn parse_json<T: for<'de> Deserialize<'de>>(text: &str, path: &Path) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let expected = "what this version writes there";
        Error::format(path, place, expected, error.to_string())
    })
}

/// Beginning of a checksum, before its eight digits.
const CRC: &str = "crc32:";

/// Checksum of some parts of a file, one after the other: CRC-32.
pub(crate) fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut crc = flate2::Crc::new();
    parts.into_iter().for_each(|part| crc.update(part));
    format!("{CRC}{:08x}", crc.sum())
}

/// JSON without what does not matter: spaces and the order of keys. Another program may have written the file anew.
pub(crate) fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(entries) => {
                let entries: BTreeMap<&String, Value> = entries
                    .iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect();
                let entries = entries.into_iter();
                Value::Object(entries.map(|(key, value)| (key.clone(), value)).collect())
            }
            Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

/// Refuses a file that is not what was written.
///
/// # Errors
/// [`Error::Checksum`].
pub(crate) fn require_checksum(expected: &str, found: &str, path: &Path) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Checksum {
        path: path.to_path_buf(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    })
}

/// Short hash of some bytes, to be compared with another one: FNV-1a, which tells accidents apart and not
/// attacks.
pub fn hash(bytes: &[u8]) -> String {
    format!("{HASH}{:016x}", random::fingerprint(bytes))
}

/// Beginning of every hash.
const HASH: &str = "fnv1a-";

/// Whether a text is one that [`hash`] makes.
pub fn is_hash(text: &str) -> bool {
    let digits = text.strip_prefix(HASH);
    digits.is_some_and(|digits| digits.len() == 16 && digits.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn regular_files_below_dev_and_proc_are_guarded_and_replaced_as_any_other() {
        let mut folders = vec![tempfile::tempdir().expect("a folder")];
        folders.extend(tempfile::tempdir_in("/dev/shm"));
        for folder in &folders {
            let file = folder.path().join("x.csv");
            fs::write(&file, "old").expect("a file");
            let opened = File::open(&file).expect("a file");
            let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
            let below = file.strip_prefix("/").expect("a whole path");
            let through = Path::new("/proc/self/root").join(below);
            let names = [
                file.clone(),
                through,
                format!("/proc/self/fd/{number}").into(),
                format!("/dev/fd/{number}").into(),
            ];
            let refused = |name: &Path, inputs: &[&Path], replace, words: &str| {
                let error = check_output(name, "-o", inputs, replace).expect_err(words);
                assert!(error.to_string().contains(words), "{error}");
            };
            for name in &names {
                refused(name, &[], false, "the file exists already");
                refused(name, &[&file], true, "it belongs to the input");
                refused(name, &[folder.path()], true, "it belongs to the input");
                check_output(name, "-o", &[], true).expect("to be replaced");
            }
            for name in &names[..2] {
                write_output(name, b"new").expect("a file");
                assert_eq!(fs::read_to_string(&file).expect("a file"), "new");
                let mut output = Output::create(name).expect("a file");
                output.write_all(b"newer").expect("a file");
                output.finish().expect("a file");
                assert_eq!(fs::read_to_string(&file).expect("a file"), "newer");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_standard_streams_are_written_through() {
        for name in ["/dev/null", "/dev/stdout", "/dev//stderr"] {
            let path = Path::new(name);
            check_output(path, "-o", &[], false).expect(name);
            assert!(matches!(Place::of(path), Ok(Place::Through)), "{name}");
        }
    }
}
