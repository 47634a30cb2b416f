//! Counts what loops over pieces do, so that tests can say how work grows with their number. Outside
//! tests it is nothing.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The calling thread does so many steps.
#[cfg(test)]
pub(crate) fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// The calling thread does so many steps.
#[cfg(not(test))]
#[inline]
pub(crate) fn count(_: usize) {}

/// The steps of the calling thread during `work`.
#[cfg(test)]
pub(crate) fn of(work: impl FnOnce()) -> usize {
    let before = STEPS.get();
    work();
    STEPS.get() - before
}
