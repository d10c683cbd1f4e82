//! Where finished files go.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Somewhere that keeps files by key. A file is written to the disk first and kept when it is whole.
pub trait Place: Sync {
    /// How the file is called for people.
    fn path(&self, key: &str) -> PathBuf;
    /// Whether it is there.
    ///
    /// # Errors
    /// When that cannot be told.
    fn has(&self, key: &str) -> io::Result<bool>;
    /// Its bytes, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>>;
    /// Where the file is to be written while it is not whole.
    ///
    /// # Errors
    /// When there is no such place.
    fn unfinished(&self, key: &str) -> io::Result<PathBuf>;
    /// Keeps the finished file under its key.
    ///
    /// # Errors
    /// When it is not kept.
    fn keep(&self, unfinished: &Path, key: &str) -> io::Result<()>;
}

/// A folder.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Place for Folder {
    fn path(&self, key: &str) -> PathBuf {
        self.0.join(key)
    }

    fn has(&self, key: &str) -> io::Result<bool> {
        self.path(key).try_exists()
    }

    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(key)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn unfinished(&self, key: &str) -> io::Result<PathBuf> {
        let path = self.path(key);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(folder)?;
        Ok(folder.join(format!(".{name}.unfinished")))
    }

    fn keep(&self, unfinished: &Path, key: &str) -> io::Result<()> {
        fs::rename(unfinished, self.path(key))
    }
}
