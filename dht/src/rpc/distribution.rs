//! The soft timeout on lines whose round trips are spread as the field's are.

use super::*;

/// A round trip of a log-normal line, in seconds (Box and Muller).
fn draw(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 2f64.powi(32);
    let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    median * (sigma * normal).exp()
}

/// What share of 20,000 round trips is later than the soft timeout, the timeout's median in seconds, and the round
/// trips from the shortest to the longest.
fn late(seed: u64, (median, sigma): (f64, f64), patience: Patience) -> (f64, f64, Vec<f64>) {
    const WARM: usize = 200;
    let (config, mut rng) = (Config::default(), Rng::from_seed(seed));
    let mut socket = Socket::new(&config);
    let mut sample: Vec<f64> = (0..20_000).map(|_| draw(&mut rng, median, sigma)).collect();
    let (mut timeouts, mut late) = (Vec::new(), 0);
    for (n, &rtt) in sample.iter().enumerate() {
        let timeout = socket.soft_timeout(patience, &config).as_secs_f64();
        if n >= WARM {
            timeouts.push(timeout);
            late += usize::from(rtt > timeout);
        }
        socket.measured(Duration::from_secs_f64(rtt));
    }
    sample.sort_by(f64::total_cmp);
    timeouts.sort_by(f64::total_cmp);
    (late as f64 / timeouts.len() as f64, timeouts[timeouts.len() / 2], sample)
}

#[test]
fn soft_timeout_lies_about_the_percentile_of_the_round_trips_that_its_patience_names() {
    // Within the bounds of the config, so that it is the estimate that is looked at.
    for (seed, median, sigma) in
        [(1, 0.06, 0.65), (2, 0.09, 0.65), (3, 0.2, 0.65), (4, 0.15, 0.4), (5, 0.15, 0.9)]
    {
        for (patience, percents, shares) in [
            (Patience::Full, [90, 95, 99], 0.03..0.08),
            (Patience::InLookup, [86, 92, 96], 0.05..0.12),
            (Patience::AgainInLookup, [80, 87, 92], 0.09..0.18),
        ] {
            let (late, middle, sample) = late(seed, (median, sigma), patience);
            let [least, about, most] = percents.map(|percent| sample[sample.len() * percent / 100]);
            let told = format!(
                "{patience:?}, median {median} s, sigma {sigma}: {middle:.3} s, {late:.4} are later; \
                 p{percents:?} {least:.3} {about:.3} {most:.3}"
            );
            println!("{told}");
            assert!((least..most).contains(&middle), "{told}");
            assert!(shares.contains(&late), "{told}");
        }
    }
}
