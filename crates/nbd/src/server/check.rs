//! Which requests an export gets to see, and with which error the others are answered. Pure.

use crate::error::{Errno, Failure};
use crate::export::Features;
use crate::wire::request::{Command, Request, command_flag};

/// What a request is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Bytes.
    pub(super) size: u64,
    pub(super) read_only: bool,
    pub(super) features: Features,
    pub(super) structured: bool,
    pub(super) block_status: bool,
}

impl Rules {
    /// Whether the export may serve this.
    pub(super) fn check(&self, request: &Request) -> Result<(), Failure> {
        self.check_command(request)?;
        if request.flags & !self.known_flags(request.command) != 0 {
            return Err(Failure::new(Errno::Invalid, "a flag that was not offered"));
        }
        match request.command {
            Command::Flush if request.offset != 0 || request.length != 0 => {
                Err(Failure::new(Errno::Invalid, "a flush of a part of the disk"))
            }
            Command::Flush => Ok(()),
            _ => self.check_range(request),
        }
    }

    fn check_command(&self, request: &Request) -> Result<(), Failure> {
        let writes = matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
        if writes && self.read_only {
            return Err(Failure::new(Errno::NotPermitted, "the export is read-only"));
        }
        let offered = match request.command {
            Command::Read | Command::Write | Command::Disconnect => true,
            Command::Flush => self.features.flush,
            Command::Trim => self.features.trim,
            Command::WriteZeroes => self.features.write_zeroes,
            Command::BlockStatus => self.block_status,
            Command::Unknown(_) => false,
        };
        if offered { Ok(()) } else { Err(Failure::new(Errno::Invalid, "a command that was not offered")) }
    }

    fn known_flags(&self, command: Command) -> u16 {
        let fua = if self.features.fua { command_flag::FUA } else { 0 };
        match command {
            Command::Read if self.structured => fua | command_flag::DF,
            Command::WriteZeroes => fua | command_flag::NO_HOLE,
            Command::BlockStatus => fua | command_flag::REQ_ONE,
            _ => fua,
        }
    }

    fn check_range(&self, request: &Request) -> Result<(), Failure> {
        let invalid = |problem: String| Err(Failure::new(Errno::Invalid, problem));
        let blocks = self.features.blocks;
        let moves_data = matches!(request.command, Command::Read | Command::Write);
        if request.length == 0 {
            return invalid("a request for no bytes".into());
        }
        if moves_data && request.length > blocks.maximum {
            return invalid(format!("a request larger than {} bytes", blocks.maximum));
        }
        let grain = u64::from(blocks.minimum);
        if !request.offset.is_multiple_of(grain) || !u64::from(request.length).is_multiple_of(grain) {
            return invalid(format!("a request that is not aligned to {grain} bytes"));
        }
        if request.offset.checked_add(request.length.into()).is_none_or(|end| end > self.size) {
            let stores = matches!(request.command, Command::Write | Command::WriteZeroes);
            let errno = if stores { Errno::NoSpace } else { Errno::Invalid };
            return Err(Failure::new(errno, format!("a request beyond the end at {}", self.size)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::BlockSizes;

    #[test]
    fn a_bad_request_gets_the_right_error_number() {
        let blocks = BlockSizes { minimum: 512, preferred: 4096, maximum: 1 << 20 };
        let features = Features { write_zeroes: true, fua: true, blocks, ..Features::default() };
        let rules = Rules { size: 4 << 20, read_only: false, features, structured: true, block_status: true };
        let read_only = Rules { read_only: true, ..rules };
        let ask = |command, flags, offset, length| Request { flags, command, cookie: 0, offset, length };
        let fast_zero = 1 << 4;
        use Command::{BlockStatus, Flush, Read, Trim, Unknown, Write, WriteZeroes};
        let cases = [
            ("read", rules, ask(Read, 0, 0, 512), None),
            ("last sector", rules, ask(Read, 0, (4 << 20) - 512, 512), None),
            ("unfragmented", rules, ask(Read, command_flag::DF, 0, 512), None),
            ("read beyond the end", rules, ask(Read, 0, 4 << 20, 512), Some(Errno::Invalid)),
            ("read across u64", rules, ask(Read, 0, u64::MAX - 511, 512), Some(Errno::Invalid)),
            ("write beyond the end", rules, ask(Write, 0, (4 << 20) - 512, 1024), Some(Errno::NoSpace)),
            ("zeroes beyond the end", rules, ask(WriteZeroes, 0, 4 << 20, 512), Some(Errno::NoSpace)),
            ("zeroes may be large", rules, ask(WriteZeroes, command_flag::NO_HOLE, 0, 4 << 20), None),
            ("no bytes", rules, ask(Read, 0, 0, 0), Some(Errno::Invalid)),
            ("too large", rules, ask(Read, 0, 0, (1 << 20) + 512), Some(Errno::Invalid)),
            ("offset not aligned", rules, ask(Read, 0, 1, 512), Some(Errno::Invalid)),
            ("length not aligned", rules, ask(Write, 0, 0, 100), Some(Errno::Invalid)),
            ("write to read-only", read_only, ask(Write, 0, 0, 512), Some(Errno::NotPermitted)),
            ("zeroes to read-only", read_only, ask(WriteZeroes, 0, 0, 512), Some(Errno::NotPermitted)),
            ("flush of read-only", read_only, ask(Flush, 0, 0, 0), None),
            ("flush of a part", rules, ask(Flush, 0, 0, 512), Some(Errno::Invalid)),
            ("flush across u64", rules, ask(Flush, 0, u64::MAX, u32::MAX), Some(Errno::Invalid)),
            ("trim not offered", rules, ask(Trim, 0, 0, 512), Some(Errno::Invalid)),
            ("status", rules, ask(BlockStatus, command_flag::REQ_ONE, 0, 4 << 20), None),
            ("fast zeroes not offered", rules, ask(WriteZeroes, fast_zero, 0, 512), Some(Errno::Invalid)),
            ("no such command", rules, ask(Unknown(77), 0, 0, 512), Some(Errno::Invalid)),
        ];
        for (situation, rules, request, want) in cases {
            assert_eq!(rules.check(&request).err().map(|failure| failure.errno), want, "{situation}");
        }
    }
}
