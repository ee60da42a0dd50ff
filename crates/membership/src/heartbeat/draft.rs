//! From a heartbeat to its datagrams, and which of them a node needs.
//!
//! Claims that fit one datagram go in one. More of them lie on pages in the order of their addresses, and each
//! node gets a page at every turn. What changed lately (*news*) must not wait for the turn of its page, so
//! it rides on all pages; where it takes more room than that it has datagrams of its own beside them; and
//! where all pages are no more datagrams than these, everybody gets them all.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use super::wire::{self, put_claim};
use super::{
    CLAIM_V4, CLAIM_V6, Claim, HEADER, Heartbeat, Keys, MAX_DATAGRAM, MAX_INTERFACE, MAX_NAME,
    MAX_NETWORKS, MAX_PAGES, Scope, TAG_LEN, VERSION,
};

#[cfg(test)]
mod tests;

/// A heartbeat laid out in datagrams. They are written and signed when they are needed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its claims are sorted.
    beat: Heartbeat,
    /// The fields between the claims and the scope.
    middle: Vec<u8>,
    /// Which claims each page has.
    pages: Vec<Range<usize>>,
    /// Turns go round so many: the pages, and one without claims where [`Turns`] wants it.
    round: usize,
    /// News that every page has too.
    riders: Vec<Claim>,
    /// News in datagrams of its own.
    apart: Vec<Vec<Claim>>,
    /// Every node gets all pages.
    whole: bool,
    /// Datagrams that were written already, by number.
    written: Vec<Option<Arc<[u8]>>>,
}

/// How the heartbeats before lay, to be kept from one to the next.
///
/// A release that knows no [`Scope`] takes pages of the same count for pages of the same layout. If that
/// changed in between, a claim may have been on none of those that came. So neighbouring layouts have different counts.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// The first VIP of each page.
    starts: Vec<IpAddr>,
    round: usize,
    datagrams: usize,
}

impl Draft {
    /// For nodes that need all of it.
    pub fn whole(mut beat: Heartbeat) -> Self {
        beat.claims.sort_unstable();
        let middle = middle(&beat);
        let room = Room::of(&beat, &middle);
        let pages = room.pages(&beat.claims);
        Self::laid_out(beat, middle, pages)
    }

    /// For nodes that get a page at a time, and at once the claims of VIPs that `news` knows. Claims that have
    /// ended should be among these.
    pub fn by_turns(beat: Heartbeat, news: impl Fn(&IpAddr) -> bool, turns: &mut Turns) -> Self {
        let mut draft = Self::whole(beat);
        let all = draft.pages.len();
        if all == 1 {
            return draft;
        }
        let claims = &draft.beat.claims;
        let news: Vec<Claim> = claims.iter().filter(|c| news(&c.vip)).copied().collect();
        let room = Room::of(&draft.beat, &draft.middle).page;
        let (apart, riders) = apart(&news, room);
        let mut pages = paginate(claims, room - size(&riders));
        let most = usize::from(MAX_PAGES);
        // As many of its own as all pages are, or no numbers left for them and an empty page.
        let too_many = apart.len() + 1 >= all || pages.len() + apart.len() >= most;
        if too_many && !news.is_empty() {
            return draft;
        }
        pages.truncate(most);
        draft.round = turns.next(claims, &pages, apart.len());
        draft.written = vec![None; draft.round + apart.len()];
        (draft.pages, draft.riders, draft.apart) = (pages, riders, apart);
        draft.whole = false;
        draft
    }

    fn laid_out(beat: Heartbeat, middle: Vec<u8>, mut pages: Vec<Range<usize>>) -> Self {
        pages.truncate(usize::from(MAX_PAGES));
        Self {
            beat,
            middle,
            round: pages.len(),
            written: vec![None; pages.len()],
            pages,
            riders: Vec::new(),
            apart: Vec::new(),
            whole: true,
        }
    }

    /// The same to nodes that are told that they come and go ([`super::Flags::hold`]).
    pub fn holding(&self) -> Self {
        let mut draft = self.clone();
        draft.beat.flags.hold = true;
        draft.written.fill(None);
        draft
    }

    /// On so many pages are the claims.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// What a node gets at this turn, news first. Turns are counted on for ever.
    pub fn due(&mut self, turn: u64, keys: &Keys) -> Vec<Arc<[u8]>> {
        if self.whole {
            return self.all(keys);
        }
        let page = usize::try_from(turn % self.round as u64).unwrap_or(0);
        let apart = self.round..self.round + self.apart.len();
        let numbers = apart.chain([page]);
        numbers.map(|number| self.datagram(number, keys)).collect()
    }

    /// Everything.
    pub fn all(&mut self, keys: &Keys) -> Vec<Arc<[u8]>> {
        let numbers = 0..self.written.len();
        numbers.map(|number| self.datagram(number, keys)).collect()
    }

    fn datagram(&mut self, number: usize, keys: &Keys) -> Arc<[u8]> {
        if let Some(Some(written)) = self.written.get(number) {
            return written.clone();
        }
        let datagram: Arc<[u8]> = self.write(number, keys).into();
        if let Some(place) = self.written.get_mut(number) {
            *place = Some(datagram.clone());
        }
        datagram
    }

    fn write(&self, number: usize, keys: &Keys) -> Vec<u8> {
        let beat = &self.beat;
        let (claims, scope) = self.content(number);
        let sender = wire::cut(&beat.sender, MAX_NAME);
        let mut out = Vec::with_capacity(MAX_DATAGRAM);
        out.extend([VERSION, beat.flags.to_bits(), beat.mode]);
        out.push(sender.len() as u8);
        out.extend(beat.boot_id.to_be_bytes());
        out.extend(beat.counter.to_be_bytes());
        out.extend(beat.uplink_mac);
        out.extend(beat.director_mac);
        out.extend(beat.table_digest.to_be_bytes());
        out.extend((number as u16).to_be_bytes());
        out.extend((self.written.len() as u16).to_be_bytes());
        out.extend((claims.len() as u16).to_be_bytes());
        out.extend(sender.as_bytes());
        for claim in &claims {
            put_claim(&mut out, claim);
        }
        out.extend(&self.middle);
        if let Some(scope) = scope {
            scope.put(&mut out);
        }
        let tag = keys.current.tag(&out);
        out.extend(tag);
        out
    }

    /// The claims of a datagram, in order, and what it says of all.
    fn content(&self, number: usize) -> (Vec<Claim>, Option<Scope>) {
        let alone = match self.whole {
            true => self.written.len() == 1,
            false => self.apart.is_empty(),
        };
        let scope = self.beat.scope.map(|scope| Scope { alone, ..scope });
        let nothing = scope.map(Scope::nothing);
        let all = &self.beat.claims;
        let Some(page) = self.pages.get(number) else {
            let apart = number.checked_sub(self.round);
            let apart = apart.and_then(|number| self.apart.get(number));
            return match apart {
                Some(news) => (news.clone(), nothing),
                None => (self.riders.clone(), nothing),
            };
        };
        let mut claims = self.riders.clone();
        claims.extend(all.get(page.clone()).unwrap_or_default());
        claims.sort_unstable();
        claims.dedup();
        let first = |at: usize| all.get(at).map(|claim| claim.vip);
        let scope = scope.map(|scope| Scope {
            from: first(page.start).filter(|_| number > 0),
            until: first(page.end),
            ..scope
        });
        (claims, scope)
    }
}

impl Turns {
    /// Notes the next layout, and returns how many turns it takes to go round.
    fn next(&mut self, claims: &[Claim], pages: &[Range<usize>], apart: usize) -> usize {
        let starts = pages.iter().filter_map(|page| claims.get(page.start));
        let starts: Vec<IpAddr> = starts.map(|claim| claim.vip).collect();
        let same = starts == self.starts;
        let mut round = if same { self.round } else { pages.len() };
        if !same && round + apart == self.datagrams && self.datagrams < usize::from(MAX_PAGES) {
            round += 1;
        }
        *self = Self {
            starts,
            round,
            datagrams: round + apart,
        };
        round
    }
}

/// The bytes that claims may take.
struct Room {
    /// In a datagram that has them all.
    only: usize,
    /// In one of several.
    page: usize,
}

impl Room {
    fn of(beat: &Heartbeat, middle: &[u8]) -> Self {
        let sender = wire::cut(&beat.sender, MAX_NAME).len();
        let room = MAX_DATAGRAM - (HEADER + sender + middle.len() + TAG_LEN);
        let scope = |bytes: usize| if beat.scope.is_some() { bytes } else { 0 };
        Self {
            only: room - scope(Scope::LEAST),
            page: room - scope(Scope::MOST),
        }
    }

    /// Spreads claims over pages: at least one, perhaps empty.
    fn pages(&self, claims: &[Claim]) -> Vec<Range<usize>> {
        let room = if size(claims) <= self.only {
            self.only
        } else {
            self.page
        };
        paginate(claims, room)
    }
}

/// The fields between the claims and the scope, in order.
fn middle(beat: &Heartbeat) -> Vec<u8> {
    let interface = wire::cut(&beat.interface, MAX_INTERFACE);
    let mut out = vec![interface.len() as u8];
    out.extend(interface.as_bytes());
    out.extend(wire::late(&beat.late));
    out.extend(wire::networks(&beat.networks, MAX_NETWORKS));
    out.extend(wire::held_boot(beat.held_boot));
    out.extend(wire::further(&beat.further));
    out
}

/// Divides news into datagrams of its own and what may ride on the pages: no more than half of their room, so
/// that these do not become many.
fn apart(news: &[Claim], room: usize) -> (Vec<Vec<Claim>>, Vec<Claim>) {
    let parts = paginate(news, room).into_iter();
    let parts = parts.filter_map(|part| news.get(part).map(<[Claim]>::to_vec));
    let mut parts: Vec<Vec<Claim>> = parts.collect();
    let riders = parts.pop_if(|last| size(last) <= room / 2);
    (parts, riders.unwrap_or_default())
}

/// Bytes that claims take.
fn size(claims: &[Claim]) -> usize {
    claims.iter().map(size_of).sum()
}

fn size_of(claim: &Claim) -> usize {
    match claim.vip {
        IpAddr::V4(_) => CLAIM_V4,
        IpAddr::V6(_) => CLAIM_V6,
    }
}

/// Splits claims into runs of at most `room` bytes; at least one, perhaps empty.
fn paginate(claims: &[Claim], room: usize) -> Vec<Range<usize>> {
    let mut pages = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, claim) in claims.iter().enumerate() {
        if used + size_of(claim) > room {
            pages.push(start..at);
            (start, used) = (at, 0);
        }
        used += size_of(claim);
    }
    pages.push(start..claims.len());
    pages
}
