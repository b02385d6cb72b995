//! How many sessions may be on their way to other workers at a time.
//!
//! Each waits for those before it, so that its pause grows with their number where processors are busy: 5,000
//! WebSockets on 2 cores were paused for 9.2 ms with 16, 1.6 with 4, 0.5 with 2 and 0.2 with 1, and there were
//! 4,800, 4,400, 4,100 and 3,300 migrations a second. Where the next worker takes its time for other reasons, more
//! at a time cost none of them anything, and fewer would only make the last one late. So the number follows what an
//! answer takes, as TCP Vegas' does (Brakmo and Peterson, 1995): it grows while they don't wait for each other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::worker::lock::lock;

/// The least and the most.
const MIN: usize = 2;
pub(crate) const MAX: usize = 16;

/// How many may wait for others: below the first there may be one more at a time, above the second one less.
const WAITING: (f64, f64) = (1.0, 2.0);

/// The places of those that are on their way.
#[derive(Debug)]
pub(crate) struct Window {
    places: Arc<Semaphore>,
    size: Mutex<Size>,
}

/// A place, until it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Window {
    pub(crate) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(MIN)), size: Mutex::new(Size::new()) }
    }

    /// Waits for a place.
    pub(crate) async fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Others follow, perhaps to another worker, whose answers may take longer by themselves.
    pub(crate) fn forget_least(&self) {
        lock(&self.size).least = Duration::MAX;
    }

    /// One has migrated: so long after it was offered its sender has heard of it.
    pub(crate) fn migrated(&self, place: Place, took: Duration) {
        match lock(&self.size).after(took) {
            Change::None => {}
            Change::Grow => self.places.add_permits(1),
            Change::Shrink => place.forget(),
        }
    }
}

/// The number of places, and what it follows.
#[derive(Debug)]
struct Size {
    places: usize,
    /// What an answer takes if nothing is waited for.
    least: Duration,
    /// Answers until the next change.
    until_change: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Grow,
    Shrink,
}

impl Size {
    fn new() -> Self {
        Self { places: MIN, least: Duration::MAX, until_change: MIN }
    }

    fn after(&mut self, took: Duration) -> Change {
        self.least = self.least.min(took);
        self.until_change = self.until_change.saturating_sub(1);
        if self.until_change > 0 {
            return Change::None;
        }
        let alone = if took == self.least { 1.0 } else { self.least.div_duration_f64(took) };
        let places = u32::try_from(self.places).unwrap_or(u32::MAX);
        let waiting = f64::from(places) * (1.0 - alone);
        let change = if waiting < WAITING.0 && self.places < MAX {
            self.places += 1;
            Change::Grow
        } else if waiting > WAITING.1 && self.places > MIN {
            self.places -= 1;
            Change::Shrink
        } else {
            Change::None
        };
        self.until_change = self.places;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places after many answers that take so long with so many places.
    fn settled(takes: impl Fn(usize) -> Duration) -> usize {
        let mut size = Size::new();
        for _ in 0..1_000 {
            size.after(takes(size.places));
        }
        size.places
    }

    #[test]
    fn those_that_wait_for_each_other_are_few_and_others_many() {
        let micros = |places: usize| u64::try_from(places).unwrap();
        // A processor does one after the other.
        assert_eq!(settled(|places| Duration::from_micros(250 * micros(places))), 3);
        // So does one behind others that work at the same time.
        assert_eq!(settled(|places| Duration::from_micros(250 * micros(places.max(3)))), 4);
        // A worker that takes its time, however many come.
        assert_eq!(settled(|_| Duration::from_millis(20)), MAX);
        assert_eq!(settled(|_| Duration::ZERO), MAX);
    }

    #[test]
    fn the_number_follows_what_changes() {
        let mut size = Size::new();
        for _ in 0..200 {
            size.after(Duration::from_millis(1));
        }
        assert_eq!(size.places, MAX);
        for _ in 0..400 {
            size.after(Duration::from_millis(40));
        }
        assert_eq!(size.places, MIN);
    }

    #[tokio::test]
    async fn places_are_given_and_taken_as_the_number_says() {
        let window = Window::new();
        for _ in 0..200 {
            let place = window.place().await.unwrap();
            window.migrated(place, Duration::from_millis(1));
        }
        assert_eq!(window.places.available_permits(), MAX);
        for _ in 0..400 {
            let place = window.place().await.unwrap();
            window.migrated(place, Duration::from_millis(40));
        }
        assert_eq!(window.places.available_permits(), MIN);
        window.forget_least();
        for _ in 0..200 {
            let place = window.place().await.unwrap();
            window.migrated(place, Duration::from_millis(40));
        }
        assert_eq!(window.places.available_permits(), MAX);
    }
}
