//! The pieces that encoders put JSON texts together from. They only append.

/// Appends a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(needs_escape) {
        put_escaped(out, text);
    } else {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
#[expect(clippy::expect_used, reason = "neither a str nor a Vec can refuse")]
fn put_escaped(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always written");
}

/// Appends a whole number.
pub fn put_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends `true` or `false`.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// The digits of `u64::MAX`.
const DIGITS_MAX: usize = 20;
