//! `POST /containers/create` for a container that is to be on the network: the wait program before its own, a mount
//! that holds it, and names.
//!
//! ```text
//!  Entrypoint [E…]           ─► [/w/w, E…]      the image's, if the request gives none
//!  Cmd [C…]                  ─► [C…]            the image's, where Docker would take it
//!  HostConfig.Binds          ─► … FOLDER:/w:ro
//!  Hostname, Dns, DnsSearch  ─► `naming`
//! ```

use super::naming::Naming;
use super::object::{Object, ObjectError};
use super::wish::Wish;
use super::{WAIT_FOLDER, WAIT_PROGRAM};

/// Longest body that is read: Docker's own clients send a few kilobytes.
pub const BODY_LEN_MAX: usize = 16 * 1024 * 1024;

/// What an image says about its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
    /// `ENV`.
    pub environment: Vec<String>,
}

/// How containers are created.
#[derive(Debug, Clone)]
pub struct CreateRules {
    /// Whether a container gets an address unasked.
    pub default_ipalloc: bool,
    /// The folder with the wait program, on the host.
    pub folder: String,
    /// `None` leaves names and DNS as they are.
    pub naming: Option<Naming>,
}

/// A request to create a container.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    config: Object,
    host_config: Object,
    network_mode: String,
    environment: Vec<String>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Creation {
    /// It is passed on as it came, and why.
    AsItIs(&'static str),
    /// Another body, for a container with these addresses, as typed.
    Changed {
        /// JSON.
        body: String,
        /// Of `WEAVE_CIDR`.
        addresses: Vec<String>,
    },
}

impl CreateRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn parse(body: &[u8]) -> Result<Self, ObjectError> {
        let text =
            std::str::from_utf8(body).map_err(|error| ObjectError::Malformed(error.to_string()))?;
        let config = Object::parse(text)?;
        let host_config = config.object("HostConfig")?;
        Ok(Self {
            network_mode: host_config.read("NetworkMode")?.unwrap_or_default(),
            environment: config.read("Env")?.unwrap_or_default(),
            host_config,
            config,
        })
    }

    /// The image that has to be asked about; `None` if the container is none of ours, whatever its image says.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn image(&self) -> Result<Option<String>, ObjectError> {
        if !super::wish::is_ours(&self.network_mode) {
            return Ok(None);
        }
        Ok(Some(self.config.read("Image")?.unwrap_or_default()))
    }

    /// Decides; without an image Docker refuses the request, and in its own words if it is passed on.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn decide(
        mut self,
        name: &str,
        image: Option<&Image>,
        rules: &CreateRules,
    ) -> Result<Creation, ObjectError> {
        let environment = image.map(|image| &image.environment).into_iter().flatten();
        let environment = environment.chain(&self.environment);
        let environment = environment.map(String::as_str);
        let addresses = match Wish::of(&self.network_mode, environment, rules.default_ipalloc) {
            Wish::Alone(why) => return Ok(Creation::AsItIs(why)),
            Wish::Attached(addresses) => addresses,
        };
        if !self.wait_first(image)? {
            return Ok(Creation::AsItIs("it has no command"));
        }
        self.mount(&rules.folder)?;
        if let Some(naming) = &rules.naming {
            naming.apply(name, &mut self.config, &mut self.host_config)?;
        }
        self.config.set_object("HostConfig", &self.host_config);
        Ok(Creation::Changed {
            body: self.config.to_json(),
            addresses,
        })
    }

    /// Puts the wait program first. False if there is nothing that it could start; Docker says so. An image that is not
    /// known may have something.
    fn wait_first(&mut self, image: Option<&Image>) -> Result<bool, ObjectError> {
        let is_known = image.is_some();
        let unknown = Image::default();
        let image = image.unwrap_or(&unknown);
        let given = self.config.strings("Entrypoint")?;
        let command = self.config.strings("Cmd")?.unwrap_or_default();
        // As Docker merges them: an empty entrypoint is none, not the image's; with one, the image's command is not taken.
        let takes_command = command.is_empty() && given.as_ref().is_none_or(Vec::is_empty);
        let mut entrypoint = match given {
            Some(given) if given == [""] => Vec::new(),
            Some(given) => given,
            None => image.entrypoint.clone(),
        };
        if takes_command && !image.command.is_empty() {
            self.config.set("Cmd", &image.command)?;
        }
        let has_command = !command.is_empty() || (takes_command && !image.command.is_empty());
        if entrypoint.is_empty() && !has_command && is_known {
            return Ok(false);
        }
        if entrypoint.first().is_none_or(|first| first != WAIT_PROGRAM) {
            entrypoint.insert(0, WAIT_PROGRAM.to_owned());
        }
        self.config.set("Entrypoint", &entrypoint)?;
        Ok(true)
    }

    fn mount(&mut self, folder: &str) -> Result<(), ObjectError> {
        let mut binds: Vec<String> = self.host_config.read("Binds")?.unwrap_or_default();
        binds.retain(|bind| !is_mounted_at_ours(bind));
        binds.push(format!("{folder}:{WAIT_FOLDER}:ro"));
        self.host_config.set("Binds", &binds)
    }
}

/// Whether a bind `source:target[:options]` has our target.
#[must_use]
pub fn is_mounted_at_ours(bind: &str) -> bool {
    let target = bind.split(':').nth(1);
    target.is_some_and(|target| target.trim_end_matches('/') == WAIT_FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn image(entrypoint: &[&str], command: &[&str]) -> Image {
        Image {
            entrypoint: strings(entrypoint),
            command: strings(command),
            environment: strings(&["PATH=/bin"]),
        }
    }

    fn rules() -> CreateRules {
        CreateRules {
            default_ipalloc: true,
            folder: "/var/lib/weft/wait".to_owned(),
            naming: None,
        }
    }

    fn decided(body: &str, image: Option<&Image>) -> Creation {
        let request = CreateRequest::parse(body.as_bytes()).unwrap();
        request.decide("a", image, &rules()).unwrap()
    }

    fn changed(body: &str, image: &Image) -> Object {
        match decided(body, Some(image)) {
            Creation::Changed { body, .. } => Object::parse(&body).unwrap(),
            Creation::AsItIs(why) => panic!("{body} passed: {why}"),
        }
    }

    #[test]
    fn the_wait_program_comes_before_what_docker_would_have_run() {
        let whole = image(&["/e"], &["c"]);
        for (request, entrypoint, command) in [
            (r"{}", &["/w/w", "/e"][..], &["c"][..]),
            (r#"{"Cmd":["x"]}"#, &["/w/w", "/e"], &["x"]),
            (r#"{"Cmd":[]}"#, &["/w/w", "/e"], &["c"]),
            (r#"{"Cmd":"x"}"#, &["/w/w", "/e"], &["x"]),
            (r#"{"Entrypoint":["/f"]}"#, &["/w/w", "/f"], &[]),
            (
                r#"{"Entrypoint":"/f","Cmd":["x"]}"#,
                &["/w/w", "/f"],
                &["x"],
            ),
            (r#"{"Entrypoint":[]}"#, &["/w/w"], &["c"]),
            (r#"{"Entrypoint":[""],"Cmd":["x"]}"#, &["/w/w"], &["x"]),
            (r#"{"entrypoint":null,"cmd":null}"#, &["/w/w", "/e"], &["c"]),
            (r#"{"Entrypoint":["/w/w","/f"]}"#, &["/w/w", "/f"], &[]),
        ] {
            let made = changed(request, &whole);
            assert_eq!(
                made.strings("Entrypoint").unwrap().unwrap(),
                entrypoint,
                "{request}"
            );
            assert_eq!(
                made.strings("Cmd").unwrap().unwrap_or_default(),
                command,
                "{request}"
            );
        }
        let committed = changed("{}", &image(&["/w/w", "/e"], &[]));
        assert_eq!(committed.get("Entrypoint"), Some(r#"["/w/w","/e"]"#));
    }

    #[test]
    fn without_a_command_docker_refuses_in_its_own_words() {
        let bare = image(&[], &[]);
        for request in [
            "{}",
            r#"{"Entrypoint":[""]}"#,
            r#"{"Entrypoint":[],"Cmd":[]}"#,
        ] {
            let expected = Creation::AsItIs("it has no command");
            assert_eq!(decided(request, Some(&bare)), expected, "{request}");
            let nothing = Image::default();
            assert_eq!(decided(request, Some(&nothing)), expected, "{request}");
        }
        // No such image: were it pulled in between, the container would fail rather than run without the network.
        assert!(matches!(decided("{}", None), Creation::Changed { .. }));
    }

    #[test]
    fn the_mount_takes_the_place_of_an_older_one_and_nothing_else_changes() {
        let request = r#"{"Memory":1.50,"HostConfig":{"Binds":["/a:/b","/old:/w:ro","/x:/w/","/y:/www"],"NetworkMode":"none","Unknown":{"z":1e3}},"Image":"i"}"#;
        let made = changed(request, &image(&["/e"], &[]));
        assert_eq!(
            made.to_json(),
            r#"{"Memory":1.50,"HostConfig":{"Binds":["/a:/b","/y:/www","/var/lib/weft/wait:/w:ro"],"NetworkMode":"none","Unknown":{"z":1e3}},"Image":"i","Entrypoint":["/w/w","/e"]}"#
        );
    }

    #[test]
    fn containers_of_other_networks_pass_and_their_image_is_not_asked_for() {
        let request = r#"{"HostConfig":{"NetworkMode":"host"},"Image":"i"}"#;
        let parsed = CreateRequest::parse(request.as_bytes()).unwrap();
        assert_eq!(parsed.image().unwrap(), None);
        assert_eq!(decided(request, None), Creation::AsItIs("its network mode"));
        let parsed = CreateRequest::parse(br#"{"Image":"i"}"#).unwrap();
        assert_eq!(parsed.image().unwrap(), Some("i".to_owned()));
    }

    #[test]
    fn the_variable_may_come_from_the_image_and_the_request_wins() {
        let mut left = image(&["/e"], &[]);
        left.environment = strings(&["WEAVE_CIDR=none"]);
        assert_eq!(
            decided("{}", Some(&left)),
            Creation::AsItIs("WEAVE_CIDR=none")
        );
        let asking = r#"{"Env":["WEAVE_CIDR=10.2.1.1/24"]}"#;
        let Creation::Changed { addresses, .. } = decided(asking, Some(&left)) else {
            panic!("passed");
        };
        assert_eq!(addresses, ["10.2.1.1/24"]);
    }

    #[test]
    fn what_docker_would_read_otherwise_is_refused() {
        for body in [
            r#"{"HostConfig":{},"hostConfig":{"NetworkMode":"host"}}"#,
            r#"{"HostConfig":{"NetworkMode":"host","networkmode":""}}"#,
            r#"{"HostConfig":{"NetworkMode":1}}"#,
            r#"{"HostConfig":[]}"#,
            r#"{"Env":"A=b"}"#,
            "[]",
            "\u{feff}{}",
        ] {
            assert!(CreateRequest::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(CreateRequest::parse(b"{\"Image\":\"\xff\"}").is_err());
    }
}
