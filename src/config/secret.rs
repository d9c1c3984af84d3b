//! The keys that tokens are verified with: secrets from the environment or a file, never an
//! argument, and public keys from files. A secret leaves this file only as a key.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Config, Error, Sources};
use crate::auth::{AuthConfig, Authenticator, Key, Rules, SECRET_BYTES_MIN};

/// Who is believed, and how a token is made.
#[derive(Debug)]
pub struct Identity {
    /// Verifies tokens.
    pub authenticator: Authenticator,
    /// Makes tokens that `authenticator` accepts, where there is a secret to sign them with.
    pub issuer: Option<AuthConfig>,
    /// The secret, where it is one of development.
    pub made_up: Option<Key>,
    /// The same, where it was made up just now.
    pub unkept: Option<Unkept>,
}

impl Config {
    /// The keys of the configuration. Without any, `--dev` makes a secret up, which it keeps in the
    /// data directory, and everything else is refused.
    pub fn identity(&self, sources: &Sources) -> Result<Identity, Error> {
        let auth = &self.auth;
        let file = auth.jwt_secret_file.as_deref();
        let found = secret(sources, "TIDEGATE_JWT_SECRET", file)?;
        let ephemeral = found.is_none() && self.dev;
        let mut unkept = None;
        let current = match found {
            None if ephemeral => {
                let (secret, from, new) = kept_secret(&self.server.data_dir)?;
                unkept = new;
                Some((secret, from))
            }
            found => found,
        };
        let mut own = None;
        let mut issuer = None;
        if let Some((secret, from)) = &current {
            own = Some(Key::hs256(auth.jwt_key_id.clone(), secret)?.from(from));
            let config = AuthConfig::new(secret, TOKEN_TTL_S)?;
            issuer = Some(self.named(config));
        }
        Ok(Identity {
            authenticator: self.authenticator(own.clone(), sources)?,
            issuer,
            made_up: own.filter(|_| ephemeral),
            unkept,
        })
    }

    /// The keys of the configuration when it is read again. A secret that was made up at the start
    /// stays, for nobody could know another one.
    pub fn identity_again(
        &self,
        made_up: Option<&Key>,
        sources: &Sources,
    ) -> Result<Authenticator, Error> {
        match made_up {
            Some(key) => self.authenticator(Some(key.clone()), sources),
            None => Ok(self.identity(sources)?.authenticator),
        }
    }

    /// Believes its own key, public keys, and the secret before its own.
    fn authenticator(&self, own: Option<Key>, sources: &Sources) -> Result<Authenticator, Error> {
        let auth = &self.auth;
        let mut keys: Vec<Key> = own.into_iter().collect();
        keys.extend(public_keys(&auth.public_key_files)?);
        let file = auth.jwt_secret_previous_file.as_deref();
        if let Some((secret, from)) = secret(sources, "TIDEGATE_JWT_SECRET_PREVIOUS", file)? {
            keys.push(Key::hs256(auth.jwt_previous_key_id.clone(), &secret)?.from(&from));
        }
        if keys.is_empty() {
            return Err(Error::SecretMissing);
        }
        Ok(Authenticator::new(keys, self.rules())?)
    }

    /// Tokens that say what the rules ask for.
    fn named(&self, issuer: AuthConfig) -> AuthConfig {
        issuer
            .key_id(self.auth.jwt_key_id.clone())
            .issuer(self.auth.issuer.clone())
            .audience(self.auth.audience.clone())
    }

    fn rules(&self) -> Rules {
        Rules {
            issuer: self.auth.issuer.clone(),
            audience: self.auth.audience.clone(),
            leeway_s: self.auth.leeway_s,
            lifetime_s_max: self.auth.token_lifetime_s_max,
            token_bytes_max: self.limits.token_bytes_max,
            rights: self.auth.rights.mode(),
        }
    }
}

/// How long a token of ours is valid if nobody says otherwise.
pub const TOKEN_TTL_S: u64 = 3_600;

/// A file, if one is named, else the variable; with the place where it was found.
fn secret(
    sources: &Sources,
    variable: &str,
    file: Option<&Path>,
) -> Result<Option<(Vec<u8>, String)>, Error> {
    let (from, bytes) = match (file, sources.variable(variable)) {
        (Some(path), _) => (path.display().to_string(), read_secret(path)?),
        (None, Some(text)) => (variable.to_owned(), text.as_bytes().to_vec()),
        (None, None) => return Ok(None),
    };
    match bytes.len() < SECRET_BYTES_MIN {
        true => Err(Error::SecretShort {
            from,
            bytes: bytes.len(),
        }),
        false => Ok(Some((bytes, from))),
    }
}

fn public_keys(files: &[PathBuf]) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::new();
    for path in files {
        let (bytes, mode) = read(path)?;
        if mode & 0o002 != 0 {
            let path = path.clone();
            return Err(Error::KeyWritable { path, mode });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let found = Key::public(&bytes, &name, &path.display().to_string());
        keys.extend(found.map_err(|source| Error::PublicKey {
            path: path.clone(),
            source,
        })?);
    }
    Ok(keys)
}

fn read_secret(path: &Path) -> Result<Vec<u8>, Error> {
    let (mut bytes, mode) = read(path)?;
    if mode & 0o004 != 0 {
        return Err(Error::SecretReadable {
            path: path.to_owned(),
            mode,
        });
    }
    // An editor ends the file with a line feed that nobody means to be a part of the secret.
    while bytes
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}

/// The permissions are asked of the open file, so that no other file can be put in its place
/// between the question and the reading.
fn read(path: &Path) -> Result<(Vec<u8>, u32), Error> {
    let unreadable = |source| Error::Read {
        path: PathBuf::from(path),
        source,
    };
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok((bytes, mode))
}

/// A secret of development that is not kept yet: it is when the server runs.
pub struct Unkept {
    path: PathBuf,
    secret: Vec<u8>,
}

impl Unkept {
    /// Writes it for its owner alone, from the first byte on.
    ///
    /// # Errors
    /// When it cannot be written, and so holds for this run alone.
    pub fn keep(&self) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&self.path)?;
        file.write_all(&self.secret)?;
        file.sync_all()
    }
}

/// Shows where and never the secret.
impl std::fmt::Debug for Unkept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unkept").field(&self.path).finish()
    }
}

/// The secret of development: that of the run before, if the data directory is the same.
fn kept_secret(data_dir: &Path) -> Result<(Vec<u8>, String, Option<Unkept>), Error> {
    let path = data_dir.join(DEV_SECRET);
    let from = path.display().to_string();
    if !path.exists() {
        let secret = hex(&random_secret()?);
        let unkept = Unkept {
            path,
            secret: secret.clone(),
        };
        return Ok((secret, from, Some(unkept)));
    }
    let secret = read_secret(&path)?;
    let bytes = secret.len();
    match bytes < SECRET_BYTES_MIN {
        true => Err(Error::SecretShort { from, bytes }),
        false => Ok((secret, from, None)),
    }
}

/// Where `--dev` keeps its secret, in the data directory.
const DEV_SECRET: &str = "dev-secret";

/// Text, so that an editor may show it.
fn hex(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into_bytes()
}

fn random_secret() -> Result<Vec<u8>, Error> {
    let mut secret = vec![0; SECRET_BYTES_MIN];
    getrandom::fill(&mut secret).map_err(crate::auth::KeyError::Random)?;
    Ok(secret)
}
