//! Small swarms in the ordinary suite, large ones on demand.

mod churn;
mod economy;
mod fairness;
mod flash;
mod load;
