//! Small swarms in the ordinary suite, large ones on demand.

mod churn;
mod fairness;
mod flash;
mod load;
