//! Log lines that come by the thousand when something is wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of one kind are at least this far apart.
const APART: Duration = Duration::from_secs(1);
/// So many are let through first, one after the other.
const BURST: u32 = 10;

/// Lets a few lines through at once and then one a second, and counts those it holds back.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    passed: u32,
    since: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Whether a line is let through, and if so how many were held back before it.
    pub(crate) fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.is_none_or(|since| now - since >= APART) {
            // A calm second earns a new burst.
            let calm = state.since.is_none_or(|since| now - since >= 2 * APART);
            state.passed = if calm { 0 } else { BURST };
            state.since = Some(now);
        } else if state.passed >= BURST {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_becomes_a_line_a_second_that_counts_the_rest() {
        let throttle = Throttle::default();
        let first: Vec<_> = (0..1_000).filter_map(|_| throttle.pass()).collect();
        assert_eq!(first, [0; 10]);
        tokio::time::sleep(APART).await;
        let second: Vec<_> = (0..500).filter_map(|_| throttle.pass()).collect();
        assert_eq!(second, [990]);
        tokio::time::sleep(3 * APART).await;
        let later: Vec<_> = (0..5).filter_map(|_| throttle.pass()).collect();
        assert_eq!(later, [499, 0, 0, 0, 0]);
    }
}
