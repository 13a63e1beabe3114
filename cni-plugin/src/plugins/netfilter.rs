//! Packet filter rules in tables that plugins share: read, changed, and read again until they are as they shall be.

#[cfg(test)]
pub(crate) mod testing;

use std::fs;

use cni_types::Code;
use ipnetwork::IpNetwork;
use netstate::iptables::{IptablesFamily, IptablesTable, Restore, RestoreError};
use netstate::nft::{Change, Family, TableKey};
use netstate::{ErrorClass, KernelError};
use nftables::iptables::{Iptables, IptablesError, Variant, iptables_use};
use nftables::{ApplyError, Listing, Nftables};

use crate::error::CniError;

/// How often rules are looked at again because another process changed them meanwhile.
const PASSES: u32 = 20;

/// How often rules of iptables are; a program takes longer than a netlink request.
const PROGRAM_PASSES: u32 = 5;

/// Both families.
pub(crate) const FAMILIES: [IptablesFamily; 2] = [IptablesFamily::V4, IptablesFamily::V6];

/// Which of the kernel's packet filters holds rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// nf_tables, over netlink.
    Nftables,
    /// Whatever the node's program `iptables` writes to.
    Iptables,
}

/// Rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetfilterError {
    #[error("cannot open the kernel's packet filter")]
    Open(#[source] KernelError),
    #[error("cannot read the packet filter's table {0}")]
    Read(TableKey, #[source] KernelError),
    #[error("cannot find out whether iptables is in use")]
    Use(#[source] KernelError),
    #[error("cannot change the packet filter's table {0}")]
    Apply(TableKey, #[source] ApplyError),
    #[error("the packet filter's table {0} changes too fast: {PASSES} attempts failed")]
    Unsettled(TableKey),
    #[error("cannot work on the rules of iptables")]
    Iptables(#[source] IptablesError),
    #[error("cannot write the rules of iptables")]
    Restore(#[source] RestoreError),
}

impl CniError for NetfilterError {
    fn code(&self) -> Code {
        match self {
            Self::Open(e) | Self::Read(_, e) | Self::Use(e) if e.class == ErrorClass::Busy => Code::TRY_LATER,
            Self::Unsettled(_) => Code::TRY_LATER,
            Self::Open(_)
            | Self::Read(..)
            | Self::Use(_)
            | Self::Apply(..)
            | Self::Iptables(_)
            | Self::Restore(_) => Code::KERNEL,
        }
    }
}

impl Backend {
    /// Reads a back end's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "nftables" => Some(Self::Nftables),
            "iptables" => Some(Self::Iptables),
            _ => None,
        }
    }
}

/// Opens nf_tables.
pub(crate) fn open() -> Result<Nftables, NetfilterError> {
    Nftables::open().map_err(NetfilterError::Open)
}

/// Opens nf_tables if the kernel has it.
pub(crate) fn open_if_present() -> Result<Option<Nftables>, NetfilterError> {
    Nftables::open_if_present().map_err(NetfilterError::Open)
}

/// Reads a table; `None` if it is absent.
pub(crate) fn read(nftables: &mut Nftables, key: &TableKey) -> Result<Option<Listing>, NetfilterError> {
    nftables
        .table(key)
        .map_err(|e| NetfilterError::Read(key.clone(), e))
}

/// Makes the changes that follow from what a table holds, which is read again when another process was faster.
pub(crate) fn settle(
    nftables: &mut Nftables,
    key: &TableKey,
    changes: impl Fn(Option<&Listing>) -> Vec<Change>,
) -> Result<(), NetfilterError> {
    let mut passes = 1..=PASSES;
    loop {
        let last = passes.next().is_none_or(|pass| pass == PASSES);
        let found = match nftables.table(key) {
            Err(e) if e.class == ErrorClass::Busy && !last => continue,
            found => found.map_err(|e| NetfilterError::Read(key.clone(), e))?,
        };
        let changes = changes(found.as_ref());
        if changes.is_empty() {
            return Ok(());
        }
        match nftables.apply(&changes) {
            Ok(()) => return Ok(()),
            Err(e) if is_outdated(e.class()) && !last => {}
            Err(e) => return Err(NetfilterError::Apply(key.clone(), e)),
        }
    }
}

/// Makes the changes that follow from what a table holds until none follows any more: for rules that follow from what
/// other processes write. Whoever writes last sees everything.
pub(crate) fn converge(
    nftables: &mut Nftables,
    key: &TableKey,
    changes: impl Fn(Option<&Listing>) -> Vec<Change>,
) -> Result<(), NetfilterError> {
    for _ in 0..PASSES {
        let found = read(nftables, key)?;
        let changes = changes(found.as_ref());
        if changes.is_empty() {
            return Ok(());
        }
        match nftables.apply(&changes) {
            Err(e) if !is_outdated(e.class()) => return Err(NetfilterError::Apply(key.clone(), e)),
            Ok(()) | Err(_) => {}
        }
    }
    Err(NetfilterError::Unsettled(key.clone()))
}

/// Whether a refusal may come from what another process did after the table was read.
const fn is_outdated(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::NotFound | ErrorClass::Exists | ErrorClass::Busy
    )
}

/// The programs for a family that write to where the node's other rules of iptables are.
pub(crate) fn iptables_for(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
) -> Result<Iptables, NetfilterError> {
    let used = iptables_use(nftables, family).map_err(NetfilterError::Use)?;
    Iptables::find(family, used.variant()).map_err(NetfilterError::Iptables)
}

/// The programs for a family whose table may hold a chain that is asked for. Nothing is run to find out: what iptables
/// keeps in nf_tables is read over netlink, and legacy tables are listed by the kernel once they exist.
pub(crate) fn iptables_with(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
    is_asked_for: impl Fn(&str) -> bool,
) -> Result<Vec<Iptables>, NetfilterError> {
    let mut found = Vec::new();
    if let Some(nftables) = nftables {
        let key = TableKey {
            family: match family {
                IptablesFamily::V4 => Family::Ip,
                IptablesFamily::V6 => Family::Ip6,
            },
            name: table.to_owned(),
        };
        let listing = read(nftables, &key)?.unwrap_or_default();
        if listing.table.chains.keys().any(|chain| is_asked_for(chain)) {
            found.push(Iptables::find(family, Variant::Nft).map_err(NetfilterError::Iptables)?);
        }
    }
    // Without its programs nobody wrote to a legacy table but who brought his own: those rules are his.
    if has_legacy_table(family, table)
        && let Ok(legacy) = Iptables::find(family, Variant::Legacy)
    {
        found.push(legacy);
    }
    Ok(found)
}

/// Whether the kernel has a table of legacy iptables': it makes one when somebody looks for it.
pub(crate) fn has_legacy_table(family: IptablesFamily, table: &str) -> bool {
    let path = match family {
        IptablesFamily::V4 => "/proc/thread-self/net/ip_tables_names",
        IptablesFamily::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // A kernel without legacy iptables has no such file.
    let listed = fs::read_to_string(path).unwrap_or_default();
    listed.lines().any(|name| name == table)
}

/// Makes the changes that follow from what a table of iptables' holds, which is read again when another process was
/// faster.
pub(crate) fn settle_iptables(
    iptables: &Iptables,
    table: &str,
    changes: impl Fn(&IptablesTable) -> Result<Restore, RestoreError>,
) -> Result<(), NetfilterError> {
    let mut passes = 1..=PROGRAM_PASSES;
    loop {
        let last = passes.next().is_none_or(|pass| pass == PROGRAM_PASSES);
        let found = iptables.save(table).map_err(NetfilterError::Iptables)?;
        let changes = changes(&found).map_err(NetfilterError::Restore)?;
        match iptables.restore(&changes) {
            Err(_) if !last => {}
            done => return done.map_err(NetfilterError::Iptables),
        }
    }
}

/// The addresses of each family that has some.
pub(crate) fn by_family(addresses: &[IpNetwork]) -> Vec<(IptablesFamily, Vec<IpNetwork>)> {
    let of_family = |family| {
        let is_v4 = family == IptablesFamily::V4;
        let of_family = addresses.iter().filter(|address| address.is_ipv4() == is_v4);
        (family, of_family.copied().collect::<Vec<_>>())
    };
    let all = FAMILIES.into_iter().map(of_family);
    all.filter(|(_, addresses)| !addresses.is_empty()).collect()
}
