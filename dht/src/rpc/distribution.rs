//! The soft timeout on lines whose round trips are spread as the field's are.

use super::*;

/// A round trip of a log-normal line, in seconds (Box and Muller).
fn draw(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / 2f64.powi(32);
    let normal = (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    median * (sigma * normal).exp()
}

#[test]
fn soft_timeout_lies_about_the_95th_percentile_of_the_round_trips() {
    const WARM: usize = 200;
    const DRAWS: usize = 20_000;
    // Within the bounds of the config, so that it is the estimate that is looked at.
    for (seed, median, sigma) in
        [(1, 0.06, 0.65), (2, 0.09, 0.65), (3, 0.2, 0.65), (4, 0.15, 0.4), (5, 0.15, 0.9)]
    {
        let (config, mut rng) = (Config::default(), Rng::from_seed(seed));
        let mut socket = Socket::new(&config);
        let mut sample: Vec<f64> = (0..DRAWS).map(|_| draw(&mut rng, median, sigma)).collect();
        let mut timeouts = Vec::new();
        let mut late = 0;
        for (n, &rtt) in sample.iter().enumerate() {
            let timeout = socket.soft_timeout(Patience::Full, &config).as_secs_f64();
            if n >= WARM {
                timeouts.push(timeout);
                late += usize::from(rtt > timeout);
            }
            socket.measured(Duration::from_secs_f64(rtt));
        }
        sample.sort_by(f64::total_cmp);
        timeouts.sort_by(f64::total_cmp);
        let percentile = |percent: usize| sample[DRAWS * percent / 100];
        let middle = timeouts[timeouts.len() / 2];
        let late = late as f64 / timeouts.len() as f64;
        let told = format!(
            "median {median} s, sigma {sigma}: {middle:.3} s, {late:.4} are later; p90 {:.3}, p95 {:.3}, p99 {:.3}",
            percentile(90),
            percentile(95),
            percentile(99)
        );
        println!("{told}");
        assert!((percentile(90)..percentile(99)).contains(&middle), "{told}");
        assert!((0.03..0.08).contains(&late), "{told}");
    }
}
