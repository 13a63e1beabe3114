//! What the C library keeps of the memory that was freed.
//!
//! Full observations and lease lists come and go in megabytes. glibc keeps what they leave behind, in one arena for each
//! thread: with 5,000 peers more than is in use.
#![allow(unsafe_code, reason = "two calls of the allocator that no crate wraps")]

/// Has all threads allocate in one arena, so that one uses what another freed. The first allocations of a process are
/// made there in any case.
pub(crate) fn share_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes and returns numbers, and only sets one that the allocator keeps; mallopt(3) asks that no other
    // thread allocates meanwhile, and the caller is the first thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives the kernel back the pages in which nothing is allocated; takes some milliseconds among thousands of peers.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and gives back only pages in which nothing is allocated; malloc_trim(3) is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}
