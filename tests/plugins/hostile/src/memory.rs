//! A secret that must not outlive its message.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pattern's length: 64 KiB.
const WORDS: usize = 8192;

/// How many words in a row tell it from chance.
const TELLING: usize = 8;

static IN_STATIC_MEMORY: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// The pattern is computed, so that it does not stand in the module's data.
fn word(index: usize) -> u64 {
    (black_box(index as u64) + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(17)
}

/// Writes the pattern to static memory, to the heap and to memory that is newly grown.
pub fn plant() {
    // What nobody reads would be left out of the module.
    for (index, place) in black_box(&IN_STATIC_MEMORY).iter().enumerate() {
        place.store(word(index), Ordering::Relaxed);
    }
    // The first fits into what is there already, the second takes new pages.
    for copies in [1, 64] {
        let heap: Vec<u64> = (0..WORDS * copies)
            .map(|index| word(index % WORDS))
            .collect();
        std::mem::forget(black_box(heap));
    }
}

/// The address of the pattern in the linear memory, or in 8 MiB by which it grows, if it is
/// there.
#[cfg(target_arch = "wasm32")]
pub fn find() -> Option<usize> {
    use std::arch::wasm32::{memory_grow, memory_size};

    const PAGE: usize = 64 * 1024;
    memory_grow(0, 128);
    let words = memory_size(0) * PAGE / size_of::<u64>();
    // Address 0 is memory like any other, but no pointer: begin with the second word.
    (1..words - TELLING)
        .find(|&at| (0..TELLING).all(|index| read(at + index) == word(index)))
        .map(|at| at * size_of::<u64>())
}

#[cfg(target_arch = "wasm32")]
fn read(index: usize) -> u64 {
    let place = (index * size_of::<u64>()) as *const u64;
    // SAFETY: the caller stays within the linear memory, all of which can be read; the
    // pointer is aligned and not null. That the words are no object of Rust's is why the read
    // is volatile.
    unsafe { place.read_volatile() }
}

/// Outside of WebAssembly there is no memory to look through.
#[cfg(not(target_arch = "wasm32"))]
pub fn find() -> Option<usize> {
    let _ = TELLING;
    None
}
