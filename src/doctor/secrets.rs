//! Takes secrets out of texts that are to be given away: those that are known, and all that look like one.

use std::borrow::Cow;

/// What a secret is replaced by.
const HIDDEN: &str = "***";

/// A known secret that is shorter would be found in half of all words.
const SHORTEST: usize = 4;

/// After these, in the name of a setting, a variable or an option, stands a secret.
const NAMES: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "passphrase",
    "api_key",
    "apikey",
    "private_key",
    "authorization",
    "community",
];

/// How access keys begin, users' own and temporary ones.
const KEYS: [&str; 2] = ["AKIA", "ASIA"];

/// A run of letters of base64 that is at least so long is a key or a token; a SHA-256 in hexadecimal has 64 letters.
const LONGEST_WORD: usize = 72;

/// What AWS's secret access keys have.
const SECRET_KEY: usize = 40;

/// Secrets that are known to stand somewhere on this machine.
#[derive(Debug, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Notes one.
    pub(super) fn know(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SHORTEST && !self.0.iter().any(|known| known == secret) {
            self.0.push(secret.to_owned());
        }
    }

    /// The text without them, and without what looks like one.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN).into();
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut in_key = false;
        for line in text.split_inclusive('\n') {
            // A private key in PEM, from its first line to its last.
            let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
            if begins && !line.contains("-----END") {
                in_key = true;
                out.push_str("*** a private key\n");
            } else if in_key || begins {
                in_key = in_key && !line.contains("-----END");
            } else {
                out.push_str(&scrub_line(line));
            }
        }
        out
    }
}

fn scrub_line(line: &str) -> String {
    let line = logins(line);
    let line = named(&line);
    words(&line)
}

/// `mqtt://user:password@host`: all between `://` and the last `@` before a blank or a quote.
fn logins(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let url = after
            .split(|c: char| c.is_whitespace() || "\"'<>".contains(c))
            .next();
        let url = url.unwrap_or_default();
        rest = match url.rfind('@') {
            Some(at) => {
                out.push_str(HIDDEN);
                &after[at..]
            }
            None => after,
        };
    }
    out + rest
}

/// `password = "x"`, `"SecretAccessKey": "x"`, `AWS_SESSION_TOKEN=x`, `--password x`, `Authorization: Bearer x`.
fn named(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    while let Some((start, end)) = next_name(&lower, done) {
        // The name goes on to its end: `aws_session_token`, `SecretAccessKey`.
        let tail = lower[end..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        let name_end = tail.map_or(lower.len(), |tail| end + tail);
        let head = lower[..start].rfind(|c: char| c.is_whitespace() || "\"'{,;(".contains(c));
        let is_option = lower[head.map_or(0, |head| head + 1)..].starts_with("--");
        out.push_str(&line[done..name_end]);
        done = name_end;
        let Some((from, to)) = value(&line[name_end..], is_option) else {
            continue;
        };
        out.push_str(&line[name_end..name_end + from]);
        out.push_str(HIDDEN);
        done = name_end + to;
    }
    out + &line[done..]
}

/// Where the next of [`NAMES`] stands.
fn next_name(lower: &str, from: usize) -> Option<(usize, usize)> {
    let found = NAMES.iter().filter_map(|name| {
        let at = lower[from..].find(name)? + from;
        Some((at, at + name.len()))
    });
    found.min()
}

/// Where the value behind a name stands, from there. Without `=` or `:` only an option has one.
fn value(behind: &str, is_option: bool) -> Option<(usize, usize)> {
    let trimmed = behind.trim_start_matches(['"', '\'', '\\', ' ', '\t', ']']);
    let separated = trimmed.starts_with(['=', ':', ',']);
    let follows = is_option && trimmed.len() < behind.len();
    if !separated && !follows {
        return None;
    }
    let start = trimmed.trim_start_matches(['=', ':', ',', ' ', '\t', '>']);
    let quote = start
        .trim_start_matches('\\')
        .chars()
        .next()
        .filter(|c| "\"'".contains(*c));
    let content = start.trim_start_matches('\\');
    let content = match quote {
        Some(_) => &content[1..],
        None => content,
    };
    let from = behind.len() - content.len();
    let end = match quote {
        Some(quote) => content.find([quote, '\n']),
        // To the end of the line where it is a header's: `Authorization: Bearer x`.
        None => content
            .find(|c: char| c.is_whitespace() || ",;}".contains(c))
            .map(|end| match content[..end].eq_ignore_ascii_case("bearer") {
                true => content.trim_end().len(),
                false => end,
            }),
    };
    let to = from + end.unwrap_or(content.len());
    (from < to).then_some((from, to))
}

/// Words that look like keys by themselves.
fn words(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    for letter in line.chars().chain(['\0']) {
        if letter.is_ascii_alphanumeric() || "+/=_-".contains(letter) {
            word.push(letter);
            continue;
        }
        out.push_str(if is_secret(&word) { HIDDEN } else { &word });
        word.clear();
        if letter != '\0' {
            out.push(letter);
        }
    }
    out
}

fn is_secret(word: &str) -> bool {
    let is_id = |start: &str| {
        word.split(['/', '=', '-', '_']).any(|part| {
            let id = part.strip_prefix(start).unwrap_or_default();
            id.len() >= 4
                && id
                    .bytes()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        })
    };
    if KEYS.iter().any(|start| is_id(start)) {
        return true;
    }
    let has = |of: fn(&u8) -> bool| word.bytes().any(|c| of(&c));
    let mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    let slashes = word.matches('/').count();
    // A path has a slash every few letters, a key every sixty.
    let is_path = slashes > 1 + word.len() / 16 && !word.contains(['+', '=']);
    let is_key = word.len() == SECRET_KEY && !word.contains(['-', '_']);
    mixed && !is_path && (is_key || word.len() >= LONGEST_WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        let mut secrets = Secrets::default();
        secrets.know("opensesame");
        secrets.know("ok");
        for (text, expected) in [
            (
                "url = \"mqtt://me:p@ss@h:1883\" # x",
                "url = \"mqtt://***@h:1883\" # x",
            ),
            (
                "mqtt://h/a https://x.y/z?u=a",
                "mqtt://h/a https://x.y/z?u=a",
            ),
            ("password = \"a b\"\n", "password = \"***\"\n"),
            ("password=hunter2 next", "password=*** next"),
            (
                "check -H h --password hunter2 -w 5",
                "check -H h --password *** -w 5",
            ),
            ("the password is wrong", "the password is wrong"),
            (
                "\"SecretAccessKey\": \"abc\",",
                "\"SecretAccessKey\": \"***\",",
            ),
            ("{\"Token\":\"a/b+c==\"}", "{\"Token\":\"***\"}"),
            ("{\\\"Token\\\": \\\"abc\\\"}", "{\\\"Token\\\": \\\"***\"}"),
            ("AWS_SESSION_TOKEN=x y", "AWS_SESSION_TOKEN=*** y"),
            (
                "aws_secret_access_key = wJalr/x\n",
                "aws_secret_access_key = ***\n",
            ),
            ("Authorization: Bearer abc.def\n", "Authorization: ***\n"),
            ("key AKIAIOSFODNN7EXAMPLE is", "key *** is"),
            ("Credential=ASIAIOSFODNN7EXAMPLE/2026", "*** "),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "***"),
            ("it said opensesame, ok", "it said ***, ok"),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\nb",
                "a\n*** a private key\nb",
            ),
            (
                "/usr/lib/x86_64-linux-gnu/Some0/Long/path/of/a/library/that/is/longer/than/a/key",
                "/usr/lib/x86_64-linux-gnu/Some0/Long/path/of/a/library/that/is/longer/than/a/key",
            ),
            (
                "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            ),
            (
                "GPU-1f0e8a2c-5ced-4e11-8e5c-000000000001",
                "GPU-1f0e8a2c-5ced-4e11-8e5c-000000000001",
            ),
        ] {
            let scrubbed = secrets.scrub(text);
            assert_eq!(
                scrubbed.trim_end_matches(' '),
                expected.trim_end_matches(' '),
                "{text}"
            );
        }
        let long = format!("t {}", "Ab3/x+Yz".repeat(30));
        assert_eq!(secrets.scrub(&long), "t ***");
    }
}
