//! The keys that tokens are verified with: secrets from the environment or a file, never an
//! argument, and public keys from files. A secret leaves this file only as a key.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
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
    /// The secret, where it was made up for this run.
    pub made_up: Option<Key>,
}

impl Config {
    /// The keys of the configuration. Without any, `--dev` makes a secret up and everything else
    /// is refused.
    pub fn identity(&self, sources: &Sources) -> Result<Identity, Error> {
        let auth = &self.auth;
        let file = auth.jwt_secret_file.as_deref();
        let found = secret(sources, "TIDEGATE_JWT_SECRET", file)?;
        let ephemeral = found.is_none() && self.dev;
        let current = match found {
            None if ephemeral => Some((random_secret()?, "made up for this run".to_owned())),
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

fn random_secret() -> Result<Vec<u8>, Error> {
    let mut secret = vec![0; SECRET_BYTES_MIN];
    getrandom::fill(&mut secret).map_err(crate::auth::KeyError::Random)?;
    Ok(secret)
}
