//! Addresses with the ports in use on each, so that the lowest one on which some ports are free
//! is found without a look at those before it.
//!
//! A binary tree by the bits of the numbers, in which each node knows the ports that are in use on
//! every address beneath: where one of those is wanted, the whole subtree is out. For a single port
//! that is exact, so the search goes straight to the address.

use std::collections::BTreeSet;
use std::mem;

use crate::sharing::Port;

type Ports = BTreeSet<Port>;

/// Numbers of addresses, each with its ports in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Option<Box<Node>>);

#[derive(Clone, Debug)]
struct Node {
    /// One of the numbers beneath; all have the bits above the fork's in common.
    number: u128,
    /// The ports in use on all of them.
    common: Ports,
    fork: Option<Fork>,
}

#[derive(Clone, Debug)]
struct Fork {
    /// The highest bit in which the numbers differ.
    bit: u32,
    /// Those without it and those with it.
    sides: [Box<Node>; 2],
}

/// The highest bit in which two numbers differ.
fn differ(a: u128, b: u128) -> Option<u32> {
    (a ^ b).checked_ilog2()
}

fn side(number: u128, bit: u32) -> usize {
    usize::from(number >> bit & 1 == 1)
}

impl Shelf {
    /// Adds a number, or replaces its ports.
    pub(crate) fn put(&mut self, number: u128, ports: Ports) {
        match &mut self.0 {
            Some(root) => root.put(number, ports),
            None => self.0 = Some(Box::new(Node::leaf(number, ports))),
        }
    }

    /// Takes a number out, if it is there.
    pub(crate) fn take(&mut self, number: u128) {
        self.0 = self.0.take().and_then(|root| root.without(number));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The lowest number from `first` to `last` with none of these ports in use that is also
    /// accepted otherwise.
    pub(crate) fn lowest(
        &self,
        (first, last): (u128, u128),
        ports: &Ports,
        accept: &dyn Fn(u128) -> bool,
    ) -> Option<u128> {
        let root = self.0.as_ref()?;
        root.lowest((first, last), ports, accept)
    }
}

impl Node {
    fn leaf(number: u128, ports: Ports) -> Self {
        Self {
            number,
            common: ports,
            fork: None,
        }
    }

    fn over(bit: u32, sides: [Box<Node>; 2]) -> Self {
        let [low, high] = &sides;
        Self {
            number: low.number,
            common: low.common.intersection(&high.common).copied().collect(),
            fork: Some(Fork { bit, sides }),
        }
    }

    fn put(&mut self, number: u128, ports: Ports) {
        let apart = differ(self.number, number);
        match &mut self.fork {
            None if apart.is_none() => self.common = ports,
            Some(Fork { bit, sides }) if apart.is_none_or(|apart| apart <= *bit) => {
                sides[side(number, *bit)].put(number, ports);
                let [low, high] = &*sides;
                self.common = low.common.intersection(&high.common).copied().collect();
            }
            _ => {
                let Some(bit) = apart else {
                    return;
                };
                let new = Box::new(Self::leaf(number, ports));
                let old = mem::replace(self, Self::leaf(number, Ports::new()));
                let mut sides = [Box::new(old), new];
                if side(number, bit) == 0 {
                    sides.reverse();
                }
                *self = Self::over(bit, sides);
            }
        }
    }

    fn without(self: Box<Self>, number: u128) -> Option<Box<Self>> {
        let apart = differ(self.number, number);
        match self.fork {
            None => apart.is_some().then_some(self),
            Some(Fork { bit, sides }) if apart.is_none_or(|apart| apart <= bit) => {
                let [low, high] = sides;
                let sides = match side(number, bit) {
                    0 => (low.without(number), Some(high)),
                    _ => (Some(low), high.without(number)),
                };
                match sides {
                    (Some(low), Some(high)) => Some(Box::new(Self::over(bit, [low, high]))),
                    (one, other) => one.or(other),
                }
            }
            Some(_) => Some(self),
        }
    }

    fn lowest(
        &self,
        (first, last): (u128, u128),
        ports: &Ports,
        accept: &dyn Fn(u128) -> bool,
    ) -> Option<u128> {
        if !self.common.is_disjoint(ports) {
            return None;
        }
        let Some(Fork { bit, sides }) = &self.fork else {
            let within = (first..=last).contains(&self.number);
            return (within && accept(self.number)).then_some(self.number);
        };
        let beneath = u128::MAX >> (127 - bit);
        let (lowest, highest) = (self.number & !beneath, self.number | beneath);
        if highest < first || last < lowest {
            return None;
        }
        let mut sides = sides.iter();
        sides.find_map(|side| side.lowest((first, last), ports, accept))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::sharing::Protocol;

    fn ports(numbers: &[u16]) -> Ports {
        let port = |number: &u16| Port {
            protocol: Protocol::Tcp,
            number: *number,
        };
        numbers.iter().map(port).collect()
    }

    fn any_number() -> impl Strategy<Value = u128> {
        prop_oneof![0u128..20, u128::MAX - 20..=u128::MAX, any::<u128>()]
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_finds(
            changes in prop::collection::vec((any_number(), prop::option::of(prop::collection::vec(1u16..5, 0..4))), 0..60),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            (one, other) in (any_number(), any_number()),
            wanted in prop::collection::vec(1u16..5, 0..3),
            odd in any::<bool>(),
        ) {
            let mut shelf = Shelf::default();
            let mut plain = BTreeMap::new();
            let numbers: Vec<u128> = changes.iter().map(|(number, _)| *number).collect();
            let gone = again.iter().filter(|_| !numbers.is_empty()).map(|index| (*index.get(&numbers), None));
            for (number, used) in changes.into_iter().chain(gone) {
                match used {
                    Some(used) => {
                        shelf.put(number, ports(&used));
                        plain.insert(number, ports(&used));
                    }
                    None => {
                        shelf.take(number);
                        plain.remove(&number);
                    }
                }
            }
            let (first, last) = (one.min(other), one.max(other));
            let accept = |number: u128| !odd || number % 2 == 1;
            let wanted = ports(&wanted);
            let mut fitting = plain.range(first..=last).filter(|(number, used)| {
                used.is_disjoint(&wanted) && accept(**number)
            });
            let expected = fitting.next().map(|(number, _)| *number);
            prop_assert_eq!(shelf.lowest((first, last), &wanted, &accept), expected);
            prop_assert_eq!(shelf.is_empty(), plain.is_empty());
        }
    }
}
