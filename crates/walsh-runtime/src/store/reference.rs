//! Names of models that lie elsewhere: `hf:OWNER/REPO[:QUANT]` and `https://HOST/…/FILE.gguf`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ureq::http::Uri;

use crate::error::{Error, Result};
use crate::shown::{is_hidden, shown};

/// What names of models in repositories of the hub begin with.
const HUB: &str = "hf:";

/// The longest name that is taken, in bytes.
const LONGEST_NAME: usize = 1000;

/// The longest part of a path that is taken, in bytes. File systems have 255, of which the names of
/// partial files need some.
const LONGEST_PART: usize = 200;

/// A model that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// A model in a repository of the hub.
    Hub {
        /// The repository.
        repository: Repository,
        /// What picks a file of it.
        quant: Option<String>,
    },
    /// A file on a server.
    File(Address),
}

/// A repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    pub(super) owner: String,
    pub(super) name: String,
}

impl Reference {
    /// The model that a name means; None where it is no name of this kind.
    ///
    /// # Errors
    /// When it is one, but cannot be used.
    pub(super) fn parse(name: &str) -> Result<Option<Reference>> {
        let is_address = has_scheme(name);
        let from_hub = name.strip_prefix(HUB);
        if !is_address && from_hub.is_none() {
            return Ok(None);
        }
        if name.len() > LONGEST_NAME {
            return Err(Error::store(format!(
                "a model's name has {} bytes: at most {LONGEST_NAME} are taken",
                name.len()
            )));
        }
        match from_hub {
            Some(rest) => Self::parse_hub(name, rest),
            None => Self::parse_file(name),
        }
        .map(Some)
    }

    fn parse_hub(name: &str, rest: &str) -> Result<Reference> {
        let wrong = || {
            Error::store(format!(
                "{:?} names no repository: expected hf:OWNER/REPO or hf:OWNER/REPO:QUANT, of letters, digits, '-', '_' and '.'",
                shown(name)
            ))
        };
        let (repository, quant) = match rest.split_once(':') {
            Some((repository, quant)) => (repository, Some(quant)),
            None => (rest, None),
        };
        let (owner, repo) = repository.split_once('/').ok_or_else(wrong)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(fits)
                && !part.contains("..")
                && part.len() <= LONGEST_PART
        };
        let is_quant = |quant: &str| quant.split('/').all(|part| check_part(part).is_ok());
        if !is_name(owner) || !is_name(repo) || !quant.is_none_or(is_quant) {
            return Err(wrong());
        }
        Ok(Reference::Hub {
            repository: Repository {
                owner: owner.to_owned(),
                name: repo.to_owned(),
            },
            quant: quant.map(str::to_owned),
        })
    }

    fn parse_file(name: &str) -> Result<Reference> {
        // What is copied from the hub's pages may ask for the file as an attachment, which changes nothing.
        let plain = name.strip_suffix("?download=true").unwrap_or(name);
        let address = Address::parse(plain)?;
        if plain.contains(['?', '#']) {
            return Err(Error::store(format!(
                "{} has a query or a fragment behind it, which Walsh cannot keep as a model's name: give an address that ends in .gguf",
                address.plain()
            )));
        }
        if !address.file_name().to_ascii_lowercase().ends_with(".gguf") {
            return Err(Error::store(format!(
                "{} is no address of a model: expected one that ends in .gguf",
                address.plain()
            )));
        }
        address.0.path()[1..].split('/').try_for_each(check_part)?;
        Ok(Reference::File(address))
    }

    /// The folder of what was fetched, below that of the store. No two sources have the same.
    pub(super) fn folder(&self) -> PathBuf {
        match self {
            Reference::Hub { repository, .. } => Path::new("hf")
                .join(&repository.owner)
                .join(&repository.name),
            Reference::File(address) => {
                // No host has a plus, and no file name a colon.
                let authority = address.authority().replace(':', "+");
                let path = &address.0.path()[1..];
                Path::new(address.scheme()).join(authority).join(path)
            }
        }
    }

    /// What has this folder: the repository, or the file.
    pub(super) fn of_folder(folder: &Path) -> Option<Reference> {
        let parts: Vec<&str> = folder
            .iter()
            .map(|part| part.to_str())
            .collect::<Option<_>>()?;
        let (kind, rest) = parts.split_first()?;
        let name = match *kind {
            "hf" => format!("{HUB}{}", rest.join("/")),
            scheme => {
                let (authority, path) = rest.split_first()?;
                let authority = authority.replace('+', ":");
                format!("{scheme}://{authority}/{}", path.join("/"))
            }
        };
        Self::parse(&name).ok()?
    }
}

/// As people type it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Hub { repository, quant } => {
                write!(f, "{repository}")?;
                match quant {
                    Some(quant) => write!(f, ":{quant}"),
                    None => Ok(()),
                }
            }
            Reference::File(address) => f.write_str(&address.plain()),
        }
    }
}

/// As people type it.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HUB}{}/{}", self.owner, self.name)
    }
}

/// Finds out whether a part of a path can be one of a path in the store.
///
/// # Errors
/// When it is empty, hidden, too long, or has characters that mean something to a file system or a terminal.
pub(super) fn check_part(part: &str) -> Result<()> {
    let fits = |c: char| !is_hidden(c) && !"/\\:*?\"<>|".contains(c);
    if part.is_empty()
        || part.starts_with(['.', '-', ' '])
        || part.ends_with(' ')
        || part.len() > LONGEST_PART
        || !part.chars().all(fits)
    {
        let start: String = part.chars().take(60).collect();
        return Err(Error::store(format!(
            "\"{}\" cannot be part of a file's name here: fetch the model otherwise, and give its path",
            shown(&start)
        )));
    }
    Ok(())
}

/// Where something lies: an `https` address, or an `http` one of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address(Uri);

impl Address {
    /// # Errors
    /// When it is no address, has a password, or would be spoken to in the clear over a network.
    pub(super) fn parse(text: &str) -> Result<Address> {
        let what = || {
            let start: String = text.chars().take(100).collect();
            shown(start.split(['?', '#']).next().unwrap_or_default()).into_owned()
        };
        let uri: Uri = text
            .split('#')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| {
                Error::store(format!(
                    "\"{}\" is no address: expected https://HOST/PATH/FILE.gguf, other characters as %20",
                    what()
                ))
            })?;
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(Error::store(format!(
                "\"{}\" names no host: expected https://HOST/PATH/FILE.gguf",
                what()
            )));
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(Error::store(format!(
                "an address at {host} has a user's name in it: leave it out, Walsh logs in nowhere but to the hub"
            )));
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            Some("http") => {
                return Err(Error::store(format!(
                    "http://{host} is not encrypted: give an https address; http is for servers on this machine alone, such as http://127.0.0.1:8080"
                )));
            }
            scheme => {
                return Err(Error::store(format!(
                    "nothing can be fetched by {}: give an https address",
                    scheme.unwrap_or("a name alone")
                )));
            }
        }
        Ok(Address(uri))
    }

    /// The address that a server at this one refers to.
    ///
    /// # Errors
    /// As for [`parse`](Self::parse), and when it leads from an encrypted connection to one that is not.
    pub(super) fn join(&self, location: &str) -> Result<Address> {
        let (scheme, authority) = (self.scheme(), self.authority());
        let path = self.0.path();
        let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        let joined = if has_scheme(location) {
            Self::parse(location)?
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))?
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))?
        } else {
            Self::parse(&format!("{scheme}://{authority}{folder}{location}"))?
        };
        if self.is_encrypted() && !joined.is_encrypted() {
            return Err(Error::store(format!(
                "{} refers to {}, which is not encrypted: fetch it otherwise, and give its path",
                self.host(),
                joined.plain()
            )));
        }
        Ok(joined)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme() == "https"
    }

    /// Whether the same server answers at both.
    pub(super) fn has_origin_of(&self, other: &Address) -> bool {
        let port = |address: &Address| {
            let default = if address.is_encrypted() { 443 } else { 80 };
            address.0.port_u16().unwrap_or(default)
        };
        self.scheme() == other.scheme()
            && self.host().eq_ignore_ascii_case(other.host())
            && port(self) == port(other)
    }

    /// The address without what may hold secrets.
    pub(super) fn plain(&self) -> String {
        let path = self.0.path();
        format!("{}://{}{path}", self.scheme(), self.authority())
    }

    pub(super) fn file_name(&self) -> &str {
        let path = self.0.path();
        &path[path.rfind('/').map_or(0, |at| at + 1)..]
    }

    fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or_default()
    }

    fn authority(&self) -> String {
        let authority = self.0.authority().map_or("", |a| a.as_str());
        authority.to_ascii_lowercase()
    }
}

/// Whether an address begins with how to speak there.
fn has_scheme(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Whether a host is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Reference {
        let reference = Reference::parse(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        reference.unwrap_or_else(|| panic!("{name} is a path"))
    }

    #[test]
    fn names_are_told_from_paths_and_have_folders_of_their_own() {
        for path in [
            "model.gguf",
            "./hf/a/b",
            "smollm2-135m",
            "/a/b:c",
            "hf",
            "a b://x",
        ] {
            assert_eq!(Reference::parse(path).unwrap(), None, "{path}");
        }
        for (name, folder) in [
            ("hf:owner/Repo-1.5_GGUF", "hf/owner/Repo-1.5_GGUF"),
            ("https://example.org/a/x.gguf", "https/example.org/a/x.gguf"),
            (
                "https://example.org:8443/x.GGUF",
                "https/example.org+8443/x.GGUF",
            ),
            (
                "http://127.0.0.1:80/x%20y.gguf",
                "http/127.0.0.1+80/x%20y.gguf",
            ),
            ("http://[::1]:8080/x.gguf", "http/[++1]+8080/x.gguf"),
        ] {
            let reference = parsed(name);
            assert_eq!(reference.folder(), Path::new(folder));
            assert_eq!(reference.to_string(), name);
            assert_eq!(Reference::of_folder(Path::new(folder)), Some(reference));
        }
        let with_quant = parsed("hf:o/r:UD-Q4_K_XL");
        assert_eq!(with_quant.to_string(), "hf:o/r:UD-Q4_K_XL");
        assert_eq!(with_quant.folder(), Path::new("hf/o/r"));
        let odd = "hf:o/r:My Model (Q8, v2)";
        assert_eq!(parsed(odd).to_string(), odd);
        let attached = parsed("https://example.org/x.gguf?download=true");
        assert_eq!(attached, parsed("https://example.org/x.gguf"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused_in_one_line() {
        let long = format!("hf:o/{}", "x".repeat(300));
        let longer = format!("https://example.org/{}.gguf", "x".repeat(2000));
        let part = format!("https://example.org/{}.gguf", "x".repeat(300));
        let not_loopback = format!("http://{}.example.org/x.gguf", "127.0.0.1");
        for (name, expected) in [
            ("hf:", "hf:OWNER/REPO"),
            ("hf:gpt2", "hf:OWNER/REPO"),
            ("hf:../../x", "hf:OWNER/REPO"),
            ("hf:a/..", "hf:OWNER/REPO"),
            ("hf:a/b/c", "hf:OWNER/REPO"),
            ("hf:/a/b", "hf:OWNER/REPO"),
            ("hf:a\\b/c", "hf:OWNER/REPO"),
            ("hf:a/b:", "hf:OWNER/REPO"),
            ("hf:a/b:../q", "hf:OWNER/REPO"),
            ("hf:a/b\u{1b}[31m", "u{1b}"),
            (&long, "hf:OWNER/REPO"),
            (&longer, "2025 bytes"),
            (&part, "cannot be part"),
            ("https://example.org/a/../x.gguf", "cannot be part"),
            ("https://example.org//x.gguf", "cannot be part"),
            ("https://example.org/.gguf", "cannot be part"),
            ("https://example.org/a:b/x.gguf", "cannot be part"),
            ("https://example.org/x.bin", "ends in .gguf"),
            ("https://example.org", "ends in .gguf"),
            ("https://example.org/x.gguf?token=secret", "query"),
            ("https://me:secret@example.org/x.gguf", "user's name"),
            ("https:///x.gguf", "no "),
            ("https://a b/x.gguf", "is no address"),
            ("http://example.org/x.gguf", "not encrypted"),
            (&not_loopback, "not encrypted"),
            ("ftp://example.org/x.gguf", "https address"),
        ] {
            let error = Reference::parse(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            assert!(!error.contains("secret"), "{error}");
            assert!(!error.contains(is_hidden), "{error}");
        }
    }

    #[test]
    fn redirects_are_read_as_servers_write_them() {
        let from = Address::parse("https://example.org/a/b.gguf").unwrap();
        for (location, expected) in [
            ("https://example.com/x?sig=1", "https://example.com/x?sig=1"),
            ("//example.com/x", "https://example.com/x"),
            ("/c/d?e", "https://example.org/c/d?e"),
            ("/c?to=https://x/", "https://example.org/c?to=https://x/"),
            ("c.gguf", "https://example.org/a/c.gguf"),
        ] {
            let joined = from.join(location).unwrap();
            assert_eq!(joined.uri().to_string(), expected);
        }
        assert_eq!(
            from.join("https://example.com/x?s=1").unwrap().plain(),
            "https://example.com/x"
        );
        assert!(from.join("http://example.com/x").is_err());
        assert!(from.join("http://127.0.0.1/x").is_err());
        assert!(from.join("file:///etc/passwd").is_err());
        assert!(from.has_origin_of(
            &Address::parse(&format!("https://{}:443/", "example.org".to_uppercase())).unwrap()
        ));
        assert!(!from.has_origin_of(&Address::parse("https://example.org:8443/").unwrap()));
    }
}
