//! The identity key: made at the first start, kept private, never replaced.
//!
//! It is written beside its place, flushed, and moved into it, so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::create_data_dir;
use crate::error::ControlError;
use crate::peer::{IDENTITY_LEN, Identity};
use crate::random::Randomness;

/// Its name in the data directory.
pub(super) const IDENTITY_FILE: &str = "identity.key";

/// The identity of a data directory in which a daemon has run.
///
/// # Errors
/// [`ControlError`] if there is none, or it is damaged.
pub(in crate::driver) fn known_identity(data_dir: &Path) -> Result<Identity, ControlError> {
    let path = data_dir.join(IDENTITY_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            keep_private(&path);
            read(path, &bytes)
        }
        Err(source) => Err(ControlError::ReadIdentity { path, source }),
    }
}

/// Takes up the identity of this data directory, or makes one at the first start.
///
/// # Errors
/// [`ControlError`] if the directory or the key cannot be read, written, or is damaged.
pub fn load_identity(data_dir: &Path) -> Result<Identity, ControlError> {
    match known_identity(data_dir) {
        Err(ControlError::ReadIdentity { path, source })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            create_data_dir(data_dir)?;
            let identity = Identity::generate(&mut Randomness::system());
            write_secret(data_dir, &path, identity.to_bytes().as_slice())
                .map_err(|source| ControlError::WriteIdentity { path, source })?;
            Ok(identity)
        }
        known => known,
    }
}

fn read(path: PathBuf, bytes: &[u8]) -> Result<Identity, ControlError> {
    let key: &[u8; IDENTITY_LEN] = bytes
        .try_into()
        .map_err(|_| ControlError::DamagedIdentity {
            path,
            len: bytes.len(),
            wanted: IDENTITY_LEN,
        })?;
    Ok(Identity::from_bytes(key))
}

/// Takes the key away from users who could read it; a restored backup or a careless `chmod` may have let them.
fn keep_private(path: &Path) {
    let Ok(mode) = fs::metadata(path).map(|found| found.permissions().mode() & 0o777) else {
        return;
    };
    if mode & 0o077 == 0 {
        return;
    }
    let mended = fs::set_permissions(path, Permissions::from_mode(0o600));
    tracing::warn!(
        path = %path.display(),
        mode = format!("{mode:o}"),
        mended = mended.is_ok(),
        "other users could read the identity key: if one may have, `weft reset` makes a new identity"
    );
}

fn write_secret(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}
