//! What the program was called for: a plugin's operation, or something that a person asks for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cni_types::Version;
use net_types::counted;

use crate::install::Install;
use crate::plugins::{Builtin, restore_all};
use crate::run::Output;

/// The exit status of work that was not done, or not all of it.
const FAILURE: u8 = 1;

/// The exit status of a call that nobody understands.
const USAGE_ERROR: u8 = 2;

/// What asks for help, as a flag.
const HELP_FLAGS: [&str; 3] = ["--help", "-help", "-h"];

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A plugin's operation, which the environment describes; the path or name that says which plugin.
    Plugin(String),
    /// A text for people.
    Text(Output),
    /// To put the plugins into a directory, or to take them out of one.
    Install(Install),
    /// To put back the rules of mapped ports, as stored in this directory or the default one.
    RestorePorts(Option<PathBuf>),
}

/// Reads a command line, the program's own path first.
///
/// Runtimes pass no arguments: under a plugin's name other than `flannel` they mean nothing, as with the reference.
#[must_use]
pub fn command(args: &[String]) -> Command {
    let (program, rest) = match args {
        [] => ("", args),
        [program, rest @ ..] => (program.as_str(), rest),
    };
    let only_a_plugin = plugin_of(program).is_some_and(|plugin| plugin != Builtin::Flannel);
    let Some((first, others)) = rest.split_first().filter(|_| !only_a_plugin) else {
        return Command::Plugin(program.to_owned());
    };
    match (first.as_str(), others) {
        ("install", [word]) if word == "help" || is_help(word) => Command::Text(told(install_help())),
        ("install", options) => match Install::parse(options) {
            Some(install) => Command::Install(install),
            None => Command::Text(misunderstood(&rest.join(" "))),
        },
        ("--version" | "-version" | "-V" | "version", []) => Command::Text(told(version())),
        ("help", []) => Command::Text(told(help())),
        (flag, []) if is_help(flag) => Command::Text(told(help())),
        (name, [flag]) if is_help(flag) && Builtin::by_name(name).is_some() => Command::Text(told(help())),
        ("portmap", [verb, flag]) if verb == "restore" && is_help(flag) => Command::Text(told(help())),
        ("portmap", [verb]) if verb == "restore" => Command::RestorePorts(None),
        ("portmap", [verb, dir]) if verb == "restore" => Command::RestorePorts(Some(PathBuf::from(dir))),
        (name, []) if Builtin::by_name(name).is_some() => Command::Plugin(name.to_owned()),
        _ => Command::Text(misunderstood(&rest.join(" "))),
    }
}

fn is_help(word: &str) -> bool {
    HELP_FLAGS.contains(&word)
}

/// The plugin that a path's file name is.
pub(crate) fn plugin_of(program: &str) -> Option<Builtin> {
    Builtin::by_name(file_name(program))
}

/// The last part of a path, or nothing.
pub(crate) fn file_name(program: &str) -> &str {
    let name = Path::new(program).file_name();
    name.and_then(OsStr::to_str).unwrap_or_default()
}

/// The answer to a plugin's call without operation: people and packagers ask this way who the plugin is.
pub(crate) fn about(program: &str) -> Output {
    let (what, oldest) = match plugin_of(program) {
        Some(plugin) => (format!("plugin {}", plugin.name()), plugin.oldest_version()),
        None => (format!("plugins {}", Builtin::names()), Version::V0_1_0),
    };
    let versions: Vec<_> = oldest.onwards().iter().map(|v| v.as_str()).collect();
    Output {
        stderr: format!(
            "CNI {what} of flannel {}\nCNI protocol versions supported: {}\n",
            env!("CARGO_PKG_VERSION"),
            versions.join(", ")
        ),
        ..Output::default()
    }
}

fn version() -> String {
    format!(
        "flannel {}: the CNI plugins {}\n",
        env!("CARGO_PKG_VERSION"),
        Builtin::names()
    )
}

/// What is said of the installation.
const INSTALL: &str = "  flannel install [--dir DIR] [--force]
                          copies itself under every plugin's name into DIR, by
                          default /opt/cni/bin, while pods start as ever; keeps
                          what it replaces in DIR/.flannel/before; --force also
                          replaces a newer version
  flannel install --uninstall [--dir DIR]
                          removes these files, and puts back what was there
";

fn install_help() -> String {
    format!("Usage:\n{INSTALL}\nThe plugins: {}.\n", Builtin::names())
}

fn help() -> String {
    format!(
        "{}
A container runtime runs this program under a plugin's name, with the call in
its environment and the configuration on standard input (CNI specification {}).

Usage:
  flannel                 the plugin flannel
  flannel PLUGIN          another plugin, as under its own name: CNI_COMMAND and
                          the other variables of a call say what to do
{INSTALL}  flannel portmap restore [DIRECTORY]
                          puts back rules of mapped ports that were flushed, from
                          what portmap stored (its dataDir)
  flannel --version       what this is
  flannel --help          this text
",
        version(),
        Version::NEWEST
    )
}

/// Puts back the rules of mapped ports and says how many containers had lost some.
#[must_use]
pub fn restore_ports(dir: Option<&Path>) -> Output {
    match restore_all(dir) {
        Ok(count) => told(format!(
            "restored the mapped ports of {}\n",
            counted(count, "container")
        )),
        Err(error) => Output {
            stderr: format!("flannel: {error}\n"),
            code: FAILURE,
            ..Output::default()
        },
    }
}

fn told(text: String) -> Output {
    Output {
        stdout: text,
        ..Output::default()
    }
}

fn misunderstood(words: &str) -> Output {
    Output {
        stderr: format!("flannel: {words:?} is not understood; flannel --help says what is\n"),
        code: USAGE_ERROR,
        ..Output::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &str) -> Command {
        let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        command(&words)
    }

    fn plugin(name: &str) -> Command {
        Command::Plugin(name.to_owned())
    }

    #[test]
    fn a_plugin_is_chosen_by_the_programs_name_or_by_the_first_argument() {
        assert_eq!(asked("/opt/cni/bin/bridge"), plugin("/opt/cni/bin/bridge"));
        assert_eq!(asked("/opt/cni/bin/flannel"), plugin("/opt/cni/bin/flannel"));
        for builtin in Builtin::ALL {
            assert_eq!(
                asked(&format!("./flannel {}", builtin.name())),
                plugin(builtin.name())
            );
            assert_eq!(
                asked(&format!("flannel-arm64 {}", builtin.name())),
                plugin(builtin.name())
            );
        }
        assert_eq!(command(&[]), plugin(""));
    }

    #[test]
    fn arguments_mean_nothing_under_another_plugins_name() {
        for words in ["/x/bridge host-local", "host-local --help", "bridge x y"] {
            let program = words.split(' ').next().unwrap();
            assert_eq!(asked(words), plugin(program), "{words}");
        }
    }

    #[test]
    fn people_are_answered_on_standard_output() {
        for words in ["flannel --version", "flannel -version", "flannel version", "x -V"] {
            let Command::Text(output) = asked(words) else {
                panic!("{words}")
            };
            assert!(output.stdout.starts_with("flannel 0.") && output.stdout.contains("host-local"));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        }
        for words in [
            "flannel --help",
            "flannel help",
            "flannel portmap --help",
            "flannel bridge -h",
            "flannel portmap restore --help",
        ] {
            let Command::Text(output) = asked(words) else {
                panic!("{words}")
            };
            assert!(output.stdout.contains("\n  flannel PLUGIN"), "{words}");
            assert!(
                output
                    .stdout
                    .contains("\n  flannel install [--dir DIR] [--force]\n")
            );
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        }
        for words in ["flannel install --help", "flannel install -h"] {
            let Command::Text(output) = asked(words) else {
                panic!("{words} installs")
            };
            assert!(
                output
                    .stdout
                    .starts_with("Usage:\n  flannel install [--dir DIR] [--force]\n")
            );
            assert!(
                output
                    .stdout
                    .contains("by\n                          default /opt/cni/bin")
            );
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        }
    }

    #[test]
    fn mapped_ports_are_restored_from_a_directory_or_the_default_one() {
        assert_eq!(asked("flannel portmap restore"), Command::RestorePorts(None));
        assert_eq!(
            asked("flannel portmap restore /a"),
            Command::RestorePorts(Some("/a".into()))
        );
        assert_eq!(asked("portmap restore"), plugin("portmap"));
    }

    #[test]
    fn what_nobody_understands_ends_with_status_2() {
        for words in [
            "flannel macvlan",
            "flannel bridge x",
            "flannel portmap restore /a b",
            "flannel --version x",
            "flannel -",
        ] {
            let Command::Text(output) = asked(words) else {
                panic!("{words}")
            };
            assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{words}");
        }
    }

    #[test]
    fn every_plugin_says_who_it_is_and_what_it_supports() {
        for builtin in Builtin::ALL {
            let text = about(&format!("/x/{}", builtin.name())).stderr;
            assert!(
                text.starts_with(&format!("CNI plugin {} of", builtin.name())),
                "{text}"
            );
            assert!(text.contains(builtin.oldest_version().as_str()) && text.ends_with("1.1.0\n"));
        }
        assert!(about("other").stderr.contains(&Builtin::names()));
    }
}
