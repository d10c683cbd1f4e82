//! Small files that survive kill -9: written beside, then renamed.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

pub(crate) fn state_error(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| {
        let fix = match source.kind() {
            std::io::ErrorKind::StorageFull => "the disk is full: free some space, nothing acknowledged is lost",
            std::io::ErrorKind::PermissionDenied => "make it writable for this user, or choose another --data-dir",
            _ => "check the path and the disk",
        };
        Error::State { path, doing, fix, source }
    }
}

/// Makes a folder.
pub(crate) fn folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(state_error(path, "cannot make the folder"))
}

/// Replaces the file by these bytes, or leaves it as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(state_error(path, "cannot write"))
}

/// Replaces the file by a value as JSON.
pub(crate) fn save(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    replace(path, &serde_json::to_vec(value).expect("state is plain data"))
}

/// Reads a value; the default when there is no file.
pub(crate) fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Error> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| Error::Broken {
            what: format!("{} is damaged: {error}", path.display()),
            fix: "remove the data folder and start over (--fresh)".into(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(state_error(path, "cannot read")(error)),
    }
}
