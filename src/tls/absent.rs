//! The names of this folder in a program that was built without TLS: none of them has a value.

use super::{CertificateError, Fault, Opened, PemPair};

/// A session, of which there is none.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn is_open(&self) -> bool {
        match *self {}
    }

    pub(crate) fn has_output(&self) -> bool {
        match *self {}
    }

    pub(crate) fn held_bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn handle_received(
        &mut self,
        _: &mut [u8],
        _: &mut Vec<u8>,
    ) -> Result<Opened, Fault> {
        match *self {}
    }

    pub(crate) fn take_output(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn seal(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn seal_end(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }
}

/// What sessions are made with.
#[derive(Debug, Clone)]
pub(crate) enum Acceptor {}

/// What operators see of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) expires_s: u64,
    pub(crate) fingerprint: String,
}

/// How clients are let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) only_13: bool,
    pub(crate) refuse_unknown: bool,
}

impl Acceptor {
    pub(crate) fn new(
        _: &[PemPair],
        _: Rules,
        _: u64,
        _: Option<&Self>,
    ) -> Result<Self, CertificateError> {
        Err(CertificateError::NotBuilt)
    }

    pub(crate) fn accept(&self) -> Option<Tls> {
        match *self {}
    }

    pub(crate) fn shown(&self) -> &[Shown] {
        match *self {}
    }
}

/// A new certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct DevCertificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Says that there is no TLS here.
pub(crate) fn dev_certificate(_: u64) -> Result<DevCertificate, String> {
    Err(CertificateError::NotBuilt.to_string())
}
