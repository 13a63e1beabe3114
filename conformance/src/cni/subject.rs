//! What is judged: a directory of programs, and the configuration that they are called with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// The plugins under test.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) dir: PathBuf,
    /// The network's name.
    pub(super) network: String,
    /// The configuration's own version.
    pub(super) version: String,
    /// The configurations of the plugins, without name and version, in the order of ADD.
    pub(super) plugins: Vec<Value>,
}

impl Subject {
    /// Takes the programs of a directory, and their configuration from a file: a list, or that of one plugin. Without a
    /// file it is that of `flannel` or of `bridge`, whichever is there.
    ///
    /// # Errors
    /// Fails when the file cannot be read, is no configuration, or names a program that the directory has not.
    pub(super) fn load(dir: &Path, file: Option<&Path>) -> Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("looking for {}", dir.display()))?;
        let conf = match file {
            Some(file) => {
                let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
                serde_json::from_str(&text).with_context(|| format!("reading {} as JSON", file.display()))?
            }
            None => usual_list(&dir)?,
        };
        let subject = Self::of(dir, &conf)?;
        for program in subject.programs() {
            ensure!(
                subject.has(&program),
                "{} has no program {program}, which the configuration names",
                subject.dir.display()
            );
        }
        Ok(subject)
    }

    fn of(dir: PathBuf, conf: &Value) -> Result<Self> {
        let text = |key: &str| conf.get(key).and_then(Value::as_str);
        let mut plugins = match conf.get("plugins") {
            Some(list) => list.as_array().cloned().context("`plugins` is no list")?,
            None => vec![conf.clone()],
        };
        if plugins.is_empty() {
            bail!("the list has no plugins");
        }
        for plugin in &mut plugins {
            let members = plugin
                .as_object_mut()
                .context("a plugin's configuration is no object")?;
            let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
            ensure!(
                !kind.is_empty() && !kind.contains('/'),
                "a plugin has no `type` that names a program"
            );
            for key in ["name", "cniVersion"] {
                members.remove(key);
            }
        }
        Ok(Self {
            dir,
            network: text("name")
                .context("the configuration has no `name`")?
                .to_owned(),
            version: text("cniVersion").unwrap_or("1.0.0").to_owned(),
            plugins,
        })
    }

    /// Whether the directory has a program.
    pub(super) fn has(&self, program: &str) -> bool {
        self.dir.join(program).is_file()
    }

    /// The types of the plugins, in the order of ADD.
    pub(super) fn types(&self) -> Vec<String> {
        self.plugins.iter().map(kind).collect()
    }

    /// The address management that the first plugin runs, if its configuration names one.
    pub(super) fn ipam(&self) -> Option<String> {
        let kind = self.plugins.first()?.pointer("/ipam/type")?.as_str()?;
        Some(kind.to_owned())
    }

    /// Every program that the configuration names, each once.
    pub(super) fn programs(&self) -> Vec<String> {
        let mut programs = Vec::new();
        for program in self.types().into_iter().chain(self.ipam()) {
            if !programs.contains(&program) {
                programs.push(program);
            }
        }
        programs
    }
}

/// The type of a plugin's configuration.
pub(super) fn kind(conf: &Value) -> String {
    conf.get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn usual_list(dir: &Path) -> Result<Value> {
    let has = |program: &str| dir.join(program).is_file();
    let main = match (has("flannel"), has("bridge") && has("host-local")) {
        (true, _) => "flannel",
        (false, true) => "bridge",
        (false, false) => bail!(
            "{} has neither flannel nor bridge and host-local: give the configuration of its plugins with --conf",
            dir.display()
        ),
    };
    let followers = has("portmap").then_some("portmap");
    let plugins: Vec<_> = [main].into_iter().chain(followers).map(usual_conf).collect();
    Ok(json!({"name": "conformance", "cniVersion": "1.0.0", "plugins": plugins}))
}

/// The configuration that the runner itself gives a plugin of a known type.
pub(super) fn usual_conf(kind: &str) -> Value {
    let mut conf = match kind {
        "bridge" => json!({"bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}}),
        "flannel" => json!({"delegate": {"hairpinMode": true, "isDefaultGateway": true}}),
        "host-local" => json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]]}}),
        "portmap" => json!({"capabilities": {"portMappings": true}}),
        "bandwidth" => json!({"capabilities": {"bandwidth": true}}),
        _ => Value::Object(Map::new()),
    };
    if let Some(members) = conf.as_object_mut() {
        members.insert("type".to_owned(), kind.into());
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(conf: &Value) -> Result<Subject> {
        Subject::of(PathBuf::from("/nowhere"), conf)
    }

    #[test]
    fn a_list_and_a_single_configuration_are_taken_alike() {
        let plugin = json!({"type": "bridge", "ipam": {"type": "host-local"}});
        let list = json!({"name": "n", "cniVersion": "0.4.0", "plugins": [plugin, {"type": "portmap"}]});
        let mut single = plugin.clone();
        single["name"] = "n".into();
        let (list, single) = (of(&list).unwrap(), of(&single).unwrap());
        assert_eq!(list.programs(), ["bridge", "portmap", "host-local"]);
        assert_eq!(
            (list.version.as_str(), single.version.as_str()),
            ("0.4.0", "1.0.0")
        );
        assert_eq!(single.plugins, [plugin]);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for wrong in [
            json!({"type": "bridge"}),
            json!({"name": "n"}),
            json!({"name": "n", "plugins": []}),
            json!({"name": "n", "plugins": {}}),
            json!({"name": "n", "plugins": [5]}),
            json!({"name": "n", "type": "../sh"}),
        ] {
            assert!(of(&wrong).is_err(), "{wrong}");
        }
    }
}
