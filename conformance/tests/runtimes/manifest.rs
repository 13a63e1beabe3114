//! What `deploy/kube-flannel.yml` says of its DaemonSet, read line by line: enough of YAML for the project's own file.

/// The manifest that is applied to clusters.
const TEXT: &str = include_str!("../../../deploy/kube-flannel.yml");

/// A container of the DaemonSet.
pub(crate) struct Container {
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) added_capabilities: Vec<String>,
    pub(crate) mounts: Vec<Mount>,
}

/// A directory or file of the host that a container sees; of the ConfigMap the host path is not told.
pub(crate) struct Mount {
    pub(crate) path: String,
    pub(crate) host_path: Option<String>,
    pub(crate) read_only: bool,
}

/// The container of this name.
pub(crate) fn container(name: &str) -> Container {
    let lines = block(&format!("        - name: {name}"));
    for hardening in [
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [ALL]",
        "type: RuntimeDefault",
    ] {
        assert!(lines.contains(&hardening), "{name} has no {hardening}");
    }
    let mounts = after(&lines, "volumeMounts:");
    let mounts = mounts.split(|line| line.starts_with("- name:")).skip(1);
    let names = lines.iter().skip_while(|line| **line != "volumeMounts:");
    let names = names.filter_map(|line| line.strip_prefix("- name: "));
    let mounts = names.zip(mounts).map(|(volume, lines)| Mount {
        path: value(lines, "mountPath:").expect("a mount has a path").to_owned(),
        host_path: host_path(volume),
        read_only: value(lines, "readOnly:") == Some("true"),
    });
    let args = after(&lines, "args:")
        .iter()
        .filter(|line| !line.starts_with('#'));
    Container {
        image: value(&lines, "image:")
            .expect("a container has an image")
            .to_owned(),
        command: list(value(&lines, "command:")),
        args: args
            .map_while(|line| line.strip_prefix("- "))
            .map(str::to_owned)
            .collect(),
        added_capabilities: list(value(&lines, "add:")),
        mounts: mounts.collect(),
    }
}

/// A file of the ConfigMap.
pub(crate) fn config(name: &str) -> String {
    block(&format!("  {name}: |")).join("\n")
}

fn host_path(volume: &str) -> Option<String> {
    let volumes = TEXT.split("\n      volumes:\n").nth(1)?;
    let lines: Vec<_> = volumes.lines().map(str::trim).collect();
    let lines = after(&lines, &format!("- name: {volume}"));
    let end = lines.iter().position(|line| line.starts_with("- name:"));
    value(&lines[..end.unwrap_or(lines.len())], "path:").map(str::to_owned)
}

/// The lines below a line that are further indented, without the indentation.
fn block(first: &str) -> Vec<&'static str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines = TEXT.lines().skip_while(|line| *line != first).skip(1);
    let lines: Vec<_> = lines
        .take_while(|line| indent(line) > indent(first))
        .map(str::trim)
        .collect();
    assert!(!lines.is_empty(), "the manifest has nothing below {first:?}");
    lines
}

fn after<'a>(lines: &'a [&'static str], first: &str) -> &'a [&'static str] {
    let index = lines.iter().position(|line| *line == first);
    index.map_or(&[], |index| &lines[index + 1..])
}

fn value<'a>(lines: &[&'a str], key: &str) -> Option<&'a str> {
    lines
        .iter()
        .find_map(|line| line.strip_prefix(key))
        .map(str::trim)
}

fn list(text: Option<&str>) -> Vec<String> {
    let items = text.map(|text| text.trim_matches(['[', ']']).split(", "));
    items.into_iter().flatten().map(str::to_owned).collect()
}
