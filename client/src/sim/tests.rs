//! Small swarms in the ordinary suite, large ones on demand.

mod flash;
mod load;
