# shellcheck shell=bash
# How the scripts of this folder refuse a wrong command line. It is sourced, not run; `usage` prints the usage.

# Ends with the usage, and says why.
wrong() {
    usage >&2
    printf '\n%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# Prints the value of an option: value_of OPTION [VALUE ...]. What takes it must heed the status.
value_of() {
    [ -n "${2:-}" ] || wrong "$1 needs a value"
    printf '%s\n' "$2"
}

# The same for a directory that is there, which it prints as an absolute path.
directory_of() {
    local value
    value=$(value_of "$@") || exit
    [ -d "$value" ] || wrong "$1: there is no directory $value"
    realpath "$value"
}

# The same for a file that is to be written, before anything else is done.
file_of() {
    local value
    value=$(value_of "$@") || exit
    [ ! -d "$value" ] || wrong "$1: $value is a directory"
    [ -d "$(dirname -- "$value")" ] || wrong "$1: there is no directory for $value"
    printf '%s\n' "$value"
}

# The same for a number of a range: number_of FIRST LAST OPTION [VALUE ...].
number_of() {
    local first=$1 last=$2 value
    shift 2
    value=$(value_of "$@") || exit
    if ! [[ $value =~ ^[0-9]{1,9}$ ]] || [ "$((10#$value))" -lt "$first" ] || [ "$((10#$value))" -gt "$last" ]; then
        wrong "$1 needs a number from $first to $last, not $value"
    fi
    printf '%s\n' "$value"
}
