//! Records to files and back: one commit log per partition. Knows nothing of sockets, JSON or
//! dialects, and the live log nothing of clocks and files either: it says what to write and sync.
//!
//! Everything that must survive is a record in the log; every map in memory is made from it. The
//! steps of a record: `record` (its bytes), `commit` (room, queue, batch in flight; `company` says
//! when the next goes), `batch` (its
//! bytes), `prepare` (the next segment), `ballast` (space for a full disk), `indexing` and `checkpoint` (beside the log; its bytes in `checkpoint_bytes`), `read` (back
//! to a reader), `retention` and `clean` (forgetting), `survey` (whose files are these) and `recovery`
//! (after a start).
//!
//! # On disk
//!
//! Little-endian, everything at a multiple of 8 in its file; bytes not named are zero.
//!
//! ```text
//! data_dir/
//!   meta                         partitions, secret, place function; two copies of 512 bytes
//!   lock                         flock
//!   partition-0000/
//!     identity                   magic "TGPART" 0 1, crc u32, partition u16, 2 zero, secret u64
//!     0000000000000001.segment   head, then batches
//!     0000000000000001.index     where the messages of a full segment stand
//!     0000000000000001.checkpoint   the state at a position
//!     0000000000000001.ballast   space kept for a full disk; nothing in it is read
//!
//! segment head, 4096 bytes       written with the first batch, in one write and one sync
//!    0  magic "TGSEGM" 0 1         40  end of the previous segment u32
//!    8  crc u32                    44  crc_body of the batch before u32
//!   12  partition u16, 2 zero      48  number of the first batch u64
//!   16  segment u64                56  8 zero
//!   24  salt u64                   64  zero up to 4096
//!   32  previous segment u64
//!
//! every frame                    an entry, the head of a batch or its table
//!    0  kind u8, version u8, flags u16
//!    4  length u32                 without padding
//!    8  crc u32                    CRC32C of the rest, seeded with salt and segment
//!   12  extra u32
//!
//! batch = head, entries, table; what one sync covers. Entries of one topic stand together
//! head, kind 0xb1, 64 bytes      extra: bytes of entries and table
//!   16  segment u64                44  offset of the table in the batch u32
//!   24  number u64                 48  crc_body of the batch before u32
//!   32  salt u64                   52  crc_body u32: entries and table, seeded with the one before
//!   40  records u32                56  8 zero
//! table, kind 0xb2               extra: runs; each run 40 bytes
//!    0  topic 16                   24  count u32, offset in segment u32, bytes u32, zero u32
//!   16  first seq u64
//!
//! publish, kind 1                flags: the publisher's; extra: 1 if there is a key
//!   16  topic 16                   56  headers u32, payload u32: lengths
//!   32  seq u64                    64  publisher, key, event, headers, payload
//!   40  time_ms u64
//!   48  publisher, key, event u16: lengths, 2 zero
//! topic, kind 2                  whole each time it is made, changed, trimmed
//!   16  topic 16                   56  bounds of age, bytes, messages u64; all ones: none
//!   32  created_at_ms u64          80  tenant, name u16: lengths, 4 zero
//!   40  first seq u64              88  tenant, name
//!   48  last seq u64
//! topic deleted, kind 3          16  topic 16
//! subscription, kind 4           whole each time
//!   16  subscription 16            56  created_at_ms u64
//!   32  topic 16                   64  name, maker u16: lengths, 4 zero
//!   48  cursor u64                 72  name, maker
//! subscription deleted, kind 5   16  subscription 16
//! cursors, kind 6                extra: count; 16  subscription 16, seq u64 each
//! epoch, kind 7                  16  generation u64
//! ```
//!
//! The layouts of index, checkpoint and meta stand beside their const asserts in `index`,
//! `checkpoint_bytes` and `meta`.

mod layout;

mod record;

mod batch;

mod segment;

mod mapped;

mod lack;

mod storage;

mod crash;

mod meta;

mod directory;

mod live;

mod index;

mod marks;

mod state;

mod commit_log;

mod patience;

mod company;

mod room;

mod queue;

mod commit;

mod prepare;

mod ballast;

mod tail;

mod file_writer;

mod indexing;

mod checkpoint_bytes;

mod checkpoint;

mod reader;

mod read;

mod age;

mod retention;

mod clean;

mod release;

mod scan;

mod rebuild;

mod replay;

mod survey;

mod recovery;

mod ready;

mod drive;

mod verify;

mod repair;

pub use age::AgeClock;
pub use batch::RUN_BYTES;
pub use commit::AppendError;
pub use commit_log::{CommitLog, Effect, EffectId, Event, Fsync, LogConfig, LogState, Now, Ticket};
pub use crash::{CrashFolder, Fault};
pub use directory::{DataDirectory, DirectoryError};
pub use drive::drive;
pub use mapped::SegmentMap;
pub use meta::{Meta, PLACE_FUNCTION};
pub use read::{ReadEnd, ReadItem, ReadLimits};
pub use reader::Awaited;
pub use record::{CURSOR_BYTES, Publish, Record, Retention, TEXT_BYTES_MAX};
pub use recovery::{
    Identity, RecoverError, RecoveredState, RecoveredSubscription, RecoveredTopic, RecoveryReport,
    recover,
};
pub use repair::{RepairMove, RepairPlan, plan_repair, repair};
pub use replay::{DamagedStretch, ReplayReport};
pub use room::{Class, ENTRY_BYTES};
pub use state::{KEY_AGE_MS_MAX, KEYS_MAX, StoredKey, key_fingerprint, payload_fingerprint};
pub use storage::{Change, Done, FileName, Folder, Op, Storage, Target, execute};
pub use verify::{DirectoryReport, PartitionReport, SegmentReport, VerifyError, inspect, verify};

#[cfg(test)]
mod tests;
