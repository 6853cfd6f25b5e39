//! Entries of a listing of files.

/// A file or folder in a folder or an archive.
pub(super) struct Entry {
    /// Path relative to the store, with `/` between the parts and without `.` and `..`.
    pub(super) name: String,
    /// Whether it is a folder, not a file.
    pub(super) is_folder: bool,
    /// Whether it is a file that this program wrote.
    pub(super) is_own: bool,
    /// Whether it is an image by its name, or by its content where the name says nothing.
    pub(super) is_image: bool,
}
