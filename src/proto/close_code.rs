//! The codes that connections are closed with (RFC 6455 section 7.4): which there are, which the
//! server sends, and what each says. Knows numbers; no connection.

use std::fmt;

/// Why a connection is closed. Codes that may not stand in a frame (1005, 1006, 1015), and those that
/// nobody has given a meaning, are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: all is done.
    Normal,
    /// 1001: the server, or the life time of the connection, is at its end.
    GoingAway,
    /// 1002: frames break the WebSocket protocol.
    Protocol,
    /// 1003: a kind of message that is not accepted, such as binary.
    Unsupported,
    /// 1007: a text that is not UTF-8, or a message of another shape.
    InvalidData,
    /// 1008: a limit was passed, or a rule forbids it.
    Policy,
    /// 1009: a message is too long.
    TooLarge,
    /// 1011: the server failed.
    Internal,
    /// 1012: the server restarts.
    Restart,
    /// 1013: overloaded, try later.
    TryLater,
    /// 4401: the token's time is over.
    TokenExpired,
    /// A code of the program's own: [`CloseCode::own`].
    Own(OwnCode),
}

/// A close code of a program: 3000 to 4999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnCode(u16);

impl CloseCode {
    /// What the server itself closes with, and when.
    pub const SENT: &'static [(Self, &'static str)] = &[
        (Self::Normal, "the answer to a close; idle for too long"),
        (
            Self::GoingAway,
            "the connection is as old as it may be: connect again, as after 1012",
        ),
        (Self::Protocol, "the frames break the WebSocket protocol"),
        (Self::InvalidData, "a text message is not UTF-8"),
        (
            Self::Policy,
            "a limit was passed, the client reads too slowly, a guard or hook of the program refused, or an operator closed the connection",
        ),
        (Self::TooLarge, "a frame or a message is too long"),
        (
            Self::Internal,
            "a hook failed, or a handler failed and asked for it",
        ),
        (
            Self::Restart,
            "the server stops: connect again, after a moment that differs from client to client",
        ),
        (
            Self::TryLater,
            "the server is short of memory: connect again later",
        ),
        (Self::TokenExpired, "the token's time is over"),
    ];

    /// A code of the program's own, 3000 to 4999.
    ///
    /// # Panics
    /// For any other number; in a `const` that is an error of the compiler.
    pub const fn own(code: u16) -> Self {
        match OwnCode::new(code) {
            Some(code) => Self::Own(code),
            None => panic!("a close code of a program's own is 3000 to 4999"),
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::InvalidData => 1007,
            Self::Policy => 1008,
            Self::TooLarge => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::TryLater => 1013,
            Self::TokenExpired => 4401,
            Self::Own(OwnCode(code)) => code,
        }
    }
}

impl OwnCode {
    const fn new(code: u16) -> Option<Self> {
        match 3000 <= code && code <= 4999 {
            true => Some(Self(code)),
            false => None,
        }
    }
}

/// A number that no connection may be closed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} cannot be a close code: 1000 to 1003, 1007 to 1009 and 1011 to 1013 have a meaning, 3000 to 4999 are free"
)]
pub struct InvalidCloseCode(pub u16);

impl TryFrom<u16> for CloseCode {
    type Error = InvalidCloseCode;

    fn try_from(code: u16) -> Result<Self, InvalidCloseCode> {
        Ok(match code {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::Protocol,
            1003 => Self::Unsupported,
            1007 => Self::InvalidData,
            1008 => Self::Policy,
            1009 => Self::TooLarge,
            1011 => Self::Internal,
            1012 => Self::Restart,
            1013 => Self::TryLater,
            4401 => Self::TokenExpired,
            code => Self::Own(OwnCode::new(code).ok_or(InvalidCloseCode(code))?),
        })
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.get()
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A6: each number is a code or none, and none of those that may not stand in a frame
    #[test]
    fn no_code_is_forbidden_on_the_wire() {
        for number in 0..=u16::MAX {
            match CloseCode::try_from(number) {
                Ok(code) => {
                    assert_eq!(code.get(), number);
                    assert!(matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999));
                }
                Err(error) => assert_eq!(error, InvalidCloseCode(number)),
            }
        }
        for number in [999, 1004, 1005, 1006, 1010, 1015, 2999, 5000] {
            assert!(CloseCode::try_from(number).is_err(), "{number}");
        }
        const TEAPOT: CloseCode = CloseCode::own(4418);
        assert_eq!(u16::from(TEAPOT), 4418);
        assert!(std::panic::catch_unwind(|| CloseCode::own(1005)).is_err());
    }
}
