//! Small files: atomic replacement, locks, tolerant readers.
//!
//! Whatever happens, a full disk, a crash, several programs at once, and where [`Durability`] asks for it a power cut,
//! a reader finds the old contents or the new ones, never a part. The plugin's state, the subnet file and the embedded
//! lease store rest on this crate. It knows nothing of what the files mean, never waits without a limit, never reads
//! without one, and opens nothing but regular files.
//!
//! Start at [`replace`]; [`Lock`] orders several writers, [`read_optional`] reads back.
//!
//! A writer prepares the contents of `name` in `.name.tmp` beside it, under an exclusive `flock` on that file. What a
//! crashed writer left there is taken over by the next writer of the same name, so nothing piles up, and a living
//! writer's file is never touched: the kernel drops the lock only when its holder is gone.

mod error;
mod lock;
mod mark;
mod open;
mod read;
mod room;
mod write;

pub use error::{Action, Error};
pub use lock::{Lock, lock_file};
pub use mark::{mark, mark_of};
pub use read::{MAX_BYTES, is_dir, read_optional, read_text, read_text_within};
pub use room::require_room;
pub use write::{
    Durability, create_new, ensure_dir, is_unfinished, remove, remove_abandoned, remove_unfinished, replace,
};
