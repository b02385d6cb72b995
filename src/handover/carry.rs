//! How a part becomes plain data, and is restored from it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::ids::{AffinityKey, ConnectionId, Generation, SlotId, Timestamp, WorkerId};

/// A part that an upgrade or a crash carries over.
///
/// The data has types of its own, so that the format changes only on purpose.
pub trait Carry: Sized {
    /// The part as plain data.
    type Snapshot;

    /// The part as it is now.
    fn snapshot(&self) -> Self::Snapshot;

    /// The part as it was then.
    fn restore(snapshot: Self::Snapshot) -> Self;
}

/// Implements [`Carry`] for a struct or an enum whose snapshot has the same fields or variants. A field
/// that is missing here doesn't compile.
macro_rules! carry {
    (struct $part:ident => $snapshot:ident { $($field:ident),* $(,)? }) => {
        impl $crate::handover::Carry for $part {
            type Snapshot = $snapshot;

            fn snapshot(&self) -> $snapshot {
                let Self { $($field),* } = self;
                $snapshot { $($field: $crate::handover::Carry::snapshot($field)),* }
            }

            fn restore(snapshot: $snapshot) -> Self {
                let $snapshot { $($field),* } = snapshot;
                Self { $($field: $crate::handover::Carry::restore($field)),* }
            }
        }
    };
    (enum $part:ident => $snapshot:ident {
        $($variant:ident $({ $($field:ident),* })? $(( $($item:ident),* ))?),* $(,)?
    }) => {
        impl $crate::handover::Carry for $part {
            type Snapshot = $snapshot;

            fn snapshot(&self) -> $snapshot {
                match self {
                    $(Self::$variant $({ $($field),* })? $(( $($item),* ))? => $snapshot::$variant
                        $({ $($field: $crate::handover::Carry::snapshot($field)),* })?
                        $(( $($crate::handover::Carry::snapshot($item)),* ))?,)*
                }
            }

            fn restore(snapshot: $snapshot) -> Self {
                match snapshot {
                    $($snapshot::$variant $({ $($field),* })? $(( $($item),* ))? => Self::$variant
                        $({ $($field: $crate::handover::Carry::restore($field)),* })?
                        $(( $($crate::handover::Carry::restore($item)),* ))?,)*
                }
            }
        }
    };
}

pub(crate) use carry;

/// Plain data is its own snapshot.
macro_rules! plain {
    ($($plain:ty),* $(,)?) => {
        $(impl Carry for $plain {
            type Snapshot = Self;

            fn snapshot(&self) -> Self {
                self.clone()
            }

            fn restore(snapshot: Self) -> Self {
                snapshot
            }
        })*
    };
}

plain!(bool, u8, u16, u32, u64, usize, i32, f64, String, OsString, PathBuf, Duration);
plain!(IpAddr, SocketAddr, AffinityKey, ConnectionId, Generation, SlotId, Timestamp, WorkerId);

impl<T: Carry> Carry for Option<T> {
    type Snapshot = Option<T::Snapshot>;

    fn snapshot(&self) -> Self::Snapshot {
        self.as_ref().map(T::snapshot)
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        snapshot.map(T::restore)
    }
}

impl<T: Carry> Carry for Arc<T> {
    type Snapshot = T::Snapshot;

    fn snapshot(&self) -> Self::Snapshot {
        T::snapshot(self)
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        Self::new(T::restore(snapshot))
    }
}

impl<T: Carry> Carry for Vec<T> {
    type Snapshot = Vec<T::Snapshot>;

    fn snapshot(&self) -> Self::Snapshot {
        self.iter().map(T::snapshot).collect()
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        snapshot.into_iter().map(T::restore).collect()
    }
}

impl<T: Carry> Carry for VecDeque<T> {
    type Snapshot = Vec<T::Snapshot>;

    fn snapshot(&self) -> Self::Snapshot {
        self.iter().map(T::snapshot).collect()
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        snapshot.into_iter().map(T::restore).collect()
    }
}

/// Missing elements get the default; surplus ones are left out.
impl<T: Carry + Default, const N: usize> Carry for [T; N] {
    type Snapshot = Vec<T::Snapshot>;

    fn snapshot(&self) -> Self::Snapshot {
        self.iter().map(T::snapshot).collect()
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        let mut all = snapshot.into_iter();
        std::array::from_fn(|_| all.next().map_or_else(T::default, T::restore))
    }
}

impl<A: Carry, B: Carry> Carry for (A, B) {
    type Snapshot = (A::Snapshot, B::Snapshot);

    fn snapshot(&self) -> Self::Snapshot {
        (self.0.snapshot(), self.1.snapshot())
    }

    fn restore((first, second): Self::Snapshot) -> Self {
        (A::restore(first), B::restore(second))
    }
}

impl<A: Carry, B: Carry, C: Carry> Carry for (A, B, C) {
    type Snapshot = (A::Snapshot, B::Snapshot, C::Snapshot);

    fn snapshot(&self) -> Self::Snapshot {
        (self.0.snapshot(), self.1.snapshot(), self.2.snapshot())
    }

    fn restore((first, second, third): Self::Snapshot) -> Self {
        (A::restore(first), B::restore(second), C::restore(third))
    }
}

impl<K: Ord + Clone, V: Carry> Carry for BTreeMap<K, V> {
    type Snapshot = BTreeMap<K, V::Snapshot>;

    fn snapshot(&self) -> Self::Snapshot {
        self.iter().map(|(key, value)| (key.clone(), value.snapshot())).collect()
    }

    fn restore(snapshot: Self::Snapshot) -> Self {
        snapshot.into_iter().map(|(key, value)| (key, V::restore(value))).collect()
    }
}
