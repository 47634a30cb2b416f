//! [`Counters`]: what a crawl did, as plain numbers. A new one is one documented line in the table below.

/// Makes the struct and its list of names from one table.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the crawl began. They only grow.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in the order of their definition.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Queries sent, of all kinds.
    queries,
    /// Of those, the ones for samples.
    sample_queries,
    /// Of those, the ones that belong to a survey of the nodes nearest to a random point.
    survey_queries,
    /// Of those, the ones for nodes alone: to nodes outside of the region, and to such that a survey asks though
    /// their network has no seat for them or they have been asked before.
    node_queries,
    /// Of those, the ones for the sizes of swarms.
    scrape_queries,
    /// Of those, the pings of nodes that should answer, to find out whether the line works.
    pings,
    /// Queries that were answered, by an error too.
    answered,
    /// Queries that nobody answered.
    silent,
    /// Nodes that were silent while nobody answered, and that may be asked again.
    forgiven,
    /// Answers with samples.
    samples,
    /// Infohashes told, as often as they were told.
    infohashes,
    /// Of those, the ones outside of the region.
    infohashes_ignored,
    /// Answers to a question for samples that have none: errors, other nodes' answers, nonsense.
    refused,
    /// Nodes named in answers, as often as they were named.
    nodes_named,
    /// Nodes that were new, and had a place.
    nodes_new,
    /// Nodes named at addresses that no stranger may have, or of a family that we have no socket for.
    nodes_unusable,
    /// Surveys that came to a result.
    surveys,
    /// Surveys that found too few nodes, or could not ask them: there was no room, or nobody answered any more.
    surveys_failed,
    /// Swarms whose size was asked for.
    scrapes,
    /// Swarms that somebody told a size of.
    scrapes_answered,
    /// Swarms whose size was wanted while too many waited, or though no query may be spent on it.
    scrapes_dropped,
    /// Times that the rate was halved.
    slowed,
}
