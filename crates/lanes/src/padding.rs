//! A message as blocks: the whole ones where they lie, and an ending of one or two blocks made here
//! (FIPS 180-4 section 5.1.1). Copies no whole block.

/// Bytes of a block: FIPS 180-4 section 1, figure 1 (512 bits).
const BLOCK: usize = 64;
/// Bytes of an ending's last field, the message's length in bits.
const LENGTH: usize = 8;

/// What one step of the hash takes in.
pub(crate) type Block = [u8; BLOCK];

/// The last bytes of a message, the mark after them, zeroes, and the message's length in bits.
#[derive(Debug)]
pub(crate) struct Ending {
    blocks: [Block; 2],
    count: usize,
}

impl Ending {
    /// What `message` ends with, after its whole blocks.
    pub(crate) fn of(message: &[u8]) -> Self {
        let rest = message.as_chunks::<BLOCK>().1;
        let count = (rest.len() + 1 + LENGTH).div_ceil(BLOCK);
        let mut blocks = [[0; BLOCK]; 2];
        blocks[0][..rest.len()].copy_from_slice(rest);
        blocks[0][rest.len()] = 0x80;
        let bits = (message.len() as u64) << 3; // no slice has 2^61 bytes
        blocks[count - 1][BLOCK - LENGTH..].copy_from_slice(&bits.to_be_bytes());
        Self { blocks, count }
    }

    /// One block if mark and length find room in it, else two. Depends on the message's length alone.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks[..self.count]
    }
}

/// Block `at` of a message that has these whole blocks and this ending; behind its end any block.
pub(crate) fn head<'m>(body: &'m [Block], ending: &'m Ending, at: usize) -> &'m Block {
    let blocks = ending.blocks();
    body.get(at).unwrap_or_else(|| &blocks[(at - body.len()).min(blocks.len() - 1)])
}

/// The whole blocks of a message, where they lie.
pub(crate) fn whole_blocks(message: &[u8]) -> &[Block] {
    message.as_chunks().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_takes_a_second_block_when_mark_and_length_find_no_room() {
        let cases = [(0, 0, 1), (1, 0, 1), (55, 0, 1), (56, 0, 2), (63, 0, 2), (64, 1, 1), (119, 1, 1), (120, 1, 2)];
        for (bytes, whole, endings) in cases {
            let message = vec![7; bytes];
            let (blocks, ending) = (whole_blocks(&message), Ending::of(&message));
            assert_eq!((blocks.len(), ending.blocks().len()), (whole, endings), "{bytes} bytes");
        }
    }

    /// FIPS 180-4 section 5.1.1, the example: "abc" has a length of 24 bits.
    #[test]
    fn the_ending_of_abc_is_the_one_printed_in_the_standard() {
        let mut want = [0; BLOCK];
        want[..4].copy_from_slice(b"abc\x80");
        want[63] = 24;
        assert_eq!(Ending::of(b"abc").blocks(), [want]);
    }
}
