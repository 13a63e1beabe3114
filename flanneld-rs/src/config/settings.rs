use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::ConfigError;
use super::flags::{FLAGS, Flag, Form, Support};
use super::go_syntax::{go_bool, go_int};

/// What the user set, flag by flag, whether on the command line or in the environment.
pub(super) struct Settings(BTreeMap<&'static str, Vec<Setting>>);

/// One value that the user gave.
pub(super) struct Setting {
    /// Where.
    pub(super) origin: Origin,
    value: OsString,
}

/// Where a value comes from, shown as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

impl Settings {
    /// Takes the values of the command line.
    pub(super) fn from_arguments(matches: &ArgMatches) -> Self {
        let given = |flag: &'static Flag| Some((flag.name, arguments(flag, matches)?));
        Self(FLAGS.iter().filter_map(given).collect())
    }

    /// Adds the values of the environment for the flags that the command line does not set.
    pub(super) fn with_environment(mut self, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        for flag in FLAGS.iter().filter(|flag| flag.has_variable()) {
            if self.0.contains_key(flag.name) {
                continue;
            }
            if let Some(setting) = variable(flag, env) {
                self.0.insert(flag.name, vec![setting]);
            }
        }
        self
    }

    /// The value that counts of a flag; an empty one is none, as upstream's empty defaults are.
    pub(super) fn one(&self, name: &str) -> Option<&Setting> {
        self.all(name).last()
    }

    /// All values of a flag in their order, without the empty ones.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Setting> {
        debug_assert!(Flag::find(name).is_some(), "{name} is not in the table of flags");
        self.0
            .get(name)
            .into_iter()
            .flatten()
            .filter(|setting| !setting.value.is_empty())
    }

    /// The path that a flag names.
    pub(super) fn path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(setting) = self.0.get(name).and_then(|settings| settings.last()) else {
            return Ok(None);
        };
        if setting.value.is_empty() {
            return Err(setting.invalid("a path, which cannot be empty, is expected"));
        }
        Ok(Some(PathBuf::from(&setting.value)))
    }

    /// Refuses what the user asks for and is not built.
    pub(super) fn check_support(&self) -> Result<(), ConfigError> {
        for flag in FLAGS {
            let Support::NotYet { idle, way_out } = flag.support else {
                continue;
            };
            for setting in self.all(flag.name) {
                if !idle.contains(&setting.canonical(flag.form)?.as_str()) {
                    return Err(ConfigError::NotSupported {
                        option: setting.origin.to_string(),
                        way_out,
                    });
                }
            }
        }
        Ok(())
    }
}

impl Setting {
    /// The value as text.
    pub(super) fn text(&self) -> Result<&str, ConfigError> {
        self.value
            .to_str()
            .ok_or_else(|| self.invalid("UTF-8 is expected"))
    }

    /// The value as text that no error may show.
    pub(super) fn secret(&self) -> Result<&str, ConfigError> {
        let not_utf8 = || ConfigError::usage(format!("the value for {} is not UTF-8", self.origin));
        self.value.to_str().ok_or_else(not_utf8)
    }

    /// The value as a path.
    pub(super) fn as_path(&self) -> PathBuf {
        PathBuf::from(&self.value)
    }

    /// The value as a whole number.
    pub(super) fn number(&self) -> Result<i64, ConfigError> {
        self.parsed("a whole number", go_int)
    }

    /// The value as a boolean.
    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        self.parsed("true or false", go_bool)
    }

    /// The value as `parse` reads it.
    pub(super) fn parsed<T>(
        &self,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        parse(self.text()?).ok_or_else(|| self.invalid(&format!("{what} is expected")))
    }

    /// The error for a value of the wrong form.
    pub(super) fn invalid(&self, reason: &str) -> ConfigError {
        let value = self.value.to_string_lossy();
        ConfigError::usage(format!("invalid value {value:?} for {}: {reason}", self.origin))
    }

    /// The value in one spelling, so that it can be compared.
    fn canonical(&self, form: Form) -> Result<String, ConfigError> {
        match form {
            Form::Switch => Ok(self.boolean()?.to_string()),
            Form::Number(_) => Ok(self.number()?.to_string()),
            Form::Text(_) | Form::List(_) => Ok(self.value.to_string_lossy().into_owned()),
        }
    }
}

fn arguments(flag: &'static Flag, matches: &ArgMatches) -> Option<Vec<Setting>> {
    if matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
        return None;
    }
    let values = matches.get_many::<OsString>(flag.name)?;
    Some(
        values
            .map(|value| Setting {
                origin: Origin::Flag(flag.name),
                value: value.clone(),
            })
            .collect(),
    )
}

fn variable(flag: &Flag, env: &dyn Fn(&str) -> Option<OsString>) -> Option<Setting> {
    let name = flag.variable();
    let value = env(&name).filter(|value| !value.is_empty())?;
    Some(Setting {
        origin: Origin::Variable(name),
        value,
    })
}
