//! Names of connections that clients of Socket.IO see: 20 characters that nobody can make up and that
//! need no map. Knows numbers and keys; no connection.

use std::hash::{BuildHasher, RandomState};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::ConnId;

/// The keys of one registry, of the system's random numbers, new in each run.
#[derive(Debug, Default)]
pub(crate) struct Sids {
    proof: RandomState,
    stream: RandomState,
}

/// Number and proof.
const BYTES: usize = 15;
const PROOF_BYTES: usize = 7;
const SID_LEN: usize = 20;

impl Sids {
    /// The number is hidden by what its proof stands for, and the proof is a keyed sum of it.
    pub(crate) fn sid_of(&self, id: ConnId) -> String {
        let proof = self.proof_of(id);
        let hidden = id ^ self.stream.hash_one(proof);
        let mut bytes = [0; BYTES];
        bytes[..PROOF_BYTES].copy_from_slice(&proof);
        bytes[PROOF_BYTES..].copy_from_slice(&hidden.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn id_of(&self, sid: &str) -> Option<ConnId> {
        if sid.len() != SID_LEN {
            return None;
        }
        let mut bytes = [0; BYTES];
        URL_SAFE_NO_PAD.decode_slice(sid, &mut bytes).ok()?;
        let (proof, hidden) = bytes.split_first_chunk::<PROOF_BYTES>()?;
        let id = u64::from_be_bytes(hidden.try_into().ok()?) ^ self.stream.hash_one(proof);
        (self.proof_of(id) == *proof).then_some(id)
    }

    fn proof_of(&self, id: ConnId) -> [u8; PROOF_BYTES] {
        let sum = self.proof.hash_one(id).to_be_bytes();
        std::array::from_fn(|place| sum[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-50
    #[test]
    fn a_sid_is_its_number_and_cannot_be_made_up() {
        let (own, other) = (Sids::default(), Sids::default());
        for id in [1, 2, 77, u64::MAX] {
            let sid = own.sid_of(id);
            assert_eq!(sid.len(), SID_LEN);
            assert_eq!(own.id_of(&sid), Some(id));
            assert_eq!(other.id_of(&sid), None);
            for at in 0..SID_LEN {
                let mut wrong = sid.clone().into_bytes();
                wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
                assert_eq!(own.id_of(std::str::from_utf8(&wrong).unwrap()), None);
            }
        }
        assert_eq!(own.id_of("lobby"), None);
    }
}
