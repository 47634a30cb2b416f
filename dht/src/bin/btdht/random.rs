//! Randomness of the system, for verbs that draw ids.

use btdht::{Rng, Seeds};

use crate::failure::Failure;

/// A generator that nobody else has.
pub(crate) fn rng() -> Result<Rng, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::other(format!("drawing random numbers: {error}")))?;
    Ok(Rng::new(Seeds(seed)))
}
