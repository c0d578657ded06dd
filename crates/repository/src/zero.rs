//! Whether bytes are all zero. Stops at the first block that is not.

/// Bytes looked at between two decisions to stop: the compiler turns one block into a few wide instructions.
const BLOCK: usize = 256;

/// Whether every byte is zero; true for no bytes.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    blocks.iter().all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_makes_a_chunk_data() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes), "{length}");
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{length} with a byte at {at}");
                bytes[at] = 0;
            }
        }
    }
}
