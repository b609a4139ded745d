//! Byte sizes as people write and read them.

/// Parses `128MB`, `1.5g` or `1048576`; K, M, G and T are powers of 1024, as in DataFusion's shell.
pub(crate) fn parse_bytes(text: &str) -> Result<usize, String> {
    let wrong = || format!("\"{text}\" is not a size: write a number and B, KB, MB, GB or TB, as in 128MB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(1_u32 << (shift / 2)) * f64::from(1_u32 << (shift - shift / 2));
    // Beyond 2^53 a float no longer counts single bytes; no machine has that much memory.
    if bytes > 2_f64.powi(53) {
        return Err(format!("\"{text}\" is too large"));
    }
    if bytes < 1.0 {
        return Err(format!("\"{text}\" is no memory at all"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 2^53, checked above"
    )]
    Ok(bytes as usize)
}

/// Bytes in MiB, for tables.
#[expect(clippy::cast_precision_loss, reason = "for display, with at most one decimal place")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_are_understood() {
        for (text, bytes) in [
            ("1", 1),
            ("512b", 512),
            ("4k", 4 << 10),
            ("128MB", 128 << 20),
            ("128 MiB", 128 << 20),
            ("1.5g", 3 << 29),
            (" 2GB ", 2 << 30),
            ("1tb", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_refused() {
        for text in
            ["", "MB", "12XB", "-5MB", "1e3", "1.2.3MB", "0", "0MB", "0.5", "99999999TB", "inf", "NaN"]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_bytes("12XB").unwrap_err(),
            "\"12XB\" is not a size: write a number and B, KB, MB, GB or TB, as in 128MB"
        );
    }

    #[test]
    fn mebibytes() {
        assert_eq!(mib(3 << 19), 1.5);
    }
}
