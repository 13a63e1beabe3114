use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

use super::flags::{FLAGS, Flag, Form, GENERAL, Support};

/// The line that goes with every complaint about the command line.
pub(super) const USAGE: &str = "flanneld [FLAG]... (flanneld --help lists the flags)";

const SUBCOMMANDS: &str = "\
flanneld status   prints how this host's node stands (flanneld status --help)
flanneld check    names what is wrong with this host (flanneld check --help)
flanneld cleanup  removes what flanneld made on this host (flanneld cleanup --help)
flanneld install-conf SRC DST
                  replaces the file DST by a copy of SRC
flanneld mk-docker-opts
                  writes options for Docker's daemon (flanneld mk-docker-opts -h)
flanneld pause    does nothing until it is asked to end, as a pod does whose work is done
Under the names install-conf, mk-docker-opts.sh and cp (which copies one file) it is these programs.";

const ENVIRONMENT_RULE: &str = "\
Flags take one dash or two, and their value after = or as the next argument; a boolean is set by its bare name or
after =, as in --ip-masq=false.

Every flag but --version, --help, --replay and --dry-run has an environment variable: FLANNELD_ and its name in upper
case with _ for -, as in FLANNELD_PUBLIC_IP=192.0.2.1. It counts when the flag is not on the command line and the
variable is not empty; it gives a repeatable flag exactly one value.";

/// The command line as clap knows it; it sees only arguments that [`normalise`](super::go_syntax::normalise) wrote.
pub(super) fn command() -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help);
    let help = help.help("Print this text and exit").help_heading(GENERAL);
    Command::new("flanneld")
        .about("Gives the pods of all nodes one flat network: leases a subnet for this node and programs the overlay.")
        .override_usage(USAGE)
        .after_help(format!("{SUBCOMMANDS}\n\n{ENVIRONMENT_RULE}"))
        .args_override_self(true)
        .next_line_help(true)
        .disable_help_flag(true)
        .args(FLAGS.iter().map(arg))
        .arg(help)
}

fn arg(flag: &Flag) -> Arg {
    let suffix = match flag.support {
        Support::Built => "",
        Support::NotYet { .. } => " (not supported yet)",
    };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(format!("{}{suffix}", flag.help))
        .help_heading(flag.group)
        .value_parser(ValueParser::os_string())
        .action(ArgAction::Set);
    let arg = match flag.form {
        Form::Switch => arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Form::Number(value_name) | Form::Text(value_name) => arg.value_name(value_name),
        Form::List(value_name) => arg.value_name(value_name).action(ArgAction::Append),
    };
    if flag.default.is_empty() {
        arg
    } else {
        arg.default_value(flag.default)
    }
}
