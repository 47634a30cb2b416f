//! Stepped tests of whole swarms.
