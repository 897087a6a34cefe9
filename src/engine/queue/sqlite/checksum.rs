//! The sums over the frames of SQLite's log, and finding one changed byte by them.
//!
//! Two sums of 32 bits over pairs of words: `first += left + second; second += right + first`. They are linear: a word
//! that changed by `d` changes them by `d` times two numbers that depend on the word's place alone, of which one is odd.
//! So for each place there is one `d` that would explain a difference of one sum, and the other sum says whether it does.
//! That a page with other content looks as if one byte of it had changed has a chance of about 1 in 10^13. The numbers
//! repeat modulo small powers of two: for a change in the highest byte of a word there may be several places.

/// Two 32-bit words: sums, or salts.
pub(super) type Pair = (u32, u32);

const WORD: usize = 4;

/// How the words of a log are read: the low bit of its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Order {
    fn read(self, word: &[u8]) -> u32 {
        let word = word.try_into().unwrap_or_default();
        match self {
            Self::Little => u32::from_le_bytes(word),
            Self::Big => u32::from_be_bytes(word),
        }
    }

    fn bytes(self, word: u32) -> [u8; WORD] {
        match self {
            Self::Little => word.to_le_bytes(),
            Self::Big => word.to_be_bytes(),
        }
    }

    /// The sums over whole pairs of words, going on from the sums before.
    pub(super) fn sums(self, (mut first, mut second): Pair, bytes: &[u8]) -> Pair {
        for words in bytes.chunks_exact(2 * WORD) {
            let (left, right) = words.split_at(WORD);
            first = first.wrapping_add(self.read(left)).wrapping_add(second);
            second = second.wrapping_add(self.read(right)).wrapping_add(first);
        }
        (first, second)
    }
}

/// A word that has to be written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repair {
    /// Where the word begins.
    pub(super) at: usize,
    /// Its bytes before one of them changed.
    pub(super) bytes: [u8; WORD],
}

/// Every change of one byte that would make these bytes' sums `found` instead of `wanted`: none when more than that is
/// wrong.
pub(super) fn changed_byte(order: Order, bytes: &[u8], found: Pair, wanted: Pair) -> Vec<Repair> {
    let mut explanations = Vec::new();
    let difference = (found.0.wrapping_sub(wanted.0), found.1.wrapping_sub(wanted.1));
    let mut from_left: Pair = (1, 1);
    let mut from_right: Pair = (0, 1);
    for pair in (0..bytes.len() / (2 * WORD)).rev() {
        let at = pair * 2 * WORD;
        for (at, weights) in [(at, from_left), (at + WORD, from_right)] {
            let word = order.read(bytes.get(at..at + WORD).unwrap_or_default());
            let before = word.wrapping_sub(change(difference, weights));
            if explains(word.wrapping_sub(before), weights, difference) && one_byte_differs(word ^ before) {
                let bytes = order.bytes(before);
                explanations.push(Repair { at, bytes });
            }
        }
        from_left = later(from_left);
        from_right = later(from_right);
    }
    explanations
}

/// Whether exactly one byte is not zero.
pub(super) fn one_byte_differs(word: u32) -> bool {
    word.to_be_bytes().iter().filter(|byte| **byte != 0).count() == 1
}

/// What a change of the sums becomes when one more pair of words follows.
fn later((first, second): Pair) -> Pair {
    let first = first.wrapping_add(second);
    (first, second.wrapping_add(first))
}

fn explains(change: u32, weights: Pair, difference: Pair) -> bool {
    (change.wrapping_mul(weights.0), change.wrapping_mul(weights.1)) == difference
}

/// The only change of a word that can have made the difference in the sum whose weight is odd.
fn change(difference: Pair, weights: Pair) -> u32 {
    if weights.0 & 1 == 1 {
        difference.0.wrapping_mul(inverse(weights.0))
    } else {
        difference.1.wrapping_mul(inverse(weights.1))
    }
}

/// The inverse of an odd number modulo 2^32, by Newton's method: each step doubles the number of right bits.
fn inverse(odd: u32) -> u32 {
    let mut inverse = odd;
    for _ in 0..4 {
        inverse = inverse.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 4096 + 8)
    }

    fn order() -> impl Strategy<Value = Order> {
        prop_oneof![Just(Order::Little), Just(Order::Big)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_changed_byte_is_among_the_explanations(
            order in order(),
            seed in any::<Pair>(),
            page in page(),
            place in 0..4096_usize + 8,
            flip in 1..=255_u8,
        ) {
            let wanted = order.sums(seed, &page);
            let mut damaged = page.clone();
            damaged[place] ^= flip;
            let explanations = changed_byte(order, &damaged, order.sums(seed, &damaged), wanted);
            let right = explanations.iter().find(|repair| repair.at == place - place % 4).unwrap();
            damaged[right.at..][..4].copy_from_slice(&right.bytes);
            prop_assert_eq!(damaged, page);
            let highest = if order == Order::Little { 3 } else { 0 };
            let one = explanations.len() == 1;
            prop_assert!(one || place % 4 == highest || flip.trailing_zeros() >= 6, "{} {}", place, flip);
        }

        #[test]
        fn another_page_is_not_taken_for_a_changed_byte(
            order in order(),
            seed in any::<Pair>(),
            page in page(),
            other in page(),
        ) {
            let (found, wanted) = (order.sums(seed, &other), order.sums(seed, &page));
            prop_assert_eq!(changed_byte(order, &other, found, wanted), []);
        }
    }

    #[test]
    fn equal_sums_need_no_repair() {
        assert_eq!(changed_byte(Order::Little, &[7; 16], (1, 2), (1, 2)), []);
    }
}
