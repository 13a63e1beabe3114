//! Packet filter rules in tables that plugins share: read, changed, and read again until they are as they shall be.

#[cfg(test)]
pub(crate) mod testing;

use cni_types::Code;
use ipnetwork::IpNetwork;
use netstate::iptables::{
    IptablesFamily, IptablesKey, IptablesTable, IptablesVariant, Restore, RestoreError,
};
use netstate::nft::{BaseChain, Change, TableKey};
use netstate::{ErrorClass, KernelError};
use nftables::iptables::{HolderError, Iptables, IptablesError, iptables_use, programs_holding};
use nftables::{ApplyError, Listing, Nftables, Selection};

use crate::error::CniError;

/// How often rules are looked at again because another process changed them meanwhile.
const PASSES: u32 = 20;

/// How often rules of iptables are; a program takes longer than a netlink request.
const PROGRAM_PASSES: u32 = 10;

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
    Apply(String, #[source] ApplyError),
    #[error("the packet filter's table {tables} changes too fast: {PASSES} attempts failed")]
    Unsettled {
        tables: String,
        #[source]
        cause: Option<Collision>,
    },
    #[error(
        "the packet filter's table {key} has a chain {chain:?} that is hooked in another way than this plugin's; \
         rename it, or remove it with \"nft delete chain {key} {chain}\""
    )]
    Chain { key: TableKey, chain: String },
    #[error("cannot work on the rules of iptables")]
    Iptables(#[source] IptablesError),
    #[error("cannot write the rules of iptables")]
    Restore(#[source] RestoreError),
}

/// Another process was faster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Collision {
    #[error(transparent)]
    Read(KernelError),
    #[error(transparent)]
    Apply(ApplyError),
}

impl CniError for NetfilterError {
    fn code(&self) -> Code {
        match self {
            Self::Open(e) | Self::Read(_, e) | Self::Use(e) if e.class == ErrorClass::Busy => Code::TRY_LATER,
            Self::Unsettled { .. } => Code::TRY_LATER,
            Self::Chain { .. }
            | Self::Open(_)
            | Self::Read(..)
            | Self::Use(_)
            | Self::Apply(..)
            | Self::Iptables(_)
            | Self::Restore(_) => Code::KERNEL,
        }
    }
}

impl From<HolderError> for NetfilterError {
    fn from(error: HolderError) -> Self {
        match error {
            HolderError::Read(key, e) => Self::Read(key, e),
            HolderError::Programs(e) => Self::Iptables(e),
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

/// Reads a part of a table; `None` if the table is absent.
pub(crate) fn read_part(
    nftables: &mut Nftables,
    key: &TableKey,
    selection: &Selection,
) -> Result<Option<Listing>, NetfilterError> {
    nftables
        .part(key, selection)
        .map_err(|e| NetfilterError::Read(key.clone(), e))
}

/// When the work on tables is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Once the changes are made.
    Made,
    /// When no change follows any more: for rules that follow from what other processes write. Whoever writes last
    /// sees everything.
    Settled,
}

/// Makes the changes that follow from what a table holds, which is read again when another process was faster.
pub(crate) fn settle(
    nftables: &mut Nftables,
    key: &TableKey,
    until: Until,
    changes: impl Fn(Option<&Listing>) -> Vec<Change>,
) -> Result<(), NetfilterError> {
    let keys = std::slice::from_ref(key);
    settle_all(nftables, keys, until, read, |found| {
        changes(found.first().and_then(Option::as_ref))
    })
    .map(drop)
}

/// As [`settle`], with the changes of several tables made at once, and with a reading of one's own; tells whether
/// there were any changes.
pub(crate) fn settle_all(
    nftables: &mut Nftables,
    keys: &[TableKey],
    until: Until,
    read: impl Fn(&mut Nftables, &TableKey) -> Result<Option<Listing>, NetfilterError>,
    mut changes: impl FnMut(&[Option<Listing>]) -> Vec<Change>,
) -> Result<bool, NetfilterError> {
    let mut is_changed = false;
    let mut cause = None;
    for _ in 0..PASSES {
        let found: Result<Vec<_>, _> = keys.iter().map(|key| read(nftables, key)).collect();
        let found = match found {
            Err(NetfilterError::Read(_, e)) if e.class == ErrorClass::Busy => {
                cause = Some(Collision::Read(e));
                continue;
            }
            found => found?,
        };
        let changes = changes(&found);
        if changes.is_empty() {
            return Ok(is_changed);
        }
        if let Some((key, chain)) = misshapen(keys, &found, &changes) {
            return Err(NetfilterError::Chain {
                key: key.clone(),
                chain: chain.clone(),
            });
        }
        match nftables.apply(&changes) {
            Ok(()) if until == Until::Made => return Ok(true),
            Ok(()) => is_changed = true,
            Err(e) if is_outdated(e.class()) => cause = Some(Collision::Apply(e)),
            Err(e) => return Err(NetfilterError::Apply(names(keys), e)),
        }
    }
    Err(NetfilterError::Unsettled {
        tables: names(keys),
        cause,
    })
}

fn names(keys: &[TableKey]) -> String {
    let names: Vec<_> = keys.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

/// The first chain that the changes would add and that stands there with another hook, which the kernel never changes;
/// it would take rules for a chain that is hooked and should not be, and no packet would come the way that it should.
fn misshapen<'a>(
    keys: &[TableKey],
    found: &[Option<Listing>],
    changes: &'a [Change],
) -> Option<(&'a TableKey, &'a String)> {
    let hook = |base: BaseChain| (base.kind, base.hook, base.priority);
    changes.iter().find_map(|change| {
        let Change::AddChain {
            table, chain, base, ..
        } = change
        else {
            return None;
        };
        let mut tables = keys.iter().zip(found);
        let (_, listing) = tables.find(|(key, _)| *key == table)?;
        let present = listing.as_ref()?.table.chains.get(chain)?;
        (present.base.map(hook) != base.map(hook)).then_some((table, chain))
    })
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

/// As [`iptables_for`], but where a chain stands already, if both variants hold something: a node's other rules may
/// have moved since it was made. If one holds everything, it is there or nowhere.
pub(crate) fn iptables_for_chain(
    mut nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
    chain: &str,
) -> Result<Iptables, NetfilterError> {
    let used = iptables_use(nftables.as_deref_mut(), family).map_err(NetfilterError::Use)?;
    if !used.nft.is_empty() && !used.legacy.is_empty() {
        for programs in iptables_with(nftables, family, table, chain)? {
            let found = programs.save(table).map_err(NetfilterError::Iptables)?;
            if found.chains.contains_key(chain) {
                return Ok(programs);
            }
        }
    }
    Iptables::find(family, used.variant()).map_err(NetfilterError::Iptables)
}

/// The programs for a family, of each variant that holds anything in a table: what one accepts another may drop. Of a
/// node without any, those of the administrator's choice.
pub(crate) fn iptables_deciding(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
) -> Result<Vec<Iptables>, NetfilterError> {
    let used = iptables_use(nftables, family).map_err(NetfilterError::Use)?;
    let by_variant = [
        (IptablesVariant::Nft, &used.nft),
        (IptablesVariant::Legacy, &used.legacy),
    ];
    let holding = by_variant
        .into_iter()
        .filter(|(_, tables)| tables.contains(table));
    let mut variants: Vec<_> = holding.map(|(variant, _)| Some(variant)).collect();
    if variants.is_empty() {
        variants.push(used.variant());
    }
    let found = variants
        .into_iter()
        .map(|variant| Iptables::find(family, variant));
    found.collect::<Result<_, _>>().map_err(NetfilterError::Iptables)
}

/// The programs for a family whose table may hold this chain, of either variant.
pub(crate) fn iptables_with(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
    chain: &str,
) -> Result<Vec<Iptables>, NetfilterError> {
    iptables_where(nftables, family, table, |nftables, key| {
        nftables.has_chain(key, chain)
    })
}

/// As [`iptables_with`], for any chain with a name that is asked for.
pub(crate) fn iptables_with_any(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
    is_asked_for: impl Fn(&str) -> bool,
) -> Result<Vec<Iptables>, NetfilterError> {
    iptables_where(nftables, family, table, |nftables, key| {
        let chains = nftables.chains(key)?;
        Ok(chains.iter().any(|chain| is_asked_for(chain)))
    })
}

fn iptables_where(
    mut nftables: Option<&mut Nftables>,
    family: IptablesFamily,
    table: &str,
    holds: impl Fn(&mut Nftables, &TableKey) -> Result<bool, KernelError>,
) -> Result<Vec<Iptables>, NetfilterError> {
    let mut found = Vec::new();
    for variant in [IptablesVariant::Nft, IptablesVariant::Legacy] {
        let key = IptablesKey {
            family,
            variant,
            table: table.to_owned(),
        };
        found.extend(programs_holding(nftables.as_deref_mut(), &key, &holds)?);
    }
    Ok(found)
}

/// Makes the changes that follow from what a table of iptables' holds, which is read again when another process was
/// faster; tells whether there were any.
pub(crate) fn settle_iptables(
    iptables: &Iptables,
    table: &str,
    mut changes: impl FnMut(&IptablesTable) -> Result<Restore, RestoreError>,
) -> Result<bool, NetfilterError> {
    let mut refused: Option<(Restore, IptablesError)> = None;
    for _ in 0..PROGRAM_PASSES {
        let found = iptables.save(table).map_err(NetfilterError::Iptables)?;
        let changes = changes(&found).map_err(NetfilterError::Restore)?;
        if changes.is_empty() {
            return Ok(refused.is_some());
        }
        if let Some((before, error)) = refused.take()
            && before == changes
        {
            return Err(NetfilterError::Iptables(error));
        }
        match iptables.restore(&changes) {
            Ok(()) => return Ok(true),
            // Another may have changed the rules since they were read; then the next changes are others.
            Err(error) => refused = Some((changes, error)),
        }
    }
    refused.map_or(Ok(false), |(_, error)| Err(NetfilterError::Iptables(error)))
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
