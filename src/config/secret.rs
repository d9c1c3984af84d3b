//! The secrets that tokens are verified with: from the environment or a file, never an argument.
//! A secret leaves this file only as a key.

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
    /// Makes tokens that `authenticator` accepts.
    pub issuer: AuthConfig,
    /// The secret was made up for this run.
    pub ephemeral: bool,
}

impl Config {
    /// The keys of the configuration. Without a secret, `--dev` makes one up and everything else
    /// is refused.
    pub fn identity(&self, sources: &Sources) -> Result<Identity, Error> {
        let auth = &self.auth;
        let found = secret(
            sources,
            "TIDEGATE_JWT_SECRET",
            auth.jwt_secret_file.as_deref(),
        )?;
        let ephemeral = found.is_none() && self.dev;
        let current = match found {
            Some(secret) => secret,
            None if self.dev => random_secret()?,
            None => return Err(Error::SecretMissing),
        };
        let previous = secret(
            sources,
            "TIDEGATE_JWT_SECRET_PREVIOUS",
            auth.jwt_secret_previous_file.as_deref(),
        )?;
        let mut keys = vec![Key::hs256(auth.jwt_key_id.clone(), &current)?];
        if let Some(previous) = previous {
            keys.push(Key::hs256(auth.jwt_previous_key_id.clone(), &previous)?);
        }
        let issuer = AuthConfig::new(&current, TOKEN_TTL_S)?
            .key_id(auth.jwt_key_id.clone())
            .issuer(auth.issuer.clone())
            .audience(auth.audience.clone());
        let authenticator = Authenticator::new(keys, self.rules())?;
        Ok(Identity {
            authenticator,
            issuer,
            ephemeral,
        })
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

/// A file, if one is named, else the variable.
fn secret(
    sources: &Sources,
    variable: &str,
    file: Option<&Path>,
) -> Result<Option<Vec<u8>>, Error> {
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
        false => Ok(Some(bytes)),
    }
}

/// The permissions are asked of the open file, so that no other file can be put in its place
/// between the question and the reading.
fn read_secret(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Read {
        path: PathBuf::from(path),
        source,
    };
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        return Err(Error::SecretReadable {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    // An editor ends the file with a line feed that nobody means to be a part of the secret.
    while bytes
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}

fn random_secret() -> Result<Vec<u8>, Error> {
    let mut secret = vec![0; SECRET_BYTES_MIN];
    getrandom::fill(&mut secret).map_err(crate::auth::KeyError::Random)?;
    Ok(secret)
}
