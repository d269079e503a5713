//! Until when a certificate is good: the one thing in it that nobody else in the tree tells.

use jiff::{SignedDuration, Timestamp};

/// A certificate that ends so soon wants a new one now.
pub(super) const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, as the version has it.
const VERSION: u8 = 0xa0;

/// When a certificate (X.509 as DER) ends; `None` where it is no certificate.
pub(super) fn end(der: &[u8]) -> Option<Timestamp> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer,
    // validity SEQUENCE { notBefore, notAfter }, … (RFC 5280, 4.1)
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, body, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let mut rest = body;
    if let Some((VERSION, _, after)) = element(rest) {
        rest = after;
    }
    for _ in ["serialNumber", "signature", "issuer"] {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, time, _) = element(after)?;
    time_of(tag, std::str::from_utf8(time).ok()?)
}

/// The first element of a DER text: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // So many bytes of length follow; four hold any certificate's.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        0x80 | 0x85.. => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

/// `261123120000Z` or `20261123120000Z` (RFC 5280, 4.1.2.5).
fn time_of(tag: u8, text: &str) -> Option<Timestamp> {
    let century = match (tag, text.get(..2)?.parse().ok()?) {
        (UTC_TIME, 50_u8..) => "19",
        (UTC_TIME, _) => "20",
        (GENERALIZED_TIME, _) => "",
        _ => return None,
    };
    let text = format!("{century}{}", text.strip_suffix('Z')?);
    let part = |from: usize, to: usize| text.get(from..to);
    let date = [part(0, 4)?, part(4, 6)?, part(6, 8)?].join("-");
    let time = [part(8, 10)?, part(10, 12)?, part(12, 14)?].join(":");
    format!("{date}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, end_at) in [
            (2027, "2027-03-04T00:00:00Z"),
            (2049, "2049-03-04T00:00:00Z"),
            (2061, "2061-03-04T00:00:00Z"),
        ] {
            let mut parameters = rcgen::CertificateParams::new(["broker".to_owned()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 3, 4);
            let certificate = parameters.self_signed(&key).unwrap();
            assert_eq!(end(certificate.der()), Some(end_at.parse().unwrap()));
            // Whatever is cut off, it is no panic.
            for length in 0..certificate.der().len() {
                let _ = end(&certificate.der()[..length]);
            }
        }
        for nonsense in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"hello",
            b"\x30\x80",
        ] {
            assert_eq!(end(nonsense), None);
        }
    }
}
